"""One plan for everything: a baseline, and the safe default. Ours, no paper. 2 µs."""

from __future__ import annotations

from typing import Self

from fairlead.errors import NoEligibleTarget
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, answering
from fairlead.types import Option, Plan, Query, Signals, Target


class Fixed(Policy):
    """Always propose `plan` (a bare name is a single call to that target).

    While one of the plan's targets may not answer, the first of its targets that may is asked alone, or failing that the first
    eligible target by name; the reasons say so. With `only` nobody stands in and nobody takes over: the query is refused.
    """

    def __init__(self, *, plan: Plan | str, only: bool = False) -> None:
        self.plan = plan
        self.only = only

    @classmethod
    def example(cls) -> Self:
        """One target."""
        return cls(plan="ant")

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The plan's targets."""
        targets = (self.plan,) if isinstance(self.plan, str) else self.plan.targets()
        return tuple(("$.plan", t) for t in targets)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the plan, or what stands in for it. Raises `NoEligibleTarget` if nobody may."""
        plan = Single(target=self.plan) if isinstance(self.plan, str) else self.plan
        wanted = plan.targets()
        eligible = {t.name for t in targets}
        if eligible.issuperset(wanted):
            return Proposal([Option(plan=plan, probability=1.0)], "fixed plan", fallbacks=() if self.only else None)
        lacking = [name for name in wanted if name not in eligible]
        if self.only:
            raise NoEligibleTarget(dict.fromkeys(lacking, "not eligible now, and no other was asked for"))
        missing = ", ".join(lacking)
        able = {t.name for t in answering(targets)}
        instead = next((name for name in wanted if name in able), None) or min(able)
        return Proposal(
            [Option(plan=Single(target=instead), probability=1.0)],
            f"the fixed plan needs {missing}, not eligible now; {instead} stands in",
        )
