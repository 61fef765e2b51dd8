"""Every kind of plan inside every other, with faults: live equals replay, and no limit is exceeded.

Plans are made from the examples of all kinds in the catalogue: a plan inside an example is now and then another example, and every target has
a name of its own. Replies follow from a hash of the call: answers, verdicts, numbers, lists, tags, forecasts and rubbish, and one in five is a fault.
"""

import json
from hashlib import blake2b
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtual_time import virtual_clock, virtually

from fairlead import catalog
from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.gates import said
from fairlead.targets.base import Driver
from fairlead.testing import comparable
from fairlead.types import (
    UNLIMITED,
    Call,
    Failure,
    Forecast,
    Limits,
    Outcome,
    Path,
    Plan,
    Profile,
    Query,
    Sink,
    Step,
    Tokens,
)
from fairlead.worlds.base import Run
from fairlead.worlds.lateness import Lateness
from fairlead.worlds.live import Live
from fairlead.worlds.replay import LookUp, Recorded, replay

KINDS = catalog.names("plans")
CEILING = 0.02
"""No call costs more, in USD."""
FAULTS = ("unavailable", "timeout", "rate_limited", "internal", "malformed", "context_too_long", "bad_request")
QUERY = Query.ask("1) 2 + 2; 2) reverse abc; 3) #1 + 1", id="q")


@pytest.fixture(autouse=True, scope="module")
def _virtual_clock() -> Any:
    with virtual_clock():
        yield


def nested(random: Random, depth: int, kind: str | None = None) -> Plan:
    """Make a plan of some kind with others inside."""
    count = iter(range(10_000))

    def make(depth: int, kind: str) -> Any:
        plan: Plan = catalog.find("plans", kind).example()
        n, own = next(count), {*plan.targets()}

        def renamed(value: Any) -> Any:
            match value:
                case str() if value in own:
                    return f"{value}-{n}"
                case dict():
                    return {renamed(k): renamed(v) for k, v in value.items()}
                case list() | tuple():
                    return [renamed(v) for v in value]
            return value

        def filled(value: Any, *, root: bool) -> Any:
            match value:
                case {"kind": str(inner)} if not root and inner in KINDS and depth and random.random() < 0.6:
                    return make(depth - 1, random.choice(KINDS))
                case dict():
                    return {k: filled(v, root=False) for k, v in value.items()}
                case list():
                    return [filled(v, root=False) for v in value]
            return value

        plain = renamed(to_data(plan))
        full = filled(plain, root=True)
        try:
            decode(full)
        except ConfigError:
            return plain  # this kind takes single calls there
        return full

    return decode(make(depth, kind or random.choice(KINDS)))


def reply(call: Call, seed: int, *, failing: float = 0.2) -> Outcome:
    """Reply to a call by a hash of all that it says."""
    said_before = [(m.role, m.text) for m in call.messages or ()]
    key = json.dumps([seed, call.target, call.purpose, call.sample, said_before, call.params], sort_keys=True)
    random = Random(blake2b(key.encode(), digest_size=8).digest())
    seconds = random.uniform(0.01, 1.0)
    if random.random() < failing:
        return Outcome(seconds=seconds, error=Failure(kind=random.choice(FAULTS)))
    names = [call.target, *(f"{c}-{n}" for c in "abcdefgh" for n in range(4)), *"abcdefgh"]
    sure = {name: Forecast(quality=random.random()) for name in random.sample(names, 6)}
    some = random.choice(names)
    text = random.choice(
        [
            "four",
            "The answer is 4.",
            "4",
            "2",
            "no",
            "yes",
            "Yes, it is.",
            "Easy: short",
            "Hard: long",
            said(sure),
            said({**sure, **{name: Forecast(quality=0.5) for name in names}}),
            json.dumps([{"id": "d1", "score": 0.5, "text": "four"}]),
            f"<think>why</think><search>{some}:2 + 2?</search>",
            "<think>so</think><answer>four</answer>",
            f"<reason>both</reason><agents>{some}, {random.choice(names)}</agents>",
            "1) 2 + 2; 2) #1 * 3",
            "first I add\n\nthen </think>",
            "",
            "}{",
        ]
    )
    return Outcome(
        text=text,
        seconds=seconds,
        usd=random.uniform(0.0, CEILING),
        tokens=Tokens(input=10, output=random.randint(1, 9)),
        logprobs=None if random.random() < 0.3 else tuple(-random.random() for _ in range(3)),
        first_entropy=None if random.random() < 0.3 else random.random(),
        confidence=None if random.random() < 0.5 else random.random(),
    )


