"""How far forecasts are off beyond what they state: what is common to neighbours is no chance. Ours.

The squared error of forecasts on queries that were held out is chance (an answer is right or wrong) plus error (the forecast is off).
One answer per query does not tell the two apart; queries that are near each other almost do. Chance is independent from query to query,
an error is not: forecasts that are off are off alike for queries that are alike. With r the residuals of two neighbours i and j

    E r_i r_j = error_i * error_j

so the mean of such products is the squared error that neighbours share. Copies of one prompt are no neighbours: their answers would go
together without saying anything of a forecast. What changes from one neighbour to the next stays unseen, so this is a floor.

Shapes: N queries, T targets, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairlead.predictors.statistics import unit

Floats = NDArray[np.float64]

NEIGHBOURS = 5
_CHECKED = 1500
"""Queries whose neighbours are looked up."""


def shared_error(x_ND: Floats, residual_NT: Floats, groups_N: NDArray[np.int64]) -> Floats:
    """Return per target the mean product of a residual and those of its nearest neighbours, (T,): a squared error, at least 0.

    Args:
        x_ND: features.
        residual_NT: quality less forecast of queries that were held out, NaN where nobody scored.
        groups_N: queries of one group are no neighbours.
    """
    n = len(x_ND)
    if n < 2:
        return np.zeros(residual_NT.shape[1])
    rows = np.linspace(0, n - 1, min(n, _CHECKED)).astype(np.int64)
    top, good = neighbours(x_ND, rows, groups_N, NEIGHBOURS)
    known_NT = ~np.isnan(residual_NT)
    value_NT = np.where(known_NT, residual_NT, 0.0)
    product_T = (value_NT[rows] * (value_NT[top] * good[:, :, None]).sum(axis=1)).sum(axis=0)
    pairs_T = (known_NT[rows] * (known_NT[top] & good[:, :, None]).sum(axis=1)).sum(axis=0)
    out: Floats = np.maximum(product_T, 0.0) / np.maximum(pairs_T, 1)
    return out


def beyond(shared_T: Floats, sd_QT: Floats) -> Floats:
    """Return the root of what the shared error exceeds the mean stated variance by, (T,)."""
    out: Floats = np.sqrt(np.maximum(0.0, shared_T - (sd_QT * sd_QT).mean(axis=0)))
    return out


def neighbours(
    x_ND: Floats | NDArray[np.float32], rows: NDArray[np.int64], groups_N: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the k nearest by cosine of each of `rows`, nearest first, and which of them are of another group; (R, k) each."""
    x_32 = unit(x_ND.astype(np.float32))
    near = x_32[rows] @ x_32.T
    near[groups_N[rows][:, None] == groups_N[None, :]] = -np.inf
    k = min(k, len(x_ND) - 1)
    top = np.argpartition(near, len(x_ND) - k, axis=1)[:, len(x_ND) - k :]
    score = np.take_along_axis(near, top, axis=1)
    order = np.argsort(-score, axis=1, kind="stable")
    top, score = np.take_along_axis(top, order, axis=1), np.take_along_axis(score, order, axis=1)
    return top, np.isfinite(score)
