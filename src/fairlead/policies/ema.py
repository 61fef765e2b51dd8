"""The best moving average: what counts is how a target did lately.

    value <- value + step (reward - value),        step = max(rate, 1 / (w + m))   at the arm's answer number m

Exponential smoothing with a constant step, as agent systems keep reputations (Symphony-Coord, 2026, arXiv 2602.00966: 0.05 for reputation, 0.2
for latency); Sutton, Barto, 2018, section 2.5. Ours: values start at the prior, which counts as w answers, so that the first steps average;
the value is kept as a correction to the prior's forecast (`prior.py`); a known probability of exploring goes with it; a lesson of weight v
makes a step of 1 - (1 - rate)^v, and counts v answers. The newest
answers weigh most, so order matters and values cannot be merged. Cost: about 50 µs for 16 targets, the prior's forecast apart.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from msgspec import Meta

from fairlead.errors import StateError
from fairlead.objective import Objective
from fairlead.policies.arms import Arm, ArmsPolicy
from fairlead.policies.base import Positive, Proposal, Share, answering, preferred
from fairlead.policies.prior import Pair
from fairlead.predictors.base import Predictor
from fairlead.preferences import penalties
from fairlead.types import Query, Signals, Target


class EMA(ArmsPolicy):
    """Prefer the highest moving average of utility; explore evenly at a fixed rate.

    Args:
        prior, prior_weight, objective: as in `ArmsPolicy`.
        rate: the step once the prior is outweighed; 1 / rate answers are remembered.
        explore: probability spread evenly over all targets.
    """

    mergeable: ClassVar[bool] = False

    def __init__(
        self,
        *,
        prior: Predictor | None = None,
        prior_weight: Positive | None = None,
        objective: Objective = Objective(),  # noqa: B008 - frozen
        rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05,
        explore: Share = 0.05,
    ) -> None:
        self.prior = prior
        self.prior_weight = prior_weight
        self.objective = objective
        self.rate = rate
        self.explore = explore
        self.arms_ = {}
        self.lessons_ = 0

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Rank by moving average."""
        targets = answering(targets)
        order = sorted(targets, key=lambda t: t.name)
        view = self.read(signals, order)
        off, wishes = penalties(query.constraints.prefer, [(t,) for t in order])
        ranked = list(zip(order, (view.utility_K - off).tolist(), view.forecasts(), strict=True))
        options = preferred(ranked, explore=self.explore)
        reasons = [f"{t.name}: lately {u:.3f}" for t, u, _ in sorted(ranked, key=lambda r: -r[1])[:2]]
        return Proposal(options, *reasons, *wishes, forecast_of="utility", objective=self.objective)

    def _merge(self, other: Self) -> None:
        """Refuse: which of two answers came last is not known."""
        raise StateError(
            "moving averages cannot be merged; elect one learner instead, or use epsilon_greedy with a discount"
        )

    def decay(self, keep: float) -> None:
        """Move every value towards the prior."""
        self.arms_ = {
            name: {"n": keep * a["n"], "u": keep * a["u"], "q": keep * a["q"], "left": 1.0 - keep * (1.0 - a["left"])}
            for name, a in self.arms_.items()
        }

    def _learned(self, arm: Arm | None) -> tuple[float, Pair, float]:
        if arm is None:
            return 1.0, (0.0, 0.0), self.weight
        weight = min(self.weight + arm["n"], max(self.weight, 1.0 / self.rate))
        return arm["left"], (arm["u"], arm["q"]), weight

    def _observe(self, arm: Arm | None, pair: Pair, weight: float) -> Arm:
        arm = arm or {"n": 0.0, "u": 0.0, "q": 0.0, "left": 1.0}
        n = arm["n"] + weight
        rate = self.rate if weight == 1.0 else 1.0 - (1.0 - self.rate) ** weight
        step = max(rate, weight / (self.weight + n))
        keep = 1.0 - step
        return {
            "n": n,
            "u": keep * arm["u"] + step * pair[0],
            "q": keep * arm["q"] + step * pair[1],
            "left": keep * arm["left"],
        }
