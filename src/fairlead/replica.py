"""One router of several on one store: who learns, and how the others come by it.

Lessons wait in the store, whoever took the judgement. One replica at a time holds the lease ``learner``: it takes up all lessons that wait, and publishes
versions. Every replica looks each second which version of its routes is the active one, and serves that: so what one has learned, or an operator has rolled
back, is everywhere a second or two later. A leader that dies is succeeded when its lease lapses, and since a lesson stays in the store until the version
that has learned it is written, nothing is lost or learned twice.

While the store cannot be asked, each replica serves on with what it has; the lessons come later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Final

from fairlead import rewards
from fairlead.errors import FairleadError

if TYPE_CHECKING:
    from fairlead.router import Router

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 1.0
LESSONS: Final = 1000
"""Lessons taken up at a time."""
PAUSE_SECONDS: Final = 60.0
"""From one try to the next, at most, of a lesson that could not be learned or published."""


class Replica:
    """Keeps a router in step with the others on its store.

    Args:
        router: whose policies.
        look_seconds: from one look at the store to the next.
    """

    def __init__(self, router: Router, *, look_seconds: float = LOOK_SECONDS) -> None:
        self.router, self.look_seconds = router, look_seconds
        self.owner = token_hex(8)
        self.leads = False
        """Whether this replica is the one that learns."""
        self._task: asyncio.Task[None] | None = None
        self._lost = False
        self._looking = threading.Lock()
        """Held by a look, whose thread goes on when its task is cancelled."""
        self._ended = False
        self._tried: dict[tuple[str, str], tuple[float, float]] = {}
        """Lessons that were taken up and wait still, by route and trace: when to try again, and how long to wait after that."""

    async def start(self) -> None:
        """Begin to look, if that has not begun."""
        if self._task is not None:
            return
        self._ended = False
        self._task = asyncio.create_task(self._keep(), name="fairlead-replica")

    async def stop(self) -> None:
        """Look no more, and let another lead."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        """Give the lease back, when the look that is under way has ended."""
        with self._looking:
            if self.leads:
                self.leads = False
                try:
                    self.router.store.lease("learner", self.owner, 0.0)
                except FairleadError as e:
                    log.warning("the learner's lease could not be given back (%s); it lapses in %g s", e, LEASE_SECONDS)

    async def _keep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.look)
                if self._lost:
                    log.warning("the store is back; this replica is in step again")
                self._lost = False
            except FairleadError as e:
                if not self._lost:
                    log.error("the store cannot be looked at, so this replica serves on with what it has: %s", e)
                self._lost = True
            except Exception:  # the wall of the background: without it this replica would serve old versions for ever
                log.exception("a look at the store broke; it is tried again")
            await asyncio.sleep(self.look_seconds)

    def look(self) -> None:
        """Serve the active versions, and, as the one that learns, take up the lessons that wait. Nothing once it is stopped. Blocks."""
        with self._looking:
            if not self._ended:
                self._look()

    def _look(self) -> None:
        router = self.router
        self.leads = router.store.lease("learner", self.owner, LEASE_SECONDS)
        if not router.learner.wait(0.0):
            return  # what is being learned is published before anything else
        for route in router.policies:
            active, now = router.store.active(route), router.serving.get(route)
            if active is not None and now is not None and active.version != now.version:
                resumed = router.resume(route)
                if resumed is not None:
                    router.serving[route] = resumed
        if self.leads:
            at, waiting = monotonic(), dict[tuple[str, str], tuple[float, float]]()
            for route in router.policies:
                for trace, lesson in router.store.unlearned(route, limit=LESSONS):
                    key = route, trace.id
                    again, pause = self._tried.get(key, (at, 0.0))
                    if again <= at:  # the longer, the more often it was tried in vain
                        router.learner.submit(route, trace, rewards.reward(trace, lesson))
                        again, pause = at + pause, min(max(2.0 * pause, self.look_seconds), PAUSE_SECONDS)
                    waiting[key] = again, pause
            self._tried = waiting
