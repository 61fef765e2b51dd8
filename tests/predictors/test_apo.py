"""The router of A2FM's training: its gradient, exploration, what the adaptive reward does, and cost of pass on a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead import config
from fairlead.bench.metrics import cost_of_pass
from fairlead.bench.shaping import group_gradient, mode_reward
from fairlead.bench.training import save, train
from fairlead.errors import TableError
from fairlead.plans.mode import Mode, choose
from fairlead.plans.single import Single
from fairlead.predictors.apo import APO, EXPLORES, drawn, group_gradients, sampled, softmax
from fairlead.predictors.base import Floats
from fairlead.predictors.features import Features
from fairlead.table import OutcomeTable
from fairlead.testing import check_predictor, observer_of
from fairlead.types import Query, Target
from fairlead.worlds.live import Live

MODES = ("agentic", "instant", "reasoning")
USD = {"instant": 1.0, "reasoning": 3.0, "agentic": 6.0}
KINDS = ["greet me warmly", "sum 12 34 56 and 78", "look up the price on the web today", "{ prove } [ this ] lemma"]
SUCCESS = {"instant": (0.9, 0.5, 0.0, 0.0), "reasoning": (0.95, 0.95, 0.3, 0.9), "agentic": (0.9, 0.9, 0.9, 0.5)}


def table(
    success: Mapping[str, tuple[float, ...]] = SUCCESS, *, queries: int = 400, samples: int = 3, seed: int = 0
) -> OutcomeTable:
    """Four kinds of query: easy, middling, for the web, for thought; each mode is right on each kind with its own probability."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for q in range(queries):
        kind = q % 4
        for mode in MODES:
            for s in range(samples):
                right = float(rng.random() < success[mode][kind])
                row = {"query_id": f"q{q}", "prompt": f"{KINDS[kind]} {q}", "model": mode, "sample": s}
                rows.append({**row, "quality": right, "cost_usd": USD[mode]})
    return OutcomeTable.from_columns({k: [r[k] for r in rows] for k in rows[0]})


def apo(**more: Any) -> APO:
    return APO(features=Features(signals=("length", "marks", "ngrams")), **more)


def fitted(gate: APO, t: OutcomeTable) -> APO:
    gate.fit(t.observed(observer_of(gate.needs), gate.needs))
    return gate


def choices(gate: APO, t: OutcomeTable) -> list[str]:
    """Choose as the plan `mode` does with `penalty` 0."""
    t = t.observed(observer_of(gate.needs), gate.needs)
    out: list[str] = []
    for s in t.observations(gate.needs):
        told: Any = dict(zip(MODES, gate.predict(s, [Target(name=m) for m in MODES]), strict=True))
        out.append(choose(told, penalty=0.0))
    return out


def brought(chosen: list[str], t: OutcomeTable) -> tuple[float, float]:
    """Return accuracy and cost of pass."""
    at = [t.models.index(m) for m in chosen]
    quality, usd = t.quality_QM[np.arange(len(t)), at], t.usd_QM[np.arange(len(t)), at]
    return float(quality.mean()), cost_of_pass(usd, quality)


@pytest.fixture(scope="module")
def gate() -> APO:
    return fitted(apo(), table())


# ------------------------------------------------------------------------------------------------- reward and gradient


def test_the_reward_is_that_of_modes() -> None:
    """p = 1: a heavy mode earns 0; p = 0: no penalty; instant is never penalised."""
    modes = np.array([[0, 1, 2]])
    for p in (0.0, 0.3, 1.0):
        for alpha in (1.0, 2.0, 5.0):
            found = apo(alpha=alpha)._adaptive(np.array([p]), modes, instant=1)[0]
            expected = [
                mode_reward(1.0, well_formed=True, instant=m == 1, instant_rate=p, alpha=alpha) for m in range(3)
            ]
            assert found == pytest.approx(expected)
    assert (apo(adaptive=False)._adaptive(np.array([1.0]), modes, instant=1) == 1.0).all()


def test_when_all_12_rollouts_get_the_same_reward_the_gradient_is_exactly_zero() -> None:
    rng = np.random.default_rng(0)
    pi, modes = softmax(rng.normal(size=(5, 3))), rng.integers(0, 3, (5, 12))
    assert not group_gradients(pi, modes, np.full((5, 12), 0.1 + 0.2)).any()


