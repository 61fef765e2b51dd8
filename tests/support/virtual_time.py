"""A loop whose clock jumps to the next timer instead of waiting for it, so that the live world is exact in tests and takes no time."""

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import fairlead.worlds.live


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that jumps to its next timer instead of waiting for it."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
            self._timer_cancelled_count -= 1
        if not self._ready and timers:  # type: ignore[attr-defined]
            self.now = max(self.now, timers[0]._when)
        super()._run_once()  # type: ignore[misc]


@contextmanager
def virtual_clock() -> Iterator[None]:
    """Let the live world and the drivers read the loop's clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fairlead.worlds.live, "perf_counter", lambda: asyncio.get_running_loop().time())
        patch.setattr("fairlead.targets.base.perf_counter", lambda: asyncio.get_running_loop().time())
        yield


def virtually(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on such a loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(make())
