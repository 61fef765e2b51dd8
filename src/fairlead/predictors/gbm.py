"""Few shallow boosted trees per target, three times over. Friedman 2001; histogram trees of Ke et al. 2017 (LightGBM).
Fit by scikit-learn (`HistGradientBoostingRegressor`), served from arrays by numpy.

    quality = mean_t + s * (mean over folds k of  f_kt(x) - mean_t)

f_kt is boosted by squared error on the training queries without fold k (equal prompts share a fold). Its own fold
tells when to stop: the number of trees is one for all targets and folds, where the summed squared error of the
held-out queries is least. The slope s is fitted to the same forecasts, one for all targets, at most 1; and as the mean
of K models strays less from mean_t than each of them does, it is raised by the ratio of their mean squares. So where
the text says nothing there are few trees, a small slope, and the mean. Squared error, not log loss: on right-or-wrong
answers it is calibrated without a map, takes shares as they are, and is what routing loses by.

    quality_sd^2 = s^2 (K - 1) / K sum over k of (f_kt(x) - mean over k)^2  +  standard error of mean_t^2

The first term is the delete-a-fold jackknife (Efron & Tibshirani 1993, ch. 11): what more data would change. From
three models it is rough, so it is averaged half and half with its mean over training queries.

Shapes: Q queries, T targets, D features, K folds, N trees per model, all made complete (2^depth leaves). A fit of
5,600 x 9 at D = 150 takes about 4 s, a forecast 40 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.errors import StateError, TableError
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method, folds
from fairlead.predictors.features import Features
from fairlead.predictors.statistics import means, standard_error

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

_FOLDS = 3
_STEEPEST = 1.5
_NEVER = 1e300
"""Threshold of a split that a tree does not have: everything goes left."""


class GBM(Predictor):
    """Forecasts by gradient-boosted trees.

    Args:
        features: what is read of a query; None: `Features()`.
        trees: most trees per target and fold.
        depth: splits on the way to a leaf, at most.
        rate: share of each tree's step that is taken.
        least: fewest queries in a leaf.
        l2: added to the number of queries in a leaf when its value is set.
        columns: share of the features that each split may choose from.
        seed: of the columns drawn.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    feature_: NDArray[np.int64]
    """Feature of each split, (K * T * N * (2^depth - 1),): trees in order of fold, target, tree; splits level by level."""
    threshold_: Floats
    """Goes right if greater, like `feature_`."""
    value_: Floats
    """Of the leaves from left to right, (K * T * N * 2^depth,)."""
    base_: Floats
    """Where each model starts, (K, T)."""
    mean_: Floats
    """Mean quality, (T,)."""
    slope_: float
    trees_: int
    """Trees per target and fold that are kept."""
    depth_: int
    jackknife_: Floats
    """Mean of the first term of the variance over held-out queries, (T,)."""
    floor_: Floats
    """The other two terms of the variance, (T,)."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        trees: Annotated[int, Meta(ge=1)] = 48,
        depth: Annotated[int, Meta(ge=1, le=12)] = 3,
        rate: Annotated[float, Meta(gt=0.0)] = 0.15,
        least: Annotated[int, Meta(ge=1)] = 40,
        l2: Annotated[float, Meta(ge=0.0)] = 10.0,
        columns: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.3,
        seed: Annotated[int, Meta(ge=0)] = 0,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.trees = trees
        self.depth = depth
        self.rate = rate
        self.least = least
        self.l2 = l2
        self.columns = columns
        self.seed = seed
        self.calibration = calibration

    @classmethod
    def example(cls) -> Self:
        """With few trees, which fit in no time."""
        return cls(trees=8)

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        if np.isnan(quality_QT).all():
            raise TableError("the table has no scored answers to learn from")
        known_QT = ~np.isnan(quality_QT)
        targets = quality_QT.shape[1]
        self.mean_ = means(quality_QT)
        fold_Q = folds(table.groups, k=_FOLDS, seed=self.seed)
        splits, leaves = 2**self.depth - 1, 2**self.depth
        feature = np.zeros((_FOLDS, targets, self.trees, splits), dtype=np.int64)
        threshold = np.full((_FOLDS, targets, self.trees, splits), _NEVER)
        value = np.zeros((_FOLDS, targets, self.trees, leaves))
        self.base_ = np.tile(self.mean_, (_FOLDS, 1))
        # Forecasts of each held-out query after 0, 1, … trees.
        staged_NQT = np.full((self.trees + 1, *quality_QT.shape), np.nan)
        for k in range(_FOLDS):
            inside, outside = fold_Q != k, np.flatnonzero(fold_Q == k)
            staged_NQT[:, outside] = means(quality_QT[inside])
            for t in range(targets):
                rows = inside & known_QT[:, t]
                if rows.sum() < 2 * self.least or np.ptp(quality_QT[rows, t]) == 0.0:
                    continue
                trees = feature[k, t], threshold[k, t], value[k, t]
                self.base_[k, t] = _export(self._boosted(x_QD[rows], quality_QT[rows, t]), x_QD[rows], *trees)
                staged_NQT[0, outside, t] = self.base_[k, t]
                staged_NQT[1:, outside, t] = self.base_[k, t] + _grown(x_QD[outside], *trees).cumsum(axis=0)
        error_N = np.nansum((staged_NQT - quality_QT) ** 2, axis=(1, 2))
        self.trees_ = int(error_N.argmin())
        self.depth_ = self.depth
        kept = slice(0, self.trees_)
        self.feature_, self.threshold_ = feature[:, :, kept].ravel(), threshold[:, :, kept].ravel()
        self.value_ = value[:, :, kept].ravel()
        self._settle(staged_NQT[self.trees_], x_QD, quality_QT)

    def _boosted(self, x_ND: Floats, y_N: Floats) -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            learning_rate=self.rate,
            max_iter=self.trees,
            max_depth=self.depth,
            max_leaf_nodes=2**self.depth,
            min_samples_leaf=self.least,
            l2_regularization=self.l2,
            max_features=self.columns,
            max_bins=63,
            early_stopping=False,
            random_state=self.seed,
        ).fit(x_ND, y_N)

    def _settle(self, held_out_QT: Floats, x_QD: Floats, quality_QT: Floats) -> None:
        """Fit the slope, and note how much the forecasts can be trusted."""
        known_QT = ~np.isnan(quality_QT)
        off_QT = np.where(known_QT, held_out_QT - self.mean_, 0.0)
        best = (off_QT * np.where(known_QT, quality_QT - self.mean_, 0.0)).sum() / max(float((off_QT**2).sum()), 1e-12)
        rows = np.linspace(0, len(x_QD) - 1, min(len(x_QD), 300)).astype(np.int64)
        each_QKT = np.stack([self._each(x_D) for x_D in x_QD[rows]])
        # A mean of models strays less from the mean quality than one of them does, and goes along with the truth as much.
        single = float(((each_QKT - self.mean_) ** 2).mean())
        together = float(((each_QKT.mean(axis=1) - self.mean_) ** 2).mean())
        alone = min(1.0, max(0.0, float(best)))
        self.slope_ = min(_STEEPEST, alone * single / max(together, 1e-12))
        self.floor_ = standard_error(self.mean_, known_QT.sum(axis=0).astype(np.float64)) ** 2
        self.jackknife_ = np.mean([self._jackknife(each_KT) for each_KT in each_QKT], axis=0)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        each_KT = self._each(x_D)
        variance_T = 0.5 * (self._jackknife(each_KT) + self.jackknife_) + self.floor_
        quality_T = self.mean_ + self.slope_ * (each_KT.sum(axis=0) / _FOLDS - self.mean_)
        return quality_T, np.sqrt(variance_T)

    def _each(self, x_D: Floats) -> Floats:
        """Return what the model of each fold says, (K, T)."""
        if not self.trees_:
            return self.base_
        splits = 2**self.depth_ - 1
        first = np.arange(0, len(self.feature_), splits)
        node = first
        for _ in range(self.depth_):
            right = x_D.take(self.feature_.take(node)) > self.threshold_.take(node)
            node = node + node - first + 1 + right
        # Leaves stand behind the splits of their tree, and trees have one more leaf than splits.
        leaf = node - splits + np.arange(len(first))
        out: Floats = self.base_ + self.value_.take(leaf).reshape(*self.base_.shape, -1).sum(axis=2)
        return out

    def _jackknife(self, each_KT: Floats) -> Floats:
        out: Floats = self.slope_**2 * (_FOLDS - 1.0) * each_KT.var(axis=0)
        return out


def _export(model: Any, x_QD: Floats, feature_NS: NDArray[np.int64], threshold_NS: Floats, value_NL: Floats) -> float:
    """Write the trees of a fitted model into arrays of complete trees; return where it starts.

    scikit-learn does not promise to keep its trees as it does, so what the arrays say is compared with what the model says.

    Raises:
        StateError: if they differ.
    """
    splits = feature_NS.shape[1]
    try:
        start = float(model._baseline_prediction.ravel()[0])
        for n, (tree,) in enumerate(model._predictors):
            stack = [(0, 0)]
            while stack:
                at, node = stack.pop()
                found = tree.nodes[node]
                if not found["is_leaf"]:
                    feature_NS[n, at] = found["feature_idx"]
                    threshold_NS[n, at] = min(float(found["num_threshold"]), _NEVER)
                    stack += [(2 * at + 1, int(found["left"])), (2 * at + 2, int(found["right"]))]
                    continue
                # A leaf that comes early: the splits below it never send anything right.
                while at < splits:
                    at = 2 * at + 1
                value_NL[n, at - splits] = found["value"]
        same = np.allclose(
            start + _grown(x_QD[:64], feature_NS, threshold_NS, value_NL).sum(axis=0), model.predict(x_QD[:64])
        )
    except (AttributeError, IndexError, TypeError, ValueError) as e:
        raise StateError(
            f"gbm cannot read the trees of this version of scikit-learn ({e}); install one from 1.5 to 1.9"
        ) from e
    if not same:
        raise StateError("gbm misreads the trees of this version of scikit-learn; install one from 1.5 to 1.9")
    return start


def _grown(x_QD: Floats, feature_NS: NDArray[np.int64], threshold_NS: Floats, value_NL: Floats) -> Floats:
    """Return what each tree says of each query, (N, Q)."""
    n, splits = feature_NS.shape
    tree_N1 = np.arange(n)[:, None]
    query_Q = np.arange(len(x_QD))
    node_NQ = np.zeros((n, len(x_QD)), dtype=np.int64)
    while node_NQ.size and node_NQ.flat[0] < splits:
        right = x_QD[query_Q, feature_NS[tree_N1, node_NQ]] > threshold_NS[tree_N1, node_NQ]
        node_NQ = 2 * node_NQ + 1 + right
    out: Floats = value_NL[tree_N1, node_NQ - splits]
    return out
