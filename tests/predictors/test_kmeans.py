"""Groups, membership, and what is chosen on held-out queries."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.predictors import kmeans
from fairlead.predictors.kmeans import Floats, belonging, centres, choose, membership, sizes, totals
from fairlead.predictors.statistics import means, unit


def planted(n: int = 400, seed: int = 0) -> tuple[Floats, kmeans.Ints]:
    """Four kinds of query, far apart."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(4, size=n)
    return unit(4.0 * np.eye(4)[kind] + 0.3 * rng.normal(size=(n, 4))), kind


def test_planted_groups_are_found() -> None:
    x, kind = planted()
    centre, group = centres(x, 4, 0)
    assert centre.shape == (4, 4)
    assert {len(np.unique(group[kind == c])) for c in range(4)} == {1}
    assert len(np.unique(group)) == 4


def test_the_same_seed_gives_the_same_groups() -> None:
    x, _ = planted()
    a, b = centres(x, 8, 3), centres(x, 8, 3)
    np.testing.assert_array_equal(a[0], b[0])
    assert (centres(x, 8, 4)[0] != a[0]).any()


def test_fewer_rows_than_groups_and_rows_that_are_alike() -> None:
    alike = np.tile(unit(np.ones((1, 3))), (20, 1))
    for x in (alike, np.zeros((20, 3)), np.vstack([alike[:10], -alike[:10]])):
        centre, group = centres(x, 8, 0)
        assert np.isfinite(centre).all()
        assert np.isfinite(membership(x @ centre.T, np.asarray([8]), 0.01)).all()
        assert group.max() < 8


def test_membership_sums_to_one_in_each_grouping() -> None:
    near = np.random.default_rng(0).uniform(-1.0, 1.0, (5, 12))
    for temperature in kmeans.TEMPERATURES:
        p = membership(near, np.asarray([4, 8]), temperature)
        np.testing.assert_allclose(p[:, :4].sum(axis=1), 1.0)
        np.testing.assert_allclose(p[:, 4:].sum(axis=1), 1.0)
    # Cold: the nearest group alone; hot: all alike.
    cold = membership(np.asarray([[0.9, 0.1]]), np.asarray([2]), 0.01)
    assert cold[0, 0] > 0.999999
    np.testing.assert_allclose(membership(near, np.asarray([12]), 1e6), 1.0 / 12, atol=1e-5)


def test_a_group_that_is_far_from_everything_overflows_nothing() -> None:
    p = membership(np.full((1, 3), -1.0), np.asarray([3]), min(kmeans.TEMPERATURES))
    np.testing.assert_allclose(p, 1.0 / 3)


def test_totals_and_means_leave_out_what_nobody_scored() -> None:
    quality = np.asarray([[1.0, np.nan], [0.5, np.nan], [0.0, 1.0]])
    count, total = totals(np.asarray([0, 0, 1]), 2, quality)
    assert count.tolist() == [[2.0, 0.0], [1.0, 1.0]]
    assert total.tolist() == [[1.5, 0.0], [0.0, 1.0]]
    assert means(quality) == pytest.approx([0.5, 0.75])


def test_small_tables_get_few_groups() -> None:
    assert sizes((4, 8, 16), 45) == [4, 8]
    assert sizes((8, 4, 4), 1000) == [4, 8]
    assert sizes((16, 32), 10) == [1]


def test_the_better_table_is_chosen_on_held_out_queries() -> None:
    x, kind = planted()
    p = np.asarray([0.9, 0.1, 0.6, 0.3])[kind][:, None]
    y = (np.random.default_rng(1).random(p.shape) < p).astype(np.float64)
    seen: list[float] = []

    def tables(count: Floats, total: Floats, mean: Floats) -> Floats:
        seen.append(count.sum())
        return np.stack([np.broadcast_to(mean, count.shape), total / np.maximum(count, 1.0)])

    chosen = choose(x, y, np.arange(len(x)), ks=(4,), seed=0, tables=tables)
    assert chosen.table == 1
    assert chosen.temperature < 0.3
    assert np.sqrt(((chosen.forecast_NT - p) ** 2).mean()) < 0.1
    # Each time two thirds of the queries, never all.
    assert sum(seen) == pytest.approx(2 * len(x))
    noise = choose(x, np.random.default_rng(2).permutation(y), np.arange(len(x)), ks=(4, 64), seed=0, tables=tables)
    assert np.std(noise.forecast_NT) < 0.1


def test_equal_prompts_are_held_out_together() -> None:
    # Each query comes twice, and its answer is dealt at random: whoever sees the twin knows it, and would choose many small groups.
    rng = np.random.default_rng(0)
    x = np.repeat(unit(rng.normal(size=(150, 6))), 2, axis=0)
    y = np.repeat((rng.random((150, 1)) < 0.5).astype(np.float64), 2, axis=0)

    def tables(count: Floats, total: Floats, mean: Floats) -> Floats:
        return np.stack([np.broadcast_to(mean, count.shape), total / np.maximum(count, 1.0)])

    fair = choose(x, y, np.repeat(np.arange(150), 2), ks=(16, 32), seed=0, tables=tables)
    assert np.nanmean((fair.forecast_NT - y) ** 2) > 0.23


def test_too_few_queries_choose_nothing() -> None:
    x, _ = planted(12)
    chosen = choose(x, np.ones((12, 1)), np.arange(12), ks=(2,), seed=0, tables=lambda c, t, m: np.stack([c]))
    assert chosen.table == 0
    assert np.isnan(chosen.forecast_NT).all()


def test_belonging_is_membership_in_one_grouping_of_rows_of_any_length() -> None:
    rng = np.random.default_rng(0)
    x, centre = rng.normal(size=(7, 3)), unit(rng.normal(size=(4, 3)))
    want = membership(unit(x) @ centre.T, np.asarray([4]), kmeans.TEMPERATURE)
    np.testing.assert_allclose(belonging(5.0 * x, centre), want)
    assert belonging(x, centre[:0]).shape == (7, 0)
    assert (belonging(0.0 * x, centre[:1]) == 1.0).all()
