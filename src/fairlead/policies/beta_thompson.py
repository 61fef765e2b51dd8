"""Thompson sampling with a Beta belief of each target's quality, its propensities computed and not sampled.

    quality_k ~ Beta(m_k s_k, (1 - m_k) s_k),   m_k = mean quality,  s_k = w + n_k answers;   score_k = quality_k - cost_k
    P(k) = integral over z of  f_k(z)  prod_{j != k} F_j(z)  dz

Thompson, 1933; Chapelle, Li, 2011; Agrawal, Goyal, 2012, arXiv 1111.1797. Without a prior and costs this is the textbook's Beta(w p + hits,
w (1 - p) + misses), with rewards between 0 and 1 counted as shares of a hit. Ours: the mean is the prior's forecast plus what was learned
on top (`arms.py`); quality and cost are learned apart, the cost (weighed by the objective) by its mean; both parameters are kept at 1/2
or above; and the probability that an arm is the best is a one-dimensional integral, which the policy states and `decide` samples from: the
propensity on the record is the true one.

F_k is summed on 129 nodes of the angle asin sqrt(quality), evenly spread over eight standard deviations: in it a Beta has a bounded density
and about the same width wherever its mean lies. Checked in tests/policies/test_arms.py: against simulation, within 0.004 of it.
Cost: 20 µs per arm besides the prior's forecast.

Shapes: K targets, G nodes of an arm, N nodes of the integral.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from fairlead.objective import Objective
from fairlead.plans.single import Single
from fairlead.policies.arms import ArmsPolicy, Keep
from fairlead.policies.base import Positive, Proposal, Share, answering
from fairlead.policies.prior import Floats
from fairlead.policies.thompson import largest
from fairlead.predictors.base import Predictor
from fairlead.preferences import penalties
from fairlead.types import Option, Query, Signals, Target

NODES = 129


class BetaThompson(ArmsPolicy):
    """Choose each target with the probability that it is the best, as far as is known.

    Args:
        prior, prior_weight, objective: as in `ArmsPolicy`.
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
        explore: Share = 0.0,
        discount: Keep = 1.0,
        detect: Annotated[float, Meta(gt=0.0)] | None = None,
    ) -> None:
        self.prior = prior
        self.prior_weight = prior_weight
        self.objective = objective
        self.explore = explore
        self.discount = discount
        self.detect = detect
        self.arms_ = {}
        self.lessons_ = 0

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """State for each target the probability that it is the best."""
        targets = answering(targets)
        order = sorted(targets, key=lambda t: t.name)
        view = self.read(signals, order)
        off, wishes = penalties(query.constraints.prefer, [(t,) for t in order])
        chance_K = chances(view.quality_K, view.weight_K, view.utility_K - view.quality_K - off)
        probability_K = self.explore / len(order) + (1.0 - self.explore) * chance_K
        options = [
            Option(plan=Single(target=t.name), probability=p, forecast=f)
            for t, p, f in zip(order, probability_K.tolist(), view.forecasts(), strict=True)
        ]
        options.sort(key=lambda o: -o.probability)  # stable: ties stay in order of names
        reasons = [
            f"{o.plan.targets()[0]}: expected utility {o.forecast.quality:.2f}, drawn with probability {o.probability:.3f}"
            for o in options[:2]
            if o.forecast is not None
        ]
        return Proposal(options, *reasons, *wishes, forecast_of="utility", objective=self.objective)


def chances(mean_K: Floats, weight_K: Floats, shift_K: Floats) -> Floats:
    """Return for each of K independent Beta variables, of these means and strengths and each shifted, the probability that it is the largest."""
    if mean_K.size == 1:
        return np.ones(1)
    z_KG, F_KG = distributions(mean_K, weight_K)
    z_KG = z_KG + shift_K[:, None]
    low, high = float(z_KG[:, 0].max()), float(z_KG[:, -1].max())
    z_N = np.unique(np.clip(np.concatenate([np.linspace(low, high, 65), z_KG[:, ::4].ravel()]), low, high))
    return largest(np.array([np.interp(z_N, z_G, F_G) for z_G, F_G in zip(z_KG, F_KG, strict=True)]))


def distributions(mean_K: Floats, weight_K: Floats) -> tuple[Floats, Floats]:
    """Return nodes z_KG and the distribution function there, F_KG from 0 to 1, of Beta(mean weight, (1 - mean) weight)."""
    mean_K = np.clip(mean_K, 0.0, 1.0)
    a_K, b_K = np.maximum(mean_K * weight_K, 0.5), np.maximum((1.0 - mean_K) * weight_K, 0.5)
    middle_K, reach_K = np.arcsin(np.sqrt(a_K / (a_K + b_K))), 4.0 / np.sqrt(a_K + b_K)
    low_K, high_K = np.maximum(middle_K - reach_K, 0.0), np.minimum(middle_K + reach_K, 0.5 * np.pi)
    angle_KG = low_K[:, None] + (high_K - low_K)[:, None] * np.linspace(0.0, 1.0, NODES)
    # The density of the angle is sin^(2a-1) cos^(2b-1); at the ends the logarithm of 0 must stay finite, as 0 * -inf is not a number.
    log_KG = (2.0 * a_K - 1.0)[:, None] * np.log(np.maximum(np.sin(angle_KG), 1e-150))
    log_KG += (2.0 * b_K - 1.0)[:, None] * np.log(np.maximum(np.cos(angle_KG), 1e-150))
    f_KG = np.exp(log_KG - log_KG.max(axis=1, keepdims=True))
    F_KG = np.zeros_like(f_KG)
    np.cumsum(0.5 * (f_KG[:, 1:] + f_KG[:, :-1]), axis=1, out=F_KG[:, 1:])
    return np.sin(angle_KG) ** 2, F_KG / F_KG[:, -1:]
