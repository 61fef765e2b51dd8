"""The forest: numpy serves what scikit-learn grew, and its spread means something."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.component import pack, unpack
from fairlead.predictors.forest import Forest
from fairlead.table import OutcomeTable


def blank(n: int, targets: int = 3) -> OutcomeTable:
    """A table with groups and nothing else of interest; features are given beside it."""
    return OutcomeTable.from_columns(
        {
            "query_id": [str(i) for i in range(n) for _ in range(targets)],
            "prompt": [f"prompt {i}" for i in range(n) for _ in range(targets)],
            "model": [f"m{t}" for _ in range(n) for t in range(targets)],
            "quality": [1.0] * (n * targets),
        }
    )


def fitted(x: np.ndarray, y: np.ndarray, **arguments: object) -> Forest:
    forest = Forest(**{"trees": 40, **arguments})  # type: ignore[arg-type]
    forest.targets_ = [f"m{t}" for t in range(y.shape[1])]
    forest._fit_whole(x, y, blank(len(x), y.shape[1]))
    return forest


def test_it_serves_what_was_grown() -> None:
    from sklearn.ensemble import ExtraTreesRegressor

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))
    y = (rng.random((300, 3)) < 1 / (1 + np.exp(-2 * x[:, :3]))).astype(float)
    forest = fitted(x, y, pull=0.0)
    grown = ExtraTreesRegressor(40, min_samples_leaf=10, max_depth=14, max_features=0.5, random_state=0).fit(x, y)
    test = rng.normal(size=(50, 6))
    served = np.array([forest._stated(row)[0] for row in test])
    assert served == pytest.approx(grown.predict(test), abs=1e-5)
    again = Forest(trees=40, pull=0.0)
    again.load(unpack(pack(forest.state())))
    assert np.array_equal(again._stated(test[0])[0], forest._stated(test[0])[0])


def test_unscored_answers_are_left_out_of_the_leaves() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 4))
    y = np.tile((x[:, :1] > 0).astype(float), (1, 2))
    y[rng.random(400) < 0.8, 1] = np.nan
    forest = fitted(x, y)
    assert forest.size_[:, 1].sum() == pytest.approx((~np.isnan(y[:, 1])).sum() * 40)
    high, low = forest._stated(np.array([2.0, 0, 0, 0])), forest._stated(np.array([-2.0, 0, 0, 0]))
    assert high[0][1] > 0.68
    assert low[0][1] < 0.32
    # Fewer answers, less is known.
    _, sd = forest._quality(np.array([2.0, 0, 0, 0]))
    assert sd[1] > sd[0]


def test_the_truth_lies_within_the_stated_spread() -> None:
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(700, 5))
        truth = 1 / (1 + np.exp(-np.stack([1.5 * x[:, 0], x[:, 1] - x[:, 2], 0.0 * x[:, 0] + 1.0], axis=1)))
        y = (rng.random(truth.shape) < truth).astype(float)
        forest = fitted(x[:500], y[:500])
        found = [forest._stated(row) for row in x[500:]]
        quality, sd = np.array([q for q, _ in found]), np.array([s for _, s in found])
        shares.append(float((np.abs(quality - truth[500:]) <= 1.645 * sd).mean()))
    # 0.90 is meant. Wide spreads would pass a lower bound alone, and say nothing.
    assert 0.80 <= np.mean(shares) <= 0.99


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(120, 4)), (rng.random((120, 2)) < 0.5).astype(float)
    a, b, c = fitted(x, y), fitted(x, y), fitted(x, y, seed=1)
    assert a.digest() == b.digest()
    assert a._stated(x[0])[0].tolist() != c._stated(x[0])[0].tolist()
