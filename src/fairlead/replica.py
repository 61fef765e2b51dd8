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
from secrets import token_hex
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

    async def start(self) -> None:
        """Begin to look, if that has not begun."""
        if self._task is not None:
            return
        self._task = asyncio.create_task(self._keep(), name="fairlead-replica")

    async def stop(self) -> None:
        """Look no more, and let another lead."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self.leads:
            self.leads = False
            try:
                await asyncio.to_thread(self.router.store.lease, "learner", self.owner, 0.0)
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
            await asyncio.sleep(self.look_seconds)

    def look(self) -> None:
        """Serve the active versions, and, as the one that learns, take up the lessons that wait. Blocks."""
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
            for route in router.policies:
                for trace, lesson in router.store.unlearned(route, limit=LESSONS):
                    router.learner.submit(route, trace, rewards.reward(trace, lesson))
