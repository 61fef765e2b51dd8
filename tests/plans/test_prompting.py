"""The plans `prompting` and `intention`: labels, what reaches the classifier, calls and tokens, and what the route is worth."""

import itertools
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.bench.metrics import cost_of_pass, pass_at, routing_pays_from
from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.gates import said
from fairlead.plans.intention import Intention
from fairlead.plans.prompting import Prompting, label
from fairlead.plans.single import Single
from fairlead.targets import wire
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Failure, Forecast, Limits, Outcome, Plan, Query, Tokens
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("Write a function that adds two numbers.", id="q", metadata={"code": "def add(a, b): return a + b"})
PLAN = Prompting(classifier="classifier", easy=Single(target="direct"), hard=Intention(target="careful"))


def failed(kind: Any = "unavailable", **more: Any) -> Outcome:
    return Outcome(error=Failure(kind=kind), **more)


class World(LookUp):
    """A classifier and two ways to answer; the careful one writes an intention first."""

    def __init__(
        self, told: Outcome | str, *, intention: Outcome | str = "add them", **by_target: Outcome | str
    ) -> None:
        self.told = {"classifier": told, "gate": told, **by_target}
        self.intention = intention
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        found = self.told.get(call.target, call.target)
        if call.prompt == "intention@1":
            found = self.intention
        outcome = Outcome(text=found) if isinstance(found, str) else found
        tokens = {"classifier": 60, "gate": 0, "direct": 100}.get(call.target, 200)
        counted = Tokens(input=10, output=tokens)
        return msgspec.structs.replace(outcome, target=call.target, usd=tokens / 100, tokens=counted, seconds=1.0)

    @property
    def asked(self) -> list[str]:
        return [c.target for c in self.calls if c.target not in ("classifier", "gate")]


def run(world: World, plan: Plan = PLAN, query: Query = QUERY, **more: Any) -> Run:
    done = replay(plan, query, world, **more)
    assert comparable(replay(plan, query, Recorded(done.steps))) == comparable(done)
    return done


# -------------------------------------------------------------------------------------------------------- the parser


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Easy: plain", "easy"),
        ("Medium: some cases", "medium"),
        ("Hard: careful", "hard"),
        ("easy: plain", "easy"),
        ("EASY: plain", "easy"),
        ("  \n Easy : plain", "easy"),
        ("**Easy**: plain", "easy"),
        ("**Easy:** plain", "easy"),
        ("Easy", "easy"),
        ("Easy.", "easy"),
        ("Easy - plain", "easy"),
        ("Easy\nas it is short", "easy"),
        ("", None),
        ("I think so", None),
        ("Easily: done", None),
        ("Easy to state, hard to do", None),
        ("Easy|Medium|Hard: reason", None),
        ("Difficulty: Easy", None),
    ],
)
def test_parser_accepts_case_variations_and_leading_spaces(reply: str, found: str | None) -> None:
    assert label(Outcome(text=reply)) == found


def test_multiple_labels_the_first_counts() -> None:
    assert label(Outcome(text="Hard: no.\nEasy: yes")) == "hard"
    assert label(Outcome(text="Easy: yes.\nHard: no")) == "easy"
    assert label(Outcome(text="Medium, Easy: it is")) == "medium"


@pytest.mark.parametrize(
    "reply", ["Hard: not Easy: at all", "Medium: an easy task would be", "It is Easy: plain", "-> Easy: x"]
)
def test_a_label_inside_the_reason_does_not_win(reply: str) -> None:
    world = World(reply)
    run(world)
    assert world.asked == ["careful", "careful"]


@pytest.mark.parametrize("told", ["", "?", "42", failed(), failed("bad_request"), failed("timeout")])
def test_no_label_is_hard(told: Outcome | str) -> None:
    world = World(told)
    assert run(world).outcome.text == "careful"
    assert world.asked == ["careful", "careful"]


# ------------------------------------------------------------------------------------------------------------- calls


def test_no_field_but_the_task_statement_reaches_the_classifier() -> None:
    world = World("Easy: plain")
    run(world)
    call = world.calls[0]
    assert (call.target, call.purpose, call.prompt, call.alone) == ("classifier", "plan", "difficulty@1", True)
    sent = wire.fields(call, QUERY)
    assert set(sent) == {"messages", "temperature", "max_tokens"}
    text = b" ".join(bytes(raw) for raw in sent.values()).decode()
    assert QUERY.text in text
    assert "def add" not in text
    assert call.params == {"temperature": 0.0, "max_tokens": 100}
    assert "def add" in msgspec.json.encode(wire.fields(world.calls[1], QUERY)).decode(), (
        "else this test could not fail"
    )


