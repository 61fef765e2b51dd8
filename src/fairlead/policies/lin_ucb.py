"""LinUCB: the arm that might be best, given what its linear model does not know yet.

    score = theta^T x + alpha sqrt(x^T A^-1 x)        theta = A^-1 b

Li, Chu, Langford, Schapire, 2010, arXiv 1003.0146 (disjoint arms); alpha = 0.1 and ridge = 0.05 are GreenServ's (2026, arXiv 2601.17551).
Ours: the reward is the objective's utility; arms go by name and may join and leave; equal best scores share the probability; and
`explore` adds a known probability to every arm, without which the choice is deterministic and the log says nothing of the others.

Checked in tests/policies/test_linear.py: inverse, merge, learning against random, a better arm that joins late.
Cost per decision: reading the features, and K D² multiplications; about 50 µs for 12 arms of 12 features.
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated

from msgspec import Meta

from fairlead.objective import Objective
from fairlead.policies.arms import Keep
from fairlead.policies.base import Positive, Proposal, Share, answering, preferred
from fairlead.policies.linear import Arms, LinearPolicy
from fairlead.predictors.base import Predictor
from fairlead.predictors.features import Features
from fairlead.preferences import penalties
from fairlead.types import Forecast, Query, Signals, Target


class LinUCB(LinearPolicy):
    """Prefer the highest upper confidence bound of the expected utility.

    An option's forecast holds the expected *utility* as its quality, kept within [0, 1], and the width x^T A^-1 x under the root as its
    standard deviation (for rewards with a noise of 1).

    `prior`, `prior_weight` and `discount` are those of `LinearPolicy`.
    """

    def __init__(
        self,
        *,
        features: Features | None = None,
        objective: Objective = Objective(),  # noqa: B008 - frozen
        alpha: Annotated[float, Meta(ge=0.0)] = 0.1,
        ridge: Positive = 0.05,
        explore: Share = 0.0,
        prior: Predictor | None = None,
        prior_weight: Positive = 20.0,
        discount: Keep = 1.0,
    ) -> None:
        self.features = features or Features(signals=("length", "marks"), bias=True)
        self.objective = objective
        self.alpha = alpha
        self.ridge = ridge
        self.explore = explore
        self.prior = prior
        self.prior_weight = prior_weight
        self.discount = discount
        self.arms_: Arms = {}

    @property
    def cold_ridge(self) -> float:
        """What a belief of 0 weighs, in units of observations."""
        return self.ridge

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Rank by upper confidence bound."""
        targets = answering(targets)
        order = sorted(targets, key=lambda t: t.name)
        off, wishes = penalties(query.constraints.prefer, [(t,) for t in order])
        if self.blank(order):
            alike = preferred([(t, -o, None) for t, o in zip(order, off, strict=True)])
            return Proposal(alike, "nothing learned yet: all alike", *wishes)
        mean_K, spread_K = self.read(signals, order)
        ranked, scores = [], {}
        for t, mean, spread, less in zip(order, mean_K.tolist(), spread_K.tolist(), off, strict=True):
            sd = sqrt(spread)
            quality = 0.0 if mean < 0.0 else 1.0 if mean > 1.0 else mean
            scores[t.name] = mean + self.alpha * sd - less
            ranked.append((t, scores[t.name], Forecast(quality=quality, quality_sd=sd)))
        options = preferred(ranked, explore=self.explore)
        reasons = [f"{name}: utility at most {scores[name]:.3f}" for o in options[:2] for name in o.plan.targets()]
        return Proposal(options, *reasons, *wishes, forecast_of="utility", objective=self.objective)
