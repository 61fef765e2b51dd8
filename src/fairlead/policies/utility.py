"""The target with the highest forecast utility: predictors know, this chooses. Ours, no paper.

utility = objective(forecast); argmax, ties shared alike. `explore` is a known probability spread evenly over all eligible targets, so
that the log can say later what the others would have brought. Cost: the predictor's, plus about 10 µs.

Checked in tests/policies/test_utility.py: argmax, ties, exploration, and that what `tipping_points` says does tip the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from msgspec import Struct
from msgspec.structs import replace

from fairlead.objective import Objective
from fairlead.policies.base import Policy, Proposal, Share, answering, preferred
from fairlead.predictors.base import Predictor
from fairlead.predictors.features import Features
from fairlead.preferences import penalties
from fairlead.types import Forecast, Option, Query, Reward, Signals, Target, Trace


class Utility(Policy):
    """Propose the best forecast utility under `objective`; with probability `explore`, any target."""

    contextual: ClassVar[bool] = True
    heeds: ClassVar[bool] = True
    objective: Objective

    def __init__(self, *, predictor: Predictor, objective: Objective = Objective(), explore: Share = 0.0) -> None:  # noqa: B008 - frozen
        self.predictor = predictor
        self.objective = objective
        self.explore = explore

    @classmethod
    def example(cls) -> Self:
        """With a predictor that needs no fit."""
        from fairlead.predictors.knn import KNN  # serving any other predictor needs no knn

        return cls(predictor=KNN(features=Features(signals=("length",))), explore=0.1)

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the predictor reads."""
        return self.predictor.needs

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Forecast all, prefer the best."""
        targets = answering(targets)
        forecasts = self.predictor.predict(signals, targets)
        off, wishes = penalties(query.constraints.prefer, [(t,) for t in targets], forecasts)
        ranked = [(t, self.objective.utility(f) - o, f) for t, f, o in zip(targets, forecasts, off, strict=True)]
        options = preferred(ranked, explore=self.explore)
        return Proposal(options, *compared(options), *wishes, objective=self.objective)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Pass the outcome on to the predictor."""
        self.predictor.update(trace, reward)

    def _merge(self, other: Self) -> None:
        """Merge the predictors, if they can be."""
        self.predictor.merge(other.predictor)

    def decay(self, keep: float) -> None:
        """Let the predictor forget."""
        self.predictor.decay(keep)


def compared(options: Sequence[Option]) -> tuple[str, ...]:
    """Say in plain words what the best option is expected to bring, and the next. 2 µs."""
    said = "best" if len(options) > 1 else "the only one"
    return tuple(
        f"{word} {' then '.join(option.plan.targets())}: {described(option.forecast)}"
        for word, option in zip((said, "next"), options, strict=False)
        if option.forecast is not None
    )


def described(forecast: Forecast) -> str:
    """Write a forecast's figures."""
    text = f"quality {forecast.quality:.3f}"
    if forecast.quality_sd:
        text += f" ± {forecast.quality_sd:.3f}"
    if forecast.usd is not None:
        text += f", {forecast.usd:.6f} USD"
    if forecast.seconds is not None:
        text += f", {forecast.seconds:.2f} s"
    if forecast.joules is not None:
        text += f", {forecast.joules:.1f} J"
    return text


class Tip(Struct, frozen=True, kw_only=True):
    """What would change a choice: if `what` were `at` and not `now`, `instead` would be as good."""

    what: str
    now: float
    at: float
    instead: str

    def __str__(self) -> str:
        return f"{self.instead} would win if {self.what} were {_plain(self.at)} (now {_plain(self.now)})"


def _plain(number: float) -> str:
    """Write three or more digits, without an exponent."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def tipping_points(options: Sequence[Option], objective: Objective) -> tuple[Tip, ...]:
    """Return the smallest single changes after which another option would be as good as the best forecast.

    One `Tip` per weight of the objective (if some value of at least 0 tips it, all else as it is: the one nearest to the present), and
    one for the quality that the nearest rival would need (if it can be reached). For a dry run's explanation: not for the hot path.

    Args:
        options: as a policy proposed them; those without a forecast are left out.
        objective: what they were weighed by.
    """
    known = [(" then ".join(o.plan.targets()), o.forecast) for o in options if o.forecast is not None]
    if len(known) < 2:
        return ()
    name, best = max(known, key=lambda k: objective.utility(k[1]))
    top = objective.utility(best)
    rivals = [(n, f) for n, f in known if n != name]
    tips = []
    for unit in ("usd", "seconds", "joules"):
        weight = f"{unit}_weight"
        now: float = getattr(objective, weight)
        without = replace(objective, **{weight: 0.0})
        found = []
        for rival, forecast in rivals:
            mine, its = getattr(best, unit), getattr(forecast, unit)
            if mine is None or its is None or mine == its:
                continue
            # Utility is linear in each weight: u = without - weight * amount; solve for equality.
            at = (without.utility(best) - without.utility(forecast)) / (mine - its)
            if at >= 0.0:
                found.append((abs(at - now), at, rival))
        if found:
            _, at, rival = min(found)
            tips.append(Tip(what=weight, now=now, at=at, instead=rival))
    rival, forecast = max(rivals, key=lambda k: objective.utility(k[1]))
    gap = top - objective.utility(forecast)
    if forecast.quality + gap <= 1.0:
        tips.append(Tip(what=f"{rival}'s quality", now=forecast.quality, at=forecast.quality + gap, instead=rival))
    return tuple(tips)
