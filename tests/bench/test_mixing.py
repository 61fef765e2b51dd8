"""Mixtures are chosen on other queries than they are read on: luck wins nothing, and what is the same differs by nothing."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from fairlead.bench import metrics
from fairlead.bench.evaluate import Curve, Result
from fairlead.bench.mixing import cost_reaching, crossfitted, halves
from fairlead.bench.report import Row, report

Array = np.ndarray[Any, Any]
RIGHT = (0.45, 0.6, 0.7, 0.72, 0.8, 0.85)
PRICE = np.asarray([0.02, 0.05, 0.15, 0.3, 0.5, 0.9])
ON_THE_HULL = np.asarray([0, 1, 2, 4, 5])


def singles_of(seed: int, n: int) -> tuple[Array, Array]:
    """Answers of six targets that find the same queries hard, and their costs: (6, n) each."""
    rng = np.random.default_rng(seed)
    at_M = np.asarray([NormalDist().inv_cdf(r) for r in RIGHT])
    ease = 0.8 * rng.normal(size=n) + rng.normal(size=(6, n))
    return (ease < np.sqrt(1.64) * at_M[:, None]).astype(np.float64), PRICE[:, None] * rng.lognormal(0, 0.4, n)


def result_of(quality_MQ: Array, usd_MQ: Array, settings: Array, *, name: str = "router", seed: int = 0) -> Result:
    """One router beside the singles; `settings` holds the target chosen, (P, Q)."""
    n = quality_MQ.shape[1]
    rows = np.arange(n)

    def curve(name: str, kind: str, chosen_PQ: Array) -> Curve:
        return Curve(
            name=name,
            kind=kind,
            settings=tuple(str(i) for i in range(len(chosen_PQ))),
            quality_PQ=quality_MQ[chosen_PQ, rows],
            usd_PQ=usd_MQ[chosen_PQ, rows],
        )

    models = tuple(f"m{m}" for m in range(len(quality_MQ)))
    curves = [curve(m, "single", np.full((1, n), i)) for i, m in enumerate(models)]
    curves += [curve(name, "router", settings), curve("oracle", "oracle", quality_MQ.argmax(axis=0)[None])]
    return Result(
        source="", digest="", models=models, queries=n, dropped=0, split="", seed=seed, priced=True,
        curves=tuple(curves), groups_Q=rows,
    )  # fmt: skip


def row_of(result: Result, *, resamples: int = 100) -> Row:
    return next(r for r in report(result, resamples=resamples).rows if r.kind == "router")


@pytest.mark.parametrize("n", [400, 1200])
def test_a_router_that_mixes_at_random_is_not_told_apart_from_mixing(n: int) -> None:
    found = []
    for seed in range(30):
        quality_MQ, usd_MQ = singles_of(seed, n)
        at_P = np.linspace(0, len(ON_THE_HULL) - 1, 41)
        low_P = np.minimum(at_P.astype(int), len(ON_THE_HULL) - 2)
        up_PQ = np.random.default_rng(1000 + seed).random((41, n)) < (at_P - low_P)[:, None]
        row = row_of(result_of(quality_MQ, usd_MQ, ON_THE_HULL[low_P[:, None] + up_PQ], seed=seed))
        assert row.aiq_over_mix is not None
        found.append(row.aiq_over_mix)
    assert np.mean([i.low <= 0.0 <= i.high for i in found]) >= 0.9
    # On hulls through the judged queries themselves it is about +0.01 with 400 of them, and positive in every table.
    assert abs(np.mean([i.value for i in found])) < 0.0025


def test_what_is_the_same_differs_by_nothing() -> None:
    quality_MQ, usd_MQ = singles_of(3, 300)
    # The best is far ahead, so that both halves pick it.
    quality_MQ[5] = np.random.default_rng(0).random(300) < 0.95
    for settings in (np.full((1, 300), 5), np.repeat(np.arange(6)[:, None], 300, axis=1)):
        row = row_of(result_of(quality_MQ, usd_MQ, settings))
        for over in (row.quality_over_best, row.saving):
            assert over is not None
            assert (over.value, over.low, over.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    # The last has all the targets as its settings: it is random mixing.
    assert row.aiq_over_mix is not None
    assert (row.aiq_over_mix.low, row.aiq_over_mix.high) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_the_other_half_chooses() -> None:
    rng = np.random.default_rng(0)
    quality_PQ, usd_PQ = rng.random((8, 60)), rng.random((8, 60)) + np.arange(8)[:, None]
    half_Q = halves(np.arange(60), seed=1)
    now_Q = half_Q == 0
    assert now_Q.sum() == 30
    # Whatever happens on one half, the same settings are read there: the read values move with it, setting by setting.
    other_PQ = quality_PQ.copy()
    other_PQ[:, now_Q] = 1.0 - other_PQ[:, now_Q]
    cost_PQ = usd_PQ.copy()
    # Costs stay as they are on the other half, which alone decides what is mixed on this one; budgets are the union of both.
    before, after = (crossfitted(q, cost_PQ, half_Q) for q in (quality_PQ, other_PQ))
    first, last = before[0][[0, -1]][:, now_Q], after[0][[0, -1]][:, now_Q]
    np.testing.assert_allclose(first, 1.0 - last)
    np.testing.assert_allclose(before[1][[0, -1]][:, now_Q], after[1][[0, -1]][:, now_Q])


def test_without_chance_it_is_the_hull() -> None:
    usd_P, quality_P = np.asarray([1.0, 2.0, 3.0, 4.0, 8.0]), np.asarray([0.4, 0.6, 0.5, 0.65, 0.7])
    q_GQ, usd_GQ = crossfitted(np.tile(quality_P[:, None], 10), np.tile(usd_P[:, None], 10), halves(np.arange(10)))
    x, y = metrics.hull(usd_P, quality_P)
    np.testing.assert_allclose(q_GQ.mean(axis=1), y)
    np.testing.assert_allclose(usd_GQ.mean(axis=1), x)
    for want in (0.3, 0.5, 0.65, 0.7, 0.8):
        assert cost_reaching(x, y, want) == pytest.approx(metrics.cost_at_quality(usd_P, quality_P, want))


def test_a_single_prompt_has_no_halves() -> None:
    groups_Q = np.zeros(4, dtype=np.int64)
    q_GQ, _ = crossfitted(np.eye(4)[:2], np.ones((2, 4)), halves(groups_Q))
    assert q_GQ.shape == (1, 4)
