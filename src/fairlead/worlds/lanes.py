"""Lanes: how many calls a target takes at once, and who is next. Ours, no paper.

A target whose profile names `concurrent` gets no more calls than that from one process. Others wait in line, at most `waiting` of them and each at most
`seconds`, then they fail as ``busy``, which costs nothing and lets another target take over. The line is fair: askers (a tenant, else a key, else a
user) take turns, whoever has sent a thousand waits behind his own, not in front of everybody.

A call that finds room passes at 0.5 µs.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from fairlead.errors import TargetError
from fairlead.types import Failure, Query


class Lanes:
    """The lines of one process.

    Args:
        waiting: how many may wait for one target.
        seconds: how long each waits at most.
    """

    def __init__(self, *, waiting: int = 200, seconds: float = 30.0) -> None:
        self.waiting, self.seconds = waiting, seconds
        self._lanes: dict[str, _Lane] = {}

    def take_over(self, other: Lanes) -> None:
        """Go on with the lines of `other`: its calls and ours take turns."""
        self._lanes = other._lanes

    def under_way(self, name: str) -> tuple[int, int]:
        """Return how many calls a target has, and how many wait. Only of targets with a limit."""
        lane = self._lanes.get(name)
        return (0, 0) if lane is None else (lane.busy, lane.waiting)

    async def enter(self, name: str, most: int, query: Query, *, within_seconds: float) -> None:
        """Wait for a turn at a target that takes `most` calls at once. `leave` must be called when the call has ended.

        Raises:
            TargetError: ``busy`` if the line is too long or the wait was; ``deadline`` if the asker's own time was up first.
        """
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        if lane.busy < most and not lane.waiting:
            lane.busy += 1
            return
        if lane.waiting >= self.waiting:
            raise TargetError(_busy(name, f"{lane.busy} calls are under way and {lane.waiting} wait"))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        who = query.identity
        asker = who.tenant or who.key or who.user or ""
        lane.add(asker, turn)
        try:
            async with asyncio.timeout(min(self.seconds, within_seconds)):
                await turn
        except BaseException as e:
            if turn.done() and not turn.cancelled():
                lane.free(most)  # the turn came with the end of the wait
            else:
                lane.drop(asker, turn)
            if isinstance(e, TimeoutError):
                if within_seconds <= self.seconds:
                    failure = Failure(kind="deadline", message=f"the deadline passed while {name} was busy")
                    raise TargetError(failure) from e
                raise TargetError(_busy(name, f"no turn came in {self.seconds:g} s")) from e
            raise

    def leave(self, name: str, most: int) -> None:
        """End a call: whoever is next begins."""
        self._lanes[name].free(most)


class _Lane:
    """The line before one target."""

    __slots__ = ("busy", "lines", "waiting")

    def __init__(self) -> None:
        self.busy = self.waiting = 0
        self.lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Those who wait, by asker; whose turn it is stands first."""

    def add(self, asker: str, turn: asyncio.Future[None]) -> None:
        self.lines.setdefault(asker, deque()).append(turn)
        self.waiting += 1

    def drop(self, asker: str, turn: asyncio.Future[None]) -> None:
        line = self.lines.get(asker)
        if line is not None and turn in line:
            line.remove(turn)
            self.waiting -= 1
            if not line:
                del self.lines[asker]

    def free(self, most: int) -> None:
        """A call has ended: give its place to the next, of another asker than the last where there is one."""
        self.busy -= 1
        while self.lines and self.busy < most:
            asker, line = next(iter(self.lines.items()))
            turn = line.popleft()
            self.waiting -= 1
            if line:
                self.lines.move_to_end(asker)
            else:
                del self.lines[asker]
            if not turn.done():
                self.busy += 1
                turn.set_result(None)


def _busy(name: str, why: str) -> Failure:
    return Failure(kind="busy", message=f"{name} is busy: {why}", retry_after_seconds=1.0)
