"""Check the answer against its sources, and ask a stronger target where too much of it is unsupported.

A cascade (Chen, Zaharia, Zou, 2023, FrugalGPT, arXiv 2305.05176) whose test is not how sure the target was but how far the request's own texts
support what it said (`fairlead.detect.support`; stages of HaluGate, vLLM Semantic Router, 2026, arXiv 2603.04444). The test is a pure
function of the query's messages and the answer, so that a replay from the record goes the same way. It judges by words: a model
has no place in a plan.

The first answer is not streamed: it is judged whole, and comes at once if it passes. The stronger target's answer is streamed as it comes,
unjudged. It stands whatever it is, but if it fails, or a limit is reached before it, the first answer stands. An answer that the stronger
target itself gave, or that claims nothing (a call of a tool, JSON), needs no test. Every call is charged.

A plan judges on the event loop: sources of more than `LONGEST` characters are not judged, and the first answer stands. Up to there it takes some
20 ms, and ten times that for hostile texts.

Checked in tests/plans/test_checked.py: the threshold, charges, failures, limits, streaming of the retry alone, replay.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from fairlead.detect.support import BAR, judged, sources
from fairlead.errors import LimitReached
from fairlead.plans.single import Single
from fairlead.types import Call, Do, Outcome, Plan, Query, Steps

LONGEST: Final = 50_000
"""Characters of sources up to which a plan judges."""


class Checked(Struct, Plan, frozen=True, kw_only=True, tag="checked", tag_field="kind", forbid_unknown_fields=True):
    """Run `plan`; if less than `above` of what it claims is supported, ask `stronger`. `bar`: of one claim, as `judged` takes it."""

    plan: Plan
    stronger: str
    above: float = 1.0
    bar: float = BAR

    def __post_init__(self) -> None:
        if not 0.0 <= self.above <= 1.0 or not 0.0 <= self.bar <= 1.0:
            raise ValueError("above and bar are shares: from 0 to 1")

    def run(self, query: Query) -> Steps:
        """Answer, judge, and retry if need be."""
        (first,) = yield Do(branches=(self.plan,))
        if not first.ok or self.accepts(query, first):
            return first
        try:
            (second,) = yield Do(branches=(Call(target=self.stronger),), final=True)
        except LimitReached:
            return first
        return second if second.ok or second.streamed else first

    def accepts(self, query: Query, outcome: Outcome) -> bool:
        """Judge one answer. One whose sources are too long to be judged is accepted."""
        if outcome.target == self.stronger or outcome.tool_calls is not None:
            return True
        texts = sources(query)
        return sum(map(len, texts)) > LONGEST or judged(outcome.text, texts, bar=self.bar).score >= self.above

    def targets(self) -> tuple[str, ...]:
        """Targets of the plan, then the stronger one."""
        return tuple(dict.fromkeys((*self.plan.targets(), self.stronger)))

    @classmethod
    def example(cls) -> Checked:
        """One target, and a stronger one."""
        return cls(plan=Single(target="a"), stronger="b")
