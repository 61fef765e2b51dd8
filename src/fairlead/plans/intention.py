"""Write down first what is wanted and the idea, then do it: two calls of one target.

The intention chain of thought of RoutingGen (2025, arXiv 2512.14048, AAAI 2026). Call 1 gives a *Specification* (inputs and outputs) and an *Idea* (core logic, the
algorithm and its time complexity), from three worked examples. Call 2 writes the code, conditioned on the task and the intention. For programming tasks as the
kept prompts stand; bring your own prompts for others.

The intention is asked for as in the paper: temperature 0.8, top_p 0.95, at most 300 tokens. How the second call samples and how long it may be is the client's
wish; `params` sets what the paper sets (``{temperature: 0.8, top_p: 0.95, max_tokens: 300}``).

If the first call fails or says nothing, the task is asked as it came. A limit between the two leaves no answer, since an intention is none.
Cost: two calls, one after the other. Checked in tests/plans/test_prompting.py.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from fairlead.plans import prompts
from fairlead.plans.prompts import Prompt
from fairlead.types import Call, Do, Plan, Query, Steps


class Intention(Struct, Plan, frozen=True, kw_only=True, tag="intention", tag_field="kind", forbid_unknown_fields=True):
    """Ask `target` for its intention, then for the answer. `prompt` may have the field question, `implementing` question and intention."""

    target: str
    temperature: Annotated[float, Meta(ge=0.0)] = 0.8
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.95
    intention_tokens: Annotated[int, Meta(ge=1)] = 300
    params: dict[str, Any] = {}
    prompt: Prompt | str = "intention@1"
    implementing: Prompt | str = "implement@1"

    def __post_init__(self) -> None:
        prompts.check(self.prompt, "question")
        prompts.check(self.implementing, "question", "intention")

    def __hash__(self) -> int:
        return hash((self.target, self.temperature, self.top_p, self.intention_tokens))

    def run(self, query: Query) -> Steps:
        """Ask twice."""
        asked = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.intention_tokens}
        (told,) = yield Do(branches=(prompts.ask(self.target, self.prompt, query, purpose="plan", params=asked),))
        call = Call(target=self.target, params=self.params)
        if told.ok and told.text.strip():
            intention = told.text.strip()
            call = prompts.ask(
                self.target,
                self.implementing,
                query,
                purpose="answer",
                alone=False,
                params=self.params,
                intention=intention,
            )
        (answer,) = yield Do(branches=(call,), final=True)
        return answer

    def targets(self) -> tuple[str, ...]:
        """The one target."""
        return (self.target,)

    @classmethod
    def example(cls) -> Intention:
        """Some target."""
        return cls(target="a")
