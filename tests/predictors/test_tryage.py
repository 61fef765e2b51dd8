"""The perceptive router: losses, the card's checks on them, and a bias learned from what is observed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.errors import ConfigError
from fairlead.predictors.tryage import Tryage
from fairlead.testing import toy

Array = np.ndarray[Any, Any]


def experts(n: int, rng: np.random.Generator, *, informed: bool = True) -> tuple[Array, Array]:
    """Four topics, four experts, graded quality: features and mean quality."""
    topic = rng.integers(4, size=n)
    quality_QT = np.where(np.eye(4)[topic] > 0, 0.85, 0.35) + np.asarray([0.05, 0.0, 0.0, 0.0])
    shown = topic if informed else rng.integers(4, size=n)
    return 2.0 * np.eye(4)[shown] + 0.3 * rng.normal(size=(n, 4)), quality_QT


def fitted(x_QD: Array, quality_QT: Array, **given: Any) -> Tryage:
    predictor = Tryage(**given)
    predictor.targets_ = [f"t{t}" for t in range(quality_QT.shape[1])]
    predictor._fit(x_QD, quality_QT, toy(queries=len(x_QD)))
    return predictor


def noisy(quality_QT: Array, rng: np.random.Generator) -> Array:
    return np.clip(quality_QT + 0.1 * rng.normal(size=quality_QT.shape), 0.0, 1.0)


def test_the_best_expert_of_a_topic_is_picked() -> None:
    rng = np.random.default_rng(0)
    (x_QD, quality_QT), (new_QD, want_QT) = experts(400, rng), experts(200, rng)
    predictor = fitted(x_QD, noisy(quality_QT, rng))
    losses_QT = np.asarray([predictor.losses(x_D) for x_D in new_QD])
    forecast_QT = np.asarray([predictor._quality(x_D)[0] for x_D in new_QD])
    assert (losses_QT.argmin(axis=1) == want_QT.argmax(axis=1)).mean() > 0.9
    assert (forecast_QT.argmax(axis=1) == want_QT.argmax(axis=1)).mean() > 0.9
    # Log loss and quality are not the same thing; what is forecast is the latter.
    assert np.abs(forecast_QT - want_QT).mean() < 0.06


def test_without_information_the_best_on_average_is_picked() -> None:
    rng = np.random.default_rng(1)
    (x_QD, quality_QT), (new_QD, _) = experts(400, rng, informed=False), experts(100, rng, informed=False)
    quality_QT = noisy(quality_QT + np.asarray([0.0, 0.15, 0.0, 0.0]), rng)
    predictor = fitted(x_QD, quality_QT)
    picked = [predictor._quality(x_D)[0].argmax() for x_D in new_QD]
    assert np.mean(np.asarray(picked) == quality_QT.mean(axis=0).argmax()) > 0.9


def test_right_and_wrong_answers_have_loss_zero_and_one() -> None:
    x_QD = np.repeat([[1.0, 0.0], [0.0, 1.0]], 100, axis=0)
    predictor = fitted(x_QD, np.column_stack([x_QD[:, 0], x_QD[:, 1]]), dropout=0.0, input_dropout=0.0, rate=1e-2)
    np.testing.assert_allclose(predictor.losses(np.asarray([1.0, 0.0])), [0.0, 1.0], atol=0.1)


@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_the_floor_must_have_a_logarithm(floor: float) -> None:
    with pytest.raises(ConfigError, match="floor"):
        Tryage(floor=floor).check()


def test_the_bias_follows_what_is_observed_and_moves_one_target_alone() -> None:
    rng = np.random.default_rng(2)
    x_QD, quality_QT = experts(300, rng)
    predictor = fitted(x_QD, noisy(quality_QT, rng), pull=20.0)
    before_QT = np.asarray([predictor._quality(x_D)[0] for x_D in x_QD[:80]])
    before_sd = predictor._quality(x_QD[0])[1]
    for x_D, quality_T in zip(x_QD, quality_QT, strict=True):
        predictor._update(x_D, 1, float(quality_T[1] - 0.2))
    after_QT = np.asarray([predictor._quality(x_D)[0] for x_D in x_QD[:80]])
    moved_QT = after_QT - before_QT
    # 300 answers against a pull of 20: by 300 / 320 of what the target has got worse, the same on every query.
    assert moved_QT[:, 1].mean() == pytest.approx(-0.2 * 300 / 320, abs=0.02)
    assert moved_QT[:, 1].std() < 1e-9
    assert not moved_QT[:, [0, 2, 3]].any()
    assert predictor._quality(x_QD[0])[1][1] >= before_sd[1]
    predictor.decay(0.0)
    assert (predictor._quality(x_QD[0])[0] == before_QT[0]).all()


def test_a_new_target_is_its_running_mean() -> None:
    rng = np.random.default_rng(3)
    x_QD, quality_QT = experts(200, rng)
    predictor = fitted(x_QD, noisy(quality_QT, rng))
    predictor.targets_ = [*predictor.targets_, "new"]
    predictor._grow()
    assert predictor._quality(x_QD[0])[0][4] == 0.5
    spread = [predictor._quality(x_QD[0])[1][4]]
    for i in range(40):
        predictor._update(x_QD[i], 4, float(i % 4 == 0))
        spread.append(predictor._quality(x_QD[0])[1][4])
    assert predictor._quality(x_QD[0])[0][4] == pytest.approx((10 + 0.5) / 41)
    assert spread[0] == 0.5
    assert spread[-1] < 0.08
    assert predictor._quality(x_QD[0])[0][:4].argmax() == quality_QT[0].argmax()
