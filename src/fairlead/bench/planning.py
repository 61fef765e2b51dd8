"""What plans bring on queries whose outcomes can be looked up, against single calls, with paired intervals.

A plan is judged by its *gain*: its mean quality less what random mixing of single calls attains at the same mean cost (the non-decreasing upper
hull of their points, `fairlead.bench.metrics.hull`). Interval: percentile bootstrap over queries, all columns drawn together and the hull made anew in
each draw. A hull takes the best of several noisy points, so the gain is if anything understated.

What belongs together is held together: the same query, the same draws for every plan (a look-up gives equal calls equal outcomes), every
call charged, judges and probes too. A call of unknown price makes the run's cost unknown, and that is refused.

Shapes: Q queries, P ways to answer (single calls first), B bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.bench.metrics import Interval, bootstrap_means, quality_at_cost
from fairlead.errors import TableError
from fairlead.plans.single import Single
from fairlead.types import UNLIMITED, Limits, Outcome, Plan, Query
from fairlead.worlds.base import Estimate
from fairlead.worlds.replay import LookUp, replay

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


class Measured(Struct, frozen=True, kw_only=True):
    """What each way to answer brought on each query; arrays of shape (P, Q)."""

    names: tuple[str, ...]
    singles: int
    """How many of them, the first, are single calls."""
    quality_PQ: Floats
    usd_PQ: Floats
    calls_PQ: Floats
    """Calls that were made; those to gates are none, since nothing is generated."""
    unknown_PQ: Floats
    """Of those, how many had no recorded outcome: they failed, and were charged nothing."""
    seconds_PQ: Floats
    failed_PQ: NDArray[np.bool_]
    """Whether no answer came; its quality counts as 0."""

    def __getitem__(self, name: str) -> int:
        return self.names.index(name)


class Row(Struct, frozen=True, kw_only=True):
    """One way to answer, against mixing single calls at its cost."""

    name: str
    quality: Interval
    usd: float
    """Mean per query."""
    calls: float
    unknown: float
    """Share of the calls that had no recorded outcome."""
    seconds: float
    """Mean per query."""
    slow_seconds: float
    """99th percentile."""
    failed: float
    """Share of queries without an answer."""
    gain: Interval
    """Over the hull of single calls at the same mean cost."""
    over_best: Interval
    """Over the single call of the highest mean quality, whatever that costs."""


def measure(
    plans: Mapping[str, Plan],
    singles: Sequence[str],
    queries: Sequence[Query],
    *,
    look_up: Callable[[int], LookUp],
    grade: Callable[[int, Outcome], float],
    look_up_single: Callable[[int], LookUp] | None = None,
    limits: Limits = UNLIMITED,
    estimate: Estimate | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Run single calls and plans on every query.

    Args:
        plans: by name.
        singles: targets asked alone.
        queries: what is asked.
        look_up: outcomes of one query, by its index.
        look_up_single: outcomes of single calls, where those of plans cost more (a confidence that is asked for); None: the same.
        grade: the quality, in [0, 1], of an answer to a query, by its index.
        limits: of each run.
        estimate: what a call may cost, for `limits`.
        progress: told how many queries of how many are done.

    Raises:
        TableError: if what a run cost is not known.
    """
    ways: dict[str, Plan] = {name: Single(target=name) for name in singles} | dict(plans)
    shape = (len(ways), len(queries))
    quality_PQ, usd_PQ, calls_PQ, unknown_PQ, seconds_PQ = (np.zeros(shape) for _ in range(5))
    failed_PQ = np.zeros(shape, dtype=np.bool_)
    for q, query in enumerate(queries):
        found = look_up(q)
        alone = found if look_up_single is None else look_up_single(q)
        for p, (name, plan) in enumerate(ways.items()):
            run = replay(plan, query, alone if p < len(singles) else found, limits=limits, estimate=estimate)
            if run.usd is None or isnan(run.usd):
                raise TableError(f"what {name} cost on {query.id} is not known; every call must tell its cost")
            usd_PQ[p, q], seconds_PQ[p, q] = run.usd, run.seconds
            calls_PQ[p, q] = sum(s.call is not None and s.call.purpose != "gate" for s in run.steps)
            unknown_PQ[p, q] = sum(
                s.outcome.error is not None and s.outcome.error.kind == "not_found" for s in run.steps
            )
            failed_PQ[p, q] = not run.outcome.ok
            quality_PQ[p, q] = grade(q, run.outcome) if run.outcome.ok else 0.0
        if progress is not None:
            progress(q + 1, len(queries))
    return Measured(
        names=tuple(ways),
        singles=len(singles),
        quality_PQ=quality_PQ,
        usd_PQ=usd_PQ,
        calls_PQ=calls_PQ,
        unknown_PQ=unknown_PQ,
        seconds_PQ=seconds_PQ,
        failed_PQ=failed_PQ,
    )


