"""The net and its training: gradients, early stopping, what each member has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.predictors import nets
from fairlead.predictors.mlp import MLP
from fairlead.predictors.statistics import means
from fairlead.testing import observer_of, toy

Array = np.ndarray[Any, Any]


def trunk(*, logistic: bool, inputs: int = 4, targets: int = 3, dropout: float = 0.0) -> nets.Trunk:
    mean_T = np.full(targets, 0.6)
    return nets.Trunk(inputs, 5, mean_T, dropout=dropout, input_dropout=dropout, logistic=logistic)


@pytest.mark.parametrize("logistic", [False, True])
def test_the_gradient_is_that_of_the_loss(logistic: bool) -> None:
    rng = np.random.default_rng(0)
    net = trunk(logistic=logistic)
    # In double precision, so that steps can be too small to cross a kink.
    params: Any = {name: value.astype(np.float64) for name, value in net.start(rng, 2).items()}
    params["w2"] += rng.normal(size=params["w2"].shape)
    x_KBD, y_KBT = rng.normal(size=(2, 7, 4)).astype(np.float32), rng.random((2, 7, 3)).astype(np.float32)
    y_KBT[0, 0, 0] = y_KBT[1, 3, 2] = np.nan

    def loss(moved: nets.Params) -> float:
        z = np.stack([nets.through({n: v[k : k + 1] for n, v in moved.items()}, x_KBD[k])[0] for k in range(2)])
        each = np.log1p(np.exp(z)) - y_KBT * z if logistic else 0.5 * (z - y_KBT) ** 2
        return float(np.nansum(each))

    found = net.gradient(params, x_KBD, y_KBT, rng)
    for name, value in params.items():
        for at in list(np.ndindex(*value.shape))[:: max(1, value.size // 12)]:
            up, down = {**params, name: value.copy()}, {**params, name: value.copy()}
            up[name][at] += 1e-5
            down[name][at] -= 1e-5
            assert found[name][at] == pytest.approx((loss(up) - loss(down)) / 2e-5, rel=1e-3, abs=1e-3), (name, at)


def test_dropout_changes_no_mean() -> None:
    rng = np.random.default_rng(1)
    net = trunk(logistic=False, dropout=0.5)
    params = net.start(rng, 1)
    x_KBD, y_KBT = np.ones((1, 20_000, 4), dtype=np.float32), np.zeros((1, 20_000, 3), dtype=np.float32)
    dropped, plain = net.gradient(params, x_KBD, y_KBT, rng), trunk(logistic=False).gradient(params, x_KBD, y_KBT, rng)
    np.testing.assert_allclose(dropped["b2"], plain["b2"], rtol=1e-3)
    assert not np.allclose(dropped["w2"], plain["w2"], rtol=1e-4)


def test_no_member_learns_from_its_own_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[float]] = [set() for _ in range(nets.MEMBERS)]
    gradient = nets.Trunk.gradient

    def spied(self: nets.Trunk, params: Any, x_KBD: Array, y_KBT: Array, rng: Any) -> Any:
        for k, x_BD in enumerate(x_KBD):
            seen[k] |= set(x_BD[:, 0].tolist())
        return gradient(self, params, x_KBD, y_KBT, rng)

    monkeypatch.setattr(nets.Trunk, "gradient", spied)
    rng = np.random.default_rng(2)
    group_Q = np.repeat(np.arange(50), 2)
    x_QD, y_QT = np.column_stack([group_Q.astype(float), rng.normal(size=(100, 3))]), rng.random((100, 3))
    nets.train(trunk(logistic=True), x_QD, y_QT, group_Q, epochs=2, rate=1e-3, seed=0)
    unseen = [set(range(50)) - {int(v) for v in s} for s in seen]
    # Each prompt is left out by exactly one member, copies included.
    assert sorted(v for s in unseen for v in s) == list(range(50))


def test_the_best_epoch_is_kept() -> None:
    # Noise: anything learned is worse than the start, so the start is what is kept.
    rng = np.random.default_rng(3)
    x_QD, y_QT = rng.normal(size=(60, 30)), (rng.random((60, 2)) < 0.5).astype(np.float64)
    net = nets.Trunk(30, 64, means(y_QT), dropout=0.0, input_dropout=0.0, logistic=True)
    _, held_QT = nets.train(net, x_QD, y_QT, np.arange(60), epochs=40, rate=1e-2, seed=0)
    start = net.error(np.zeros((60, 2), dtype=np.float32), y_QT.astype(np.float32))
    assert net.error(held_QT.astype(np.float32), y_QT.astype(np.float32)) < start + 0.01


def test_the_seed_decides() -> None:
    predictors = [MLP(hidden=8, epochs=3, seed=seed) for seed in (0, 0, 1)]
    table = toy(queries=60).observed(observer_of(predictors[0].needs), predictors[0].needs)
    for p in predictors:
        p.fit(table)
    digests = [np.asarray(p.weights_["w1"]).tobytes() for p in predictors]
    assert digests[0] == digests[1] != digests[2]


def test_the_members_disagree_more_where_nothing_was_seen() -> None:
    rng = np.random.default_rng(4)
    x_QD = rng.normal(size=(300, 4))
    predictor = MLP(hidden=32)
    predictor.targets_ = ["a", "b"]
    y_QT = (rng.random((300, 2)) < 0.5 + 0.4 * np.tanh(x_QD[:, :1])).astype(np.float64)
    predictor._fit(x_QD, y_QT, toy(queries=300))
    variance = [
        nets.through(predictor.weights_, x_D[None].astype(np.float32))[:, 0].var(axis=0).mean()
        for x_D in (0.3 * x_QD[:50].mean(axis=0), np.asarray([0.0, 6.0, -6.0, 6.0]))
    ]
    assert variance[1] > 3.0 * variance[0]
