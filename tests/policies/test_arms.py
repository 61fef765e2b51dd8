"""Policies with one number per target: beliefs before the first answer, sums that add up, forgetting, tests of change, propensities."""

import logging
from collections import Counter
from collections.abc import Callable
from math import log1p, sqrt
from typing import Any

import numpy as np
import pytest

from fairlead.build import build
from fairlead.component import pack
from fairlead.errors import StateError
from fairlead.objective import Objective, energy_weight
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.policies.arms import ArmsPolicy, restless
from fairlead.policies.base import Policy
from fairlead.policies.beta_thompson import BetaThompson, chances
from fairlead.policies.ema import EMA
from fairlead.policies.epsilon_greedy import EpsilonGreedy
from fairlead.policies.lin_ucb import LinUCB
from fairlead.policies.thompson import Thompson
from fairlead.policies.ucb1 import UCB1
from fairlead.policies.utility import Utility
from fairlead.pool import Pool
from fairlead.predictors.features import Features
from fairlead.predictors.knn import KNN
from fairlead.predictors.mean import Mean
from fairlead.testing import TARGETS, check_policy, observer_of, toy
from fairlead.types import (
    Decision,
    Failure,
    Option,
    Outcome,
    Plan,
    Profile,
    Query,
    Reading,
    Reward,
    Signals,
    Target,
    Trace,
)

NAMES = ("a", "b", "c")
PLAIN = tuple(Target(name=n) for n in NAMES)
QUERY = Query(id="q", messages=())
SIGNALS = Signals(readings={"length": Reading(value=40, parts={"characters_all": 400})})
SUMS: list[Callable[..., ArmsPolicy]] = [EpsilonGreedy, UCB1, BetaThompson]
ALL: list[Callable[..., ArmsPolicy]] = [*SUMS, EMA]
LINEAR = [lambda kind=kind: kind(features=Features(signals=("length",), bias=True)) for kind in (LinUCB, Thompson)]


def trace(target: str, *, plan: Plan | None = None, failed: bool = False, signals: Signals = SIGNALS) -> Trace:
    option = Option(plan=plan or Single(target=target), probability=1.0)
    outcome = Outcome(error=Failure(kind="timeout")) if failed else Outcome(target=target)
    return Trace(
        id="q",
        at=0.0,
        query=QUERY,
        signals=signals,
        decision=Decision(options=(option,), chosen=0, propensity=1.0),
        outcome=outcome,
    )


def teach(policy: Policy, target: str, *qualities: float) -> None:
    for quality in qualities:
        policy.learn(trace(target), Reward(quality=quality))


def shares(policy: Policy, targets: tuple[Target, ...] = PLAIN, signals: Signals = SIGNALS) -> dict[str, float]:
    return {o.plan.targets()[0]: o.probability for o in policy.propose(QUERY, signals, targets).options}


def trained() -> tuple[KNN, Any]:
    """A prior that knows the first half of the toy, and the toy."""
    prior = KNN(features=Features(signals=("length",)))
    table = toy().observed(observer_of(prior.needs), prior.needs)
    prior.fit(table.take(range(100)))
    return prior, table


# -------------------------------------------------------------------------------------------------------- warm and cold


@pytest.mark.parametrize("objective", [Objective(), Objective(usd_weight=500.0)])
@pytest.mark.parametrize("make", [*ALL, LinUCB, Thompson])
def test_without_an_answer_a_warm_policy_prefers_what_utility_would(make: Any, objective: Objective) -> None:
    prior, table = trained()
    warm = make(prior=prior, objective=objective, prior_weight=1000.0)
    would = Utility(predictor=prior, objective=objective)
    needs = warm.needs
    table = table.observed(observer_of(needs), needs)
    for signals in table.signals[100:120]:
        wanted = would.propose(QUERY, signals, TARGETS).options[0].plan
        assert warm.propose(QUERY, signals, TARGETS).options[0].plan == wanted


