"""Predictors: what each target would bring, forecast before anybody is called. Predictors know, policies choose.

A member forecasts *quality* from a feature vector; the base class adds cost and latency (`costs.py`), reads the features off the
signals (`features.py`), and keeps the order of targets out of the result. Fit on an outcome table with scikit-learn if that helps;
serve with a few numpy lines.

Where a method learns online it needs no fit: before the first outcome every target is forecast from its profile's prior.

Shapes: Q queries, T targets known from the fit, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fairlead.component import Component
from fairlead.errors import ConfigError, NotFitted, StateError, TableError
from fairlead.predictors import calibration as calibrating
from fairlead.predictors.costs import CostModel
from fairlead.predictors.features import Features
from fairlead.predictors.spread import beyond, shared_error
from fairlead.types import Forecast, Reward, Signals, Target, Trace

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Belief:
    """What is believed of one target's expected quality on several queries at once, as a joint normal distribution.

        quality = quality_Q + factor_QF @ e,  e ~ N(0, I)

    `told_QF`: asking query q takes ``outer(told_QF[q], told_QF[q])`` of precision to e, which is what probes are chosen by.
    """

    quality_Q: Floats
    factor_QF: Floats
    told_QF: Floats

    @property
    def mean(self) -> float:
        """Mean quality over the queries."""
        return float(self.quality_Q.mean())

    @property
    def mean_sd(self) -> float:
        """One standard deviation of that mean."""
        return float(np.sqrt((self.factor_QF.mean(axis=0) ** 2).sum()))


_HELD = 1500
"""Queries on which a fit is checked."""


class Predictor(Component, ABC):
    """Forecasts quality, cost and latency of each target for one query.

    Members take `features` (a `Features`) among their keyword arguments and implement `_fit` and `_quality`. Those that learn
    online set `online = True` and implement `_begin` (state before any outcome), `_grow` (one more target) and `_update`. Learned
    attributes end in an underscore.

    A target that the fit has not seen is forecast from its profile's prior quality with `unknown_sd`; policies may see by the
    large `quality_sd` that nothing is known.
    """

    family: ClassVar[str] = "predictors"
    unknown_sd: ClassVar[float] = 0.5
    online: ClassVar[bool] = False
    """Whether `update` learns, with or without a fit before."""
    calibration: calibrating.Method = "none"
    features: Features
    targets_: Sequence[str] = ()
    """Names of the targets seen in the fit, sorted, then those met online: the order of all T-shaped arrays. Empty: not fitted."""
    costs_: dict[str, Any]
    """Cost model, as `CostModel` keeps it."""
    misfit_: Floats | None = None
    """How far forecasts of queries held out were off beyond the stated spread, per target, (T,); see `spread.py`."""
    calibration_: Floats | None = None
    """Map of each target's forecasts, as `calibration.learn` gives it."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the signals that the features are made of."""
        return self.features.needs

    @property
    def fitted(self) -> bool:
        """Whether anything was learned, by `fit`, `load` or `update`."""
        return bool(self.targets_)

    def check(self) -> None:
        """Raise `ConfigError` if this could never forecast."""
        if not self.online and not self.fitted:
            raise ConfigError(
                f"{self.type_name()} forecasts nothing before it is fitted: run `fairlead train TABLE --predictor "
                f"{self.type_name()} -o DIR`, then write `{{trained: DIR}}` here"
            )

    @final
    def fit(self, table: OutcomeTable, targets: Sequence[Target] = ()) -> None:
        """Learn from recorded outcomes; `table.signals` must hold a reading of each query (`table.observed(observer)`).

        Args:
            table: the outcomes.
            targets: those of the table's targets whose profiles are known, for methods that read profiles.

        Raises:
            TableError: if the table has no signals, no queries or no scored answers.
        """
        # On a copy: a fit that fails leaves this as it was.
        learned = self.copy()
        learned._learn(table, targets)
        vars(self).update(vars(learned))

    def _learn(self, table: OutcomeTable, targets: Sequence[Target]) -> None:
        signals = table.observations(self.needs)
        table = table.with_models(sorted(table.models))
        if np.isnan(table.quality_QM).all():
            raise TableError("the table has no scored answers to learn from; fill its column `quality`")
        self.targets_ = list(table.models)
        self._meet({t.name: t for t in targets})
        self.features.fit(signals)
        x_QD = self.features.read_all(signals)
        self.costs_ = CostModel.fit(table, x_QD)
        self._fit_whole(x_QD, table.quality_QM, table)

    def _fit_whole(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        """Fit, and learn from queries held out how forecasts are to be read."""
        blank = self.copy()
        self.calibration_ = None if self.calibration == "none" else blank._calibrate(x_QD, quality_QT, table)
        self._fit(x_QD, quality_QT, table)
        self.misfit_ = self._off(blank, x_QD, quality_QT, table)

    @final
    def predict(self, signals: Signals, targets: Sequence[Target]) -> list[Forecast]:
        """Forecast each of `targets`, in their order, for the query that `signals` were read from.

        Raises:
            NotFitted: before `fit` or `load`.
        """
        index: dict[str, int] = {}
        lines: dict[str, list[float]] = {}
        quality_T = sd_T = x_D = np.zeros(0)
        if self.fitted:
            x_D = self.features.read(signals)
            quality_T, sd_T = self._stated(x_D)
            index = {name: i for i, name in enumerate(self.targets_)}
            lines = CostModel.read(self.costs_, x_D)
        elif not self.online:
            raise NotFitted(f"{self.type_name()} has not been fitted; run `fairlead train` or call fit(table) first")
        size = self.features.characters(signals)
        out = []
        for target in targets:
            taken = CostModel.predict(lines.get(target.name), size, target.profile)
            i = index.get(target.name)
            if i is None:
                quality, sd = self._unseen(x_D, target)
            else:
                quality, sd = float(quality_T[i]), float(sd_T[i])
            out.append(
                Forecast(
                    quality=min(1.0, max(0.0, quality)),
                    quality_sd=sd,
                    usd=taken.usd,
                    usd_sd=taken.usd_sd,
                    seconds=taken.seconds,
                    joules=taken.joules,
                    output_tokens=taken.output_tokens,
                )
            )
        return out

    def _stated(self, x_D: Floats) -> tuple[Floats, Floats]:
        """Return expected quality and its standard deviation per known target, (T,) each, as they are stated."""
        quality_T, sd_T = self._quality(x_D)
        if self.misfit_ is not None:
            sd_T = np.sqrt(sd_T * sd_T + self.misfit_ * self.misfit_)
        if self.calibration_ is not None:
            quality_T = calibrating.apply(self.calibration_, quality_T)
        return quality_T, np.minimum(sd_T, self.unknown_sd)

    @final
    def update(self, trace: Trace, reward: Reward) -> None:
        """Learn from one more outcome, where the method can. Runs on a copy, off the request path.

        What was learned by `calibration` stays as it is: the method is taught the outcome less what the map adds to its forecast of that
        query, so that the mapped forecast, not the one before the map, settles at the mean of the outcomes. It cannot leave the range of
        the map.

        Left out are failures, and plans over several targets: whose answer was kept depended on the answers, so learning from it
        would flatter the targets that give up early. What weighs nothing changes nothing.
        """
        targets = trace.decision.plan.targets()
        if not self.online or len(targets) != 1 or not trace.outcome.ok or not reward.weight:
            return
        if not self.fitted:
            self.features.begin(trace.signals)
            self.targets_, self.costs_ = [], {}
            self._begin()
        t = self._index(trace.outcome.target or targets[0])
        x_D = self.features.read(trace.signals)
        quality = reward.quality
        if self.calibration_ is not None:
            said = self._quality(x_D)[0]
            quality -= float((calibrating.apply(self.calibration_, said) - np.clip(said, 0.0, 1.0))[t])
        self._update(x_D, t, quality, reward.weight)

    @final
    def adopt(self, target: Target, table: OutcomeTable) -> None:
        """Learn a target that the fit has not seen, from a few outcomes of its own. Changes this predictor: call it on a copy.

        Args:
            target: with its profile.
            table: observed prompts with a column of the target. What the known targets made of the same prompts, where it is there too,
                says how hard they are.

        Raises:
            NotFitted: before `fit`, `load` or `update`.
            StateError: if the target is known already, or the method cannot learn one without a new fit.
            TableError: if none of the target's answers is scored.
            UnknownName: if the table has no such target.
        """
        if not self.fitted:
            raise NotFitted(f"{self.type_name()} knows no targets yet; fit it before another one joins")
        if target.name in self.targets_:
            raise StateError(f"{target.name} is known already; further outcomes of it are learned by update")
        x_QD = self.features.read_all(table.observations(self.needs))
        own = table.with_models([target.name])
        if np.isnan(own.quality_QM).all():
            raise TableError(f"no answer of {target.name} is scored, so there is nothing to learn from")
        t = self._index(target.name)
        self.costs_ = CostModel.join(self.costs_, CostModel.fit(own, x_QD))
        self._adopt(t, x_QD, self._aligned(table), target)

    @final
    def belief(self, target: Target, table: OutcomeTable) -> Belief:
        """Say what is believed of `target`, known or not, on the table's prompts, and what asking it each of them would tell.

        Outcomes of the known targets in the table, where there are any, say how hard the prompts are; those of `target` are not read.

        Raises:
            NotFitted: before `fit`, `load` or `update`.
            StateError: if the method keeps no joint belief.
        """
        if not self.fitted:
            raise NotFitted(f"{self.type_name()} knows no targets yet, so it believes nothing; fit it first")
        quality_QT = self._aligned(table)
        if target.name in self.targets_:
            quality_QT[:, self.targets_.index(target.name)] = np.nan
        return self._belief(self.features.read_all(table.observations(self.needs)), quality_QT, target)

    def _aligned(self, table: OutcomeTable) -> Floats:
        """Return the table's quality with a column for each known target, (Q, T); NaN where it has none."""
        out = np.full((len(table), len(self.targets_)), np.nan)
        for t, name in enumerate(self.targets_):
            if name in table.models:
                out[:, t] = table.quality_QM[:, table.models.index(name)]
        return out

    def _index(self, name: str) -> int:
        """Return where `name` stands among the targets, adding it if it is new."""
        if name not in self.targets_:
            self.targets_ = [*self.targets_, name]
            if self.calibration_ is not None:
                self.calibration_ = np.vstack([self.calibration_, np.linspace(0.0, 1.0, calibrating.KNOTS)])
            if self.misfit_ is not None:
                self.misfit_ = np.append(self.misfit_, self.misfit_.mean())
            self._grow()
        return self.targets_.index(name)

    def _calibrate(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> Floats:
        """Learn the map of each target from forecasts of queries held out."""

        def fit_predict(train: NDArray[np.int64], test: NDArray[np.int64]) -> Floats:
            other = self.copy()
            other._fit(x_QD[train], quality_QT[train], table.take(train))
            return np.asarray([other._quality(x_D)[0] for x_D in x_QD[test]])

        held_out = calibrating.out_of_fold(fit_predict, table.groups, len(self.targets_))
        return calibrating.learn(self.calibration, held_out, quality_QT)

    def _off(self, blank: Self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> Floats:
        """Fit `blank` on half of the queries and say how far forecasts of the other half are off, beyond what they state, (T,)."""
        fold_Q = calibrating.folds(table.groups, k=2)
        train, test = np.flatnonzero(fold_Q == 0), np.flatnonzero(fold_Q == 1)[:_HELD]
        if not len(test) or np.isnan(quality_QT[train]).all(axis=0).any():
            return np.zeros(quality_QT.shape[1])
        blank._fit(x_QD[train], quality_QT[train], table.take(train))
        found = [blank._quality(x_D) for x_D in x_QD[test]]
        forecast, sd = np.asarray([f for f, _ in found]), np.asarray([s for _, s in found])
        off_T = shared_error(x_QD[test], quality_QT[test] - forecast, table.groups[test])
        return beyond(off_T, np.minimum(sd, self.unknown_sd))

    @abstractmethod
    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        """Learn quality from features. NaN in `quality_QT` is an answer nobody scored. Leave out what is not known."""

    @abstractmethod
    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        """Return calibrated expected quality and its standard deviation per known target, each shape (T,)."""

    def _meet(self, targets: Mapping[str, Target]) -> None:
        """Take note of the profiles of the targets about to be learned; called before `_fit`."""

    def _unseen(self, x_D: Floats, target: Target) -> tuple[float, float]:
        """Return expected quality and its standard deviation for a target the fit has not seen. `x_D` is empty before any fit."""
        prior = target.profile.quality
        return (0.5 if prior is None else prior), self.unknown_sd

    def _adopt(self, t: int, x_QD: Floats, quality_QT: Floats, target: Target) -> None:
        """Learn the target at `t`, just grown, from column `t`; the others' columns are what they made of the same queries. NaN: not known."""
        for i in np.flatnonzero(~np.isnan(quality_QT[:, t])):
            self._update(x_QD[i], t, float(quality_QT[i, t]))

    def _belief(self, x_QD: Floats, quality_QT: Floats, target: Target) -> Belief:
        """Return the joint belief on `target`, given what the known targets made of the queries, (Q, T) with NaN."""
        raise StateError(f"{self.type_name()} keeps no joint belief on a target; `irt` and `profile` do")

    def _begin(self) -> None:
        """Set the state before any outcome, with no target known."""
        raise StateError(f"{self.type_name()} does not learn online")

    def _grow(self) -> None:
        """Add one target to all T-shaped arrays."""
        raise StateError(f"{self.type_name()} does not learn online")

    def _update(self, x_D: Floats, t: int, quality: float, weight: float = 1.0) -> None:
        """Learn that target `t` answered a query with features `x_D` that well; this counts as `weight` answers, above 0 and at most 1."""
        raise StateError(f"{self.type_name()} does not learn online")
