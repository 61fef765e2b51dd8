"""Ask several, or one several times, and give the answer that most agree on.

Self-consistency (Wang et al., 2022, arXiv 2203.11171) is one member with `samples` > 1; several members make a plain ensemble. With
`weights` each draw counts as much as its member. The vote is over answers in normal form (`fairlead.answers`); a draw that failed, or
that holds no such answer, agrees with nobody. Ties go to the earliest member. The answer given is the first that voted for the
winner, with the winner's share of all weight as its `confidence`: failures lower it, and a cascade may test it
(`Cascade(steps=(Vote(…), …), accept=Confidence(above=0.7))`).

Checked in tests/plans/test_vote.py: majority, weights, ties, failures, draws told apart, every draw charged.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from fairlead.answers.base import check, groups
from fairlead.plans.single import Single
from fairlead.types import Call, Do, Failure, Outcome, Plan, Query, Steps


class Vote(Struct, Plan, frozen=True, kw_only=True, tag="vote", tag_field="kind", forbid_unknown_fields=True):
    """Run every member side by side and return the answer with the most weight behind it.

    With `samples` > 1 each member must be a single call; draws after the first are asked with `temperature`.
    """

    members: tuple[Plan, ...]
    samples: int = 1
    weights: tuple[float, ...] | None = None
    answers: str = "text"
    temperature: float = 0.8

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("a vote needs at least one member")
        check(self.answers)
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if self.samples > 1 and not all(isinstance(m, Single) for m in self.members):
            raise ValueError("only single calls can be drawn several times; for other plans vote over members")
        if self.weights is not None:
            if len(self.weights) != len(self.members):
                raise ValueError(f"{len(self.members)} members need as many weights, not {len(self.weights)}")
            if not all(0.0 <= w < float("inf") for w in self.weights) or not any(self.weights):
                raise ValueError("weights must be finite, not negative, and not all zero")

    def run(self, query: Query) -> Steps:
        """Ask all, count, return the winner."""
        branches: list[Call | Plan] = []
        weights: list[float] = []
        for i, member in enumerate(self.members):
            weight = 1.0 if self.weights is None else self.weights[i]
            weights += [weight] * self.samples
            branches += [member] if self.samples == 1 else draws(member, self.samples, self.temperature)
        outcomes = yield Do(branches=tuple(branches))
        return elect(outcomes, weights, self.answers)

    def targets(self) -> tuple[str, ...]:
        """Targets of all members, in order."""
        return tuple(dict.fromkeys(t for member in self.members for t in member.targets()))

    @classmethod
    def example(cls) -> Vote:
        """Three members, one draw each."""
        return cls(members=tuple(Single(target=name) for name in "abc"))


def draws(plan: Plan, samples: int, temperature: float) -> list[Call]:
    """Make `samples` calls that can be told apart; all but the first ask for `temperature`."""
    assert isinstance(plan, Single)
    return [
        Call(target=plan.target, sample=s, params={"temperature": temperature} if s else {}) for s in range(samples)
    ]


def elect(outcomes: Sequence[Outcome], weights: Sequence[float], how: str) -> Outcome:
    """Return the first outcome that gave the winning answer, with the winner's share of all weight as its confidence.

    If no answer can be read off any of them: the first good one, with confidence 0; if none is good, the first failure.
    """
    behind: dict[int, float] = {}
    first: dict[int, Outcome] = {}
    for outcome, weight, group in zip(outcomes, weights, groups(outcomes, how), strict=True):
        if group is not None:
            behind[group] = behind.get(group, 0.0) + weight
            first.setdefault(group, outcome)
    if behind:
        winner = max(behind, key=lambda g: behind[g])  # the first of equals: dicts keep order
        return replace(first[winner], confidence=behind[winner] / sum(weights))
    for outcome in outcomes:
        if outcome.ok:
            return replace(outcome, confidence=0.0)
    failed = (o for o in outcomes if o.error is not None)
    return next(failed, Outcome(error=Failure(kind="unavailable", message="no member of the vote gave an answer")))
