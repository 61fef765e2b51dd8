"""A candidate that decides and does not serve: what it would have done stands beside what was done. Ours, no paper.

The serving policy decides; the candidate's options and probabilities go into `Decision.shadow`. So a log shows for every query how the two
agree, and off-policy evaluation can say what the candidate would have brought. Both are taught every judged answer: a target answered,
whoever asked it, and the candidate learns from it what it can (partial feedback: nothing of a target that was not asked).

A candidate that cannot decide or learn harms nothing: the reasons say so, and the log. It must leave finite state, though: the learner
checks both together.

Checked in tests/policies/test_rollout.py. Cost per decision: the serving policy's and the candidate's; no further call to any target.
Not merged: the state is that of the two policies, and each may or may not be mergeable.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Self

from fairlead.errors import ConfigError, FairleadError
from fairlead.policies.base import Policy, Proposal
from fairlead.policies.fixed import Fixed
from fairlead.types import Option, Plan, Query, Reward, Signals, Target, Trace

log = logging.getLogger(__name__)

_KEEPERS = ("canary", "guarded", "shadow")


class Shadow(Policy):
    """Serve as `serve` decides, and record what `candidate` would have proposed."""

    contextual: ClassVar[bool] = False

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

    def check(self) -> None:
        """Raise `ConfigError` if a policy inside keeps a shadow of its own."""
        check_alone(self)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the proposal of the one that serves, with the candidate's beside it."""
        proposal = self.serve.propose(query, signals, targets)
        try:
            would = self.candidate.propose(query, signals, targets)
        except FairleadError as e:
            return again(proposal, proposal.options, reasons=(f"the shadow could not decide: {e}",))
        return again(proposal, proposal.options, shadow=would)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Teach both. A candidate that cannot learn this is logged, and keeps nobody else from it."""
        self.serve.learn(trace, reward)
        teach(self.candidate, trace, reward, named="shadow: the candidate")

    def decay(self, keep: float) -> None:
        """Let both forget."""
        self.serve.decay(keep)
        self.candidate.decay(keep)


def teach(policy: Policy, trace: Trace, reward: Reward, *, named: str) -> None:
    """Teach a policy whose failure to learn must not keep others from it; it is logged."""
    try:
        policy.learn(trace, reward)
    except FairleadError as e:
        log.warning("%s could not learn from %s: %s", named, trace.id, e)


def check_alone(policy: Policy) -> None:
    """Raise `ConfigError` if a policy inside `policy` writes `Decision.shadow` too: there is one per decision.

    What was proposed when the answer was given can only be read from there, as the state has moved on by the time that it is judged.
    """
    for path, part in policy.walk():
        if part is not policy and isinstance(part, Policy) and part.type_name() in _KEEPERS:
            raise ConfigError(
                f"{part.type_name()} inside {policy.type_name()}: both record in the decision's shadow what they compare; use one of them",
                path=path,
            )


def again(
    proposal: Proposal,
    options: tuple[Option, ...],
    *,
    reasons: tuple[str, ...] = (),
    shadow: Proposal | None = None,
    fallbacks: tuple[Plan, ...] | None = None,
) -> Proposal:
    """Return `proposal` with other options, further reasons, the options of another proposal as its shadow, and other fallbacks if given."""
    return Proposal(
        options,
        *proposal.reasons,
        *reasons,
        fallbacks=proposal.fallbacks if fallbacks is None else fallbacks,
        forecast_of=proposal.forecast_of,
        objective=proposal.objective,
        shadow=() if shadow is None else shadow.options,
    )
