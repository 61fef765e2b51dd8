"""A learned policy under guard: watched on live feedback, and stepped back from when it is credibly worse than no router at all.

    served     p = (1 - explore) q + explore r        q: what the policy inside proposes     r: the baselines
    in service, for each baseline b                   x = (b(a) - q(a)) / p(a) * (y - c)     evidence against  E[x | past] <= 0
    stepped back to b: p = (1 - explore) b + explore q        x = (q(a) - b(a)) / p(a) * (y - c)     likewise

y is the utility under the objective (quality less weighed cost), cut off below `worst` and scaled to [0, 1]. There are two baselines: one
fixed target, and the cheapest mix, the random mixing of single targets that brings the most quality at no more than what the policy costs,
as far as their answers so far tell. r gives half to the fixed target, a quarter to the mix, and a quarter evenly to all targets.

The evidence is that of `fairlead.sequential` (Waudby-Smith, Ramdas, 2020, arXiv 2010.09686): it may be looked at after every answer. In the
k-th spell (in service, stepped back, in service …) the bar is k (k + 1) / alpha, and twice that in service for there are two baselines. So
over all time, and all spells, the guard changes its mind without cause with probability alpha at most; and as each change needs evidence
of its own from nothing, and more of it than the last, it does not flap. It comes back only if what is inside has become credibly *better*
than what serves, which it may, as it goes on learning from its share; or with a new config, which begins everything anew.

What is tested is that the policy, as it stands from answer to answer, is not worse on average over queries; if it is so at some times and
not at others, either may be found. The mix moves as more is known; a trace whose weight is more than twice that of a steady mix is left
out of the comparison with it. Whether and when an answer gets a judgement that counts for half or more must not depend on how good it is, other
things equal: alpha holds under that condition.

A trace holds p in its options and q in its shadow, so a judgement that comes days and versions later is weighed by what was true when the
answer was given. A decision counts by what was decided, whoever answered in the end. Where the policy inside lets nobody else take over
(a required rule), the guard asks nobody else either; where the fixed target may not act, nothing is compared with it. While stepped back
to targets that may not act, the fixed target serves.

A policy that saves on purpose (`floor`, `promise`, `budget`) is worse by quality alone, so it is guarded under a stated objective only. With
`budget` even that is rough: its price moves, and the guard's does not.

Ours, no paper. Checked in tests/policies/test_rollout.py. Cost per decision: the policy's and 60 µs for 9 targets; explore of the traffic.
Not mergeable: when it stepped back is one moment of one history. Elect one learner.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from msgspec import Meta
from msgspec.structs import replace

from fairlead.errors import ConfigError
from fairlead.objective import Objective
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, answering
from fairlead.policies.shadow import again, bounds_of, check_weighed, teach
from fairlead.sequential import Evidence, begin, difference, e_value, scaled, weigh
from fairlead.types import Option, Plan, Query, Reward, Signals, Target, Trace

log = logging.getLogger(__name__)

Inside: TypeAlias = Annotated[float, Meta(gt=0.0, lt=1.0)]
"""A constructor argument that a config gives above 0 and below 1."""
Below: TypeAlias = Annotated[float, Meta(lt=1.0)]
"""A utility, which is at most 1."""
Shares: TypeAlias = Mapping[Plan, float]

ENOUGH = 10
"""Answers of a target before the mix may use it."""
MIX = "the mix of targets"
BACK = "what serves instead"
"""Names of what the policy is compared with, beside the fixed target's own."""