@pytest.mark.parametrize("make", [*ALL, LinUCB, Thompson])
def test_with_many_answers_what_was_seen_outweighs_the_prior(make: Any) -> None:
    prior, table = trained()
    warm = make(prior=prior, prior_weight=20.0)
    needs = warm.needs
    table = table.observed(observer_of(needs), needs)
    # Against what the prior says, cat answers everything and the others nothing.
    for i in range(600):
        name = TARGETS[i % 3].name
        warm.learn(trace(name, signals=table.signals[100 + i % 50]), Reward(quality=float(name == "cat")))
    for signals in table.signals[150:160]:
        assert warm.propose(QUERY, signals, TARGETS).options[0].plan == Single(target="cat")


@pytest.mark.parametrize("make", SUMS)
def test_the_posterior_is_the_weighted_mean_of_prior_and_answers(make: Any) -> None:
    policy = make(prior_weight=4.0)
    target = Target(name="a", profile=Profile(quality=0.8))
    teach(policy, "a", 0.0, 0.5, 0.5)
    view = policy.read(SIGNALS, [target])
    assert view.quality_K[0] == pytest.approx((4 * 0.8 + 1.0) / 7)
    assert view.weight_K[0] == 7


@pytest.mark.parametrize("make", [EpsilonGreedy, LinUCB])
def test_a_prior_is_corrected_by_its_residual(make: Any) -> None:
    prior, table = trained()
    policy = make(
        prior=prior, prior_weight=10.0, **({"features": Features(signals=(), bias=True)} if make is LinUCB else {})
    )
    signals = table.signals[100]
    before = policy.read(signals, TARGETS)[0].copy()
    (ant,) = prior.predict(signals, TARGETS[:1])
    for _ in range(10):
        policy.learn(trace("ant", signals=signals), Reward(quality=ant.quality - 0.2))
    after = policy.read(signals, TARGETS)[0]
    assert after - before == pytest.approx([-0.1, 0.0, 0.0], abs=1e-9)


def test_what_only_the_profile_knows_fades_and_the_forecast_stays() -> None:
    prior, table = trained()
    stranger = Target(name="new", profile=Profile(quality=0.9))
    policy = EpsilonGreedy(prior=prior, prior_weight=10.0)
    signals = table.signals[100]
    assert policy.read(signals, [stranger]).quality_K[0] == pytest.approx(0.9)
    for _ in range(10):
        policy.learn(trace("new", signals=signals), Reward(quality=0.1))
    assert policy.read(signals, [stranger]).quality_K[0] == pytest.approx(0.5)


@pytest.mark.parametrize("make", [LinUCB, Thompson])
def test_a_linear_arm_without_prior_believes_a_measured_quality(make: Any) -> None:
    policy = make(features=Features(signals=(), bias=True))
    good = Target(name="b", profile=Profile(quality=0.9))
    poor = Target(name="a", profile=Profile(quality=0.1))
    assert policy.propose(QUERY, SIGNALS, (poor, good)).options[0].plan == Single(target="b")
    teach(policy, "b", *[0.0] * 30)
    assert policy.propose(QUERY, SIGNALS, (poor, good)).options[0].plan == Single(target="a")


def test_a_price_counts_before_the_first_bill_and_the_bill_after() -> None:
    dear = Target(name="a", profile=Profile(quality=0.9, input_usd_per_mtok=10.0, output_usd_per_mtok=50.0))
    cheap = Target(name="b", profile=Profile(quality=0.8, input_usd_per_mtok=1.0, output_usd_per_mtok=5.0))
    policy = EpsilonGreedy(objective=Objective(usd_weight=20.0), epsilon=0.0, floor=0.0, prior_weight=2.0)
    assert shares(policy, (dear, cheap)) == {"a": 0.0, "b": 1.0}  # 0.9 - 20 * 0.011 against 0.8 - 20 * 0.0011
    for _ in range(50):
        policy.learn(trace("b"), Reward(quality=0.8, usd=0.02))  # as it turns out
    assert shares(policy, (dear, cheap)) == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("type_name", ["epsilon_greedy", "ucb1", "beta_thompson", "ema", "lin_ucb", "thompson"])
