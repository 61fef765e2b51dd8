"""A lesson counts as much as its judgement does: two halves are one whole where a method is linear, and evidence lays half the stakes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.plans.single import Single
from fairlead.policies.base import Policy
from fairlead.policies.beta_thompson import BetaThompson
from fairlead.policies.canary import Canary
from fairlead.policies.ema import EMA
from fairlead.policies.epsilon_greedy import EpsilonGreedy
from fairlead.policies.fixed import Fixed
from fairlead.policies.guarded import Guarded
from fairlead.policies.lin_ucb import LinUCB
from fairlead.policies.promise import Promise
from fairlead.policies.thompson import Thompson
from fairlead.policies.ucb1 import UCB1
from fairlead.policies.utility import Utility
from fairlead.pool import Pool
from fairlead.predictors.irt import IRT
from fairlead.predictors.knn import KNN
from fairlead.predictors.mean import Mean
from fairlead.predictors.profile import Profiled
from fairlead.sequential import e_value
from fairlead.testing import TARGETS, observer_of
from fairlead.types import Decision, Option, Outcome, Query, Reward, Signals, Trace

LINEAR: list[Callable[[], Policy]] = [
    BetaThompson,
    UCB1,
    EpsilonGreedy,
    lambda: EMA(rate=0.3, prior_weight=4.0),  # past the lessons that it averages
    LinUCB,
    Thompson,
    lambda: Utility(predictor=Mean()),
    lambda: Utility(predictor=KNN()),
]


def trace_of(policy: Policy, i: int, target: str | None = None, text: str = "") -> tuple[Trace, Signals]:
    query = Query.ask(text or f"question {i % 7} of many", id=f"q{i}")
    signals = observer_of(policy.needs).read(query, policy.needs)
    if target is None:
        decision = policy.decide(query, signals, Pool(targets=TARGETS), seed=1)
    else:
        decision = Decision(options=(Option(plan=Single(target=target), probability=1.0),), chosen=0, propensity=1.0)
    answer = Outcome(text="yes", target=decision.plan.targets()[0])
    return Trace(id=query.id, at=0.0, query=query, signals=signals, decision=decision, outcome=answer), signals


def forecasts(policy: Policy, signals: Signals) -> list[float]:
    """What it expects, and how sure it is; of a predictor, the forecasts alone."""
    if isinstance(policy, Utility):
        return [f.quality for f in policy.predictor.predict(signals, TARGETS)]
    out = []
    for option in sorted(
        policy.propose(Query(id="q", messages=()), signals, TARGETS).options, key=lambda o: o.plan.targets()
    ):
        assert option.forecast is not None
        out += [option.forecast.quality, option.forecast.quality_sd]
    return out


@pytest.mark.parametrize("make", LINEAR)
def test_lessons_in_parts_are_as_the_whole(make: Callable[[], Policy]) -> None:
    @given(
        st.lists(
            st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.05, 0.95)),
            min_size=1,
            max_size=8,
        )
    )
    @settings(max_examples=10, deadline=None)
    def check(lessons: list[tuple[int, float, float]]) -> None:
        whole, parts = make(), make()
        for i, (t, quality, share) in enumerate(lessons):
            trace, signals = trace_of(whole, i, TARGETS[t].name)
            whole.learn(trace, Reward(quality=quality))
            parts.learn(trace, Reward(quality=quality, weight=share))
            parts.learn(trace, Reward(quality=quality, weight=1.0 - share, further=True))
        assert forecasts(parts, signals) == pytest.approx(forecasts(whole, signals), abs=1e-6)

    check()


@pytest.mark.parametrize("make", [*LINEAR, lambda: Utility(predictor=IRT()), lambda: Utility(predictor=Profiled())])
def test_less_weight_moves_less(make: Callable[[], Policy]) -> None:
    moved = []
    for weight in (0.0, 0.1, 0.5, 1.0):
        policy = make()
        for i in range(3):
            policy.learn(trace_of(policy, i, TARGETS[0].name)[0], Reward(quality=0.5))
        trace, signals = trace_of(policy, 9, TARGETS[0].name)
        if weight:
            policy.learn(trace, Reward(quality=1.0, weight=weight))
        moved.append(forecasts(policy, signals)[0])
    assert moved == sorted(moved)
    assert moved[0] < moved[1] < moved[3]


def evidence(policy: Policy, *, weight: float, further: bool = False) -> list[float]:
    rng = np.random.default_rng(0)
    for i in range(60):
        trace, _ = trace_of(policy, i)
        good = trace.outcome.target == "bee" or rng.random() < 0.3
        policy.learn(trace, Reward(quality=float(good), weight=weight, further=further))
    if isinstance(policy, Guarded):
        return [policy.judged_, *(float(np.log(e_value(e))) for e in policy.evidence_.values())]
    assert isinstance(policy, Canary)
    return [policy.judged_, float(np.log(e_value(policy.worse_)))]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Guarded(policy=Fixed(plan="ant"), fixed="bee", explore=0.2, alpha=1e-12),
        lambda: Canary(current=Fixed(plan="bee"), candidate=Fixed(plan="ant"), share=0.2, alpha=1e-12),
    ],
)
def test_evidence_grows_slower_on_judgements_that_count_less_and_not_on_further_ones(
    make: Callable[[], Policy],
) -> None:
    _, whole, *_ = evidence(make(), weight=1.0)
    judged, half, *_ = evidence(make(), weight=0.5)
    assert judged == 60
    assert whole > half > 1.0
    assert evidence(make(), weight=1.0, further=True)[0] == 0, "one answer is one observation, however many judge it"


def test_no_judgement_weighs_more_than_one_beyond_doubt() -> None:
    assert Reward(quality=1.0).weight == 1.0
    assert msgspec.structs.replace(Reward(quality=1.0), weight=0.5).further is False


def test_the_watch_of_a_promise_lays_less_on_what_counts_less() -> None:
    wealth = []
    for weight in (0.0, 0.5, 1.0):
        policy = Promise(predictor=Mean(), explore=0.3, patience=1e9)
        for _ in range(20):
            policy.watch(0.0, by_choice=True, forecasts=(0.6, 0.5), probabilities=(0.7, 0.3), weight=weight)
        wealth.append(max((float(log_G.max()) for log_G in policy.watches_.values()), default=0.0))
        assert policy.judged_ == (20 if weight else 0)
    assert wealth[0] == 0.0 < wealth[1] < wealth[2]
