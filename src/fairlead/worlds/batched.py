"""Many plans on many queries in waves, so that each target is loaded once per wave. After Symbolic-MoE (2025, arXiv 2503.05641), its batching.

All plans run in lockstep, nested ones included. A wave holds every call that some plan now waits for; calls are grouped by target, and each target is given its
group at once: whoever runs models in turn on one machine loads each of them once per wave, not once per question. For `recruit`
that is the gate, each distinct expert, and the aggregator, once each.

There is no clock, so what depends on one is decided otherwise:

- `Do.need`: the branches that start at once are all run to their end, and in branch order the first good ones count; the rest come back as cancelled, and are
  charged. A branch that starts later (`after`, `Late`) is not started unless too few of those before it were good.
- seconds are virtual: a step takes as long as its slowest branch that counts, without the wait for a load or for others.

Where no step has `need`, the answers, calls and costs are those of `fairlead.worlds.replay` and of the live world with the same outcomes. Limits are kept as
there, with two differences: branches of a step reserve side by side, and no call is broken off by a deadline: it is met before the next step.
Cost: about 40 µs per call beside the calls. Checked in tests/worlds/test_batched.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from functools import partial
from math import inf
from typing import TypeAlias, TypeVar

from fairlead.errors import LimitReached
from fairlead.types import UNLIMITED, Call, Do, Failure, Late, Limits, Outcome, Path, Plan, Query, Step
from fairlead.worlds.base import PATIENCE, Estimate, Meter, Run, answered, delays, halted

log = logging.getLogger(__name__)

CallMany: TypeAlias = Callable[[str, Sequence[Call], Sequence[Query]], Sequence[Outcome]]
"""Makes calls to one target, each for the query at its place, and returns an outcome for each, in their order. A call that fails is an outcome
with an error."""
T = TypeVar("T")
Asked: TypeAlias = tuple[Call, Query]
Waves: TypeAlias = Generator[list[Asked], list[Outcome], T]
"""Yields what is waited for, is sent what came back, in the same order."""
Ended: TypeAlias = tuple[Outcome, float]
"""An answer, and the virtual time at which it is there."""


def run_batch(
    pairs: Sequence[tuple[Plan, Query]],
    call_many: CallMany,
    *,
    limits: Limits = UNLIMITED,
    estimate: Estimate | None = None,
) -> list[Run]:
    """Run each plan on its query and return their runs, in the order of `pairs`.

    Args:
        pairs: plans and queries; the same plan may stand with many.
        call_many: makes the calls of one target and one wave. Targets of a wave are called by name in rising order.
        limits: what each run may take.
        estimate: upper bound of a call's cost, by which limits on spend are kept.

    Raises:
        ValueError: if `call_many` returns another number of outcomes than it was given calls. What it raises itself ends the batch.
    """
    runs = [_Run(query, Meter(limits, estimate)) for _, query in pairs]
    waves = _together([run.drive(plan, (), 0.0, run.meter) for run, (plan, _) in zip(runs, pairs, strict=True)])
    ends = _answered(waves, call_many)
    return [Run.of(outcome, run.steps, seconds) for run, (outcome, seconds) in zip(runs, ends, strict=True)]


class _Run:
    """One plan on one query."""

    def __init__(self, query: Query, meter: Meter) -> None:
        self.query, self.meter = query, meter
        self.steps: list[Step] = []

    def drive(self, plan: Plan, path: Path, now: float, meter: Meter) -> Waves[Ended]:
        """Run `plan`, a wave at a time."""
        steps = plan.run(self.query)
        go: Callable[[], Do] = partial(next, steps)
        n = throws = 0
        try:
            while True:
                do = go()
                while reached := meter.stop(now):
                    self.steps.append(Step(path=(*path, n), outcome=Outcome(error=halted(reached)), start_seconds=now))
                    n, throws = n + 1, throws + 1
                    if throws > PATIENCE:
                        return Outcome(error=halted(reached)), now
                    do = steps.throw(reached)
                outcomes, now = yield from self._do(do, (*path, n), now, meter.within(do.limits, now))
                n += 1
                go = partial(steps.send, outcomes)
        except StopIteration as stop:
            return answered(plan, stop.value), now
        except LimitReached as reached:
            return Outcome(error=halted(reached)), now
        except Exception as e:
            log.exception("plan %s broke", type(plan).__name__)
            return Outcome(error=Failure(kind="internal", message=f"plan broke: {type(e).__name__}: {e}")), now
        finally:
            steps.close()

    def _do(self, do: Do, path: Path, now: float, meter: Meter) -> Waves[tuple[tuple[Outcome, ...], float]]:
        after = delays(do, _last)
        count = len(do.branches)
        if do.need is None:
            left = max(0.0, meter.left_seconds(now))
            starts = [now + min(a, left) for a in after]
            ran = yield from self._branches(do, range(count), path, starts, meter)
            return tuple(outcome for outcome, _ in ran), max((end for _, end in ran), default=now)
        results: dict[int, Ended] = {}
        later = sorted(range(count), key=lambda i: after[i])
        while later and sum(1 for outcome, _ in results.values() if outcome.ok) < do.need:
            start = max((end for _, end in results.values()), default=now)
            # All that start at once, then one by one.
            begun = [i for i in later if after[i] == after[later[0]]] if not results else later[:1]
            ran = yield from self._branches(do, begun, path, [start] * len(begun), meter)
            results.update(zip(begun, ran, strict=True))
            later = [i for i in later if i not in results]
        good = [i for i in sorted(results) if results[i][0].ok][: do.need]
        count_too = good if len(good) == do.need else sorted(results)
        lost = Outcome(cancelled=True)
        back = tuple(results[i][0] if i in count_too else lost for i in range(count))
        return back, max((results[i][1] for i in count_too), default=now)

    def _branches(
        self, do: Do, which: Sequence[int], path: Path, starts: Sequence[float], meter: Meter
    ) -> Waves[list[Ended]]:
        """Run some branches side by side."""
        return _together(
            [
                self._call(branch, (*path, i), start, meter)
                if isinstance(branch, Call)
                else self.drive(branch, (*path, i), start, meter)
                for i, start in zip(which, starts, strict=True)
                for branch in (do.branches[i],)
            ]
        )

    def _call(self, call: Call, path: Path, now: float, meter: Meter) -> Waves[Ended]:
        reserved = meter.reserve(call, self.query)
        if isinstance(reserved, Failure):
            outcome, charged = Outcome(target=call.target, error=reserved), None
        else:
            (outcome,) = yield [(call, self.query)]
            outcome = meter.priced(call, self.query, outcome)
            charged = meter.settle(reserved, outcome)
        self.steps.append(Step(path=path, call=call, outcome=outcome, start_seconds=now, charged_usd=charged))
        return outcome, now + outcome.seconds


def _last(_: Late) -> float:
    """There is no clock to be late by: only if all others failed."""
    return inf


def _together(parts: Sequence[Waves[T]]) -> Waves[list[T]]:
    """Run several side by side: each wave holds what all of them wait for."""
    ended: dict[int, T] = {}
    waiting: dict[int, list[Asked]] = {}

    def go(i: int, found: list[Outcome] | None) -> None:
        try:
            waiting[i] = next(parts[i]) if found is None else parts[i].send(found)
        except StopIteration as stop:
            waiting.pop(i, None)
            ended[i] = stop.value

    for i in range(len(parts)):
        go(i, None)
    while waiting:
        found = yield [asked for calls in waiting.values() for asked in calls]
        at = 0
        for i, calls in list(waiting.items()):
            go(i, found[at : at + len(calls)])
            at += len(calls)
    return [ended[i] for i in range(len(parts))]


def _answered(waves: Waves[T], call_many: CallMany) -> T:
    """Answer wave after wave, a target at a time, until the end."""
    found: list[Outcome] | None = None
    try:
        while True:
            wave = next(waves) if found is None else waves.send(found)
            outcomes: dict[int, Outcome] = {}
            for target in sorted({call.target for call, _ in wave}):
                at = [i for i, (call, _) in enumerate(wave) if call.target == target]
                back = call_many(target, [wave[i][0] for i in at], [wave[i][1] for i in at])
                if len(back) != len(at):
                    raise ValueError(
                        f"{target} was given {len(at)} calls and gave {len(back)} outcomes; give one for each"
                    )
                outcomes.update(zip(at, back, strict=True))
            found = [outcomes[i] for i in range(len(wave))]
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        waves.close()
