"""The mean quality of each target, whatever the query: the honest floor that every other predictor must beat. Ours, no paper.

    quality = mean of what was scored        quality_sd = standard error of that mean

Counts and sums add up, so replicas can be merged and the past can be forgotten at any pace. 1 µs per forecast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.features import Features
from fairlead.predictors.statistics import half_mean, standard_error

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable


class Mean(Predictor):
    """Forecasts each target's mean quality.

    Args:
        features: what is read of a query; only its length counts here, for the cost. None: just that.
    """

    mergeable: ClassVar[bool] = True
    online: ClassVar[bool] = True
    count_: Floats
    """Scored answers per target, (T,)."""
    total_: Floats
    """Their summed quality, (T,)."""

    def __init__(self, *, features: Features | None = None) -> None:
        self.features = features or Features(signals=("length",))

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        known = ~np.isnan(quality_QT)
        self.count_ = known.sum(axis=0).astype(np.float64)
        self.total_ = np.where(known, quality_QT, 0.0).sum(axis=0)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        mean_T = half_mean(self.total_, self.count_)
        plain_T = np.where(self.count_ > 30, self.total_ / np.maximum(self.count_, 1.0), mean_T)
        return plain_T, standard_error(mean_T, self.count_)

    def _begin(self) -> None:
        self.count_, self.total_ = np.zeros(0), np.zeros(0)

    def _grow(self) -> None:
        self.count_, self.total_ = np.append(self.count_, 0.0), np.append(self.total_, 0.0)

    def _update(self, x_D: Floats, t: int, quality: float, weight: float = 1.0) -> None:
        self.count_[t] += weight
        self.total_[t] += weight * quality

    def _merge(self, other: Self) -> None:
        """Add counts and sums, target by target."""
        for t, name in enumerate(other.targets_):
            i = self._index(name)
            self.count_[i] += other.count_[t]
            self.total_[i] += other.total_[t]

    def decay(self, keep: float) -> None:
        """Weigh all scored answers by `keep`."""
        self.count_, self.total_ = self.count_ * keep, self.total_ * keep