def test_configs_name_priors(type_name: str) -> None:
    # Optimism of 0.1 standard deviations finds nothing that an untrained prior does not hope for.
    wide = {"alpha": 1.0} if type_name == "lin_ucb" else {}
    policy = build("policies", {"type": type_name, "prior": {"type": "mean"}, "prior_weight": 5, **wide})
    assert isinstance(policy.prior, Mean)
    check_policy(policy.copy)


def test_warm_members_keep_the_promises_of_policies() -> None:
    prior, _ = trained()
    for make in (EpsilonGreedy, BetaThompson, LinUCB):
        check_policy(lambda make=make: make(prior=prior), contextual=True)  # type: ignore[misc]


@pytest.mark.parametrize("share", [0.0, 0.999])
def test_energy_counts_by_its_share_in_the_reward(share: float) -> None:
    objective = Objective(joules_weight=energy_weight(share, 10.0, 100.0))
    policy = EpsilonGreedy(objective=objective)
    rng = np.random.default_rng(0)
    takes = {"a": (0.9, 90.0), "b": (0.5, 15.0), "c": (0.6, 50.0)}
    for i in range(400):
        name = policy.decide(Query(id=f"q{i}", messages=()), SIGNALS, Pool(targets=PLAIN)).plan.targets()[0]
        quality, joules = takes[name]
        policy.learn(trace(name), Reward(quality=float(rng.uniform() < quality), joules=joules))
    # Quality alone wants a, energy alone b.
    assert policy.propose(QUERY, SIGNALS, PLAIN).options[0].plan == Single(target="b" if share else "a")


@pytest.mark.parametrize("make", [UCB1, BetaThompson])
def test_a_better_target_that_joins_late_is_found(make: Any) -> None:
    policy = make()
    played(policy, [{"a": 0.5, "b": 0.4}] * 200, targets=PLAIN[:2])
    chosen = played(policy, [{"a": 0.5, "b": 0.4, "c": 0.9}] * 200)
    assert chosen.count("c") > 40


# --------------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("make", [*SUMS, *LINEAR])
def test_the_order_of_feedback_does_not_matter(make: Any) -> None:
    lessons = [(NAMES[i % 3], ((i * 37) % 64) / 64) for i in range(60)]  # dyadic: sums are exact
    first, second = make(), make()
    for name, quality in lessons:
        teach(first, name, quality)
    for name, quality in reversed(lessons):
        teach(second, name, quality)
    a, b = (w.propose(QUERY, SIGNALS, PLAIN).options for w in (first, second))
    assert [o.plan for o in a] == [o.plan for o in b]
    assert [o.probability for o in a] == pytest.approx([o.probability for o in b], abs=1e-9)
    if make in SUMS:
        assert pack(first.state()["arms_"]["a"]) == pack(second.state()["arms_"]["a"])


@pytest.mark.parametrize("make", SUMS)
def test_replicas_add_up_and_leave_the_other_as_it_was(make: Any) -> None:
    whole, left, right = make(), make(), make()
    for i in range(90):
        name, quality = NAMES[i % 3], ((i * 37) % 64) / 64
        teach(whole, name, quality)
        teach(left if i % 4 else right, name, quality)
    before = right.digest()
    left.merge(right)
    assert left.digest() == whole.digest()
    assert right.digest() == before


def test_learners_of_different_priors_are_not_merged() -> None:
    prior, _ = trained()
    with pytest.raises(StateError, match="of other arguments"):
        EpsilonGreedy(prior=prior).merge(EpsilonGreedy())
    kinds: list[Any] = [EpsilonGreedy, LinUCB]
    for make in kinds:
        other = prior.copy()
        other.decay(0.5)
        with pytest.raises(StateError, match="different priors"):
            make(prior=prior).merge(make(prior=other))
    with pytest.raises(StateError, match="moving averages"):
        EMA().merge(EMA())


@pytest.mark.parametrize("make", ALL)
def test_only_an_answer_of_the_arm_that_was_decided_on_teaches(make: Any) -> None:
    policy = make()
    teach(policy, "a", 1.0)
    policy.learn(trace("b", plan=Single(target="a")), Reward(quality=1.0))
    policy.learn(trace("c", failed=True), Reward(quality=0.0))
    policy.learn(trace("b", plan=Vote(members=(Single(target="b"), Single(target="c")))), Reward(quality=1.0))
    assert set(policy.arms_) == {"a"}
    assert policy.lessons_ == 1


