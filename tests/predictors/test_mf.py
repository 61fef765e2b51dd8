"""Matrix factorisation from battles: its gradient, what a battle is, and that it finds low-rank tastes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.bench.metrics import auroc
from fairlead.predictors import nets
from fairlead.predictors.mf import Bilinear, deltas, easiness

Array = np.ndarray[Any, Any]


def log_loss(net: Bilinear, params: nets.Params, x_KBD: Array, y_KBT: Array) -> float:
    """Summed log loss of all battles, written out."""
    delta_KBT = net.score(params, x_KBD.astype(np.float32)).astype(np.float64)
    total = 0.0
    for k, b, i, j in np.ndindex(*y_KBT.shape, y_KBT.shape[2]):
        if y_KBT[k, b, i] > y_KBT[k, b, j]:
            total += float(np.log1p(np.exp(delta_KBT[k, b, j] - delta_KBT[k, b, i])))
    return total


def test_the_gradient_is_that_of_the_log_loss_of_all_battles() -> None:
    rng = np.random.default_rng(0)
    net = Bilinear(5, 3, 4, 0.0)
    params = {name: value * 3.0 for name, value in net.start(rng, 2).items()}
    x_KBD, y_KBT = rng.normal(size=(2, 6, 5)), rng.integers(3, size=(2, 6, 3)) / 2.0
    y_KBT[0, 1, 2] = y_KBT[1, 0, 0] = np.nan
    found = net.gradient(params, x_KBD.astype(np.float32), y_KBT.astype(np.float32), rng)
    for name, value in params.items():
        for at in list(np.ndindex(*value.shape))[:: max(1, value.size // 12)]:
            moved = [{**params, name: value.copy()} for _ in range(2)]
            moved[0][name][at] += 1e-2
            moved[1][name][at] -= 1e-2
            want = (log_loss(net, moved[0], x_KBD, y_KBT) - log_loss(net, moved[1], x_KBD, y_KBT)) / 2e-2
            assert found[name][at] == pytest.approx(want, rel=0.02, abs=0.01), (name, at)


def test_ties_and_what_nobody_scored_are_no_battles() -> None:
    net = Bilinear(3, 2, 4, 0.5)
    rng = np.random.default_rng(1)
    params = net.start(rng, 1)
    y_KBT = np.asarray([[[0.5, 0.5], [np.nan, 1.0], [0.0, np.nan]]], dtype=np.float32)
    for g in net.gradient(params, np.ones((1, 3, 3), dtype=np.float32), y_KBT, rng).values():
        assert not g.any()
    assert net.error(np.zeros((3, 2), dtype=np.float32), y_KBT[0]) == 0.0


def test_low_rank_battles_are_learned() -> None:
    rng = np.random.default_rng(2)
    taste_DL, target_LT = rng.normal(size=(6, 2)), rng.normal(size=(2, 5))

    def fought(n: int) -> tuple[Array, Array]:
        x_QD = np.column_stack([rng.normal(size=(n, 6)), np.ones(n)])
        chance = 1.0 / (1.0 + np.exp(-x_QD[:, :6] @ taste_DL @ target_LT))
        return x_QD, (rng.random(chance.shape) < chance).astype(np.float64)

    (x_QD, y_QT), (new_QD, new_QT) = fought(600), fought(300)
    net = Bilinear(7, 5, 8, 0.5)
    weights, held_QT = nets.train(net, x_QD, y_QT, np.arange(600), epochs=60, rate=3e-3, seed=0)
    delta_QT = deltas(weights, new_QD.astype(np.float32)).mean(axis=0)
    first, second = np.triu_indices(5, 1)
    fights = new_QT[:, first] != new_QT[:, second]
    gap_QP, won_QP = delta_QT[:, first] - delta_QT[:, second], new_QT[:, first] > new_QT[:, second]
    assert auroc(gap_QP[fights], won_QP[fights]) > 0.85
    # Swapping the two gives the complement, and a target against itself an even chance: only differences count.
    chance = 1.0 / (1.0 + np.exp(-gap_QP))
    np.testing.assert_allclose(chance + 1.0 / (1.0 + np.exp(gap_QP)), 1.0, rtol=1e-5)
    # A query's held-out deltas tell winners too, though less surely than a look at the answers would.
    start = net.error(np.zeros((600, 5), dtype=np.float32), y_QT.astype(np.float32))
    assert start == pytest.approx(0.25)
    assert 0.05 < net.error(held_QT.astype(np.float32), y_QT.astype(np.float32)) < 0.2


def test_easiness_is_what_targets_have_in_common() -> None:
    rng = np.random.default_rng(3)
    x_QD = rng.normal(size=(500, 4))
    y_QT = np.clip(np.asarray([0.3, 0.6]) + 0.1 * x_QD[:, :1] + 0.1 * rng.normal(size=(500, 2)), 0.0, 1.0)
    y_QT[rng.random(y_QT.shape) < 0.3] = np.nan
    weights_KD, held_Q = easiness(x_QD, y_QT, np.arange(500) % 5)
    assert weights_KD.shape == (5, 5)
    assert np.corrcoef(held_Q, x_QD[:, 0])[0, 1] > 0.9
    assert abs(held_Q.mean()) < 0.02
