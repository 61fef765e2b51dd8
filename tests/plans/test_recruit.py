"""The plan `recruit`: draws, pruning, votes, the aggregator and its fallbacks, limits, failures, choosing an aggregator."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.gates import said
from fairlead.plans.recruit import Item, Recruit, choose_aggregator, drawn, pruned, shares
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Failure, Forecast, Limits, Outcome, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")
EXPERTS = ("ant", "bee", "cat")
PLAN = Recruit(gate="gate", experts=EXPERTS)
WHOLE = msgspec.structs.replace(PLAN, aggregator="boss")


def told(*quality: float, names: tuple[str, ...] = EXPERTS) -> dict[str, Forecast]:
    return {name: Forecast(quality=q) for name, q in zip(names, quality, strict=False)}


def failed(kind: Any = "unavailable", **more: Any) -> Outcome:
    return Outcome(error=Failure(kind=kind), **more)


class World(LookUp):
    """Says what it is told to, by target; an expert says its own name otherwise."""

    def __init__(self, gate: Outcome | Mapping[str, Forecast], **by_target: Outcome | str) -> None:
        gate_says = gate if isinstance(gate, Outcome) else said(dict(gate))
        self.told: dict[str, Outcome | str] = {"gate": gate_says, "boss": "all", **by_target}
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        found = self.told.get(call.target, call.target)
        outcome = Outcome(text=found) if isinstance(found, str) else found
        return msgspec.structs.replace(outcome, target=call.target, usd=1.0, seconds=1.0)

    @property
    def asked(self) -> list[str]:
        return [c.target for c in self.calls if c.purpose == "answer"]


def run(world: World, plan: Recruit = PLAN, query: Query = QUERY, **more: Any) -> Run:
    done = replay(plan, query, world, **more)
    assert comparable(replay(plan, query, Recorded(done.steps))) == comparable(done)
    return done


# --------------------------------------------------------------------------------------------------------- the draws


def test_shares_follow_the_forecasts_above_the_floor() -> None:
    assert shares(told(0.5, 0.7, 0.9), EXPERTS) == pytest.approx({"ant": 0.0, "bee": 0.2, "cat": 0.8})
    assert shares(told(0.5, 0.7, 0.9), EXPERTS, power=1.0) == pytest.approx({"ant": 0.0, "bee": 1 / 3, "cat": 2 / 3})
    assert shares(told(0.1, 0.2, 0.2), EXPERTS, floor=0.0, power=1.0) == pytest.approx(
        {"ant": 0.2, "bee": 0.4, "cat": 0.4}
    )
    assert shares(told(0.5, 0.7), EXPERTS) == pytest.approx({"ant": 0.0, "bee": 1.0, "cat": 0.0})


@pytest.mark.parametrize("said", [{}, told(0.5, 0.5, 0.5), told(0.9, names=("dog",)), told(0.4)])
def test_a_gate_that_says_nothing_that_tells_them_apart_recruits_uniformly(said: dict[str, Forecast]) -> None:
    assert shares(said, EXPERTS) == pytest.approx(dict.fromkeys(EXPERTS, 1 / 3))


def test_all_at_or_below_the_floor_still_give_a_distribution() -> None:
    assert shares(told(0.1, 0.2, 0.3), EXPERTS, floor=0.5) == pytest.approx(dict.fromkeys(EXPERTS, 1 / 3))


def test_draw_frequencies_converge_to_the_weights() -> None:
    by = {"ant": 0.1, "bee": 0.3, "cat": 0.6}
    found = Counter(name for i in range(2000) for name in drawn(by, f"q{i}"))
    assert sum(found.values()) == 6000
    assert chisquare([found[n] for n in EXPERTS], [600, 1800, 3600]).pvalue > 0.001
    pairs = Counter(drawn(by, f"q{i}", k=2) for i in range(4000))
    expected = {(a, b): 4000 * by[a] * by[b] for a in EXPERTS for b in EXPERTS}
    assert chisquare([pairs[p] for p in expected], list(expected.values())).pvalue > 0.001


def test_an_expert_of_weight_0_is_never_drawn() -> None:
    by = {"ant": 0.0, "bee": 0.5, "cat": 0.5}
    assert {name for i in range(2000) for name in drawn(by, f"q{i}")} == {"bee", "cat"}


def test_an_expert_that_dominates_is_drawn_most() -> None:
    found = Counter(name for i in range(500) for name in drawn(shares(told(0.9, 0.5, 0.4), EXPERTS), f"q{i}"))
    assert found["ant"] > 0.9 * sum(found.values())
    assert found["cat"] == 0


def test_draws_depend_on_the_id_and_the_salt_and_not_on_the_order_of_experts() -> None:
    by = {"ant": 0.2, "bee": 0.3, "cat": 0.5}
    assert drawn(by, "q") == drawn(dict(reversed(by.items())), "q") == drawn(by, "q")
    assert len({drawn(by, f"q{i}") for i in range(50)}) > 5
    assert any(drawn(by, f"q{i}") != drawn(by, f"q{i}", salt="other") for i in range(10))
    assert drawn(by, "\ud800", k=5)[:3] == drawn(by, "\ud800")


# ----------------------------------------------------------------------------------------------------------- pruning


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.floats(0.0, 1e3), min_size=1, max_size=60))
def test_after_pruning_no_expert_has_less_than_5_percent_of_draws(given: dict[str, float]) -> None:
    if not any(given.values()):
        with pytest.raises(ValueError, match="at least one is positive"):
            pruned(given)
        return
    left = pruned(given)
    assert sum(left.values()) == pytest.approx(1.0)
    assert len(left) == 1 or min(left.values()) >= 0.05 - 1e-9
    assert pruned(left) == pytest.approx(left)
    # Nobody who stays was drawn less often than one who goes.
    gone = [given[n] for n in given if n not in left]
    assert max(gone, default=0.0) <= min(given[n] for n in left)


def test_pruned_draws_go_to_the_frequent_ones_in_proportion() -> None:
    assert pruned({"ant": 0.6, "bee": 0.36, "cat": 0.04}) == pytest.approx({"ant": 0.625, "bee": 0.375})
    assert pruned({"ant": 1.0}) == {"ant": 1.0}
    assert list(pruned({f"e{i:02}": 1.0 for i in range(40)})) == [f"e{i:02}" for i in range(20)]


# ---------------------------------------------------------------------------------------------------------- the plan


def test_it_keeps_what_every_plan_keeps() -> None:
    check_plan(lambda: PLAN)
    check_plan(lambda: WHOLE)
    check_plan(lambda: msgspec.structs.replace(PLAN, k=1))


def test_an_expert_drawn_twice_answers_twice() -> None:
    world = World(told(0.9, 0.1, 0.1))
    done = run(world)
    assert world.asked == ["ant", "ant", "ant"]
    assert [c.sample for c in world.calls[1:]] == [0, 1, 2]
    assert [c.params for c in world.calls[1:]] == [{}, {"temperature": 0.7}, {"temperature": 0.7}]
    assert (done.outcome.text, done.outcome.confidence, done.outcome.target) == ("ant", 1.0, "ant")


def spread(plan: Recruit, gate: dict[str, Forecast]) -> Query:
    """Find a query for which three different experts are drawn."""
    for i in range(1000):
        team = drawn(shares(gate, plan.experts, floor=plan.floor), f"q{i}")
        if len(set(team)) == 3:
            return Query.ask("?", id=f"q{i}")
    raise AssertionError


def test_votes_weigh_as_much_as_the_forecast() -> None:
    plan, gate = msgspec.structs.replace(PLAN, floor=0.0), told(0.9, 0.4, 0.3)
    query = spread(plan, gate)
    done = run(World(gate, ant="4", bee="5", cat="5"), plan, query)
    assert done.outcome.text == "4"
    assert done.outcome.confidence == pytest.approx(0.9 / 1.6)
    gate = told(0.5, 0.4, 0.3)
    done = run(World(gate, ant="4", bee="5", cat="5"), plan, spread(plan, gate))
    assert done.outcome.text == "5"
    assert done.outcome.confidence == pytest.approx(0.7 / 1.2)


@pytest.mark.parametrize("gate", [failed(), failed("bad_request"), Outcome(text="}{"), Outcome(text="")])
def test_without_a_gate_experts_are_uniform(gate: Outcome) -> None:
    team = []
    for i in range(300):
        world = World(gate)
        assert run(world, query=Query.ask("?", id=f"q{i}")).outcome.ok
        team += world.asked
    assert min(Counter(team)[n] for n in EXPERTS) > 240


def test_the_aggregator_reads_what_stands_after_the_end_of_thinking() -> None:
    gate = told(0.9, 0.4, 0.3)
    plan = msgspec.structs.replace(WHOLE, floor=0.0)
    query = spread(plan, gate)
    world = World(gate, ant="<think>secret</think>four", bee="<think>a</think>b</think>five", cat="four", boss="four")
    done = run(world, plan, query)
    call = world.calls[-1]
    assert (call.target, call.purpose, call.prompt, call.alone) == ("boss", "merge", "aggregate@1", False)
    (message,) = call.messages or ()
    assert all(f"<<<\n{text}\n>>>" in message.text for text in ("four", "five"))
    assert "think" not in message.text.replace("Chains of thought", "")
    assert "secret" not in message.text
    assert (done.outcome.text, done.outcome.target) == ("four", "boss")
    assert done.outcome.confidence == pytest.approx(1.2 / 1.6)


def test_the_cut_text_is_the_answer_of_a_vote() -> None:
    done = run(World(told(0.9, 0.1), ant=Outcome(text="<think>x</think>4", reply=b"raw")))
    assert (done.outcome.text, done.outcome.reply) == ("4", b"")


@pytest.mark.parametrize("boss", [failed(), failed("bad_request"), Outcome(text=" ")])
def test_an_aggregator_that_fails_leaves_the_vote(boss: Outcome) -> None:
    done = run(World(told(0.9, 0.1), boss=boss), WHOLE)
    assert (done.outcome.text, done.outcome.confidence) == ("ant", 1.0)


def test_an_aggregator_that_says_something_else_has_nobody_behind_it() -> None:
    assert run(World(told(0.9, 0.1), boss="seven"), WHOLE).outcome.confidence == 0.0


def test_experts_that_fail_cast_no_vote_and_if_all_do_it_fails() -> None:
    plan, gate = msgspec.structs.replace(WHOLE, floor=0.0), told(0.9, 0.4, 0.3)
    query = spread(plan, gate)
    world = World(gate, ant=failed(), bee=failed("bad_request"))
    done = run(world, plan, query)
    assert (done.outcome.text, world.calls[-1].purpose) == ("cat", "answer")  # one chain: nothing to aggregate
    assert done.outcome.confidence == pytest.approx(0.3 / 1.6)
    done = run(World(gate, ant=failed(), bee=failed("bad_request"), cat=failed()), plan, query)
    assert done.outcome.error is not None
    assert done.outcome.error.kind == "bad_request"


def test_an_expert_that_calls_tools_is_not_aggregated() -> None:
    world = World(told(0.9, 0.1), ant=Outcome(text="", tool_calls=msgspec.Raw(b"[]")))
    assert run(world, WHOLE).outcome.tool_calls is not None
    assert "boss" not in [c.target for c in world.calls]


@pytest.mark.parametrize("calls", range(1, 6))
def test_limits_leave_the_best_so_far(calls: int) -> None:
    done = run(World(told(0.9, 0.1)), WHOLE, limits=Limits(calls=calls))
    assert done.outcome.ok
    assert done.outcome.text == ("all" if calls >= 4 else "ant")
    assert done.outcome.limited == ("" if calls >= 4 else "budget")
    assert run(World(told(0.9, 0.1)), WHOLE, limits=Limits(usd=0.5), estimate=lambda c, q: 1.0).outcome.error


@pytest.mark.parametrize(
    "wrong",
    [
        {"experts": ()},
        {"experts": ("a", "a")},
        {"k": 0},
        {"power": -1.0},
        {"temperature": -1.0},
        {"answers": "none"},
        {"prompt": "judge@9"},
        {"prompt": "verify@1"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        decode({"kind": "recruit", "gate": "g", "experts": ["a", "b"], **wrong})


def test_written_and_read_back_it_is_the_same() -> None:
    assert decode(to_data(WHOLE)) == WHOLE
    assert WHOLE.targets() == ("gate", "ant", "bee", "cat", "boss")


# ------------------------------------------------------------------------------------------------------ the aggregator


ITEMS = [
    Item(
        query=Query.ask(f"{i} + 1?", id=f"i{i}"),
        answer=str(i + 1),
        right=f"it is {i + 1}",
        wrong=("it is 90", "it is 91"),
    )
    for i in range(40)
]


def test_the_aggregator_is_who_tells_right_from_wrong_best() -> None:
    places = Counter[int]()

    def ask(call: Call, query: Query) -> Outcome:
        (message,) = call.messages or ()
        chains = [block.split("\n>>>")[0] for block in message.text.split("<<<\n")[1:]]
        assert len(chains) == 3
        right = str(int(query.text.split(" ", maxsplit=1)[0]) + 1)
        places[chains.index(f"it is {right}")] += call.target == "able"
        if call.target == "down":
            return failed()
        return Outcome(text=right if call.target == "able" else chains[0].removeprefix("it is "))

    found = choose_aggregator(["first", "down", "able"], ITEMS, ask)
    assert list(found) == ["able", "first", "down"]
    assert (found["able"], found["down"]) == (1.0, 0.0)
    assert 0.1 < found["first"] < 0.6  # chains are shuffled: the first is right as often as chance has it
    assert len(places) == 3
    with pytest.raises(ValueError, match="at least one"):
        choose_aggregator(["able"], [], ask)
