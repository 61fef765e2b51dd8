"""Queries grouped by k-means at several numbers of groups side by side, with soft membership: what `clusters` and
`graph` stand on.

    p(c | x) = exp(x . c / temperature) / sum over the groups of one grouping

on rows scaled to unit length (Lloyd 1982; seeding of Arthur & Vassilvitskii 2007, k-means++). One grouping has
borders, on both sides of which forecasts jump; several, averaged, with soft membership, have none. Without
scikit-learn: few lines, the same on every machine, and at ease with fewer distinct rows than groups.

Which groupings are averaged, the temperature, and which of several tables (quality of each target in each group) is
believed, is chosen by squared error on held-out training queries.

Shapes: N queries, D features, T targets, K groupings, C groups of all groupings, A tables compared. Membership in 500
groups at D = 200 takes about 25 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairlead.predictors.calibration import folds
from fairlead.predictors.statistics import means, unit

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Tables: TypeAlias = Callable[[Floats, Floats, Floats], Floats]
"""(scored answers (C, T), their summed quality (C, T), mean of each target (T,)) -> tables to compare (A, C, T)."""

KS = (16, 32, 64, 128, 256)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3)
TEMPERATURE = 0.05
"""Where it is not chosen."""
SMALLEST = 5
"""Queries per group, on average: a grouping with fewer is left out."""
_ROUNDS = 25
_FOLDS = 3


class Choice(NamedTuple):
    """What held-out queries spoke for."""

    ks: list[int]
    temperature: float
    table: int
    forecast_NT: Floats
    """Forecasts of the held-out queries under this choice; NaN if there were too few to hold any out."""


def sizes(ks: Sequence[int], queries: int) -> list[int]:
    """Return those of `ks` that leave `SMALLEST` queries per group, in order; one group of all if none does."""
    return sorted({k for k in ks if 1 <= k * SMALLEST <= queries}) or [1]


def centres(x_ND: Floats, k: int, seed: int) -> tuple[Floats, Ints]:
    """Group unit rows; return the centres, (k, D), and each row's group, (N,). A group may stay empty if rows are alike."""
    centre_KD = _seeds(x_ND, k, np.random.default_rng([seed, k]))
    group_N = np.full(len(x_ND), -1)
    for _ in range(_ROUNDS):
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for all groups.
        new_N = ((centre_KD**2).sum(axis=1) - 2.0 * (x_ND @ centre_KD.T)).argmin(axis=1)
        if (new_N == group_N).all():
            break
        group_N = new_N
        member_KN = np.zeros((k, len(x_ND)))
        member_KN[group_N, np.arange(len(x_ND))] = 1.0
        count_K1 = member_KN.sum(axis=1, keepdims=True)
        centre_KD = np.where(count_K1 > 0, (member_KN @ x_ND) / np.maximum(count_K1, 1.0), centre_KD)
    return centre_KD, group_N


def membership(near_NC: Floats, sizes_K: Ints, temperature: float) -> Floats:
    """Turn products of unit rows with the centres into membership, (N, C): it sums to one within each grouping."""
    # The products lie in [-1, 1], so that neither side of the fraction can overflow or vanish at temperatures from 0.01 up.
    p_NC = np.exp((near_NC - 1.0) / temperature)
    sum_NK = np.add.reduceat(p_NC, np.cumsum(sizes_K) - sizes_K, axis=1)
    out: Floats = p_NC / np.repeat(sum_NK, sizes_K, axis=1)
    return out


def belonging(x_ND: Floats, centres_CD: Floats) -> Floats:
    """Return the membership of rows, of any length, in the groups of one grouping, (N, C), at `TEMPERATURE`."""
    groups = len(centres_CD)
    return membership(unit(x_ND) @ centres_CD.T, np.full(min(groups, 1), groups), TEMPERATURE)


