"""Mixtures that are chosen on some queries and read on others: cross-fitted cost-quality curves. Ours, no paper.

Mixing the settings of a chooser at random attains the upper hull of their (cost, quality) points. Taken on the very queries that are
judged, a hull profits from luck: of many noisy points it keeps those that came out well, and the more points there are, the more it
gains. Forty settings that only mix targets at random then come out above the hull of the targets in every
simulated table, by 0.005 to 0.01.

So the judged queries are dealt into halves. The vertices of the hull, and the shares in which a budget mixes them, are found on one half;
on the other only the quality and cost of those mixtures are read, and the other way round. Both sides of a comparison go through this, on
the same halves. The halves are dealt `SPLITS` times: what the vertices owe to the deal shows as a difference between deals.

On tables where the router is random mixing itself (tests/bench/test_mixing.py) the difference is -0.001 on average, as vertices
that were picked are never quite the best, and the intervals hold 0 in 79 of 80; they are wider than need be, by some 1.6 times.

Shapes: Q queries, P settings of one chooser, V vertices of a hull, G budgets (the union of the vertices of both halves).
"""

from __future__ import annotations

import numpy as np

from fairlead.bench.metrics import Floats, Ints, hull
from fairlead.predictors.calibration import folds

SPLITS = 5
"""Deals into halves."""


def halves(groups_Q: Ints, *, seed: int = 0) -> Ints:
    """Deal judged queries into halves, (Q,); those of one group together."""
    return folds(groups_Q, k=2, seed=seed)


def crossfitted(quality_PQ: Floats, usd_PQ: Floats, fold_Q: Ints) -> tuple[Floats, Floats]:
    """Return what the mixtures at rising budgets bring and cost per query, (G, Q) each; between budgets both are linear.

    The last row is the setting of highest quality. Below its first vertex a half spends what that costs.
    """
    parts = []
    for f in range(int(fold_Q.max()) + 1):
        now_Q = fold_Q == f
        # With a single group of queries there are no others to choose on.
        past_Q = np.ones_like(now_Q) if now_Q.all() else ~now_Q
        usd_P, quality_P = usd_PQ[:, past_Q].mean(axis=1), quality_PQ[:, past_Q].mean(axis=1)
        xs, ys = hull(usd_P, quality_P)
        at_V = [int(np.argmax((usd_P == x) & (quality_P == y))) for x, y in zip(xs, ys, strict=True)]
        parts.append((now_Q, xs, at_V))
    budget_G = np.unique(np.concatenate([xs for _, xs, _ in parts]))
    quality_GQ, usd_GQ = (np.empty((len(budget_G), len(fold_Q))) for _ in range(2))
    for now_Q, xs, at_V in parts:
        share_GV = np.column_stack([np.interp(budget_G, xs, one_V) for one_V in np.eye(len(xs))])
        quality_GQ[:, now_Q] = share_GV @ quality_PQ[at_V][:, now_Q]
        usd_GQ[:, now_Q] = share_GV @ usd_PQ[at_V][:, now_Q]
    return quality_GQ, usd_GQ


def cost_reaching(usd_G: Floats, quality_G: Floats, quality: float) -> float:
    """Cost at which a curve first reaches `quality`; infinity if it never does."""
    reached = np.flatnonzero(quality_G >= quality - 1e-12)
    if not len(reached):
        return float("inf")
    i = int(reached[0])
    if i == 0:
        return float(usd_G[0])
    part = min(1.0, (quality - quality_G[i - 1]) / (quality_G[i] - quality_G[i - 1]))
    return float(usd_G[i - 1] + part * (usd_G[i] - usd_G[i - 1]))
