"""Raw scores -> quality in [0, 1], shrunk as far as held-out queries demand, with a spread. Ours, no paper.

A method that ranks targets, or that was stopped early, gives scores on a scale of its own. Split into what all targets share on a query
(how easy it is) and what each target has beyond that, they are put on the scale of quality by

    quality_t = sigmoid(offset_t + ease * common + apart * own_t)        ease, apart >= 0; common, own_t: less their means

The two slopes and the offsets come from logistic regression on scores of queries that were held out. Where text says nothing the slopes
come out near 0, and every target is forecast by its mean. If the scores are log-odds of battles, this is the Rasch model (1960):
ability less difficulty.

The spread of an expected quality is made of how far the scores would move with other training queries (the caller's variance) and the
offset's standard error.

Shapes: Q queries, N scored answers, T targets, K members, P parameters.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairlead.predictors.statistics import half_mean, sigmoid

Floats = NDArray[np.float64]
Anchor: TypeAlias = dict[str, Floats]
"""`offset`, `count` (scored answers) and `own` (mean of the score), (T,) each; `slope` = (ease, apart); `common`, a mean, (1,)."""

_PRIOR = 4.0
"""Penalty on the slopes, per variance of what they multiply: that of about 16 coin tosses."""


def split(score: Floats) -> tuple[Floats, Floats]:
    """Split scores, (…, T), into their mean over targets, (…,), and what each target has beyond it, (…, T)."""
    common = np.asarray(score.mean(axis=-1))
    return common, score - common[..., None]


def learn(common_Q: Floats, own_QT: Floats, quality_QT: Floats) -> Anchor:
    """Learn the map from scores of held-out queries. NaN in `quality_QT` is left out."""
    targets = quality_QT.shape[1]
    q, t = np.nonzero(~np.isnan(quality_QT))
    # Centred, an offset is the level on a typical query: also that of a target without scored answers.
    centre, centre_T = common_Q.mean(), own_QT.mean(axis=0)
    y_N, part_N2 = quality_QT[q, t], np.column_stack([common_Q[q] - centre, (own_QT - centre_T)[q, t]])
    live_2 = part_N2.std(axis=0) > 1e-9 if len(y_N) else np.zeros(2, dtype=bool)
    for _ in range(3):
        offset_T, slope_2 = _solve(t, np.where(live_2, part_N2, 0.0), y_N, targets)
        if (slope_2 >= 0.0).all():
            break
        # A score that points the wrong way is worth nothing; without it the other may change.
        live_2 = live_2 & (slope_2 > 0.0)
    return {
        "offset": offset_T,
        "slope": np.maximum(slope_2, 0.0),
        "count": np.bincount(t, minlength=targets).astype(np.float64),
        "common": np.full(1, centre),
        "own": centre_T,
    }


def log_odds(anchor: Anchor, common: Floats, own: Floats) -> Floats:
    """Return the log-odds of quality, (…, T). A target without scored answers has no score of its own."""
    ease, apart = anchor["slope"]
    own = np.where(anchor["count"] > 0, own - anchor["own"], 0.0)
    out: Floats = anchor["offset"] + ease * (common[..., None] - anchor["common"]) + apart * own
    return out


def forecast(anchor: Anchor, log_odds_T: Floats, variance_T: Floats, unknown_sd: float) -> tuple[Floats, Floats]:
    """Return quality and its spread, from log-odds and their variance, (T,) each."""
    quality_T = sigmoid(log_odds_T)
    slope_T = quality_T * (1.0 - quality_T)
    mean_T = sigmoid(anchor["offset"])
    offset_variance_T = 1.0 / (anchor["count"] * mean_T * (1.0 - mean_T) + 0.25)
    sd_T = slope_T * np.sqrt(variance_T + offset_variance_T)
    return quality_T, np.where(anchor["count"] > 0, np.minimum(np.maximum(sd_T, 1e-6), unknown_sd), unknown_sd)


def jackknife(log_odds_KT: Floats) -> tuple[Floats, Floats]:
    """Return the mean of K members that each left out one group of queries, and its variance by the jackknife, (T,) each.

    K values say little of a variance: half of what is returned is a target's own, half the mean of all targets.
    """
    mean_T = log_odds_KT.mean(axis=0)
    apart_KT = log_odds_KT - mean_T
    own_T = (apart_KT * apart_KT).sum(axis=0) * ((len(apart_KT) - 1) / len(apart_KT))
    return mean_T, 0.5 * (own_T + own_T.mean())


def _solve(t: NDArray[np.int64], part_N2: Floats, y_N: Floats, targets: int) -> tuple[Floats, Floats]:
    """Newton's method for offsets and slopes. Each offset is held by one more answer, half right."""
    count_T = np.bincount(t, minlength=targets)
    mean_T = half_mean(np.bincount(t, weights=y_N, minlength=targets), count_T)
    offset_T, slope_2 = np.log(mean_T / (1.0 - mean_T)), np.zeros(2)
    penalty_2 = _PRIOR * np.maximum(part_N2.var(axis=0), 1e-12) if len(y_N) else np.ones(2)
    for _ in range(25):
        p_N, p_T = sigmoid(offset_T[t] + part_N2 @ slope_2), sigmoid(offset_T)
        w_N = p_N * (1.0 - p_N)
        gradient_P = np.append(
            np.bincount(t, weights=y_N - p_N, minlength=targets) + 0.5 - p_T,
            part_N2.T @ (y_N - p_N) - penalty_2 * slope_2,
        )
        curve_T = np.bincount(t, weights=w_N, minlength=targets) + p_T * (1.0 - p_T)
        curve_PP = np.diag(np.append(curve_T, penalty_2))
        for j in range(2):
            cross_T = np.bincount(t, weights=w_N * part_N2[:, j], minlength=targets)
            curve_PP[:targets, targets + j] = curve_PP[targets + j, :targets] = cross_T
        curve_PP[targets:, targets:] += (part_N2 * w_N[:, None]).T @ part_N2
        move_P = np.linalg.solve(curve_PP, gradient_P)
        # A full step may overshoot where a target is nearly always right.
        move_P /= max(1.0, float(np.abs(move_P[:targets]).max()) / 2.0)
        offset_T, slope_2 = offset_T + move_P[:targets], slope_2 + move_P[targets:]
        if np.abs(move_P).max() < 1e-8:
            break
    return offset_T, slope_2