class Guarded(Policy):
    """Serve as `policy` decides, unless it is credibly worse than `fixed` or than the cheapest mix.

    Args:
        policy: what is watched.
        fixed: the target that is served if the policy is worse: the best single one, as far as is known.
        explore: the share of traffic that goes to the baselines (while stepped back: to what the policy proposes).
        alpha: the probability that it ever changes its mind without cause.
        objective: what utility is; None: as the policy weighs, or quality alone if it weighs nothing.
        worst: utility below this counts as this. None: 0 if quality alone counts, else -1.
    """

    writes: ClassVar[Literal["", "members", "shadow"]] = "shadow"
    passes: ClassVar[tuple[str, ...]] = ("members",)

    def __init__(
        self,
        *,
        policy: Policy,
        fixed: str,
        explore: Inside = 0.1,
        alpha: Inside = 0.05,
        objective: Objective | None = None,
        worst: Below | None = None,
    ) -> None:
        self.policy = policy
        self.fixed = fixed
        self.explore = explore
        self.alpha = alpha
        self.objective = objective
        self.worst = worst
        self.away_: dict[str, float] = {}
        """What serves instead while stepped back: targets with their shares. Empty: the policy is in service."""
        self.spells_ = 1
        self.since_ = 0.0
        """Unix time of the answer that the last change was made on; 0: none yet."""
        self.why_ = ""
        self.judged_ = 0
        self.skipped_ = 0
        """Judged answers that cannot be compared: served before the last change, where no baseline could act, or by another policy."""
        self.usual_ = [1.0, 0.5]
        """Count and sum of y: c is their ratio."""
        self.evidence_: dict[str, Evidence] = {}
        self.lately_: dict[str, list[float]] = {}
        """By what it is compared with: answers since the evidence was last no more than nothing, and the sum of the policy's utility less
        its. To tell by, not to judge by."""
        self.singles_: dict[str, list[float]] = {}
        """By target: answers, weight, weighted quality, weighted cost (quality less utility)."""
        self.own_ = [0.0, 0.0]
        """Weight and weighted cost of what the policy proposed."""
        self.mix_: dict[str, float] = {}

    @classmethod
    def example(cls) -> Self:
        """A policy that learns, and a target."""
        from fairlead.policies.thompson import Thompson  # guarding any other policy needs no Thompson

        return cls(policy=Thompson(), fixed="ant")

    @property
    def needs(self) -> tuple[str, ...]:
        """What the policy reads."""
        return self.policy.needs

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The fixed target, and what serves while stepped back."""
        return (("$.fixed", self.fixed), *(("$.away_", name) for name in sorted(self.away_)))

    @property
    def weighed(self) -> Objective:
        """What utility is here."""
        return self.objective or self.policy.objective or Objective()

    def check(self) -> None:
        """Raise `ConfigError` if `explore` or `alpha` is not a share, or nobody says what a saving is worth."""
        for name in ("explore", "alpha"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(
                    "above 0 and below 1: without a share for the baselines nothing can be compared", path=f"$.{name}"
                )
        if self.objective is None and self.policy.objective is None:
            check_weighed(self.policy)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Mix what the policy proposes with the baselines; or, while stepped back, the other way round."""
        inner = self.policy.propose(query, signals, targets)
        own = shares(inner.options)
        open_: set[Plan] = {Single(target=t.name) for t in answering(targets)}
        bounds = bounds_of(inner)
        if bounds is not None:
            open_ &= bounds
        away = self.away_ and (restricted(self.away_, open_) or restricted({self.fixed: 1.0}, open_))
        main, rest = (away, own) if self.away_ else (own, self._baselines(open_))
        if not main or not rest:
            who = _shown(dict.fromkeys((*self.away_, self.fixed), 1.0))
            return again(
                inner, inner.options, reasons=(f"not under guard: {who} may not act here, the policy decides",)
            )
        mixed = {plan: (1.0 - self.explore) * p for plan, p in main.items()}
        for plan, p in rest.items():
            mixed[plan] = mixed.get(plan, 0.0) + self.explore * p
        forecasts = {o.plan: o.forecast for o in inner.options}
        order = [o.plan for o in inner.options]
        if self.away_:
            order = [*main, *order]
        order = list(dict.fromkeys((*order, *sorted(mixed, key=lambda plan: plan.targets()))))
        options = tuple(
            Option(plan=plan, probability=mixed.get(plan, 0.0), forecast=forecasts.get(plan)) for plan in order
        )
        said = self._said()
        if self.away_ and not restricted(self.away_, open_):
            said += f"; {self.fixed} stands in"
        return again(inner, options, reasons=(said,), shadow=inner)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Teach the policy, weigh the evidence, and change over if it suffices. Raises `StateError` for a utility that is not finite.

        An answer is evidence once and whole, by the first judgement of it that counts for half or more (`Reward.evidence`).
        """
        if not reward.weight:
            return
        # A policy that cannot learn any more must not blind its guard.
        teach(self.policy, trace, reward, named="guarded: the policy")
        if reward.evidence is None:
            return
        objective, reward = self.weighed, replace(reward, quality=reward.evidence)
        worst = self.worst if self.worst is not None else worst_of(objective)
        y = scaled(reward, objective, worst)
        decision = trace.decision
        # A policy that heeds a wish gives up utility because it was asked to: that does not speak against it.
        if not decision.options or not decision.shadow or trace.query.constraints.prefer:
            self.skipped_ += 1
            return
        served, own, plan = shares(decision.options), shares(decision.shadow), decision.plan
        centre = self.usual_[1] / self.usual_[0]
        compared = False
        # What the weights can be: q / p in service, and b / p while stepped back, are 1 / (1 - explore) at most.
        least = -1.0 / (1.0 - self.explore)
        most = {self.fixed: 2.0 / self.explore, MIX: 8.0 / self.explore, BACK: 1.0 / self.explore}
        could = {p for p, share in served.items() if share > 0.0}
        for name, weights in self._watched().items():
            baseline = restricted(weights, could)
            up, down = (own, baseline) if self.away_ else (baseline, own)
            if not baseline:
                continue
            seen = difference(served, up, down, chosen=plan, y=y, centre=centre, least=least, most=most[name])
            if seen is None:
                continue
            compared = True
            evidence = weigh(self.evidence_.get(name) or begin(), seen.x, low=seen.low)
            self.evidence_ = {**self.evidence_, name: evidence}
            n, total = self.lately_.get(name, (0.0, 0.0)) if float(e_value(evidence)) > 1.0 else (0.0, 0.0)
            gap = (seen.x if self.away_ else -seen.x) * (1.0 - worst)
            self.lately_ = {**self.lately_, name: [n + 1.0, total + gap]}
        self.judged_ += compared
        self.skipped_ += not compared
        self.usual_ = [self.usual_[0] + 1.0, self.usual_[1] + y]
        self._account(plan, served, own, reward.quality, reward.quality - objective.utility(reward))
        self._judge(trace)

    def decay(self, keep: float) -> None:
        """Let the policy forget. The evidence stands: it is of what was served, and has a guarantee."""
        self.policy.decay(keep)

    def bar(self) -> float:
        """Return the evidence that a change needs now."""
        return self.spells_ * (self.spells_ + 1) * (1 if self.away_ else 2) / self.alpha

    def _watched(self) -> dict[str, Mapping[str, float]]:
        """Name what the policy is compared with now."""
        if self.away_:
            return {BACK: self.away_}
        return {self.fixed: {self.fixed: 1.0}, **({MIX: self.mix_} if self.mix_ else {})}

    def _baselines(self, open_: set[Plan]) -> dict[Plan, float]:
        """Share out what is served of the baselines, among plans that may run; empty if the fixed target may not."""
        fixed = restricted({self.fixed: 1.0}, open_)
        if not fixed:
            return {}
        even = {plan.targets()[0]: 1.0 for plan in open_ if isinstance(plan, Single)}
        out: dict[Plan, float] = {}
        for weight, some in (
            (0.5, fixed),
            (0.25, restricted(self.mix_, open_) or fixed),
            (0.25, restricted(even, open_)),
        ):
            for plan, share in some.items():
                out[plan] = out.get(plan, 0.0) + weight * share
        return out

    def _said(self) -> str:
        if self.away_:
            return f"stepped back to {_shown(self.away_)}: {self.why_}"
        most = max((float(e_value(e)) for e in self.evidence_.values()), default=1.0)
        return f"under guard: evidence {most:.3g} of {self.bar():.0f} that the policy is worse than its baselines"

    def _account(self, plan: Plan, served: Shares, own: Shares, quality: float, cost: float) -> None:
        """Keep what singles bring and cost, and what the policy costs; from them, the mix."""
        weight = 1.0 / served[plan]
        ours = own.get(plan, 0.0) * weight
        self.own_ = [self.own_[0] + ours, self.own_[1] + ours * cost]
        if isinstance(plan, Single):
            n, total, good, spent = self.singles_.get(plan.target, (0.0, 0.0, 0.0, 0.0))
            row = [n + 1.0, total + weight, good + weight * quality, spent + weight * cost]
            self.singles_ = {**self.singles_, plan.target: row}
        points = {name: (s / w, g / w) for name, (n, w, g, s) in self.singles_.items() if n >= ENOUGH}
        if points and self.own_[0] > 0.0:
            self.mix_ = cheapest_mix(points, self.own_[1] / self.own_[0])

    def _judge(self, trace: Trace) -> None:
        """Change over if the evidence has passed the bar."""
        bar = self.bar()
        for name, home in self._watched().items():
            evidence = self.evidence_.get(name)
            if evidence is None or float(e_value(evidence)) < bar:
                continue
            word = "above" if self.away_ else "below"
            n, total = self.lately_[name]
            self.why_ = (
                f"the policy's utility less that of {name} is {word} 0, about {total / n:+.2f} over {n:.0f} judged answers"
                f" (evidence {float(e_value(evidence)):.3g} of {bar:.0f})"
            )
            self.away_ = {} if self.away_ else dict(home)
            self.since_ = trace.at
            self.spells_ += 1
            self.evidence_, self.lately_ = {}, {}
            if self.away_:
                log.warning("guarded: stepped back to %s: %s", _shown(self.away_), self.why_)
            else:
                log.warning("guarded: the policy is in service again: %s", self.why_)
            return


def shares(options: tuple[Option, ...]) -> dict[Plan, float]:
    """Return the probabilities of options by plan, made to sum to 1."""
    total = sum(o.probability for o in options)
    return {o.plan: o.probability / total for o in options}


def restricted(weights: Mapping[str, float], open_: set[Plan]) -> dict[Plan, float]:
    """Return the shares of single targets among plans that may run, made to sum to 1; empty if none of them may."""
    kept = {plan: w for name, w in sorted(weights.items()) if w > 0.0 and (plan := Single(target=name)) in open_}
    total = sum(kept.values())
    return {plan: w / total for plan, w in kept.items()}


def worst_of(objective: Objective) -> float:
    """Return the utility that nothing need be counted below: 0 if quality alone counts, else -1, a wrong answer that costs a right one."""
    return -1.0 if objective.weights() else 0.0


def cheapest_mix(points: Mapping[str, tuple[float, float]], cost: float) -> dict[str, float]:
    """Return the mixture of one or two targets that brings the most quality at no more than `cost` on average.

    Args:
        points: by target, its mean cost and quality.
        cost: what may be spent; if nobody is that cheap, the cheapest serves.
    """
    within = {name: q for name, (c, q) in points.items() if c <= cost + 1e-12}
    if not within:
        return {min(points, key=lambda name: (points[name], name)): 1.0}
    name = max(within, key=lambda k: (within[k], -points[k][0], k))
    best, mix = within[name], {name: 1.0}
    for cheap in sorted(within):
        for dear, (c, q) in sorted(points.items()):
            if dear in within:
                continue
            share = (cost - points[cheap][0]) / (c - points[cheap][0])
            quality = within[cheap] + share * (q - within[cheap])
            if quality > best + 1e-12 and share > 0.0:
                best, mix = quality, {cheap: 1.0 - share, dear: share}
    return mix


def _shown(weights: Mapping[str, float]) -> str:
    return " and ".join(name if w == 1.0 else f"{name} ({w:.0%})" for name, w in sorted(weights.items()))