def test_the_gradient_is_that_of_every_group() -> None:
    rng = np.random.default_rng(1)
    pi, modes, rewards = softmax(rng.normal(size=(20, 3))), rng.integers(0, 3, (20, 12)), rng.random((20, 12))
    rewards[3] = 1.0
    found = group_gradients(pi, modes, rewards)
    for q in range(20):
        by_hand = group_gradient(pi[q], modes[q], rewards[q], np.ones(12, dtype=bool))
        np.testing.assert_allclose(found[q], by_hand, atol=1e-12)


def test_a_forced_rollout_weighs_what_the_routers_own_would() -> None:
    """In expectation the weighed group is a sample of the router; without forced rollouts nothing needs a weight."""
    pi, rng = np.tile([0.2, 0.5, 0.3], (20000, 1)), np.random.default_rng(3)
    gate = APO(rho=3, gamma=3)
    forced = np.tile(np.repeat(np.arange(3), 3), (len(pi), 1))
    modes = np.concatenate([forced, drawn(pi, rng.random((len(pi), 3)))], axis=1)
    weight = gate._weights(pi, modes)
    share = [(weight * (modes == m)).sum() / modes.size for m in range(3)]
    np.testing.assert_allclose(share, pi[0], atol=0.005)
    np.testing.assert_allclose(APO(rho=0)._weights(pi, modes), 1.0)
    assert gate._weights(np.array([[0.0, 0.0, 1.0]]), np.array([[0]])) == EXPLORES


def test_modes_are_drawn_by_their_probabilities() -> None:
    rng = np.random.default_rng(2)
    pi = np.array([[0.2, 0.0, 0.8]])
    got = np.bincount(drawn(pi, rng.random((1, 4000)))[0], minlength=3) / 4000
    np.testing.assert_allclose(got, pi[0], atol=0.03)
    assert drawn(np.array([[0.0, 0.0, 1.0 - 1e-12]]), np.array([[1.0 - 1e-16]])).max() == 2, (
        "rounding makes no mode more"
    )


def test_samples_that_nobody_scored_are_not_drawn() -> None:
    quality = np.array([[[np.nan, 0.5, np.nan, 0.25]]])
    got = sampled(quality, np.zeros((1, 200), dtype=np.int64), np.random.default_rng(0))
    assert set(got[0]) == {0.5, 0.25}


# --------------------------------------------------------------------------------------------------------- exploration


def ascended(start: float, *, rho: int) -> Floats:
    """Train on one kind of query, on which the last mode alone is right, from a bias that gives it the probability `start`."""
    gate = APO(rho=rho, gamma=3, epochs=20, l2=0.0)
    rng = np.random.default_rng(0)
    logits = np.log(np.array([(1.0 - start) / 2.0, (1.0 - start) / 2.0, start]))
    forced = np.tile(np.repeat(np.arange(3), rho), (32, 1))
    for _ in range(60):
        pi = np.tile(softmax(logits), (32, 1))
        modes = np.concatenate([forced, drawn(pi, rng.random((32, gate.gamma)))], axis=1)
        right = (modes == 2).astype(float)
        logits = logits + gate.rate * group_gradients(pi, modes, right, gate._weights(pi, modes)).mean(axis=0) * 3
    return softmax(logits)


def test_with_forced_sampling_a_mode_of_probability_1e_3_is_learnt_and_without_it_stays_near_0() -> None:
    assert ascended(1e-3, rho=3)[2] > 0.9
    assert ascended(1e-3, rho=0)[2] < 0.05


# ------------------------------------------------------------------------------------------------------------ the table


def test_cost_of_pass_is_below_each_fixed_mode_at_hardly_less_accuracy_than_reasoning(gate: APO) -> None:
    t = table(seed=1)
    accuracy, per_pass = brought(choices(gate, t), t)
    fixed = {m: brought([m] * len(t), t) for m in MODES}
    # Instant alone is cheap per pass where it is right at all; it gives up the accuracy.
    assert per_pass < min(fixed["reasoning"][1], fixed["agentic"][1])
    assert accuracy > fixed["instant"][0] + 0.3
    assert accuracy >= fixed["reasoning"][0] - 0.05


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_best_mode_of_each_kind_is_found_whatever_the_rollouts(seed: int) -> None:
    chosen = np.asarray(choices(fitted(apo(seed=seed), table()), table(seed=1)))
    for kind, best in enumerate(("instant", "reasoning", "agentic", "reasoning")):
        assert (chosen[kind::4] == best).mean() > 0.95, (kind, chosen[kind::4])


