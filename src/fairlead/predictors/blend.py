"""A weighted mean of other predictors, the weights chosen greedily on held-out queries. After Caruana, Niculescu-Mizil, Crew, Ksikes 2004.

    quality = sum over members m of weight_m * quality_m        weights: shares of `rounds` picks, with replacement

Each pick is the member that, added to those picked before, brings the held-out squared error down most. What counts is the error of the
*differences* between targets: from every outcome the mean over the query's targets is taken off, in the forecasts as in the truth, since
how hard a query is for everybody decides nothing. Members that are never picked are dropped.

Differs from the paper: no bagging of the library, `rounds` fixed, and that loss. The spread is that of the members, and of their disagreement:

    quality_sd^2 = (sum of weight_m * sd_m)^2 + sum of weight_m * (quality_m - quality)^2

All members read the blend's features, and the blend alone may have a map: their own `features` are not used, their own `calibration` is refused.

Shapes: M members, Q queries, T targets, D features. A fit costs twice that of all members together, a forecast the sum of those picked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from msgspec import Meta

from fairlead.errors import ConfigError
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method, folds
from fairlead.predictors.features import Features
from fairlead.predictors.forest import Forest
from fairlead.predictors.knn import KNN
from fairlead.predictors.ridge import Ridge
from fairlead.predictors.spread import beyond, shared_error
from fairlead.types import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fairlead.table import OutcomeTable


_SAMPLE = 300
"""Queries on which the stated spread is averaged."""


class Blend(Predictor):
    """Forecasts by a blend of members.

    Args:
        members: what is blended; None: forest, knn and ridge, as they are by default.
        features: what is read of a query, for all members; None: `Features()`.
        rounds: picks.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    weights_: Floats
    """(M,), summing to 1."""
    _held_QT: Floats | None = None
    """Forecasts of queries held out; there during a fit."""

    def __init__(
        self,
        *,
        members: tuple[Predictor, ...] | None = None,
        features: Features | None = None,
        rounds: Annotated[int, Meta(ge=1)] = 20,
        calibration: Method = "none",
    ) -> None:
        self.members = (Forest(), KNN(), Ridge()) if members is None else members
        self.features = features or Features()
        self.rounds = rounds
        self.calibration = calibration

    @classmethod
    def example(cls) -> Self:
        """With two members that are quickly fitted."""
        return cls(members=(KNN(), Ridge()))

    def check(self) -> None:
        """Raise `ConfigError` if there is nothing to blend."""
        if not self.members:
            raise ConfigError("a blend needs at least one member", path="$.members")
        for i, member in enumerate(self.members):
            if member.calibration != "none":
                raise ConfigError(
                    "give `calibration` to the blend, not to its members", path=f"$.members[{i}].calibration"
                )
        super().check()

    def _meet(self, targets: Mapping[str, Target]) -> None:
        for member in self.members:
            member._meet(targets)

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        fold_Q = folds(table.groups, k=2)
        halves = [(np.flatnonzero(fold_Q != f), np.flatnonzero(fold_Q == f)) for f in range(2)]
        if len(self.members) == 1 or any(not len(train) or not len(test) for train, test in halves):
            self.weights_ = np.full(len(self.members), 1.0 / len(self.members))
        else:
            forecast_MQT = np.empty((len(self.members), *quality_QT.shape))
            for m, member in enumerate(self.members):
                for train, test in halves:
                    part = member.copy()
                    self._teach(part, x_QD[train], quality_QT[train], table.take(train))
                    forecast_MQT[m, test] = [part._quality(x_D)[0] for x_D in x_QD[test]]
            self.weights_ = greedy(forecast_MQT, quality_QT, rounds=self.rounds)
            self._held_QT = np.tensordot(self.weights_, forecast_MQT, axes=1)
        picked = [m for m, weight in zip(self.members, self.weights_, strict=True) if weight > 0.0]
        for member in picked:
            self._teach(member, x_QD, quality_QT, table)
        # What was not picked is left out for good: a member that knows nothing can neither be served nor be asked.
        self.members, self.weights_ = tuple(picked), self.weights_[self.weights_ > 0.0]

    def _off(self, blank: Self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> Floats:
        """As the base has it, but with the forecasts of queries held out that the weights were chosen by: no further fit."""
        held_QT, self._held_QT = self._held_QT, None
        if held_QT is None:
            return super()._off(blank, x_QD, quality_QT, table)
        rows = np.linspace(0, len(x_QD) - 1, min(len(x_QD), _SAMPLE)).astype(np.int64)
        sd_QT = np.asarray([self._quality(x_D)[1] for x_D in x_QD[rows]])
        return beyond(shared_error(x_QD, quality_QT - held_QT, table.groups), sd_QT)

    def _teach(self, member: Predictor, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        member.targets_ = list(self.targets_)
        member._fit(x_QD, quality_QT, table)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        found = [m._quality(x_D) for m in self.members]
        quality_MT, sd_MT = np.asarray([q for q, _ in found]), np.asarray([s for _, s in found])
        quality_T = self.weights_ @ quality_MT
        spread_T = self.weights_ @ (quality_MT - quality_T) ** 2
        return quality_T, np.sqrt((self.weights_ @ sd_MT) ** 2 + spread_T)


def greedy(forecast_MQT: Floats, quality_QT: Floats, *, rounds: int) -> Floats:
    """Return the weights of the members, (M,): shares of `rounds` greedy picks by squared error of the differences between targets."""
    known_QT = ~np.isnan(quality_QT)
    count_Q1 = np.maximum(known_QT.sum(axis=1, keepdims=True), 1)

    def centred(y: Floats) -> Floats:
        y = np.where(known_QT, y, 0.0)
        out: Floats = np.where(known_QT, y - y.sum(axis=-1, keepdims=True) / count_Q1, 0.0)
        return out

    truth_QT, forecast_MQT = centred(quality_QT), np.asarray([centred(f) for f in forecast_MQT])
    picks = np.zeros(len(forecast_MQT))
    total_QT = np.zeros(quality_QT.shape)
    for n in range(1, rounds + 1):
        errors = [float((((total_QT + f) / n - truth_QT) ** 2).sum()) for f in forecast_MQT]
        best = int(np.argmin(errors))
        picks[best] += 1
        total_QT += forecast_MQT[best]
    weights: Floats = picks / rounds
    return weights