@pytest.mark.parametrize("make", ALL)
def test_what_is_not_finite_is_refused(make: Any) -> None:
    policy = make()
    with pytest.raises(StateError, match="not finite"):
        teach(policy, "a", float("nan"))
    assert not policy.arms_


@pytest.mark.parametrize("make", ALL)
def test_full_feedback_is_one_lesson_per_target(make: Any) -> None:
    policy = make()
    for quality in (0.2, 0.4):
        for name, extra in zip(NAMES, (0.0, 0.5, 0.1), strict=True):
            teach(policy, name, quality + extra)
    assert {name: arm["n"] for name, arm in policy.arms_.items()} == dict.fromkeys(NAMES, 2)
    assert policy.propose(QUERY, SIGNALS, PLAIN).options[0].plan == Single(target="b")


@pytest.mark.parametrize("make", ALL)
def test_learning_never_touches_what_a_snapshot_holds(make: Any) -> None:
    policy = make()
    teach(policy, "a", 1.0)
    held, frozen = policy.state(), pack(policy.state())
    teach(policy, "a", 0.0)
    policy.decay(0.5)
    assert pack(held) == frozen


def small_lin_ucb(**more: Any) -> LinUCB:
    return LinUCB(features=Features(signals=("length",), bias=True), **more)


@pytest.mark.parametrize("make", [EpsilonGreedy, small_lin_ucb])
def test_a_copy_to_teach_holds_the_very_prior(make: Any) -> None:
    prior, _ = trained()
    policy = make(prior=prior)
    copy = policy.copy_to_teach()
    before = policy.digest()
    teach(copy, "a", 1.0, 0.0)
    assert copy.prior is prior
    assert policy.digest() == before != copy.digest()
    assert policy.copy().prior is not prior


@pytest.mark.parametrize(
    "changed", [{"objective": Objective(usd_weight=1.0)}, {"prior_weight": 7.0}, {"discount": 0.9}]
)
@pytest.mark.parametrize("make", [BetaThompson, small_lin_ucb])
def test_learners_of_different_arguments_are_not_merged(make: Any, changed: dict[str, Any]) -> None:
    one, other = make(), make(**changed)
    teach(other, "a", 1.0)
    with pytest.raises(StateError, match="of other arguments"):
        one.merge(other)
    assert not one.arms_


# ---------------------------------------------------------------------------------------------------------- forgetting


@pytest.mark.parametrize("make", SUMS)
def test_discount_forgets_all_arms_at_each_lesson(make: Any) -> None:
    policy = make(discount=0.5, prior_weight=1.0)
    teach(policy, "a", 1.0)
    teach(policy, "b", 1.0, 0.0)
    assert policy.arms_["a"]["n"] == 0.25
    assert policy.arms_["b"]["n"] == 1.5
    assert policy.arms_["b"]["q"] == 0.5
    assert policy.lessons_ == 3


@pytest.mark.parametrize("make", [LinUCB, Thompson])
def test_a_discounted_linear_arm_is_weighted_least_squares(make: Any) -> None:
    policy = make(features=Features(signals=(), bias=True), discount=0.5, prior=Mean(), prior_weight=2.0)
    teach(policy, "a", 1.0)
    teach(policy, "b", 0.5)
    teach(policy, "a", 0.0)
    # The prior says 0.5; residuals of a: 0.5 two lessons ago, -0.5 now.
    arm = policy.arms_["a"]
    assert arm["A"][0, 0] == pytest.approx(2.0 + 0.25 + 1.0)
    assert arm["b"][0] == pytest.approx(0.25 * 0.5 - 0.5)
    assert arm["A_inv"] @ arm["A"] == pytest.approx(np.eye(1))


