"""A candidate that decides and does not serve: what it would have done stands beside what was done. Ours, no paper.

The serving policy decides; the candidate's options and probabilities go into `Decision.shadow`. So a log shows for every query how the two
agree, and off-policy evaluation can say what the candidate would have brought. Both are taught every judged answer: a target answered,
whoever asked it, and the candidate learns from it what it can (partial feedback: nothing of a target that was not asked).

A candidate that cannot decide or learn harms nothing, whatever breaks in it: the reasons say so, and the log. It must leave finite state,
though: the learner checks both together. A budget that it keeps is not the route's: its pace reads what the route has spent, which is nothing
where `serve` keeps no budget.

Checked in tests/policies/test_rollout.py. Cost per decision: the serving policy's and the candidate's; no further call to any target.
Not merged: the state is that of the two policies, and each may or may not be mergeable.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Literal, Self

from fairlead.errors import ConfigError, FairleadError
from fairlead.policies.base import Policy, Proposal, checked
from fairlead.policies.fixed import Fixed
from fairlead.types import Option, Plan, Query, Reward, Signals, Target, Trace

log = logging.getLogger(__name__)


class Shadow(Policy):
    """Serve as `serve` decides, and record what `candidate` would have proposed."""

    contextual: ClassVar[bool] = False
    aside: ClassVar[tuple[str, ...]] = ("candidate",)
    writes: ClassVar[Literal["", "members", "shadow"]] = "shadow"
    passes: ClassVar[tuple[str, ...]] = ("members",)

    def __init__(self, *, serve: Policy, candidate: Policy) -> None:
        self.serve = serve
        self.candidate = candidate

    @classmethod
    def example(cls) -> Self:
        """A fixed target that serves, and another that would."""
        return cls(serve=Fixed(plan="ant"), candidate=Fixed(plan="bee"))

    @property
    def needs(self) -> tuple[str, ...]:
        """What either reads."""
        return tuple(dict.fromkeys((*self.serve.needs, *self.candidate.needs)))

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the proposal of the one that serves, with the candidate's beside it."""
        proposal = self.serve.propose(query, signals, targets)
        would = asked(self.candidate, query, signals, targets)
        if isinstance(would, str):
            return again(proposal, proposal.options, reasons=(f"the shadow could not decide: {would}",))
        return again(proposal, proposal.options, shadow=would)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Teach both. A candidate that cannot learn this is logged, and keeps nobody else from it."""
        self.serve.learn(trace, reward)
        teach(self.candidate, trace, reward, named="shadow: the candidate")

    def decay(self, keep: float) -> None:
        """Let both forget."""
        self.serve.decay(keep)
        self.candidate.decay(keep)


def asked(candidate: Policy, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal | str:
    """Return what a candidate proposes, or why it cannot; what it proposes could be served as it is."""
    try:
        proposal = candidate.propose(query, signals, targets)
        checked(proposal, targets, by=candidate.type_name())
    except FairleadError as e:
        return str(e)
    except Exception as e:
        # The wall of a candidate: whatever breaks in it, what serves goes on. The record names the kind only, the log has the rest.
        log.exception("the candidate %s broke on %s", candidate.type_name(), query.id)
        return f"{candidate.type_name()} broke: {type(e).__name__}"
    return proposal


def teach(policy: Policy, trace: Trace, reward: Reward, *, named: str) -> None:
    """Teach a policy whose failure to learn must not keep others from it; it is logged."""
    try:
        policy.learn(trace, reward)
    except FairleadError as e:
        log.warning("%s could not learn from %s: %s", named, trace.id, e)
    except Exception:
        # The wall of a candidate, as in `asked`.
        log.exception("%s could not learn from %s", named, trace.id)


def bounds_of(proposal: Proposal) -> set[Plan] | None:
    """Return the plans that may run where a rule is required: the proposed ones, and those that may take over. None: any may."""
    if proposal.fallbacks is None:
        return None
    return {o.plan for o in proposal.options} | set(proposal.fallbacks)


def keeps(proposal: Proposal, bounds: set[Plan] | None) -> bool:
    """Say whether a proposal stays within the bounds of another."""
    return bounds is None or all(o.plan in bounds for o in proposal.options if o.probability > 0.0)


def check_weighed(*policies: Policy) -> None:
    """Raise `ConfigError` if one of `policies` saves on purpose: judged by quality alone, it is worse than what it saves from."""
    for policy in policies:
        for _, part in policy.walk():
            if isinstance(part, Policy) and part.saves:
                raise ConfigError(
                    f"{part.type_name()} saves on purpose, so by quality alone it is sure to be found worse: say what is saved is worth,"
                    " for example {usd_weight: 10}",
                    path="$.objective",
                )


def again(
    proposal: Proposal,
    options: tuple[Option, ...],
    *,
    reasons: tuple[str, ...] = (),
    shadow: Proposal | None = None,
    fallbacks: tuple[Plan, ...] | None = None,
) -> Proposal:
    """Return `proposal` with other options, further reasons, the options of another proposal as its shadow, and other fallbacks if given.

    The members of either are kept; only one of them has any (`check_records`).
    """
    return Proposal(
        options,
        *proposal.reasons,
        *reasons,
        fallbacks=proposal.fallbacks if fallbacks is None else fallbacks,
        forecast_of=proposal.forecast_of,
        objective=proposal.objective,
        shadow=() if shadow is None else shadow.options,
        members=proposal.members or (None if shadow is None else shadow.members),
    )
