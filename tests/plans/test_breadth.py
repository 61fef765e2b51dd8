"""The plan `breadth`: the number of calls, dealing, references and what is cut of them, limits, failures."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.breadth import Breadth
from fairlead.plans.prompts import Prompt
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Failure, Limits, Outcome, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")
PLAN = Breadth(members=("a", "b"), breadth=(3, 2), merger="m")


def failed(kind: Any = "unavailable") -> Outcome:
    return Outcome(error=Failure(kind=kind))


class World(LookUp):
    """Replies as dictated; by default each with its target, its round and its draw."""

    def __init__(self, says: Callable[[Call, int], Outcome | str] | None = None) -> None:
        self.says = says or (lambda call, step: f"{call.target} {step} {call.sample}")
        self.calls: list[Call] = []
        self.steps: list[int] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        self.steps.append(path[0])
        found = self.says(call, path[0])
        outcome = Outcome(text=found) if isinstance(found, str) else found
        return msgspec.structs.replace(outcome, target=call.target, usd=1.0, seconds=1.0)

    def prompt(self, i: int) -> str:
        messages = self.calls[i].messages
        return "" if messages is None else messages[-1].text


def run(world: World, plan: Breadth = PLAN, **more: Any) -> Run:
    done = replay(plan, QUERY, world, **more)
    assert comparable(replay(plan, QUERY, Recorded(done.steps))) == comparable(done)
    return done


# --------------------------------------------------------------------------------------------------------- the calls


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.lists(st.floats(0.0, 9.0), min_size=1, max_size=4),
    st.sampled_from(["equal", "weighted", "first_only"]),
    st.floats(0.0, 1.0),
)
@settings(deadline=None, max_examples=60)
def test_it_makes_sum_plus_one_calls(
    breadth: list[int], weights: list[float], distribution: Any, failing: float
) -> None:
    """Whatever comes back, as long as the request is not at fault."""
    weights = [w + 0.1 for w in weights]
    plan = Breadth(
        members=tuple(f"m{i}" for i in range(len(weights))),
        breadth=tuple(breadth),
        distribution=distribution,
        weights=tuple(weights) if distribution == "weighted" else None,
    )

    def says(call: Call, step: int) -> Outcome | str:
        return failed() if Random(f"{call.target} {step} {call.sample}").random() < failing else "x"

    world = World(says)
    run(world, plan)
    assert len(world.calls) == sum(breadth) + 1
    assert list(Counter(world.steps).values()) == [*breadth, 1]


@pytest.mark.parametrize(
    ("more", "many", "dealt"),
    [
        ({}, 4, (2, 1, 1)),
        ({}, 5, (2, 2, 1)),
        ({}, 2, (1, 1, 0)),
        ({"distribution": "first_only"}, 4, (4, 0, 0)),
        ({"distribution": "weighted", "weights": (2.0, 1.0, 1.0)}, 4, (2, 1, 1)),
        ({"distribution": "weighted", "weights": (0.5, 0.3, 0.2)}, 3, (1, 1, 1)),
        ({"distribution": "weighted", "weights": (0.6, 0.4, 0.0)}, 10, (6, 4, 0)),
        ({"distribution": "weighted", "weights": (0.1, 0.1, 0.8)}, 1, (0, 0, 1)),
    ],
)
def test_draws_are_dealt(more: dict[str, Any], many: int, dealt: tuple[int, ...]) -> None:
    assert Breadth(members=("a", "b", "c"), breadth=(many,), **more).dealt(many) == dealt


@given(st.integers(1, 40), st.lists(st.floats(0.0, 1e6), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3))
def test_dealing_follows_the_weights(many: int, weights: list[float]) -> None:
    plan = Breadth(
        members=tuple(map(str, range(len(weights)))), breadth=(many,), distribution="weighted", weights=tuple(weights)
    )
    dealt = plan.dealt(many)
    assert sum(dealt) == many
    assert all(abs(d - many * w / sum(weights)) <= 1.0 for d, w in zip(dealt, weights, strict=True))


def test_how_it_asks() -> None:
    world = World()
    done = run(world)
    assert [c.target for c in world.calls] == ["a", "a", "b", "a", "b", "m"]
    assert [c.sample for c in world.calls] == [0, 1, 0, 2, 1, 0], "no two draws of a target are the same one"
    assert [c.params.get("temperature") for c in world.calls] == [1.0] * 5 + [None]
    assert [c.purpose for c in world.calls] == ["answer"] * 5 + ["merge"]
    assert [c.prompt for c in world.calls] == [""] * 3 + ["references@1"] * 3
    assert not any(c.alone for c in world.calls)
    assert (done.outcome.text, done.outcome.target, done.usd) == ("m 2 0", "m", 6.0)


def test_only_the_last_answer_is_streamed() -> None:
    steps, seen = PLAN.run(QUERY), []
    do = next(steps)
    for _ in range(3):
        seen.append((len(do.branches), do.final))
        try:
            do = steps.send((Outcome(text="4"),) * len(do.branches))
        except StopIteration:
            break
    assert seen == [(3, False), (2, False), (1, True)]


def test_each_round_sees_the_one_before() -> None:
    world = World()
    run(world)
    assert [world.prompt(i) for i in range(3)] == [""] * 3
    for i in (3, 4):
        assert "What is 2 + 2?" in world.prompt(i)
        assert "[1]\n<<<\na 0 0\n>>>\n\n[2]\n<<<\na 0 1\n>>>\n\n[3]\n<<<\nb 0 0\n>>>" in world.prompt(i)
    assert "[1]\n<<<\na 1 2\n>>>\n\n[2]\n<<<\nb 1 1\n>>>" in world.prompt(5)
    assert "a 0 0" not in world.prompt(5)


def test_without_a_merger_the_first_member_answers() -> None:
    world = World()
    assert run(world, msgspec.structs.replace(PLAN, merger=None)).outcome.target == "a"
    assert world.calls[-1].sample == 3


def test_references_are_cut_to_their_last_tokens() -> None:
    text = "begin " + "x" * 40 + " end"
    world = World(lambda call, step: text)
    run(world, msgspec.structs.replace(PLAN, kept_tokens=2))
    assert "<<<\n… xxxx end\n>>>" in world.prompt(3)
    world = World(lambda call, step: text)
    run(world)
    assert f"<<<\n{text}\n>>>" in world.prompt(3)
    world = World(lambda call, step: "12345678")
    run(world, msgspec.structs.replace(PLAN, kept_tokens=2))
    assert "<<<\n12345678\n>>>" in world.prompt(3), "what fits is not cut"


# ----------------------------------------------------------------------------------------------- failures and limits


def test_failed_and_empty_answers_are_no_references() -> None:
    replies = {0: failed(), 1: "  "}
    world = World(lambda call, step: replies.get(call.sample, "four") if call.target == "a" and not step else "five")
    run(world)
    assert "[1]\n<<<\nfive\n>>>" in world.prompt(3)
    assert "[2]" not in world.prompt(3)


def test_a_round_that_brings_nothing_shows_the_one_before_again() -> None:
    world = World(lambda call, step: failed() if step == 1 else f"{call.target} {step}")
    assert run(world).outcome.text == "m 2"
    assert "a 0" in world.prompt(5)


def test_without_any_references_the_plain_question_is_asked() -> None:
    world = World(lambda call, step: "four" if step == 2 else failed())
    assert run(world).outcome.text == "four"
    assert (world.calls[-1].messages, world.calls[-1].purpose) == (None, "answer")
    error = run(World(lambda call, step: failed("timeout" if step == 2 else "unavailable"))).outcome.error
    assert error is not None
    assert error.kind == "timeout"


def test_if_the_last_call_fails_the_majority_of_the_latest_round_stands() -> None:
    plan = msgspec.structs.replace(PLAN, breadth=(4, 3), answers="number")
    texts = ["5", "it is 4", "4"]

    def says(call: Call, step: int) -> Outcome | str:
        if step == 2:
            return failed()
        return "9" if step == 0 else texts[{"a": call.sample - 2, "b": 2}[call.target]]

    done = run(World(says), plan)
    assert (done.outcome.text, done.outcome.confidence) == ("it is 4", pytest.approx(2 / 3))


def test_a_broken_stream_is_not_replaced() -> None:
    broken = Outcome(streamed=True, error=Failure(kind="broken_stream"))
    assert run(World(lambda call, step: broken if step == 2 else "4")).outcome.error == broken.error


def test_a_bad_request_is_not_asked_again() -> None:
    world = World(lambda call, step: failed("bad_request"))
    error = run(world).outcome.error
    assert error is not None
    assert error.kind == "bad_request"
    assert len(world.calls) == 3
    world = World(lambda call, step: failed("bad_request") if step else "four")
    assert run(world).outcome.text == "four"
    assert len(world.calls) == 5
    world = World(lambda call, step: failed("bad_request") if call.target == "a" else "four")
    assert run(world).outcome.ok, "one member that cannot take it is no fault of the request"


@pytest.mark.parametrize("calls", range(1, 7))
def test_a_limit_leaves_the_best_answer_so_far(calls: int) -> None:
    done = run(World(lambda call, step: f"{step}"), limits=Limits(calls=calls))
    assert done.outcome.text == {1: "0", 2: "0", 3: "0", 4: "1", 5: "1", 6: "2"}[calls]
    assert done.outcome.limited == ("" if calls == 6 else "budget")


def test_the_budget_is_kept() -> None:
    for usd in (0.5, 1.0, 2.5, 4.0, 6.0):
        done = run(World(), limits=Limits(usd=usd), estimate=lambda call, query: 1.0)
        assert (done.usd or 0.0) <= usd
        assert done.outcome.ok == (usd >= 1.0)


# ------------------------------------------------------------------------------------------------------------ as data


def test_the_family_check() -> None:
    check_plan(Breadth.example)
    check_plan(lambda: msgspec.structs.replace(PLAN, distribution="weighted", weights=(1.0, 2.0), kept_tokens=1))


def test_written_and_read_back() -> None:
    mine = Prompt(name="mine", text="{question} {references}")
    plan = msgspec.structs.replace(PLAN, prompt=mine, kept_tokens=5)
    assert decode(to_data(plan)) == plan
    assert PLAN.targets() == ("a", "b", "m")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"members": []}, "at least one member"),
        ({"breadth": []}, "at least one round"),
        ({"breadth": [2, 0]}, "at least 1"),
        ({"kept_tokens": 0}, "kept_tokens"),
        ({"weights": [1.0, 1.0]}, "weighted"),
        ({"distribution": "weighted"}, "weighted"),
        ({"distribution": "weighted", "weights": [1.0]}, "as many"),
        ({"distribution": "weighted", "weights": [0.0, 0.0]}, "not all zero"),
        ({"distribution": "weighted", "weights": [2.0, -1.0]}, "negative"),
        ({"distribution": "by luck"}, "luck"),
        ({"answers": "runes"}, "runes"),
        ({"prompt": {"name": "p", "text": "{answers}"}}, "answers"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "breadth", "members": ["a", "b"], "breadth": [2], **wrong})


def test_a_draw_that_calls_tools_is_the_answer() -> None:
    called = Outcome(tool_calls=msgspec.Raw(b'[{"id": "1"}]'))
    world = World(lambda call, step: called if call.target == "b" else "4")
    assert run(world).outcome.tool_calls == called.tool_calls
    assert len(world.calls) == 3
