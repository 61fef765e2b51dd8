"""CORRAL: the mixture is exact, the judgement unbiased, the best of several is found."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.build import build
from fairlead.errors import ConfigError, NoEligibleTarget, StateError
from fairlead.objective import Objective
from fairlead.plans.single import Single
from fairlead.policies.base import Policy
from fairlead.policies.corral import Corral, barrier_step
from fairlead.policies.epsilon_greedy import EpsilonGreedy
from fairlead.policies.fixed import Fixed
from fairlead.policies.random import Random
from fairlead.policies.rules import Rules
from fairlead.policies.utility import Utility
from fairlead.pool import Pool
from fairlead.predictors.mean import Mean
from fairlead.testing import check_policy
from fairlead.types import Decision, Option, Outcome, Profile, Query, Reading, Reward, Signals, Target, Trace

TARGETS = tuple(Target(name=n) for n in ("a", "b", "c"))
POOL = Pool(targets=TARGETS)
SIGNALS = Signals(readings={"length": Reading(value=40)})


def leaning(**weights: float) -> Random:
    return Random(weights=weights)


def lesson(policy: Policy, i: int, reward: float | Mapping[str, float], rng: Any = None) -> str:
    query = Query(id=f"q{i}", messages=())
    decision = policy.decide(query, SIGNALS, POOL, seed=1)
    name = decision.plan.targets()[0]
    mean = reward if isinstance(reward, float) else reward[name]
    won = mean if rng is None else float(rng.uniform() < mean)
    trace = Trace(id=query.id, at=0.0, query=query, signals=SIGNALS, decision=decision, outcome=Outcome(target=name))
    policy.learn(trace, Reward(quality=won))
    return name


def test_keeps_the_promises_of_policies() -> None:
    check_policy(Corral.example)
    built = build("policies", {"type": "corral", "policies": {"x": "epsilon_greedy", "y": {"type": "ucb1"}}})
    assert set(built.policies) == {"x", "y"}


def test_the_mixture_is_exact() -> None:
    corral = Corral(policies={"one": leaning(a=3, b=1), "two": Fixed(plan="c"), "three": Fixed(plan="a")}, floor=0.1)
    corral.say_ = {"one": 0.5, "two": 0.3, "three": 0.2}
    w = {n: 0.9 * p + 0.1 / 3 for n, p in corral.say_.items()}
    found = {
        o.plan.targets()[0]: o.probability for o in corral.propose(Query(id="q", messages=()), SIGNALS, TARGETS).options
    }
    assert found == pytest.approx({"a": 0.75 * w["one"] + w["three"], "b": 0.25 * w["one"], "c": w["two"]})
    assert sum(found.values()) == pytest.approx(1.0)


def test_what_a_member_would_have_won_is_unbiased() -> None:
    rewards = {"a": 0.2, "b": 0.9, "c": 0.4}
    corral = Corral(policies={"one": leaning(a=3, b=1), "two": Fixed(plan="b"), "three": leaning(a=1, b=1, c=2)})
    corral.arms_ = {"a": {"n": 3.0, "u": 2.5}, "b": {"n": 1.0, "u": 0.0}}  # a poor model of the rewards: no matter
    propensity = {"a": 0.5, "b": 0.2, "c": 0.3}
    expected = dict.fromkeys(corral.policies, 0.0)
    for name, p in propensity.items():
        query = Query(id="q", messages=())
        members = corral.propose(query, SIGNALS, TARGETS).members
        decision = Decision(
            options=(Option(plan=Single(target=name), probability=p),), chosen=0, propensity=p, members=members
        )
        trace = Trace(id="q", at=0.0, query=query, signals=SIGNALS, decision=decision, outcome=Outcome(target=name))
        for member, gain in corral._gains(trace, name, rewards[name]).items():
            expected[member] += p * gain
    assert expected["one"] == pytest.approx(0.75 * 0.2 + 0.25 * 0.9)
    assert expected["two"] == pytest.approx(0.9)
    assert expected["three"] == pytest.approx(0.25 * 0.2 + 0.25 * 0.9 + 0.5 * 0.4)


def test_members_are_judged_by_what_they_proposed_then() -> None:
    """What prices say is not on the record, and members have learned more when a late judgement comes: only the proposal counts."""

    def of(quality: float, price: float) -> Profile:
        return Profile(quality=quality, input_usd_per_mtok=price, output_usd_per_mtok=price)

    pool = Pool(targets=[Target(name="cheap", profile=of(0.5, 0.1)), Target(name="dear", profile=of(0.9, 1000.0))])
    members = {
        n: Utility(predictor=Mean(), objective=Objective(usd_weight=w)) for n, w in (("free", 0.0), ("thrifty", 4.0))
    }
    corral = Corral(policies=members, objective=Objective(usd_weight=2.0))
    for i in range(200):
        query = Query(id=f"q{i}", messages=())
        decision = corral.decide(query, SIGNALS, pool)
        assert {n: o[0].plan.targets()[0] for n, o in decision.members.items()} == {"free": "dear", "thrifty": "cheap"}
        name = decision.plan.targets()[0]
        trace = Trace(id="q", at=0.0, query=query, signals=SIGNALS, decision=decision, outcome=Outcome(target=name))
        corral.learn(trace, Reward(quality=0.9, usd=0.3) if name == "dear" else Reward(quality=0.5, usd=1e-5))
    assert corral.shares["thrifty"] > 0.7
    unlike = msgspec.structs.replace(trace, decision=msgspec.structs.replace(decision, members={}))
    before, arms = corral.shares, corral.arms_
    corral.learn(unlike, Reward(quality=0.9, usd=0.3))
    assert corral.shares == before, "another policy's decision says nothing of the members"
    assert corral.arms_ != arms


def test_a_required_rule_of_a_member_binds_all() -> None:
    def rules(use: str) -> Rules:
        return Rules(rules=[{"when": {"length": {"gt": 10}}, "use": use, "required": True}], default="b")

    query = Query(id="q", messages=())
    corral = Corral(policies={"rules": rules("a"), "any": Random(), "too": Fixed(plan="a")})
    decision = corral.decide(query, SIGNALS, POOL)
    assert {o.plan.targets(): o.probability for o in decision.options} == pytest.approx({("a",): 1.0})
    assert decision.fallbacks == (Single(target="a"),)
    assert decision.members == {}, "the rest would not have been served, so the members cannot be compared"
    assert "a rule of rules is required" in decision.reasons[-1]
    wide = Corral(policies={"rules": rules("a"), "same": Fixed(plan="a", only=True)}).decide(query, SIGNALS, POOL)
    assert set(wide.members) == {"rules", "same"}
    free = corral.decide(query, Signals(), POOL)
    assert free.fallbacks is None
    assert len(free.options) == 3
    with pytest.raises(NoEligibleTarget, match="require different"):
        Corral(policies={"one": rules("a"), "two": rules("c")}).decide(query, SIGNALS, POOL)


def test_the_step_is_a_distribution_that_follows_the_gains() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(2, 7))
        p_I = rng.dirichlet(np.full(n, 0.3)) * 0.999 + 0.001 / n
        eta_I, gain_I = rng.uniform(0.01, 5.0, size=n), rng.normal(size=n) * rng.choice([0.1, 1.0, 30.0])
        q_I = barrier_step(p_I, eta_I, gain_I)
        assert q_I.sum() == pytest.approx(1.0)
        assert (q_I > 0.0).all()
        assert q_I[gain_I.argmax()] >= p_I[gain_I.argmax()] - 1e-9
        assert q_I[gain_I.argmin()] <= p_I[gain_I.argmin()] + 1e-9
    p_I = np.array([0.2, 0.3, 0.5])
    assert barrier_step(p_I, np.ones(3), np.full(3, 0.7)) == pytest.approx(p_I)
    # Two members in closed form: 1/q_1 - 1/q_2 = 1/p_1 - 1/p_2 - eta (g_1 - g_2), so here 1/q - 1/(1 - q) = -1.
    q = barrier_step(np.array([0.5, 0.5]), np.ones(2), np.array([1.0, 0.0]))[0]
    assert 1 / q - 1 / (1 - q) == pytest.approx(-1.0)


@pytest.mark.parametrize("best", ["a", "b", "c"])
def test_the_best_of_several_is_found(best: str) -> None:
    rewards = {n: 0.8 if n == best else 0.5 for n in "abc"}
    corral = Corral(policies={n: Fixed(plan=n) for n in "abc"})
    rng = np.random.default_rng(3)
    chosen = [lesson(corral, i, rewards, rng) for i in range(800)]
    assert chosen[-200:].count(best) > 140
    assert max(corral.shares, key=lambda n: corral.shares[n]) == best


def test_a_member_that_learns_overtakes_one_that_cannot() -> None:
    rewards = {"a": 0.6, "b": 0.9, "c": 0.3}
    corral = Corral(policies={"stuck": Fixed(plan="a"), "lost": Random(), "learns": EpsilonGreedy(prior_weight=1.0)})
    rng = np.random.default_rng(0)
    for i in range(800):
        lesson(corral, i, rewards, rng)
    assert corral.shares["learns"] > 0.6


def test_the_best_is_found_again_after_it_changed() -> None:
    corral = Corral(policies={n: Fixed(plan=n) for n in "abc"}, floor=0.05)
    rng = np.random.default_rng(4)
    for i in range(500):
        lesson(corral, i, {"a": 0.9, "b": 0.4, "c": 0.4}, rng)
    assert corral.shares["a"] > 0.6
    for i in range(1500):
        lesson(corral, 500 + i, {"a": 0.2, "b": 0.8, "c": 0.4}, rng)
    assert corral.shares["b"] > 0.6


def test_all_members_learn_from_every_answer_and_nobody_is_silenced() -> None:
    corral = Corral(policies={"x": EpsilonGreedy(), "y": EpsilonGreedy(floor=0.5), "z": Fixed(plan="c")}, floor=0.06)
    for i in range(300):
        lesson(corral, i, {"a": 1.0, "b": 1.0, "c": 0.0})
    x, y = corral.policies["x"], corral.policies["y"]
    assert isinstance(x, EpsilonGreedy)
    assert isinstance(y, EpsilonGreedy)
    assert x.arms_ == y.arms_
    assert x.lessons_ == 300
    assert corral.shares["z"] >= 0.02
    assert min(corral.shares.values()) == corral.shares["z"]


def test_bad_lessons_are_refused_and_failures_teach_nothing() -> None:
    corral = Corral.example()
    before = corral.digest()
    query = Query(id="q", messages=())
    decision = Corral(policies={"a": Fixed(plan="a"), "b": Fixed(plan="b")}).decide(query, SIGNALS, POOL)
    trace = Trace(id="q", at=0.0, query=query, signals=SIGNALS, decision=decision, outcome=Outcome(target="zebra"))
    corral.learn(trace, Reward(quality=1.0))
    assert corral.digest() == before
    trace = Trace(
        id="q",
        at=0.0,
        query=query,
        signals=SIGNALS,
        decision=decision,
        outcome=Outcome(target=decision.plan.targets()[0]),
    )
    with pytest.raises(StateError, match="not finite"):
        corral.learn(trace, Reward(quality=float("inf")))
    assert corral.digest() == before
    with pytest.raises(ConfigError, match="two policies"):
        Corral(policies={"a": Fixed(plan="a")}).check()
    with pytest.raises(StateError, match="cannot be merged"):
        corral.merge(Corral.example())


def test_it_weighs_by_its_objective() -> None:
    corral = Corral(policies={"a": Fixed(plan="a"), "b": Fixed(plan="b")}, objective=Objective(usd_weight=10.0))
    for i in range(600):
        query = Query(id=f"q{i}", messages=())
        decision = corral.decide(
            query, SIGNALS, Pool(targets=[Target(name="a"), Target(name="b", profile=Profile(quality=0.9))])
        )
        name = decision.plan.targets()[0]
        trace = Trace(
            id=query.id, at=0.0, query=query, signals=SIGNALS, decision=decision, outcome=Outcome(target=name)
        )
        corral.learn(trace, Reward(quality=0.9 if name == "a" else 0.8, usd=0.05 if name == "a" else 0.0))
    assert corral.shares["b"] > 0.8
