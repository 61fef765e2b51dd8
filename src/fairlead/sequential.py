"""Inference that stays valid however often one looks: evidence against a mean, and an interval for it, after every observation.

    evidence    E_n = mean over bets l, weighted sum over starts j <= n, of  prod_{i=j..n} (1 + l_i x_i)     against  E[x_i | past] <= 0
    interval    { m : max(K+_n(m), K-_n(m)) / 2 < 1 / alpha },   K±_n(m) = prod_i (1 ± l_i (x_i - m))
    difference  x = (up(a) - down(a)) / p(a) * (y - c),   a ~ p

Waudby-Smith, Ramdas, 2020, arXiv 2010.09686: each factor has mean at most 1 if the hypothesis holds, so the product is a fair (or worse)
game's capital, and by Ville's inequality it ever reaches 1 / alpha with probability at most alpha. Bets l_i are known before x_i, and
small enough that the capital stays above 0. The interval is their hedged capital process with plug-in bets, on a grid of means.

Ours:
- The evidence spreads its capital over ten fixed bets, so that there is nothing to tune, and over the moments at which it begins to
  play: half begins at once, the rest at n = 1, 2, … with weights 1 / (n (n + 1)). So what goes bad after a long good time is found about
  2 ln n nats later than a fresh start would find it, and not never; and the guarantee is still over all time, unlike that of detectors
  that promise a mean time to false alarm (Shin, Ramdas, Rinaldo, 2022, arXiv 2203.03532), from which the sum over starts is taken.
- The lowest value that x can take may differ from one observation to the next, if it is known before; it bounds the bet.
- The difference subtracts c, any number known before: that changes no mean, as up and down both sum to 1, and takes out most of the spread.

Checked in tests/test_sequential.py: false alarms under continuous looking, time to detection, late changes, coverage, unbiasedness.
Cost: 12 µs per observation of evidence, 50 µs of an interval. State: an array of 10 numbers; of 2 x 81 numbers.

Functions return new state and change none. Arrays may carry leading axes N (many streams at once, for simulation).
Shapes: N streams (any number of axes, none in service), L bets, G grid of means.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import isfinite, log
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairlead.errors import StateError
from fairlead.objective import Objective
from fairlead.types import Reward

Floats: TypeAlias = NDArray[np.float64]
Evidence: TypeAlias = dict[str, Any]
Interval: TypeAlias = dict[str, Any]
K = TypeVar("K", bound=Hashable)

BETS: Floats = 2.0 ** np.arange(-9.0, 1.0)
"""The bets, (L,): the best one is about mean / variance of x, and one within a factor of two is nearly as good."""
CAP = 0.75
"""The most of its capital that a bet may lose in one step."""
MOST = 1e100
"""Capital is not counted above this: less is valid, and a number that is not finite is not."""
GRID: Floats = np.linspace(-1.0, 1.0, 81)
"""Means that an interval is looked for among, (G,)."""


def begin(streams: tuple[int, ...] = ()) -> Evidence:
    """Return evidence from nothing; its value is 1."""
    return {"n": 0, "capital": np.zeros((*streams, BETS.size))}


def weigh(evidence: Evidence, x: ArrayLike, *, low: ArrayLike) -> Evidence:
    """Return the evidence after one more observation.

    Args:
        evidence: so far, against the hypothesis that the mean is at most 0.
        x: the observation, (N).
        low: the lowest value that it could have had, below 0, known without it; (N).

    Raises:
        StateError: if x is not finite or is below `low`.
    """
    x_N1, low_N1 = np.asarray(x, np.float64)[..., None], np.asarray(low, np.float64)[..., None]
    if not np.isfinite(x_N1).all() or not (x_N1 >= low_N1 - 1e-9 * np.abs(low_N1)).all():
        raise StateError(f"{x!r} is not finite or is below its bound {low!r}: there is no valid bet on it")
    n = evidence["n"] + 1
    bet_NL = np.minimum(BETS, CAP / np.maximum(-low_N1, 1e-12))
    starts = (0.5 if n == 1 else 0.0) + 0.5 / (n * (n + 1))
    return {"n": n, "capital": np.minimum((evidence["capital"] + starts) * (1.0 + bet_NL * x_N1), MOST)}


def e_value(evidence: Evidence) -> Floats:
    """Return the capital, (N): 1 or less on average if the hypothesis holds, and ever 1 / alpha with probability alpha at most."""
    n = evidence["n"]
    idle = 0.5 / (n + 1) if n else 1.0  # what has not begun to play
    value_N: Floats = evidence["capital"].mean(axis=-1) + idle
    return value_N


def widest(streams: tuple[int, ...] = ()) -> Interval:
    """Return an interval that has seen nothing: from -1 to 1."""
    zero_N = np.zeros(streams)
    grid = (*streams, GRID.size)
    return {"n": 0, "sum": zero_N, "squares": zero_N, "up": np.zeros(grid), "down": np.zeros(grid)}


def narrow(interval: Interval, x: ArrayLike, *, low: ArrayLike, high: ArrayLike, alpha: float) -> Interval:
    """Return the interval after one more observation of something whose mean is one number in [-1, 1].

    Args:
        interval: so far.
        x: the observation, (N); it may lie outside [-1, 1].
        low: the lowest and
        high: the highest value that it could have had; (N).
        alpha: what the bets are made for; `bounds` is sharpest at the same.

    Raises:
        StateError: if x is not finite or is out of its bounds.
    """
    x_N, low_N, high_N = (np.asarray(v, np.float64) for v in (x, low, high))
    slack_N = 1e-9 * (1.0 + np.abs(low_N) + np.abs(high_N))
    if not np.isfinite(x_N).all() or not ((x_N >= low_N - slack_N) & (x_N <= high_N + slack_N)).all():
        raise StateError(f"{x!r} is not finite or not between {low!r} and {high!r}: there is no valid bet on it")
    n = interval["n"] + 1
    mean_N = interval["sum"] / n  # of those before, drawn to 0 by one more
    variance_N = (0.25 + np.maximum(interval["squares"] - n * mean_N**2, 0.0)) / n
    bet_N1 = np.sqrt(2.0 * log(2.0 / alpha) / (variance_N * n * log(n + 1.0)))[..., None]
    gap_NG = x_N[..., None] - GRID
    up_NG = np.minimum(bet_N1, CAP / np.maximum(GRID - low_N[..., None], 1e-12))
    down_NG = np.minimum(bet_N1, CAP / np.maximum(high_N[..., None] - GRID, 1e-12))
    return {
        "n": n,
        "sum": interval["sum"] + x_N,
        "squares": interval["squares"] + x_N**2,
        "up": interval["up"] + np.log1p(up_NG * gap_NG),
        "down": interval["down"] + np.log1p(-down_NG * gap_NG),
    }


def bounds(interval: Interval, *, alpha: float) -> tuple[Floats, Floats]:
    """Return the lowest and highest mean not ruled out, each (N); with probability 1 - alpha they hold the mean after every observation.

    `up` falls and `down` rises with the mean, so the bounds are the greatest mean of the grid that is shown to be too low and the least
    shown to be too high: one step apart at least. If they meet or cross (the mean has changed on the way), both are the plain mean so far.
    """
    bar = log(2.0 / alpha)
    low_N = np.where(interval["up"] >= bar, GRID, -1.0).max(axis=-1)
    high_N = np.where(interval["down"] >= bar, GRID, 1.0).min(axis=-1)
    mean_N = np.clip(interval["sum"] / max(interval["n"], 1), -1.0, 1.0)
    crossed_N = low_N >= high_N
    return np.where(crossed_N, mean_N, low_N), np.where(crossed_N, mean_N, high_N)


class Difference(NamedTuple):
    """One observation whose mean is the difference between two ways to choose, and the lowest and highest that any could be."""

    x: float
    low: float
    high: float


def difference(
    served: Mapping[K, float],
    up: Mapping[K, float],
    down: Mapping[K, float],
    *,
    chosen: K,
    y: float,
    centre: float,
    least: float,
    most: float,
) -> Difference | None:
    """Return one importance-weighted observation of what `up` brings more than `down`.

    The bounds follow from `least`, `most` and `centre` alone, and not from this query's probabilities: a bet that knew the query could win
    against a hypothesis that holds on average over queries, by staking more on those where it fails.

    Args:
        served: the probabilities that the choice was drawn with.
        up: those of one way to choose, and
        down: of the other; both sum to 1.
        chosen: what was drawn.
        y: what it brought, in [0, 1].
        centre: c in the formula, in [0, 1], known without y; the mean of y is good.
        least: the lowest, below 0, and
        most: the highest weight (up - down) / served that the way of serving allows.

    Returns:
        None if it cannot be read: a weight is out of that range (it was served in another way), or has no probability to divide by.

    Raises:
        StateError: if y does not lie in [0, 1].
    """
    if not 0.0 <= y <= 1.0:
        raise StateError(f"{y} does not lie in [0, 1]")
    weight = dict.fromkeys(served, 0.0)
    for k in up.keys() | down.keys():
        gap, p = up.get(k, 0.0) - down.get(k, 0.0), served.get(k, 0.0)
        if not (least * p * (1.0 + 1e-6) - 1e-12 <= gap <= most * p * (1.0 + 1e-6) + 1e-12):
            return None
        weight[k] = min(most, max(least, gap / p)) if p > 0.0 else 0.0
    if served.get(chosen, 0.0) <= 0.0:
        return None
    low = min(-most * centre, least * (1.0 - centre))
    high = max(most * (1.0 - centre), -least * centre)
    return Difference(weight[chosen] * (y - centre), low, high)


def scaled(reward: Reward, objective: Objective, worst: float) -> float:
    """Return the utility of `reward` in units of [0, 1]: 0 is `worst` or below, 1 is a right answer for nothing.

    Raises:
        StateError: if it is not finite.
    """
    utility = objective.utility(reward)
    if not isfinite(utility):
        raise StateError(f"a utility of {utility} was refused")
    return min(1.0, max(0.0, (utility - worst) / (1.0 - worst)))
