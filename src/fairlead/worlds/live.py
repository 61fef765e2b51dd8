"""The live world: a plan against real targets, in asyncio.

One `LiveRun` runs one plan. It keeps the record as it goes, so that when the client leaves in mid-run (the task is cancelled) what
was called and spent until then is still there to be traced. A failed call is an outcome; only cancellation is raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

import msgspec

from fairlead.errors import LimitReached, TargetError
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.pool import Health, Pool
from fairlead.targets.base import Driver
from fairlead.types import UNLIMITED, Call, Do, Failure, Late, Limits, Outcome, Path, Plan, Query, Sink, Step
from fairlead.worlds.base import PATIENCE, Cover, Estimate, Meter, More, Run, answered, delays, halted
from fairlead.worlds.lanes import Lanes
from fairlead.worlds.lateness import Lateness
from fairlead.worlds.retries import Retries

log = logging.getLogger(__name__)


class Live:
    """The drivers that calls go to, and the health and latencies that they report to.

    Without an `estimate` nothing is reserved: a limit on spend is then only noticed after the call that reached it. Without `retries` a call
    is sent once; without `lanes` no call waits for its turn.
    """

    def __init__(
        self,
        *,
        drivers: Mapping[str, Driver],
        health: Health | None = None,
        estimate: Estimate | None = None,
        lateness: Lateness | None = None,
        lanes: Lanes | None = None,
        retries: Retries | None = None,
    ) -> None:
        self.lanes = lanes
        self.retries = retries
        self.drivers = drivers
        self.health = health
        self.estimate = estimate
        self.lateness = lateness or Lateness(once=self._once)

    def _once(self, name: str, query: Query) -> bool:
        """Whether a call must not be sent twice, as far as drivers know: for a world without a pool."""
        return Pool(targets=(d.target for n, d in self.drivers.items() if n == name)).once(name, query)

    def take_over(self, other: Live) -> None:
        """Go on with what `other`, whose calls may still be under way, knows: who is asked how often at once, how long they take."""
        self.lateness.take_over(other.lateness)
        if self.lanes is not None and other.lanes is not None:
            self.lanes.take_over(other.lanes)
        if self.retries is not None and other.retries is not None:
            self.retries.earned = other.retries.earned

    def open(
        self,
        plan: Plan,
        query: Query,
        *,
        limits: Limits = UNLIMITED,
        sink: Sink | None = None,
        cover: Cover | None = None,
        more: More | None = None,
    ) -> LiveRun:
        """Make a run, not yet begun. `cover`: asked before each call, where many runs share a budget; `more`: asked when it says no."""
        return LiveRun(self, plan, query, limits, sink, cover, more)

    async def run(self, plan: Plan, query: Query, *, limits: Limits = UNLIMITED, sink: Sink | None = None) -> Run:
        """Run `plan` to its end."""
        return await self.open(plan, query, limits=limits, sink=sink).go()


class LiveRun:
    """One plan being run. `steps` grows as calls come back."""

    def __init__(
        self,
        world: Live,
        plan: Plan,
        query: Query,
        limits: Limits,
        sink: Sink | None,
        cover: Cover | None = None,
        more: More | None = None,
    ) -> None:
        self.world, self.plan, self.query, self.sink, self.more = world, plan, query, sink, more
        self.meter = Meter(limits, world.estimate, cover)
        self.steps: list[Step] = []
        self.answering: tuple[str, Path] | None = None
        """The target whose reply goes to the client as it comes, and the address of that call."""
        self.start = perf_counter()

    async def go(self) -> Run:
        """Run the plan to its end."""
        return self.close(await self._branch(self.plan, (), self.sink, self.meter))

    def close(self, outcome: Outcome) -> Run:
        """Sum up with `outcome` as the answer; also for a run that was cancelled."""
        return Run.of(outcome, self.steps, self._elapsed())

    def _elapsed(self) -> float:
        return perf_counter() - self.start

    async def _drive(self, plan: Plan, path: Path, sink: Sink | None, meter: Meter) -> Outcome:
        steps = plan.run(self.query)
        outcomes: tuple[Outcome, ...] | None = None
        n = throws = 0
        try:
            while True:
                do = next(steps) if outcomes is None else steps.send(outcomes)
                while reached := meter.stop(self._elapsed()):
                    self._note((*path, n), Outcome(error=halted(reached)))
                    n, throws = n + 1, throws + 1
                    if throws > PATIENCE:
                        return Outcome(error=halted(reached))
                    do = steps.throw(reached)
                branches = do.branches
                if (
                    len(branches) == 1 and do.after is None and do.need is None and do.limits is None
                ):  # most steps are one call
                    outcomes = (await self._branch(branches[0], (*path, n, 0), sink if do.final else None, meter),)
                else:
                    outcomes = await self._do(do, (*path, n), sink, meter)
                n += 1
        except StopIteration as stop:
            return answered(plan, stop.value)
        except LimitReached as reached:
            return Outcome(error=halted(reached))
        except Exception as e:
            log.exception("plan %s broke", type(plan).__name__)
            return _broke(e)
        finally:
            steps.close()

    async def _do(self, do: Do, path: Path, sink: Sink | None, meter: Meter) -> tuple[Outcome, ...]:
        branches = do.branches
        after = delays(do, partial(self.world.lateness.delay, branches=branches, query=self.query))
        meter = meter.within(do.limits, self._elapsed())
        if len(branches) == 1 and not after[0]:
            return (await self._branch(branches[0], (*path, 0), sink if do.final else None, meter),)
        starts = [_Start(seconds, late) for seconds, late in zip(after, do.after or after, strict=True)]
        tasks = [
            asyncio.ensure_future(self._later(start, b, (*path, i), meter))
            for i, (b, start) in enumerate(zip(branches, starts, strict=True))
        ]
        pending: set[asyncio.Task[Outcome]] = set(tasks)
        need = len(tasks) if do.need is None else do.need
        back = 0
        try:
            while pending and back < need:
                if do.need is not None:
                    _hurry(starts, tasks)
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                back += sum(1 for t in done if do.need is None or (not t.cancelled() and t.result().ok))
        finally:
            for t in pending:
                t.cancel()
            if pending:
                await asyncio.gather(*pending, return_exceptions=True)
            # Noted here and not in the branch, which may be cancelled before it has begun.
            for i, t in enumerate(tasks):
                if t.cancelled() and not isinstance(branches[i], Call):
                    self._note((*path, i), Outcome(cancelled=True))
        return tuple(Outcome(cancelled=True) if t.cancelled() else t.result() for t in tasks)

    async def _later(self, start: _Start, branch: Call | Plan, path: Path, meter: Meter) -> Outcome:
        """Run a branch when its turn has come."""
        if start.seconds:
            seconds = start.seconds
            if start.late is None:  # a duplicate with no time left would only use up the share
                seconds = max(0.0, min(seconds, meter.left_seconds(self._elapsed())))
            on_time = not await start.hurried(None if seconds == inf else seconds)
            if on_time and start.late is not None and not self.world.lateness.take(start.late):
                await start.hurried(None)
        start.begun = True
        return await self._branch(branch, path, None, meter)

    def _branch(self, branch: Call | Plan, path: Path, sink: Sink | None, meter: Meter) -> Coroutine[Any, Any, Outcome]:
        if isinstance(branch, Call):
            return self._call(branch, path, sink, meter)
        if isinstance(branch, Single) and meter.stop(self._elapsed()) is None:
            return self._single(branch, path, sink, meter)
        return self._drive(branch, path, sink, meter)

    async def _single(self, plan: Single, path: Path, sink: Sink | None, meter: Meter) -> Outcome:
        """Do what `_drive` would of the plan that most are, at half the price."""
        try:
            return await self._call(Call(target=plan.target), (*path, 0, 0), sink, meter)
        except Exception as e:
            log.exception("plan %s broke", type(plan).__name__)
            return _broke(e)

    async def _call(self, call: Call, path: Path, sink: Sink | None, meter: Meter) -> Outcome:
        start = self._elapsed()
        if sink is not None:
            self.answering = (call.target, path)
        reserved = meter.reserve(call, self.query)
        if isinstance(reserved, Failure) and self.more is not None and self.world.estimate is not None:
            usd = self.world.estimate(call, self.query)
            if usd is not None and await self.more(self.meter.spent_usd + self.meter.reserved_usd + usd):
                reserved = meter.reserve(call, self.query)
        if isinstance(reserved, Failure):
            outcome = Outcome(target=call.target, error=reserved)
            self.steps.append(Step(path=path, call=call, outcome=outcome, start_seconds=start))
            return outcome
        outcome, was = Outcome(target=call.target, cancelled=True), _Was()
        health = self.world.health
        if health is not None:
            health.began(call.target)
        try:
            driver = self.world.drivers.get(call.target)
            if driver is None:
                failure = Failure(kind="not_found", message=f"no target is called {call.target!r}")
                outcome = Outcome(target=call.target, error=failure)
            else:
                outcome = await self._ask(driver, call, path, sink, meter, was)
        finally:
            if outcome.cancelled:
                seconds = self._elapsed() - start - was.waiting
                outcome = msgspec.structs.replace(outcome, seconds=seconds, usd=None if was.out else 0.0)
                if health is not None:
                    health.ended(call.target)
            outcome = meter.priced(call, self.query, outcome)
            charged = meter.settle(reserved, outcome)
            step = Step(
                path=path,
                call=call,
                outcome=outcome,
                start_seconds=start,
                charged_usd=charged,
                waited_seconds=was.waiting,
            )
            self.steps.append(step)
            self.world.lateness.note(outcome)
        if health is not None:
            if outcome.error is None:
                health.succeeded(call.target)
            else:
                health.failed(call.target, outcome.error)
        return outcome

    async def _ask(self, driver: Driver, call: Call, path: Path, sink: Sink | None, meter: Meter, was: _Was) -> Outcome:
        """Ask a driver when it is this call's turn, and again after failures that cost nothing. `was` is told how it stands with it."""
        most, retries, tried = driver.profile.concurrent, self.world.retries, 0
        lanes = None if most is None else self.world.lanes
        if retries is not None:
            retries.note(call.target)
        while True:
            began = self._elapsed()
            try:
                if lanes is not None and most is not None:
                    await lanes.enter(call.target, most, self.query, within_seconds=meter.left_seconds(began))
            except TargetError as e:
                return Outcome(target=call.target, error=e.failure, retries=tried)
            finally:
                was.waiting += self._elapsed() - began
            try:
                left = meter.left_seconds(self._elapsed())
                was.out = True
                outcome = await driver.ask(call, self.query, sink, within_seconds=left)
            finally:
                if lanes is not None and most is not None:
                    lanes.leave(call.target, most)
            if outcome.error is None or retries is None:
                break
            left = meter.left_seconds(self._elapsed())
            seconds = retries.wait(outcome, call.target, tried=tried, last=self._is_last(path), left_seconds=left)
            if seconds is None:
                break
            tried += 1
            was.out = False  # what it was refused for cost nothing
            was.waiting += outcome.seconds
            began = self._elapsed()
            try:
                await asyncio.sleep(seconds)
            finally:
                was.waiting += self._elapsed() - began
        return msgspec.structs.replace(outcome, retries=tried) if tried else outcome

    def _is_last(self, path: Path) -> bool:
        """Whether no other plan takes over if the call at `path` fails."""
        return not isinstance(self.plan, Fallback) or path[0] >= len(self.plan.plans) - 1

    def _note(self, path: Path, outcome: Outcome) -> None:
        self.steps.append(Step(path=path, outcome=outcome, start_seconds=self._elapsed()))


