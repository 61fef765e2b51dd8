"""The graph of groups and targets: its loss, its weights, what was never tried, and what is served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.errors import TableError
from fairlead.predictors.clusters import Clusters
from fairlead.predictors.graph import Graph, degrees, evidence, factorise
from fairlead.predictors.kmeans import Floats
from fairlead.table import OutcomeTable


def table_of(n: int) -> OutcomeTable:
    prompts = [f"prompt {i}" for i in range(n)]
    return OutcomeTable.from_columns({"query_id": prompts, "prompt": prompts, "model": ["a"] * n, "quality": [1.0] * n})


def fit(x: Floats, y: Floats, **given: Any) -> Graph:
    predictor = Graph(**given)
    predictor._fit_whole(x, y, table_of(len(x)))
    return predictor


def sigmoid(z: Floats) -> Floats:
    out: Floats = 1.0 / (1.0 + np.exp(-z))
    return out


def log_loss(good: Floats, bad: Floats, odds: Floats, u: Floats, v: Floats, gamma: float) -> float:
    p = sigmoid(odds + u @ v.T)
    penalty = gamma / 2.0 * ((u**2).sum() + (v**2).sum())
    return float(-(good * np.log(p) + bad * np.log(1.0 - p)).sum() + penalty)


RNG = np.random.default_rng(0)
U, V = RNG.normal(size=(30, 2)), RNG.normal(size=(8, 2))
TRUE = sigmoid(U @ V.T)
"""Quality of 8 targets in 30 groups, of rank 2 in the log-odds."""


def counted(answers: int, missing: float = 0.0, seed: int = 1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    count = np.full(TRUE.shape, float(answers))
    count[rng.random(TRUE.shape) < missing] = 0.0
    return count, rng.binomial(count.astype(np.int64), TRUE).astype(np.float64)


def test_without_weights_it_is_matrix_factorisation_with_cross_entropy() -> None:
    from scipy.optimize import minimize

    count, total = counted(20)
    good, bad = evidence(count, total, w2=0.0, w4=0.0, lam=0.0)
    np.testing.assert_array_equal(good, total)
    np.testing.assert_array_equal(bad, count - total)
    odds = np.zeros(8)
    u, v = factorise(good, bad, odds, dims=2, gamma=1.0)

    def loss(flat: Floats) -> tuple[float, Floats]:
        a, b = flat[:60].reshape(30, 2), flat[60:].reshape(8, 2)
        wrong = (good + bad) * sigmoid(a @ b.T) - good
        return log_loss(good, bad, odds, a, b, 1.0), np.concatenate(
            [(wrong @ b + a).ravel(), (wrong.T @ a + b).ravel()]
        )

    least = minimize(loss, np.concatenate([u.ravel(), v.ravel()]), jac=True, method="L-BFGS-B").fun
    assert log_loss(good, bad, odds, u, v, 1.0) == pytest.approx(least, rel=0.005)


def test_the_steps_never_raise_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    count, total = counted(20, missing=0.5)
    good, bad = evidence(count, total, w2=2.0, w4=1.0, lam=0.1)
    found = []
    for rounds in range(8):
        monkeypatch.setattr("fairlead.predictors.graph._ROUNDS", rounds)
        u, v = factorise(good, bad, np.zeros(8), dims=3, gamma=0.5)
        found.append(log_loss(good, bad, np.zeros(8), u, v, 0.5))
    assert (np.diff(found) <= 1e-9).all()
    assert found[-1] < found[0] - 1.0


def test_degrees_are_those_of_the_paper_and_zero_divides_nothing() -> None:
    count, total = np.full((2, 2), 10.0), np.asarray([[10.0, 5.0], [0.0, 0.0]])
    # Degrees: 1.5 of the first group, 0 of the second; 1 and 0.5 of the targets.
    beta = degrees(count, total)
    assert beta[0, 0] == pytest.approx(np.sqrt(2.5) / 1.5 / np.sqrt(2.0))
    assert beta[0, 1] == pytest.approx(np.sqrt(2.5) / 1.5 / np.sqrt(1.5))
    assert np.isfinite(beta).all()
    for given in ({"w2": 3.0, "w4": 3.0, "lam": 1.0}, {"w2": 0.0, "w4": 0.0, "lam": 1.0}):
        good, bad = evidence(np.zeros((2, 2)), np.zeros((2, 2)), **given)
        assert not good.any()
        assert not bad.any()


def test_item_item_adds_the_answers_of_like_targets_successes_and_failures() -> None:
    # Targets 0 and 1 succeed together, target 2 elsewhere. Target 1 was never tried in the last group.
    count = np.full((4, 3), 10.0)
    total = np.asarray([[9.0, 9.0, 1.0], [9.0, 9.0, 1.0], [1.0, 1.0, 9.0], [8.0, 0.0, 1.0]])
    count[3, 1] = 0.0
    good, bad = evidence(count, total, w2=0.0, w4=0.0, lam=0.5)
    r = total / np.maximum(count, 1e-9)
    g = r.T @ r
    s01 = g[0, 1] / (g[0].sum() - g[0, 0]) * np.sqrt(g[0].sum() / g[1].sum())
    s21 = g[2, 1] / (g[2].sum() - g[2, 2]) * np.sqrt(g[2].sum() / g[1].sum())
    assert good[3, 1] == pytest.approx(0.5 * (8.0 * s01 + 1.0 * s21))
    assert bad[3, 1] == pytest.approx(0.5 * (2.0 * s01 + 9.0 * s21))
    assert s01 > s21


def test_never_tried_is_not_a_failure() -> None:
    count, total = counted(200, missing=0.4)
    predictor = Graph()
    mean = total.sum(axis=0) / count.sum(axis=0)
    said = predictor._scores(count, total, mean, 1.0, 0.0)
    untried = count == 0
    assert untried.sum() > 50
    # Counted as failures the cells would be forecast near 0. As it is they are forecast about as they are, without bias.
    assert abs((said - TRUE)[untried].mean()) < 0.05
    assert np.corrcoef(said[untried], TRUE[untried])[0, 1] > 0.85


def test_the_ranking_of_cells_held_out_is_that_of_the_success_table() -> None:
    count, total = counted(60)
    held_out = np.random.default_rng(2).random(TRUE.shape) < 0.25
    rate = total / count
    mean = np.where(held_out, 0.0, total).sum(axis=0) / np.where(held_out, 0.0, count).sum(axis=0)
    said = Graph()._scores(np.where(held_out, 0.0, count), np.where(held_out, 0.0, total), mean, 1.0, 0.0)
    assert np.corrcoef(said[held_out], rate[held_out])[0, 1] > 0.85


def test_unlike_weights_shift_no_forecast() -> None:
    # Rank is full, so that the fit itself can follow whatever the weights ask for.
    count, total = counted(2000)
    mean = total.sum(axis=0) / count.sum(axis=0)
    plain = Graph(dims=8)._scores(count, total, mean, 1e-3, 0.0)
    weighed = Graph(dims=8, w2=6.0, w4=1.0)._scores(count, total, mean, 1e-3, 0.0)
    np.testing.assert_allclose(weighed, plain, atol=0.03)


def test_where_most_was_never_tried_it_is_better_than_the_means_of_groups() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(30, size=2400)
    corner = rng.normal(size=(30, 16))
    x = 4.0 * corner[kind] + 0.3 * rng.normal(size=(2400, 16))
    y = np.where(rng.random((2400, 8)) < 0.9, np.nan, rng.random((2400, 8)) < TRUE[kind])
    new, want = 4.0 * corner, TRUE
    off = []
    for predictor in (Clusters(ks=(30,)), Graph(ks=(30,))):
        predictor._fit_whole(x, y, table_of(len(x)))
        said = np.asarray([predictor._stated(row)[0] for row in new])
        off.append(float(np.sqrt(((said - want) ** 2).mean())))
    assert off[1] < 0.85 * off[0]


def test_heavy_penalty_and_pull_leave_the_mean() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), (rng.random((300, 3)) < (0.2, 0.5, 0.8)).astype(np.float64)
    quality, _ = fit(x, y, gamma=1e6, pull=1e6, lam=0.0)._stated(x[0])
    np.testing.assert_allclose(quality, y.mean(axis=0), atol=0.01)
    shuffled = fit(x, y)
    said = np.asarray([shuffled._stated(row)[0] for row in x])
    assert np.abs(said - y.mean(axis=0)).max() < 0.12


@pytest.mark.parametrize("missing", [0.0, 0.6])
def test_the_spread_covers_what_is_true(missing: float) -> None:
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(3):
        x, new = rng.normal(size=(600, 4)), rng.normal(size=(100, 4))
        p, want = ((0.5 + 0.4 * np.tanh(z[:, :2])) for z in (x, new))
        y = np.where(rng.random(p.shape) < missing, np.nan, rng.random(p.shape) < p)
        predictor = fit(x, y)
        for row, true in zip(new, want, strict=True):
            quality, sd = predictor._stated(row)
            covered.append(np.abs(quality - true) <= 1.96 * sd)
            assert ((sd > 0.0) & (sd < 0.35)).all()
    assert np.mean(covered) >= 0.78  # a floor: what changes from one neighbour to the next is not seen


def test_the_same_seed_gives_the_same_fit_and_one_target_is_enough() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), (rng.random((200, 1)) < 0.7).astype(np.float64)
    assert fit(x, y, seed=2).digest() == fit(x, y, seed=2).digest()
    quality, sd = fit(x, y)._stated(x[0])
    assert quality[0] == pytest.approx(0.7, abs=0.1)
    assert sd[0] > 0.0
    with pytest.raises(TableError, match="no scored answers"):
        fit(x, np.full(y.shape, np.nan))
