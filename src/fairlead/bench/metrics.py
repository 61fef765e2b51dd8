"""Metrics of routers, as plain functions of arrays. NaN stands for "undefined", and is never averaged in.

Two-model curves follow Ong et al. (RouteLLM, 2024, arXiv:2406.18665), hulls and AIQ follow Hu et al. (RouterBench, 2024,
arXiv:2403.12031), the arena score follows Lu et al. (RouterArena, 2025). What differs from the papers is said function by function;
the known values and invariants of all of them are in `tests/bench/test_metrics.py`.

Costs are positive, in any one unit; quality is in [0, 1] and larger is better.

Shapes: Q queries, M options, P points of a curve, B bootstrap resamples, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

# ------------------------------------------------------------------------------------------------------ two models


def pgr(quality: ArrayLike, weak: float, strong: float) -> Floats:
    """Performance gap recovered, (r - w) / (t - w): 0 is the weak model, 1 the strong. NaN unless strong > weak."""
    r = np.asarray(quality, dtype=np.float64)
    if strong <= weak:
        return np.full_like(r, np.nan)
    return (r - weak) / (strong - weak)


def prefix_curve(score_Q: ArrayLike, weak_Q: ArrayLike, strong_Q: ArrayLike) -> tuple[Floats, Floats]:
    """Exact two-model curve: share x sent to the strong model, highest score first, and quality r there.

    Equal scores are sent in random order: the curve then is the straight line that is expected, so only the ends of a tie are given.
    """
    score, weak, strong = (np.asarray(a, dtype=np.float64) for a in (score_Q, weak_Q, strong_Q))
    order = np.argsort(-score, kind="stable")
    gain = np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    n = len(score)
    ends = np.append(np.flatnonzero(np.diff(score[order])) + 1, n)
    at = np.concatenate([[0], ends])
    return at / n, weak.mean() + gain[at] / n


def binned_curve(
    score_Q: ArrayLike, weak_Q: ArrayLike, strong_Q: ArrayLike, *, bins: int = 10
) -> tuple[Floats, Floats]:
    """Two-model curve at equal-count thresholds, as RouteLLM's own code draws it; the ends x = 0 and x = 1 are included."""
    x, r = prefix_curve(score_Q, weak_Q, strong_Q)
    grid = np.linspace(0.0, 1.0, bins + 1)
    return grid, np.interp(grid, x, r)


def apgr(x_P: ArrayLike, r_P: ArrayLike, *, weak: float | None = None, strong: float | None = None) -> float:
    """Average PGR over the share x in [0, 1], by trapezoids. Exact on a `prefix_curve`, approximate on a `binned_curve`.

    `weak` and `strong` default to the curve's ends.
    """
    x, r = np.asarray(x_P, dtype=np.float64), np.asarray(r_P, dtype=np.float64)
    w, t = (float(r[0]) if weak is None else weak), (float(r[-1]) if strong is None else strong)
    return _area(pgr(r, w, t), x) if t > w else float("nan")