def test_strategy_accounting() -> None:
    easy, hard = World("Easy: plain"), World("Hard: careful")
    direct, chain = run(easy), run(hard)
    assert (easy.asked, hard.asked) == (["direct"], ["careful", "careful"]), "direct 1 generation call, the chain 2"
    assert (direct.tokens.output, chain.tokens.output) == (160, 460), "the classifier's tokens are counted"
    assert direct.usd == pytest.approx(1.6)
    assert chain.usd == pytest.approx(4.6)


def test_determinism() -> None:
    for reply in ("Easy: plain", "Hard: careful", "?"):
        one, other = World(reply), World(reply)
        assert comparable(run(one)) == comparable(run(other, query=msgspec.structs.replace(QUERY, id="other")))
        assert one.calls == other.calls, "the same text goes the same way, whatever the query is called"


def test_if_the_easy_plan_fails_the_hard_one_answers() -> None:
    world = World("Easy: plain", direct=failed())
    assert run(world).outcome.text == "careful"
    for fault in (failed("bad_request"), failed("broken_stream", streamed=True)):
        world = World("Easy: plain", direct=fault)
        assert not run(world).outcome.ok
        assert world.asked == ["direct"]
    world = World("Easy: plain", direct=failed("timeout"), careful=failed())
    assert run(world).outcome.error == Failure(kind="timeout")


@pytest.mark.parametrize(("quality", "asked"), [(0.5, "direct"), (0.49, "careful"), (None, "careful")])
def test_a_gate_in_the_place_of_the_classifier(quality: float | None, asked: str) -> None:
    plan = msgspec.structs.replace(PLAN, classifier=None, gate="gate")
    world = World(failed() if quality is None else said({"direct": Forecast(quality=quality)}))
    run(world, plan)
    assert world.asked[0] == asked
    world = World(said({"people": Forecast(quality=0.9)}))
    run(world, msgspec.structs.replace(plan, of="people"))
    assert world.asked == ["direct"]


@pytest.mark.parametrize(("calls", "text"), [(1, ""), (2, ""), (3, "careful")])
def test_limits(calls: int, text: str) -> None:
    assert run(World("Hard: x"), limits=Limits(calls=calls)).outcome.text == text
    paid = run(World("Hard: x"), limits=Limits(usd=2.0 * calls), estimate=lambda call, query: 2.0)
    assert (paid.usd or 0.0) <= 2.0 * calls
    done = run(World("Easy: x", direct=failed()), limits=Limits(calls=2))
    assert done.outcome.error == Failure(kind="unavailable")


# --------------------------------------------------------------------------------------------------------- intention


def test_two_calls_the_second_conditioned_on_task_and_intention() -> None:
    world = World("", intention="Specification: {question}")
    done = run(world, Intention(target="careful", params={"temperature": 0.8}))
    first, second = world.calls
    assert (first.purpose, first.prompt, first.alone) == ("plan", "intention@1", True)
    assert first.params == {"temperature": 0.8, "top_p": 0.95, "max_tokens": 300}
    assert (second.purpose, second.prompt, second.alone) == ("answer", "implement@1", False)
    assert second.params == {"temperature": 0.8}
    assert second.messages is not None
    assert QUERY.text in second.messages[-1].text
    assert "<<<\nSpecification: {question}\n>>>" in second.messages[-1].text
    assert (done.outcome.text, done.outcome.target) == ("careful", "careful")
    steps = Intention(target="careful").run(QUERY)
    assert not next(steps).final
    assert steps.send((Outcome(text="x"),)).final


@pytest.mark.parametrize("intention", [failed(), "", " \n"])
def test_without_an_intention_the_task_is_asked_as_it_came(intention: Outcome | str) -> None:
    world = World("", intention=intention)
    assert run(world, Intention(target="careful")).outcome.text == "careful"
    assert world.calls[1] == Call(target="careful")


# ------------------------------------------------------------------------------------------------------ what it is worth


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_direct_enumeration(n: int) -> None:
    for c in range(n + 1):
        passes = [i < c for i in range(n)]
        assert pass_at(1, samples=n, passed=c) == pytest.approx(c / n)
        for k in range(1, n + 1):
            counted = [any(few) for few in itertools.combinations(passes, k)]
            assert pass_at(k, samples=n, passed=c) == pytest.approx(sum(counted) / len(counted))


