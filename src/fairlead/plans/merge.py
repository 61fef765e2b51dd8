"""Several members answer side by side, each by itself; one merge makes one answer. Who is asked and how answers are merged is a fixed rule.

ORCH ("many analyses, one merge", 2026, arXiv 2602.01797; Frontiers in AI 10.3389/frai.2026.1748735). Two ways to merge:

**Without `merger`** (ours, after a reading of the paper: nothing that models say decides how they are merged) the answers are read and grouped
(`fairlead.answers`), each counts as much as its member, and the group with the most weight wins:

    answer = argmax over groups of the sum of weights;   w = ln(p (k - 1) / (1 - p))  is best for a member that is right with
                                                         probability p among k answers, if errors are independent (`weight_of`;
                                                         Nitzan, Paroush, 1982, for k = 2)

Members that fail, or say nothing that can be read, cast no vote. A tie is no answer but a failure that says "incomplete", or is broken by
asking `on_tie`; it is never guessed. The confidence is the mean of the confidences of the winning side, as far as they were told, and never its
share. The answer given is that of the winning side's heaviest member, ties by what the member is and never by who came first.

**With `merger`** members that are single calls are asked for an analysis (reasoning, answer, confidence, as JSON; the paper's schema was not
found, this one is ours), other plans answer as they are; the merger reads all and writes the answer, which can stream. If it fails, or says
nothing, the deterministic merge stands in.

An answer that calls tools stands as it is, the heaviest member's if there are several: it is not read, and not merged.

The order of members, and that in which they come back, changes nothing: the merger reads them in a fixed order. If all fail, the failure says
"incomplete". Which agents to ask at all by moving averages of how they did is a policy, `ema`. Cost: the members, and one call.
Checked in tests/plans/test_merge.py.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from fairlead.answers.base import check, extract, groups
from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import calling, final_failure, saying, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.types import Call, Do, Failure, Outcome, Plan, Query, Steps

_ROUNDING: Final = 1e-9
"""Sides whose weights differ by less, relatively, tie."""
_encoder: Final = msgspec.json.Encoder(order="deterministic")


class _Vote(NamedTuple):
    """What one member said. Votes sort by weight, then by member, then by text: never by when or where."""

    less: float
    """Its weight, below 0."""
    member: bytes
    text: str
    outcome: Outcome


class Merge(Struct, Plan, frozen=True, kw_only=True, tag="merge", tag_field="kind", forbid_unknown_fields=True):
    """Run `members` side by side; the `merger` makes one answer of theirs, else a vote with `weights` (None: all equal) does.

    `on_tie`: asked if the vote ties. `analyse` is the prompt for members that are single calls, where there is a merger; `prompt` the merger's.
    """

    members: tuple[Plan, ...]
    merger: str | None = None
    weights: tuple[Annotated[float, Meta(ge=0.0)], ...] | None = None
    answers: str = "text"
    on_tie: Plan | None = None
    analyse: Prompt | str = "analyse@1"
    prompt: Prompt | str = "merge@1"

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("a merge needs at least one member")
        if self.weights is not None:
            if len(self.weights) != len(self.members):
                raise ValueError(f"{len(self.members)} members need as many weights, not {len(self.weights)}")
            if not all(0.0 <= w < math.inf for w in self.weights) or not any(self.weights):
                raise ValueError("weights must be finite, not negative, and not all zero")
        check(self.answers)
        prompts.check(self.analyse, "question")
        prompts.check(self.prompt, "question", "answers")

    def run(self, query: Query) -> Steps:
        """Ask all, merge."""
        found = yield Do(branches=tuple(self._asked(member, query) for member in self.members))
        if not any(o.ok for o in found):
            return next((o for o in found if final_failure(o)), None) or _incomplete(
                "none of the members answered", found
            )
        votes = self._votes(found)
        if (called := calling(v.outcome for v in votes if v.less < 0.0)) is not None:
            return called
        merged = _elected(votes, self.answers)
        texts = [v.text for v in votes if v.text.strip()]
        if self.merger is not None and texts:
            call = prompts.ask(self.merger, self.prompt, query, purpose="merge", alone=False, answers=texts)
            try:
                (outcome,) = yield Do(branches=(call,), final=True)
            except LimitReached:
                if merged is None:
                    raise
                return merged
            if outcome.streamed or (outcome.ok and (outcome.text.strip() or outcome.tool_calls is not None)):
                return _confident(outcome, votes, self.answers)
        if merged is not None:
            return merged
        if self.on_tie is None:
            return _incomplete("no answer has more weight behind it than every other", found)
        (outcome,) = yield Do(branches=(self.on_tie,), final=True)
        return outcome

    def targets(self) -> tuple[str, ...]:
        """Targets of the members, the merger, and those asked if there is a tie."""
        return targets_of(*self.members, self.merger, self.on_tie)

    @classmethod
    def example(cls) -> Merge:
        """Three members, a merger, and somebody who breaks ties."""
        return cls(members=tuple(Single(target=name) for name in "abc"), merger="d", on_tie=Single(target="e"))

    def _asked(self, member: Plan, query: Query) -> Call | Plan:
        if self.merger is None or not isinstance(member, Single):
            return member
        return prompts.ask(member.target, self.analyse, query, purpose="answer")

    def _votes(self, found: tuple[Outcome, ...]) -> list[_Vote]:
        """Return what was said, in an order that is the same however members are ordered."""
        weights = self.weights or (1.0,) * len(self.members)
        votes = []
        for member, weight, outcome in zip(self.members, weights, found, strict=True):
            if outcome.ok:
                text = outcome.text
                if self.merger is not None and isinstance(member, Single) and outcome.tool_calls is None:
                    outcome = _analysis(outcome)
                votes.append(_Vote(-weight, _encoder.encode(member), text, outcome))
        return sorted(votes, key=lambda v: v[:3])


def weight_of(right: float, asked: float, *, choices: int = 2) -> float:
    """Return the weight of a member that was right `right` times of `asked`, among so many possible answers; 0 if it is no better than chance.

    One right and one wrong answer are added, so that few answers make no certainty.
    """
    if not 0.0 <= right <= asked or choices < 2:
        raise ValueError("right lies between 0 and asked, and there are at least 2 choices")
    p = (right + 1.0) / (asked + 2.0)
    return max(0.0, math.log(p * (choices - 1) / (1.0 - p)))


def _analysis(outcome: Outcome) -> Outcome:
    """Return what an analysis chose, with the confidence that it states; the outcome as it is, if it is no analysis."""
    said = extract(outcome.text, "json")
    found: Any = None if said is None else msgspec.json.decode(said)
    answer = found.get("answer") if isinstance(found, dict) else None
    if not isinstance(answer, (str, int, float)) or isinstance(answer, bool):
        return outcome
    sure = found.get("confidence")
    confident = isinstance(sure, (int, float)) and not isinstance(sure, bool) and 0.0 <= sure <= 1.0
    return saying(outcome, str(answer), confidence=float(sure) if confident else outcome.confidence)


def _elected(votes: list[_Vote], how: str) -> Outcome | None:
    """Return the answer with the most weight behind it; None if there is none, or more than one."""
    sides: dict[int, list[_Vote]] = {}
    for vote, group in zip(votes, groups([v.outcome for v in votes], how), strict=True):
        if group is not None and vote.less < 0.0:
            sides.setdefault(group, []).append(vote)
    # fsum: the same sum in whatever order.
    weight = {group: -math.fsum(v.less for v in side) for group, side in sides.items()}
    most = max(weight.values(), default=0.0)
    best = [group for group, w in weight.items() if w >= most * (1.0 - _ROUNDING)]
    if len(best) != 1:
        return None
    side = sides[best[0]]
    return replace(side[0].outcome, confidence=_mean(side))


def _confident(outcome: Outcome, votes: list[_Vote], how: str) -> Outcome:
    """Return a merger's answer with the mean confidence of those that said the same."""
    of, *others = groups([outcome, *(v.outcome for v in votes)], how)
    side = [v for v, group in zip(votes, others, strict=True) if group is not None and group == of]
    return replace(outcome, confidence=_mean(side))


def _mean(side: list[_Vote]) -> float | None:
    told = [v.outcome.confidence for v in side if v.outcome.confidence is not None]
    return math.fsum(told) / len(told) if told else None


def _incomplete(why: str, found: tuple[Outcome, ...]) -> Outcome:
    kinds = sorted({o.error.kind for o in found if o.error is not None})
    failed = f"; failures: {', '.join(kinds)}" if kinds else ""
    return Outcome(error=Failure(kind="unavailable", message=f"incomplete: {why} (members: {len(found)}{failed})"))
