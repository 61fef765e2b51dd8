"""What stands between a plan's call and its target: the line, the breaker, and being sent again."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fairlead.errors import TargetError
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.pool import Health
from fairlead.targets.base import Driver
from fairlead.types import Call, Failure, Identity, Limits, Outcome, Profile, Query, Sink
from fairlead.worlds.lanes import Lanes
from fairlead.worlds.live import Live
from fairlead.worlds.retries import Retries


class Told(Driver):
    """Does what it is told, call by call."""

    def __init__(self, name: str, do: Callable[[int], Failure | None], *, most: int | None = None) -> None:
        self.name, self.do, self.profile, self.timeout_seconds = name, do, Profile(concurrent=most), 5.0
        self.calls = self.busy = self.busiest = 0
        self.order: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        self.calls += 1
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        self.order.append(query.identity.tenant or "")
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.busy -= 1
        if (failure := self.do(self.calls)) is not None:
            raise TargetError(failure)
        return Outcome(text="yes")


def world(*drivers: Driver, **more: Any) -> Live:
    return Live(drivers={d.name: d for d in drivers}, **more)


def of(tenant: str) -> Query:
    query = Query.ask("hi")
    return type(query)(id=query.id, messages=query.messages, body=query.body, identity=Identity(tenant=tenant))


UNREACHED = Failure(kind="unavailable", message="connection refused")
LIMITED = Failure(kind="rate_limited", status=429, retry_after_seconds=0.01)


# --------------------------------------------------------------------------------------------------------------- lanes


async def test_no_more_than_it_takes() -> None:
    a = Told("a", lambda _: None, most=3)
    live = world(a, lanes=Lanes())
    runs = await asyncio.gather(*(live.run(Single(target="a"), Query.ask("hi")) for _ in range(20)))
    assert a.busiest == 3
    assert all(r.outcome.ok for r in runs)
    assert live.lanes is not None
    assert live.lanes.under_way("a") == (0, 0)
    assert any(r.steps[0].waited_seconds > 0 for r in runs)


async def test_askers_take_turns() -> None:
    """One who has sent many waits behind his own."""
    a = Told("a", lambda _: None, most=1)
    a.gate.clear()
    live = world(a, lanes=Lanes())
    tasks = [asyncio.ensure_future(live.run(Single(target="a"), of("many"))) for _ in range(6)]
    await asyncio.sleep(0.01)
    tasks += [asyncio.ensure_future(live.run(Single(target="a"), of(t))) for t in ("few", "one")]
    await asyncio.sleep(0.01)
    a.gate.set()
    await asyncio.gather(*tasks)
    assert a.order[:4] == ["many", "many", "few", "one"]


async def test_a_line_that_is_too_long_or_too_slow_is_busy_and_another_takes_over() -> None:
    a, b = Told("a", lambda _: None, most=1), Told("b", lambda _: None)
    a.gate.clear()
    live = world(a, b, lanes=Lanes(waiting=1, seconds=0.02), health=(health := Health(failures=1)))
    first = asyncio.ensure_future(live.run(Single(target="a"), Query.ask("hi")))
    await asyncio.sleep(0.01)
    slow, full = await asyncio.gather(
        live.run(Single(target="a"), Query.ask("hi")),
        live.run(Fallback(plans=(Single(target="a"), Single(target="b"))), Query.ask("hi")),
    )
    assert slow.outcome.error is not None
    assert slow.outcome.error.kind == "busy"
    assert (full.outcome.target, full.steps[0].outcome.error.kind) == ("b", "busy")  # type: ignore[union-attr]
    assert full.usd is None or full.usd == 0.0
    assert health.state("a") == "closed", "to be busy is no fault"
    a.gate.set()
    assert (await first).outcome.ok


async def test_who_leaves_the_line_is_out_of_it() -> None:
    a = Told("a", lambda _: None, most=1)
    a.gate.clear()
    live = world(a, lanes=(lanes := Lanes()))
    tasks = [asyncio.ensure_future(live.run(Single(target="a"), Query.ask("hi"))) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert lanes.under_way("a") == (1, 2)
    tasks[1].cancel()
    await asyncio.sleep(0.01)
    assert lanes.under_way("a") == (1, 1)
    tasks[0].cancel()
    a.gate.set()
    assert (await tasks[2]).outcome.ok
    assert lanes.under_way("a") == (0, 0)


async def test_a_deadline_passes_in_the_line() -> None:
    a = Told("a", lambda _: None, most=1)
    a.gate.clear()
    live = world(a, lanes=Lanes())
    first = asyncio.ensure_future(live.run(Single(target="a"), Query.ask("hi")))
    await asyncio.sleep(0.01)
    run = await live.run(Single(target="a"), Query.ask("hi"), limits=Limits(seconds=0.02))
    assert run.outcome.error is not None
    assert run.outcome.error.kind == "deadline"
    a.gate.set()
    await first


# ------------------------------------------------------------------------------------------------------------- retries


async def test_what_never_reached_its_target_is_sent_again() -> None:
    a = Told("a", lambda n: UNREACHED if n < 3 else None)
    run = await world(a, retries=Retries(draw=lambda: 0.0)).run(Single(target="a"), Query.ask("hi"))
    assert (run.outcome.ok, run.outcome.retries, a.calls, len(run.steps)) == (True, 2, 3, 1)
    assert run.steps[0].waited_seconds > 0


@pytest.mark.parametrize("kind", ["timeout", "malformed", "bad_request", "auth", "internal"])
async def test_what_may_have_cost_something_or_cannot_help_is_not(kind: Any) -> None:
    a = Told("a", lambda _: Failure(kind=kind))
    await world(a, retries=Retries()).run(Single(target="a"), Query.ask("hi"))
    assert a.calls == 1


async def test_retry_after_is_waited_for_only_by_the_last_in_line() -> None:
    a, b = Told("a", lambda _: LIMITED), Told("b", lambda n: LIMITED if n == 1 else None)
    live = world(a, b, retries=Retries())
    run = await live.run(Fallback(plans=(Single(target="a"), Single(target="b"))), Query.ask("hi"))
    assert (run.outcome.target, a.calls, b.calls) == ("b", 1, 2)
    assert run.steps[1].waited_seconds >= 0.01


async def test_who_asks_for_too_long_a_wait_is_not_asked_again() -> None:
    a = Told("a", lambda _: Failure(kind="rate_limited", status=429, retry_after_seconds=60.0))
    run = await world(a, retries=Retries()).run(Single(target="a"), Query.ask("hi"))
    assert (a.calls, run.outcome.error.retry_after_seconds) == (1, 60.0)  # type: ignore[union-attr]


async def test_retries_are_a_share_of_the_calls() -> None:
    """A target that is down is not kept down by being asked ever more often."""
    a = Told("a", lambda _: UNREACHED)
    live = world(a, retries=Retries(draw=lambda: 0.0, share=0.1))
    for _ in range(100):
        await live.run(Single(target="a"), Query.ask("hi"))
    assert 100 < a.calls <= 100 + 5 + 100 * 0.1


# ------------------------------------------------------------------------------------------------------------- breaker


def test_a_breaker_opens_lets_one_try_and_closes() -> None:
    health = Health(failures=2, rest_seconds=4.0)
    health.failed("a", UNREACHED, now=0.0)
    assert health.state("a", now=0.0) == "closed"
    health.failed("a", UNREACHED, now=0.0)
    assert (health.state("a", now=1.0), health.resting("a", now=1.0)) == ("open", 3.0)
    assert (health.state("a", now=4.5), health.resting("a", now=4.5)) == ("half open", 0.0)
    health.began("a", now=4.5)
    assert health.resting("a", now=5.0) == 1.5, "one tries, the others wait"
    assert health.resting("a", now=7.0) == 0.0, "but not for ever"
    health.failed("a", UNREACHED, now=7.0)
    assert health.resting("a", now=7.0) == 8.0, "a failed try makes the next rest longer"
    health.began("a", now=15.5)
    health.ended("a")  # the client left: nothing is known
    assert health.resting("a", now=15.6) == 0.0
    health.began("a", now=15.7)
    health.succeeded("a")
    assert (health.state("a", now=15.8), health.resting("a", now=15.8)) == ("closed", 0.0)


async def test_half_open_lets_one_call_through() -> None:
    a = Told("a", lambda n: UNREACHED if n == 1 else None)
    health = Health(failures=1, rest_seconds=0.02)
    live = world(a, health=health)
    await live.run(Single(target="a"), Query.ask("hi"))
    assert health.state("a") == "open"
    await asyncio.sleep(0.03)
    a.gate.clear()
    trying = asyncio.ensure_future(live.run(Single(target="a"), Query.ask("hi")))
    await asyncio.sleep(0.01)
    assert health.resting("a") > 0.5
    a.gate.set()
    await trying
    assert health.state("a") == "closed"


# ------------------------------------------------------------------------------------------- who goes away, a reload


async def test_what_was_not_sent_costs_nothing_when_its_asker_goes_away() -> None:
    """In the line, and between two attempts; a call that is out is charged its estimate."""
    busy = Told("m", lambda _: None, most=1)
    busy.gate.clear()
    live = world(busy, lanes=Lanes(), estimate=lambda call, query: 0.25)
    runs = [live.open(Single(target="m"), of("a")) for _ in range(2)]
    tasks = [asyncio.ensure_future(run.go()) for run in runs]
    await asyncio.sleep(0.05)
    for task in reversed(tasks):
        task.cancel()
    await asyncio.wait(tasks)
    (out,), (waited,) = runs[0].steps, runs[1].steps
    assert out.outcome.usd == 0.25
    assert waited.outcome.usd == 0.0
    assert waited.waited_seconds >= 0.04

    refusing = Told("m", lambda _: Failure(kind="rate_limited", status=429, retry_after_seconds=5.0))
    run = world(refusing, retries=Retries(draw=lambda: 0.0), estimate=lambda call, query: 0.25).open(
        Single(target="m"), of("a")
    )
    task = asyncio.ensure_future(run.go())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    (step,) = run.steps
    assert refusing.calls == 1
    assert step.outcome.usd == 0.0
    assert 0.0 <= step.outcome.seconds < 0.05
    assert 0.04 <= step.waited_seconds < 1.0


async def test_who_takes_over_shares_the_lines() -> None:
    busy = Told("m", lambda _: None, most=1)
    busy.gate.clear()
    old, new = (world(busy, lanes=Lanes(), retries=Retries()) for _ in range(2))
    new.take_over(old)
    tasks = [asyncio.ensure_future(w.run(Single(target="m"), of("a"))) for w in (old, new)]
    await asyncio.sleep(0.02)
    assert new.lanes is not None
    assert new.lanes.under_way("m") == (1, 1)
    busy.gate.set()
    assert all([(await task).outcome.ok for task in tasks])
    assert busy.busiest == 1
