"""The plan `relay`: who sees what, failures at each step, limits."""

from __future__ import annotations

import pytest

from fairlead.errors import LimitReached
from fairlead.plans.base import decode, to_data
from fairlead.plans.relay import Relay
from fairlead.testing import check_plan
from fairlead.types import Call, Failure, FailureKind, Outcome, Path, Query
from fairlead.worlds.replay import LookUp, replay

QUERY = Query.ask("What is {role} 2 + 2?", id="q")
CHAIN = Relay(steps=("a", "b", "c"), roles=("collect", "analyse", "solve"))


class Shown(LookUp):
    """Each target says its name; keeps the calls."""

    def __init__(self, failed: dict[str, FailureKind] | None = None) -> None:
        self.failed = failed or {}
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: Path) -> Outcome:
        self.calls.append(call)
        kind = self.failed.get(call.target)
        error = None if kind is None else Failure(kind=kind)
        return Outcome(text="" if error else f"from {call.target}", target=call.target, error=error)


def text(call: Call) -> str:
    assert call.messages is not None
    return call.messages[-1].text


def test_it_keeps_what_every_plan_keeps() -> None:
    check_plan(Relay.example)
    check_plan(lambda: Relay(steps=("a",)))
    assert decode(to_data(CHAIN)) == CHAIN


def test_each_sees_the_question_its_role_and_the_output_before_it() -> None:
    world = Shown()
    run = replay(CHAIN, QUERY, world)
    assert (run.outcome.text, run.outcome.target) == ("from c", "c")
    assert [c.target for c in world.calls] == ["a", "b", "c"]
    for call, role in zip(world.calls, ("collect", "analyse", "solve"), strict=True):
        assert QUERY.text in text(call)
        assert f"Your part: {role}." in text(call)
        assert call.prompt == "relay@1"
    assert "from a" not in text(world.calls[0])
    assert "from a" in text(world.calls[1])
    assert "from a" not in text(world.calls[2])
    assert "from b" in text(world.calls[2])
    assert [c.alone for c in world.calls] == [True, True, False]


def test_a_single_step_without_a_role_asks_the_question_as_it_came() -> None:
    world = Shown()
    replay(Relay(steps=("a",)), QUERY, world)
    assert world.calls == [Call(target="a")]


def test_calls_of_one_target_are_told_apart() -> None:
    world = Shown()
    replay(Relay(steps=("a", "a", "b", "a")), QUERY, world)
    assert [c.sample for c in world.calls] == [0, 1, 0, 2]


@pytest.mark.parametrize(("broken", "answer"), [("a", "from c"), ("b", "from c"), ("c", "from b")])
def test_a_step_that_fails_is_passed_over(broken: str, answer: str) -> None:
    world = Shown({broken: "unavailable"})
    assert replay(CHAIN, QUERY, world).outcome.text == answer
    if broken == "b":
        assert "from a" in text(world.calls[2])


def test_a_request_at_fault_stops_it() -> None:
    world = Shown({"a": "bad_request"})
    outcome = replay(CHAIN, QUERY, world).outcome
    assert outcome.error is not None
    assert outcome.error.kind == "bad_request"
    assert len(world.calls) == 1


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_limit_leaves_the_latest_output(done: int) -> None:
    steps = CHAIN.run(QUERY)
    next(steps)
    for i in range(done):
        steps.send((Outcome(text=f"output {i}"),))
    reached = LimitReached("calls")
    if not done:
        with pytest.raises(LimitReached):
            steps.throw(reached)
        return
    with pytest.raises(StopIteration) as stop:
        steps.throw(reached)
    assert stop.value.value.text == f"output {done - 1}"


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Relay(steps=())
    with pytest.raises(ValueError, match="as many roles"):
        Relay(steps=("a",), roles=("x", "y"))
