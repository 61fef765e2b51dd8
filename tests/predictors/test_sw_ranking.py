"""Similarity-weighted ranking: the weights of the paper, ordinary Bradley-Terry where all are alike, and Newton against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.predictors import sw_ranking
from fairlead.predictors.sw_ranking import SWRanking, battles, solve, weights
from fairlead.testing import toy

Array = np.ndarray[Any, Any]


def test_weights_lie_between_ten_times_ten_to_the_least_ratio_and_a_hundred() -> None:
    near_BN = np.random.default_rng(0).uniform(-0.3, 0.9, size=(5, 200)).astype(np.float32)
    weight_BN = weights(near_BN, 1.0)
    ratio_BN = near_BN / near_BN.max(axis=1, keepdims=True)
    np.testing.assert_allclose(weight_BN, 10.0 * 10.0**ratio_BN, rtol=1e-5)
    np.testing.assert_allclose(weight_BN.max(axis=1), 100.0, rtol=1e-5)


def test_where_nothing_is_similar_all_weigh_the_same() -> None:
    for worst in (0.0, -0.5):
        near_BN = np.asarray([[worst, worst - 0.2, worst]], dtype=np.float32)
        assert len(set(weights(near_BN, 1.0)[0].tolist())) == 1


def test_left_out_queries_weigh_nothing() -> None:
    near_BN = np.asarray([[1.0, 0.5, 0.1]], dtype=np.float32)
    allowed_BN = np.asarray([[False, True, True]])
    weight_B = weights(near_BN, 1.0, allowed_BN)[0]
    assert weight_B[0] == 0.0
    assert weight_B[1] == pytest.approx(100.0)


def by_brute_force(quality_NT: Array, weight_N: Array, ranks_T: Array, penalty: float) -> Array:
    """Bradley-Terry by gradient ascent on the battles one by one."""
    delta_T = ranks_T.copy()
    for _ in range(4000):
        gradient_T = -penalty * (delta_T - ranks_T)
        for w, y_T in zip(weight_N, quality_NT, strict=True):
            won_TT = y_T[:, None] > y_T[None, :]
            lost_TT = w * won_TT / (1.0 + np.exp(delta_T[:, None] - delta_T[None, :]))
            gradient_T += lost_TT.sum(axis=1) - lost_TT.sum(axis=0)
        delta_T = delta_T + 0.5 * gradient_T
        if np.abs(gradient_T).max() < 1e-9:
            break
    return delta_T


def test_newton_finds_what_brute_force_finds() -> None:
    rng = np.random.default_rng(1)
    quality_NT = (rng.random((25, 4)) < np.asarray([0.2, 0.5, 0.6, 0.9])).astype(np.float64)
    quality_NT[rng.random(quality_NT.shape) < 0.2] = np.nan
    weight_N = rng.random(25) / 25.0
    sums_BS = (weight_N @ battles(quality_NT))[None, :-2]
    ranks_T = np.asarray([-0.5, 0.0, 0.0, 0.5])
    want_T = by_brute_force(quality_NT, weight_N, ranks_T, 0.05)
    np.testing.assert_allclose(solve(sums_BS, ranks_T, np.full(1, 0.05), 30)[0][0], want_T, atol=1e-6)
    assert want_T.mean() == pytest.approx(ranks_T.mean())


def test_the_inverse_curvature_is_that_of_the_differences() -> None:
    # Two targets, n battles each: the log-odds of a win have curvature n p (1 - p), and delta less its mean is half of them.
    won_BT, fought_BP = np.asarray([[30.0, 10.0]]), np.asarray([[40.0]])
    delta_BT, inverse_BT = solve(np.hstack([won_BT, fought_BP]), np.zeros(2), np.full(1, 1e-6), 30)
    assert delta_BT[0, 0] - delta_BT[0, 1] == pytest.approx(np.log(3.0), rel=1e-4)
    np.testing.assert_allclose(inverse_BT[0], 1.0 / (40.0 * 0.75 * 0.25) / 4.0, rtol=1e-3)


def fitted(x_QD: Array, quality_QT: Array, **given: Any) -> SWRanking:
    predictor = SWRanking(**given)
    predictor.targets_ = [f"t{t}" for t in range(quality_QT.shape[1])]
    predictor._fit(x_QD, quality_QT, toy(queries=len(x_QD)))
    return predictor


def test_with_all_queries_alike_it_is_the_ordinary_ranking_and_the_mean() -> None:
    rng = np.random.default_rng(2)
    quality_QT = (rng.random((300, 3)) < np.asarray([0.3, 0.6, 0.8])).astype(np.float64)
    predictor = fitted(np.ones((300, 4)), quality_QT, sharpness=1.0)
    _, delta_BT, _, _ = predictor._rank(weights(predictor.x_[:1] @ predictor.x_.T, 1.0))
    ordinary_BT, _ = solve(battles(quality_QT).mean(axis=0)[None, :-2], np.zeros(3), np.full(1, 1e-9), 30)
    # The pull holds the ranking of all queries, and by it that of one, back a little.
    np.testing.assert_allclose(delta_BT + predictor.ranks_, ordinary_BT, atol=0.02)
    assert (np.abs(predictor.ranks_) < np.abs(ordinary_BT[0])).all()
    np.testing.assert_allclose(predictor._quality(np.ones(4))[0], quality_QT.mean(axis=0), atol=0.01)
    # The ranking agrees with what Bradley-Terry says of the battles of two alone.
    won, lost = (quality_QT[:, 2] > quality_QT[:, 0]).sum(), (quality_QT[:, 2] < quality_QT[:, 0]).sum()
    assert predictor.ranks_[2] - predictor.ranks_[0] == pytest.approx(np.log(won / lost), abs=0.35)


def test_three_steps_are_as_good_as_thirty(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    topic = rng.integers(3, size=400)
    quality_QT = (rng.random((400, 3)) < np.where(np.eye(3)[topic] > 0, 0.95, 0.1)).astype(np.float64)
    predictor = fitted(np.eye(3)[topic] + 0.1 * rng.normal(size=(400, 3)), quality_QT)
    quick_T, _ = predictor._quality(np.eye(3)[0])
    monkeypatch.setattr(sw_ranking, "_STEPS", 30)
    np.testing.assert_allclose(quick_T, predictor._quality(np.eye(3)[0])[0], atol=0.02)
    assert quick_T[0] > 0.8 > 0.3 > quick_T[1:].max()


def test_it_is_sharp_where_that_helps_and_not_where_nothing_does() -> None:
    rng = np.random.default_rng(4)
    x_QD = rng.normal(size=(600, 3))
    taste_QT = np.column_stack([x_QD[:, 0] * x_QD[:, 1] > 0, x_QD[:, 0] * x_QD[:, 1] < 0])
    sharp = fitted(x_QD, (rng.random((600, 2)) < np.where(taste_QT, 0.95, 0.05)).astype(np.float64))
    assert sharp.sharpness_ > 1.0
    apart = sharp._quality(np.asarray([2.0, 2.0, 0.0]))[0]
    assert apart[0] > apart[1] + 0.3


def test_memory_keeps_an_even_sample(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(5)
    x_QD, quality_QT = rng.normal(size=(50, 3)), rng.random((50, 2))
    predictor = fitted(x_QD, quality_QT, memory=20)
    assert predictor.x_.shape == (20, 3)
    assert "memory" in caplog.text


def test_targets_that_never_met_are_ranked_through_a_third() -> None:
    quality_QT = np.full((200, 3), np.nan)
    rng = np.random.default_rng(6)
    quality_QT[:100, 0], quality_QT[:100, 1] = rng.random(100) < 0.9, rng.random(100) < 0.5
    quality_QT[100:, 1], quality_QT[100:, 2] = rng.random(100) < 0.5, rng.random(100) < 0.1
    predictor = fitted(rng.normal(size=(200, 3)), quality_QT)
    assert (np.diff(predictor.ranks_) < -0.5).all()
