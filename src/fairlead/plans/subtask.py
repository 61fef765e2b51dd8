"""Run any plan on another question than the query's: a part of a task, say. What plans that divide need; ours, no paper.

The plan inside sees a query with one user message, an id of its own, and none of the client's fields; its calls carry that message, since a world
knows only the query itself. Nested plans and gates are told the same. Not in the catalogue: plans make it while they run.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from fairlead.plans.asking import driven
from fairlead.types import Call, Message, Plan, Query, Steps


class Asked(Struct, Plan, frozen=True, kw_only=True):
    """Run `plan` on `text`. `part` sets its id apart from those of other parts, so that what a plan draws by its id differs."""

    plan: Plan
    text: str
    part: str = "part"

    def run(self, query: Query) -> Steps:
        """Run it on the part."""
        messages = (Message(role="user", content=self.text),)
        asked = replace(query, id=f"{query.id}/{self.part}", messages=messages, body={}, tools=())
        return driven(self.plan, asked, lambda branch: self._told(branch, messages))

    def targets(self) -> tuple[str, ...]:
        """Targets of the plan."""
        return self.plan.targets()

    def _told(self, branch: Call | Plan, messages: tuple[Message, ...]) -> Call | Plan:
        if not isinstance(branch, Call):
            return replace(self, plan=branch)
        return branch if branch.messages is not None else replace(branch, messages=messages, alone=True)