class _Was:
    """How it stands with one call: what is to be known of it if its asker goes away."""

    __slots__ = ("out", "waiting")

    def __init__(self) -> None:
        self.out = False
        """Whether its target may be at work for it."""
        self.waiting = 0.0
        """Seconds that it waited for its turn, and to be sent again, refused attempts included."""


class _Start:
    """When one branch of a step starts."""

    __slots__ = ("begun", "late", "now", "seconds")

    def __init__(self, seconds: float, late: float | Late) -> None:
        self.seconds = seconds
        self.late = late if isinstance(late, Late) else None
        self.begun = not seconds
        self.now = asyncio.Event()

    async def hurried(self, seconds: float | None) -> bool:
        """Wait so many seconds (None: for ever), or until it is to start at once: then say so."""
        try:
            await asyncio.wait_for(self.now.wait(), seconds)
        except TimeoutError:
            return False
        # Python 3.11 swallows a cancellation that comes when the event is already set.
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError
        return True


def _hurry(starts: Sequence[_Start], tasks: Sequence[asyncio.Task[Outcome]]) -> None:
    """Have the next branch start at once if all that have started are back: they failed, or nobody would ask."""
    waiting = [s for s in starts if not s.begun]
    begun = [t for s, t in zip(starts, tasks, strict=True) if s.begun]
    if waiting and begun and all(t.done() for t in begun):
        first = min(waiting, key=lambda s: s.seconds)
        first.begun = True
        first.now.set()


def _broke(e: Exception) -> Outcome:
    return Outcome(error=Failure(kind="internal", message=f"plan broke: {type(e).__name__}: {e}"))
