"""A candidate on a share of the traffic, watched by a test that may be looked at after every answer; it stops or takes over by itself.

    served     p = (1 - share) current + share candidate
    watched    x = (candidate(a) - p(a)) / (p(a) (1 - share)) * (y - c),     with mean V(candidate) - V(current)
    stopped    when the evidence against  E[x | past] >= 0       reaches 1 / alpha
    promoted   when the evidence against  E[x | past] <= -margin reaches 1 / alpha, if `margin` is given

y is the utility under the objective, cut off below `worst` and scaled to [0, 1] (the margin likewise). Both policies propose, and exactly
the mixture of their probabilities is served; so the propensities are right, and a trace belongs to neither arm or both: it counts by
importance weights. Where the two agree, nothing is lost to the comparison, and no bucket has to be kept.

Evidence: `fairlead.sequential` (Waudby-Smith, Ramdas, 2020, arXiv 2010.09686). Over all time, a candidate that is never worse is stopped with
probability alpha at most, and one that is never better than `margin` below the current policy is promoted with probability alpha at most.

The candidate's probabilities are in the trace's shadow, so a late judgement is weighed by what was true when the answer was given. Whether
and when an answer gets a judgement that counts for half or more must not depend on how good it is: alpha holds under that condition. A decision counts by what was decided, whoever answered in the end.
Both learn from every judged answer while the canary runs; after its end only the one that serves is asked and taught. The end is final:
a new config begins a new canary, `fairlead state rollback` takes up an older version.

A required rule of the current policy is kept: where it lets only some plans run and the candidate proposes another, the current policy
serves alone, and the answer is not compared. After a promotion only the candidate's own rules are left: what must hold for ever stands
around the canary, in `rules`. The route's budget is the current policy's; a candidate may keep the same one only, as both
spend from one purse.

Ours, no paper. Checked in tests/policies/test_rollout.py. Cost per decision: both policies' and 35 µs for 9 targets.
Not mergeable: when it ended is one moment of one history. Elect one learner.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from msgspec.structs import replace

from fairlead.errors import ConfigError
from fairlead.objective import Objective
from fairlead.policies.base import Policy, Positive, Proposal
from fairlead.policies.fixed import Fixed
from fairlead.policies.guarded import Below, Inside, shares, worst_of
from fairlead.policies.shadow import again, asked, bounds_of, check_weighed, keeps, teach
from fairlead.sequential import begin, difference, e_value, narrow, scaled, weigh, widest
from fairlead.sequential import bounds as interval
from fairlead.types import Option, Query, Reward, Signals, Target, Trace

log = logging.getLogger(__name__)


class Canary(Policy):
    """Serve `current`, and `candidate` on a share, until it is known which is better.

    Args:
        current: what serves now.
        candidate: what may come.
        share: the candidate's share of the decisions.
        alpha: the probability of a wrong stop, and of a wrong promotion.
        margin: promote when the candidate is credibly not worse by more than this much utility; None: never by itself.
        objective: what utility is; None: as the current policy weighs, or else the candidate, or quality alone if neither weighs anything.
        worst: utility below this counts as this. None: 0 if quality alone counts, else -1.
    """

    aside: ClassVar[tuple[str, ...]] = ("candidate",)
    writes: ClassVar[Literal["", "members", "shadow"]] = "shadow"
    passes: ClassVar[tuple[str, ...]] = ("members",)

    def __init__(
        self,
        *,
        current: Policy,
        candidate: Policy,
        share: Inside = 0.1,
        alpha: Inside = 0.05,
        margin: Positive | None = None,
        objective: Objective | None = None,
        worst: Below | None = None,
    ) -> None:
        self.current = current
        self.candidate = candidate
        self.share = share
        self.alpha = alpha
        self.margin = margin
        self.objective = objective
        self.worst = worst
        self.stage_ = "running"
        """``running``, ``stopped`` (current serves) or ``promoted`` (candidate serves)."""
        self.since_ = 0.0
        """Unix time of the answer on which it ended; 0: it runs."""
        self.why_ = ""
        self.judged_ = 0
        self.skipped_ = 0
        """Judged answers that cannot be compared: what the candidate proposed is not on the record, or another share was served."""
        self.usual_ = [1.0, 0.5]
        """Count and sum of y: c is their ratio."""
        self.worse_ = begin()
        self.fine_ = begin()
        self.gap_ = widest()

    @classmethod
    def example(cls) -> Self:
        """Two fixed targets."""
        return cls(current=Fixed(plan="ant"), candidate=Fixed(plan="bee"))

    @property
    def needs(self) -> tuple[str, ...]:
        """What either reads."""
        return tuple(dict.fromkeys((*self.current.needs, *self.candidate.needs)))

    @property
    def weighed(self) -> Objective:
        """What utility is here."""
        return self.objective or self.current.objective or self.candidate.objective or Objective()

    def check(self) -> None:
        """Raise `ConfigError` if `share` or `alpha` is not a share, nobody says what a saving is worth, or the candidate has a budget."""
        for name in ("share", "alpha"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(
                    "above 0 and below 1: without a share for both nothing can be compared", path=f"$.{name}"
                )
        ours = {budget for _, budget in _budgets(self.current)}
        for path, budget in _budgets(self.candidate, path="$.candidate"):
            if budget not in ours:
                raise ConfigError(
                    "a route has one purse, and a candidate's budget would stop what serves: give `current` the same one, or try the"
                    " candidate in a shadow",
                    path=path,
                )
        if self.objective is None and self.current.objective is None and self.candidate.objective is None:
            check_weighed(self.current, self.candidate)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the mixture of both proposals; after the end, that of the one that serves."""
        if self.stage_ == "promoted":
            proposal = self.candidate.propose(query, signals, targets)
            return again(proposal, proposal.options, reasons=(f"canary promoted: {self.why_}",))
        current = self.current.propose(query, signals, targets)
        if self.stage_ == "stopped":
            return again(current, current.options, reasons=(f"canary stopped: {self.why_}",))
        candidate = asked(self.candidate, query, signals, targets)
        if isinstance(candidate, str):
            return again(current, current.options, reasons=(f"the canary could not decide: {candidate}",))
        bounds = bounds_of(current)
        if not keeps(candidate, bounds):
            return again(current, current.options, reasons=("the canary may not act here: a rule is required",))
        now, new = shares(current.options), shares(candidate.options)
        # The current policy's forecasts are kept where both have one: the record holds one kind and one objective.
        forecasts = {o.plan: o.forecast for o in current.options}
        options = tuple(
            Option(
                plan=plan,
                probability=(1.0 - self.share) * now.get(plan, 0.0) + self.share * new.get(plan, 0.0),
                forecast=forecasts.get(plan),
            )
            for plan in {**now, **new}
            if bounds is None or plan in bounds
        )
        reason = f"canary on {self.share:.0%}: evidence {float(e_value(self.worse_)):.3g} of {1.0 / self.alpha:.0f} that it is worse"
        fallbacks = current.fallbacks if current.fallbacks is not None else candidate.fallbacks
        return again(current, options, reasons=(reason,), shadow=candidate, fallbacks=fallbacks)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Teach both, weigh the evidence, and end the canary if it suffices. Raises `StateError` for a utility that is not finite.

        An answer is evidence once and whole, by the first judgement of it that counts for half or more (`Reward.evidence`).
        """
        if not reward.weight:
            return
        if self.stage_ != "promoted":
            self.current.learn(trace, reward)
        if self.stage_ != "stopped":
            teach(self.candidate, trace, reward, named="canary: the candidate")
        if self.stage_ != "running" or reward.evidence is None:
            return
        objective, reward = self.weighed, replace(reward, quality=reward.evidence)
        worst = self.worst if self.worst is not None else worst_of(objective)
        y = scaled(reward, objective, worst)
        decision = trace.decision
        centre = self.usual_[1] / self.usual_[0]
        self.usual_ = [self.usual_[0] + 1.0, self.usual_[1] + y]
        seen = None
        # Who heeds a wish gives up utility because it was asked to: that does not speak against it.
        if decision.options and decision.shadow and not trace.query.constraints.prefer:
            served, new = shares(decision.options), shares(decision.shadow)
            # candidate / p lies in [0, 1 / share], so candidate / p - 1 in:
            seen = difference(
                served, new, served, chosen=decision.plan, y=y, centre=centre, least=-1.0, most=1.0 / self.share - 1.0
            )
        if seen is None:
            self.skipped_ += 1
            return
        self.judged_ += 1
        x, low, high = (v / (1.0 - self.share) for v in seen)
        self.worse_ = weigh(self.worse_, -x, low=-high)
        self.gap_ = narrow(self.gap_, x, low=low, high=high, alpha=self._sides())
        if self.margin is not None:
            allowed = self.margin / (1.0 - worst)
            self.fine_ = weigh(self.fine_, x + allowed, low=low + allowed)
        self._judge(trace, worst)

    def decay(self, keep: float) -> None:
        """Let both forget. The evidence stands: it is of what was served, and has a guarantee."""
        self.current.decay(keep)
        self.candidate.decay(keep)

    def _sides(self) -> float:
        """Return alpha for both sides of the interval: each then fails as rarely as the test."""
        return min(2.0 * self.alpha, 0.5)

    def _judge(self, trace: Trace, worst: float) -> None:
        """End the canary if the evidence suffices."""
        worse, fine = float(e_value(self.worse_)), float(e_value(self.fine_))
        if max(worse, fine) < 1.0 / self.alpha:
            return
        sides = self._sides()
        low, high = (float(b) * (1.0 - worst) for b in interval(self.gap_, alpha=sides))
        self.stage_ = "stopped" if worse >= fine else "promoted"
        self.since_ = trace.at
        self.why_ = (
            f"the candidate's utility less the current policy's is between {low:+.2f} and {high:+.2f} at {1.0 - sides:.0%}"
            f" (evidence {max(worse, fine):.3g} of {1.0 / self.alpha:.0f}, {self.judged_} judged answers)"
        )
        log.warning("canary %s: %s", self.stage_, self.why_)


def _budgets(policy: Policy, *, path: str = "$") -> Iterator[tuple[str, tuple[float | None, float]]]:
    """Yield the budgets that a policy and those inside it keep, with their paths."""
    for at, part in policy.walk(path):
        if isinstance(part, Policy) and part.period_usd is not None:
            yield at, (part.period_seconds, part.period_usd)