def played(
    policy: Policy, qualities: list[dict[str, float]], *, targets: tuple[Target, ...] = PLAIN, seed: int = 0
) -> list[str]:
    rng, pool, chosen = np.random.default_rng(seed), Pool(targets=targets), list[str]()
    for i, means in enumerate(qualities):
        name = policy.decide(Query(id=f"q{i}", messages=()), SIGNALS, pool, seed=seed).plan.targets()[0]
        teach(policy, name, float(rng.uniform() < means[name]))
        chosen.append(name)
    return chosen


SHIFT = [{"a": 0.9, "b": 0.5, "c": 0.4}] * 500 + [{"a": 0.4, "b": 0.5, "c": 0.9}] * 500


@pytest.mark.parametrize(
    "make",
    [
        lambda: EpsilonGreedy(floor=0.05, discount=0.98),
        lambda: EpsilonGreedy(floor=0.05, detect=8.0),
        lambda: BetaThompson(discount=0.98),
        lambda: BetaThompson(detect=8.0),
        lambda: EMA(explore=0.1),
    ],
)
def test_a_swap_is_noticed_by_those_who_forget(make: Any) -> None:
    found, stale = (Counter(played(p, SHIFT)[-200:])["c"] for p in (make(), EpsilonGreedy(floor=0.05)))
    assert found > 120
    assert stale < 60


def test_an_alarm_starts_the_arm_from_its_prior_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    policy = EpsilonGreedy(detect=5.0)
    teach(policy, "b", *[0.5] * 20)
    teach(policy, "a", *[0.9] * 40)
    assert policy.arms_["a"]["n"] == 40
    with caplog.at_level(logging.WARNING):
        teach(policy, "a", *[0.2] * 10)  # each adds about 0.6 to the test
    assert "a has become worse" in caplog.text
    assert policy.arms_.get("a", {"n": 0})["n"] < 5
    assert policy.arms_["b"]["n"] == pytest.approx(2.0)


@pytest.mark.parametrize("right", [0.5, 0.7, 0.85])
def test_false_alarms_are_rare_however_much_answers_vary(right: float) -> None:
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(20):
        policy = EpsilonGreedy(detect=8.0)
        teach(policy, "a", *(rng.uniform(size=1000) < right).astype(float).tolist())
        alarms += policy.arms_.get("a", {"n": 0})["n"] < 1000
    assert alarms <= 1  # one in 60 within 4,000; with one bar for all, every seventh where half are right, within 1,000


def test_the_bar_of_the_test_of_change_rises_with_the_spread_and_never_falls() -> None:
    calm, wild = EpsilonGreedy(detect=8.0), EpsilonGreedy(detect=8.0)
    teach(calm, "a", *[0.8] * 90)
    teach(wild, "a", *[0.0, 1.0] * 45)
    assert restless(calm.arms_["a"]) == 1.0
    assert restless(wild.arms_["a"]) == pytest.approx(0.25 / 0.15)


@pytest.mark.parametrize("discount", [1.0, 0.98, 0.9])
def test_a_change_is_noticed_whatever_the_discount_leaves_of_the_weight(discount: float) -> None:
    policy = EpsilonGreedy(detect=8.0, discount=discount)
    for quality in (0.9,) * 200 + (0.1,) * 30:
        for name in NAMES:
            teach(policy, name, quality)
    assert all(arm["seen"] < 50 and arm["down"] < 8.0 for arm in policy.arms_.values()), "all have started anew"


@pytest.mark.parametrize("discount", [0.98, 0.8])
def test_false_alarms_are_as_rare_with_a_discount(discount: float) -> None:
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(20):
        policy = EpsilonGreedy(detect=8.0, discount=discount)
        teach(policy, "a", *(rng.uniform(size=1000) < 0.8).astype(float).tolist())
        alarms += policy.arms_.get("a", {"seen": 0})["seen"] < 1000
    assert alarms <= 1


# --------------------------------------------------------------------------------------------------------- propensities


def test_the_rate_of_exploring_is_read_off_the_state() -> None:
    policy = EpsilonGreedy(epsilon=0.8, decay_rate=0.5, floor=0.15)
    rates = []
    for _ in range(4):
        rates.append(policy.rate)
        teach(policy, "b", 1.0)
    assert rates == [0.8, 0.4, 0.2, 0.15]
    assert shares(policy) == pytest.approx({"b": 0.85 + 0.05, "a": 0.05, "c": 0.05})
    assert EpsilonGreedy().rate == 1.0
    assert EpsilonGreedy(prior=Mean()).rate == 0.01
    merged = EpsilonGreedy(epsilon=0.8, decay_rate=0.5, floor=0.15)
    merged.merge(policy)
    assert merged.lessons_ == 4