def joined(parts: Sequence[Measured]) -> Measured:
    """Put measurements of the same ways on different queries together."""
    first = parts[0]
    if any(p.names != first.names for p in parts):
        raise TableError("only measurements of the same plans can be put together")

    def along(field: str) -> Floats:
        return np.concatenate([getattr(p, field) for p in parts], axis=1)

    return Measured(
        names=first.names,
        singles=first.singles,
        quality_PQ=along("quality_PQ"),
        usd_PQ=along("usd_PQ"),
        calls_PQ=along("calls_PQ"),
        unknown_PQ=along("unknown_PQ"),
        seconds_PQ=along("seconds_PQ"),
        failed_PQ=np.concatenate([p.failed_PQ for p in parts], axis=1),
    )


def compare(
    found: Measured, *, resamples: int = 1000, seed: int = 0, groups_Q: Ints | None = None, level: float = 0.95
) -> list[Row]:
    """Sum up each way, single calls first. `groups_Q`: equal prompts, drawn together."""
    p_ = len(found.names)
    values_QC = np.concatenate([found.quality_PQ, found.usd_PQ]).T
    means_BC = bootstrap_means(values_QC, resamples=resamples, seed=seed, groups_Q=groups_Q)
    point_C = values_QC.mean(axis=0)
    rows = []
    for p, name in enumerate(found.names):
        gains_B = np.asarray([_gain(m_C, p, p_, found.singles) for m_C in means_BC])
        over_B = np.asarray([m_C[p] - m_C[: found.singles].max() for m_C in means_BC])
        rows.append(
            Row(
                name=name,
                quality=_interval(point_C[p], means_BC[:, p], level),
                usd=float(point_C[p_ + p]),
                calls=float(found.calls_PQ[p].mean()),
                unknown=float(found.unknown_PQ[p].sum() / max(found.calls_PQ[p].sum(), 1.0)),
                seconds=float(found.seconds_PQ[p].mean()),
                slow_seconds=float(np.quantile(found.seconds_PQ[p], 0.99)),
                failed=float(found.failed_PQ[p].mean()),
                gain=_interval(_gain(point_C, p, p_, found.singles), gains_B, level),
                over_best=_interval(point_C[p] - point_C[: found.singles].max(), over_B, level),
            )
        )
    return rows


def versus(
    found: Measured,
    name: str,
    others: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups_Q: Ints | None = None,
    level: float = 0.95,
) -> Interval:
    """Return the quality of `name` less what mixing `others` attains at its mean cost (the cheapest of them, where that costs more)."""
    index = [found[name], *(found[o] for o in others)]
    values_QC = np.concatenate([found.quality_PQ[index], found.usd_PQ[index]]).T
    means_BC = bootstrap_means(values_QC, resamples=resamples, seed=seed, groups_Q=groups_Q)

    def gain(m_C: Floats) -> float:
        n = len(index)
        cost = max(m_C[n], m_C[n + 1 :].min())
        return float(m_C[0] - quality_at_cost(m_C[n + 1 :], m_C[1:n], cost))

    gains_B = np.asarray([gain(m_C) for m_C in means_BC])
    return _interval(gain(values_QC.mean(axis=0)), gains_B, level)


def _gain(mean_C: Floats, p: int, ways: int, singles: int) -> float:
    """Quality over the hull at equal cost; over the cheapest single call where even that costs more."""
    usd_S = mean_C[ways : ways + singles]
    cost = max(float(mean_C[ways + p]), float(usd_S.min()))
    return float(mean_C[p] - quality_at_cost(usd_S, mean_C[:singles], cost))


def _interval(value: float, draws_B: Floats, level: float) -> Interval:
    if not len(draws_B):
        return Interval(value=float(value), low=nan, high=nan)
    low, high = np.quantile(draws_B, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value=float(value), low=float(low), high=float(high))