def test_on_a_pool_where_instant_is_mostly_wrong_it_is_below_all_three() -> None:
    mixed = {"instant": (0.9, 0.0, 0.0, 0.0), "reasoning": (0.95, 0.95, 0.1, 0.9), "agentic": (0.9, 0.3, 0.9, 0.3)}
    usd = dict(USD)
    t, held = table(mixed), table(mixed, seed=1)
    router = fitted(apo(), t)
    _, per_pass = brought(choices(router, held), held)
    assert per_pass < min(brought([m] * len(held), held)[1] for m in MODES), usd


def test_removal_of_r_adaptive_lowers_instant_use(gate: APO) -> None:
    t = table(seed=1)
    without = fitted(apo(adaptive=False), table())
    assert choices(gate, t).count("instant") > choices(without, t).count("instant") + 0.1 * len(t)


def test_alpha_larger_tolerates_heavy_modes_on_medium_easy_queries() -> None:
    t = table(seed=1)
    kinds = [np.arange(len(t)) % 4 == k for k in range(4)]
    share = [
        np.mean(np.asarray(choices(fitted(apo(alpha=a), table(samples=8)), t))[kinds[1]] == "instant")
        for a in (0.5, 8.0)
    ]
    assert share[0] > share[1] + 0.5


def test_non_degeneracy() -> None:
    """If instant is never right its share falls to about 0."""
    never = {**SUCCESS, "instant": (0.0,) * 4}
    router = fitted(apo(), table(never))
    t = table(never, seed=1)
    assert choices(router, t).count("instant") <= 0.01 * len(t)
    x_QD = router.features.read_all(t.observed(observer_of(router.needs), router.needs).observations(router.needs))
    assert np.mean([router.share(x)[MODES.index("instant")] for x in x_QD]) < 0.1


def test_the_order_of_forecasts_is_that_of_pi(gate: APO) -> None:
    t = table(queries=40, seed=2).observed(observer_of(gate.needs), gate.needs)
    for s in t.observations(gate.needs):
        forecasts = gate.predict(s, [Target(name=m) for m in MODES])
        assert np.argmax([f.quality for f in forecasts]) == np.argmax(gate.share(gate.features.read(s)))


async def test_trained_and_asked_by_the_plan_mode(tmp_path: Path) -> None:
    features = {"type": "features", "signals": ["length", "marks", "ngrams"]}
    save(tmp_path / "modes", *train(table(), {"type": "apo", "features": features}))
    targets = {mode: {"type": "scripted", "replies": [mode]} for mode in MODES}
    gate = {"type": "gate", "predictor": {"trained": "modes"}}
    made = config.make({"targets": {**targets, "gate": gate}, "routes": {}}, folder=tmp_path)
    plans = {mode: Single(target=mode) for mode in MODES}
    plan = Mode(gate="gate", penalty=0.0, **plans)  # type: ignore[arg-type]
    for prompt, mode in ((KINDS[0], "instant"), (KINDS[2], "agentic"), (KINDS[3], "reasoning")):
        run = await Live(drivers=made.drivers).run(plan, Query.ask(f"{prompt} 999"))
        assert run.outcome.text == mode


# ---------------------------------------------------------------------------------------------------------- what is wrong


def test_a_query_of_which_a_mode_is_not_known_teaches_nothing() -> None:
    t = table(queries=80)
    known = fitted(apo(), t)
    t.quality_QMS[::2, 0] = np.nan
    half = fitted(apo(), t)
    assert not np.array_equal(half.weights_, known.weights_)
    assert np.isfinite(half.weights_).all()


def test_what_is_wrong_is_said() -> None:
    t = table(queries=40)
    with pytest.raises(TableError, match="without rollouts"):
        fitted(apo(rho=0, gamma=0), t)
    with pytest.raises(TableError, match="no target 'quick'"):
        fitted(apo(instant="quick"), t)
    t.usd_QMS[:] = np.nan
    with pytest.raises(TableError, match="`instant`"):
        fitted(apo(), t)
    assert fitted(apo(instant="instant"), t).fitted


def test_the_family_check() -> None:
    check_predictor(lambda: apo(instant="cat", epochs=8))
