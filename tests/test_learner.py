"""Learning never harms serving."""

import math
import threading
from collections.abc import Sequence

import pytest

from fairlead.learner import Learner
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, preferred
from fairlead.types import Decision, Option, Outcome, Query, Reward, Signals, Target, Trace


class Counting(Policy):
    """Counts lessons; a lesson of quality 0.5 raises, one of 0.25 poisons its state."""

    def __init__(self) -> None:
        self.seen_ = 0.0

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        return Proposal(preferred([(t, 0.0, None) for t in targets]))

    def learn(self, trace: Trace, reward: Reward) -> None:
        if reward.quality == 0.5:
            self.seen_ = -1000.0
            raise ValueError("cannot learn that")
        self.seen_ += math.nan if reward.quality == 0.25 else 1.0


def trace(id: str) -> Trace:
    decision = Decision(options=(Option(plan=Single(target="a"), probability=1.0),), chosen=0, propensity=1.0)
    return Trace(
        id=id, at=0.0, query=Query.ask("x", id=id), signals=Signals(), decision=decision, outcome=Outcome(target="a")
    )


class Shelf:
    def __init__(self) -> None:
        self.policy: Policy = Counting()
        self.published: list[tuple[str, str]] = []
        self.learned: list[str] = []
        self.forgotten: list[str] = []

    def publish(self, route: str, policy: Policy, note: str, learned: Sequence[str]) -> None:
        assert threading.current_thread().name == "fairlead-learner"
        assert policy is not self.policy
        self.policy = policy
        self.published.append((route, note))
        self.learned += learned


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def learner_of(shelf: Shelf, *, batch: int, seconds: float) -> Learner:
    return Learner(
        serving=lambda _: shelf.policy,
        publish=shelf.publish,
        forget=shelf.forgotten.extend,
        batch=batch,
        seconds=seconds,
    )


def teach(shelf: Shelf, qualities: list[float]) -> Learner:
    learner = learner_of(shelf, batch=len(qualities), seconds=5)
    learner.start()
    for i, quality in enumerate(qualities):
        learner.submit("auto", trace(str(i)), Reward(quality=quality))
    assert learner.wait(10)
    learner.stop()
    return learner


def test_a_batch_is_learned_on_a_copy_and_swapped_in_whole(shelf: Shelf) -> None:
    before = shelf.policy
    learner = teach(shelf, [1.0, 0.0, 1.0])
    assert vars(before) == {"seen_": 0.0}
    assert vars(shelf.policy) == {"seen_": 3.0}
    assert learner.learned == 3
    assert shelf.published == [("auto", "learned from 3 answers")]


@pytest.mark.parametrize("poison", [0.5, 0.25])
def test_harmful_lessons_are_quarantined_and_the_rest_is_learned(
    shelf: Shelf, poison: float, caplog: pytest.LogCaptureFixture
) -> None:
    learner = teach(shelf, [1.0, poison, 1.0, poison, 0.0])
    assert vars(shelf.policy) == {"seen_": 3.0}
    assert (learner.learned, learner.quarantined) == (3, 2)
    assert (shelf.learned, shelf.forgotten) == (["0", "2", "4"], ["1", "3"])
    assert "trace 1" in caplog.text
    assert "trace 3" in caplog.text


def test_what_is_left_of_an_answer_goes_with_its_lesson_that_does_harm(shelf: Shelf) -> None:
    """The store takes an answer's lessons off oldest first: learning only the other of two would take the wrong one off."""
    learner = learner_of(shelf, batch=3, seconds=5)
    learner.start()
    for name, quality in (("0", 1.0), ("1", 1.0), ("0", 0.5)):
        learner.submit("auto", trace(name), Reward(quality=quality))
    assert learner.wait(10)
    learner.stop()
    assert vars(shelf.policy) == {"seen_": 1.0}
    assert (shelf.learned, shelf.forgotten) == (["1"], ["0", "0"])


def test_a_publisher_that_fails_leaves_the_last_good_policy(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    def fail(route: str, policy: Policy, note: str, learned: Sequence[str]) -> None:
        raise OSError("disk full")

    shelf.publish = fail  # type: ignore[method-assign]
    learner = teach(shelf, [1.0])
    assert vars(shelf.policy) == {"seen_": 0.0}
    assert (learner.learned, learner.quarantined, learner.failed) == (0, 0, 1)
    assert not shelf.forgotten, "the store still has the lesson"
    assert "disk full" in caplog.text


def test_stop_learns_what_is_waiting(shelf: Shelf) -> None:
    learner = learner_of(shelf, batch=100, seconds=60)
    learner.start()
    for i in range(10):
        learner.submit("auto", trace(str(i)), Reward(quality=1.0))
    learner.stop()
    assert vars(shelf.policy) == {"seen_": 10.0}
