"""The checks find what they are for: each component below breaks one promise."""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from msgspec import Struct

from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, answering
from fairlead.policies.random import Random
from fairlead.signals.base import Signal
from fairlead.testing import (
    TARGETS,
    ToyDriver,
    check_component,
    check_plan,
    check_policy,
    check_signal,
    check_target,
    toy,
)
from fairlead.types import Call, Do, Option, Outcome, Plan, Query, Reading, Reward, Signals, Steps, Target, Trace


class Even(Policy):
    """Keeps every promise; others break one."""

    def __init__(self, *, weight: float = 1.0) -> None:
        self.weight = weight

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        names = sorted(t.name for t in answering(targets))
        return Proposal([Option(plan=Single(target=n), probability=1 / len(names)) for n in names])


class Ordered(Even):
    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        return Proposal([Option(plan=Single(target=targets[0].name), probability=1.0)])


class Reader(Even):
    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        names = sorted((t.name for t in targets), reverse=len(query.text) > 0)
        return Proposal([Option(plan=Single(target=names[0]), probability=1.0)])


class Stray(Even):
    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        return Proposal([Option(plan=Single(target="ant"), probability=1.0)])


class Helpless(Even):
    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        names = sorted(t.name for t in targets)
        return Proposal([Option(plan=Single(target=n), probability=1 / len(names)) for n in names])


class Short(Even):
    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        return Proposal([Option(plan=Single(target=min(t.name for t in targets)), probability=0.9)])


class Counting(Even):
    def __init__(self) -> None:
        self.count_ = 0

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        self.count_ += 1
        return super().propose(query, signals, targets)


class Dull(Even):
    def learn(self, trace: Trace, reward: Reward) -> None:
        pass


class Forgetful(Even):
    """Learns into an attribute that is not state."""

    def __init__(self) -> None:
        self.best: dict[str, list[float]] = {}

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        names = sorted(t.name for t in answering(targets))
        top = max(names, key=lambda n: float(np.mean(self.best.get(n, [9.0]))))
        return Proposal([Option(plan=Single(target=top), probability=1.0)])

    def learn(self, trace: Trace, reward: Reward) -> None:
        self.best.setdefault(trace.outcome.target, []).append(reward.quality)


class Doubling(Even):
    mergeable: ClassVar[bool] = True

    def __init__(self) -> None:
        self.sums_: dict[str, float] = {}

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        names = sorted(t.name for t in answering(targets))
        total = 1.0 + sum(self.sums_.get(n, 0.0) ** 4 for n in names)
        rest = (1.0 - sum(self.sums_.get(n, 0.0) ** 4 / total for n in names)) / len(names)
        shares = {n: self.sums_.get(n, 0.0) ** 4 / total + rest for n in names}
        return Proposal([Option(plan=Single(target=n), probability=shares[n]) for n in names])

    def learn(self, trace: Trace, reward: Reward) -> None:
        name, gain = trace.outcome.target, reward.weight * reward.quality**3
        if gain:
            self.sums_ = {**self.sums_, name: self.sums_.get(name, 0.0) + gain}

    def merge(self, other: Any) -> None:
        self.sums_ = {n: 2 * v for n, v in self.sums_.items()}


class Credulous(Doubling):
    """Learns all alike, however little a judgement counts."""

    def learn(self, trace: Trace, reward: Reward) -> None:
        super().learn(trace, msgspec.structs.replace(reward, weight=1.0))


class Leaky(Even):
    """Asks the policy inside, and mixes in everybody all the same."""

    def __init__(self, *, inside: Policy = Random()) -> None:  # noqa: B008 - has no state
        self.inside = inside

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        self.inside.propose(query, signals, targets)
        return super().propose(query, signals, targets)


class Loose(Leaky):
    """Proposes as the policy inside does, and lets anybody take over."""

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        return Proposal(self.inside.propose(query, signals, targets).options)


class Positional(Even):
    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight


