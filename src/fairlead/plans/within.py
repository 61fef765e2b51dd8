"""Run a plan within limits of its own: so much money, time, and so many calls for this part, whatever the whole may take. Ours, no paper.

What counts against these limits counts against those around them too. When one is reached the plan inside returns its best answer so far, and
the run's answer says that it was limited. Without an answer: a time limit of its own comes back as ``timeout``, so that a fallback may take
over, where the run's own deadline would be over for everybody.

Checked in tests/plans/test_within.py.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from fairlead.plans.single import Single
from fairlead.types import Do, Limits, Plan, Query, Steps


class Within(Struct, Plan, frozen=True, kw_only=True, tag="within", tag_field="kind", forbid_unknown_fields=True):
    """Run `plan` with at most `usd`, `seconds` and `calls`; None: no limit of its own."""

    plan: Plan
    usd: float | None = None
    seconds: float | None = None
    calls: int | None = None

    def __post_init__(self) -> None:
        if all(v is None for v in (self.usd, self.seconds, self.calls)):
            raise ValueError("say what the plan may take: usd, seconds or calls")
        if not all(0.0 < v < inf for v in (self.usd, self.seconds, self.calls) if v is not None):
            raise ValueError("usd, seconds and calls are finite numbers above 0")

    def run(self, query: Query) -> Steps:
        """Run it."""
        limits = Limits(
            usd=inf if self.usd is None else self.usd,
            seconds=inf if self.seconds is None else self.seconds,
            calls=inf if self.calls is None else self.calls,
        )
        (outcome,) = yield Do(branches=(self.plan,), final=True, limits=limits)
        if outcome.error is not None and outcome.error.kind == "deadline":
            # If the whole run's time is up too, the next step is not begun, whoever wants it.
            late = replace(
                outcome.error, kind="timeout", message=f"its part of the time is up: {outcome.error.message}"
            )
            return replace(outcome, error=late)
        return outcome

    def targets(self) -> tuple[str, ...]:
        """Targets of the plan."""
        return self.plan.targets()

    @classmethod
    def example(cls) -> Within:
        """One target, at most ten calls."""
        return cls(plan=Single(target="a"), calls=10)
