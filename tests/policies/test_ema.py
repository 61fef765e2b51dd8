"""The moving averages of `ema` as a router of agents (ORCH, 2026, arXiv 2602.01797): the paper's list of checks that need no models.

Where they should be exact, the prior is worth 1 / rate answers, so that the step is the rate from the first answer on.
"""

from collections.abc import Iterator
from math import log
from pathlib import Path

import numpy as np
import pytest

from fairlead.plans.single import Single
from fairlead.policies.ema import EMA
from fairlead.pool import Pool
from fairlead.rewards import reward
from fairlead.sqlite import SQLiteStore
from fairlead.types import Call, Decision, Feedback, Option, Outcome, Query, Reward, Signals, Step, Target, Trace

RATE = 0.05
HALF_LIFE = log(0.5) / log(1.0 - RATE)
TARGETS = tuple(Target(name=n) for n in "ab")


def trace(target: str, id: str = "q") -> Trace:
    plan, outcome = Single(target=target), Outcome(target=target, text="4")
    return Trace(
        id=id,
        at=1.0,
        query=Query(id=id, messages=()),
        signals=Signals(),
        decision=Decision(options=(Option(plan=plan, probability=1.0),), chosen=0, propensity=1.0),
        steps=(Step(path=(0, 0), call=Call(target=target), outcome=outcome),),
        outcome=outcome,
    )


def ema(**more: float) -> EMA:
    return EMA(rate=RATE, prior_weight=1.0 / RATE, **more)  # type: ignore[arg-type]


def teach(policy: EMA, target: str, *qualities: float) -> None:
    for quality in qualities:
        policy.learn(trace(target), Reward(quality=quality))


def value(policy: EMA, target: str = "a") -> float:
    return float(policy.read(Signals(), [Target(name=target)]).quality_K[0])


def best(policy: EMA) -> str:
    return policy.propose(Query(id="q", messages=()), Signals(), TARGETS).options[0].plan.targets()[0]


def test_the_fixed_point_is_the_true_accuracy() -> None:
    policy = ema()
    teach(policy, "a", *[0.7] * 400)
    assert value(policy) == pytest.approx(0.7, abs=1e-8)
    teach(policy, "a", 0.7)
    assert value(policy) == pytest.approx(0.7, abs=1e-8)
    rng, values = np.random.default_rng(0), []
    for right in (rng.random(6000) < 0.7).astype(float).tolist():
        teach(policy, "a", right)
        values.append(value(policy))
    # It wanders about the accuracy with variance rate / (2 - rate) p (1 - p); 6,000 answers are some 150 independent looks.
    sd = (RATE / (2.0 - RATE) * 0.7 * 0.3) ** 0.5
    assert np.mean(values) == pytest.approx(0.7, abs=4 * sd / 150**0.5)
    assert np.std(values) == pytest.approx(sd, rel=0.25)


def test_the_half_life_is_ln_half_over_ln_one_less_the_rate() -> None:
    policy = ema()
    teach(policy, "a", *[1.0] * 400)
    whole, part = int(HALF_LIFE), HALF_LIFE - int(HALF_LIFE)
    teach(policy, "a", *[0.0] * whole)
    before = value(policy)
    teach(policy, "a", 0.0)
    assert before ** (1.0 - part) * value(policy) ** part == pytest.approx(0.5, abs=1e-6)
    assert value(policy) < 0.5 < before


def test_after_a_swap_of_accuracies_the_best_flips_within_a_few_half_lives() -> None:
    flips = []
    for seed in range(20):
        rng, policy = np.random.default_rng(seed), ema()
        for accuracy in ((0.9, 0.5), (0.5, 0.9)):
            lessons = 0
            while lessons < 200:
                for name, p in zip("ab", accuracy, strict=True):
                    teach(policy, name, float(rng.random() < p))
                lessons += 1
                if accuracy == (0.5, 0.9) and best(policy) == "b":
                    break
            if accuracy == (0.9, 0.5):
                assert best(policy) == "a"
        flips.append(lessons)
    assert max(flips) < 4 * HALF_LIFE
    assert np.mean(flips) < 2 * HALF_LIFE


def test_without_feedback_the_state_is_bit_identical() -> None:
    policy = ema()
    teach(policy, "a", 0.3, 0.9)
    before = policy.digest()
    for i in range(200):
        policy.decide(Query(id=f"q{i}", messages=()), Signals(), Pool(targets=TARGETS))
    assert policy.digest() == before
    policy.learn(trace("a"), Reward(quality=0.5, weight=0.0))
    assert policy.digest() == before, "a judgement without weight is none"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    yield store
    store.stop()


async def test_delayed_feedback_is_learned_in_the_sequence_in_which_it_was_given(store: SQLiteStore) -> None:
    """What is judged last counts most, whenever it was answered: the sequence is that of the feedback, which the store numbers and keeps.

    An average depends on the order; so a learner that starts anew takes lessons up by that number, and comes to the very same state.
    """
    for i in range(4):
        await store.append(trace("a", id=f"t{i}"))
    judged = [
        ("t2", 0.9),
        ("t0", 0.1),
        ("t3", 0.6),
        ("t1", 0.4),
    ]  # days later, and in another order than they were answered
    live = ema()
    for id, quality in judged:
        receipt = await store.add_feedback(Feedback(trace_id=id, value=quality, at=3 * 86_400.0))
        assert receipt.lesson is not None
        live.learn(trace("a", id=id), reward(trace("a", id=id), receipt.lesson))
    waiting = store.unlearned("auto")
    assert [t.id for t, _ in waiting] == [id for id, _ in judged]
    anew, by_answer = ema(), ema()
    for t, lesson in waiting:
        anew.learn(t, reward(t, lesson))
    for t, lesson in sorted(waiting, key=lambda w: w[0].id):
        by_answer.learn(t, reward(t, lesson))
    assert anew.digest() == live.digest()
    assert by_answer.digest() != live.digest(), "order matters, which is why it is fixed"


async def test_a_judgement_that_comes_twice_is_learned_once(store: SQLiteStore) -> None:
    await store.append(trace("a", id="t"))
    for _ in range(3):
        await store.add_feedback(Feedback(trace_id="t", value=0.9))
    assert len(store.unlearned("auto")) == 1


def test_agents_that_are_alike_are_told_apart_by_name_and_not_by_order() -> None:
    policy = ema(explore=0.0)
    for order in (TARGETS, TARGETS[::-1]):
        options = policy.propose(Query(id="q", messages=()), Signals(), order).options
        assert [(o.plan.targets()[0], o.probability) for o in options] == [("a", 0.5), ("b", 0.5)]
