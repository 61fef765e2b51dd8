"""Thresholds of verified cascades: what they bring, exact for one, no worse than brute force for two, judged out of fold."""

from itertools import product

import numpy as np
import pytest

from fairlead.bench.verifying import NEVER, brought, cross_validated, fit_thresholds
from fairlead.errors import TableError
from fairlead.plans.single import Single
from fairlead.plans.verify import Verify
from fairlead.table import Floats
from fairlead.types import Call, Outcome, Query
from fairlead.worlds.replay import LookUp, replay


def made(n: int, steps: int, seed: int, *, told: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Confidences of six levels that tell correctness more or less, qualities, costs."""
    rng = np.random.default_rng(seed)
    chance_QS = np.clip(rng.random((n, 1)) + np.linspace(0.0, 0.4, steps), 0.0, 1.0)
    quality_QS = (rng.random((n, steps)) < chance_QS).astype(float)
    sure_QK = told * chance_QS[:, :-1] + (1.0 - told) * rng.random((n, steps - 1))
    return rng.binomial(5, sure_QK) / 5.0, quality_QS, np.tile(10.0 ** np.arange(steps), (n, 1))


def value(q: Floats, quality: Floats, usd: Floats, tau: tuple[float, ...], weight: float) -> float:
    got, spent = brought(q, quality, usd, tau)
    return float((got - weight * spent).mean())


def test_it_brings_what_the_plan_brings() -> None:
    q_QK, quality_QS, usd_QS = made(60, 3, 0)
    tau = (0.6, 0.4)
    quality_Q, usd_Q = brought(q_QK, quality_QS, usd_QS, tau)

    class World(LookUp):
        def __init__(self, q: int) -> None:
            self.q = q

        def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
            step = "abc".index(call.target)
            if call.purpose == "judge":
                yes = call.sample < round(q_QK[self.q, step] * 5)
                return Outcome(text="yes" if yes else "no", target=call.target, usd=0.0)
            return Outcome(text=call.target, target=call.target, usd=usd_QS[self.q, step])

    plan = Verify(steps=tuple(Single(target=t) for t in "abc"), tau=tau)
    for q in range(60):
        done = replay(plan, Query.ask("?", id="q"), World(q))
        assert done.usd == pytest.approx(usd_Q[q])
        assert quality_QS[q, "abc".index(done.outcome.text)] == quality_Q[q]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weight", [0.0, 0.01, 0.2])
def test_one_threshold_is_the_best_there_is(seed: int, weight: float) -> None:
    q, quality, usd = made(80, 2, seed)
    best = max(value(q, quality, usd, (t,), weight) for t in (*np.unique(q), NEVER))
    assert value(q, quality, usd, fit_thresholds(q, quality, usd, usd_weight=weight), weight) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weight", [0.001, 0.006])
def test_two_thresholds_are_the_best_on_these(seed: int, weight: float) -> None:
    q, quality, usd = made(200, 3, seed)
    grid = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, NEVER)
    best = max(value(q, quality, usd, taus, weight) for taus in product(grid, grid))
    assert value(q, quality, usd, fit_thresholds(q, quality, usd, usd_weight=weight), weight) == pytest.approx(best)


def test_of_equally_good_thresholds_the_one_that_escalates_most() -> None:
    q, same = np.asarray([[0.2], [0.4], [0.8]]), np.asarray([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert fit_thresholds(q, same, np.ones((3, 2))) == (NEVER,)
    better = np.asarray([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert fit_thresholds(q, better, np.ones((3, 2))) == (0.8,)


def test_dear_money_never_escalates_and_a_useless_step_is_never_kept() -> None:
    q, quality, usd = made(200, 2, 0)
    assert fit_thresholds(q, quality, usd, usd_weight=10.0) == (q.min(),)
    assert fit_thresholds(q, np.stack([0 * q[:, 0], 0 * q[:, 0] + 1], axis=1), usd) == (NEVER,)
    nobody = np.full_like(q, np.nan)
    assert fit_thresholds(nobody, quality, usd, usd_weight=10.0) == (NEVER,), "no verdict keeps nothing"


def test_judged_out_of_fold() -> None:
    """Where confidence says nothing, the fit's own value flatters, and the one out of fold does not."""
    own, held_out = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        q, quality, usd = rng.random((200, 1)), (rng.random((200, 2)) < 0.5).astype(float), np.ones((200, 2))
        fitted = cross_validated(q, quality, usd)
        assert fitted.tau == fit_thresholds(q, quality, usd)
        own.append(value(q, quality, usd, fitted.tau, 0.0))
        held_out.append(fitted.quality_Q.mean())
    assert np.mean(own) > 0.52
    assert np.mean(held_out) == pytest.approx(0.5, abs=0.02)
    q, quality, usd = made(600, 2, 5)
    fitted = cross_validated(q, quality, usd, usd_weight=0.03, groups_Q=np.arange(600) // 2)
    held = float((fitted.quality_Q - 0.03 * fitted.usd_Q).mean())
    assert held > max(value(q, quality, usd, (t,), 0.03) for t in (0.0, NEVER)), "better than either step alone"


def test_what_does_not_fit_is_refused() -> None:
    q, quality, usd = made(20, 3, 0)
    with pytest.raises(TableError, match="do not fit"):
        fit_thresholds(q, quality[:, :2], usd[:, :2])
    usd[3, 0] = np.nan
    with pytest.raises(TableError, match="not known"):
        fit_thresholds(q, quality, usd)
