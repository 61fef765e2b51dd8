"""LinUCB and Thompson, and the ridge regression that they share."""

from collections.abc import Iterator
from math import erf, sqrt
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.component import pack, unpack
from fairlead.errors import StateError
from fairlead.objective import Objective
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.policies import linear
from fairlead.policies.lin_ucb import LinUCB
from fairlead.policies.thompson import Thompson, chances
from fairlead.pool import Pool
from fairlead.predictors.features import Features
from fairlead.types import Decision, Failure, Option, Outcome, Plan, Query, Reading, Reward, Signals, Target, Trace

D = 12
NAMES = ("a", "b", "c", "d", "e")
TARGETS = tuple(Target(name=n) for n in NAMES)


def signals(x_D: Any) -> Signals:
    vector = np.asarray(x_D, "<f4").tobytes()
    return Signals(readings={"embedding": Reading(vector=vector), "length": Reading(value=10)})


def features() -> Features:
    return Features(signals=("embedding",))


def trace(x_D: Any, target: str = "a", *, plan: Plan | None = None, failed: bool = False) -> Trace:
    query = Query(id="q", messages=())
    decision = Decision(
        options=(Option(plan=plan or Single(target=target), probability=1.0),), chosen=0, propensity=1.0
    )
    outcome = Outcome(error=Failure(kind="timeout")) if failed else Outcome(target=target, text="yes")
    return Trace(id="q", at=0.0, query=query, signals=signals(x_D), decision=decision, outcome=outcome)


