"""Outcomes of a table in the replay world."""

from __future__ import annotations

import pytest

from fairlead.errors import TableError, UnknownName
from fairlead.plans.single import Single
from fairlead.table import OutcomeTable
from fairlead.types import Call, Message, Query, Tokens
from fairlead.worlds.replay import replay
from fairlead.worlds.tabled import Tabled

TABLE = OutcomeTable.from_columns(
    {
        "query_id": ["1", "1", "2"],
        "model": ["a", "b", "a"],
        "quality": [1.0, None, 0.5],
        "cost_usd": [0.1, None, 0.3],
        "latency_s": [2.0, None, 1.0],
        "input_tokens": [5, None, 5],
        "output_tokens": [7, None, None],
        "response": ["yes", "no", None],
        "conf": [-0.5, None, -0.1],
        "dear": [0.4, 0.2, 0.5],
    }
)


def test_a_cell_becomes_an_outcome() -> None:
    outcome = Tabled(TABLE, 0).outcome(Call(target="a"), ())
    assert (outcome.text, outcome.quality, outcome.usd, outcome.seconds) == ("yes", 1.0, 0.1, 2.0)
    assert outcome.tokens == Tokens(input=5, output=7)
    assert outcome.confidence is None
    assert Tabled(TABLE, 1).outcome(Call(target="a"), ()).tokens is None


def test_confidence_and_its_price() -> None:
    look_up = Tabled(TABLE, 0, confidence_column="conf", usd_columns={"a": "dear"})
    outcome = look_up.outcome(Call(target="a"), ())
    assert (outcome.confidence, outcome.usd) == (-0.5, 0.4)
    # Only the targets named are charged the other column.
    assert look_up.outcome(Call(target="b"), ()).usd is None


def test_the_unknown_is_reported_never_zero() -> None:
    known = Tabled(TABLE, 0).outcome(Call(target="b"), ())
    assert known.ok
    assert known.quality is None
    assert known.usd is None
    for target, query, sample in [("c", 0, 0), ("b", 1, 0), ("a", 0, 1)]:
        run = replay(Single(target=target), Query.ask("x"), Tabled(TABLE, query)) if not sample else None
        outcome = run.outcome if run else Tabled(TABLE, query).outcome(Call(target=target, sample=sample), ())
        assert outcome.error is not None
        assert outcome.error.kind == "not_found"
        assert outcome.quality is None
    with pytest.raises(UnknownName):
        Tabled(TABLE, 0, confidence_column="confi")
    with pytest.raises(TableError):
        Tabled(TABLE, 2)


def test_what_a_plan_writes_has_no_recorded_reply() -> None:
    table = OutcomeTable.from_columns(
        {"query_id": ["1"], "model": ["a"], "quality": [1.0], "prompt": ["why?"], "response": ["so"]}
    )
    look_up = Tabled(table, 0)
    own, other = (
        Call(target="a", messages=(Message(role="user", content=text),)) for text in ("why?", "the first half of why?")
    )
    assert look_up.outcome(own, ()).ok
    for call in (other, Call(target="a", alone=True), Call(target="a", prompt="judge@1")):
        error = look_up.outcome(call, ()).error
        assert error is not None
        assert error.kind == "not_found"
