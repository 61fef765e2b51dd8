"""Writes of one turn of the event loop, sent together when it ends.

A small write costs the system more than the copying: it wakes whoever waits at the other end, and uvloop makes one for each call. Here what is
written to a connection in one turn becomes one write, and the writes of all connections follow one another: whoever they wake is awake already for
the second. Nothing waits longer than the loop takes for what it was to do anyway. Held bytes are bounded: a connection that has `MOST_BYTES` writes at once, as without this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

log = logging.getLogger(__name__)

MOST_BYTES: Final = 64 * 1024
"""What one connection holds at most."""


class Turn:
    """The connections of one event loop that have something to write when its turn ends."""

    _of: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, ref[Turn]]] = WeakKeyDictionary()
    """Weakly both ways: its connections hold it, and they hold the loop."""

    __slots__ = ("__weakref__", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Coalesced] = []

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Turn:
        """Return the one of `loop`."""
        known = cls._of.get(loop)
        turn = None if known is None else known()
        if turn is None:
            turn = cls()
            cls._of[loop] = ref(turn)
        return turn

    def end(self) -> None:
        """Write what is held."""
        waiting, self.waiting = self.waiting, []
        for connection in waiting:
            connection.flush()


class Coalesced:
    """A transport whose writes wait for the end of the turn. All else it does as the `transport` that it stands for.

    Closing it writes first what it holds; aborting it does not. What is held when the connection breaks is dropped, as a transport does.
    """

    __slots__ = ("__weakref__", "_held", "_loop", "_size", "_transport", "_turn", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._turn = Turn.of(loop)
        self._held: list[bytes | memoryview] = []
        self._size = 0
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes | memoryview) -> None:
        """Write `data` when the turn ends, in the order of the calls."""
        held = self._held
        if not held:
            waiting = self._turn.waiting
            if not waiting:
                self._loop.call_soon(self._turn.end)
            waiting.append(self)
        held.append(data)
        self._size += len(data)
        if self._size >= MOST_BYTES:
            self.flush()

    def writelines(self, parts: Iterable[bytes | memoryview]) -> None:
        """Write each of them, as `write` does."""
        for data in parts:
            self.write(data)

    def write_eof(self) -> None:
        """Say that nothing follows, once what was written is out."""
        self.flush()
        self._transport.write_eof()

    def flush(self) -> None:
        """Write now."""
        held = self._held
        if held:
            size, self._held, self._size = self._size, [], 0
            if self.is_closing():
                return
            try:
                if len(held) > 1 and size < MOST_BYTES:
                    held = [b"".join(held)]
                for data in held:
                    self._transport.write(data)
            except Exception:  # a wall: it broke at this moment, whatever by, and the others' writes are to go out
                log.exception("a connection broke as it was written to")
                self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes have not gone out."""
        return self._size + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close, once what was written is out."""
        self.flush()
        self._transport.close()
