"""The best mean so far, and with a probability that shrinks from answer to answer any target.

    explore with probability  max(floor, epsilon * decay^t)  after t answers learned;  else argmax mean

Sutton, Barto, 2018, chapter 2; the figures 1.0 and 0.01 are those of GreenServ (2026, arXiv 2601.17551), whose decay of 0.98 explores 50 times
in all, too few for ten targets, and whose contextual variant is not this one. Ours: t counts answers that were learned, a part of the state, so that the probability can be read off the record of any
decision, whenever its feedback comes; with a prior exploring starts at the floor, since it is known where to start. Means, priors and
forgetting: `arms.py`. Cost: about 50 µs for 16 targets, the prior's forecast apart.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fairlead.objective import Objective
from fairlead.policies.arms import ArmsPolicy, Keep
from fairlead.policies.base import Positive, Proposal, Share, answering, preferred
from fairlead.predictors.base import Predictor
from fairlead.preferences import penalties
from fairlead.types import Query, Signals, Target


class EpsilonGreedy(ArmsPolicy):
    """Prefer the highest mean utility; explore evenly at a known, falling rate.

    Args:
        prior, prior_weight, objective: as in `ArmsPolicy`.
        epsilon: probability of exploring before the first answer; None: 1, or `floor` with a prior.
        decay_rate: what is left of it after each answer.
        floor: never less than this.
        discount: weight that all answers keep at each new one.
        detect: size of the Page-Hinkley test of change, in units of utility (8 is a cautious choice); None: no test.
    """

    def __init__(
        self,
        *,
        prior: Predictor | None = None,
        prior_weight: Positive | None = None,
        objective: Objective = Objective(),  # noqa: B008 - frozen
        epsilon: Share | None = None,
        decay_rate: Keep = 0.99,
        floor: Share = 0.01,
        discount: Keep = 1.0,
        detect: Annotated[float, Meta(gt=0.0)] | None = None,
    ) -> None:
        self.prior = prior
        self.prior_weight = prior_weight
        self.objective = objective
        self.epsilon = epsilon
        self.decay_rate = decay_rate
        self.floor = floor
        self.discount = discount
        self.detect = detect
        self.arms_ = {}
        self.lessons_ = 0

    @property
    def rate(self) -> float:
        """The probability of exploring now."""
        start = (1.0 if self.prior is None else self.floor) if self.epsilon is None else self.epsilon
        return max(self.floor, start * float(self.decay_rate**self.lessons_))

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Rank by mean."""
        targets = answering(targets)
        order = sorted(targets, key=lambda t: t.name)
        view, rate = self.read(signals, order), self.rate
        off, wishes = penalties(query.constraints.prefer, [(t,) for t in order])
        ranked = list(zip(order, (view.utility_K - off).tolist(), view.forecasts(), strict=True))
        options = preferred(ranked, explore=rate)
        best, utility, _ = max(ranked, key=lambda r: r[1])
        return Proposal(
            options,
            f"{best.name} is expected to bring {utility:.3f}, the most",
            f"exploring with probability {rate:.3f} after {round(self.lessons_)} answers",
            *wishes,
            forecast_of="utility",
            objective=self.objective,
        )
