"""The guard rail, the shadow and the canary: what they promise, alone and through a router."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fairlead.component import finite, pack, unpack
from fairlead.config import make
from fairlead.errors import ConfigError, NoEligibleTarget, StateError
from fairlead.objective import Objective
from fairlead.plans.cascade import Cascade
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal
from fairlead.policies.canary import Canary
from fairlead.policies.corral import Corral
from fairlead.policies.epsilon_greedy import EpsilonGreedy
from fairlead.policies.fixed import Fixed
from fairlead.policies.floor import Floor
from fairlead.policies.guarded import Guarded, cheapest_mix
from fairlead.policies.random import Random
from fairlead.policies.rules import Rules
from fairlead.policies.shadow import Shadow
from fairlead.policies.thompson import Thompson
from fairlead.pool import Pool
from fairlead.predictors.features import Features
from fairlead.predictors.knn import KNN
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.testing import check_policy
from fairlead.types import Decision, Feedback, Option, Outcome, Query, Reading, Reward, Signals, Target, Trace

POOL = Pool(targets=(Target(name="ant"), Target(name="bee"), Target(name="cat")))
RIGHT = {"ant": 0.8, "bee": 0.4, "cat": 0.6}


def steady(i: int, target: str) -> float:
    return RIGHT[target]


def play(
    policy: Policy,
    n: int,
    *,
    right: Callable[[int, str], float] = steady,
    usd: dict[str, float] | None = None,
    seed: int = 0,
    late: int = 0,
    judged: float = 1.0,
) -> list[Decision]:
    """Decide `n` times; teach each answer `late` decisions later, or not at all: a share `judged` of them is judged, by chance."""
    draw, waiting, out = random.Random(seed), [], []
    for i in range(n):
        query = Query(id=f"{seed}-{i}", messages=())
        decision = policy.decide(query, Signals(), POOL)
        target = decision.plan.targets()[0]
        reward = Reward(quality=float(draw.random() < right(i, target)), usd=(usd or {}).get(target, 0.0))
        trace = Trace(
            id=query.id, at=float(i), query=query, signals=Signals(), decision=decision, outcome=Outcome(target=target)
        )
        if draw.random() < judged:
            waiting.append((trace, reward))
        if len(waiting) > late:
            policy.learn(*waiting.pop(0))
        out.append(decision)
    assert finite(policy.state())
    return out


def served(decisions: Sequence[Decision], target: str) -> float:
    return sum(d.plan.targets() == (target,) for d in decisions) / len(decisions)


def probabilities(decision: Decision) -> dict[str, float]:
    return {" ".join(o.plan.targets()): o.probability for o in decision.options}


# ------------------------------------------------------------------------------------------------------------ guarded


def test_each_is_a_policy_and_may_hold_a_policy_that_learns_from_context() -> None:
    check_policy(lambda: Guarded(policy=Thompson(), fixed="ant", explore=0.05), contextual=True)
    check_policy(lambda: Shadow(serve=Thompson(), candidate=Thompson(sigma=0.1)), contextual=True)
    check_policy(lambda: Canary(current=Thompson(), candidate=Thompson(sigma=0.1), share=0.3), contextual=True)


def test_the_guard_serves_the_policy_and_a_known_share_of_the_baselines() -> None:
    guarded = Guarded(policy=Random(weights={"bee": 3.0, "cat": 1.0}), fixed="ant", explore=0.2)
    decision = guarded.decide(Query(id="q", messages=()), Signals(), POOL)
    even = 0.2 * 0.25 / 3
    assert probabilities(decision) == pytest.approx({"bee": 0.6 + even, "cat": 0.2 + even, "ant": 0.15 + even})
    assert [o.probability for o in decision.shadow] == [0.75, 0.25, 0.0]
    assert "under guard: evidence 1 of 80" in decision.reasons[-1]


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_policy_is_stepped_back_from_and_it_is_said(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    guarded = Guarded(policy=Fixed(plan="bee"), fixed="ant")
    with caplog.at_level(logging.WARNING, "fairlead.policies.guarded"):
        decisions = play(guarded, 1500, seed=seed)
    assert served(decisions[:100], "bee") > 0.8
    assert served(decisions[-300:], "ant") > 0.85
    assert guarded.away_ == {"ant": 1.0}
    assert 50 < guarded.since_ < 1000
    assert guarded.spells_ == 2
    assert "stepped back to ant: the policy's utility less that of ant is below 0" in decisions[-1].reasons[-1]
    assert [r.message for r in caplog.records] == [decisions[-1].reasons[-1].replace("stepped", "guarded: stepped")]
    # What was inside goes on being heard, on its share, and on the record.
    assert probabilities(decisions[-1]) == pytest.approx({"ant": 0.9, "bee": 0.1})
    assert decisions[-1].shadow[0].plan.targets() == ("bee",)


@pytest.mark.parametrize("inside", ["ant", "cat"])
def test_a_policy_that_is_as_good_or_better_is_left_alone(inside: str) -> None:
    for seed in range(4):
        guarded = Guarded(policy=Fixed(plan=inside), fixed="cat", alpha=0.2)
        play(guarded, 800, seed=seed)
        assert not guarded.away_
        assert guarded.judged_ == 800


def test_equals_are_told_apart_no_more_often_than_promised() -> None:
    # 20 runs at 0.2: at most 4, and three standard errors. tests/test_sequential.py counts the evidence itself on a thousand streams.
    changed = 0
    for seed in range(20):
        guarded = Guarded(policy=Fixed(plan="bee"), fixed="ant", alpha=0.2)
        play(guarded, 400, right=lambda i, t: 0.5, seed=seed)
        changed += guarded.spells_ > 1
    assert changed <= 20 * 0.2 + 3 * (20 * 0.2 * 0.8) ** 0.5


def test_what_goes_bad_after_a_long_good_time_is_found() -> None:
    def right(i: int, target: str) -> float:
        return 0.0 if target == "bee" and i >= 1500 else {**RIGHT, "bee": 0.95}[target]

    guarded = Guarded(policy=Fixed(plan="bee"), fixed="ant")
    play(guarded, 2500, right=right)
    assert guarded.away_ == {"ant": 1.0}
    assert 1500 < guarded.since_ < 2200


def test_it_comes_back_when_what_is_inside_has_become_better_and_does_not_flap() -> None:
    def right(i: int, target: str) -> float:
        return {"ant": 0.5, "bee": 0.0 if i < 600 else 1.0, "cat": 0.5}[target]

    guarded = Guarded(policy=Fixed(plan="bee"), fixed="ant", explore=0.2)
    decisions = play(guarded, 3000, right=right)
    assert any("stepped back" in d.reasons[-1] for d in decisions)
    assert not guarded.away_
    assert guarded.spells_ == 3
    assert "is above 0" in guarded.why_
    # Equals after that: the bar is higher in each spell, and nothing happens any more.
    play(guarded, 1500, right=lambda i, t: 0.5, seed=1)
    assert guarded.spells_ == 3
    assert guarded.bar() == pytest.approx(3 * 4 * 2 / 0.05)


def test_late_and_missing_judgements_are_weighed_by_what_was_served_then() -> None:
    guarded = Guarded(policy=Fixed(plan="bee"), fixed="ant")
    play(guarded, 3000, late=300, judged=0.5)
    assert guarded.away_ == {"ant": 1.0}
    assert guarded.spells_ == 2
    # Answers of the first spell that were judged in the second cannot be compared with what serves now.
    assert 250 <= guarded.skipped_ <= 300


def test_utility_is_compared_and_not_quality() -> None:
    usd = {"ant": 0.05, "bee": 0.0}
    even: dict[str, Any] = {"right": lambda i, t: {"ant": 0.8, "bee": 0.7, "cat": 0.0}[t], "usd": usd}
    cheap = Guarded(policy=Fixed(plan="bee"), fixed="ant", objective=Objective(usd_weight=10.0))
    play(cheap, 1500, **even)
    assert not cheap.away_
    dear = Guarded(policy=Fixed(plan="ant"), fixed="bee", objective=Objective(usd_weight=10.0))
    play(dear, 1500, **even)
    assert dear.away_ == {"bee": 1.0}
    assert Guarded(policy=Thompson(objective=Objective(usd_weight=3.0)), fixed="ant").weighed.usd_weight == 3.0


def test_a_policy_that_beats_the_fixed_target_but_not_a_mix_of_equal_cost_is_stepped_back_from() -> None:
    # Tossing a coin between ant and cat costs what bee does, and brings more; ant alone is dearer than it is worth.
    usd = {"ant": 0.08, "bee": 0.04, "cat": 0.0}
    guarded = Guarded(policy=Fixed(plan="bee"), fixed="ant", objective=Objective(usd_weight=20.0), explore=0.2)
    play(guarded, 3000, right=lambda i, t: {"ant": 0.95, "bee": 0.4, "cat": 0.5}[t], usd=usd)
    assert set(guarded.away_) == {"ant", "cat"}
    assert guarded.away_["ant"] == pytest.approx(0.5, abs=0.05)
    assert "the mix of targets" in guarded.why_


def test_the_cheapest_mix() -> None:
    points = {"small": (1.0, 0.5), "middle": (2.0, 0.55), "large": (3.0, 0.9)}
    assert cheapest_mix(points, 2.0) == pytest.approx({"small": 0.5, "large": 0.5})
    assert cheapest_mix(points, 9.0) == {"large": 1.0}
    assert cheapest_mix(points, 1.0) == {"small": 1.0}
    assert cheapest_mix(points, 0.5) == {"small": 1.0}
    assert cheapest_mix({"a": (0.0, 0.5), "b": (0.0, 0.7)}, 0.0) == {"b": 1.0}
    assert cheapest_mix({"a": (1.0, 0.9), "b": (2.0, 0.7)}, 1.5) == {"a": 1.0}


def test_the_guard_keeps_to_what_may_act() -> None:
    query, signals = Query(id="q", messages=()), Signals()
    ant, bee, cat = (POOL[name] for name in ("ant", "bee", "cat"))
    private = Rules(rules=[{"when": {"length": None}, "use": "bee", "required": True}], default="bee")
    for policy, targets in ((private, (ant, bee, cat)), (Fixed(plan="bee"), (bee, cat))):
        guarded = Guarded(policy=policy, fixed="ant")
        proposal = guarded.propose(query, signals, targets)
        assert [o.plan.targets() for o in proposal.options if o.probability] == [("bee",)]
        assert "not under guard: ant may not act here" in proposal.reasons[-1]
        assert not proposal.shadow
        guarded.away_ = {"ant": 1.0}
        assert "not under guard: ant may not act here" in guarded.propose(query, signals, targets).reasons[-1]
    with pytest.raises(NoEligibleTarget):
        Guarded(policy=private, fixed="ant").propose(query, signals, (ant, cat))


def test_while_what_serves_instead_is_away_the_fixed_target_does() -> None:
    guarded = Guarded(policy=Fixed(plan="bee"), fixed="ant")
    guarded.away_ = {"cat": 1.0}
    assert {name for _, name in guarded.names} == {"ant", "cat"}
    proposal = guarded.propose(Query(id="q", messages=()), Signals(), (POOL["ant"], POOL["bee"]))
    assert {o.plan.targets()[0]: o.probability for o in proposal.options} == pytest.approx({"ant": 0.9, "bee": 0.1})
    alone = guarded.propose(Query(id="q", messages=()), Signals(), (POOL["bee"],))
    assert "not under guard" in alone.reasons[-1]


def test_what_saves_on_purpose_is_guarded_by_an_objective_only() -> None:
    saver = Floor(predictor=KNN(features=Features(signals=("length",))))
    for policy in (
        Guarded(policy=saver, fixed="ant"),
        Guarded(policy=Rules(default={"policy": "in"}, policies={"in": saver}), fixed="ant"),
        Canary(current=Fixed(plan="ant"), candidate=saver),
    ):
        with pytest.raises(ConfigError, match="floor saves on purpose") as e:
            policy.check()
        assert e.value.path == "$.objective"
    Guarded(policy=saver, fixed="ant", objective=Objective(usd_weight=10.0)).check()
    Canary(current=Thompson(objective=Objective(usd_weight=10.0)), candidate=saver).check()
    Guarded(policy=saver, fixed="ant", objective=Objective()).check()  # somebody said that quality alone counts


def test_plans_of_several_targets_are_guarded_too() -> None:
    cascade = Cascade.example()
    targets = tuple(Target(name=name) for name in (*cascade.targets(), "ant"))
    guarded = Guarded(policy=Fixed(plan=cascade), fixed="ant")
    decision = guarded.decide(Query(id="q", messages=()), Signals(), Pool(targets=targets))
    assert decision.options[0].plan == cascade
    guarded.learn(traced(decision, "ant"), Reward(quality=1.0))
    assert guarded.judged_ == 1


def traced(decision: Decision, target: str) -> Trace:
    query = Query(id="q", messages=())
    return Trace(id="q", at=0.0, query=query, signals=Signals(), decision=decision, outcome=Outcome(target=target))


def test_what_is_not_on_the_record_is_counted_and_not_guessed() -> None:
    plain = Random().decide(Query(id="q", messages=()), Signals(), POOL)
    guarded = Guarded(policy=Random(), fixed="ant")
    canary = Canary(current=Random(), candidate=Fixed(plan="ant"))
    both: tuple[Any, ...] = (guarded, canary)
    for policy in both:
        policy.learn(traced(plain, "ant"), Reward(quality=1.0))
        assert (policy.judged_, policy.skipped_) == (0, 1)
        with pytest.raises(StateError, match="nan"):
            policy.learn(traced(plain, "ant"), Reward(quality=float("nan")))
        with pytest.raises(StateError, match="elect one learner"):
            policy.merge(policy.copy())


# ------------------------------------------------------------------------------------------------------------- shadow


def test_a_shadow_decides_and_does_not_serve() -> None:
    shadow = Shadow(serve=Fixed(plan="ant"), candidate=Random(weights={"bee": 3.0, "cat": 1.0}))
    decision = shadow.decide(Query(id="q", messages=()), Signals(), POOL)
    assert decision.propensity == 1.0
    assert decision.plan.targets() == ("ant",)
    assert {o.plan.targets()[0]: o.probability for o in decision.shadow} == {"bee": 0.75, "cat": 0.25, "ant": 0.0}


def test_both_learn_from_what_was_served() -> None:
    shadow = Shadow(serve=Thompson(), candidate=Thompson(sigma=0.1))
    assert shadow.needs == Thompson().needs
    check_policy(lambda: shadow.copy(), contextual=True)


def test_a_shadow_that_cannot_decide_or_learn_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Fixed):
        def learn(self, trace: Trace, reward: Reward) -> None:
            raise StateError("of another kind")

    shadow = Shadow(serve=Fixed(plan="ant"), candidate=Broken(plan="dog", only=True))
    decision = shadow.decide(Query(id="q", messages=()), Signals(), POOL)
    assert decision.plan.targets() == ("ant",)
    assert "the shadow could not decide: " in decision.reasons[-1]
    with caplog.at_level(logging.WARNING, "fairlead.policies.shadow"):
        shadow.learn(traced(decision, "ant"), Reward(quality=1.0))
        for policy in (
            Canary(current=Fixed(plan="ant"), candidate=Broken(plan="bee")),
            Guarded(policy=Broken(plan="bee"), fixed="ant"),
        ):
            decision = policy.decide(Query(id="q", messages=()), Signals(), POOL)
            policy.learn(traced(decision, decision.plan.targets()[0]), Reward(quality=1.0))
            assert policy.judged_ == 1
    assert caplog.text.count("could not learn from q: of another kind") == 3


class Buggy(Fixed):
    """Breaks as `how` says."""

    def __init__(self, *, plan: str = "ant", how: str = "raises") -> None:
        self.plan, self.how = plan, how

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        if self.how == "raises":
            raise ZeroDivisionError("secret of the candidate")
        plan, share = Single(target="gone" if self.how == "stray" else "ant"), 0.0 if self.how == "nothing" else 1.0
        return Proposal([Option(plan=plan, probability=share)])

    def learn(self, trace: Trace, reward: Reward) -> None:
        raise KeyError("bug")


@pytest.mark.parametrize(
    ("how", "says"), [("raises", "ZeroDivisionError"), ("stray", "gone, not eligible"), ("nothing", "sum to 0.0")]
)
def test_a_candidate_with_a_bug_takes_nobody_down(how: str, says: str, caplog: pytest.LogCaptureFixture) -> None:
    for policy in (
        Shadow(serve=EpsilonGreedy(), candidate=Buggy(how=how)),
        Canary(current=EpsilonGreedy(), candidate=Buggy(how=how)),
    ):
        decision = policy.decide(Query(id="q", messages=()), Signals(), POOL)
        assert sum(o.probability for o in decision.options) == pytest.approx(1.0)
        assert says in decision.reasons[-1]
        assert "secret" not in str(decision.reasons)
        assert not decision.shadow
        serving = policy.serve if isinstance(policy, Shadow) else policy.current
        assert isinstance(serving, EpsilonGreedy)
        before = serving.digest()
        policy.learn(traced(decision, decision.plan.targets()[0]), Reward(quality=1.0))
        assert serving.digest() != before
    assert caplog.text.count("could not learn from q") == 2
    assert ("secret of the candidate" in caplog.text) == (how == "raises")


# ------------------------------------------------------------------------------------------------------------- canary


def private() -> Rules:
    rule = {"name": "private", "when": {"private": True}, "use": "bee", "required": True}
    return Rules(rules=[rule], default="cat")


PRIVATE = Signals(readings={"private": Reading(value=True)})


def test_a_canary_keeps_a_required_rule() -> None:
    canary = Canary(current=private(), candidate=Random(), share=0.3)
    kept = canary.decide(Query(id="q", messages=()), PRIVATE, POOL)
    assert (probabilities(kept), kept.fallbacks) == ({"bee": 1.0}, ())
    assert "the canary may not act here" in kept.reasons[-1]
    assert not kept.shadow
    assert len(canary.decide(Query(id="q", messages=()), Signals(), POOL).options) == 3
    inside = Canary(current=private(), candidate=Random(weights={"bee": 1.0}), share=0.3)
    kept = inside.decide(Query(id="q", messages=()), PRIVATE, POOL)
    assert (probabilities(kept), kept.fallbacks) == ({"bee": 1.0}, ())
    assert kept.shadow


def test_a_canary_serves_exactly_the_mixture() -> None:
    canary = Canary(current=Random(weights={"ant": 1.0, "cat": 1.0}), candidate=Random(), share=0.3)
    decision = canary.decide(Query(id="q", messages=()), Signals(), POOL)
    assert probabilities(decision) == pytest.approx({"ant": 0.45, "cat": 0.45, "bee": 0.1})
    assert [o.probability for o in decision.shadow] == pytest.approx([1 / 3] * 3)
    assert "canary on 30%: evidence 1 of 20 that it is worse" in decision.reasons


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_canary_is_stopped_and_it_is_said(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    canary = Canary(current=Fixed(plan="ant"), candidate=Fixed(plan="bee"), margin=0.05)
    with caplog.at_level(logging.WARNING, "fairlead.policies.canary"):
        decisions = play(canary, 1000, seed=seed)
    assert canary.stage_ == "stopped"
    assert served(decisions[-200:], "ant") == 1.0
    assert not decisions[-1].shadow
    assert decisions[-1].reasons[-1].startswith("canary stopped: the candidate's utility less the current policy's is")
    assert caplog.messages == [decisions[-1].reasons[-1]]
    judged = canary.judged_
    play(canary, 50, seed=9)
    assert canary.judged_ == judged


def test_a_good_canary_is_promoted_if_that_is_wanted() -> None:
    canary = Canary(current=Fixed(plan="bee"), candidate=Fixed(plan="ant"), margin=0.05)
    decisions = play(canary, 1500)
    assert canary.stage_ == "promoted"
    assert served(decisions[-200:], "ant") == 1.0
    assert "canary promoted: " in decisions[-1].reasons[-1]
    waits = Canary(current=Fixed(plan="bee"), candidate=Fixed(plan="ant"))
    play(waits, 1500)
    assert waits.stage_ == "running"


def test_equals_are_promoted_within_the_margin_and_rarely_stopped() -> None:
    stages = []
    for seed in range(20):
        canary = Canary(current=Fixed(plan="ant"), candidate=Fixed(plan="bee"), share=0.5, alpha=0.1, margin=0.3)
        play(canary, 400, right=lambda i, t: 0.5, seed=seed)
        stages.append(canary.stage_)
    assert stages.count("promoted") >= 16
    assert stages.count("stopped") <= 5


def test_a_candidate_worse_by_the_margin_is_promoted_no_more_often_than_promised() -> None:
    promoted = 0
    for seed in range(20):
        canary = Canary(current=Fixed(plan="ant"), candidate=Fixed(plan="bee"), share=0.5, alpha=0.2, margin=0.1)
        play(canary, 300, right=lambda i, t: {"ant": 0.6, "bee": 0.5}[t], seed=seed)
        promoted += canary.stage_ == "promoted"
    assert promoted <= 20 * 0.2 + 3 * (20 * 0.2 * 0.8) ** 0.5


def test_policies_that_agree_are_known_to_agree() -> None:
    canary = Canary(current=Fixed(plan="ant"), candidate=Fixed(plan="ant"), margin=0.05)
    play(canary, 3000)
    assert canary.stage_ == "promoted"
    assert float(canary.gap_["sum"]) == 0.0


def test_a_canary_weighs_late_judgements_by_what_was_served_then() -> None:
    canary = Canary(current=Fixed(plan="ant"), candidate=Random(), share=0.3)
    play(canary, 300, late=100, right=lambda i, t: 0.5)
    assert canary.skipped_ == 0
    assert canary.judged_ == 200
    stored = Canary(current=Fixed(plan="ant"), candidate=Random(), share=0.3)
    stored.load(unpack(pack(canary.state())))
    assert stored.digest() == canary.digest()


def test_a_canary_that_cannot_decide_serves_nobody() -> None:
    canary = Canary(current=Fixed(plan="ant"), candidate=Fixed(plan="dog", only=True))
    decision = canary.decide(Query(id="q", messages=()), Signals(), POOL)
    assert probabilities(decision) == {"ant": 1.0}
    assert "the canary could not decide" in decision.reasons[-1]


# ------------------------------------------------------------------------------------------------- config and router


GOOD = {"type": "fixed", "plan": "good"}
BAD = {"type": "fixed", "plan": "bad"}
CORRAL = {"type": "corral", "policies": {"good": GOOD, "bad": BAD}}


def router(tmp_path: Path, policy: Any) -> Router:
    return make(
        {
            "targets": {
                "good": {"type": "scripted", "replies": ["right"]},
                "bad": {"type": "scripted", "replies": ["wrong"]},
            },
            "routes": {"auto": {"policy": policy}},
            "store": {"path": str(tmp_path / "traces.sqlite"), "relaxed": True},
            "learning": {"batch": 25, "seconds": 0.05},
        }
    ).router()


async def rounds(r: Router, start: int, n: int, *, flipped: bool = False) -> list[Trace]:
    """Ask and judge `n` times, in batches that are learned before the next."""
    traces = []
    for i in range(start, start + n):
        outcome, trace = await r.handle(Query.ask("x", id=f"q{i}"))
        await r.feedback(Feedback(trace_id=trace.id, value=float((outcome.text == "right") != flipped)))
        traces.append(trace)
        if i % 25 == 24:
            assert await asyncio.to_thread(r.learner.wait, 10)
    return traces


async def test_a_policy_poisoned_by_flipped_feedback_is_stepped_back_from(tmp_path: Path) -> None:
    guarded = {"type": "guarded", "policy": {"type": "thompson"}, "fixed": "good", "explore": 0.2}
    async with router(tmp_path, guarded) as r:
        poisoned = await rounds(r, 0, 250, flipped=True)
        assert sum(t.outcome.text == "wrong" for t in poisoned[-50:]) > 35
        healed = await rounds(r, 250, 225)
        assert sum(t.outcome.text == "right" for t in healed[-50:]) > 35
        last = healed[-1]
        assert "is below 0, about -" in last.decision.reasons[-1]
        assert "stepped back to good" in last.decision.reasons[-1]
        assert last.decision.shadow
        assert replay_decision(last, r.store).same
        version = r.serving["auto"].version
    async with router(tmp_path, guarded) as r:  # it stays so after a restart
        assert r.serving["auto"].version == version
        _, trace = await r.handle(Query.ask("x", id="again"))
        assert "stepped back to good" in trace.decision.reasons[-1]


async def test_a_canary_stops_itself_through_the_router(tmp_path: Path) -> None:
    async with router(tmp_path, {"type": "canary", "current": GOOD, "candidate": BAD, "share": 0.2}) as r:
        traces = await rounds(r, 0, 125)
        assert "canary stopped" in traces[-1].decision.reasons[-1]
        assert sum(t.outcome.text == "wrong" for t in traces) < 40
        assert replay_decision(traces[0], r.store).same


async def test_a_shadow_is_recorded_and_replayed_inside_rules_too(tmp_path: Path) -> None:
    shadow = {"type": "shadow", "serve": GOOD, "candidate": BAD}
    rules = {"type": "rules", "rules": [], "default": {"policy": "p"}, "policies": {"p": shadow}}
    async with router(tmp_path, rules) as r:
        (trace,) = await rounds(r, 0, 1)
        kept = await r.store.get(trace.id)
        assert kept is not None
        assert kept.decision.shadow[0].plan.targets() == ("bad",)
        assert replay_decision(kept, r.store).same


async def test_a_corral_inside_a_guard_or_a_canary_is_recorded_replayed_and_judged(tmp_path: Path) -> None:
    for i, policy in enumerate(
        (
            {"type": "guarded", "policy": CORRAL, "fixed": "good"},
            {"type": "canary", "current": GOOD, "candidate": CORRAL, "share": 0.5},
            {"type": "rules", "default": {"policy": "p"}, "policies": {"p": CORRAL}},
        )
    ):
        async with router(tmp_path / str(i), policy) as r:
            traces = await rounds(r, 0, 100)
            assert replay_decision(traces[0], r.store).same
            assert replay_decision(traces[-1], r.store).same
            corral = next(p for _, p in r.serving["auto"].policy.walk() if isinstance(p, Corral))
            assert corral.shares["good"] > 0.6


@pytest.mark.parametrize(
    ("policy", "path", "says"),
    [
        ({"type": "guarded", "policy": GOOD, "fixed": "god"}, "policy.fixed", "did you mean 'good'"),
        ({"type": "guarded", "policy": GOOD}, "policy", "missing: fixed"),
        ({"type": "guarded", "policy": GOOD, "fixed": "bad", "explore": 0}, "policy.explore", "> 0"),
        ({"type": "canary", "current": GOOD, "candidate": BAD, "share": 1.5}, "policy.share", "< 1"),
        (
            {"type": "canary", "current": {"type": "guarded", "policy": GOOD, "fixed": "bad"}, "candidate": BAD},
            "policy.current",
            "guarded inside canary",
        ),
        (
            {"type": "corral", "policies": {"x": GOOD, "y": {"type": "guarded", "policy": GOOD, "fixed": "bad"}}},
            "policy.policies.y",
            "guarded inside corral",
        ),
        (
            {"type": "canary", "current": CORRAL, "candidate": {"type": "guarded", "policy": CORRAL, "fixed": "bad"}},
            "policy.candidate",
            "guarded inside canary",
        ),
        ({"type": "canary", "current": CORRAL, "candidate": CORRAL}, "policy.candidate", "corral inside canary"),
        ({"type": "corral", "policies": {"x": GOOD, "y": CORRAL}}, "policy.policies.y", "corral inside corral"),
        (
            {"type": "shadow", "serve": GOOD, "candidate": {"type": "shadow", "serve": GOOD, "candidate": BAD}},
            "policy.candidate",
            "shadow inside shadow",
        ),
    ],
)
def test_wrong_configs_are_refused(tmp_path: Path, policy: Any, path: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as e:
        router(tmp_path, policy)
    assert e.value.path == f"$.routes.auto.{path}"


def test_shares_out_of_range_are_refused_in_python_too() -> None:
    for policy in (
        Guarded(policy=Random(), fixed="ant", alpha=1.0),
        Canary(current=Random(), candidate=Random(), share=0.0),
    ):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            policy.check()
