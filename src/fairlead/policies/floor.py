"""The cheapest target that is forecast to be nearly as good as a reference: a floor per query. Ours, no paper.

    choose  argmin amount(t)   over targets with   quality(t) - z sd(t) >= share * quality(reference)

`amount` is the forecast spend, time or energy. The reference itself always qualifies, so somebody always does. Nothing is
promised: forecasts may be wrong, and a floor per query forgoes what a floor on the average would save. `promise` tests its rule on
outcomes and keeps the average; take that where outcomes are at hand.

Cost per decision: the predictor's, plus about 10 µs.
Checked in tests/policies/test_floor.py: the choice against a search over all targets, unknown amounts, the reference away.
"""

from __future__ import annotations

from math import inf
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from msgspec import Meta

from fairlead.policies.base import Policy, Proposal, Share, answering, preferred
from fairlead.policies.utility import compared
from fairlead.predictors.base import Predictor
from fairlead.predictors.features import Features
from fairlead.preferences import penalties
from fairlead.types import Forecast, Query, Reward, Signals, Target, Trace

Unit: TypeAlias = Literal["usd", "seconds", "joules"]
"""What is to be saved; fields of a `Forecast`."""


def amount(forecast: Forecast, unit: Unit) -> float:
    """Return what a forecast says of `unit`; infinity where it is not known, so that the unknown is never the cheapest."""
    value: float | None = getattr(forecast, unit)
    return inf if value is None else value


class Floor(Policy):
    """Prefer the cheapest target at or above the floor; then those above it by rising amount, then the others by falling quality.

    Args:
        predictor: what each target would bring.
        reference: the target that the floor is measured by; ``best``: whichever is forecast best for the query.
        share: the floor, as a share of the reference's forecast quality.
        z: how many standard deviations of its own forecast a target must be above the floor.
        minimise: what is to be saved.
        explore: a known probability spread evenly over all eligible targets.
    """

    contextual: ClassVar[bool] = True
    saves: ClassVar[bool] = True
    heeds: ClassVar[bool] = True

    def __init__(
        self,
        *,
        predictor: Predictor,
        reference: str = "best",
        share: Share = 0.97,
        z: Annotated[float, Meta(ge=0.0)] = 0.0,
        minimise: Unit = "usd",
        explore: Share = 0.0,
    ) -> None:
        self.predictor = predictor
        self.reference = reference
        self.share = share
        self.z = z
        self.minimise = minimise
        self.explore = explore

    @classmethod
    def example(cls) -> Self:
        """With a predictor that needs no fit."""
        from fairlead.predictors.knn import KNN

        return cls(predictor=KNN(features=Features(signals=("length",))), explore=0.1)

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the predictor reads."""
        return self.predictor.needs

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The reference, if it is named."""
        return () if self.reference == "best" else (("$.reference", self.reference),)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Forecast all, prefer the cheapest that is good enough."""
        targets = answering(targets)
        order = sorted(targets, key=lambda t: t.name)
        forecast = dict(zip((t.name for t in order), self.predictor.predict(signals, order), strict=True))
        off, wishes = penalties(query.constraints.prefer, [(t,) for t in order], list(forecast.values()))
        quality = {n: f.quality - o for (n, f), o in zip(forecast.items(), off, strict=True)}
        best = max(quality, key=quality.__getitem__)
        reference = self.reference
        away: tuple[str, ...] = ()
        if reference not in forecast:
            if reference != "best":
                away = (f"{reference} is not eligible now: the floor is measured by the best forecast instead",)
            reference = best
        floor = self.share * quality[reference]
        good = {n for n, f in forecast.items() if n == reference or quality[n] - self.z * f.quality_sd >= floor}
        ranked = sorted(
            order,
            key=lambda t: (
                t.name not in good,
                amount(forecast[t.name], self.minimise) if t.name in good else 0.0,
                -quality[t.name],
            ),
        )
        options = preferred([(t, -float(i), forecast[t.name]) for i, t in enumerate(ranked)], explore=self.explore)
        said = f"floor {floor:.3f}: {self.share:.0%} of {reference}; {len(good)} of {len(order)} are above it"
        return Proposal(options, *away, said, *compared(options), *wishes)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Pass the outcome on to the predictor."""
        self.predictor.update(trace, reward)

    def _merge(self, other: Self) -> None:
        """Merge the predictors, if they can be."""
        self.predictor.merge(other.predictor)

    def decay(self, keep: float) -> None:
        """Let the predictor forget."""
        self.predictor.decay(keep)