class World:
    """Linear rewards with noise 0.05 (GreenServ's own synthetic check: 12 features, 5 arms)."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.theta_KD = self.rng.normal(size=(len(NAMES), D)) * 0.3

    def draws(self, n: int) -> Iterator[tuple[Any, Any]]:
        for _ in range(n):
            x_D = self.rng.normal(size=D)
            x_D /= np.linalg.norm(x_D)
            yield x_D, 0.5 + self.theta_KD @ x_D

    def play(self, policy: Any, n: int, targets: tuple[Target, ...] = TARGETS) -> tuple[list[float], list[str]]:
        pool, regret, chosen = Pool(targets=targets), [], []
        for i, (x_D, reward_K) in enumerate(self.draws(n)):
            query = Query(id=f"q{i}", messages=())
            name = policy.decide(query, signals(x_D), pool, seed=1).plan.targets()[0]
            reward = float(reward_K[NAMES.index(name)])
            noise = self.rng.normal() * 0.05
            policy.learn(trace(x_D, name), Reward(quality=reward + noise))
            here = [reward_K[NAMES.index(t.name)] for t in targets]
            regret.append(float(max(here)) - reward)
            chosen.append(name)
        return regret, chosen


POLICIES = [lambda: LinUCB(features=features()), lambda: Thompson(features=features(), sigma=0.1)]


@pytest.mark.parametrize("make", POLICIES)
def test_regret_falls_far_below_random(make: Any) -> None:
    world = World(0)
    regret, _ = world.play(make(), 600)
    at_random = float(np.mean([r.max() - r.mean() for _, r in World(0).draws(600)]))
    assert np.mean(regret[300:]) < 0.5 * np.mean(regret[:100])
    assert np.mean(regret) < 0.5 * at_random


@pytest.mark.parametrize("make", POLICIES)
def test_a_better_arm_that_joins_late_is_found(make: Any) -> None:
    world = World(1)
    world.theta_KD[:] = 0.0
    world.theta_KD[4, 0] = 0.0
    policy = make()
    _, chosen = world.play(policy, 100, TARGETS[:4])
    assert set(chosen) <= set(NAMES[:4])

    def better(n: int) -> Iterator[tuple[Any, Any]]:
        for _ in range(n):
            x_D = np.ones(D) / sqrt(D) + world.rng.normal(size=D) * 0.1
            yield x_D, np.array([0.4, 0.4, 0.4, 0.4, 0.9])

    world.draws = better  # type: ignore[method-assign]
    _, chosen = world.play(policy, 200)
    assert chosen.count("e") > 0.2 * 200


def test_the_inverse_stays_the_inverse_and_positive_definite() -> None:
    rng = np.random.default_rng(3)
    arm = linear.fresh(D, 0.05)
    direct, b_D = 0.05 * np.eye(D), np.zeros(D)
    for _ in range(2500):
        x_D, y = rng.normal(size=D), rng.normal()
        arm = linear.observe(arm, x_D, y)
        direct += np.outer(x_D, x_D)
        b_D += y * x_D
    assert np.abs(arm["A_inv"] - np.linalg.inv(direct)).max() < 1e-8
    assert np.abs(arm["A"] - direct).max() < 1e-8
    assert np.abs(arm["b"] - b_D).max() < 1e-8
    assert np.array_equal(arm["A_inv"], arm["A_inv"].T)
    assert np.linalg.eigvalsh(arm["A_inv"]).min() > 0.0


@pytest.mark.parametrize("make", POLICIES)
def test_halves_merged_equal_the_whole(make: Any) -> None:
    whole, left, right = make(), make(), make()
    for i, (x_D, reward_K) in enumerate(World(2).draws(200)):
        name = NAMES[i % 4]
        told = trace(x_D, name), Reward(quality=float(reward_K[i % 4]))
        whole.learn(*told)
        (left if i % 3 else right).learn(*told)
    blank = make()
    left.merge(blank)
    left.merge(right)
    blank.merge(whole)
    for merged in (left, blank):
        assert merged.arms_.keys() == whole.arms_.keys()
        for name, arm in whole.arms_.items():
            for key in ("A", "A_inv", "b", "n"):
                assert np.abs(merged.arms_[name][key] - arm[key]).max() < 1e-8


def test_features_that_were_fitted_stay_as_they_are() -> None:
    fitted = Features(signals=("length",), bias=True)
    read = [Signals(readings={"length": Reading(value=v)}) for v in (10, 1000, 3000)]
    fitted.fit(read)
    policy = LinUCB(features=fitted)
    before = fitted.read(read[1]).tolist()
    told = trace(np.zeros(D))
    policy.learn(msgspec.structs.replace(told, signals=read[2]), Reward(quality=1.0))
    assert policy.features.read(read[1]).tolist() == before


@pytest.mark.parametrize("make", POLICIES)
def test_forgetting_weighs_the_past_and_keeps_the_prior(make: Any) -> None:
    policy = make()
    for x_D, _ in World(2).draws(50):
        policy.learn(trace(x_D), Reward(quality=1.0))
    before = policy.arms_["a"]
    policy.decay(0.25)
    after, prior = policy.arms_["a"], policy.cold_ridge * np.eye(D)
    assert after["A"] - prior == pytest.approx(0.25 * (before["A"] - prior))
    assert after["b"] == pytest.approx(0.25 * before["b"])
    assert after["A_inv"] @ after["A"] == pytest.approx(np.eye(D), abs=1e-9)


@pytest.mark.parametrize("make", POLICIES)
def test_learning_never_touches_what_a_snapshot_holds(make: Any) -> None:
    policy = make()
    x_D, _ = next(World(2).draws(1))
    policy.learn(trace(x_D), Reward(quality=1.0))
    held, frozen = policy.state(), pack(policy.state())
    policy.learn(trace(x_D), Reward(quality=0.0))
    policy.decay(0.5)
    assert pack(held) == frozen
    other = make()
    other.load(unpack(frozen))
    assert pack(other.state()) == frozen


@pytest.mark.parametrize("make", POLICIES)
def test_only_the_arm_that_was_decided_on_and_answered_learns(make: Any) -> None:
    x_D, _ = next(World(2).draws(1))
    policy = make()
    policy.learn(trace(x_D, "a"), Reward(quality=1.0))
    policy.learn(trace(x_D, "b", plan=Single(target="a")), Reward(quality=1.0))
    policy.learn(trace(x_D, "c", failed=True), Reward(quality=0.0))  # nobody answered
    policy.learn(trace(x_D, "d", plan=Vote(members=(Single(target="d"), Single(target="e")))), Reward(quality=1.0))
    assert {name: arm["n"] for name, arm in policy.arms_.items()} == {"a": 1}


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("quality", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused(make: Any, quality: float) -> None:
    policy = make()
    x_D, _ = next(World(2).draws(1))
    with pytest.raises(StateError, match="not finite"):
        policy.learn(trace(x_D), Reward(quality=quality))
    assert not policy.arms_


def test_features_of_another_size_are_refused() -> None:
    arm = linear.fresh(3, 0.1)
    with pytest.raises(StateError, match="3 features"):
        linear.observe(arm, np.ones(4), 1.0)
    with pytest.raises(StateError, match="cannot be merged"):
        linear.merged({"a": arm}, {"a": linear.fresh(4, 0.1)}, 0.1)
    with pytest.raises(StateError, match="have changed"):
        linear.Bank({"a": arm}, ["a"], 0.1).read(np.ones(4))


def test_the_objective_weighs_the_reward() -> None:
    x_D, _ = next(World(2).draws(1))
    policy = LinUCB(features=features(), objective=Objective(usd_weight=10.0))
    policy.learn(trace(x_D), Reward(quality=0.9, usd=0.05))
    assert policy.arms_["a"]["b"] == pytest.approx(0.4 * np.asarray(x_D, np.float32))


def test_an_unseen_arm_has_the_bonus_of_its_prior() -> None:
    x_D = np.zeros(D)
    x_D[0] = 2.0
    policy = LinUCB(features=features(), alpha=0.1, ridge=0.04, explore=0.2)
    policy.learn(trace(x_D, "a"), Reward(quality=0.5))
    options = policy.propose(Query(id="q", messages=()), signals(x_D), TARGETS[:3]).options
    found = {o.plan.targets()[0]: o for o in options}
    assert found["b"].forecast is not None
    assert found["b"].forecast.quality_sd == pytest.approx(sqrt(4.0 / 0.04))
    # The two unseen arms tie at 0.1 * 10 = 1.0, above the arm that is known to bring about 0.5.
    assert {n: o.probability for n, o in found.items()} == pytest.approx(
        {"b": 0.4 + 0.2 / 3, "c": 0.4 + 0.2 / 3, "a": 0.2 / 3}
    )


# ------------------------------------------------------------------------------------------------------------ chances


@pytest.mark.parametrize(("m", "s"), [((0.0, 0.3), (1.0, 0.5)), ((0.0, 0.01), (1.0, 1e-4)), ((0.5, 0.5), (0.2, 3.0))])
def test_two_arms_in_closed_form(m: tuple[float, float], s: tuple[float, float]) -> None:
    exact = 0.5 * (1 + erf((m[0] - m[1]) / sqrt(s[0] ** 2 + s[1] ** 2) / sqrt(2)))
    found = chances(np.array(m), np.array(s))
    assert found[0] == pytest.approx(exact, abs=2e-3)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


def test_many_arms_as_in_simulation() -> None:
    rng = np.random.default_rng(5)
    for k in (3, 8, 20):
        mean_K, sd_K = rng.normal(size=k), rng.uniform(0.02, 1.5, size=k)
        drawn = rng.normal(mean_K, sd_K, size=(200_000, k)).argmax(axis=1)
        # A share of 200,000 draws has a standard deviation of at most 0.0011.
        assert np.abs(chances(mean_K, sd_K) - np.bincount(drawn, minlength=k) / 200_000).max() < 0.006


@pytest.mark.parametrize("sd", [1e-9, 0.01, 100.0])
def test_identical_arms_are_alike(sd: float) -> None:
    for k in (1, 2, 7, 60):
        assert chances(np.full(k, 0.3), np.full(k, sd)) == pytest.approx(np.full(k, 1 / k), abs=1e-9)


def test_a_sure_winner_wins() -> None:
    found = chances(np.array([0.0, 1.0, 0.5]), np.array([1e-6, 1e-6, 1e-6]))
    assert found == pytest.approx([0.0, 1.0, 0.0], abs=1e-9)
    assert chances(np.array([0.0, 1e6]), np.array([0.0, 0.0]))[1] == pytest.approx(1.0)
    assert np.isfinite(chances(np.array([1e9, -1e9]), np.array([1e-12, 1e9]))).all()


def test_thompson_is_uniform_before_it_learns() -> None:
    options = Thompson(features=features()).propose(Query(id="q", messages=()), signals(np.ones(D)), TARGETS).options
    assert [o.probability for o in options] == pytest.approx([0.2] * 5)


def test_thompsons_posterior_is_the_textbooks() -> None:
    rng = np.random.default_rng(7)
    policy = Thompson(features=features(), sigma=0.3, prior_var=2.0)
    precision, f_D = np.eye(D) / 2.0, np.zeros(D)
    for _ in range(30):
        x_D = rng.normal(size=D).astype(np.float32).astype(float)
        y = rng.uniform()
        policy.learn(trace(x_D), Reward(quality=y))
        precision += np.outer(x_D, x_D) / 0.09
        f_D += y * x_D / 0.09
    x_D = (rng.normal(size=D) * 0.1).astype(np.float32).astype(float)
    (option,) = policy.propose(Query(id="q", messages=()), signals(x_D), TARGETS[:1]).options
    assert option.forecast is not None
    assert option.forecast.quality == pytest.approx(min(1.0, max(0.0, x_D @ np.linalg.solve(precision, f_D))))
    assert option.forecast.quality_sd == pytest.approx(sqrt(x_D @ np.linalg.solve(precision, x_D)))
