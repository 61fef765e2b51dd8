"""Boosted trees: what is exported is what was fitted, shrinkage, the jackknife, and no scikit-learn when serving."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.component import pack
from fairlead.errors import StateError, TableError
from fairlead.predictors import gbm
from fairlead.predictors.gbm import GBM
from fairlead.predictors.kmeans import Floats
from fairlead.table import OutcomeTable


def table_of(n: int) -> OutcomeTable:
    prompts = [f"prompt {i}" for i in range(n)]
    return OutcomeTable.from_columns({"query_id": prompts, "prompt": prompts, "model": ["a"] * n, "quality": [1.0] * n})


def fit(x: Floats, y: Floats, **given: Any) -> GBM:
    predictor = GBM(**given)
    predictor._fit_whole(x, y, table_of(len(x)))
    return predictor


def boxes(n: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Quality depends on two features together: features, true quality, outcomes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    both = (x[:, 0] > 0) & (x[:, 1] > 0)
    p = np.column_stack([np.where(both, 0.9, 0.3), np.where(x[:, 2] > 0.5, 0.8, 0.4), np.full(n, 0.6)])
    return x, p, (rng.random(p.shape) < p).astype(np.float64)


def test_interactions_are_found() -> None:
    x, _, y = boxes(2000, 0)
    new, p, _ = boxes(300, 1)
    predictor = fit(x, y)
    said = np.asarray([predictor._stated(row)[0] for row in new])
    off = np.sqrt(((said - p) ** 2).mean(axis=0))
    assert (off < 0.12).all()
    # The third target is the same everywhere, and is forecast so.
    assert off[2] < 0.07


def test_the_arrays_say_what_the_trees_say() -> None:
    x, _, y = boxes(600, 0)
    from sklearn.ensemble import HistGradientBoostingRegressor

    for depth in (1, 2, 4):
        model = HistGradientBoostingRegressor(max_depth=depth, max_leaf_nodes=5, max_iter=12, early_stopping=False)
        model.fit(x, y[:, 0])
        splits = 2**depth - 1
        arrays = np.zeros((12, splits), np.int64), np.full((12, splits), gbm._NEVER), np.zeros((12, splits + 1))
        start = gbm._export(model, x, *arrays)
        new = np.random.default_rng(1).normal(size=(200, 6)) * 3.0
        np.testing.assert_allclose(start + gbm._grown(new, *arrays).sum(axis=0), model.predict(new), atol=1e-9)


def test_one_query_at_a_time_is_the_mean_of_the_folds() -> None:
    x, _, y = boxes(600, 0)
    predictor = fit(x, y)
    models, splits, trees = predictor.base_.size, 2**predictor.depth_ - 1, predictor.trees_
    assert trees > 0
    feature = predictor.feature_.reshape(models, trees, splits)
    threshold = predictor.threshold_.reshape(models, trees, splits)
    value = predictor.value_.reshape(models, trees, splits + 1)
    each = np.stack([gbm._grown(x[:20], feature[m], threshold[m], value[m]).sum(axis=0) for m in range(models)])
    each = each.reshape(*predictor.base_.shape, 20) + predictor.base_[:, :, None]
    want = predictor.mean_[:, None] + predictor.slope_ * (each.mean(axis=0) - predictor.mean_[:, None])
    got = np.asarray([predictor._stated(row)[0] for row in x[:20]]).T
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_forecasts_stray_as_far_as_the_truth_does() -> None:
    # Regressed on the forecasts of new queries, the truth has a slope of 1: neither bolder nor shyer than it should be.
    slopes = []
    for seed in range(3):
        x, _, y = boxes(900, seed)
        new, p, _ = boxes(300, seed + 10)
        predictor = fit(x, y)
        off = np.asarray([predictor._stated(row)[0] for row in new])[:, :2] - predictor.mean_[:2]
        slopes.append((off * (p[:, :2] - predictor.mean_[:2])).sum() / (off**2).sum())
    assert 0.9 < np.mean(slopes) < 1.15


def test_trees_that_cannot_be_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, y = boxes(300, 0)
    boosted = GBM._boosted

    def without_trees(self: GBM, *given: Any) -> Any:
        model = boosted(self, *given)
        del model._predictors
        return model

    def other_start(self: GBM, *given: Any) -> Any:
        model = boosted(self, *given)
        predict = model.predict
        model.predict = lambda rows: predict(rows) + 0.01
        return model

    for broken, message in ((without_trees, "cannot read"), (other_start, "misreads")):
        monkeypatch.setattr(GBM, "_boosted", broken)
        with pytest.raises(StateError, match=message):
            fit(x, y)


def test_nothing_to_learn_gives_the_mean_and_few_trees() -> None:
    x, _, y = boxes(900, 0)
    predictor = fit(x, np.random.default_rng(3).permutation(y))
    said = np.asarray([predictor._stated(row)[0] for row in x[:200]])
    assert np.abs(said - y.mean(axis=0)).max() < 0.08
    assert predictor.trees_ < 12


def test_constant_and_unscored_targets_are_their_mean() -> None:
    x, _, y = boxes(400, 0)
    y[:, 1] = 1.0
    y[5:, 2] = np.nan
    predictor = fit(x, y)
    quality, sd = predictor._stated(x[7])
    assert quality[1] > 0.99
    assert quality[2] == pytest.approx(predictor.mean_[2])
    assert sd[2] > sd[1]
    with pytest.raises(TableError, match="no scored answers"):
        fit(x, np.full(y.shape, np.nan))


def test_forecasts_from_part_of_the_answers_agree() -> None:
    x, _, y = boxes(2000, 0)
    part = np.where(np.random.default_rng(0).random(y.shape) < 0.4, np.nan, y)
    a, b = (np.asarray([m._stated(row)[0] for row in x[:200]]) for m in (fit(x, y), fit(x, part)))
    assert np.sqrt(((a - b) ** 2).mean()) < 0.12


@pytest.mark.parametrize("missing", [0.0, 0.6])
def test_the_spread_covers_what_is_true(missing: float) -> None:
    rng = np.random.default_rng(3)
    covered, off = [], []
    for _ in range(3):
        x, new = rng.normal(size=(600, 4)), rng.normal(size=(100, 4))
        p, want = ((0.5 + 0.4 * np.tanh(z[:, :2])) for z in (x, new))
        y = np.where(rng.random(p.shape) < missing, np.nan, rng.random(p.shape) < p)
        predictor = fit(x, y)
        for row, true in zip(new, want, strict=True):
            quality, sd = predictor._stated(row)
            covered.append(np.abs(quality - true) <= 1.96 * sd)
            off.append(quality - true)
            assert ((sd > 0.0) & (sd < 0.35)).all()
    assert np.mean(covered) >= 0.78  # a floor: what changes from one neighbour to the next is not seen
    assert np.sqrt(np.mean(np.square(off))) < 0.13


def test_equal_prompts_are_held_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, y = boxes(300, 0)
    twice = np.repeat(np.arange(150), 2)
    prompts = [f"prompt {i}" for i in twice]
    ids = [str(i) for i in range(300)]
    table = OutcomeTable.from_columns(
        {"query_id": ids, "prompt": prompts, "model": ["a"] * 300, "quality": [1.0] * 300}
    )
    seen: list[set[bytes]] = []
    boosted = GBM._boosted

    def spied(self: GBM, rows: Floats, truth: Floats) -> Any:
        seen.append({row.tobytes() for row in rows})
        return boosted(self, rows, truth)

    monkeypatch.setattr(GBM, "_boosted", spied)
    GBM(trees=2)._fit(x[twice], y[twice], table)
    # Each query is in the training part of two folds of three (for each of three targets): twins among them.
    assert len(seen) == 9
    assert sum(len(s) for s in seen) == 150 * 2 * 3


def test_the_same_seed_gives_the_same_fit() -> None:
    x, _, y = boxes(300, 0)
    assert fit(x, y, seed=1).digest() == fit(x, y, seed=1).digest()
    assert fit(x, y, seed=2).digest() != fit(x, y, seed=1).digest()


def test_serving_needs_no_scikit_learn(tmp_path: Path) -> None:
    x, _, y = boxes(300, 0)
    predictor = fit(x, y, trees=4)
    predictor.targets_ = ["a", "b", "c"]
    (tmp_path / "state").write_bytes(pack(predictor.state()))
    code = (
        "import sys, numpy; from fairlead.component import unpack; from fairlead.predictors.gbm import GBM; p = GBM();"
        f"p.load(unpack(open({str(tmp_path / 'state')!r}, 'rb').read())); print(p._stated(numpy.zeros(6))[0].tolist());"
        "print([m for m in ('sklearn', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[0] == str(predictor._stated(np.zeros(6))[0].tolist())
    assert out[1] == "[]"
