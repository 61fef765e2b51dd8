"""The map from scores to quality, and what all methods that use it promise: they shrink, they are calibrated, their spread covers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fairlead.bench.metrics import ece
from fairlead.predictors import anchor
from fairlead.predictors.base import Predictor
from fairlead.predictors.mf import MF
from fairlead.predictors.mlp import MLP
from fairlead.predictors.statistics import sigmoid
from fairlead.predictors.sw_ranking import SWRanking
from fairlead.predictors.tryage import Tryage
from fairlead.table import OutcomeTable

Array = np.ndarray[Any, Any]
METHODS: dict[str, Callable[[], Predictor]] = {
    "mf": MF,
    "sw_ranking": SWRanking,
    "mlp": lambda: MLP(hidden=32),
    "tryage": Tryage,
}


def fitted(name: str, x_QD: Array, quality_QT: Array, *, groups: Array | None = None) -> Predictor:
    """Fit a method on features as they are, without text."""
    predictor: Predictor = METHODS[name]()
    predictor.targets_ = [f"t{t}" for t in range(quality_QT.shape[1])]
    keys = [str(i) for i in range(len(x_QD))] if groups is None else [f"g{g}" for g in groups]
    columns = {"query_id": [str(i) for i in range(len(x_QD))], "prompt": keys, "model": ["m"] * len(x_QD)}
    table = OutcomeTable.from_columns({**columns, "quality": [0.0] * len(x_QD)})
    predictor._fit_whole(x_QD, quality_QT, table)
    return predictor


def forecasts(predictor: Predictor, x_QD: Array) -> tuple[Array, Array]:
    found = [predictor._stated(x_D) for x_D in x_QD]
    return np.asarray([q for q, _ in found]), np.asarray([sd for _, sd in found])


def specialists(n: int, rng: np.random.Generator, *, right: float = 0.9, wrong: float = 0.2) -> tuple[Array, Array]:
    """Four topics, and four targets that each master one: features and chances."""
    topic = rng.integers(4, size=n)
    x_QD = np.column_stack([2.0 * np.eye(4)[topic] - 0.5 + 0.4 * rng.normal(size=(n, 4)), rng.normal(size=(n, 4))])
    return x_QD, np.where(np.eye(4)[topic] > 0, right, wrong)


def slopes(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    x_QD = rng.normal(size=(n, 6))
    p_QT = [
        0.5 + 0.4 * np.tanh(x_QD[:, 0]),
        0.8 - 0.18 * np.tanh(x_QD[:, 1] + x_QD[:, 2]),
        0.6 + 0.3 * np.tanh(x_QD[:, 1]),
    ]
    return x_QD, np.column_stack(p_QT)


def drawn(p_QT: Array, rng: np.random.Generator, *, missing: float = 0.0) -> Array:
    y_QT = (rng.random(p_QT.shape) < p_QT).astype(np.float64)
    y_QT[rng.random(p_QT.shape) < missing] = np.nan
    return y_QT


@pytest.mark.parametrize("name", METHODS)
def test_specialists_are_found(name: str) -> None:
    rng = np.random.default_rng(0)
    (x_QD, p_QT), (new_QD, want_QT) = specialists(500, rng), specialists(200, rng)
    quality_QT, _ = forecasts(fitted(name, x_QD, drawn(p_QT, rng)), new_QD)
    assert want_QT[np.arange(200), quality_QT.argmax(axis=1)].mean() >= 0.95 * 0.9
    assert np.abs(quality_QT - want_QT).mean() < 0.1


@pytest.mark.parametrize("name", METHODS)
def test_outcomes_that_do_not_depend_on_the_text_are_forecast_by_their_mean(name: str) -> None:
    rng = np.random.default_rng(1)
    x_QD, p_QT = specialists(600, rng)
    y_QT = drawn(p_QT * np.asarray([1.0, 0.9, 0.8, 0.3]), rng)[rng.permutation(600)]
    quality_QT, _ = forecasts(fitted(name, x_QD, y_QT), x_QD[:200])
    assert np.abs(quality_QT - y_QT.mean(axis=0)).mean() < 0.03
    assert (quality_QT.argmax(axis=1) == y_QT.mean(axis=0).argmax()).mean() > 0.9


@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("name", METHODS)
def test_the_spread_covers_what_is_true(name: str, missing: float) -> None:
    # 95% would be covered by a perfect spread; five members give a rough one, and what was missed is a floor.
    rng = np.random.default_rng(2)
    covered, spread, error = [], [], []
    for make in (slopes, specialists):
        (x_QD, p_QT), (new_QD, want_QT) = make(600, rng), make(100, rng)
        quality_QT, sd_QT = forecasts(fitted(name, x_QD, drawn(p_QT, rng, missing=missing)), new_QD)
        covered.append(np.abs(quality_QT - want_QT) <= 1.96 * sd_QT)
        spread.append(sd_QT)
        error.append((quality_QT - want_QT) ** 2)
    assert np.mean([c.mean() for c in covered]) >= 0.85
    rms = np.sqrt(np.mean([e.mean() for e in error]))
    assert 0.5 * rms < np.mean([s.mean() for s in spread]) < 2.0 * rms  # it says something, too


@pytest.mark.parametrize("name", METHODS)
def test_forecasts_of_new_queries_are_calibrated(name: str) -> None:
    rng = np.random.default_rng(3)
    (x_QD, p_QT), (new_QD, want_QT) = slopes(800, rng), slopes(1500, rng)
    quality_QT, _ = forecasts(fitted(name, x_QD, drawn(p_QT, rng)), new_QD)
    assert ece(quality_QT.ravel(), drawn(want_QT, rng).ravel()) <= 0.05


@pytest.mark.parametrize("name", METHODS)
def test_a_target_that_nobody_scored_is_not_known(name: str) -> None:
    rng = np.random.default_rng(4)
    x_QD, p_QT = specialists(120, rng)
    y_QT = drawn(p_QT, rng)
    y_QT[:, 2] = np.nan
    quality_QT, sd_QT = forecasts(fitted(name, x_QD, y_QT), x_QD[:20])
    np.testing.assert_allclose(quality_QT[:, 2], 0.5, atol=0.2)
    assert (sd_QT[:, 2] == Predictor.unknown_sd).all()
    assert (sd_QT[:, :2] < 0.4).all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("queries", [1, 2, 12])
def test_few_queries_and_one_target_are_no_trouble(name: str, queries: int) -> None:
    x_QD = np.random.default_rng(5).normal(size=(queries, 3))
    predictor = fitted(name, x_QD, np.ones((queries, 1)))
    quality_QT, sd_QT = forecasts(predictor, x_QD)
    assert ((quality_QT > 0.5) & (quality_QT < 1.0)).all()
    assert (sd_QT > 0.0).all()


@pytest.mark.parametrize("name", METHODS)
def test_equal_prompts_do_not_teach_each_other(name: str) -> None:
    # Every query is there four times with the same answers, which are noise: whoever tests on copies believes in it.
    rng = np.random.default_rng(6)
    x_QD, y_QT = rng.normal(size=(100, 20)), (rng.random((100, 3)) < 0.5).astype(np.float64)
    group_Q = np.repeat(np.arange(100), 4)
    quality_QT, _ = forecasts(fitted(name, x_QD[group_Q], y_QT[group_Q], groups=group_Q), x_QD)
    assert np.std(quality_QT - quality_QT.mean(axis=0)) < 0.12


def test_slopes_and_offsets_are_those_that_made_the_outcomes() -> None:
    rng = np.random.default_rng(7)
    common_Q, own_QT = rng.normal(size=4000), rng.normal(size=(4000, 3))
    offset_T = np.asarray([-1.0, 0.5, 2.0])
    p_QT = sigmoid(offset_T + 0.7 * common_Q[:, None] + 1.3 * own_QT)
    found = anchor.learn(common_Q, own_QT, drawn(p_QT, rng, missing=0.3))
    np.testing.assert_allclose(found["slope"], [0.7, 1.3], atol=0.1)
    np.testing.assert_allclose(found["offset"], offset_T, atol=0.15)


def test_scores_that_point_the_wrong_way_are_not_used() -> None:
    rng = np.random.default_rng(8)
    common_Q, own_QT = rng.normal(size=800), rng.normal(size=(800, 2))
    y_QT = drawn(sigmoid(common_Q[:, None] - own_QT), rng)
    found = anchor.learn(common_Q, own_QT, y_QT)
    assert found["slope"][1] == 0.0
    assert found["slope"][0] > 0.5
    np.testing.assert_allclose(sigmoid(found["offset"]), y_QT.mean(axis=0), atol=0.03)


def test_the_jackknife_is_the_standard_error_of_a_mean() -> None:
    # Leaving out one group in turn: of independent numbers the jackknife gives var / n, here 1 / 50.
    rng = np.random.default_rng(10)
    found = []
    for _ in range(300):
        groups = rng.normal(size=(5, 10))
        left_out = (groups.sum() - groups.sum(axis=1)) / 40.0
        mean_T, variance_T = anchor.jackknife(left_out[:, None])
        assert mean_T[0] == pytest.approx(groups.mean())
        found.append(variance_T[0])
    assert np.mean(found) == pytest.approx(0.02, rel=0.15)
