"""Run any plan, with every call of it asking for more. What tests of answers need and plans do not ask for by themselves. Ours, no paper.

It drives the plan's own generator and rewrites what that yields, so it works for every kind of plan, nested ones included. Not in the
catalogue: `accept.py` makes it while a cascade runs, and a cascade is written down without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fairlead.errors import LimitReached
from fairlead.types import Call, Do, Plan, Query, Steps


class Asking(Struct, Plan, frozen=True, kw_only=True):
    """Run `plan`; each call has `params` set in its request, but for those that it sets itself."""

    plan: Plan
    params: dict[str, Any]

    def run(self, query: Query) -> Steps:
        """Pass on what the plan wants done, and to the plan whatever comes back."""
        return driven(self.plan, query, self._asked)

    def targets(self) -> tuple[str, ...]:
        """Targets of the plan."""
        return self.plan.targets()

    def _asked(self, branch: Call | Plan) -> Call | Plan:
        if isinstance(branch, Call):
            return replace(branch, params={**self.params, **branch.params})
        return Asking(plan=branch, params=self.params)


def driven(plan: Plan, query: Query, rewrite: Callable[[Call | Plan], Call | Plan]) -> Steps:
    """Run `plan` on `query` with each branch that it wants rewritten; limits reach it as if it ran by itself."""
    steps = plan.run(query)
    go: Callable[[], Do] = partial(next, steps)
    try:
        while True:
            do = go()
            try:
                outcomes = yield replace(do, branches=tuple(map(rewrite, do.branches)))
            except LimitReached as reached:
                go = partial(steps.throw, reached)
            else:
                go = partial(steps.send, outcomes)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()
