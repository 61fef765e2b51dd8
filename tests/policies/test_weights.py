"""A lesson counts as much as its judgement does: two halves are one whole where a method is linear, and evidence takes an
answer once and whole, or not at all."""

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
from fairlead.policies.thompson import Thompson
from fairlead.policies.ucb1 import UCB1
from fairlead.policies.utility import Utility
from fairlead.pool import Pool
from fairlead.predictors.irt import IRT
from fairlead.predictors.knn import KNN
from fairlead.predictors.mean import Mean
from fairlead.predictors.profile import Profiled
from fairlead.rewards import lesson
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


def evidence(policy: Policy, *rewards: Callable[[float], Reward]) -> list[float]:
    rng = np.random.default_rng(0)
    for i in range(60):
        trace, _ = trace_of(policy, i)
        good = trace.outcome.target == "bee" or rng.random() < 0.3
        for reward in rewards:
            policy.learn(trace, reward(float(good)))
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
def test_an_answer_is_evidence_once_by_its_first_judgement_of_weight(make: Callable[[], Policy]) -> None:
    whole = evidence(make(), lambda y: Reward(quality=y))
    assert whole[0] == 60
    assert whole[1] > 1.0
    assert evidence(make(), lambda y: Reward(quality=y, weight=0.5)) == whole, "in, whole, or out"
    assert evidence(make(), lambda y: Reward(quality=y, weight=0.4))[0] == 0
    # A weak one first, of whatever it says, changes nothing: as the store has it, what follows is a further lesson.
    for weak in (0.01, 0.2):

        def first(y: float, weak: float = weak) -> Reward:
            return Reward(quality=1.0, weight=weak)

        def after(y: float, weak: float = weak) -> Reward:
            found = lesson(y, 1.0, (weak, weak))
            assert found is not None
            return Reward(quality=found.value, weight=found.weight, further=found.further, whole=found.whole)

        assert evidence(make(), first, after) == whole
    more = evidence(make(), lambda y: Reward(quality=y), lambda y: Reward(quality=1.0 - y, weight=0.1, further=True))
    assert more == whole, "one answer is one observation, however many judge it"


def test_no_judgement_weighs_more_than_one_beyond_doubt() -> None:
    assert Reward(quality=1.0).weight == 1.0
    assert msgspec.structs.replace(Reward(quality=1.0), weight=0.5).further is False


def test_parts_of_answers_take_parts_of_neighbours_places() -> None:
    """Forty lessons of weight 0.01 beside 200 whole ones: 0.4 answers, not forty neighbours."""
    knn = KNN(k=40, pull=20.0)
    policy = Utility(predictor=knn)
    for i in range(200):
        policy.learn(trace_of(policy, i, "ant")[0], Reward(quality=0.9))
    trace, signals = trace_of(policy, 9, "ant")
    before = forecasts(policy, signals)[0]
    rows = len(policy.predictor.x_)  # type: ignore[attr-defined]
    for _ in range(40):
        policy.learn(trace, Reward(quality=0.0, weight=0.01))
    assert forecasts(policy, signals)[0] == pytest.approx(before, abs=0.03)
    assert len(policy.predictor.x_) <= rows + 1, "they are one row"  # type: ignore[attr-defined]


def test_light_lessons_push_no_whole_one_out_of_memory() -> None:
    policy = Utility(predictor=KNN(k=5, memory=20))
    for i in range(20):
        policy.learn(trace_of(policy, i, "ant")[0], Reward(quality=0.9))
    for i in range(20, 80):
        policy.learn(trace_of(policy, i, "ant")[0], Reward(quality=0.0, weight=0.01))
    predictor = policy.predictor
    assert isinstance(predictor, KNN)
    assert len(predictor.x_) <= 40
    assert float((predictor.known_[:, 0] == 1.0).sum()) >= 19
    for i in range(80, 110):
        policy.learn(trace_of(policy, i, "ant")[0], Reward(quality=0.9))
    assert len(predictor.x_) <= 40
    assert float(predictor.known_[:, 0].sum()) <= 20.0 + 1e-3
