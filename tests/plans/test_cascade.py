from typing import Any

import pytest
from msgspec import Struct

from fairlead import catalog
from fairlead.errors import ConfigError, LimitReached
from fairlead.plans.accept import Accept, Agreement, Confidence, FirstEntropy, MeanLogprob, Predicted
from fairlead.plans.base import decode, to_data
from fairlead.plans.cascade import Cascade
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.testing import check_plan
from fairlead.types import Call, Do, Failure, Limits, Outcome, Plan, Query, Steps
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, replay

QUERY = Query.ask("What is 2 + 2?", id="q")


class Table(LookUp):
    def __init__(self, replies: dict[Any, Outcome]) -> None:
        self.replies = replies
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        return self.replies.get((call.target, call.sample)) or self.replies[call.target]


def good(name: str, **more: Any) -> Outcome:
    return Outcome(target=name, text=name, usd=1.0, seconds=1.0, **more)


def bad(name: str, kind: Any = "unavailable") -> Outcome:
    return Outcome(target=name, error=Failure(kind=kind))


def cascade(accept: Accept, *names: str) -> Cascade:
    return Cascade(steps=tuple(Single(target=n) for n in names or ("a", "b", "c")), accept=accept)


def run(accept: Accept, table: Table, **more: Any) -> Run:
    return replay(cascade(accept), QUERY, table, **more)


@pytest.mark.parametrize(
    ("accept", "evidence", "accepted"),
    [
        (MeanLogprob(above=-0.5), {"logprobs": (-0.2, -0.6)}, True),
        (MeanLogprob(above=-0.5), {"logprobs": (-0.5, -0.5)}, True),
        (MeanLogprob(above=-0.5), {"logprobs": (-0.2, -0.9)}, False),
        (MeanLogprob(above=-0.5), {"logprobs": ()}, False),
        (MeanLogprob(above=-0.5), {}, False),
        (FirstEntropy(below=0.3), {"first_entropy": 0.3}, True),
        (FirstEntropy(below=0.3), {"first_entropy": 0.31}, False),
        (FirstEntropy(below=0.3), {}, False),
        (Confidence(above=-1.0), {"confidence": -0.9}, True),
        (Confidence(above=-1.0), {"confidence": -1.1}, False),
        (Confidence(above=-1.0), {"quality": 1.0}, False),
        (Predicted(quality=0.8, above=0.8), {}, True),
        (Predicted(quality=0.79, above=0.8), {"quality": 1.0}, False),
    ],
)
def test_tests(accept: Accept, evidence: dict[str, Any], accepted: bool) -> None:
    table = Table({"a": good("a", **evidence), "b": good("b"), "c": good("c")})
    done = replay(cascade(accept, "a", "c"), QUERY, table)
    assert done.outcome.text == ("a" if accepted else "c")
    assert done.usd == (1.0 if accepted else 2.0)


@pytest.mark.parametrize("accept", [MeanLogprob(above=0), FirstEntropy(below=0)])
def test_calls_ask_for_what_the_test_needs_but_the_last(accept: Accept) -> None:
    table = Table({n: good(n) for n in "abc"})
    run(accept, table)
    asked = [c.params.get("logprobs") for c in table.calls]
    assert asked == [True, True, None]


