"""Quality of each target by a forest of extremely randomised trees. After Geurts, Ernst, Wehenkel 2006, "Extremely randomized trees".

Each tree splits the queries at random points of its features, choosing among random splits the one that best separates the qualities of
all targets at once; a forecast is the mean over trees of the leaf that the query falls into. In effect a query is compared with those
that fall where it falls, by a distance that was learned from the outcomes; that is what it is better at than `knn`.

Differs from the paper: a leaf holds at least `leaf` queries and trees are at most `depth` deep; a leaf's mean is pulled towards the
target's mean by `pull` answers; unscored answers count for the splits as their target's mean and are left out of the leaves.

    quality_sd^2 = quality (1 - quality) / n        n = share * (mean over trees of the answers in the leaf)

A forecast is a weighted mean of the training answers. How many equal weights its weights are worth is counted on a sample of the training
queries, and `share` is what that is, on average, of the leaves' size.

scikit-learn grows the trees; numpy serves them, all trees one level at a time.

Shapes: Q queries, T targets, D features, K trees, N nodes of all trees, L leaves of all trees. Fitting 5,600 x 100 for nine targets takes 3 s
on one core, a forecast 120 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.errors import TableError
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.statistics import means, pulled, standard_error

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

_SAMPLE = 200
"""Queries on which `share_` is counted."""


class Forest(Predictor):
    """Forecasts by extremely randomised trees.

    Args:
        features: what is read of a query; None: `Features()`.
        trees: how many.
        leaf: fewest queries in a leaf.
        depth: most splits from root to leaf.
        pull: weight of the target's own mean in a leaf, in answers.
        seed: of the random splits.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    feature_: NDArray[np.int64]
    """Feature that a node looks at, (N,)."""
    threshold_: NDArray[np.float32]
    """A query goes left if the feature is at most this, (N,)."""
    child_: NDArray[np.int64]
    """Left and right child of a node, (2 N,), left at 2 n; of a leaf, itself."""
    root_: NDArray[np.int64]
    """Root of each tree, (K,)."""
    leaf_: NDArray[np.int64]
    """Row of each node in the leaves, (N,); 0 for inner nodes."""
    value_: NDArray[np.float32]
    """Pulled mean quality in each leaf, (L, T)."""
    size_: NDArray[np.float32]
    """Scored answers in each leaf, (L, T)."""
    mean_: Floats
    """Mean quality, (T,)."""
    depth_: int
    share_: float

    def __init__(
        self,
        *,
        features: Features | None = None,
        trees: Annotated[int, Meta(ge=1)] = 100,
        leaf: Annotated[int, Meta(ge=1)] = 10,
        depth: Annotated[int, Meta(ge=1)] = 14,
        pull: Annotated[float, Meta(ge=0.0)] = 1.0,
        seed: Annotated[int, Meta(ge=0)] = 0,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.trees = trees
        self.leaf = leaf
        self.depth = depth
        self.pull = pull
        self.seed = seed
        self.calibration = calibration

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        known_QT = ~np.isnan(quality_QT)
        if not known_QT.any():
            raise TableError("the table has no scored answers to learn from")
        self.mean_ = means(quality_QT)
        leaf_QK = self._grow_trees(x_QD, np.where(known_QT, quality_QT, self.mean_))
        self._fill(leaf_QK, quality_QT)
        self.share_ = self._count_share(leaf_QK)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        leaf_K = self.leaf_[self._descend(x_D)]
        quality_T = self.value_[leaf_K].mean(axis=0, dtype=np.float64)
        n_T = self.share_ * self.size_[leaf_K].mean(axis=0, dtype=np.float64)
        return quality_T, standard_error(quality_T, n_T)

    def _descend(self, x_D: Floats) -> NDArray[np.int64]:
        """Return the leaf node that the query falls into in each tree, (K,)."""
        # `take` on 64-bit indices: half the time of brackets on narrow ones.
        x = x_D.astype(np.float32)
        node_K = self.root_
        for _ in range(self.depth_):
            right_K = x.take(self.feature_.take(node_K)) > self.threshold_.take(node_K)
            node_K = self.child_.take(2 * node_K + right_K)
        return node_K

    def _grow_trees(self, x_QD: Floats, y_QT: Floats) -> NDArray[np.int64]:
        """Grow the trees; return the leaf of each query in each tree, (Q, K)."""
        from sklearn.ensemble import ExtraTreesRegressor

        model = ExtraTreesRegressor(
            self.trees,
            min_samples_leaf=min(self.leaf, max(1, len(x_QD) // 4)),
            max_depth=self.depth,
            max_features=0.5,
            random_state=self.seed,
        ).fit(x_QD, y_QT[:, 0] if y_QT.shape[1] == 1 else y_QT)
        parts: dict[str, list[Any]] = {"feature": [], "threshold": [], "child": [], "leaf": []}
        root, leaves = [], 0
        for found in (e.tree_ for e in model.estimators_):
            start = sum(map(len, parts["feature"]))
            own = np.arange(found.node_count) + start
            inner = found.children_left >= 0
            root.append(start)
            parts["feature"].append(np.where(inner, found.feature, 0))
            parts["threshold"].append(np.where(inner, found.threshold, 0.0))
            children = np.stack([found.children_left, found.children_right], axis=1) + start
            parts["child"].append(np.where(inner[:, None], children, own[:, None]).ravel())
            parts["leaf"].append(np.where(inner, 0, leaves + np.cumsum(~inner) - 1))
            leaves += int((~inner).sum())
        self.root_ = np.asarray(root, np.int64)
        self.feature_ = np.concatenate(parts["feature"]).astype(np.int64)
        self.threshold_ = np.concatenate(parts["threshold"]).astype(np.float32)
        self.child_ = np.concatenate(parts["child"]).astype(np.int64)
        self.leaf_ = np.concatenate(parts["leaf"]).astype(np.int64)
        self.depth_ = max(e.tree_.max_depth for e in model.estimators_)
        # A threshold is rounded to single precision here, so a query is sent down anew: what serves is what was filled.
        return np.stack([self.leaf_[self._descend(x_D)] for x_D in x_QD]).astype(np.int64)

    def _fill(self, leaf_QK: NDArray[np.int64], quality_QT: Floats) -> None:
        """Set what each leaf holds."""
        rows, targets = int(self.leaf_.max()) + 1, quality_QT.shape[1]
        total_LT, size_LT = np.zeros((rows, targets)), np.zeros((rows, targets))
        known_QT = ~np.isnan(quality_QT)
        y_QT = np.where(known_QT, quality_QT, 0.0)
        for leaf_Q in leaf_QK.T:
            for t in range(targets):
                total_LT[:, t] += np.bincount(leaf_Q, weights=y_QT[:, t], minlength=rows)
                size_LT[:, t] += np.bincount(leaf_Q, weights=known_QT[:, t], minlength=rows)
        self.value_ = pulled(total_LT, size_LT, self.mean_, self.pull).astype(np.float32)
        self.size_ = size_LT.astype(np.float32)

    def _count_share(self, leaf_QK: NDArray[np.int64]) -> float:
        """Return how many equal weights a forecast's weights are worth, as a share of its leaves' mean size."""
        shares = []
        for q in np.linspace(0, len(leaf_QK) - 1, min(len(leaf_QK), _SAMPLE)).astype(np.int64):
            same_QK = leaf_QK == leaf_QK[q]
            size_K = same_QK.sum(axis=0)
            weight_Q = (same_QK / size_K).mean(axis=1)
            shares.append(1.0 / float(weight_Q @ weight_Q) / size_K.mean())
        return float(np.mean(shares))
