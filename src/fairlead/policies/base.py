"""Policies: which plan to run, with what probability.

A policy *proposes*: options with probabilities that sum to 1, best first. It never samples. `decide` is final: it filters by
eligibility, asks for a proposal, samples with the query's own number, and records the propensity, so that no method can
forget it and every log is fit for off-policy evaluation.

`propose` is a pure function of the signals, the constraints, identity and arrival number of the query, the eligible targets,
and the policy's own state. It must not read the text: a decision is replayed from a record that may not hold it.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import isclose
from time import perf_counter
from typing import Annotated, ClassVar, Literal, TypeAlias, final

from msgspec import Meta

from fairlead.component import Component
from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget
from fairlead.objective import Objective
from fairlead.plans.single import Single
from fairlead.pool import Eligibility, Pool
from fairlead.preferences import check
from fairlead.types import Decision, Forecast, Option, Plan, Query, Reward, Signals, Target, Trace

Share: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
"""A constructor argument that a config gives from 0 to 1."""
Positive: TypeAlias = Annotated[float, Meta(gt=0.0)]
"""A constructor argument that a config gives above 0."""


class Proposal:
    """Options with probabilities, best first, and the reasons for them in plain words.

    `fallbacks`, `forecast_of`, `objective`, `shadow`, `members`, `rule` and `actions` go into the decision as they are; see `Decision`.
    """

    __slots__ = (
        "actions",
        "fallbacks",
        "forecast_of",
        "members",
        "objective",
        "options",
        "reasons",
        "rule",
        "shadow",
    )

    def __init__(
        self,
        options: Sequence[Option],
        *reasons: str,
        fallbacks: tuple[Plan, ...] | None = None,
        forecast_of: Literal["quality", "utility"] = "quality",
        objective: Objective | None = None,
        shadow: Sequence[Option] = (),
        members: Mapping[str, tuple[Option, ...]] | None = None,
        rule: str = "",
        actions: Sequence[str] = (),
    ) -> None:
        self.options = tuple(options)
        self.reasons = reasons
        self.fallbacks = fallbacks
        self.forecast_of = forecast_of
        self.objective = objective
        self.shadow = tuple(shadow)
        self.members = dict(members or {})
        self.rule = rule
        self.actions = tuple(actions)


class Policy(Component, ABC):
    """Chooses among eligible targets. Members implement `propose`, and `learn` if they learn."""

    family: ClassVar[str] = "policies"
    contextual: ClassVar[bool] = False
    """Whether it learns which targets are good at which queries; `fairlead.testing.check_policy` holds it to that."""
    aside: ClassVar[tuple[str, ...]] = ()
    """Arguments that hold a policy which may be wrong (a candidate): the route keeps neither its budget nor its required rules."""
    writes: ClassVar[Literal["", "members", "shadow"]] = ""
    """The field of the decision in which it records what it must know when the answer is judged; there is one of each per decision."""
    passes: ClassVar[tuple[str, ...]] = ()
    """Fields of the decision (members, shadow, actions) that it passes on from the policies inside, as they wrote them."""
    saves: ClassVar[bool] = False
    """Whether it gives up quality on purpose for something that no objective says."""
    heeds: ClassVar[bool] = False
    """Whether wishes (`fairlead.preferences`) steer it. It then takes what they cost off its scores, and says so in its reasons."""
    objective: Objective | None = None
    """What it weighs, if it weighs; a member that does takes it as the argument `objective`, and the bench sweeps it."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the signals that `propose` reads."""
        return ()

    @property
    def period_seconds(self) -> float | None:
        """Length of the budget period it keeps, if it keeps one: the router then stamps each query with what was spent in it."""
        return None

    @property
    def period_usd(self) -> float | None:
        """What may be spent in such a period, if it keeps a budget: the router holds back what calls under way may cost."""
        return None

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Targets that the policy itself names, nested policies apart, as (path from ``$``, target): a config must have them."""
        return ()

    @property
    def tests(self) -> tuple[tuple[str, str], ...]:
        """What it tests of signals, nested policies apart, as (path from ``$``, ``signal`` or ``signal.part``): they must be there."""
        return ()

    @property
    def orders(self) -> tuple[tuple[str, str], ...]:
        """Actions that the policy itself orders, nested policies apart, as (path from ``$``, action): a config must have them."""
        return ()

    @abstractmethod
    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return options over `targets` (never empty), in order of preference, with probabilities that sum to 1.

        Among the targets are some that only help in plans that name them: `answering` tells who may be turned to alone.

        Raises:
            NoEligibleTarget: with a reason for each target, if what the policy keeps (a budget, a rule) lets nobody act.
        """

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Update the state from what one decision brought. Runs on a copy, off the request path."""

    @final
    def decide(
        self,
        query: Query,
        signals: Signals,
        pool: Pool,
        *,
        seed: int = 0,
        eligible: Eligibility | None = None,
    ) -> Decision:
        """Choose a plan.

        Args:
            query: what to route.
            signals: at least the readings named in `needs`.
            pool: every target; only eligible ones are proposed.
            seed: with the query's id, gives the one random number that is used.
            eligible: who may act, if it is already known (a replay reads it off the record).

        Raises:
            NoEligibleTarget: if nobody may act.
            FairleadError: if the proposal is not a distribution over different plans whose targets may all act. It is not mended by a
                guess: a policy may be there to keep something from leaving the house.
        """
        start = perf_counter()
        if eligible is None:
            eligible = pool.eligible(query)
        if not eligible.targets:
            raise NoEligibleTarget(eligible.excluded, kinds=eligible.kinds)
        proposal = self.propose(query, signals, eligible.targets)
        total = checked(proposal, eligible.targets, by=self.type_name())
        chosen = pick([o.probability / total for o in proposal.options], uniform(seed, query.id))
        return Decision(
            options=proposal.options,
            chosen=chosen,
            propensity=proposal.options[chosen].probability / total,
            reasons=self._reasons(proposal, query),
            policy=self.type_name(),
            pool_digest=pool.digest,
            seed=seed,
            eligible=tuple(t.name for t in eligible.targets),
            excluded=eligible.excluded,
            fallbacks=proposal.fallbacks,
            forecast_of=proposal.forecast_of,
            objective={} if proposal.objective is None else proposal.objective.weights(),
            shadow=proposal.shadow,
            members=proposal.members,
            rule=proposal.rule,
            actions=proposal.actions,
            seconds=perf_counter() - start,
        )

    def _reasons(self, proposal: Proposal, query: Query) -> tuple[str, ...]:
        """Return the proposal's reasons; and that nobody heeded the asker's wishes, if so."""
        prefer = query.constraints.prefer
        if not prefer or any(isinstance(part, Policy) and part.heeds for _, part in self.walk()):
            return proposal.reasons
        check(prefer)
        said = f"wishes ({', '.join(sorted(prefer))}) are not heeded: {self.type_name()} ranks nobody by what they would bring"
        return (*proposal.reasons, said)


def answering(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return those of `targets` whom a policy may turn to by themselves; the others act only in plans that name them.

    Raises:
        NoEligibleTarget: if there is none.
    """
    for t in targets:
        if not t.profile.answers:
            break
    else:
        return targets
    able = tuple(t for t in targets if t.profile.answers)
    if not able:
        raise NoEligibleTarget({t.name: "acts only in plans that name it" for t in targets})
    return able


