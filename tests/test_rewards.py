"""What judgements are worth."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import FairleadError
from fairlead.rewards import CONFIDENCE, LEAST, judgement, lesson, of_correction, of_label, of_rating
from fairlead.trust import WEAK
from fairlead.types import FeedbackKind


def test_labels() -> None:
    assert of_label(" Good ") == 1.0
    assert of_label("wrong") == 0.0
    with pytest.raises(FairleadError, match="value in"):
        of_label("meh")


def test_a_correction_is_worth_what_still_stands() -> None:
    assert of_correction("the same", "the same\n") == 1.0
    assert of_correction("abcd", "wxyz") == 0.0
    assert 0.5 < of_correction("the tide follows the moon", "the tide follows the sun") < 1.0


def test_ratings_lie_on_their_scale() -> None:
    assert [of_rating(r, 5) for r in (1, 3, 5)] == [0.0, 0.5, 1.0]
    assert of_rating(7.5, 10, lowest=0) == 0.75
    for rating, of, lowest in ((6, 5, 1), (0, 5, 1), (1, 1, 1), (float("nan"), 5, 1), (1, float("inf"), 1)):
        with pytest.raises(FairleadError, match="scale"):
            of_rating(rating, of, lowest)


def test_each_kind_counts_as_it_does_unless_it_says_how_much() -> None:
    assert CONFIDENCE.keys() == set(get_args(FeedbackKind))
    assert all(0.0 < c <= 1.0 for c in CONFIDENCE.values())
    assert max(CONFIDENCE["reask"], CONFIDENCE["abandon"]) < min(c for k, c in CONFIDENCE.items() if k not in WEAK)
    assert judgement("t", kind="reask", value=0.0).confidence == CONFIDENCE["reask"]
    assert judgement("t", kind="reask", value=0.0, confidence=0.9).confidence == 0.9


share = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(share, share), min_size=1, max_size=6))
def test_an_answer_counts_in_all_as_its_weightiest_judgement(judgements: list[tuple[float, float]]) -> None:
    """However many judge it, in whatever order; and as that one says, as far as values in [0, 1] can."""
    taught, most = (0.0, 0.0), 0.0
    for value, weight in judgements:
        new = lesson(value, weight, taught)
        if new is not None:
            assert 0.0 <= new.value <= 1.0
            assert new.further == (taught[0] > 0.0)
            within = 0.0 < (weight * value - taught[1]) / (weight - taught[0]) < 1.0
            taught = (taught[0] + new.weight, taught[1] + new.weight * new.value)
            if within:
                assert taught == pytest.approx((weight, weight * value), abs=1e-9)
        most = max(most, weight)
        assert most - LEAST <= taught[0] <= most + 1e-9