def test_ucb1_is_the_formula_and_shares_ties() -> None:
    policy = UCB1(width=1.0, prior_weight=1.0)
    assert shares(policy) == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    teach(policy, "a", 1.0, 1.0, 1.0)
    bound = sqrt(2 * log1p(3))
    assert (0.5 + 3) / 4 + bound / 2 < 0.5 + bound  # b and c, never asked, tie above a
    assert shares(policy) == {"b": 0.5, "c": 0.5, "a": 0.0}
    teach(policy, "b", *[0.0] * 8)
    teach(policy, "c", *[0.0] * 8)
    bound = sqrt(2 * log1p(19))
    assert (0.5 + 3) / 4 + bound / 2 > 0.5 / 9 + bound / 3
    assert shares(policy)["a"] == 1.0


def test_moving_averages_average_first_and_then_forget() -> None:
    policy = EMA(rate=0.25, prior_weight=1.0)
    target = [Target(name="a", profile=Profile(quality=0.6))]
    teach(policy, "a", 0.0)
    assert policy.read(SIGNALS, target).quality_K[0] == pytest.approx(0.3)
    teach(policy, "a", 0.9)
    assert policy.read(SIGNALS, target).quality_K[0] == pytest.approx(0.5)
    value = 0.5
    for quality in (1.0, 0.0, 1.0, 1.0, 0.0):
        value += max(0.25, 1 / (2 + policy.arms_["a"]["n"])) * (quality - value)
        teach(policy, "a", quality)
    assert policy.read(SIGNALS, target).quality_K[0] == pytest.approx(value)
    policy.decay(0.5)
    assert policy.read(SIGNALS, target).quality_K[0] == pytest.approx(0.5 * (value + 0.6))


def test_betas_as_in_simulation() -> None:
    rng = np.random.default_rng(5)
    for k in (2, 5, 16):
        for strength in (2.0, 30.0, 3000.0):
            mean_K = rng.uniform(0.5, 0.9, size=k) if strength < 100 else 0.8 + rng.normal(size=k) * 0.01
            weight_K = strength * rng.uniform(0.5, 2.0, size=k)
            shift_K = -rng.uniform(0.0, 0.5 / sqrt(strength), size=k)
            a_K, b_K = np.maximum(mean_K * weight_K, 0.5), np.maximum((1 - mean_K) * weight_K, 0.5)
            drawn = (rng.beta(a_K, b_K, size=(100_000, k)) + shift_K).argmax(axis=1)
            # A share of 100,000 draws has a standard deviation of at most 0.0016.
            assert np.abs(chances(mean_K, weight_K, shift_K) - np.bincount(drawn, minlength=k) / 100_000).max() < 0.007


def test_identical_betas_are_alike_and_a_sure_winner_wins() -> None:
    for k in (1, 2, 7, 40):
        found = chances(np.full(k, 0.3), np.full(k, 9.0), np.zeros(k))
        assert found == pytest.approx(np.full(k, 1 / k), abs=1e-9)
    assert chances(np.array([0.1, 0.9]), np.array([4000.0, 4000.0]), np.zeros(2)) == pytest.approx([0.0, 1.0], abs=1e-9)
    assert np.isfinite(chances(np.array([0.0, 1.0, 0.5]), np.array([1e6, 1e-3, 2.0]), np.array([0.0, -5.0, 0.0]))).all()


def test_beta_thompson_weighs_costs_by_their_mean() -> None:
    policy = BetaThompson(objective=Objective(usd_weight=10.0))
    for _ in range(200):
        policy.learn(trace("a"), Reward(quality=0.9, usd=0.05))
        policy.learn(trace("b"), Reward(quality=0.8, usd=0.01))
    found = shares(policy, PLAIN[:2])
    assert found["b"] > 0.99