class Hashed(Driver):
    """Replies by the hash, after as long as that says."""

    def __init__(self, *, name: str, seed: int, failing: float) -> None:
        self.name, self.seed, self.failing, self.timeout_seconds = name, seed, failing, 1e9
        self.profile = Profile()

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        import asyncio

        outcome = reply(call, self.seed, failing=self.failing)
        await asyncio.sleep(outcome.seconds)
        if sink is not None and outcome.ok:
            await sink(outcome.text.encode())
        return outcome


class Table(LookUp):
    """The same, looked up."""

    def __init__(self, seed: int) -> None:
        self.seed, self.lateness = seed, Lateness()

    def outcome(self, call: Call, path: Path) -> Outcome:
        from msgspec.structs import replace

        return replace(reply(call, self.seed), target=call.target, model=call.target)


def live(plan: Plan, seed: int, limits: Limits = UNLIMITED, *, failing: float = 0.2) -> Run:
    drivers = {name: Hashed(name=name, seed=seed, failing=failing) for name in plan.targets()}
    world = Live(drivers=drivers, estimate=lambda call, query: CEILING)
    run: Run = virtually(lambda: world.run(plan, QUERY, limits=limits))
    return run


def refused(step: Step) -> bool:
    return step.outcome.error is not None and step.outcome.error.kind in ("budget", "deadline")


def within(run: Run, limits: Limits) -> None:
    assert sum(s.outcome.usd or 0.0 for s in run.steps) <= limits.usd + 1e-12
    assert sum(1 for s in run.steps if s.call and s.call.purpose != "gate" and not refused(s)) <= limits.calls
    assert run.seconds <= limits.seconds + 1e-9


LIMITS = st.builds(
    Limits,
    usd=st.sampled_from([inf, 0.0, 0.03, 0.1]),
    calls=st.sampled_from([inf, 1.0, 3.0, 7.0]),
    seconds=st.sampled_from([inf, 0.5, 1.5, 3.0]),
)
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", KINDS)
@SETTINGS
@given(shape=st.integers(0, 2**32), seed=st.integers(0, 2**32), limits=LIMITS)
def test_live_equals_replay_and_keeps_its_limits(kind: str, shape: int, seed: int, limits: Limits) -> None:
    plan = nested(Random(shape), 2, kind)
    assert decode(json.loads(json.dumps(to_data(plan)))) == plan
    run = live(plan, seed, limits)
    error = run.outcome.error
    assert error is None or not error.message.startswith("plan broke"), error.message
    assert comparable(replay(plan, QUERY, Recorded(run.steps))) == comparable(run)
    assert {s.call.target for s in run.steps if s.call} <= {*plan.targets()}
    within(run, limits)
    kept_from = any(refused(s) for s in run.steps)
    assert bool(run.outcome.limited) == (kept_from and run.outcome.ok)


@pytest.mark.parametrize("kind", KINDS)
@SETTINGS
@given(shape=st.integers(0, 2**32), seed=st.integers(0, 2**32), limits=LIMITS)
def test_a_table_gives_what_live_gives_and_keeps_limits(kind: str, shape: int, seed: int, limits: Limits) -> None:
    plan = nested(Random(shape), 2, kind)
    run, table = live(plan, seed), replay(plan, QUERY, Table(seed), estimate=lambda call, query: CEILING)
    # Where a step's own limit bites, branches race for what is left of it live, and a table serves them in order.
    if not any(map(refused, (*run.steps, *table.steps))):
        assert comparable(run)[0] == comparable(table)[0]
        assert table.seconds == pytest.approx(run.seconds)
        assert table.usd == pytest.approx(run.usd)
    within(replay(plan, QUERY, Table(seed), limits=limits, estimate=lambda call, query: CEILING), limits)


@pytest.mark.parametrize("kind", KINDS)
def test_when_everybody_fails_the_plan_says_so(kind: str) -> None:
    for shape in range(10):
        run = live(nested(Random(shape), 2, kind), 1, failing=1.0)
        assert run.outcome.error is not None
        assert not run.outcome.error.message.startswith("plan broke"), run.outcome.error.message
