"""Policies with one number per target: what `epsilon_greedy`, `ucb1`, `beta_thompson` and `ema` share. Ours, no paper.

An arm keeps sums over its answers of the residual above the prior's forecast (`prior.py`): their weight n, the residuals of utility u
and of quality q. With w = `prior_weight`, the answers that the belief before the first one is worth,

    mean_k(x) = known_k(x) + (w offset_k(x) + u_k) / (w + n_k)

Sums add up: replicas merge by adding, and the order in which feedback arrives does not matter. With `discount` g < 1 every lesson first
multiplies all sums by g (Garivier, Moulines, 2008, arXiv 0805.3415), so that an arm long not asked is unknown again; then the order does
matter, and what is merged is only about what one learner would know.

With `detect` h each arm also runs a two-sided Page-Hinkley test (Page, 1954; Hinkley, 1971) of its residuals r against their mean m so far:

    up <- max(0, up + r - m - 0.1)        down <- max(0, down - r + m - 0.1)        alarm if either exceeds h max(1, v / 0.15)

m and v are the plain mean and variance of the arm's answers since it last started, at least ten of them, whatever the discount leaves of
their weight; v with ten more at 0.25, the most that answers in [0, 1] can have. Ours is the factor: the time between false alarms is about
exp(0.2 h / v), so that a bar that suits an arm that is right for .85 of its answers would cry wolf on one that is right for half. On an
alarm the arm falls back to its prior, and all others keep a tenth of their weight (a world that changed for one may have changed for
all, and only what is doubted is tried again); a warning is logged. With `detect` too the order of feedback matters. Tests are not
merged: each replica runs its own.

A lesson of weight v (`Reward.weight`) counts as v answers: it adds v to n and v r to the sums, and discounts them by g^v.

An arm is a dict of numbers, so that it is state as it stands; arms go by name, and may join and leave. Checked in
tests/policies/test_arms.py. Cost: about 50 µs per decision of 16 arms besides the prior's forecast; a lesson a few µs, with `discount` a
few per arm.

Shapes: K targets.
"""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
from msgspec import Meta

from fairlead.objective import Objective
from fairlead.policies import prior as priors
from fairlead.policies.base import Policy
from fairlead.policies.prior import Floats, Pair
from fairlead.predictors.base import Predictor
from fairlead.types import Forecast, Reward, Signals, Target, Trace

log = logging.getLogger(__name__)

Arm: TypeAlias = dict[str, Any]
Keep: TypeAlias = Annotated[float, Meta(gt=0.0, le=1.0)]
"""A constructor argument: the share of its weight that the past keeps."""

TOLERANCE = 0.1
"""Shifts of the mean below this are not looked for."""
SETTLED = 10
"""Answers before an arm's mean is worth testing against."""
CALM, MOST = 0.15, 0.25
"""Variance of residuals up to which `detect` is the bar as it stands; and what is assumed of it, as `SETTLED` answers."""
DOUBT = 0.1
"""What the other arms keep when one raised an alarm."""


class View(NamedTuple):
    """What is believed of K targets on one query."""

    utility_K: Floats
    quality_K: Floats
    weight_K: Floats
    """In answers, the prior's included."""

    def forecasts(self) -> list[Forecast]:
        """Return what goes on the record: expected utility, kept within [0, 1], and at most its standard deviation (0.5 per answer)."""
        sd_K = 0.5 / np.sqrt(self.weight_K)
        return [
            Forecast(quality=u, quality_sd=sd)
            for u, sd in zip(np.clip(self.utility_K, 0.0, 1.0).tolist(), sd_K.tolist(), strict=True)
        ]