@pytest.mark.parametrize(("k", "samples", "passed"), [(0, 5, 1), (6, 5, 1), (1, 5, 6), (1, 5, -1)])
def test_pass_at_k_of_what_cannot_be(k: int, samples: int, passed: int) -> None:
    with pytest.raises(ValueError, match="samples"):
        pass_at(k, samples=samples, passed=passed)


def test_cost_of_pass() -> None:
    assert cost_of_pass([1.0, 3.0], [1.0, 0.0]) == 4.0
    assert cost_of_pass([1.0], [0.0]) == np.inf


class Tasks(LookUp):
    """One task of a table: whether each way passes, tokens of each call, and a label."""

    def __init__(self, easy: bool, label: str, classifier_tokens: float) -> None:
        self.easy, self.label, self.classifier_tokens = easy, label, classifier_tokens

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        passes = call.target != "direct" or self.easy
        if call.target == "careful" and self.easy:
            passes = False  # overthinking
        text = self.label if call.target == "classifier" else "pass" if passes else "fail"
        usd = {"classifier": self.classifier_tokens, "direct": 100.0}.get(call.target, 250.0)
        return Outcome(text=text, target=call.target, usd=usd)


def table(
    label_of: Any, *, share: float = 0.6, classifier_tokens: float = 60.0, plan: Plan = PLAN
) -> tuple[float, float]:
    """Return accuracy and mean tokens over tasks of which a share is easy; the direct way passes easy ones, the chain the others."""
    random = Random(5)
    passed, tokens = 0, 0.0
    for i in range(200):
        easy = random.random() < share
        done = replay(plan, Query.ask(f"task {i}", id=str(i)), Tasks(easy, label_of(easy, random), classifier_tokens))
        passed += done.outcome.text == "pass"
        tokens += done.usd or 0.0
    return passed / 200, tokens / 200


def test_replay_on_a_table_with_oracle_labels_gives_the_maximum() -> None:
    oracle, _ = table(lambda easy, random: "Easy: x" if easy else "Hard: x")
    direct, _ = table(lambda easy, random: "", plan=Single(target="direct"))
    chain, _ = table(lambda easy, random: "", plan=Intention(target="careful"))
    chance, _ = table(lambda easy, random: "Easy: x" if random.random() < 0.6 else "Hard: x")
    assert oracle == 1.0
    assert direct == pytest.approx(0.6, abs=0.1)
    assert chain == pytest.approx(1.0 - direct)
    assert max(chance, direct, chain) < oracle - 0.3


def test_the_break_even_point_where_classifier_tokens_eat_the_saving() -> None:
    point = routing_pays_from(60.0, easy=100.0, hard=500.0)
    assert point == pytest.approx(0.15)
    for share in (0.02, 0.3, 0.6):
        _, routed = table(lambda easy, random: "Easy: x" if easy else "Hard: x", share=share)
        assert (routed < 500.0) == (share > point)
    assert routing_pays_from(1.0, easy=5.0, hard=5.0) == np.inf


# ------------------------------------------------------------------------------------------------------------ as data


def test_the_family_check() -> None:
    check_plan(lambda: PLAN)
    check_plan(lambda: Prompting(gate="g", easy=Single(target="a"), hard=Single(target="b")))
    check_plan(lambda: Intention(target="a", params={"top_p": 0.5}))


def test_written_and_read_back() -> None:
    assert decode(to_data(PLAN)) == PLAN
    chain = Intention(target="a", params={"x": [1]})
    assert decode(to_data(chain)) == chain
    assert hash(decode(to_data(chain))) == hash(chain)
    assert PLAN.targets() == ("classifier", "direct", "careful")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "prompting", "easy": "a", "hard": "b"}, "classifier or a gate"),
        ({"kind": "prompting", "easy": "a", "hard": "b", "classifier": "c", "gate": "d"}, "classifier or a gate"),
        ({"kind": "prompting", "easy": "a", "hard": "b", "gate": "d", "easy_from": 2.0}, "<= 1"),
        ({"kind": "prompting", "easy": "a", "hard": "b", "gate": "d", "prompt": "x@1"}, "x@1"),
        ({"kind": "intention", "target": "a", "prompt": {"name": "p", "text": "{intention}"}}, "intention"),
        ({"kind": "intention", "target": "a", "implementing": {"name": "p", "text": "{code}"}}, "code"),
        ({"kind": "intention", "target": "a", "top_p": 0.0}, "> 0"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode(wrong)
