"""Prompt easy tasks plainly, and hard ones with care: a classifier reads the task and says which.

RoutingGen (2025, arXiv 2512.14048, AAAI 2026). The classifier is a model with an instruction and no training (temperature 0, at most 100 tokens), which
replies ``Easy|Medium|Hard: reason``:

    Easy -> `easy`        anything else -> `hard`

also a reply that cannot be read and a classifier that fails: towards the careful way. The label is what the reply begins with, in any case, after spaces or
marks of emphasis; what a reason says, and whatever stands after the first label, counts for nothing. An answer that parrots the template is no label.

In the paper the easy way is a prompt with three worked examples (`few_shot@1`; a target of type `strategy`) and the hard way is `intention`. In the place of a classifier, a `gate`
may forecast the quality of `of` (the easy plan's first target, if None): easy from `easy_from` on (ours).

The task statement is all that the classifier gets: the released prompt for one data set also held its reference solution, which makes the router look better
than it is. Other fields of the request (metadata, tools) are not sent. The paper caches by the text; here the plan is deterministic in the classifier's reply, and
a target at temperature 0 mostly replies alike (the action `cache` answers equal questions as a whole).

If the easy plan fails, the hard one answers. Cost: the classifier's tokens on every task: it pays only where easy tasks save more (see
`fairlead.bench.metrics.routing_pays_from`). Checked in tests/plans/test_prompting.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import final_failure, targets_of
from fairlead.plans.gates import consult, forecasts
from fairlead.plans.intention import Intention
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.types import Do, Outcome, Plan, Query, Steps

_LABEL: Final = re.compile(r"[\s*_#\"'`]*(easy|medium|hard)[*_\"'`]*\s*(?:[:.,;]|[-–—]\s|\n|$)", re.IGNORECASE)  # noqa: RUF001
PARAMS: Final = {"temperature": 0.0, "max_tokens": 100}
"""What the classifier is asked with."""


class Prompting(Struct, Plan, frozen=True, kw_only=True, tag="prompting", tag_field="kind", forbid_unknown_fields=True):
    """Run `easy` for what the `classifier` calls easy, or the `gate` forecasts it to do well, and `hard` for all else. `prompt` may have the field
    question."""

    easy: Plan
    hard: Plan
    classifier: str | None = None
    gate: str | None = None
    of: str | None = None
    easy_from: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    prompt: Prompt | str = "difficulty@1"

    def __post_init__(self) -> None:
        if (self.classifier is None) == (self.gate is None):
            raise ValueError("either a classifier or a gate tells easy from hard: give one of them")
        prompts.check(self.prompt, "question")

    def run(self, query: Query) -> Steps:
        """Ask how hard it is, and go that way."""
        if self.classifier is not None:
            call = prompts.ask(self.classifier, self.prompt, query, purpose="plan", params=dict(PARAMS))
            (told,) = yield Do(branches=(call,))
            simple = label(told) == "easy"
        else:
            assert self.gate is not None
            (told,) = yield Do(branches=(consult(self.gate),))
            forecast = forecasts(told).get(self.of or self.easy.targets()[0])
            simple = forecast is not None and forecast.quality >= self.easy_from
        (first,) = yield Do(branches=(self.easy if simple else self.hard,), final=True)
        if first.ok or first.streamed or final_failure(first) or not simple:
            return first
        try:
            (second,) = yield Do(branches=(self.hard,), final=True)
        except LimitReached:
            return first
        return second if second.ok or second.streamed else first

    def targets(self) -> tuple[str, ...]:
        """The classifier or gate, those of the easy plan, of the hard one."""
        return targets_of(self.classifier, self.gate, self.easy, self.hard)

    @classmethod
    def example(cls) -> Prompting:
        """A classifier, a target for what is easy, and another in two calls for the rest."""
        return cls(classifier="a", easy=Single(target="b"), hard=Intention(target="c"))


def label(told: Outcome) -> Literal["easy", "medium", "hard"] | None:
    """Read the label that a reply begins with; None if it begins with none, or failed."""
    match = _LABEL.match(told.text) if told.ok else None
    found = None if match is None else match[1].lower()
    return found if found in ("easy", "medium", "hard") else None  # type: ignore[return-value]
