"""A chain: each target works on what the one before wrote, and the last one's reply is the answer. The stages of AMRO-S (2026, arXiv 2603.12933:
collect, analyse, solve), whose policy is `pheromone`.

Every step sees the question, its own role, and the latest output before it, as data. A step that fails is passed over: the next one sees what there was.
If the last one fails, or a limit ends the chain, the latest output stands, for want of better. A request that is itself at fault stops it.

Cost: one call per step, one after the other, so the times add up. Only the last reply streams, and only it may use the client's tools.

Checked in tests/plans/test_relay.py: who sees what, failures at each step, limits.
"""

from __future__ import annotations

from msgspec import Struct

from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import final_failure, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.types import Call, Do, Failure, Outcome, Plan, Query, Steps


class Relay(Struct, Plan, frozen=True, kw_only=True, tag="relay", tag_field="kind", forbid_unknown_fields=True):
    """Ask `steps` (targets) in order. `roles`: what each is to do, one per step; None: to bring the answer further.

    `prompt` may have the fields question, role and earlier (the latest output, empty at first). A chain of one step without a role asks the question as it came.
    """

    steps: tuple[str, ...]
    roles: tuple[str, ...] | None = None
    prompt: Prompt | str = "relay@1"

    def __post_init__(self) -> None:
        prompts.check(self.prompt, "question", "role", "earlier")
        if not self.steps:
            raise ValueError("a relay needs at least one step")
        if self.roles is not None and len(self.roles) != len(self.steps):
            raise ValueError(f"{len(self.steps)} steps need as many roles, not {len(self.roles)}")

    def run(self, query: Query) -> Steps:
        """Ask one after the other."""
        latest: Outcome | None = None
        outcome = Outcome(error=Failure(kind="internal", message="a relay needs at least one step"))
        for i in range(len(self.steps)):
            last = i == len(self.steps) - 1
            call = self._call(query, i, "" if latest is None else latest.text)
            try:
                (outcome,) = yield Do(branches=(call,), final=last)
            except LimitReached:
                if latest is None:
                    raise
                return latest
            if outcome.streamed or final_failure(outcome):
                break
            latest = outcome if outcome.ok else latest
        return outcome if outcome.ok or outcome.streamed else latest or outcome

    def targets(self) -> tuple[str, ...]:
        """The steps' targets."""
        return targets_of(*self.steps)

    @classmethod
    def example(cls) -> Relay:
        """Two targets, of which one has the last word on its own notes."""
        return cls(steps=("a", "b", "a"), roles=("collect", "analyse", "solve"))

    def _call(self, query: Query, i: int, earlier: str) -> Call:
        target, last = self.steps[i], i == len(self.steps) - 1
        if len(self.steps) == 1 and self.roles is None:
            return Call(target=target)
        return prompts.ask(
            target,
            self.prompt,
            query,
            purpose="answer",
            alone=not last,
            sample=self.steps[:i].count(target),
            role=self.roles[i] if self.roles else "bring the answer further",
            earlier=earlier.strip(),
        )
