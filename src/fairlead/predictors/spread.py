"""How far a forecast may lie from the quality that is to be expected: what chance explains is not error. Ours.

The squared error of forecasts on queries that were held out is chance (an answer is right or wrong) plus error (the
forecast is off). One answer per query does not tell the two apart; queries that are near each other almost do. With
m_k the plain mean of a query's k nearest

    E (y - m_k)^2 = (1 + 1/k) * chance + how much quality changes among k neighbours, squared

so k / (k + 1) times the left side is at least chance, and the least of these over k, and of f (1 - f), is what we
take. So what no neighbourhood can tell stays unseen, and the spread is a floor. The nearest-neighbour estimate of
noise goes back to Devroye et al. 2003.

Shapes: N queries, T targets, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KS = (2, 5, 10, 20, 40, 80)
_CHECKED = 1500
"""Queries whose neighbours are looked up."""


def chance(x_ND: Floats, quality_NT: Floats) -> Floats:
    """Return at most how much of a squared error chance alone explains, (T,); infinity for a target that tells nothing.

    Args:
        x_ND: rows of length one.
        quality_NT: quality, NaN where nobody scored.
    """
    n = len(x_ND)
    least_T = np.full(quality_NT.shape[1], np.inf)
    if n < 2:
        return least_T
    rows = np.linspace(0, n - 1, min(n, _CHECKED)).astype(np.int64)
    x_32 = x_ND.astype(np.float32)
    near = x_32[rows] @ x_32.T
    near[np.arange(len(rows)), rows] = -np.inf
    most = min(max(KS), n - 1)
    top = np.argpartition(near, n - most, axis=1)[:, n - most :]
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(near, top, axis=1), axis=1, kind="stable"), axis=1)
    known_NT = ~np.isnan(quality_NT)
    value_NT = np.where(known_NT, quality_NT, 0.0)
    count = np.cumsum(known_NT[top], axis=1)
    total = np.cumsum(value_NT[top], axis=1)
    for k in (k for k in KS if k <= most):
        c, s = count[:, k - 1], total[:, k - 1]
        asked = known_NT[rows] & (c > 0)
        square = (s / np.maximum(c, 1) - value_NT[rows]) ** 2 * c / (c + 1.0)
        found_T = np.where(asked, square, 0.0).sum(axis=0) / np.maximum(asked.sum(axis=0), 1)
        least_T = np.where(asked.any(axis=0), np.minimum(least_T, found_T), least_T)
    return least_T


def misfit(forecast_NT: Floats, quality_NT: Floats, sampling_T: Floats, chance_T: Floats) -> Floats:
    """Return the root of what held-out squared error exceeds chance and sampling by, per target, (T,); 0 where nothing was held out.

    Args:
        forecast_NT: forecasts of queries held out, NaN where there is none.
        quality_NT: their quality, NaN where nobody scored.
        sampling_T: mean variance that the forecasts have for want of data, which is reported beside this.
        chance_T: from `chance`.
    """
    known_NT = ~(np.isnan(forecast_NT) | np.isnan(quality_NT))
    n_T = np.maximum(known_NT.sum(axis=0), 1)
    f_NT = np.clip(np.where(known_NT, forecast_NT, 0.5), 0.0, 1.0)
    square_T = np.where(known_NT, (f_NT - np.where(known_NT, quality_NT, 0.0)) ** 2, 0.0).sum(axis=0) / n_T
    mixed_T = np.where(known_NT, f_NT * (1.0 - f_NT), 0.0).sum(axis=0) / n_T
    out: Floats = np.sqrt(np.maximum(0.0, square_T - np.minimum(chance_T, mixed_T) - sampling_T))
    return out
