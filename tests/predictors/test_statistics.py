"""The small sums that predictors share."""

import numpy as np
import pytest

from fairlead.predictors.statistics import half_mean, means, pulled, sigmoid, standard_error, unit


def test_means_start_at_one_half() -> None:
    assert half_mean(0.0, 0) == 0.5
    quality = np.asarray([[1.0, np.nan, 0.0], [1.0, np.nan, np.nan], [1.0, np.nan, np.nan]])
    assert means(quality) == pytest.approx([3.5 / 4, 0.5, 0.25])


def test_standard_error_shrinks_and_is_never_zero() -> None:
    sd = standard_error(np.asarray([1.0, 1.0, 0.5]), np.asarray([1.0, 100.0, 100.0]))
    assert sd[0] > sd[1] > 0.0
    assert sd[2] == pytest.approx(0.05, rel=0.02)
    # Means of outcomes that a map has shifted may leave [0, 1].
    assert standard_error(np.asarray([1.1]), np.asarray([40.0])) == standard_error(
        np.asarray([1.0]), np.asarray([40.0])
    )


def test_pulled_means() -> None:
    total, count = np.asarray([[3.0, 0.0]]), np.asarray([[4.0, 0.0]])
    towards = np.asarray([0.5, 0.9])
    assert pulled(total, count, towards, 2.0)[0] == pytest.approx([4.0 / 6.0, 0.9])
    # Without a pull, what nobody was asked is still what is known elsewhere, not 0.
    assert pulled(total, count, towards, 0.0)[0] == pytest.approx([0.75, 0.9])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_unit_keep_their_precision(dtype: type[np.floating]) -> None:
    x = np.asarray([-1e4, -2.0, 0.0, 2.0, 1e4], dtype=dtype)
    assert sigmoid(x) == pytest.approx([0.0, 1.0 / (1.0 + np.exp(2.0)), 0.5, 1.0 / (1.0 + np.exp(-2.0)), 1.0], rel=1e-6)
    rows = np.asarray([[[3.0, 4.0], [0.0, 0.0]]], dtype=dtype)
    assert (unit(rows) == np.asarray([[[0.6, 0.8], [0.0, 0.0]]], dtype=dtype)).all()
    assert sigmoid(x).dtype == unit(rows).dtype == dtype
