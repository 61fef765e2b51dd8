"""The guard rail and the canary in simulation: false alarms under continuous looking, time to detection, and what stepping back saves.

    [FAIRLEAD_DATA=…] python benchmarks/rollout.py [--streams 1000] [--runs 20] [--nulls 200] [--json] [--check]

Evidence alone: streams of 4,000 judged 0/1 answers. The baseline is right for 0.7 and served on a known share, the policy for 0.7 less the
gap on the rest; alpha = 0.05. Beside it a one-sided z test of the same numbers: looked at after every answer from the 50th, as
people do, and looked at once, at the end. Without a gap four times as many streams, for there a rate is held to a bar.

The whole policy: `guarded` (explore 0.1, alpha 0.05) around one target, three targets in all, 3,000 answers, each judged at once. Mean
quality with the guard, without it, and of the fixed target alone, over the last 1,000 answers. One case has costs: the policy beats the fixed
target, but not the mix of two others at what it costs itself.

The same where there is nothing to find, 1,000 answers in each of `--nulls` runs: all targets alike, and the policy exactly as good as the mix
at equal cost. Counted is whether it ever stepped back.

Recorded outcomes, if `--data` or FAIRLEAD_DATA names them: `thompson` on ``rational_cascades_train``, 3,000 queries drawn with replacement,
alone and under guard with the best target of the table as the fixed one; once with honest judgements, once with the first 500 flipped
(the figures are of the truth). Mean utility over 3 seeds.

Must, each within two standard errors: false alarms of the evidence at 0.05 or less; step-backs without cause at 0.025 or less, which is what the guard
may spend on its first spell. A policy that is worse than the fixed target by 0.4 is found in 95% of the streams at every share from 0.05, and
it, and the one that is worse than the mix, is stepped back from in every run. The guarantee is an upper bound, and the evidence stays below it by
half: with evidence counted double the streams miss their mark, the whole policy misses its own only with evidence times five or more. That its bar
is the right one, twice as high for two baselines, is held exactly by tests/policies/test_rollout.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from fairlead.objective import Objective
from fairlead.policies.base import Policy
from fairlead.policies.fixed import Fixed
from fairlead.policies.guarded import Guarded
from fairlead.policies.thompson import Thompson
from fairlead.pool import Pool
from fairlead.sequential import begin, e_value, weigh
from fairlead.table import OutcomeTable
from fairlead.testing import observer_of
from fairlead.types import Outcome, Query, Reward, Signals, Target, Trace

ALPHA, ANSWERS, RIGHT = 0.05, 4000, 0.7
FIRST = ALPHA / 2.0
"""What a guard may spend of alpha on its first spell: alpha / (k (k + 1)) in spell k."""
USD = {"fixed": 0.08, "learned": 0.04, "third": 0.0}
COSTS: dict[str, Any] = {"objective": Objective(usd_weight=20.0), "explore": 0.2}
"""With these an even mix of `fixed` and `third` costs what `learned` does."""
POOL = Pool(targets=tuple(Target(name=name) for name in ("fixed", "learned", "third")))


def stream(gap: float, share: float, change: int, streams: int, seed: int) -> dict[str, Any]:
    """Return how often and when the evidence passes its bar, where the policy is as good as the baseline up to answer `change`."""
    rng = np.random.default_rng(seed)
    low = min(-RIGHT / share, -(1.0 - RIGHT) / (1.0 - share))
    evidence, first_N = begin((streams,)), np.full(streams, np.inf)
    sum_N, squares_N, peeked_N, z_N = np.zeros(streams), np.zeros(streams), np.zeros(streams, bool), np.zeros(streams)
    for n in range(1, ANSWERS + 1):
        base_N = rng.random(streams) < share
        right = RIGHT - (gap if n > change else 0.0)
        y_N = rng.random(streams) < np.where(base_N, RIGHT, right)
        x_N = np.where(base_N, 1.0 / share, -1.0 / (1.0 - share)) * (y_N - RIGHT)
        evidence = weigh(evidence, x_N, low=low)
        first_N[(e_value(evidence) >= 1.0 / ALPHA) & np.isinf(first_N)] = n
        sum_N, squares_N = sum_N + x_N, squares_N + x_N**2
        if n >= 50:
            mean_N = sum_N / n
            z_N = mean_N / np.sqrt(np.maximum(squares_N / n - mean_N**2, 1e-9) / n)
            peeked_N |= z_N > 1.645
    after_N = np.sort(first_N) - change
    return {
        "gap": gap,
        "share": share,
        "change": change,
        "found": float(np.isfinite(first_N).mean()),
        "too_early": float((first_N <= change).mean()),
        "median": float(after_N[streams // 2]),
        "ninety": float(after_N[streams * 9 // 10]),
        "z_peeked": float(peeked_N.mean()),
        "z_once": float((z_N > 1.645).mean()),
    }


Right: TypeAlias = Callable[[int, str], float]


def answered(guarded: Guarded, right: Right, answers: int, seed: int, usd: Mapping[str, float]) -> Iterator[str]:
    """Decide and teach answer by answer; yield who answered."""
    draw = random.Random(seed)
    for i in range(answers):
        query = Query(id=f"{seed}-{i}", messages=())
        decision = guarded.decide(query, Signals(), POOL)
        target = decision.plan.targets()[0]
        good = float(draw.random() < right(i, target))
        trace = Trace(
            id=query.id, at=float(i), query=query, signals=Signals(), decision=decision, outcome=Outcome(target=target)
        )
        guarded.learn(trace, Reward(quality=good, usd=usd.get(target, 0.0)))
        yield target


def guard(usd: Mapping[str, float]) -> Guarded:
    """Put the target `learned` under guard."""
    return Guarded(policy=Fixed(plan="learned"), fixed="fixed", alpha=ALPHA, **(COSTS if usd else {}))


def whole(name: str, right: Right, runs: int, usd: Mapping[str, float] = MappingProxyType({})) -> dict[str, Any]:
    """Return what a guarded policy brings, beside its two halves."""
    back, when, quality = 0, [], []
    for seed in range(runs):
        guarded = guard(usd)
        served = list(answered(guarded, right, 3000, seed, usd))
        quality += [right(i, served[i]) for i in range(2000, 3000)]
        if guarded.away_:
            back += 1
            when.append(guarded.since_)
    return {
        "case": name,
        "runs": runs,
        "stepped_back": back / runs,
        "median_at": float(np.median(when)) if when else None,
        "guarded": float(np.mean(quality)),
        "unguarded": right(2999, "learned"),
        "fixed": right(2999, "fixed"),
    }


def without_cause(
    name: str, right: Right, runs: int, usd: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """Return in what share of the runs a guard stepped back from a policy that is as good as its baselines."""
    back = 0
    for seed in range(runs):
        guarded = guard(usd)
        back += any(guarded.spells_ > 1 for _ in answered(guarded, right, 1000, seed, usd))
    return {"case": name, "runs": runs, "stepped_back": back / runs}


def recorded(file: Path, usd_weight: float, flipped: int) -> list[dict[str, Any]]:
    """Return what a learner brings on recorded outcomes, alone and under guard, beside the best fixed target."""
    needs, objective = Thompson().needs, Objective(usd_weight=usd_weight)
    table = OutcomeTable.read(file)
    table = table.take(np.flatnonzero(~np.isnan(table.quality_QM + table.usd_QM).any(axis=1)))
    table = table.observed(observer_of(needs), needs)
    signals, pool = table.observations(needs), Pool(targets=tuple(Target(name=m) for m in table.models))
    utility_QM = table.quality_QM - usd_weight * table.usd_QM
    best = table.models[int(utility_QM.mean(axis=0).argmax())]
    out = []
    for name in ("thompson", "guarded"):
        got_ST, back = np.empty((3, 3000)), 0
        for seed, got_T in enumerate(got_ST):
            policy: Policy = Thompson(objective=objective)
            if name == "guarded":
                policy = Guarded(policy=policy, fixed=best)
            order = np.random.default_rng(seed).integers(0, len(table), len(got_T))
            for i, q in enumerate(order.tolist()):
                query = Query(id=f"{seed}-{i}", messages=())
                decision = policy.decide(query, signals[q], pool)
                target = decision.plan.targets()[0]
                m = table.models.index(target)
                quality = float(table.quality_QM[q, m])
                trace = Trace(
                    id=query.id,
                    at=float(i),
                    query=query,
                    signals=signals[q],
                    decision=decision,
                    outcome=Outcome(target=target),
                )
                judged = 1.0 - quality if i < flipped else quality
                policy.learn(trace, Reward(quality=judged, usd=float(table.usd_QM[q, m])))
                got_T[i] = utility_QM[q, m]
            back += isinstance(policy, Guarded) and policy.spells_ > 1
        out.append(
            {
                "usd_weight": usd_weight,
                "flipped": flipped,
                "policy": name,
                "stepped_back": back,
                "best_fixed": float(utility_QM.mean(axis=0).max()),
                "by_thousands": [float(part.mean()) for part in np.split(got_ST, 3, axis=1)],
            }
        )
    return out


def steady(fixed: float, learned: float, third: float) -> Right:
    """Make a world in which each target is right as often at all times."""

    def right(i: int, target: str) -> float:  # noqa: ARG001 - at all times alike
        return {"fixed": fixed, "learned": learned, "third": third}[target]

    return right


def worse_by(gap: float, *, change: int = 0, before: float = 0.0) -> Right:
    """Make a world in which the policy's target is worse by `gap` from answer `change` on, and by `before` until then."""

    def right(i: int, target: str) -> float:
        return {"fixed": 0.7, "learned": 0.7 - (gap if i >= change else before), "third": 0.5}[target]

    return right


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--nulls", type=int, default=200, help="runs in which there is nothing to find")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("FAIRLEAD_DATA"), help="folder of recorded outcomes"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail if a mark is missed")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # that it steps back is what is counted here
    cases = [(gap, share, 0) for gap in (0.0, 0.05, 0.1, 0.2, 0.4) for share in (0.02, 0.05, 0.1, 0.5)]
    cases += [(0.4, 0.1, 1000), (0.4, 0.1, 2000)]
    streams = [stream(*case, args.streams * (1 if case[0] else 4), seed) for seed, case in enumerate(cases)]
    wholes = [
        whole("better by 0.1", worse_by(-0.1), args.runs),
        whole("worse by 0.1", worse_by(0.1), args.runs),
        whole("worse by 0.2", worse_by(0.2), args.runs),
        whole("worse by 0.4", worse_by(0.4), args.runs),
        whole("better by 0.1, worse by 0.4 from 1,000", worse_by(0.4, change=1000, before=-0.1), args.runs),
        whole("better than the fixed, not than the mix", steady(0.95, 0.4, 0.5), args.runs, USD),
    ]
    nulls = [
        without_cause("all targets alike", steady(RIGHT, RIGHT, RIGHT), args.nulls),
        without_cause("as good as the mix at equal cost", steady(0.95, 0.725, 0.5), args.nulls, USD),
    ]
    learners = []
    if args.data is not None:
        file = Path(args.data) / "outcomes" / "rational_cascades_train.parquet"
        learners = [row for weight in (0.0, 100.0) for flipped in (0, 500) for row in recorded(file, weight, flipped)]
    if args.json:
        print(json.dumps({"streams": streams, "policies": wholes, "nulls": nulls, "recorded": learners}, indent=2))
    else:
        print(f"{args.streams} streams ({4 * args.streams} without a gap) of {ANSWERS} judged answers, alpha {ALPHA}")
        print("  gap  share   from    found  too early   median    90%   z test: every answer   once")
        for s in streams:
            print(
                f"{s['gap']:>5}{s['share']:>7}{s['change']:>7}{s['found']:>9.3f}{s['too_early']:>11.3f}{s['median']:>9.0f}{s['ninety']:>7.0f}"
                f"{s['z_peeked']:>23.3f}{s['z_once']:>7.3f}"
            )
        print(f"\nguarded, {args.runs} runs of 3000 answers; quality over the last 1000")
        print("the policy is                             stepped back   median at   guarded   unguarded   fixed")
        for w in wholes:
            at = "-" if w["median_at"] is None else f"{w['median_at']:.0f}"
            print(
                f"{w['case']:<42}{w['stepped_back']:>12.2f}{at:>12}{w['guarded']:>10.3f}{w['unguarded']:>12.3f}{w['fixed']:>8.3f}"
            )
        print(f"\nguarded, nothing to find, {args.nulls} runs of 1000 answers, alpha {ALPHA}: ever stepped back")
        for one in nulls:
            print(f"{one['case']:<42}{one['stepped_back']:>12.3f}")
        if learners:
            print("\nrecorded outcomes, 3 seeds: mean utility of each thousand queries")
            print("usd_weight  flipped   policy     stepped back    1st    2nd    3rd   best fixed")
            for one in learners:
                parts = "".join(f"{part:>7.3f}" for part in one["by_thousands"])
                back = f"{one['stepped_back']} of 3" if one["policy"] == "guarded" else "-"
                print(
                    f"{one['usd_weight']:>10.0f}{one['flipped']:>9}   {one['policy']:<10}{back:>13}{parts}{one['best_fixed']:>13.3f}"
                )
    verdicts = judged(streams, wholes, nulls, args.streams)
    for good, text in verdicts:
        print(f"{'ok  ' if good else 'FAIL'} {text}", file=sys.stderr if args.json else sys.stdout)
    return int(args.check and not all(good for good, _ in verdicts))


