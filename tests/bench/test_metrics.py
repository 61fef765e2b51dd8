"""Known values and invariants of every metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairlead.bench import metrics as m

COST, QUALITY = [1.0, 2.0, 3.0, 4.0, 8.0], [0.4, 0.6, 0.5, 0.65, 0.7]


# ---------------------------------------------------------------------------------------------------- known values


def test_two_model_curve() -> None:
    x, r = [0.0, 0.25, 0.5, 1.0], [0.4, 0.6, 0.7, 0.8]
    assert m.apgr(x, r) == pytest.approx(0.65625)
    assert m.cpt(x, r, 0.5) == pytest.approx(0.25)
    assert m.cpt(x, r, 0.8) == pytest.approx(0.60)
    assert np.isnan(m.apgr(x, r[::-1]))
    assert np.isnan(m.cpt(x, r, 1.5))
    assert m.saving_factor(0.25, weak_cost=1.0, strong_cost=10.0) == pytest.approx(10 / 3.25)


def test_cpt_takes_the_first_crossing() -> None:
    assert m.cpt([0.0, 0.2, 0.4, 1.0], [0.0, 0.8, 0.4, 1.0], 0.6) == pytest.approx(0.15)


def test_hull_and_aiq() -> None:
    x, y = m.hull(COST, QUALITY)
    assert (x.tolist(), y.tolist()) == ([1.0, 2.0, 4.0, 8.0], [0.4, 0.6, 0.65, 0.7])
    assert m.aiq(COST, QUALITY, c_min=1, c_max=10) == pytest.approx(0.65)
    assert m.aiq(COST, QUALITY, c_min=1, c_max=10, norm="code") == pytest.approx(0.585)
    assert m.cost_at_quality(COST, QUALITY, 0.675) == pytest.approx(6.0)
    assert m.cost_at_quality(COST, QUALITY, 0.71) == np.inf
    assert m.quality_at_cost(COST, QUALITY, 3.0) == pytest.approx(0.625)
    assert np.isnan(m.quality_at_cost(COST, QUALITY, 0.5))
    with pytest.raises(ValueError, match="left of"):
        m.aiq(COST, QUALITY, c_min=0.5, c_max=10)
    with pytest.raises(ValueError, match="empty"):
        m.aiq(COST, QUALITY, c_min=3, c_max=3)


def test_heights_of_near_and_equal_costs() -> None:
    near = np.asarray([1.0, 1.0 + 1e-12])
    for log in (False, True):
        assert m.mean_height(near, np.asarray([0.0, 1.0]), c_min=1.0, c_max=near[1], log=log) == pytest.approx(0.5)
    steps, height = np.asarray([1.0, 2.0, 2.0, 4.0]), np.asarray([0.5, 0.5, 1.0, 1.0])
    assert m.mean_height(steps, height, c_min=1.0, c_max=4.0) == pytest.approx((0.5 + 2 * 1.0) / 3)
    assert m.mean_height(steps, height, c_min=1.0, c_max=4.0, log=True) == pytest.approx(0.75)


def test_aiq_on_log_cost_is_the_integral() -> None:
    x, y = m.hull(COST, QUALITY)
    grid = np.exp(np.linspace(0.0, np.log(10.0), 200_001))
    height = np.interp(grid, x, y)
    assert m.aiq(COST, QUALITY, c_min=1, c_max=10, log=True) == pytest.approx(float(height.mean()), abs=1e-5)


def test_hypervolume() -> None:
    area = m.hypervolume(COST, QUALITY, cost=10, quality=0.3)
    assert area == pytest.approx(2.90)
    assert area / (10 * 0.7) == pytest.approx(0.4143, abs=5e-5)


@pytest.mark.parametrize(
    ("quality", "usd", "score"),
    [(0.6688, 0.15, 0.6690), (0.7396, 10.02, 0.6432), (0.8153, 0.61, 0.7792), (0.7718, 0.42, 0.7485)],
)
def test_arena(quality: float, usd: float, score: float) -> None:
    assert m.arena_score(quality, usd) == pytest.approx(score, abs=6e-5)
    assert m.arena_score(0.0, 500.0) == 0.0


@pytest.mark.parametrize(
    ("inside", "outside", "score"), [(95.66, 88, 91.67), (84.49, 91.25, 87.74), (26.37, 99.82, 41.72)]
)
def test_guarded(inside: float, outside: float, score: float) -> None:
    assert m.guarded_score(inside, outside) == pytest.approx(score, abs=6e-3)
    assert m.guarded_score(0.0, 0.0) == 0.0


def test_calibration_figures() -> None:
    assert m.ece([0.5, 0.5], [1, 0]) == 0.0
    assert m.ece([0.9, 0.9, 0.1], [0, 0, 0]) == pytest.approx((1.8 + 0.1) / 3)
    assert m.brier([1.0, 0.5], [1.0, 1.0]) == 0.125
    assert m.auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert m.auroc([1, 1, 1], [0, 1, 0]) == 0.5
    assert np.isnan(m.auroc([1, 2], [1, 1]))
    assert m.escalation_precision([1, 1, 0], [0, 1, 0], [1, 1, 1]) == 0.5
    assert m.break_even(1.0, 4.0) == 0.75


def test_choosers() -> None:
    quality, cost = [[1.0, 1.0, 0.0], [0.0, 0.5, 0.5]], [[3.0, 2.0, 1.0], [1.0, 5.0, 4.0]]
    assert m.oracle(quality, cost).tolist() == [1, 2]
    assert m.optimal_selection([1, 0], quality, cost) == 1.0
    assert m.optimal_selection([0, 0], quality, cost) == 0.0
    assert m.regret(quality, [2, 2]).tolist() == [1.0, 1.0]
    assert m.regret_fixed(quality, [0, 1]).tolist() == [0.0, 0.0]
    assert m.gain(0.6, 0.5) == pytest.approx(0.2)
    assert np.isnan(m.oracle_gap_share(1.0, best_single=1.0, oracle=1.0))
    assert m.pareto_distance(2.0, 0.6, COST, QUALITY) == 0.0
    assert m.pareto_distance(3.0, 0.5, COST, QUALITY) == pytest.approx(np.hypot(1 / 7, 1 / 3))


# -------------------------------------------------------------------------------------------------------- invariants

points = st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(0.0, 1.0)), min_size=1, max_size=12)
outcomes = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=2,
    max_size=30,
)


@given(points)
def test_hull_is_idempotent_concave_and_above(p: list[tuple[float, float]]) -> None:
    c, q = np.array(p).T
    x, y = m.hull(c, q)
    again = m.hull(x, y)
    np.testing.assert_allclose(again[0], x)
    np.testing.assert_allclose(again[1], y)
    assert (np.diff(y) > 0).all()
    assert (np.interp(c, x, y) >= q - 1e-9).all()
    assert (np.diff(np.diff(y) / np.diff(x)) <= 1e-6).all() or len(x) < 3


@given(points, st.floats(0.1, 10.0), st.floats(0.0, 1.0), st.integers(0, 11))
def test_a_dominated_point_changes_nothing(p: list[tuple[float, float]], more: float, less: float, which: int) -> None:
    c, q = np.array(p).T
    i = which % len(c)
    c2, q2 = np.append(c, c[i] + more), np.append(q, q[i] * less)
    low, high = float(m.hull(c, q)[0][0]), 25.0
    assert m.aiq(c2, q2, c_min=low, c_max=high) == pytest.approx(m.aiq(c, q, c_min=low, c_max=high))
    assert m.hypervolume(c2, q2, cost=high) == pytest.approx(m.hypervolume(c, q, cost=high))


@given(points, st.floats(0.01, 100.0))
@example([(0.1, 0.0), (0.10000000000000002, 1.0)], 3.0)
@example([(0.1, 0.0), (0.1 * (1 + 1e-9), 1.0)], 3.0)
def test_units_and_order_do_not_matter(p: list[tuple[float, float]], unit: float) -> None:
    c, q = np.array(p).T
    order = np.random.default_rng(0).permutation(len(c))
    low, high = float(m.hull(c, q)[0][0]), 25.0
    value = m.aiq(c, q, c_min=low, c_max=high)
    assert m.aiq(c[order] * unit, q[order], c_min=low * unit, c_max=high * unit) == pytest.approx(value)
    logged = m.aiq(c, q, c_min=low, c_max=high, log=True)
    assert logged <= q.max() + 1e-9
    assert m.aiq(c * unit, q, c_min=low * unit, c_max=high * unit, log=True) == pytest.approx(logged)


@given(outcomes)
def test_a_score_and_its_reverse_share_the_gap(o: list[tuple[int, float, float]]) -> None:
    score, weak, strong = np.array(o, dtype=float).T
    x, r = m.prefix_curve(score, weak, strong)
    assert (x[0], x[-1]) == (0.0, 1.0)
    assert r[-1] == pytest.approx(strong.mean())
    if strong.mean() > weak.mean() + 1e-9:
        back = m.apgr(*m.prefix_curve(-score, weak, strong))
        assert m.apgr(x, r) + back == pytest.approx(1.0)
        flat = m.prefix_curve(np.zeros(len(score)), weak, strong)
        assert m.apgr(*flat) == pytest.approx(0.5)
        assert m.cpt(*flat, 0.8) == pytest.approx(0.8)
        # No score does better than the gain itself.
        assert m.apgr(*m.prefix_curve(strong - weak, weak, strong)) >= m.apgr(x, r) - 1e-9


@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_oracle_bounds_every_router(models: int, queries: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    quality, cost = rng.integers(0, 3, (queries, models)) / 2, rng.random((queries, models))
    best = m.oracle(quality, cost)
    choice = rng.integers(0, models, queries)
    rows = np.arange(queries)
    assert (quality[rows, best] >= quality[rows, choice]).all()
    same = quality[rows, best] == quality[rows, choice]
    assert (cost[rows, best] <= cost[rows, choice])[same].all()
    shuffled = rng.permutation(models)
    np.testing.assert_array_equal(
        quality[rows, best], quality[:, shuffled][rows, m.oracle(quality[:, shuffled], cost[:, shuffled])]
    )
    assert (np.diff(m.regret(quality, choice), prepend=0.0) >= 0).all()
    a_best, a_oracle = quality.mean(axis=0).max(), quality[rows, best].mean()
    if a_oracle > a_best:
        assert m.oracle_gap_share(a_oracle, best_single=a_best, oracle=a_oracle) == 1.0
        assert m.oracle_gap_share(a_best, best_single=a_best, oracle=a_oracle) == 0.0


def test_binned_curve_approximates_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    score = rng.random(4000)
    weak, strong = rng.random(4000) < 0.5, rng.random(4000) < 0.5 + 0.4 * score
    exact = m.apgr(*m.prefix_curve(score, weak, strong))
    assert m.apgr(*m.binned_curve(score, weak, strong)) == pytest.approx(exact, abs=0.01)


def test_random_scores_have_the_stated_noise() -> None:
    # 400 draws: the standard deviation of their spread is 3.5%, so 15% is beyond four of those.
    rng = np.random.default_rng(0)
    n = 500
    weak, strong = (rng.random(n) < 0.5).astype(float), (rng.random(n) < 0.8).astype(float)
    found = [m.apgr(*m.prefix_curve(rng.random(n), weak, strong)) for _ in range(400)]
    stated = (strong - weak).std() / ((strong.mean() - weak.mean()) * np.sqrt(12 * n))
    assert np.std(found) == pytest.approx(stated, rel=0.15)
    assert np.mean(found) == pytest.approx(0.5, abs=5 * stated / 20)


def test_bootstrap_covers_and_pairs() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(400)
    both = np.column_stack([a, a + 0.01])
    shift = m.paired_bootstrap(both, lambda v: float(v[1] - v[0]))
    assert shift.low == pytest.approx(0.01)
    assert shift.high == pytest.approx(0.01)
    mean = m.paired_bootstrap(both, lambda v: float(v[0]), seed=3)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * a.std() / 20, rel=0.15)
    assert m.paired_bootstrap(both, lambda v: float(v[0]), seed=3) == mean


def test_bootstrap_draws_groups_whole() -> None:
    # Twenty copies of twenty queries carry the information of twenty.
    rng = np.random.default_rng(0)
    a = np.repeat(rng.random(20), 20)[:, None]
    groups = np.repeat(np.arange(20), 20)
    grouped = m.bootstrap_means(a, resamples=1000, seed=0, groups_Q=groups).std()
    assert grouped / m.bootstrap_means(a, resamples=1000, seed=0).std() == pytest.approx(np.sqrt(20), rel=0.15)


@pytest.mark.parametrize(
    ("a", "b", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (10, 2, 2 * (1 + 12 + 66) / 4096), (3, 3, 1.0)]
)
def test_mcnemar_is_the_exact_binomial(a: int, b: int, p: float) -> None:
    first = [1] * a + [0] * b + [1] * 50 + [0] * 30
    second = [0] * a + [1] * b + [1] * 50 + [0] * 30
    found = m.mcnemar(first, second)
    assert (found.only_first, found.only_second) == (a, b)
    assert found.p_value == pytest.approx(p)
    other = m.mcnemar(second, first)
    assert (other.only_first, other.only_second, other.p_value) == (b, a, found.p_value)


def test_mcnemar_keeps_its_level_and_has_power() -> None:
    rng = np.random.default_rng(0)
    null = [m.mcnemar(rng.random(300) < 0.6, rng.random(300) < 0.6).p_value for _ in range(400)]
    assert np.mean(np.array(null) <= 0.05) < 0.075  # 0.05 at most; 400 tries have a standard error of 0.011
    real = [m.mcnemar(rng.random(300) < 0.75, rng.random(300) < 0.6).p_value for _ in range(100)]
    assert np.mean(np.array(real) <= 0.05) > 0.9
    assert m.mcnemar(rng.random(20_000) < 0.9, rng.random(20_000) < 0.1).p_value < 1e-100


def test_mcnemar_takes_right_and_wrong_alone() -> None:
    for first, second in (([0.5], [1.0]), ([1, 0], [1]), ([[1]], [[1]]), ([float("nan")], [1.0])):
        with pytest.raises(ValueError, match=r"verdict|right or wrong"):
            m.mcnemar(first, second)