class ArmsPolicy(Policy, ABC):
    """Learns the utility of each target as a correction to a prior. Members propose; they take these arguments, besides their own.

    Args:
        prior: a predictor, trained or training-free, whose forecasts are where learning starts; None: the profiles.
        prior_weight: how many answers that start is worth; None: 20 with a prior, 2 (as a uniform belief is) without.
        objective: what is wanted.
    """

    mergeable: ClassVar[bool] = True
    heeds: ClassVar[bool] = True
    prior: Predictor | None
    prior_weight: float | None
    objective: Objective
    discount: float = 1.0
    detect: float | None = None
    arms_: dict[str, Arm]
    lessons_: float
    """Answers learned from, all arms together, by their weight; never discounted."""

    @property
    def still(self) -> tuple[str, ...]:
        """The prior: what is learned corrects it."""
        return ("prior",)

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the prior reads."""
        return priors.needs(self.prior)

    @property
    def weight(self) -> float:
        """What the belief before the first answer is worth, in answers."""
        if self.prior_weight is not None:
            return self.prior_weight
        return 2.0 if self.prior is None else 20.0

    def read(self, signals: Signals, order: Sequence[Target]) -> View:
        """Return what is believed of each target in `order`."""
        known_KC, offset_KC = priors.believed(self.prior, self.objective, signals, order)
        learned = [self._learned(self.arms_.get(t.name)) for t in order]
        left_K1 = np.array([[left] for left, _, _ in learned])
        mean_KC = known_KC + left_K1 * offset_KC + np.array([pair for _, pair, _ in learned])
        return View(mean_KC[:, 0], mean_KC[:, 1], np.array([weight for _, _, weight in learned]))

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Update the arm that was decided on, if it answered. For full feedback, call it with one trace per target.

        Raises:
            StateError: if the reward is not finite; nothing is learned then.
        """
        name, weight = priors.credited(trace), reward.weight
        if name is None or not weight:
            return
        pair = priors.residual(self.prior, self.objective, trace, reward, name)
        if self.discount < 1.0:
            self.arms_ = decayed(self.arms_, self.discount**weight)
        arm = self._observe(self.arms_.get(name), pair, weight)
        self.lessons_ += 1 if weight == 1.0 else weight
        if self.detect is not None and max(arm["up"], arm["down"]) > self.detect * restless(arm):
            way = "better" if arm["up"] > arm["down"] else "worse"
            log.warning("%s: %s has become %s than it was; it starts from its prior again", self.type_name(), name, way)
            self.arms_ = decayed({k: v for k, v in self.arms_.items() if k != name}, DOUBT)
        else:
            self.arms_ = {**self.arms_, name: arm}

    def _merge(self, other: Self) -> None:
        """Add up what both have seen; the prior counts once.

        Raises:
            StateError: if they started from different priors.
        """
        priors.check_same(self.prior, other.prior)
        self.arms_ = merged(self.arms_, other.arms_)
        self.lessons_ += other.lessons_

    def decay(self, keep: float) -> None:
        """Weigh all answers by `keep`; the prior keeps its weight."""
        self.arms_ = decayed(self.arms_, keep)

    def _learned(self, arm: Arm | None) -> tuple[float, Pair, float]:
        """Return the share of the offset that is still believed, what was learned besides, and the weight of both in answers."""
        if arm is None:
            return 1.0, (0.0, 0.0), self.weight
        weight = self.weight + arm["n"]
        return self.weight / weight, (arm["u"] / weight, arm["q"] / weight), weight

    def _observe(self, arm: Arm | None, pair: Pair, weight: float) -> Arm:
        """Return `arm` after one more answer of that weight; the old one is left as it is, since a snapshot may hold it."""
        arm = arm or {"n": 0.0, "u": 0.0, "q": 0.0}
        new = {"n": arm["n"] + weight, "u": arm["u"] + weight * pair[0], "q": arm["q"] + weight * pair[1]}
        if self.detect is not None:
            # A count and a sum of their own: those of the arm may be discounted.
            up, down, seen, total, squares = (arm.get(k, 0.0) for k in ("up", "down", "seen", "total", "squares"))
            if seen >= SETTLED:
                above = pair[0] - total / seen
                step, slack = weight * above, weight * TOLERANCE
                up, down = max(0.0, up + step - slack), max(0.0, down - step - slack)
            new |= {"up": up, "down": down, "seen": seen + weight, "total": total + weight * pair[0]}
            new["squares"] = squares + weight * pair[0] ** 2
        return new


def restless(arm: Arm) -> float:
    """Return how much higher the bar of the test of change is for an arm whose answers vary so much; 1 at least."""
    n, mean = arm["seen"], arm["total"] / arm["seen"]
    return float(max(1.0, (arm["squares"] - n * mean**2 + SETTLED * MOST) / (n + SETTLED) / CALM))


def merged(ours: Mapping[str, Arm], theirs: Mapping[str, Arm]) -> dict[str, Arm]:
    """Return the sums of both; tests of change are ours where we have the arm."""
    out = dict(ours)
    for name, their in theirs.items():
        our = out.get(name)
        out[name] = their if our is None else our | {k: our[k] + their[k] for k in ("n", "u", "q")}
    return out


def decayed(arms: Mapping[str, Arm], keep: float) -> dict[str, Arm]:
    """Return arms whose answers weigh `keep` of what they did."""
    return {name: arm | {k: keep * arm[k] for k in ("n", "u", "q")} for name, arm in arms.items()}
