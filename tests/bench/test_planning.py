"""Plans against single calls: costs add up, mixing is the baseline, pairing sharpens, what is unknown is refused."""

import numpy as np
import pytest

from fairlead.bench.planning import compare, joined, measure, versus
from fairlead.errors import TableError
from fairlead.plans.accept import Confidence
from fairlead.plans.cascade import Cascade
from fairlead.plans.single import Single
from fairlead.types import Call, Failure, Outcome, Path, Query
from fairlead.worlds.replay import LookUp

USD = {"small": 1.0, "large": 10.0}


class World(LookUp):
    """`small` is right on every other query, and sure when it is; `large` on nine of ten."""

    def __init__(self, q: int, *, sure: bool = True, priced: bool = True) -> None:
        self.q, self.sure, self.priced = q, sure, priced

    def outcome(self, call: Call, path: Path) -> Outcome:
        right = self.q % 2 == 0 if call.target == "small" else self.q % 10 != 9
        confidence = float(right) if self.sure else (self.q % 7) / 7.0
        usd = USD[call.target] if self.priced else None
        return Outcome(text="yes" if right else "no", target=call.target, usd=usd, seconds=0.1, confidence=confidence)


QUERIES = [Query.ask(f"question {i}", id=f"q{i}") for i in range(400)]
CASCADE = Cascade(steps=(Single(target="small"), Single(target="large")), accept=Confidence(above=0.5))


def grade(q: int, outcome: Outcome) -> float:
    return float(outcome.text == "yes")


def test_every_call_is_charged_and_a_good_cascade_lies_above_mixing() -> None:
    found = measure({"cascade": CASCADE}, ["small", "large"], QUERIES, look_up=World, grade=grade)
    rows = {r.name: r for r in compare(found, resamples=200)}
    assert rows["cascade"].usd == pytest.approx(1.0 + 0.5 * 10.0)
    assert rows["cascade"].calls == pytest.approx(1.5)
    assert rows["cascade"].quality.value == pytest.approx(0.9)
    mixed = 0.5 + (0.9 - 0.5) * (6.0 - 1.0) / 9.0
    assert rows["cascade"].gain.value == pytest.approx(0.9 - mixed)
    assert rows["cascade"].gain.low > 0.0
    assert rows["large"].gain.value == pytest.approx(0.0)
    assert rows["cascade"].over_best.value == pytest.approx(0.0)


def test_a_cascade_that_knows_nothing_does_not() -> None:
    found = measure(
        {"cascade": CASCADE}, ["small", "large"], QUERIES, look_up=lambda q: World(q, sure=False), grade=grade
    )
    assert {r.name: r for r in compare(found, resamples=200)}["cascade"].gain.high < 0.0


def test_pairing_sharpens() -> None:
    found = measure({"again": Single(target="large")}, ["large"], QUERIES, look_up=World, grade=grade)
    again = compare(found, resamples=100)[1]
    assert (again.over_best.low, again.over_best.high) == (0.0, 0.0)
    assert again.quality.high - again.quality.low > 0.02


def test_parts_are_put_together() -> None:
    half = [measure({}, ["small"], QUERIES[i::2], look_up=World, grade=grade) for i in (0, 1)]
    assert joined(half).quality_PQ.shape == (1, 400)
    other = measure({}, ["large"], QUERIES[:1], look_up=World, grade=grade)
    with pytest.raises(TableError, match="same plans"):
        joined([half[0], other])


def test_against_other_plans_at_equal_cost() -> None:
    found = measure({"cascade": CASCADE}, ["small", "large"], QUERIES, look_up=World, grade=grade)
    assert versus(found, "cascade", ["small", "large"], resamples=50).low > 0.0
    assert versus(found, "small", ["large"], resamples=50).value == pytest.approx(0.5 - 0.9)


def test_a_cost_that_is_not_known_is_refused() -> None:
    with pytest.raises(TableError, match="not known"):
        measure({}, ["small"], QUERIES[:1], look_up=lambda q: World(q, priced=False), grade=grade)


def test_no_answer_counts_as_wrong() -> None:
    class Down(LookUp):
        def outcome(self, call: Call, path: Path) -> Outcome:
            return Outcome(target=call.target, error=Failure(kind="unavailable"))

    found = measure({}, ["small"], QUERIES[:3], look_up=lambda q: Down(), grade=lambda q, o: 1.0)
    assert found.failed_PQ.all()
    assert not np.any(found.quality_PQ)
