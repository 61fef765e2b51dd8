"""The policy `glimpse_share` holds the share of steps that the large model writes."""

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from fairlead.build import build
from fairlead.errors import ConfigError
from fairlead.plans.glimpse import Glimpse
from fairlead.plans.single import Single
from fairlead.policies.glimpse_share import BINS, HIGHEST, LEAST, GlimpseShare
from fairlead.pool import Pool
from fairlead.testing import check_policy
from fairlead.types import Call, Decision, Failure, Option, Outcome, Query, Reward, Signals, Step, Target, Trace

POOL = Pool(targets=[Target(name="s"), Target(name="l")])
PLAN = Glimpse(small="s", large="l", stop=";")
QUERY = Query(id="q", messages=())
JUDGED = Reward(quality=1.0)


def plan_of(policy: GlimpseShare) -> Glimpse:
    plan = policy.decide(QUERY, Signals(), POOL).plan
    assert isinstance(plan, Glimpse)
    return plan


def trace_of(policy: GlimpseShare, entropies: list[float], *, purpose: str = "probe", target: str = "s") -> Trace:
    looks = tuple(
        Step(
            path=(n, 0),
            call=Call(target=target, purpose=purpose),  # type: ignore[arg-type]
            outcome=Outcome(target=target, first_entropy=h),
        )
        for n, h in enumerate(entropies)
    )
    decision = Decision(options=(Option(plan=policy.plan, probability=1.0),), chosen=0, propensity=1.0)
    return Trace(id="q", at=0.0, query=QUERY, signals=Signals(), decision=decision, steps=looks, outcome=Outcome())


def play(policy: GlimpseShare, draw: Callable[[int], np.ndarray], answers: int) -> list[float]:
    """Serve and learn; return the share of steps by large in each answer of 20 steps."""
    shares = []
    for _ in range(answers):
        entropies, tau = draw(20), plan_of(policy).tau
        shares.append(float(np.mean(entropies > tau)))
        policy.learn(trace_of(policy, entropies.tolist()), JUDGED)
    return shares


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_quantile_controller_holds_the_target_share_within_3_points(share: float) -> None:
    """4,000 steps: the sampling error of the share itself is below .8 points."""
    rng = np.random.default_rng(0)
    policy = GlimpseShare(plan=PLAN, share=share)
    shares = play(policy, lambda n: rng.gamma(0.5, 0.8, n), 400)
    assert np.mean(shares[200:]) == pytest.approx(share, abs=0.03)


def test_it_recovers_after_a_shift() -> None:
    rng = np.random.default_rng(1)
    policy = GlimpseShare(plan=PLAN)
    before = play(policy, lambda n: rng.gamma(0.5, 0.4, n), 300)
    shifted = play(policy, lambda n: 0.3 + rng.gamma(0.5, 1.2, n), 500)
    assert np.mean(before[100:]) == pytest.approx(0.25, abs=0.03)
    assert np.mean(shifted[:20]) > 0.5, "right after the shift the share is off"
    assert np.mean(shifted[300:]) == pytest.approx(0.25, abs=0.03)


def test_few_look_aheads_teach_nothing_yet() -> None:
    policy = GlimpseShare(plan=replace(PLAN, tau=0.7))
    play(policy, lambda n: np.full(n, 3.0), LEAST // 20)
    assert plan_of(policy).tau == 0.7, "what was first is a little forgotten"
    play(policy, lambda n: np.full(n, 3.0), 1)
    assert plan_of(policy).tau == pytest.approx(3.0, abs=0.1)
    assert plan_of(policy) == replace(PLAN, tau=plan_of(policy).tau)
    least = GlimpseShare(plan=replace(PLAN, tau=0.7), remember=LEAST)
    play(least, lambda n: np.full(n, 3.0), 100)
    assert plan_of(least).tau > 1.0, "the shortest memory is long enough to learn"


def test_only_look_aheads_of_the_small_one_are_counted_once() -> None:
    policy = GlimpseShare(plan=PLAN)
    policy.learn(trace_of(policy, [1.0] * 9, purpose="answer"), JUDGED)
    policy.learn(trace_of(policy, [1.0] * 9, target="l"), JUDGED)
    policy.learn(trace_of(policy, [1.0] * 9), replace(JUDGED, weight=0.0))
    policy.learn(trace_of(policy, [1.0] * 9), replace(JUDGED, further=True))
    failed = trace_of(policy, [1.0])
    broken = replace(failed.steps[0], outcome=Outcome(target="s", first_entropy=1.0, error=Failure(kind="timeout")))
    silent = replace(failed.steps[0], outcome=Outcome(target="s"))
    limit = Step(path=(1,), outcome=Outcome(error=Failure(kind="budget")))
    policy.learn(replace(failed, steps=(broken, silent, limit)), JUDGED)
    assert policy.bins_.sum() == 0.0
    policy.learn(trace_of(policy, [1.0] * 9), replace(JUDGED, weight=0.5, quality=0.0))
    assert policy.bins_.sum() == pytest.approx(9.0, abs=0.1)


def test_extremes_stay_in_the_histogram() -> None:
    policy = GlimpseShare(plan=PLAN)
    policy.learn(trace_of(policy, [0.0] * 100 + [HIGHEST, 99.0] * 50), JUDGED)
    assert policy.bins_[0] > 80.0
    assert policy.bins_[BINS - 1] > 80.0
    assert 0.0 <= policy.tau <= HIGHEST


def test_who_may_not_act_is_stood_in_for() -> None:
    policy = GlimpseShare(plan=PLAN)
    proposal = policy.propose(QUERY, Signals(), (Target(name="l"),))
    assert [o.plan for o in proposal.options] == [Single(target="l")]
    assert any("stands in" in reason for reason in proposal.reasons)


def test_built_from_data() -> None:
    spec = {"type": "glimpse_share", "plan": {"kind": "glimpse", "small": "s", "large": "l", "stop": ";"}, "share": 0.2}
    policy = build("policies", spec)
    assert (policy.plan, policy.share) == (PLAN, 0.2)
    assert policy.names == (("$.plan.small", "s"), ("$.plan.large", "l"))
    for wrong in ({"plan": {"kind": "single", "target": "s"}}, {"share": 0.0}, {"share": 1.0}, {"remember": 10}):
        with pytest.raises(ConfigError):
            build("policies", {**spec, **wrong})


def test_contract() -> None:
    check_policy(GlimpseShare.example)
