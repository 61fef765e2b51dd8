"""Breadth first: many answers side by side, then fewer that see them, then one.

ReMoM of vLLM Semantic Router (2026, arXiv 2603.04444). `breadth` = [b_1 … b_R]: round r draws b_r answers from the members at temperature 1.0; the
prompt of every round after the first shows the answers of the round before as numbered references; then one call gives the answer. That is
sum(b_r) + 1 calls, whatever comes back. References are shown in full, or cut to their last `kept_tokens` tokens, counted as four characters each.

How a round's draws are dealt to members (`distribution`): ``equal``, what does not divide to the first ones; ``weighted``, by largest remainder (of
equal remainders the first); ``first_only``. No draw depends on chance.

Not known to us, so ours: only the round before is shown, not all of them; the last call goes to the first member unless `merger` is named, and
asks for no temperature of its own, since its reply is the client's. Answers that failed or are empty are no references; if a round brings none,
those before it are shown again; if there are none at all, the plain question is asked. If the last call fails, or a limit ends the rounds, the
answer stands that most of the latest references agree on (`answers`, as in `vote`).

A draw that calls tools is the answer, and ends the rounds.

It costs several times one call and waits for the slowest of every round. Where members err alike, references repeat the error with more voices.

Checked in tests/plans/test_breadth.py: the number of calls, dealing, references, what is cut, limits, failures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Final, Literal

from msgspec import Struct

from fairlead.answers.base import check
from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import calling, final_failure, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.plans.vote import elect
from fairlead.types import Call, Do, Outcome, Plan, Query, Steps

CHARACTERS: Final = 4
"""What a token counts as."""


class Breadth(Struct, Plan, frozen=True, kw_only=True, tag="breadth", tag_field="kind", forbid_unknown_fields=True):
    """Draw `breadth` answers from `members`, round by round, each round seeing the one before, and have `merger` give one answer.

    `weights` are for the distribution ``weighted``: one for each member. `kept_tokens` None: references in full. `prompt` may have the fields
    question and references.
    """

    members: tuple[str, ...]
    breadth: tuple[int, ...]
    merger: str | None = None
    distribution: Literal["equal", "weighted", "first_only"] = "equal"
    weights: tuple[float, ...] | None = None
    temperature: float = 1.0
    kept_tokens: int | None = None
    answers: str = "text"
    prompt: Prompt | str = "references@1"

    def __post_init__(self) -> None:
        check(self.answers)
        prompts.check(self.prompt, "question", "references")
        if not self.members:
            raise ValueError("there must be at least one member")
        if not self.breadth or min(self.breadth) < 1:
            raise ValueError("breadth must name at least one round, each of at least 1 answer")
        if self.kept_tokens is not None and self.kept_tokens < 1:
            raise ValueError("kept_tokens must be at least 1")
        if (self.distribution == "weighted") != (self.weights is not None):
            raise ValueError("weights belong to the distribution `weighted`, and it needs them")
        if self.weights is not None:
            if len(self.weights) != len(self.members):
                raise ValueError(f"{len(self.members)} members need as many weights, not {len(self.weights)}")
            if min(self.weights) < 0.0 or not 0.0 < sum(self.weights) < inf:
                raise ValueError("weights must be finite, not negative, and not all zero")

    def run(self, query: Query) -> Steps:
        """Go through the rounds, then ask for one answer."""
        references: list[Outcome] = []
        drawn: Counter[str] = Counter()
        try:
            for many in self.breadth:
                calls = []
                for target, count in zip(self.members, self.dealt(many), strict=True):
                    for _ in range(count):
                        calls.append(self._call(query, target, references, drawn[target]))
                        drawn[target] += 1
                outcomes = yield Do(branches=tuple(calls))
                if (called := calling(outcomes)) is not None:
                    return called
                found = [o for o in outcomes if o.ok and o.text.strip()]
                at_fault = [o for o in outcomes if final_failure(o)]
                if at_fault and not any(o.ok for o in outcomes):
                    return self._best(references) if references else at_fault[0]
                references = found or references
            merger = self.merger or self.members[0]
            (outcome,) = yield Do(
                branches=(self._call(query, merger, references, drawn[merger], last=True),), final=True
            )
        except LimitReached:
            if not references:
                raise
            return self._best(references)
        return self._best(references) if references and not (outcome.ok or outcome.streamed) else outcome

    def dealt(self, many: int) -> tuple[int, ...]:
        """Return how many of so many draws each member makes."""
        if self.distribution == "first_only":
            return (many,) + (0,) * (len(self.members) - 1)
        weights = self.weights or (1.0,) * len(self.members)
        due = [many * w / sum(weights) for w in weights]
        counts = [int(d) for d in due]
        by_remainder = sorted(range(len(due)), key=lambda i: counts[i] - due[i])  # stable: of equals the first
        for i in by_remainder[: many - sum(counts)]:
            counts[i] += 1
        return tuple(counts)

    def targets(self) -> tuple[str, ...]:
        """Members, in order, then the merger."""
        return targets_of(*self.members, self.merger)

    @classmethod
    def example(cls) -> Breadth:
        """Two rounds over two members, and a merger."""
        return cls(members=("a", "b"), breadth=(3, 2), merger="c")

    def _call(
        self, query: Query, target: str, references: Sequence[Outcome], sample: int, *, last: bool = False
    ) -> Call:
        params = {} if last else {"temperature": self.temperature}
        if not references:
            return Call(target=target, sample=sample, params=params)
        shown = [self._kept(o.text) for o in references]
        return prompts.ask(
            target,
            self.prompt,
            query,
            purpose="merge" if last else "answer",
            alone=False,
            sample=sample,
            params=params,
            references=shown,
        )

    def _kept(self, text: str) -> str:
        most = len(text) if self.kept_tokens is None else self.kept_tokens * CHARACTERS
        return text if len(text) <= most else f"… {text[-most:]}"

    def _best(self, references: Sequence[Outcome]) -> Outcome:
        return elect(references, [1.0] * len(references), self.answers)
