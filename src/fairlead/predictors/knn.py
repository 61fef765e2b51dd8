"""Quality of each target on the most similar queries seen. After Hu et al. (RouterBench, 2024, arXiv:2403.12031), kNN router.

    quality = (sum over the k nearest of their quality + m * mean of the target) / (answers scored among them + m)

Differs from the paper: k and the pull m towards the target's mean are chosen at the fit by leave-one-out squared error (few hundred
to few thousand queries tell targets apart only a little, so most of the gain is in not believing five neighbours); unscored answers
are left out, not filled in; the spread of the forecast is reported; and new outcomes are appended as they come, the oldest dropped. An answer that
was judged by a weight below 1 is so much of a neighbour: neighbours are taken until they count k together.

    quality_sd = standard error of the neighbours' own mean (the pull is no answer, and makes nothing surer)

Shapes: N queries kept, T targets, D features. With N = 5,000 and D = 128 a forecast takes about 0.15 ms.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.spread import neighbours
from fairlead.predictors.statistics import half_mean, pulled, standard_error, unit

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

log = logging.getLogger(__name__)

K_GRID = (10, 20, 40, 80, 160)
PULL_GRID = (0.0, 5.0, 20.0, 80.0, 320.0)
_CHECKED = 1500
"""Queries on which k and the pull are chosen."""


class KNN(Predictor):
    """Forecasts from the nearest queries by cosine.

    Args:
        features: what is read of a query; None: `Features()`.
        k: number of neighbours; None: chosen at the fit (40 before any).
        pull: weight of the target's own mean, in answers; None: chosen at the fit (20 before any).
        memory: most queries kept; those judged by less than a whole judgement count as part of one, but for at most twice as many rows.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    online: ClassVar[bool] = True
    x_: NDArray[np.float32]
    """Unit feature vectors, (N, D)."""
    quality_: NDArray[np.float32]
    """Their quality per target, times how much it counts, (N, T); 0 where nobody scored."""
    known_: NDArray[Any]
    """How much it counts, (N, T): whether somebody scored it, or a share once a judgement counted less than whole. Not NaN in `quality_`:
    learned state is finite."""
    mean_: Floats
    """Mean quality per target, (T,)."""
    seen_: Floats
    """Scored answers per target, (T,)."""
    k_: int
    pull_: float

    def __init__(
        self,
        *,
        features: Features | None = None,
        k: Annotated[int, Meta(ge=1)] | None = None,
        pull: Annotated[float, Meta(ge=0.0)] | None = None,
        memory: Annotated[int, Meta(ge=1)] = 5000,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.k = k
        self.pull = pull
        self.memory = memory
        self.calibration = calibration

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        n, groups_N = len(x_QD), table.groups
        if n > self.memory:
            log.warning("knn keeps %d of %d queries; raise `memory` to keep more", self.memory, n)
            kept = np.linspace(0, n - 1, self.memory).astype(np.int64)
            x_QD, quality_QT, groups_N = x_QD[kept], quality_QT[kept], groups_N[kept]
        self.x_ = unit(x_QD).astype(np.float32)
        self.known_ = ~np.isnan(quality_QT)
        self.quality_ = np.where(self.known_, quality_QT, 0.0).astype(np.float32)
        self._average()
        self.k_ = 40 if self.k is None else self.k
        self.pull_ = 20.0 if self.pull is None else self.pull
        self._choose(groups_N)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        n = len(self.x_)
        if not n:
            return self.mean_, np.full(len(self.mean_), self.unknown_sd)
        near = self.x_ @ unit(x_D[None])[0].astype(np.float32)
        rows = self._nearest(near)
        count_T = self.known_[rows].sum(axis=0).astype(np.float64)
        total_T = self.quality_[rows].sum(axis=0, dtype=np.float64)
        quality_T = pulled(total_T, count_T, self.mean_, self.pull_)
        return quality_T, standard_error(quality_T, count_T)

    def _nearest(self, near_N: NDArray[np.float32]) -> NDArray[np.int64] | slice:
        """Return the nearest rows that count for k whole queries together."""
        n = len(near_N)
        if self.known_.dtype == np.bool_:
            return np.argpartition(near_N, n - self.k_)[n - self.k_ :] if self.k_ < n else slice(None)
        rows = np.argsort(-near_N, kind="stable")
        reached = np.cumsum(self._weights()[rows])
        return rows[: int(np.searchsorted(reached, self.k_ - 1e-6)) + 1]

    def _weights(self) -> Floats:
        """Return how much each row counts, (N,): a whole query, or what was judged of it."""
        weight_N: Floats = self.known_.max(axis=1).astype(np.float64) if len(self.known_) else np.zeros(0)
        return weight_N

    def _choose(self, groups_N: NDArray[np.int64]) -> None:
        """Pick k and the pull by squared error, leaving each query, and those with its prompt, out of its own neighbours."""
        n = len(self.x_)
        if n < 2:
            return
        rows = np.linspace(0, n - 1, min(n, _CHECKED)).astype(np.int64)
        ks = sorted({min(k, n - 1) for k in (K_GRID if self.k is None else (self.k,)) if k < n} or {n - 1})
        pulls = PULL_GRID if self.pull is None else (self.pull,)
        top, good = neighbours(self.x_, rows, groups_N, max(ks))
        count = np.cumsum(self.known_[top] & good[:, :, None], axis=1)
        total = np.cumsum(self.quality_[top] * good[:, :, None], axis=1, dtype=np.float64)
        truth, known = self.quality_[rows], self.known_[rows]
        best = np.inf
        for k in ks:
            c, s = count[:, k - 1], total[:, k - 1]
            for pull in pulls:
                forecast = pulled(s, c, self.mean_, pull)
                error = float(np.where(known, (forecast - truth) ** 2, 0.0).sum() / max(1, known.sum()))
                if error < best:
                    best, self.pull_ = error, pull
                    if self.k is None:
                        self.k_ = k

    def _average(self) -> None:
        self.seen_ = self.known_.sum(axis=0).astype(np.float64)
        self.mean_ = half_mean(self.quality_.sum(axis=0, dtype=np.float64), self.seen_)

    def _begin(self) -> None:
        self.x_ = np.zeros((0, 0), dtype=np.float32)
        self.quality_ = np.zeros((0, 0), dtype=np.float32)
        self.known_ = np.zeros((0, 0), dtype=np.bool_)
        self.mean_, self.seen_ = np.zeros(0), np.zeros(0)
        self.k_ = 40 if self.k is None else self.k
        self.pull_ = 20.0 if self.pull is None else self.pull

    def _grow(self) -> None:
        blank = np.zeros(len(self.quality_))
        self.quality_ = np.column_stack([self.quality_, blank.astype(np.float32)])
        self.known_ = np.column_stack([self.known_, blank.astype(np.bool_)])
        self.mean_, self.seen_ = np.append(self.mean_, 0.5), np.append(self.seen_, 0.0)

    def _update(self, x_D: Floats, t: int, quality: float, weight: float = 1.0) -> None:
        x = unit(x_D[None]).astype(np.float32)
        y = np.zeros((1, len(self.targets_)), dtype=np.float32)
        known: NDArray[Any] = np.zeros(y.shape, dtype=np.bool_ if weight == 1.0 else np.float32)
        y[0, t], known[0, t] = weight * quality, weight
        if not len(self.x_):
            self.x_, self.quality_, self.known_ = x, y, known
        elif weight == 1.0 or not self._merged(x, t, quality, weight):
            self.x_ = np.concatenate([self.x_, x])
            self.quality_ = np.concatenate([self.quality_, y])
            self.known_ = np.concatenate([self.known_, known])
            self._drop()
        self._average()

    def _merged(self, x: NDArray[np.float32], t: int, quality: float, weight: float) -> bool:
        """Add a part of an answer to the row of an equal query that has room for it, if there is one: two halves are one whole."""
        known_N = self.known_[:, t]
        fits = np.flatnonzero((known_N > 0.0) & (known_N + weight <= 1.0 + 1e-6))
        fits = fits[(self.x_[fits] @ x[0]) > 1.0 - 1e-6]
        if not len(fits):
            return False
        row = fits[-1]
        self.quality_, self.known_ = self.quality_.copy(), self.known_.copy()
        self.quality_[row, t] += weight * quality
        self.known_[row, t] += weight
        return True

    def _drop(self) -> None:
        """Forget the oldest rows that count for more than `memory` queries, and the lightest where there are twice as many rows."""
        n = len(self.x_)
        if n <= self.memory:
            return
        weight_N = self._weights()
        over = float(weight_N.sum()) - self.memory
        drop = int(np.searchsorted(np.cumsum(weight_N), over - 1e-6)) + 1 if over > 1e-6 else 0
        kept = np.arange(drop, n)
        if len(kept) > 2 * self.memory:
            kept = np.delete(kept, int(np.argmin(weight_N[drop:])))
        self.x_, self.quality_, self.known_ = self.x_[kept], self.quality_[kept], self.known_[kept]

    def decay(self, keep: float) -> None:
        """Forget the oldest queries, so that a share `keep` of them stays."""
        drop = len(self.x_) - int(np.ceil(keep * len(self.x_)))
        self.x_, self.quality_, self.known_ = self.x_[drop:], self.quality_[drop:], self.known_[drop:]
        self._average()