class Hidden(Even):
    def __init__(self, *, weight: float = 1.0, other: int = 3) -> None:
        self.weight = weight
        self.elsewhere = other


class Reworked(Even):
    def __init__(self, *, weight: float = 1.0) -> None:
        self.weight = weight + 1.0


def test_a_good_policy_passes() -> None:
    check_policy(Even)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Ordered, "order of targets"),
        (Reader, "must not read the text"),
        (Stray, "only eligible targets"),
        (Short, "sum to"),
        (Helpless, "who only helps"),
        (Counting, "propose must not change the policy"),
        (Dull, "better than random"),
        (Forgetful, "stored, loaded and continued"),
        (Doubling, "two halves merged"),
        (Credulous, "a lesson of weight 0 changes nothing"),
        (Leaky, "a required rule inside is kept"),
        (Loose, "a required rule inside is kept"),
        (Positional, "keyword-only"),
        (Hidden, "under its own name"),
        (Reworked, "builds the component again"),
    ],
)
def test_a_broken_policy_is_named(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_policy(make)


class Clock(Signal):
    reads = 0

    def _read(self, query: Query) -> Reading:
        type(self).reads += 1
        return Reading(value=self.reads)


class Fragile(Signal):
    def _read(self, query: Query) -> Reading:
        return Reading(value=1 / len(query.text))


class Numpy(Signal):
    def _read(self, query: Query) -> Reading:
        return Reading(value=np.float64(0.5))


class Infinite(Signal):
    def _read(self, query: Query) -> Reading:
        return Reading(value=float("inf"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Clock, "same reading"),
        (Fragile, "never fails"),
        (Infinite, "must be finite"),
        (Numpy, "value must be Python's own bool"),
    ],
)
def test_a_broken_signal_is_named(make: Callable[[], Signal], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_signal(make)


class Peeking(Struct, Plan, frozen=True, kw_only=True):
    """Breaks the promise in `how`."""

    how: str = ""

    def run(self, query: Query) -> Steps:
        (first,) = yield Do(branches=(Call(target="a"),))
        if self.how == "peeks" and (first.quality or 0.0) > 0.5:
            return first
        if self.how == "raises" and first.error is not None:
            raise RuntimeError("no")
        if self.how == "invents":
            return Outcome(text="made up")
        target = "c" if self.how == "strays" else "b"
        (second,) = yield Do(branches=(Call(target=target),), final=True)
        return second

    def targets(self) -> tuple[str, ...]:
        return ("a", "b")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("peeks", "must not read outcome.quality"),
        ("raises", "must not raise"),
        ("strays", "lacks"),
        ("invents", "must report a failure"),
    ],
)
def test_a_broken_plan_is_named(how: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Peeking(how=how)
    monkeypatch.setattr("fairlead.testing.decode", lambda data: plan)
    with pytest.raises(AssertionError, match=message):
        check_plan(lambda: plan)


def test_a_good_plan_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.testing.decode", lambda data: Peeking())
    check_plan(Peeking)


def test_a_plan_outside_the_catalogue_must_be_readable() -> None:
    with pytest.raises(AssertionError, match="written as JSON and read back"):
        check_plan(Peeking)


async def test_targets() -> None:
    await check_target(lambda: ToyDriver(name="toy"))
    with pytest.raises(AssertionError, match="must answer"):
        await check_target(lambda: ToyDriver(name="toy", error="unavailable"))


def test_components() -> None:
    check_component(lambda: ToyDriver(name="toy"))


def test_the_toy_is_as_it_says() -> None:
    table = toy()
    short, long = table.quality_QM[0::2].mean(axis=0), table.quality_QM[1::2].mean(axis=0)
    assert table.models == [t.name for t in TARGETS]
    assert short == pytest.approx([0.95, 0.2, 0.4], abs=0.03)
    assert long == pytest.approx([0.45, 0.9, 0.4], abs=0.03)
    assert toy().digest == table.digest != toy(seed=1).digest