def checked(proposal: Proposal, targets: Sequence[Target], *, by: str) -> float:
    """Return the sum of the probabilities, which is 1 but for rounding.

    Raises:
        FairleadError: naming `by`, if this is not a distribution over different plans on `targets`.
    """
    names, total = {t.name for t in targets}, 0.0
    for option in proposal.options:
        if not option.probability >= 0.0:
            raise FairleadError(f"{by} proposed a probability of {option.probability}")
        if not names.issuperset(option.plan.targets()):
            stray = ", ".join(sorted(set(option.plan.targets()) - names))
            raise FairleadError(f"{by} proposed a plan on {stray}, not eligible")
        total += option.probability
    for plan in proposal.fallbacks or ():
        if not names.issuperset(plan.targets()):
            stray = ", ".join(sorted(set(plan.targets()) - names))
            raise FairleadError(f"{by} proposed a fallback on {stray}, not eligible")
    if len({o.plan for o in proposal.options}) != len(proposal.options):
        raise FairleadError(f"{by} proposed a plan twice, so that its propensity would be wrong")
    if not isclose(total, 1.0, abs_tol=1e-6):
        raise FairleadError(f"{by} proposed probabilities that sum to {total}, not 1")
    return total


def check_records(policy: Policy) -> None:
    """Raise `ConfigError` if what a policy inside `policy` writes in the decision would be lost: it could never judge what it compares, or
    actions that it orders would not be done.

    A policy passes on nothing unless it says so in `passes`; then from one of its arguments, as a decision holds one record of each kind.
    """
    for record in ("shadow", "members"):
        inside = [
            (path, part)
            for path, part in policy.walk()
            if part is not policy and isinstance(part, Policy) and part.writes == record
        ]
        arguments = {re.split(r"[.\[]", path)[1] for path, _ in inside}
        if inside and (record not in policy.passes or len(arguments) > 1):
            path, part = inside[-1]
            raise ConfigError(
                f"{part.type_name()} inside {policy.type_name()}: its record in the decision's {record}, by which it judges, would be lost;"
                " use one of them",
                path=path,
            )
    for path, inner in policy.walk():
        if inner is not policy and isinstance(inner, Policy) and inner.orders and "actions" not in policy.passes:
            raise ConfigError(
                f"{inner.type_name()} inside {policy.type_name()} orders actions, which would not be done; order them in a guard",
                path=path + inner.orders[0][0].removeprefix("$"),
            )


def uniform(seed: int, id: str) -> float:
    """Return the query's own number in [0, 1): a hash of (seed, id), the same on every machine."""
    h = hashlib.blake2b(id.encode(), digest_size=8, key=seed.to_bytes(8, "big", signed=True))
    return int.from_bytes(h.digest(), "big") / 2.0**64


def pick(probabilities: Sequence[float], u: float) -> int:
    """Return the index at which the running sum of `probabilities` passes `u`."""
    last = 0
    for i, p in enumerate(probabilities):
        if p > 0.0:
            last = i
            u -= p
            if u < 0.0:
                return i
    return last


def preferred(ranked: Sequence[tuple[Target, float, Forecast | None]], *, explore: float = 0.0) -> list[Option]:
    """Turn (target, score, forecast) into options of single calls, as `preferred_plans` does."""
    return preferred_plans([(t.name, Single(target=t.name), score, f) for t, score, f in ranked], explore=explore)


def preferred_plans(
    ranked: Sequence[tuple[str, Plan, float, Forecast | None]], *, explore: float = 0.0
) -> list[Option]:
    """Turn (name, plan, score, forecast) into options: the best score takes all but `explore`.

    `explore` is spread evenly over all plans, the best included. Equal best scores share alike. Best first; ties by name.
    """
    order = sorted(ranked, key=lambda r: (-r[2], r[0]))
    best = order[0][2]
    ties = sum(1 for _, _, score, _ in order if score == best)
    return [
        Option(
            plan=plan,
            probability=explore / len(order) + ((1.0 - explore) / ties if score == best else 0.0),
            forecast=forecast,
        )
        for _, plan, score, forecast in order
    ]
