"""Intervals of the guards' benchmark: templates are resampled, not their fillings."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from corpora import developers, injection, share
from fairlead.types import Query, Reading


def test_a_thousand_fillings_of_one_template_tell_as_much_as_one() -> None:
    once = share([1, 1, 0, 0], ["a", "b", "c", "d"])
    often = share([1, 1, 0, 0] * 1000, ["a", "b", "c", "d"] * 1000)
    assert (often.value, often.low, often.high) == (once.value, once.low, once.high)
    assert often.groups == 4
    assert once.low < 0.1
    assert once.high > 0.9


def test_alone_each_is_its_own_group() -> None:
    found = share([1.0] * 50 + [0.0] * 50, list(range(100)))
    assert found.low == pytest.approx(0.40, abs=0.02)
    assert found.high == pytest.approx(0.60, abs=0.02)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_groups_that_all_agree_are_no_certainty(value: float) -> None:
    found = share([value] * 400, [i % 4 for i in range(400)])
    assert found.value == value
    assert found.high - found.low == pytest.approx(0.49, abs=0.01)


def test_what_is_not_counted_makes_no_group() -> None:
    found = share([1, 0, 0], ["a", "b", "c"], of_QK=[1, 1, 0])
    assert (found.value, found.groups) == (0.5, 2)
    assert math.isnan(share([0], ["a"], of_QK=[0]).value)


def test_columns_count_alike() -> None:
    hit, of = [[1, 0], [1, 0], [1, 0], [0, 0]], [[1, 0], [1, 0], [1, 0], [0, 1]]
    assert share(hit, ["a", "a", "b", "c"], of_QK=of).value == 0.5


def test_requests_of_developers_are_forty_and_each_another() -> None:
    texts = [t for some in developers.PROMPTS.values() for t in some]
    assert len(texts) == len(set(texts)) == 40


@pytest.mark.parametrize("disguised", [True, False])
def test_the_mark_on_unseen_attacks_is_not_reached_by_old_ones_in_disguise(
    disguised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [e for e in injection.corpus(seed=0) if e.attack and e.split == "test"]
    caught = {e.text for e in examples if (e.family not in injection.ATTACKS) == disguised}

    class Half:
        """Catches one half of the attacks, all of it."""

        def __init__(self, remember: int) -> None:
            pass

        def read(self, query: Query) -> Reading:
            parts = dict.fromkeys(("override", "exfiltration", "persona", "document"), False)
            return Reading(value=float(query.text in caught), parts={**parts, "contrast": 0.0})

    monkeypatch.setattr("fairlead.signals.injection.Injection", Half)
    section = injection.measure(data=None, seed=0)
    assert section.marks["at .65 at least 70% of the attacks of unseen families are caught"] != disguised
    shares = {row[0]: row[4] for row in section.rows if row[1] == "all"}
    assert (shares["attacks"], shares["disguised"]) == ((0.0, 1.0) if disguised else (1.0, 0.0))
