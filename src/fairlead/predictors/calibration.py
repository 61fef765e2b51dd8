"""Making forecasts mean what they say: a monotone map per target, learned from forecasts of queries that were held out.

`isotonic` (Zadrozny & Elkan 2002) takes the best non-decreasing step map; it needs many scored answers and makes ties. `platt`
(Platt 1999) fits a line in the log-odds: two numbers per target, safer on little data. Both are stored as points and served by
interpolation. Differs from the papers: the maps are pulled towards the identity while scored answers are few (`PRIOR` of them weigh
as much as the map), since a map from little data does harm.

Shapes: N queries, T targets, K knots. Serving takes about 2 µs per target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Method: TypeAlias = Literal["none", "isotonic", "platt"]

KNOTS = 65
PRIOR = 100.0
FOLDS = 5


def folds(groups_N: NDArray[np.int64], *, k: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Deal queries into `k` folds of about equal size; queries of one group land in the same fold. Returns (N,)."""
    _, member_N = np.unique(groups_N, return_inverse=True)
    n = int(member_N.max()) + 1
    dealt = np.random.default_rng(seed).permutation(n) % k
    out: NDArray[np.int64] = dealt[member_N]
    return out


def out_of_fold(
    fit_predict: Callable[[NDArray[np.int64], NDArray[np.int64]], Floats], groups_N: NDArray[np.int64], targets: int
) -> Floats:
    """Forecast every query by a model that has not seen it: ``fit_predict(train, test)`` returns (len(test), T)."""
    fold_N = folds(groups_N)
    out = np.full((len(groups_N), targets), np.nan)
    for f in range(int(fold_N.max()) + 1):
        test = np.flatnonzero(fold_N == f)
        train = np.flatnonzero(fold_N != f)
        if len(train) and len(test):
            out[test] = fit_predict(train, test)
    return out


def learn(method: Method, forecast_NT: Floats, quality_NT: Floats) -> Floats:
    """Return the map of each target as values at `KNOTS` evenly spaced forecasts in [0, 1], shape (T, K). NaN pairs are left out."""
    knots_K = np.linspace(0.0, 1.0, KNOTS)
    out = np.tile(knots_K, (forecast_NT.shape[1], 1))
    if method == "none":
        return out
    for t in range(forecast_NT.shape[1]):
        known = ~(np.isnan(forecast_NT[:, t]) | np.isnan(quality_NT[:, t]))
        p, y = np.clip(forecast_NT[known, t], 0.0, 1.0), quality_NT[known, t]
        if len(p) < 20 or y.min() == y.max() or p.min() == p.max():
            continue
        mapped = _isotonic(p, y, knots_K) if method == "isotonic" else _platt(p, y, knots_K)
        keep = len(p) / (len(p) + PRIOR)
        out[t] = keep * mapped + (1.0 - keep) * knots_K
    return out


def apply(map_TK: Floats, forecast_T: Floats) -> Floats:
    """Map one forecast per target, (T,)."""
    at = np.clip(forecast_T, 0.0, 1.0) * (KNOTS - 1)
    low = np.minimum(at.astype(np.int64), KNOTS - 2)
    part = at - low
    rows = np.arange(len(map_TK))
    out: Floats = map_TK[rows, low] * (1.0 - part) + map_TK[rows, low + 1] * part
    return out


def _isotonic(p: Floats, y: Floats, knots_K: Floats) -> Floats:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(p, y)
    return np.asarray(fitted.predict(knots_K), dtype=np.float64)


def _platt(p: Floats, y: Floats, knots_K: Floats) -> Floats:
    from sklearn.linear_model import LogisticRegression

    # A quality between 0 and 1 is that share of a success and the rest of a failure.
    x = _log_odds(np.concatenate([p, p]))[:, None]
    label = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
    fitted = LogisticRegression(C=1e4).fit(x, label, sample_weight=np.concatenate([y, 1.0 - y]))
    if fitted.coef_[0, 0] <= 0.0:
        return np.full_like(knots_K, y.mean())
    return np.asarray(fitted.predict_proba(_log_odds(knots_K)[:, None])[:, 1], dtype=np.float64)


def _log_odds(p: Floats) -> Floats:
    q = np.clip(p, 0.01, 0.99)
    out: Floats = np.log(q / (1.0 - q))
    return out