class Twice(Struct, Plan, frozen=True, kw_only=True, tag="twice", tag_field="kind"):
    """A kind that the library does not know, which may stop early."""

    target: str

    def run(self, query: Query) -> Steps:
        """Ask once, then again by a plan, with something of its own."""
        (first,) = yield Do(branches=(Call(target=self.target, params={"seed": 7, "top_logprobs": 2}),))
        try:
            (second,) = yield Do(branches=(Single(target=self.target),))
        except LimitReached:
            return first
        return second

    def targets(self) -> tuple[str, ...]:
        return (self.target,)


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        (Vote(members=(Single(target="a"), Single(target="b"))), 2),
        (Vote(members=(Single(target="a"),), samples=3), 3),
        (Fallback(plans=(Single(target="a"), Single(target="b"))), 1),
        (cascade(MeanLogprob(above=0), "a", "b"), 2),
        (Twice(target="a"), 2),
    ],
)
def test_every_kind_of_step_is_asked_for_what_the_test_needs(
    step: Plan, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = catalog.find
    monkeypatch.setattr(catalog, "find", lambda family, name: Twice if name == "twice" else find(family, name))
    table = Table({n: good(n, logprobs=(-0.9,)) for n in "abc"})
    plan = Cascade(steps=(step, Single(target="c")), accept=MeanLogprob(above=-0.5))
    done = replay(plan, QUERY, table)
    assert done.outcome.text == "c"
    assert [c.params.get("logprobs") for c in table.calls] == [True] * calls + [None]
    check_plan(lambda: plan)


def test_what_a_step_sets_itself_stays_and_limits_reach_it() -> None:
    table = Table({n: good(n, logprobs=(-0.1,)) for n in "ac"})
    plan = Cascade(steps=(Twice(target="a"), Single(target="c")), accept=MeanLogprob(above=-0.5))
    assert replay(plan, QUERY, table, limits=Limits(calls=1)).outcome.text == "a"
    assert [c.params for c in table.calls] == [{"logprobs": True, "top_logprobs": 2, "seed": 7}]


def test_agreement_asks_several_times_and_charges_each() -> None:
    accept = Agreement(samples=3, above=0.6, answers="number", temperature=0.5)
    texts = {("a", 0): "4", ("a", 1): "5", ("a", 2): "it is 4"}
    table = Table({k: Outcome(text=t, target="a", usd=1.0) for k, t in texts.items()} | {"c": good("c")})
    done = replay(cascade(accept, "a", "c"), QUERY, table)
    assert done.outcome.text == "4"
    assert done.outcome.confidence == pytest.approx(2 / 3)
    assert done.usd == 3.0
    assert [(c.sample, c.params) for c in table.calls] == [
        (0, {}),
        (1, {"temperature": 0.5}),
        (2, {"temperature": 0.5}),
    ]


def test_failed_draws_count_against_agreement() -> None:
    accept = Agreement(samples=3, above=0.6)
    table = Table({("a", 0): good("a"), ("a", 1): bad("a"), ("a", 2): bad("a"), "c": good("c")})
    assert replay(cascade(accept, "a", "c"), QUERY, table).outcome.text == "c"


def test_a_vote_as_a_step_is_tested_by_its_share() -> None:
    vote = Vote(members=(Single(target="a"), Single(target="b")))
    plan = Cascade(steps=(vote, Single(target="c")), accept=Confidence(above=0.9))
    same = Table({"a": Outcome(text="4", usd=1.0), "b": Outcome(text="4", usd=1.0), "c": good("c")})
    assert replay(plan, QUERY, same).outcome.text == "4"
    split = Table({"a": Outcome(text="4"), "b": Outcome(text="5"), "c": good("c")})
    assert replay(plan, QUERY, split).outcome.text == "c"


NEVER = Predicted(quality=0.0, above=1.0)


def test_failures_escalate_and_the_best_answer_stands() -> None:
    assert run(NEVER, Table({"a": bad("a"), "b": good("b"), "c": bad("c")})).outcome.text == "b"
    assert run(NEVER, Table({"a": good("a"), "b": bad("b"), "c": bad("c")})).outcome.text == "a"
    error = run(NEVER, Table({"a": bad("a", "timeout"), "b": bad("b"), "c": bad("c")})).outcome.error
    assert error is not None
    assert error.kind == "timeout"


def test_a_bad_request_is_not_asked_again() -> None:
    table = Table({"a": bad("a", "bad_request"), "b": good("b"), "c": good("c")})
    error = run(NEVER, table).outcome.error
    assert error is not None
    assert error.kind == "bad_request"
    assert len(table.calls) == 1


@pytest.mark.parametrize("limits", [Limits(calls=2), Limits(usd=2.0), Limits(seconds=2.0)])
def test_a_limit_gives_the_best_answer_so_far(limits: Limits) -> None:
    done = run(NEVER, Table({n: good(n) for n in "abc"}), limits=limits)
    assert done.outcome.text == "b"
    assert done.usd == 2.0


def test_a_limit_before_any_answer_is_a_failure() -> None:
    done = run(NEVER, Table({"a": bad("a"), "b": good("b"), "c": good("c")}), limits=Limits(calls=1))
    assert done.outcome.error is not None
    assert done.outcome.error.kind == "budget"


def test_a_broken_stream_is_not_replaced_by_an_earlier_answer() -> None:
    broken = Outcome(target="c", error=Failure(kind="broken_stream"), streamed=True)
    assert run(NEVER, Table({"a": good("a"), "b": good("b"), "c": broken})).outcome is broken


@pytest.mark.parametrize("accept", [MeanLogprob(above=-1), Agreement(above=0.5), Confidence(above=0.1), NEVER])
def test_written_and_read_back(accept: Accept) -> None:
    plan = cascade(accept)
    assert decode(to_data(plan)) == plan


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": []}, "at least one step"),
        ({"steps": ["a"], "accept": {"kind": "luck"}}, "luck"),
        ({"steps": ["a", "b"], "accept": {"kind": "agreement", "above": 0.5, "samples": 1}}, "2 samples"),
        ({"steps": [{"kind": "vote", "members": ["a"]}, "b"], "accept": {"kind": "agreement", "above": 1}}, "single"),
        ({"steps": [{"kind": "tower"}]}, "tower"),
    ],
)
def test_wrong_cascades_are_config_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "cascade", "accept": {"kind": "confidence", "above": 0.5}, **wrong})
