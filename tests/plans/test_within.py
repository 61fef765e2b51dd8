"""The plan `within`: limits of its own, inside those around it, never exceeded side by side, and told of in the answer."""

from typing import Any

import pytest

from fairlead.errors import ConfigError
from fairlead.plans.accept import MeanLogprob
from fairlead.plans.base import decode, to_data
from fairlead.plans.cascade import Cascade
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.plans.within import Within
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Limits, Outcome, Path, Plan, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")


class Table(LookUp):
    """Each target says its name, for a dollar and a second."""

    def outcome(self, call: Call, path: Path) -> Outcome:
        return Outcome(text=call.target, target=call.target, usd=1.0, seconds=1.0)


def run(plan: Plan, **limits: float) -> Run:
    found = replay(plan, QUERY, Table(), limits=Limits(**limits), estimate=lambda call, query: 1.0)
    assert comparable(replay(plan, QUERY, Recorded(found.steps))) == comparable(found)
    return found


def singles(names: str) -> tuple[Single, ...]:
    return tuple(Single(target=n) for n in names)


CASCADE = Cascade(steps=singles("abc"), accept=MeanLogprob(above=-0.5))


@pytest.mark.parametrize(
    ("limits", "text", "limited"),
    [
        ({"calls": 1}, "a", "budget"),
        ({"calls": 2}, "b", "budget"),
        ({"calls": 3}, "c", ""),
        ({"usd": 2.5}, "b", "budget"),
        ({"seconds": 1.5}, "a", "deadline"),
        ({"seconds": 9, "usd": 3.0, "calls": 9}, "c", ""),
        ({"seconds": 9, "usd": 1.0}, "a", "budget"),
    ],
)
def test_the_plan_inside_gives_its_best_so_far_and_says_that_it_was_limited(
    limits: dict[str, float], text: str, limited: str
) -> None:
    found = run(Within(plan=CASCADE, **limits))  # type: ignore[arg-type]
    assert (found.outcome.text, found.outcome.limited) == (text, limited)


def test_limits_are_for_this_part_alone() -> None:
    plan = Vote(members=(Within(plan=CASCADE, calls=1), *singles("xyz")))
    found = run(plan)
    assert [s.call.target for s in found.steps if s.call] == ["a", "x", "y", "z"]


def test_the_limits_around_it_hold_too() -> None:
    plan = Within(plan=CASCADE, calls=9, usd=9.0)
    assert run(plan, calls=1).outcome.text == "a"
    assert (run(plan, usd=2.0).usd or 0.0) <= 2.0
    nested = Within(plan=Within(plan=CASCADE, calls=9), calls=2)
    assert run(nested).outcome.text == "b"


def test_calls_side_by_side_cannot_overspend_together() -> None:
    found = run(Within(plan=Vote(members=singles("abcd")), usd=2.0))
    assert found.usd == 2.0
    assert found.outcome.limited == "budget"


def test_without_an_answer_the_limit_is_the_failure_and_another_may_take_over() -> None:
    broke = Within(plan=Single(target="a"), usd=0.5)
    found = run(broke)
    assert found.outcome.error is not None
    assert (found.outcome.error.kind, found.usd) == ("budget", 0.0)
    rescued = run(Fallback(plans=(broke, Single(target="b"))))
    assert rescued.outcome.text == "b"


def test_a_time_limit_of_its_own_leaves_time_for_another() -> None:
    late = Within(plan=Single(target="a"), seconds=0.5)
    plan = Fallback(plans=(late, Single(target="b")))
    assert run(plan).outcome.text == "b"
    over = run(plan, seconds=0.25)
    assert over.outcome.error is not None
    assert [s.call.target for s in over.steps if s.call] == ["a"], "the whole time is up: nobody else is asked"


def test_it_is_data() -> None:
    plan = decode({"kind": "within", "plan": "a", "usd": 0.01, "seconds": 2})
    assert plan == Within(plan=Single(target="a"), usd=0.01, seconds=2.0)
    assert decode(to_data(plan)) == plan
    assert plan.targets() == ("a",)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "say what the plan may take"),
        ({"call": 1}, "call"),
        ({"usd": "much"}, "usd"),
        ({"usd": float("nan")}, "above 0"),
        ({"calls": 0}, "above 0"),
        ({"seconds": -5}, "above 0"),
        ({"usd": -1}, "above 0"),
    ],
)
def test_wrong_plans_are_config_errors(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        decode({"kind": "within", "plan": "a", **wrong})


@pytest.mark.parametrize("limits", [{"calls": 10}, {"usd": 1.0}, {"seconds": 100.0}])
def test_contract(limits: dict[str, Any]) -> None:
    check_plan(lambda: Within(plan=CASCADE, **limits))
