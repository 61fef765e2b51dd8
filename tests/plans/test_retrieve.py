"""Finding passages: who is asked, how lists are fused, what a reader is sent, and what happens when anybody fails or talks rubbish."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.build import build
from fairlead.errors import ConfigError
from fairlead.lab import corpus
from fairlead.plans.base import decode, to_data
from fairlead.plans.gates import said
from fairlead.plans.prompts import Prompt
from fairlead.plans.retrieve import Passage, Retrieve, fuse, read
from fairlead.predictors.pilots import Pilots
from fairlead.table import OutcomeTable
from fairlead.targets.gate import Gate
from fairlead.testing import check_plan, observer_of
from fairlead.types import Call, Failure, Forecast, Limits, Outcome, Query
from fairlead.worlds.base import Run
from fairlead.worlds.live import Live
from fairlead.worlds.replay import LookUp, replay

QUERY = Query.ask("who is {x}?", id="q")
EXPERTS = ("a", "b", "c")


def passages(*ids: str) -> str:
    return json.dumps([{"id": i, "score": 9.0 - n, "text": f"text of {i}"} for n, i in enumerate(ids)])


def forecasts(**quality: float) -> str:
    return said({name: Forecast(quality=q) for name, q in quality.items()})


class Told(LookUp):
    """Replies by target: a text, or a kind of failure after ``!``."""

    def __init__(self, **replies: str) -> None:
        self.replies = replies
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        text = self.replies.get(call.target, "[]")
        if text.startswith("!"):
            failure = Failure(kind=text[1:], message=f"{call.target} is {text[1:]}")  # type: ignore[arg-type]
            return Outcome(target=call.target, error=failure, seconds=1.0)
        return Outcome(target=call.target, text=text, usd=0.0, seconds=1.0)

    @property
    def asked(self) -> list[str]:
        return [c.target for c in self.calls]


def run(plan: Retrieve, told: Told, limits: Limits | None = None) -> Run:
    return replay(plan, QUERY, told, **({} if limits is None else {"limits": limits}))


def found(run: Run) -> list[str]:
    assert run.outcome.ok, run.outcome.error
    return [p["id"] for p in json.loads(run.outcome.text)]


def routed(**more: Any) -> Retrieve:
    return Retrieve(experts=EXPERTS, gate="gate", **more)


@pytest.mark.parametrize(
    "plan",
    [
        Retrieve.example(),
        routed(most=2),
        routed(reader="r", most_without=1),
        Retrieve(experts=EXPERTS),
        Retrieve(experts=("a",), reader="r"),
    ],
)
def test_check_plan(plan: Retrieve) -> None:
    check_plan(lambda: plan)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"experts": ()}, "at least one"),
        ({"experts": ("a", "a")}, "each once"),
        ({"most": 0}, "at least 1"),
        ({"most_without": 0}, "at least 1"),
        ({"k": -1.0}, "number of ranks"),
        ({"prompt": "passages@9"}, "no prompt is called"),
        ({"prompt": Prompt(name="mine", text="{answers}")}, "has fields answers"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Retrieve(**{"experts": EXPERTS, **wrong})
    if "prompt" not in wrong:
        with pytest.raises(ConfigError, match=says):
            decode({**to_data(Retrieve(experts=EXPERTS)), **wrong})


# ------------------------------------------------------------------------------------------------------- who is asked


def test_the_expert_that_the_gate_forecasts_best_is_asked() -> None:
    told = Told(gate=forecasts(a=0.2, b=0.9, c=0.5), b=passages("x", "y"))
    done = run(routed(top=7), told)
    assert told.asked == ["gate", "b"]
    assert found(done) == ["x", "y"]
    assert done.outcome.target == "b"
    gate, look = told.calls
    assert (gate.purpose, look.purpose) == ("gate", "retrieve")
    assert look.alone
    assert look.params == {"top": 7}


def test_several_of_the_best_are_asked_side_by_side_and_fused() -> None:
    told = Told(gate=forecasts(a=0.2, b=0.9, c=0.5), b=passages("x", "y"), c=passages("y", "z"))
    done = run(routed(most=2), told)
    assert told.asked == ["gate", "b", "c"]
    assert found(done) == ["y", "x", "z"]
    assert done.seconds == 2.0


@pytest.mark.parametrize(
    "reply", ["!unavailable", "!timeout", "!bad_request", "", "rubbish", "{}", forecasts(other=0.9)]
)
def test_a_gate_that_fails_or_knows_nobody_leaves_all_to_be_asked(reply: str) -> None:
    told = Told(gate=reply, a=passages("x"))
    done = run(routed(), told)
    assert found(done) == ["x"]
    assert [s.path for s in done.steps] == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert told.asked == ["gate", "a", "b", "c"]
    told = Told(gate=reply, a=passages("x"))
    run(routed(most_without=2), told)
    assert told.asked == ["gate", "a", "b"]


def test_without_a_gate_all_are_asked_and_who_fails_counts_for_nothing() -> None:
    told = Told(a="!timeout", b=passages("x"), c="[]")
    assert found(run(Retrieve(experts=EXPERTS), told)) == ["x"]


@pytest.mark.parametrize("reply", ["!unavailable", "[]", " "])
def test_if_the_one_asked_fails_or_finds_nothing_the_others_are_asked(reply: str) -> None:
    told = Told(gate=forecasts(a=0.9, b=0.5, c=0.4), a=reply, c=passages("z"))
    assert found(run(routed(), told)) == ["z"]
    assert told.asked == ["gate", "a", "b", "c"]


@pytest.mark.parametrize("kind", ["bad_request", "blocked", "client_gone"])
def test_a_request_that_is_at_fault_is_not_tried_elsewhere(kind: str) -> None:
    told = Told(gate=forecasts(a=0.9), a=f"!{kind}", b=passages("x"))
    done = run(routed(), told)
    assert told.asked == ["gate", "a"]
    assert done.outcome.error is not None
    assert done.outcome.error.kind == kind


def test_nothing_found_is_a_failure_that_says_so() -> None:
    error = run(Retrieve(experts=EXPERTS), Told(a="!timeout")).outcome.error
    assert error is not None
    assert error.kind == "not_found"
    assert "nothing was found" in error.message
    assert "asked: b, c" in error.message
    error = run(Retrieve(experts=EXPERTS, reader="r"), Told()).outcome.error
    assert error is not None
    assert error.kind == "not_found"


def test_if_all_fail_the_first_failure_is_told() -> None:
    error = run(Retrieve(experts=EXPERTS), Told(a="!timeout", b="!internal", c="!internal")).outcome.error
    assert error is not None
    assert error.kind == "timeout"


# ------------------------------------------------------------------------------------------------------------- fusing


def test_reciprocal_ranks_by_hand() -> None:
    lists = [[Passage(id="x"), Passage(id="y")], [Passage(id="y"), Passage(id="z")]]
    assert [(p.id, p.score) for p in fuse(lists, 60.0)] == [
        ("y", pytest.approx(1 / 62 + 1 / 61)),
        ("x", pytest.approx(1 / 61)),
        ("z", pytest.approx(1 / 62)),
    ]


@given(st.lists(st.lists(st.sampled_from("uvwxyz"), unique=True, max_size=6), min_size=1, max_size=4))
def test_fusing_keeps_every_passage_once_and_the_order_of_lists_matters_for_ties_alone(lists: list[list[str]]) -> None:
    made = [[Passage(id=i) for i in names] for names in lists]
    one, two = fuse(made, 60.0), fuse(made[::-1], 60.0)
    assert sorted(p.id for p in one) == sorted({i for names in lists for i in names})
    if len(lists) > 1:
        assert {p.id: round(p.score, 12) for p in one} == {p.id: round(p.score, 12) for p in two}
        assert [p.score for p in one] == sorted((p.score for p in one), reverse=True)


def test_at_most_so_many_come_back_and_a_single_list_keeps_its_scores() -> None:
    told = Told(a=passages("x", "y"), b=passages("z", "w"))
    assert found(run(Retrieve(experts=("a", "b"), top=3), told)) == ["x", "z", "y"]
    (first, *_) = json.loads(run(Retrieve(experts=("a",)), told).outcome.text)
    assert first["score"] == 9.0


def test_replies_that_are_no_list_are_one_passage_and_ids_count_once() -> None:
    assert read(Outcome(text="plain words", target="web")) == (Passage(id="web", text="plain words"),)
    assert [p.id for p in read(Outcome(text=passages("x", "y", "x")))] == ["x", "y"]
    assert read(Outcome(text='[{"id": 3}]', target="t"))[0].id == "t"
    assert read(Outcome(text="[]")) == ()
    assert read(Outcome(text=passages("x"), cancelled=True)) == ()


# --------------------------------------------------------------------------------------------------------- the reader


@pytest.mark.parametrize(
    "rubbish", ["[\ud800]", '[{"id": "x", "metadata": {"m": ' + "[" * 50_000 + "]" * 50_000 + "}}]"]
)
def test_what_cannot_be_read_or_passed_on_costs_nobody_elses_passages(rubbish: str) -> None:
    assert read(Outcome(text=rubbish)) == ()
    assert found(run(Retrieve(experts=EXPERTS), Told(a=rubbish, b=passages("x")))) == ["x"]


@pytest.mark.parametrize("kind", ["budget", "deadline"])
def test_passages_stand_where_a_limit_keeps_the_reader_from_answering(kind: str) -> None:
    plan = Retrieve(experts=("a",), reader="r")
    assert found(run(plan, Told(a=passages("x"), r=f"!{kind}"))) == ["x"]
    assert found(run(plan, Told(a=passages("x"), r="the answer"), Limits(calls=1))) == ["x"]


def test_the_reader_is_sent_the_passages_as_data_and_its_reply_is_the_answer() -> None:
    told = Told(a=passages("x", "y"), r="the answer")
    done = run(Retrieve(experts=("a",), reader="r", top=2), told)
    assert done.outcome.text == "the answer"
    assert done.outcome.target == "r"
    call = told.calls[-1]
    assert (call.purpose, call.prompt, call.alone) == ("answer", "passages@1", False)
    assert call.messages is not None
    text = call.messages[-1].text
    assert "[1]\n<<<\ntext of x\n>>>" in text
    assert "who is {x}?" in text
    assert text.index("text of y") < text.index("who is")


def test_a_passage_cannot_fill_in_a_field() -> None:
    told = Told(a=json.dumps([{"id": "x", "text": "{question} {passages}"}]), r="yes")
    run(Retrieve(experts=("a",), reader="r"), told)
    messages = told.calls[-1].messages
    assert messages is not None
    assert "{question} {passages}" in messages[-1].text


def test_a_reader_that_fails_is_the_plans_failure_not_passages_in_place_of_an_answer() -> None:
    error = run(Retrieve(experts=("a",), reader="r"), Told(a=passages("x"), r="!unavailable")).outcome.error
    assert error is not None
    assert error.kind == "unavailable"


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_limits_on_calls_are_kept(calls: int) -> None:
    told = Told(gate=forecasts(a=0.9), a="[]", b=passages("x"), r="the answer")
    done = run(routed(reader="r"), told, Limits(calls=calls))
    refused = sum(s.outcome.error is not None and s.outcome.error.kind == "budget" for s in done.steps)
    assert len(done.steps) - refused == 1 + min(calls, 4)  # the gate, which is no call, and then
    assert done.outcome.ok is (calls >= 2)  # a, b and c, the reader
    if not done.outcome.ok:
        assert done.outcome.error is not None
        assert done.outcome.error.kind == "budget"


# ---------------------------------------------------------------------------------------------------- end to end, live


def test_on_the_labs_corpus_the_gate_brings_more_than_any_expert_alone() -> None:
    rows = corpus.retrieval_table(600, 0, split="train")
    table = OutcomeTable.from_columns({k: [r[k] for r in rows] for k in rows[0]}, source="lookups")
    pilots = build("predictors", "pilots")
    assert isinstance(pilots, Pilots)
    pilots.fit(table.observed(observer_of(pilots.needs), pilots.needs))
    drivers = {**corpus.indexes(), "gate": Gate(name="gate", predictor=pilots)}
    fresh = corpus.lookups(120, 5)
    plans = {name: Retrieve(experts=(name,)) for name in corpus.EXPERTS}
    plans["routed"] = Retrieve(experts=corpus.EXPERTS, gate="gate")
    plans["fused"] = Retrieve(experts=corpus.EXPERTS)

    async def play() -> dict[str, float]:
        for driver in drivers.values():
            await driver.start()
        world = Live(drivers=drivers)
        out = {}
        for name, plan in plans.items():
            quality = []
            for i, lookup in enumerate(fresh):
                done = await world.run(plan, Query.ask(lookup.query, id=f"q{i}"))
                quality.append(corpus.ndcg([p.id for p in read(done.outcome)], lookup.about))
            out[name] = float(np.mean(quality))
        return out

    mean = asyncio.run(play())
    assert mean["routed"] > max(mean[name] for name in corpus.EXPERTS) + 0.1
    assert mean["fused"] > max(mean[name] for name in corpus.EXPERTS)
