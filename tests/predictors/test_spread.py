"""What chance explains, and what is left."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.predictors.kmeans import unit
from fairlead.predictors.spread import chance, misfit

RNG = np.random.default_rng(0)
X = unit(RNG.normal(size=(1200, 3)))
P = np.column_stack([0.5 + 0.4 * np.sign(X[:, 0]), np.full(1200, 0.8)])
Y = (RNG.random(P.shape) < P).astype(np.float64)


def test_chance_is_found_where_neighbours_are_alike() -> None:
    true_T = (P * (1.0 - P)).mean(axis=0)
    assert chance(X, Y) == pytest.approx(true_T.tolist(), abs=0.02)


def test_chance_is_no_less_where_neighbours_tell_nothing() -> None:
    # Shuffled rows: quality has nothing to do with where a query stands, so all of its variance is chance.
    shuffled = RNG.permutation(Y)
    assert (chance(X, shuffled) > 0.9 * Y.var(axis=0)).all()


def test_what_nobody_scored_is_left_out() -> None:
    part = np.where(RNG.random(Y.shape) < 0.5, np.nan, Y)
    part[:, 1] = np.nan
    found_T = chance(X, part)
    assert found_T[0] == pytest.approx(chance(X, Y)[0], abs=0.03)
    assert found_T[1] == np.inf
    assert misfit(np.full(Y.shape, 0.5), part, np.zeros(2), found_T)[1] == 0.0


def test_misfit_is_how_far_forecasts_are_off() -> None:
    chance_T = (P * (1.0 - P)).mean(axis=0)
    off = misfit(P, Y, np.zeros(2), chance_T)
    # Chance moves the squared error of 1,200 answers by about 0.01, of which this is the root.
    assert (off < 0.15).all()
    # The mean of all, where the truth is 0.1 or 0.9, is off by 0.4.
    blunt = misfit(np.tile(P.mean(axis=0), (1200, 1)), Y, np.zeros(2), chance_T)
    assert blunt[0] == pytest.approx(0.4, abs=0.05)
    assert misfit(np.full(Y.shape, np.nan), Y, np.zeros(2), chance_T).tolist() == [0.0, 0.0]


def test_one_query_tells_nothing() -> None:
    assert chance(X[:1], Y[:1]).tolist() == [np.inf, np.inf]
