"""A policy over policies: most of the say goes to the one that does best, and none is ever silenced. After CORRAL.

    P(k) = sum_i p_i pi_i(k | x)                 what is decided: the mixture, with its exact propensity
    g_i  = sum_k pi_i(k | x) m_k  +  pi_i(a | x) / P(a) (reward - m_a)                    what policy i would have won
    1/p_i <- 1/p_i - eta_i (g_i - lambda),  lambda such that sum_i p_i = 1                log-barrier mirror descent
    if 1/p_i > rho_i:  rho_i <- 2/p_i,  eta_i <- beta eta_i                               faster back for who fell far

Agarwal, Luo, Neyshabur, Schapire, 2017, arXiv 1612.06246. What differs:

- There one policy is drawn, and only that one is told the reward, weighed by 1/p_i. Here the mixture is drawn, and every policy is credited
  for its share in what was done; members of this library learn the value of each arm, whoever chose it, so all of them learn from every
  answer, unweighed.
- m_k is the running mean reward of arm k: it takes the reward's level off the importance weight (doubly robust; Dudik, Langford, Li, 2011,
  arXiv 1103.4601), which changes no expectation and shrinks the variance several times.
- beta = 1.05 and gamma are arguments, not functions of a horizon nobody knows.
- Feedback may come days later. The decision records what every member proposed (`Decision.members`), and by that they are judged, whatever
  they would propose now. An answer that another policy decided on has no such record: it teaches the members and judges nobody.
- A lesson of weight v (`Reward.weight`) makes a step of v eta, and counts v answers.

A required rule of a member binds the mixture: where members let only some plans run, members that would do something else have no say, and
nobody is compared, for the rest cannot be. Where no member is left the query is refused.

What p is worth depends on the order of lessons: states cannot be merged. Checked in tests/policies/test_corral.py: the mixture is exact, the
estimate is unbiased, the best of several is found, also after the best changes. Cost: that of all members.

Shapes: I policies, K targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from msgspec import Meta

from fairlead.errors import ConfigError, NoEligibleTarget, StateError
from fairlead.objective import Objective
from fairlead.policies import prior as priors
from fairlead.policies.arms import Arm
from fairlead.policies.base import Policy, Positive, Proposal
from fairlead.policies.prior import Floats
from fairlead.policies.shadow import bounds_of, keeps
from fairlead.types import Option, Plan, Query, Reward, Signals, Target, Trace

BETA = 1.05


class Corral(Policy):
    """Mix the proposals of `policies`, and learn whom to trust.

    Args:
        policies: the members, by name; those that propose single calls.
        objective: by what they are judged; give the members the same.
        rate: step of the log-barrier descent. Higher finds the best sooner, and swings more.
        floor: share of the say that is always spread evenly over the members.
    """

    objective: Objective
    writes: ClassVar[Literal["", "members", "shadow"]] = "members"

    def __init__(
        self,
        *,
        policies: Mapping[str, Policy],
        objective: Objective = Objective(),  # noqa: B008 - frozen
        rate: Positive = 0.5,
        floor: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.02,
    ) -> None:
        self.policies = dict(policies)
        self.objective = objective
        self.rate = rate
        self.floor = floor
        self.say_: dict[str, float] = {}
        """Probability of each member before `floor` is mixed in; empty: all alike."""
        self.rate_: dict[str, float] = {}
        self.threshold_: dict[str, float] = {}
        self.arms_: dict[str, Arm] = {}

    @classmethod
    def example(cls) -> Self:
        """Two kinds of bandit."""
        from fairlead.policies.epsilon_greedy import EpsilonGreedy
        from fairlead.policies.thompson import Thompson

        return cls(policies={"greedy": EpsilonGreedy(), "linear": Thompson()})

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that any member reads."""
        return tuple(dict.fromkeys(n for p in self.policies.values() for n in p.needs))

    def check(self) -> None:
        """Raise `ConfigError` if there is nobody to choose among."""
        if len(self.policies) < 2:
            raise ConfigError("give at least two policies to choose among", path="$.policies")

    @property
    def shares(self) -> dict[str, float]:
        """The probability with which each member decides now."""
        even = 1.0 / len(self.policies)
        return {n: (1.0 - self.floor) * self.say_.get(n, even) + self.floor * even for n in self.policies}

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Mix the proposals. A plan's forecast is that of the member with the most say who gave one.

        Raises:
            NoEligibleTarget: if members require different plans.
        """
        proposals = {n: self.policies[n].propose(query, signals, targets) for n in sorted(self.policies)}
        shares = self.shares
        order = sorted(shares, key=lambda n: (-shares[n], n))
        reasons = [f"{n} has {shares[n]:.2f} of the say" for n in order[:3]]
        members = {n: _bare(p.options) for n, p in proposals.items()}
        fallbacks: tuple[Plan, ...] | None = None
        required = {n: bounds for n, p in proposals.items() if (bounds := bounds_of(p)) is not None}
        bounds = set.intersection(*required.values()) if required else None
        if bounds is not None:
            within = [n for n in order if keeps(proposals[n], bounds)]
            if not within:
                why = f"members of the corral require different plans: {', '.join(required)}"
                raise NoEligibleTarget({t.name: why for t in targets})
            if len(within) < len(order):
                order, members = within, {}
                reasons.append(f"a rule of {', '.join(required)} is required: {', '.join(within)} decides")
            whole = sum(shares[n] for n in order)
            shares = {n: shares[n] / whole for n in order}
            named = (
                plan
                for n in required
                for plan in (*(o.plan for o in proposals[n].options), *(proposals[n].fallbacks or ()))
            )
            fallbacks = tuple(plan for plan in dict.fromkeys(named) if plan in bounds)
        mixed: dict[Plan, Option] = {}
        for name in order:
            for option in proposals[name].options:
                if bounds is not None and option.plan not in bounds:
                    continue
                before = mixed.get(option.plan)
                p = shares[name] * option.probability + (0.0 if before is None else before.probability)
                forecast = option.forecast if before is None or before.forecast is None else before.forecast
                mixed[option.plan] = Option(plan=option.plan, probability=p, forecast=forecast)
        options = sorted(mixed.values(), key=lambda o: (-o.probability, o.plan.targets()))
        return Proposal(
            options, *reasons, fallbacks=fallbacks, forecast_of="utility", objective=self.objective, members=members
        )

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Judge the members by what they proposed, then teach them all.

        Raises:
            StateError: if the reward is not finite; nothing is learned then.
        """
        name, weight = priors.credited(trace), reward.weight
        if name is None or not weight:
            return
        won = self.objective.utility(reward)
        if not isfinite(won):
            raise StateError("an observation that is not finite was refused")
        # A member that heeds a wish gives up utility because it was asked to: that does not speak against it.
        asked_to = bool(trace.query.constraints.prefer)
        if trace.decision.propensity > 0.0 and trace.decision.members.keys() == self.policies.keys() and not asked_to:
            self._judge(self._gains(trace, name, won), weight)
        arm = self.arms_.get(name) or {"n": 0.0, "u": 0.0}
        self.arms_ = {**self.arms_, name: {"n": arm["n"] + weight, "u": arm["u"] + weight * won}}
        for policy in self.policies.values():
            policy.learn(trace, reward)

    def decay(self, keep: float) -> None:
        """Let the members forget, and move the say towards even."""
        even = 1.0 / len(self.policies)
        self.say_ = {n: keep * p + (1.0 - keep) * even for n, p in self.say_.items()}
        self.arms_ = {n: {"n": keep * a["n"], "u": keep * a["u"]} for n, a in self.arms_.items()}
        for policy in self.policies.values():
            policy.decay(keep)

    def _gains(self, trace: Trace, name: str, won: float) -> dict[str, float]:
        """Estimate what each member would have won on the query of `trace`; unbiased, less the level of `won`."""
        answers = sum(a["n"] for _, a in sorted(self.arms_.items()))
        level = sum(a["u"] for _, a in sorted(self.arms_.items())) / answers if answers else won
        mean = {n: (a["u"] + level) / (a["n"] + 1.0) for n, a in self.arms_.items()}
        gains = {}
        for member, options in trace.decision.members.items():
            chance = {o.plan.targets(): o.probability for o in options}
            model = sum(p * mean.get(called[0], level) for called, p in chance.items() if len(called) == 1)
            # Never cut short in a decision of this policy's own, whose propensity is at least the member's share of it.
            weight = min(chance.get((name,), 0.0) / trace.decision.propensity, len(self.policies) / self.floor)
            gains[member] = model + weight * (won - mean.get(name, level))
        return gains

    def _judge(self, gains: Mapping[str, float], weight: float) -> None:
        names = sorted(self.policies)
        I = len(names)  # noqa: E741 - the paper's size
        p_I = np.array([self.say_.get(n, 1.0 / I) for n in names])
        eta_I = np.array([self.rate_.get(n, self.rate) for n in names])
        rho_I = np.array([self.threshold_.get(n, 2.0 * I) for n in names])
        p_I = barrier_step(p_I, weight * eta_I, np.array([gains[n] for n in names]))
        fell_I = 1.0 / ((1.0 - self.floor) * p_I + self.floor / I) > rho_I
        rho_I = np.where(fell_I, 2.0 / ((1.0 - self.floor) * p_I + self.floor / I), rho_I)
        eta_I = np.where(fell_I, BETA * eta_I, eta_I)
        self.say_ = dict(zip(names, p_I.tolist(), strict=True))
        self.rate_ = dict(zip(names, eta_I.tolist(), strict=True))
        self.threshold_ = dict(zip(names, rho_I.tolist(), strict=True))


def _bare(options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Return what may be chosen and how likely, without forecasts: all that a judgement needs."""
    return tuple(Option(plan=o.plan, probability=o.probability) for o in options if o.probability > 0.0)


def barrier_step(p_I: Floats, eta_I: Floats, gain_I: Floats) -> Floats:
    """Return the next distribution: 1/p - eta (gain - lambda), with lambda found by bisection so that it sums to 1.

    The sum falls in lambda, from at least 1 at the smallest gain's lambda to at most 1 at the largest one's.
    """
    low, high = float(gain_I.min()), float(gain_I.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        inverse_I = 1.0 / p_I - eta_I * (gain_I - middle)
        if (inverse_I <= 0.0).any() or (1.0 / inverse_I).sum() > 1.0:
            low = middle
        else:
            high = middle
    q_I = 1.0 / np.maximum(1.0 / p_I - eta_I * (gain_I - high), 1.0)
    out: Floats = q_I / q_I.sum()
    return out
