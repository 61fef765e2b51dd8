"""The target that might be best, by a bound on its mean that widens the less it was asked.

    score_k = mean_k + width * sqrt(2 ln(1 + n) / (w + n_k)),        n = sum of all n_k

Auer, Cesa-Bianchi, Fischer, 2002 (UCB1: width 1, w = 0, each arm first asked once). Ours: the prior's weight w stands among the answers, so
that before the first one the prior alone decides, and no arm must be asked just for form's sake; `discount` makes it D-UCB (Garivier,
Moulines, 2008, arXiv 0805.3415); equal best scores share the probability; `explore` adds a known probability to every arm, without which
the choice is deterministic and the log says nothing of the others. The default width is half of the paper's: at 1 the bound spends
thousands of answers on targets a tenth worse. Means, priors and forgetting: `arms.py`. Cost: about 50 µs for 16 targets, the prior's forecast apart.
"""

from __future__ import annotations

from math import log1p
from typing import Annotated

import numpy as np
from msgspec import Meta

from fairlead.objective import Objective
from fairlead.policies.arms import ArmsPolicy, Keep
from fairlead.policies.base import Positive, Proposal, Share, answering, preferred
from fairlead.predictors.base import Predictor
from fairlead.preferences import penalties
from fairlead.types import Query, Signals, Target


class UCB1(ArmsPolicy):
    """Prefer the highest upper confidence bound of the mean utility.

    Args:
        prior, prior_weight, objective: as in `ArmsPolicy`.
        width: what the bound is multiplied by.
        explore: probability spread evenly over all targets.
        discount: weight that all answers keep at each new one.
        detect: size of the Page-Hinkley test of change, in units of utility (8 is a cautious choice); None: no test.
    """

    def __init__(
        self,
        *,
        prior: Predictor | None = None,
        prior_weight: Positive | None = None,
        objective: Objective = Objective(),  # noqa: B008 - frozen
        width: Annotated[float, Meta(ge=0.0)] = 0.5,
        explore: Share = 0.0,
        discount: Keep = 1.0,
        detect: Annotated[float, Meta(gt=0.0)] | None = None,
    ) -> None:
        self.prior = prior
        self.prior_weight = prior_weight
        self.objective = objective
        self.width = width
        self.explore = explore
        self.discount = discount
        self.detect = detect
        self.arms_ = {}
        self.lessons_ = 0

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Rank by upper confidence bound."""
        targets = answering(targets)
        order = sorted(targets, key=lambda t: t.name)
        view = self.read(signals, order)
        off, wishes = penalties(query.constraints.prefer, [(t,) for t in order])
        answers = sum(arm["n"] for _, arm in sorted(self.arms_.items()))
        score_K = view.utility_K + self.width * np.sqrt(2.0 * log1p(answers) / view.weight_K) - off
        ranked = list(zip(order, score_K.tolist(), view.forecasts(), strict=True))
        options = preferred(ranked, explore=self.explore)
        reasons = [f"{t.name}: utility at most {s:.3f}" for t, s, _ in sorted(ranked, key=lambda r: -r[1])[:2]]
        return Proposal(options, *reasons, *wishes, forecast_of="utility", objective=self.objective)
