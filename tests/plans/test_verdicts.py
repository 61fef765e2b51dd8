"""What judges say: yes or no with a probability, a candidate's number, and that rubbish is no verdict."""

from math import exp
from typing import Any

import pytest

from fairlead.plans.verdicts import chance_of_yes, picked
from fairlead.types import Failure, Outcome

FAILED = Failure(kind="unavailable")


@pytest.mark.parametrize(
    ("text", "chance"),
    [
        ("yes", 1.0),
        ("Yes, it is.", 1.0),
        ("**YES**", 1.0),
        ("\n no", 0.0),
        ("No: 4 is right", 0.0),
        ("nothing wrong", None),
        ("yesterday", None),
        ("maybe yes", None),
        ("", None),
        ("4", None),
    ],
)
def test_yes_and_no_are_read_off_the_first_word(text: str, chance: float | None) -> None:
    assert chance_of_yes(Outcome(text=text)) == chance


def test_the_first_tokens_probability_is_how_sure_the_verdict_is() -> None:
    assert chance_of_yes(Outcome(text="yes", logprobs=(-0.5, -3.0))) == pytest.approx(exp(-0.5))
    assert chance_of_yes(Outcome(text="no", logprobs=(-0.5,))) == pytest.approx(1.0 - exp(-0.5))
    assert chance_of_yes(Outcome(text="no", logprobs=(-1.3,))) == 0.5, "a no is never more than a half"
    assert chance_of_yes(Outcome(text="yes", logprobs=(-1.3,))) == 0.5
    assert chance_of_yes(Outcome(text="**No**", logprobs=(-1.3,))) == 0.0, "the first token is not the word"
    assert chance_of_yes(Outcome(text="no", logprobs=(float("-inf"),))) == 0.5
    assert chance_of_yes(Outcome(text="yes", logprobs=(1e-9,))) == 1.0, "a probability above 1 is rounding"
    assert chance_of_yes(Outcome(text="yes", logprobs=())) == 1.0


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("2", 1),
        ("[3]", 2),
        ("Candidate 1, not 2", 0),
        ("0", None),
        ("4", None),
        ("4, or 2", None),
        ("9" * 5000, None),
        ("none of them", None),
        ("", None),
        ("\u0663", 2),
    ],
)
def test_a_candidate_is_picked_by_its_number(text: str, index: int | None) -> None:
    assert picked(Outcome(text=text), 3) == index


@pytest.mark.parametrize("failed", [{"error": FAILED}, {"cancelled": True}])
def test_a_judge_that_fails_gives_no_verdict(failed: dict[str, Any]) -> None:
    assert chance_of_yes(Outcome(text="yes", **failed)) is None
    assert picked(Outcome(text="1", **failed), 3) is None


def test_nobody_can_be_picked_out_of_none() -> None:
    assert picked(Outcome(text="1"), 0) is None