def cpt(
    x_P: ArrayLike, r_P: ArrayLike, share: float, *, weak: float | None = None, strong: float | None = None
) -> float:
    """Call-performance threshold: least share of strong calls that recovers `share` of the gap, at the first crossing.

    Differs from RouteLLM's code, which interpolates x as a function of r and is ill-defined where r is not monotone.
    """
    x, r = np.asarray(x_P, dtype=np.float64), np.asarray(r_P, dtype=np.float64)
    g = pgr(r, float(r[0]) if weak is None else weak, float(r[-1]) if strong is None else strong)
    if np.isnan(g).any():
        return float("nan")
    reached = np.flatnonzero(g >= share - 1e-12)
    if not len(reached):
        return float("nan")
    i = int(reached[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (share - g[i - 1]) / (g[i] - g[i - 1]) * (x[i] - x[i - 1]))


def saving_factor(strong_share: float, *, weak_cost: float, strong_cost: float) -> float:
    """How many times cheaper than all-strong: c_t / (x c_t + (1 - x) c_w)."""
    return strong_cost / (strong_share * strong_cost + (1.0 - strong_share) * weak_cost)


def _area(y_P: Floats, x_P: Floats) -> float:
    return float(np.sum((y_P[1:] + y_P[:-1]) * np.diff(x_P)) / 2.0)


# ------------------------------------------------------------------------------------------------ cost-quality plane


def hull(cost_P: ArrayLike, quality_P: ArrayLike) -> tuple[Floats, Floats]:
    """Non-decreasing upper convex hull (NDCH): what random mixing of the points attains, cut at the highest quality."""
    cost, quality = np.asarray(cost_P, dtype=np.float64), np.asarray(quality_P, dtype=np.float64)
    order = np.lexsort((-quality, cost))
    xs: list[float] = []
    ys: list[float] = []
    for x, y in zip(cost[order].tolist(), quality[order].tolist(), strict=True):
        if ys and y <= ys[-1]:
            continue
        while len(xs) > 1 and (ys[-1] - ys[-2]) * (x - xs[-2]) <= (y - ys[-2]) * (xs[-1] - xs[-2]):
            xs.pop()
            ys.pop()
        xs.append(x)
        ys.append(y)
    return np.asarray(xs), np.asarray(ys)


def quality_at_cost(cost_P: ArrayLike, quality_P: ArrayLike, cost: float) -> float:
    """NDCH at `cost`; NaN where even the cheapest point costs more."""
    x, y = hull(cost_P, quality_P)
    return float("nan") if cost < x[0] else float(np.interp(cost, x, y))


def cost_at_quality(cost_P: ArrayLike, quality_P: ArrayLike, quality: float) -> float:
    """Smallest cost at which the NDCH reaches `quality`; infinity if it never does."""
    x, y = hull(cost_P, quality_P)
    if quality > y[-1]:
        return float("inf")
    return float(x[0]) if quality <= y[0] else float(np.interp(quality, y, x))


def aiq(
    cost_P: ArrayLike,
    quality_P: ArrayLike,
    *,
    c_min: float,
    c_max: float,
    norm: Literal["paper", "code"] = "paper",
    log: bool = False,
) -> float:
    """Average improvement in quality: the mean height of the NDCH over costs c_min … c_max.

    Args:
        cost_P, quality_P: points of the router.
        c_min, c_max: the common range of all routers compared. c_min must not lie left of the first hull point, where the quality
            is undefined: take the largest of the first points (`cost_range`).
        norm: ``paper`` divides the integral by c_max - c_min. ``code`` integrates from the first hull point and divides by c_max,
            as RouterBench's code does.
        log: weigh costs by d log c, so that each tenfold range counts alike. The hull stays that of linear cost, since that is what
            mixing attains. Only with ``paper``.

    Raises:
        ValueError: if the range is empty or begins before the first hull point.
    """
    x, y = hull(cost_P, quality_P)
    if norm == "code":
        c_min = float(x[0])
    if not c_min < c_max:
        raise ValueError(f"the cost range {c_min:g} … {c_max:g} is empty")
    if c_min < x[0] * (1.0 - 1e-9):
        raise ValueError(
            f"c_min = {c_min:g} lies left of the router's first point, {x[0]:g}; use the largest first point"
        )
    if log and norm == "code":
        raise ValueError("the code's normalisation has no logarithmic form")
    mean = mean_height(x, y, c_min=c_min, c_max=c_max, log=log)
    return mean * (c_max - c_min) / c_max if norm == "code" else mean


def mean_height(cost_P: Floats, quality_P: Floats, *, c_min: float, c_max: float, log: bool = False) -> float:
    """Mean height over costs c_min … c_max of the line through points of rising or equal cost, level before the first and after the last.

    With `log` by d log c. There the pieces of one line, a + b c, are integrated exactly; pieces so short that the slope b would be
    rounding error alone (1e-6 of their cost) by trapezoids, whose error they keep below 1e-12.
    """
    inner = (cost_P > c_min) & (cost_P < c_max)
    cs = np.concatenate([[c_min], cost_P[inner], [c_max]])
    # Not by `interp` throughout: of points of equal cost it would take one, and make a slope of a step.
    first, last = np.interp([c_min, c_max], cost_P, quality_P)
    qs = np.concatenate([[first], quality_P[inner], [last]])
    if not log:
        return _area(qs, cs) / (c_max - c_min)
    step, wide = np.diff(cs), np.log1p(np.diff(cs) / cs[:-1])
    short = step <= 1e-6 * cs[:-1]
    slope = np.diff(qs) / np.where(short, 1.0, step)
    exact = (qs[:-1] - slope * cs[:-1]) * wide + slope * step
    pieces = np.where(short, (qs[:-1] + qs[1:]) / 2.0 * wide, exact)
    return float(np.sum(pieces) / wide.sum())


def cost_range(*curves: tuple[ArrayLike, ArrayLike]) -> tuple[float, float]:
    """Common range for `aiq`: from the largest of the first hull points to the largest cost of the first curve."""
    first = max(float(hull(c, q)[0][0]) for c, q in curves)
    return first, float(np.max(np.asarray(curves[0][0], dtype=np.float64)))


def hypervolume(
    cost_P: ArrayLike, quality_P: ArrayLike, *, cost: float, quality: float = 0.0, log: bool = False
) -> float:
    """Area of the union of [K_i, cost] x [quality, A_i]: the staircase above the reference point, without mixing.

    With `log` widths are in natural log of cost. Divide by ``cost * (1 - quality)`` for a share.
    """
    x, y = np.asarray(cost_P, dtype=np.float64), np.asarray(quality_P, dtype=np.float64)
    keep = (x < cost) & (y > quality)
    order = np.argsort(x[keep], kind="stable")
    x, best = x[keep][order], np.maximum.accumulate(y[keep][order])
    if not len(x):
        return 0.0
    edges = np.append(x, cost)
    widths = np.diff(np.log(edges) if log else edges)
    return float(np.sum(widths * (best - quality)))


def pareto_distance(cost: float, quality: float, cost_P: ArrayLike, quality_P: ArrayLike) -> float:
    """Euclidean distance from the common front on min-max axes; 0 on it. The published norm was not found: this one is ours."""
    x, y = np.asarray(cost_P, dtype=np.float64), np.asarray(quality_P, dtype=np.float64)
    front = [i for i in range(len(x)) if not (((x < x[i]) & (y >= y[i])) | ((x <= x[i]) & (y > y[i]))).any()]
    dx, dy = max(float(np.ptp(x)), 1e-300), max(float(np.ptp(y)), 1e-300)
    if not ((x[front] <= cost) & (y[front] >= quality)).any():
        return 0.0
    return float(np.min(np.hypot((x[front] - cost) / dx, (y[front] - quality) / dy)))


def arena_score(quality: float, usd_per_1k: float, *, beta: float = 0.1) -> float:
    """RouterArena's score: weighted harmonic mean of quality and of log2 cost scaled between 200 and 0.0044 USD per 1,000 queries."""
    c = min(max(usd_per_1k, 0.0044), 200.0)
    cheap = (np.log2(200.0) - np.log2(c)) / (np.log2(200.0) - np.log2(0.0044))
    if quality == 0.0 and cheap == 0.0:
        return 0.0
    return float((1.0 + beta) * quality * cheap / (beta * quality + cheap))


def guarded_score(in_domain: float, out_of_domain: float) -> float:
    """GQR: harmonic mean of accuracy on covered domains and the share of rejections off them; 0 if both are 0."""
    total = in_domain + out_of_domain
    return 2.0 * in_domain * out_of_domain / total if total else 0.0


# ------------------------------------------------------------------------------------------ against other choosers


def oracle(quality_QM: ArrayLike, cost_QM: ArrayLike | None = None) -> Ints:
    """Per query the cheapest of the options with the best quality, (Q,). Unknown (NaN) quality is never chosen."""
    quality = np.asarray(quality_QM, dtype=np.float64)
    filled = np.where(np.isnan(quality), -np.inf, quality)
    best = filled == filled.max(axis=1, keepdims=True)
    cost = np.zeros_like(quality) if cost_QM is None else np.asarray(cost_QM, dtype=np.float64)
    chosen: Ints = np.argmin(np.where(best, np.where(np.isnan(cost), np.finfo(float).max, cost), np.inf), axis=1)
    return chosen


def oracle_gap_share(quality: float, *, best_single: float, oracle: float) -> float:
    """Share of the way from the best single option to the oracle: (A - A_b) / (A_o - A_b). NaN if there is no way to go."""
    return (quality - best_single) / (oracle - best_single) if oracle != best_single else float("nan")


def gain(quality: float, over: float) -> float:
    """Relative gain A / A_ref - 1, over the random router or the best single option. NaN if the reference is 0."""
    return quality / over - 1.0 if over else float("nan")


def optimal_selection(choice_Q: ArrayLike, quality_QM: ArrayLike, cost_QM: ArrayLike, *, right: float = 1.0) -> float:
    """Share of the queries with a right option where the router picks the cheapest right one."""
    quality, cost = np.asarray(quality_QM, dtype=np.float64), np.asarray(cost_QM, dtype=np.float64)
    good = quality >= right
    some = good.any(axis=1)
    if not some.any():
        return float("nan")
    cheapest = np.argmin(np.where(good, cost, np.inf), axis=1)
    return float((np.asarray(choice_Q) == cheapest)[some].mean())


def optimal_cost(choice_Q: ArrayLike, quality_QM: ArrayLike, cost_QM: ArrayLike, *, right: float = 1.0) -> float:
    """Total cost of the cheapest right options over the total paid, on the queries that the router got right. NaN if there are none.

    As RouterArena's scorer takes it: a ratio of totals, and wrong picks left out, so that cheap and wrong cannot exceed 1.
    """
    quality, cost = np.asarray(quality_QM, dtype=np.float64), np.asarray(cost_QM, dtype=np.float64)
    rows, choice = np.arange(len(quality)), np.asarray(choice_Q)
    good = quality >= right
    hit = good[rows, choice]
    paid = float(cost[rows, choice][hit].sum())
    least = np.min(np.where(good, cost, np.inf), axis=1)[hit]
    return float(least.sum()) / paid if paid > 0.0 else float("nan")


def optimal_accuracy(choice_Q: ArrayLike, quality_QM: ArrayLike, *, right: float = 1.0) -> float:
    """Quality of the router over that of right answers, on the queries with a right option. NaN if there are none.

    For scores of 0 and 1 this is A(router) / A(oracle) over all queries.
    """
    quality = np.asarray(quality_QM, dtype=np.float64)
    some = (quality >= right).any(axis=1)
    if not some.any():
        return float("nan")
    chosen = quality[np.arange(len(quality)), np.asarray(choice_Q)]
    return float(chosen[some].sum() / np.nanmax(quality[some], axis=1).sum())


def unchanged(choice_Q: ArrayLike, again_Q: ArrayLike) -> float:
    """Robustness: share of queries whose choice stays after rewording. NaN if there are none. A constant router has 1."""
    first, second = np.asarray(choice_Q), np.asarray(again_Q)
    return float((first == second).mean()) if len(first) else float("nan")


def regret(reward_QM: ArrayLike, choice_Q: ArrayLike) -> Floats:
    """Cumulative regret against the best option of each query, (Q,). It grows linearly for most routers."""
    r = np.asarray(reward_QM, dtype=np.float64)
    return np.cumsum(r.max(axis=1) - np.take_along_axis(r, np.asarray(choice_Q)[:, None], axis=1)[:, 0])


def regret_fixed(reward_QM: ArrayLike, choice_Q: ArrayLike) -> Floats:
    """Cumulative regret against the option that is best over all queries, (Q,). Negative for a good contextual router."""
    r = np.asarray(reward_QM, dtype=np.float64)
    best = r[:, int(np.argmax(r.sum(axis=0)))]
    return np.cumsum(best - np.take_along_axis(r, np.asarray(choice_Q)[:, None], axis=1)[:, 0])


# ------------------------------------------------------------------------------------------ forecasts and escalation


def ece(forecast_Q: ArrayLike, outcome_Q: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of the forecast: mean |forecast - outcome| of bins, weighed by size."""
    p, y = np.asarray(forecast_Q, dtype=np.float64), np.asarray(outcome_Q, dtype=np.float64)
    if not len(p):
        return float("nan")
    b = np.clip((p * bins).astype(np.int64), 0, bins - 1)
    gap = np.bincount(b, weights=p - y, minlength=bins)
    return float(np.abs(gap).sum() / len(p))


def brier(forecast_Q: ArrayLike, outcome_Q: ArrayLike) -> float:
    """Mean squared difference of forecast and outcome."""
    p, y = np.asarray(forecast_Q, dtype=np.float64), np.asarray(outcome_Q, dtype=np.float64)
    return float(np.mean((p - y) ** 2)) if len(p) else float("nan")


def auroc(score_Q: ArrayLike, right_Q: ArrayLike) -> float:
    """Chance that a right answer scores above a wrong one, ties as half. NaN if all are right or all wrong."""
    s, y = np.asarray(score_Q, dtype=np.float64), np.asarray(right_Q, dtype=np.float64) > 0.5
    n1, n0 = int(y.sum()), int((~y).sum())
    if not n1 or not n0:
        return float("nan")
    _, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return float((rank[y].sum() - n1 * (n1 + 1) / 2.0) / (n1 * n0))


def escalation_precision(escalated_Q: ArrayLike, small_Q: ArrayLike, large_Q: ArrayLike) -> float:
    """Share of escalations where the small answer was wrong and the large one right."""
    up = np.asarray(escalated_Q, dtype=bool)
    if not up.any():
        return float("nan")
    helped = (np.asarray(small_Q, dtype=np.float64) < 0.5) & (np.asarray(large_Q, dtype=np.float64) >= 0.5)
    return float(helped[up].mean())


def break_even(small_cost: float, large_cost: float) -> float:
    """Share of escalations below which asking the small model first is cheaper than always asking the large: 1 - c_S / c_L."""
    return 1.0 - small_cost / large_cost


# ------------------------------------------------------------------------------------------------------- uncertainty


def wilson(total: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a mean of n values in [0, 1] that sum to `total`; [0, 1] if there are none.

    For values between 0 and 1 it is on the wide side.
    """
    if not n:
        return 0.0, 1.0
    z2, p = 1.96**2, min(1.0, max(0.0, total / n))
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


class Interval(Struct, frozen=True, kw_only=True):
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def bootstrap_means(values_QC: ArrayLike, *, resamples: int, seed: int, groups_Q: Ints | None = None) -> Floats:
    """Means of all columns over the same resampled queries, (B, C): the pairing is what makes differences sharp.

    Groups (the same prompt asked twice) are drawn whole.
    """
    values = np.asarray(values_QC, dtype=np.float64)
    if groups_Q is None:
        n, member = len(values), np.arange(len(values))
    else:
        _, member = np.unique(groups_Q, return_inverse=True)
        n = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    sums = np.zeros((n, values.shape[1] + 1))
    np.add.at(sums, member, np.column_stack([values, np.ones(len(values))]))
    out = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, 200):
        stop = min(start + 200, resamples)
        counts = rng.multinomial(n, np.full(n, 1.0 / n), size=stop - start).astype(np.float64)
        total = counts @ sums
        out[start:stop] = total[:, :-1] / total[:, -1:]
    return out


def paired_bootstrap(
    values_QC: ArrayLike,
    statistic: Callable[[Floats], float],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups_Q: Ints | None = None,
) -> Interval:
    """Percentile interval of `statistic`, a function of the column means of `values_QC`, over resampled queries.

    Give the columns of both sides of a comparison and let `statistic` return the difference.
    """
    values = np.asarray(values_QC, dtype=np.float64)
    draws = bootstrap_means(values, resamples=resamples, seed=seed, groups_Q=groups_Q)
    found = np.asarray([statistic(means) for means in draws])
    low, high = np.quantile(found, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value=statistic(values.mean(axis=0)), low=float(low), high=float(high))


class Paired(Struct, frozen=True, kw_only=True):
    """Two methods on the same queries, each right or wrong."""

    only_first: int
    """Queries that the first alone answered rightly."""
    only_second: int
    p_value: float
    """How likely so uneven a split of them is, to either side, if both were equally good."""


def mcnemar(first_Q: ArrayLike, second_Q: ArrayLike) -> Paired:
    """McNemar's test (1947), in its exact form: of the queries on which two methods differ, is either ahead on more than chance would give?

    Under equal accuracy each of the n queries on which they differ goes to either with probability 1/2, so the p-value is twice the lower
    tail of Binomial(n, 1/2), and 1 at most; without a difference it is 1.

    Args:
        first_Q, second_Q: whether each query was answered rightly: bools, or 0 and 1.

    Raises:
        ValueError: if something else stands in them, or they are of different lengths.
    """
    first, second = np.asarray(first_Q, dtype=np.float64), np.asarray(second_Q, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError("both methods need one verdict for each query")
    if not (np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all()):
        raise ValueError("McNemar's test takes right or wrong alone; compare graded quality by `paired_bootstrap`")
    a, b = int((first > second).sum()), int((second > first).sum())
    n, term, tail = a + b, 1, 0
    for k in range(min(a, b) + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return Paired(only_first=a, only_second=b, p_value=min(1.0, 2 * tail / 2**n))


# ---------------------------------------------------------------------------------------------- samples and their cost


def pass_at(k: int, *, samples: int, passed: int) -> float:
    """Estimate the chance that at least one of `k` samples passes, of `samples` of which `passed` did: 1 - C(n-c, k) / C(n, k), which for k = 1 is c / n.

    Unbiased (Chen et al. 2021, arXiv 2107.03374). Raises `ValueError` unless 1 <= k <= samples and 0 <= passed <= samples.
    """
    if not (1 <= k <= samples and 0 <= passed <= samples):
        raise ValueError("k lies between 1 and the number of samples, of which at least 0 and at most all passed")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def cost_of_pass(cost_Q: ArrayLike, success_Q: ArrayLike) -> float:
    """Return mean cost over mean success: what one right answer costs. Infinite if there is none."""
    success = float(np.mean(np.asarray(success_Q, dtype=np.float64)))
    return float(np.mean(np.asarray(cost_Q, dtype=np.float64))) / success if success > 0.0 else math.inf


def routing_pays_from(classifier: float, *, easy: float, hard: float) -> float:
    """Return the share of tasks that must go the easy way before a classifier's own cost is earned back, against the hard way for all.

    Args:
        classifier, easy, hard: mean tokens, or cost, of one task by each. A share above 1 says that it never pays, infinite that nothing is saved.
    """
    return classifier / (hard - easy) if hard > easy else math.inf
