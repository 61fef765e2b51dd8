"""The replay world: the same plan on recorded outcomes, without inference and without a clock.

From a **trace** (`Recorded`) outcomes are looked up by path, and the limits and cancellations that the live run met happen again at
the same steps: the same plan gives the very same answer.

From a **table** (`Tabled`) outcomes are looked up by target and sample. Time is virtual: a branch takes the seconds that were
recorded, so `need` and `after` work as they do live. A call of a loser that had begun is charged in full, since a table does not say
how far it had come; calls that would have begun after the loser was stopped cost nothing. Branches of one step run one after the other,
so under a limit an earlier branch is served first, where live they race.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from math import inf

from fairlead.errors import LimitReached, OutOfBudget, OutOfTime
from fairlead.types import UNLIMITED, Call, Do, Failure, Late, Limits, Outcome, Path, Plan, Query, Step
from fairlead.worlds.base import PATIENCE, Estimate, Meter, Run, answered, delays, halted
from fairlead.worlds.lateness import Lateness

log = logging.getLogger(__name__)


class LookUp(ABC):
    """Where recorded outcomes come from."""

    @abstractmethod
    def outcome(self, call: Call, path: Path) -> Outcome | None:
        """Return what came back from `call`; None if it was never begun."""

    def limit(self, path: Path) -> LimitReached | None:
        """Return the limit that was recorded at this step."""
        return None

    def cancelled(self, path: Path) -> list[Step] | None:
        """Return what had been recorded inside this branch when it was cancelled; None if it was not."""
        return None

    timed: bool = True
    """Whether `need` and `after` are decided by virtual time (else by what the record says)."""
    lateness: Lateness | None = None
    """Latencies over many runs, by which duplicates start; None: after `Late.otherwise`, as often as they are wanted."""


class Recorded(LookUp):
    """Outcomes of one trace, by path."""

    timed = False

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps = tuple(steps)
        self.calls = {s.path: s.outcome for s in self.steps if s.call is not None}
        self.notes = {s.path: s.outcome for s in self.steps if s.call is None}

    def outcome(self, call: Call, path: Path) -> Outcome | None:
        """Look up by path."""
        return self.calls.get(path)

    def limit(self, path: Path) -> LimitReached | None:
        """Read the limit off the note at this step."""
        note = self.notes.get(path)
        if note is None or note.error is None:
            return None
        return (OutOfTime if note.error.kind == "deadline" else OutOfBudget)(note.error.message)

    def cancelled(self, path: Path) -> list[Step] | None:
        """Collect the steps under a branch that was cancelled."""
        note = self.notes.get(path)
        if note is None or not note.cancelled:
            return None
        return [s for s in self.steps if s.path[: len(path)] == path]


def replay(
    plan: Plan, query: Query, look_up: LookUp, *, limits: Limits = UNLIMITED, estimate: Estimate | None = None
) -> Run:
    """Run `plan` on recorded outcomes. `limits` matter for tables; a trace brings its own."""
    return _Replay(query, look_up, Meter(limits, estimate)).go(plan)


class _Replay:
    def __init__(self, query: Query, look_up: LookUp, meter: Meter) -> None:
        self.query, self.look_up, self.meter = query, look_up, meter
        self.steps: list[Step] = []
        self.reserved: dict[Path, tuple[Meter, float]] = {}

    def go(self, plan: Plan) -> Run:
        outcome, seconds = self._drive(plan, (), 0.0, self.meter)
        return Run.of(outcome, self.steps, seconds)

    def _drive(self, plan: Plan, path: Path, now: float, meter: Meter) -> tuple[Outcome, float]:
        """Return the answer and the (virtual) time at which it is there."""
        steps = plan.run(self.query)
        outcomes: tuple[Outcome, ...] | None = None
        n = throws = 0
        try:
            while True:
                do = next(steps) if outcomes is None else steps.send(outcomes)
                while reached := self.look_up.limit((*path, n)) or meter.stop(now):
                    note = Step(path=(*path, n), outcome=Outcome(error=halted(reached)), start_seconds=now)
                    self.steps.append(note)
                    n, throws = n + 1, throws + 1
                    if throws > PATIENCE:
                        return Outcome(error=halted(reached)), now
                    do = steps.throw(reached)
                outcomes, now = self._do(do, (*path, n), now, meter)
                n += 1
        except StopIteration as stop:
            return answered(plan, stop.value), now
        except LimitReached as reached:
            return Outcome(error=halted(reached)), now
        except Exception as e:
            log.exception("plan %s broke", type(plan).__name__)
            return Outcome(error=Failure(kind="internal", message=f"plan broke: {type(e).__name__}: {e}")), now
        finally:
            steps.close()

    def _do(self, do: Do, path: Path, now: float, meter: Meter) -> tuple[tuple[Outcome, ...], float]:
        after = delays(do, partial(self._late, do))
        if not self.look_up.timed:
            ran = [self._branch(b, (*path, i), now, meter) for i, b in enumerate(do.branches)]
            return tuple(o for o, _ in ran), max([end for _, end in ran], default=now)
        meter = meter.within(do.limits, now)
        left = max(0.0, meter.left_seconds(now))
        if do.need is None:
            ran = [self._branch(b, (*path, i), now + min(after[i], left), meter) for i, b in enumerate(do.branches)]
            return tuple(o for o, _ in ran), max([end for _, end in ran], default=now)
        # In order of start: a branch begins unless enough good answers were back before its turn came; at once if all others failed.
        results: dict[int, tuple[Outcome, float]] = {}
        taken: dict[int, tuple[int, int]] = {}
        for i in sorted(range(len(after)), key=lambda i: after[i]):
            rule = do.after is not None and isinstance(do.after[i], Late)
            start = now + (after[i] if rule or after[i] == inf else min(after[i], left))
            all_back = max([end for _, end in results.values()], default=now)
            if sum(1 for o, end in results.values() if o.ok and end < start) >= do.need:
                continue
            if results and all_back < start:
                start = all_back
            elif not self._may_start(do, i):
                if sum(1 for o, _ in results.values() if o.ok) >= do.need:
                    continue
                start = all_back
            since = len(self.steps)
            results[i] = self._branch(do.branches[i], (*path, i), start, meter)
            taken[i] = (since, len(self.steps))
        ends = sorted(end for o, end in results.values() if o.ok)
        until = ends[do.need - 1] if len(ends) >= do.need else max([end for _, end in results.values()], default=now)
        lost = Outcome(cancelled=True)
        losers = [taken[i] for i, (_, end) in results.items() if end > until]
        for since, to in sorted(losers, reverse=True):
            self._cut(since, to, until)
        back = [results.get(i, (lost, now)) for i in range(len(after))]
        return tuple(o if end <= until else lost for o, end in back), until

    def _late(self, do: Do, late: Late) -> float:
        lateness = self.look_up.lateness
        return late.otherwise if lateness is None else lateness.delay(late, do.branches, self.query)

    def _may_start(self, do: Do, i: int) -> bool:
        late, lateness = None if do.after is None else do.after[i], self.look_up.lateness
        return not isinstance(late, Late) or lateness is None or lateness.take(late)

    def _cut(self, since: int, to: int, until: float) -> None:
        """Take back what a loser would only have begun after it was stopped."""
        kept = []
        for step in self.steps[since:to]:
            if step.start_seconds <= until:
                kept.append(step)
            elif step.call is not None and (step.outcome.error is None or step.outcome.error.kind != "budget"):
                meter, reserved = self.reserved[step.path]
                meter.strike(step.call, reserved, step.outcome)
        self.steps[since:to] = kept

    def _branch(self, branch: Call | Plan, path: Path, now: float, meter: Meter) -> tuple[Outcome, float]:
        if isinstance(branch, Call):
            return self._call(branch, path, now, meter)
        stopped = self.look_up.cancelled(path)
        if stopped is not None:
            self.steps.extend(stopped)
            return Outcome(cancelled=True), now
        return self._drive(branch, path, now, meter)

    def _call(self, call: Call, path: Path, now: float, meter: Meter) -> tuple[Outcome, float]:
        outcome = self.look_up.outcome(call, path)
        if outcome is None:
            return Outcome(cancelled=True), now
        if outcome.cancelled and not self.look_up.timed:
            # The plan was told no more than that; what the call had cost stays on the record.
            self.steps.append(Step(path=path, call=call, outcome=outcome, start_seconds=now))
            return Outcome(cancelled=True), now + outcome.seconds
        if self.look_up.timed:
            reserved = meter.reserve(call, self.query)
            if isinstance(reserved, Failure):
                outcome = Outcome(target=call.target, error=reserved)
            else:
                left = meter.left_seconds(now)
                if left <= 0.0:
                    failure = Failure(kind="deadline", message=f"no time left for {call.target}")
                    outcome = Outcome(target=call.target, usd=0.0, error=failure)
                elif outcome.seconds > left:
                    failure = Failure(kind="deadline", message=f"the deadline passes while {call.target} answers")
                    outcome = Outcome(target=call.target, error=failure, usd=outcome.usd, seconds=left)
                outcome = meter.priced(call, self.query, outcome)
                self.reserved[path] = meter, reserved
                meter.settle(reserved, outcome)
                if self.look_up.lateness is not None:
                    self.look_up.lateness.note(outcome)
        self.steps.append(Step(path=path, call=call, outcome=outcome, start_seconds=now))
        return outcome, now + outcome.seconds
