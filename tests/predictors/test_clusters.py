"""Means of groups: planted specialists, shrinkage, the spread, and what is served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.errors import TableError
from fairlead.predictors.clusters import Clusters
from fairlead.predictors.kmeans import Floats
from fairlead.table import OutcomeTable


def table_of(n: int, *, twice: bool = False) -> OutcomeTable:
    """Queries whose prompts differ (or come twice), for their groups alone."""
    prompts = [f"prompt {i // 2 if twice else i}" for i in range(n)]
    return OutcomeTable.from_columns(
        {"query_id": [f"q{i}" for i in range(n)], "prompt": prompts, "model": ["a"] * n, "quality": [1.0] * n}
    )


def fit(x: Floats, y: Floats, **given: Any) -> Clusters:
    predictor = Clusters(**given)
    predictor._fit_whole(x, y, table_of(len(x)))
    return predictor


def specialists(n: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Four kinds of query, four targets, each best at one: features, true quality, outcomes."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(4, size=n)
    x = 4.0 * np.eye(4)[kind] + 0.4 * rng.normal(size=(n, 4))
    p = np.where(np.arange(4) == kind[:, None], 0.9, 0.3)
    return x, p, (rng.random(p.shape) < p).astype(np.float64)


def test_planted_specialists_are_found() -> None:
    x, _, y = specialists(600, 0)
    new, p, _ = specialists(200, 1)
    predictor = fit(x, y)
    chosen = np.asarray([predictor._stated(row)[0].argmax() for row in new])
    reached = p[np.arange(len(p)), chosen].mean()
    assert reached >= 0.95 * p.max(axis=1).mean()


def test_the_table_is_the_pulled_means_of_groups() -> None:
    x, _, y = specialists(300, 0)
    y[np.random.default_rng(0).random(y.shape) < 0.3] = np.nan
    predictor = fit(x, y, ks=(4,), pull=7.0)
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = (rows @ predictor.centres_.T - (predictor.centres_**2).sum(axis=1) / 2.0).argmax(axis=1)
    mean = (np.nansum(y, axis=0) + 0.5) / ((~np.isnan(y)).sum(axis=0) + 1.0)
    for c in range(4):
        mine = y[nearest == c]
        want = (np.nansum(mine, axis=0) + 7.0 * mean) / ((~np.isnan(mine)).sum(axis=0) + 7.0)
        np.testing.assert_allclose(predictor.table_[c], want, atol=1e-9)


def test_one_group_is_the_mean_whatever_the_query() -> None:
    x, _, y = specialists(300, 0)
    predictor = fit(x, y, ks=(1,), pull=0.0)
    for row in x[:5]:
        np.testing.assert_allclose(predictor._stated(row)[0], y.mean(axis=0), atol=1e-6)


def test_a_heavy_pull_leaves_the_mean() -> None:
    x, _, y = specialists(300, 0)
    light, heavy = fit(x, y, pull=1.0), fit(x, y, pull=1e6)
    mean = y.mean(axis=0)
    assert np.abs(light._stated(x[0])[0] - mean).max() > 0.2
    assert np.abs(heavy._stated(x[0])[0] - mean).max() < 0.01


def test_outcomes_that_have_nothing_to_do_with_the_query_give_the_mean() -> None:
    x, _, y = specialists(600, 0)
    predictor = fit(x, np.random.default_rng(5).permutation(y))
    said = np.asarray([predictor._stated(row)[0] for row in x[:200]])
    assert np.abs(said - y.mean(axis=0)).max() < 0.1


def test_many_features_that_say_nothing_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    x, p, y = specialists(600, 0)
    x = np.hstack([x, 0.1 * rng.normal(size=(600, 60))])
    said = np.asarray([fit(x[:500], y[:500])._stated(row)[0] for row in x[500:501]])
    assert np.abs(said - p[500]).max() < 0.25


@pytest.mark.parametrize("kinds", ["clusters", "a slope", "nothing"])
@pytest.mark.parametrize("missing", [0.0, 0.6])
def test_the_spread_covers_what_is_true(kinds: str, missing: float) -> None:
    rng = np.random.default_rng(3)
    covered, off = [], []
    for _ in range(3):
        (x, p), (new, want) = planted(rng, 600, kinds), planted(rng, 100, kinds)
        y = np.where(rng.random(p.shape) < missing, np.nan, rng.random(p.shape) < p)
        predictor = fit(x, y)
        for row, true in zip(new, want, strict=True):
            quality, sd = predictor._stated(row)
            covered.append(np.abs(quality - true) <= 1.96 * sd)
            off.append(quality - true)
            assert (sd > 0.0).all()
            assert (sd < 0.35).all()  # it says something, too
    assert np.mean(covered) >= 0.78  # a floor: what changes from one neighbour to the next is not seen
    assert np.sqrt(np.mean(np.square(off))) < 0.13


def planted(rng: np.random.Generator, n: int, kinds: str) -> tuple[Floats, Floats]:
    x = rng.normal(size=(n, 4))
    if kinds == "clusters":
        x = 4.0 * np.eye(4)[rng.integers(4, size=n)] + 0.3 * x
    if kinds == "nothing":
        return x, np.tile([0.6, 0.75], (n, 1))
    return x, np.column_stack([0.5 + 0.4 * np.tanh(x[:, 0]), 0.8 - 0.3 * np.tanh(x[:, 1] + x[:, 2])])


def test_more_answers_make_it_surer() -> None:
    (x, _, y), (more, _, z) = specialists(150, 0), specialists(3000, 0)
    few, many = fit(x, y, ks=(4,), pull=3.0), fit(more, z, ks=(4,), pull=3.0)
    assert many.variance_.max() < few.variance_.min()


def test_the_pull_makes_it_no_surer() -> None:
    x, _, y = specialists(300, 0)
    light, heavy = fit(x, y, ks=(4,), pull=0.0), fit(x, y, ks=(4,), pull=1e6)
    # All cells are at the mean then, near one half, where the standard error is largest.
    assert (heavy.variance_ >= light.variance_).all()


def test_the_same_seed_gives_the_same_fit() -> None:
    x, _, y = specialists(300, 0)
    assert fit(x, y, seed=2).digest() == fit(x, y, seed=2).digest()
    assert (fit(x, y, seed=3, ks=(32,)).centres_ != fit(x, y, seed=2, ks=(32,)).centres_).any()


def test_it_works_with_next_to_nothing() -> None:
    for n in (1, 2, 20):
        x, _, y = specialists(n, 0)
        quality, sd = fit(x, y)._stated(np.zeros(4))
        assert ((quality >= 0.0) & (quality <= 1.0)).all()
        assert (sd > 0.05).all()
    with pytest.raises(TableError, match="no scored answers"):
        fit(x, np.full(y.shape, np.nan))