def judged(
    streams: list[dict[str, Any]], wholes: list[dict[str, Any]], nulls: list[dict[str, Any]], count: int
) -> list[tuple[bool, str]]:
    """Say what must hold, and whether it does."""

    def bar(rate: float, n: int) -> float:
        return float(rate + 2.0 * (rate * (1.0 - rate) / n) ** 0.5)

    none, early = max(s["found"] for s in streams if not s["gap"]), max(s["too_early"] for s in streams)
    found = min(s["found"] for s in streams if s["gap"] == 0.4 and s["share"] >= 0.05 and not s["change"])
    least, most = bar(ALPHA, 4 * count), bar(ALPHA, count)
    out = [
        (none <= least, f"streams: false alarms without a gap {none:.4f} at worst, must be at most {least:.4f}"),
        (early <= most, f"streams: false alarms before a change {early:.3f} at worst, must be at most {most:.3f}"),
        (found >= 0.95, f"streams: worse by 0.4 found in {found:.3f} at least, must be 0.95"),
    ]
    for one in nulls:
        allowed = bar(FIRST, one["runs"])
        text = f"guarded, {one['case']}: stepped back without cause in {one['stepped_back']:.3f}, must be at most {allowed:.3f}"
        out.append((one["stepped_back"] <= allowed, text))
    for one in wholes:
        if one["case"] in ("worse by 0.4", "better than the fixed, not than the mix"):
            back = one["stepped_back"]
            out.append((back == 1.0, f"guarded, {one['case']}: stepped back from in {back:.2f}, must be 1"))
    return out


if __name__ == "__main__":
    sys.exit(main())
