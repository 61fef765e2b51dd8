"""The Pareto set of (cost, score) points, and a choice on it: TOPSIS (Hwang and Yoon 1981), as MoMA uses it (2025, arXiv 2509.07571).

    score, cost scaled to [0, 1] over the front;  d+ / d- = weighted distance to (1, 0) / to (0, 1);  closeness = d- / (d+ + d-)

Scaling over the front alone makes the choice deaf to dominated points. About 10 µs for ten points.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

Point = tuple[float, float]
"""(cost, score)."""


def front(points: Sequence[Point]) -> list[int]:
    """Return the indices, in order, of the points that no other beats: none is as good in both and better in one. Equal points stay together."""
    return [
        i
        for i, (cost, score) in enumerate(points)
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
    ]


def closeness(points: Sequence[Point], score_weight: float, cost_weight: float) -> list[float]:
    """Return how near each point of a front is to the ideal, in [0, 1]; 1 where all are alike.

    With weights (1, 0) the best score is nearest, with (0, 1) the lowest cost.
    """
    low = [min(p[k] for p in points) for k in (0, 1)]
    span = [max(p[k] for p in points) - low[k] for k in (0, 1)]
    out = []
    for cost, score in points:
        c, s = ((v - b) / w if w else None for v, b, w in zip((cost, score), low, span, strict=True))
        worse = hypot(
            *(w * v for w, v in ((cost_weight, c), (score_weight, None if s is None else 1.0 - s)) if v is not None)
        )
        better = hypot(
            *(w * v for w, v in ((cost_weight, None if c is None else 1.0 - c), (score_weight, s)) if v is not None)
        )
        out.append(better / (worse + better) if worse + better else 1.0)
    return out
