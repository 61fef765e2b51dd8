"""Calibration of free energies: running sums, by target and kind of task, from answers and from a table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.bench.energies import Running, calibration, from_outcomes, from_table
from fairlead.errors import UnknownName
from fairlead.plans.fast_slow import FastSlow
from fairlead.plans.single import Single
from fairlead.table import OutcomeTable
from fairlead.types import Failure, Outcome


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_running_sums_are_mean_and_deviation(values: list[float]) -> None:
    running = Running()
    for value in values:
        running.add(value)
    assert running.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert running.sd == pytest.approx(np.std(values), rel=1e-6, abs=1e-4)


def test_small_spread_far_from_zero_does_not_cancel() -> None:
    running = Running()
    for value in (1e9, 1e9 + 1, 1e9 + 2):
        running.add(value)
    assert running.sd == pytest.approx((2 / 3) ** 0.5)
    assert Running().sd == 0.0


def test_from_answers() -> None:
    answers = [
        Outcome(target="a", text="four", logprobs=(-1.0, -3.0)),
        Outcome(target="a", text="4", logprobs=(-2.0,)),
        Outcome(target="b", text="4", logprobs=(-1.0,)),
        Outcome(target="b", text="4"),
        Outcome(target="b", logprobs=(-9.0,), error=Failure(kind="timeout")),
    ]
    found = calibration(from_outcomes(answers, weight=0.5))
    assert found == {"": {"a": (pytest.approx(2.25), pytest.approx(0.25)), "b": (1.0, 0.0)}}
    by_character = calibration(from_outcomes(answers, weight=0.0, per="character"))
    assert by_character[""]["a"] == (pytest.approx(1.5), pytest.approx(0.5))
    sums = calibration([*from_outcomes(answers[:1], task="sums"), *from_outcomes(answers[2:3], task="words")])
    assert {task: sorted(of) for task, of in sums.items()} == {"sums": ["a"], "words": ["b"]}
    plan = FastSlow(fast=Single(target="a"), slow=Single(target="b"), calibration=found[""])
    assert plan.calibration["b"] == (1.0, 0.0)


def test_from_a_table() -> None:
    table = OutcomeTable.from_columns(
        {
            "query_id": ["1", "1", "2", "2", "3"],
            "model": ["a", "b", "a", "b", "a"],
            "quality": [1.0, 1.0, 0.0, 1.0, 1.0],
            "dataset": ["sums", "sums", "sums", "sums", "words"],
            "confidence_logprob": [-1.0, -0.5, -3.0, float("-inf"), -5.0],
        }
    )
    assert calibration(from_table(table)) == {"": {"a": (3.0, pytest.approx((8 / 3) ** 0.5)), "b": (0.5, 0.0)}}
    assert calibration(from_table(table, by="dataset")) == {
        "sums": {"a": (2.0, 1.0), "b": (0.5, 0.0)},
        "words": {"a": (5.0, 0.0)},
    }
    with pytest.raises(UnknownName, match="confidence_logprob"):
        list(from_table(table, "confidence_logprobs"))
