"""What a predictor can attain: quality and cost at each weight of a dollar, so that somebody can pick one. Ours, no paper.

Each query is forecast by a predictor that was fitted on other folds. The rule ``argmax quality - weight * usd`` (the policy `utility`) is
then read at every weight of a fixed grid, with its real outcomes. No weight is chosen by what it brought, so each point is honest by
itself: its interval is the bootstrap's over queries. Which points lie on the upper hull is marked, and *that* is seen on the same
queries: the hull flatters a little (see `mixing.py` for figures free of it).

A point's weight is what goes into `objective: {usd_weight: …}` of `utility`, or `usd_weight` of `budget` (pick the point whose cost a query,
times the queries of a period, is the budget). For a promise on quality use `fairlead calibrate`: a point read off here is an
estimate, not a promise.

Shapes: P points, Q queries judged, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from fairlead.bench.evaluate import Entrant, Progress, complete, evaluate, weights
from fairlead.bench.metrics import Interval, bootstrap_means, hull
from fairlead.errors import TableError
from fairlead.table import Floats, OutcomeTable


class Point(Struct, frozen=True, kw_only=True):
    """One weight of a dollar and what it brings."""

    usd_weight: float
    quality: Interval
    usd: Interval
    """USD a query."""
    of_best_quality: Interval
    """Quality as a share of the best single target's."""
    of_best_usd: Interval
    """Cost as a share of the best single target's."""
    on_hull: bool
    """Whether no other point, nor a mix of two, brings as much for less."""


class Frontier(Struct, frozen=True, kw_only=True):
    """The points of one predictor, by rising weight, beside the single targets."""

    source: str
    predictor: str
    queries: int
    dropped: int
    split: str
    best: str
    """The single target of highest mean quality."""
    singles: dict[str, tuple[float, float]]
    """Mean quality and USD a query of each target."""
    points: tuple[Point, ...]
    level: float = 0.95


def frontier(
    table: OutcomeTable,
    spec: Mapping[str, Any],
    *,
    split: str = "5-fold",
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Frontier:
    """Sweep the weight of a dollar.

    Args:
        table: recorded outcomes with costs.
        spec: the predictor.
        split: as `evaluate` takes it.
        seed: of the split and of the resamples.
        resamples: of the bootstrap.
        progress: told what was finished.

    Raises:
        TableError: if no costs are known.
    """
    if np.isnan(table.usd_QM).all():
        raise TableError(
            "no costs are known, so there is nothing to weigh; record cost_usd, or model it with --prices FILE"
        )
    name = str(spec["type"])
    table, dropped = complete(table.with_models(sorted(table.models)))
    result = evaluate(
        table, routers=[Entrant(name="swept", spec=dict(spec))], split=split, seed=seed, progress=progress
    )
    curve = next(c for c in result.curves if c.name == "swept")
    singles = [c for c in result.curves if c.kind == "single"]
    best = max(singles, key=lambda c: float(c.quality_P[0]))
    weight_P = weights(table).tolist()
    columns = [best.quality_PQ[0], best.usd_PQ[0]]
    draws = bootstrap_means(
        np.column_stack([*columns, *curve.quality_PQ, *curve.usd_PQ]),
        resamples=resamples,
        seed=seed,
        groups_Q=result.groups_Q,
    )
    p = len(weight_P)
    quality_RP, usd_RP = draws[:, 2 : 2 + p], draws[:, 2 + p :]
    hull_usd, hull_quality = hull(curve.usd_P, curve.quality_P)
    on_hull = {(float(c), float(q)) for c, q in zip(hull_usd, hull_quality, strict=True)}
    of_quality, of_usd = float(best.quality_P[0]), float(best.usd_P[0])
    points: list[Point] = []
    for i, weight in enumerate(weight_P):
        quality, usd = float(curve.quality_P[i]), float(curve.usd_P[i])
        if points and (quality, usd) == (points[-1].quality.value, points[-1].usd.value):
            continue  # the same choices as at the weight before
        points.append(
            Point(
                usd_weight=weight,
                quality=_interval(quality, quality_RP[:, i]),
                usd=_interval(usd, usd_RP[:, i]),
                of_best_quality=_interval(quality / of_quality, quality_RP[:, i] / draws[:, 0]),
                of_best_usd=_interval(usd / of_usd, usd_RP[:, i] / draws[:, 1]),
                on_hull=(usd, quality) in on_hull,
            )
        )
    return Frontier(
        source=result.source,
        predictor=name,
        queries=result.queries,
        dropped=dropped,
        split=result.split,
        best=best.name,
        singles={c.name: (float(c.quality_P[0]), float(c.usd_P[0])) for c in singles},
        points=tuple(points),
    )


def to_text(found: Frontier, *, rows: int = 16) -> str:
    """Write the hull as a table, at most `rows` (two or more) of its points spread evenly over log cost, with both ends."""
    shown = [p for p in found.points if p.on_hull]
    if len(shown) > rows:
        usd = np.asarray([p.usd.value for p in shown])
        at = np.log(
            np.maximum(usd, usd[usd > 0.0].min(initial=np.inf))
        )  # what is free stands beside the cheapest that is not
        wanted = np.linspace(at[0], at[-1], rows - 1)
        near = {int(np.abs(at - w).argmin()) for w in wanted}
        shown = [shown[i] for i in sorted(near | {0, len(shown) - 1})]
    out = [
        f"{found.source}: {found.predictor} on {found.queries:,} queries ({found.split}; {found.dropped} left out), "
        f"{found.level:.0%} intervals; best single target: {found.best}",
        f"{'usd_weight':>10}  {'quality':>22}  {'of the best':>11}  {'USD per 1,000 queries':>28}  {'of the best':>11}",
    ]
    for p in shown:
        k = 1000.0
        out.append(
            f"{p.usd_weight:>10.4g}  {p.quality.value:>7.3f} ({p.quality.low:.3f} to {p.quality.high:.3f})"
            f"  {p.of_best_quality.value:>11.1%}  {k * p.usd.value:>9.4g} ({k * p.usd.low:.4g} to {k * p.usd.high:.4g})".ljust(
                76
            )
            + f"  {p.of_best_usd.value:>11.1%}"
        )
    return "\n".join(out)


def _interval(value: float, draws_R: Floats) -> Interval:
    low, high = np.quantile(draws_R, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high))
