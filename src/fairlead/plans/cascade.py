"""Try steps in order, cheap ones first; keep the first answer that passes a test, else escalate.

FrugalGPT (Chen, Zaharia, Zou, 2023, arXiv 2305.05176) with a test in place of its learned scorer; the tests are in `accept.py`. With
`Agreement` it is a cascade by self-consistency, with a `Vote` as a step and `Confidence` as the test one by ensemble agreement.

Every call of every step is charged. A step that fails is escalated like one that is not accepted, except for a request that is
itself at fault. If a limit ends the cascade, or the last step fails before it has streamed anything, the best answer so far
stands: the one of the latest step that gave one, since later steps are taken to be stronger.

Checked in tests/plans/test_cascade.py: thresholds, escalation, charges, limits, failures, streaming of the last step alone.
"""

from __future__ import annotations

from msgspec import Struct

from fairlead.errors import LimitReached
from fairlead.plans.accept import Accept, MeanLogprob
from fairlead.plans.base import final_failure
from fairlead.plans.single import Single
from fairlead.types import Do, Outcome, Plan, Query, Steps


class Cascade(Struct, Plan, frozen=True, kw_only=True, tag="cascade", tag_field="kind", forbid_unknown_fields=True):
    """Run `steps` in order until `accept` passes; the last step's answer needs no test.

    Every step but the last is asked for what the test needs: log-probabilities of any plan, further draws of a single call (`Agreement`
    takes no other steps). The test sees what the step's answer brings.
    """

    steps: tuple[Plan, ...]
    accept: Accept

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("a cascade needs at least one step")
        for step in self.steps[:-1]:
            self.accept.asking(step)

    def run(self, query: Query) -> Steps:
        """Escalate until an answer is accepted, the steps are used up, or a limit is reached."""
        best: Outcome | None = None
        first: Outcome | None = None
        last = self.steps[-1]
        try:
            for step in self.steps[:-1]:
                (outcome,) = yield Do(branches=(self.accept.asking(step),))
                if outcome.ok:
                    best = outcome
                    if self.accept.accepts(outcome):
                        return outcome
                elif final_failure(outcome):
                    return best or outcome
                first = first or outcome
            (outcome,) = yield Do(branches=(last,), final=True)
        except LimitReached:
            if best is None:
                raise
            return best
        if outcome.ok or outcome.streamed:
            return outcome
        return best or first or outcome

    def targets(self) -> tuple[str, ...]:
        """Targets of all steps, in order."""
        return tuple(dict.fromkeys(t for step in self.steps for t in step.targets()))

    @classmethod
    def example(cls) -> Cascade:
        """Three steps."""
        return cls(steps=tuple(Single(target=name) for name in "abc"), accept=MeanLogprob(above=-0.5))
