"""Try plans in order until one answers. Ours, no paper.

The router wraps what a policy chose in this plan, so that a failure before the first byte is rerouted, and the trace shows it.
Once something has been streamed the answer cannot be taken back: then the failure stands.
"""

from __future__ import annotations

from msgspec import Struct

from fairlead.plans.base import final_failure
from fairlead.plans.single import Single
from fairlead.types import Do, Failure, Outcome, Plan, Query, Steps


class Fallback(Struct, Plan, frozen=True, kw_only=True, tag="fallback", tag_field="kind", forbid_unknown_fields=True):
    """Run `plans` in order; the first good answer stands, else the first failure is reported."""

    plans: tuple[Plan, ...]

    def run(self, query: Query) -> Steps:
        """Run the next plan while the failure is one that another target may avoid."""
        first: Outcome | None = None
        for plan in self.plans:
            (outcome,) = yield Do(branches=(plan,), final=True)
            if outcome.error is None or outcome.streamed or final_failure(outcome):
                return outcome
            first = first or outcome
        return first or Outcome(error=Failure(kind="internal", message="a fallback plan needs at least one plan"))

    def targets(self) -> tuple[str, ...]:
        """Targets of all plans, in order."""
        return tuple(dict.fromkeys(t for plan in self.plans for t in plan.targets()))

    @classmethod
    def example(cls) -> Fallback:
        """Three plans."""
        return cls(plans=tuple(Single(target=name) for name in "abc"))
