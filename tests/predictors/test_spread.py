"""What neighbours share is error; chance is not shared."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.predictors.spread import neighbours, shared_error

RNG = np.random.default_rng(0)
N = 1200
X = RNG.normal(size=(N, 4))
P = np.stack([np.where(X[:, 0] > 0, 0.9, 0.1), np.full(N, 0.5)], axis=1)
Y = (RNG.random(P.shape) < P).astype(np.float64)
APART = np.arange(N)


def test_forecasts_that_are_right_share_nothing() -> None:
    assert (shared_error(X, Y - P, APART) < 0.01).all()


def test_forecasts_that_are_off_show_by_how_much() -> None:
    off = shared_error(X, Y - 0.5, APART)
    # The truth is 0.1 or 0.9: off by 0.4, and most neighbours lie on the same side.
    assert np.sqrt(off[0]) == pytest.approx(0.4, abs=0.08)
    assert off[1] < 0.01


def test_copies_of_a_prompt_are_no_neighbours() -> None:
    x, groups = np.repeat(X[:300], 4, axis=0), np.repeat(np.arange(300), 4)
    y = np.repeat((RNG.random((300, 1)) < 0.5).astype(np.float64), 4, axis=0)
    assert shared_error(x, y - 0.5, np.arange(1200))[0] > 0.05
    assert shared_error(x, y - 0.5, groups)[0] < 0.02


def test_what_nobody_scored_is_left_out() -> None:
    residual = Y - 0.5
    residual[RNG.random(N) < 0.7, 0] = np.nan
    residual[:, 1] = np.nan
    off = shared_error(X, residual, APART)
    assert np.sqrt(off[0]) == pytest.approx(0.4, abs=0.1)
    assert off[1] == 0.0


def test_too_few_to_tell() -> None:
    assert shared_error(X[:1], Y[:1], APART[:1]).tolist() == [0.0, 0.0]
    assert shared_error(X[:4], Y[:4] - 0.5, np.zeros(4, np.int64)).tolist() == [0.0, 0.0]


def test_neighbours_come_nearest_first() -> None:
    x = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.5], [0.0, 1.0]])
    top, good = neighbours(x, np.array([0]), np.arange(4), 2)
    assert top.tolist() == [[1, 2]]
    assert good.all()
