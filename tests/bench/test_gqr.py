"""The GQR score: the rows that the paper prints, and what must hold of any harmonic mean of an accuracy and rejections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.bench.gqr import judge
from fairlead.bench.metrics import guarded_score

SHARE = st.floats(0.0, 1.0)

# ID, OOD, GQR in %, as printed in arXiv 2505.14524.
ROWS = [
    (95.66, 88.00, 91.67),
    (95.70, 87.85, 91.61),
    (84.49, 91.25, 87.74),
    (90.91, 80.39, 85.33),
    (93.67, 73.33, 82.26),
    (99.42, 71.15, 82.94),
    (98.78, 68.70, 81.04),
    (95.80, 68.85, 80.12),
    (90.00, 42.45, 57.69),
    (26.37, 99.82, 41.72),
    (99.94, 19.74, 32.97),
]


@pytest.mark.parametrize(("inside", "outside", "printed"), ROWS)
def test_printed_rows_follow_from_their_parts(inside: float, outside: float, printed: float) -> None:
    # Parts are rounded to .005 themselves.
    assert 100.0 * guarded_score(inside / 100.0, outside / 100.0) == pytest.approx(printed, abs=0.0101)


def test_the_row_that_is_misprinted() -> None:
    assert 100.0 * guarded_score(0.9517, 0.5960) == pytest.approx(73.30, abs=0.0101)


@given(SHARE, SHARE)
def test_a_harmonic_mean(x: float, y: float) -> None:
    score = guarded_score(x, y)
    assert score == guarded_score(y, x)
    assert score <= min(2.0 * x, 2.0 * y, max(x, y)) + 1e-12
    assert guarded_score(x, x) == pytest.approx(x)
    assert guarded_score(0.0, y) == 0.0


def test_refusing_all_or_nothing_is_worth_nothing() -> None:
    truth = ["law", "health"]
    assert judge(truth, [None, None], {"web": [None, None]}).gqr == 0.0
    everything = judge(truth, truth, {"web": ["law", "law"]})
    assert (everything.id_accuracy, everything.ood_rejection, everything.gqr) == (1.0, 0.0, 0.0)


def test_every_set_counts_the_same_and_a_refusal_is_wrong() -> None:
    truth, said = ["law", "law", "health", "health"], ["law", "health", None, "health"]
    outside = {"a": [None, "law"], "b": [None, None, None, "law"]}
    once = judge(truth, said, outside)
    assert (once.id_accuracy, once.id_accepted) == (0.5, 0.75)
    assert once.rejected == {"a": 0.5, "b": 0.75}
    assert once.ood_rejection == pytest.approx(0.625)
    assert judge(truth, said, {**outside, "b": outside["b"] * 7}) == once


@pytest.mark.parametrize(
    ("truth", "said", "outside"),
    [([], [], {"a": [None]}), (["x"], ["x"], {}), (["x"], ["x"], {"a": []}), (["x"], [], {"a": [None]})],
)
def test_nothing_to_judge_is_an_error(truth: list[str], said: list[str], outside: dict[str, list[None]]) -> None:
    with pytest.raises(ValueError, match=r"give in-domain|shorter"):
        judge(truth, said, outside)
