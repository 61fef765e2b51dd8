"""What breaks beneath a plan ends that plan, with a failure that is kept, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.targets.scripted import Scripted
from fairlead.types import Outcome, Query
from fairlead.worlds.lateness import Lateness
from fairlead.worlds.live import Live


class Broken(Lateness):
    """A book of latencies that breaks over one target."""

    def note(self, outcome: Outcome) -> None:
        if outcome.target == "a":
            raise RuntimeError("a defect")
        super().note(outcome)


def world() -> Live:
    return Live(drivers={name: Scripted(name=name, replies=[name]) for name in "ab"}, lateness=Broken())


async def test_a_single_call_that_breaks_is_a_failure_with_its_step(caplog: Any) -> None:
    run = await world().run(Single(target="a"), Query.ask("hi"))
    assert run.outcome.error is not None
    assert run.outcome.error.kind == "internal"
    assert "RuntimeError" in run.outcome.error.message
    assert [s.outcome.target for s in run.steps] == ["a"]
    assert "plan Single broke" in caplog.text


@pytest.mark.parametrize("first", [Single(target="a"), Fallback(plans=(Single(target="a"),))])
async def test_another_plan_takes_over_from_one_that_breaks(first: Any) -> None:
    run = await world().run(Fallback(plans=(first, Single(target="b"))), Query.ask("hi"))
    assert (run.outcome.target, run.outcome.text) == ("b", "b")
    assert [s.outcome.target for s in run.steps] == ["a", "b"]