def forecast(
    x_D: Floats,
    centres_CD: NDArray[np.float32],
    sizes_K: Ints,
    temperature: float,
    table_CT: Floats,
    variance_CT: Floats,
) -> tuple[Floats, Floats]:
    """Return what the groups say of one query and the variance of that for want of data, (T,) each.

    The groupings hold the same answers, so averaging them makes nothing surer.
    """
    near_C = (centres_CD @ unit(x_D[None])[0].astype(np.float32)).astype(np.float64)
    p_C = membership(near_C[None], sizes_K, temperature)[0]
    return p_C @ table_CT / len(sizes_K), (p_C * p_C) @ variance_CT / len(sizes_K)


def totals(group_N: Ints, k: int, quality_NT: Floats) -> tuple[Floats, Floats]:
    """Return the scored answers of each group and target and their summed quality, (k, T) each. NaN is not counted."""
    known_NT = ~np.isnan(quality_NT)
    count_KT = np.zeros((k, quality_NT.shape[1]))
    total_KT = np.zeros_like(count_KT)
    np.add.at(count_KT, group_N, known_NT)
    np.add.at(total_KT, group_N, np.where(known_NT, quality_NT, 0.0))
    return count_KT, total_KT


def choose(x_ND: Floats, quality_NT: Floats, group_N: Ints, *, ks: Sequence[int], seed: int, tables: Tables) -> Choice:
    """Choose groupings, temperature and table by squared error on held-out queries.

    Args:
        x_ND: rows of length one.
        quality_NT: quality, NaN where nobody scored.
        group_N: queries of one group, such as equal prompts, are held out together.
        ks: groupings that may be averaged: all, or all from some size up.
        seed: of the groupings.
        tables: makes the tables that are compared, best guess first.
    """
    fold_N = folds(group_N, k=_FOLDS, seed=seed)
    found = sizes(ks, int(len(x_ND) * (1.0 - 1.0 / _FOLDS)))
    held_out = np.full(quality_NT.shape, np.nan)
    parts = [(np.flatnonzero(fold_N != f), np.flatnonzero(fold_N == f)) for f in range(_FOLDS)]
    if len(x_ND) < 2 * SMALLEST * _FOLDS or not all(len(a) and len(b) for a, b in parts):
        return Choice(found[:1], TEMPERATURES[-1], 0, held_out)
    answers = []
    error_SHA = np.zeros((len(found), len(TEMPERATURES), 1))
    for train, test in parts:
        mean_T = means(quality_NT[train])
        each = []
        for k in found:
            centre_KD, mine = centres(x_ND[train], k, seed)
            table_AKT = tables(*totals(mine, k, quality_NT[train]), mean_T)
            near_NK = x_ND[test] @ centre_KD.T
            p_HNK = np.stack([membership(near_NK, np.asarray([k]), h) for h in TEMPERATURES])
            each.append(np.einsum("hnk,akt->hant", p_HNK, table_AKT, optimize=True).astype(np.float32))
        # The mean over all groupings from the s-th up, for each s.
        sum_SHANT = np.cumsum(np.stack(each[::-1]), axis=0)[::-1]
        mean_SHANT = sum_SHANT / np.arange(len(found), 0, -1, dtype=np.float32)[:, None, None, None, None]
        truth_NT = quality_NT[test]
        error_SHA = error_SHA + np.nansum((mean_SHANT - truth_NT) ** 2, axis=(3, 4))
        answers.append((test, mean_SHANT))
    s, h, a = (int(i) for i in np.unravel_index(error_SHA.argmin(), error_SHA.shape))
    for test, mean_SHANT in answers:
        held_out[test] = mean_SHANT[s, h, a]
    return Choice(found[s:], TEMPERATURES[h], a, held_out)


def _seeds(x_ND: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Draw each next centre with probability in proportion to its squared distance from those there are."""
    n = len(x_ND)
    chosen = [int(rng.integers(n))]
    far_N = np.full(n, np.inf)
    for _ in range(k - 1):
        far_N = np.minimum(far_N, ((x_ND - x_ND[chosen[-1]]) ** 2).sum(axis=1))
        total = float(far_N.sum())
        at = int(np.searchsorted(far_N.cumsum(), rng.random() * total)) if total > 1e-12 else int(rng.integers(n))
        chosen.append(min(at, n - 1))
    return x_ND[chosen].copy()
