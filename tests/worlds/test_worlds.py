"""Live equals replay, on random nested plans with random latencies, failures, losers and limits.

The live world runs on a loop whose clock is virtual: it jumps to the next timer, so tests take no time and are exact.
"""

import asyncio
from math import inf, nan
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace as with_
from virtual_time import virtual_clock, virtually

from fairlead.errors import LimitReached
from fairlead.plans.accept import Confidence, FirstEntropy, Predicted
from fairlead.plans.cascade import Cascade
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.pool import Health
from fairlead.targets.base import Driver
from fairlead.testing import comparable
from fairlead.types import (
    UNLIMITED,
    Call,
    Do,
    Failure,
    Limits,
    Outcome,
    Path,
    Plan,
    Profile,
    Query,
    Sink,
    Step,
    Steps,
    Tokens,
)
from fairlead.worlds.base import Run
from fairlead.worlds.live import Live
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")
CEILING = 0.02
"""No call costs more, in USD."""


@pytest.fixture(autouse=True, scope="module")
def _virtual_clock() -> Any:
    with virtual_clock():
        yield


class Told(Driver):
    """Replies as it is told, after as long as it is told."""

    def __init__(self, *, name: str, reply: Outcome, timeout_seconds: float = 1e9) -> None:
        self.name, self.reply, self.timeout_seconds = name, reply, timeout_seconds
        self.profile = Profile()
        self.calls = 0
        self.sinks = 0

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        self.calls += 1
        await asyncio.sleep(self.reply.seconds)
        if sink is not None and self.reply.ok:
            self.sinks += 1
            await sink(self.reply.text.encode())
        return self.reply


class Dictated(LookUp):
    """A table in a dict."""

    def __init__(self, replies: dict[str, Outcome]) -> None:
        self.replies = replies
        self.asked: list[Path] = []

    def outcome(self, call: Call, path: Path) -> Outcome:
        self.asked.append(path)
        return with_(self.replies[call.target], target=call.target, model=call.target)


class Race(Struct, Plan, frozen=True, kw_only=True):
    """Test-only: what hedges and quorums do."""

    branches: tuple[Plan | Call, ...]
    need: int | None = 1
    after: tuple[float, ...] | None = None
    patient: bool = False

    def run(self, query: Query) -> Steps:
        best = Outcome(text="nobody")
        try:
            outcomes = yield Do(branches=self.branches, need=self.need, after=self.after)
            good = [o for o in outcomes if o.ok]
            best = good[0] if good else outcomes[0]
            lost = sum(o.cancelled and not o.target and o.usd is None for o in outcomes)
            return with_(best, text=f"{best.text}/{len(good)}/{lost}")
        except LimitReached:
            if not self.patient:
                raise
            return best

    def targets(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(t for b in self.branches for t in (b.targets() if isinstance(b, Plan) else (b.target,)))
        )


class Again(Struct, Plan, frozen=True, kw_only=True):
    """Test-only: asks again while the answer is the wrong one, and asks on when it is told to stop."""

    plan: Plan
    times: int
    stubborn: bool

    def run(self, query: Query) -> Steps:
        outcome = Outcome(text="none yet")
        for _ in range(self.times):
            try:
                (outcome,) = yield Do(branches=(self.plan,), final=True)
            except LimitReached:
                if not self.stubborn:
                    return outcome
            if outcome.ok and outcome.text != "no":
                return outcome
        return outcome

    def targets(self) -> tuple[str, ...]:
        return self.plan.targets()


@st.composite
def plans(draw: Any, depth: int = 3) -> Plan:
    """Random nested plans in which every leaf has a target of its own, so that no two branches tie by construction."""
    count = iter(range(10_000))

    def make(depth: int) -> Plan:
        kinds = ["single", "cascade", "vote", "fallback", "race", "again", "calls"]
        kind = draw(st.sampled_from(kinds)) if depth else "single"

        def some() -> tuple[Plan, ...]:
            return tuple(make(depth - 1) for _ in range(draw(st.integers(1, 3))))

        if kind == "single":
            return Single(target=f"t{next(count)}")
        if kind == "cascade":
            accept = draw(
                st.sampled_from([FirstEntropy(below=0.5), Confidence(above=0.5), Predicted(quality=0, above=1)])
            )
            return Cascade(steps=some(), accept=accept)
        if kind == "vote":
            return Vote(members=some())
        if kind == "fallback":
            return Fallback(plans=some())
        if kind == "again":
            return Again(plan=make(depth - 1), times=draw(st.integers(1, 3)), stubborn=draw(st.booleans()))
        branches: tuple[Plan | Call, ...] = some()
        if kind == "calls":
            branches = tuple(Call(target=f"t{next(count)}") for _ in branches)
        after = None
        if draw(st.booleans()):
            after = tuple(draw(st.sampled_from([0.0, 0.123, 0.457, 2.0001])) for _ in branches)
        need = draw(st.sampled_from([None, 1, 2]))
        return Race(branches=branches, need=need, after=after, patient=draw(st.booleans()))

    return make(depth)


def replies_of(plan: Plan, seed: int) -> dict[str, Outcome]:
    random = Random(seed)
    out = {}
    for name in plan.targets():
        seconds, usd = random.uniform(0.01, 1.0), random.uniform(0.0, CEILING)
        if random.random() < 0.3:
            kind = random.choice(["unavailable", "timeout", "bad_request", "rate_limited"])
            out[name] = Outcome(seconds=seconds, error=Failure(kind=kind))
        else:
            tokens = Tokens(input=10, output=random.randint(1, 9))
            text = random.choice(["yes", "no", "perhaps"])
            entropy, sure = random.random(), random.random()
            out[name] = Outcome(
                text=text, seconds=seconds, usd=usd, tokens=tokens, first_entropy=entropy, confidence=sure
            )
    return out


def live(plan: Plan, replies: dict[str, Outcome], limits: Limits = UNLIMITED, sink: Sink | None = None) -> Run:
    drivers = {name: Told(name=name, reply=reply) for name, reply in replies.items()}
    world = Live(drivers=drivers, estimate=lambda call, query: CEILING)
    run: Run = virtually(lambda: world.run(plan, QUERY, limits=limits, sink=sink))
    return run


LIMITS = st.builds(
    Limits,
    usd=st.sampled_from([inf, 0.0, 0.03, 0.1]),
    calls=st.sampled_from([inf, 1.0, 3.0, 7.0]),
    seconds=st.sampled_from([inf, 0.5, 1.5, 3.0]),
)


@settings(max_examples=100, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**32), limits=LIMITS)
def test_live_equals_the_replay_of_its_own_record(plan: Plan, seed: int, limits: Limits) -> None:
    run = live(plan, replies_of(plan, seed), limits)
    assert not (run.outcome.error and run.outcome.error.kind == "internal")
    again = replay(plan, QUERY, Recorded(run.steps))
    assert comparable(again) == comparable(run)
    if limits.usd < inf:
        assert sum(s.outcome.usd or 0.0 for s in run.steps) <= limits.usd + 1e-12
    assert sum(1 for s in run.steps if s.call and not refused(s)) <= limits.calls
    assert run.seconds <= limits.seconds + 1e-9


def refused(step: Step) -> bool:
    return step.outcome.error is not None and step.outcome.error.kind in ("budget", "deadline")


@settings(max_examples=100, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_live_equals_the_replay_of_a_table(plan: Plan, seed: int) -> None:
    replies = replies_of(plan, seed)
    run, table = live(plan, replies), replay(plan, QUERY, Dictated(replies), estimate=lambda call, query: CEILING)
    ours, theirs = comparable(run)[0], comparable(table)[0]
    assert ours == theirs
    assert table.seconds == pytest.approx(run.seconds)
    begun = {s.path: s.start_seconds for s in run.steps if s.call}
    assert {s.path: s.start_seconds for s in table.steps if s.call} == pytest.approx(begun)


@settings(max_examples=60, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**32), limits=LIMITS)
def test_tables_keep_limits(plan: Plan, seed: int, limits: Limits) -> None:
    run = replay(plan, QUERY, Dictated(replies_of(plan, seed)), limits=limits, estimate=lambda call, query: CEILING)
    assert sum(s.outcome.usd or 0.0 for s in run.steps) <= limits.usd + 1e-12
    assert sum(1 for s in run.steps if s.call and not refused(s)) <= limits.calls
    assert run.seconds <= limits.seconds + 1e-9
    assert all(s.outcome.seconds >= 0.0 for s in run.steps)


def reply(seconds: float = 0.1, *, text: str = "yes", usd: float = 0.01, error: Any = None) -> Outcome:
    failure = None if error is None else Failure(kind=error)
    return Outcome(text=text, seconds=seconds, usd=None if failure else usd, error=failure)


HEDGE = Race(branches=(Call(target="a"), Call(target="b")), after=(0.0, 0.5))
BOTH = Race(branches=(Call(target="a"), Call(target="b")))


@pytest.mark.parametrize("world", ["live", "table"])
def test_a_branch_that_never_starts_costs_nothing(world: str) -> None:
    replies = {"a": reply(0.2), "b": reply(0.1)}
    run = live(HEDGE, replies) if world == "live" else replay(HEDGE, QUERY, Dictated(replies))
    assert [s.call.target for s in run.steps if s.call] == ["a"]
    assert run.usd == pytest.approx(0.01)
    assert run.seconds == pytest.approx(0.2)


@pytest.mark.parametrize("world", ["live", "table"])
def test_a_slow_first_is_overtaken(world: str) -> None:
    replies = {"a": reply(9.0, text="slow"), "b": reply(0.1, text="fast")}
    run = live(HEDGE, replies) if world == "live" else replay(HEDGE, QUERY, Dictated(replies))
    assert run.outcome.text == "fast/1/1"
    assert run.seconds == pytest.approx(0.6)


def test_branches_of_a_table_without_latencies_all_start() -> None:
    run = replay(BOTH, QUERY, Dictated({"a": reply(0.0), "b": reply(0.0)}))
    assert len(run.steps) == 2


def test_a_loser_is_charged_only_for_calls_it_had_begun() -> None:
    slow = Fallback(plans=(Single(target="a"), Single(target="b")))
    plan = Race(branches=(slow, Single(target="c")))
    replies = {"a": reply(0.5, error="unavailable"), "b": reply(0.1), "c": reply(0.2)}
    table = replay(plan, QUERY, Dictated(replies))
    assert [s.call.target for s in table.steps if s.call] == ["a", "c"]
    assert table.usd == pytest.approx(0.01)


def test_calls_that_a_loser_had_not_begun_are_given_back_to_the_limit() -> None:
    slow = Fallback(plans=(Single(target="a"), Single(target="b")))
    race = Race(branches=(slow, Single(target="c")))
    plan = Cascade(steps=(race, Single(target="d")), accept=Predicted(quality=0, above=1))
    replies = {"a": reply(0.5, error="unavailable"), "b": reply(0.1), "c": reply(0.2), "d": reply(text="last")}
    for limits in (Limits(calls=3), Limits(usd=0.025)):
        table = replay(plan, QUERY, Dictated(replies), limits=limits, estimate=lambda call, query: 0.01)
        assert table.outcome.text == "last"


def test_a_cancelled_call_is_charged_what_was_reserved() -> None:
    run = live(BOTH, {"a": reply(0.1), "b": reply(0.2)}, Limits(usd=1.0))
    lost = run.steps[1].outcome
    assert lost.cancelled
    assert lost.usd == CEILING
    assert run.usd == pytest.approx(0.01 + CEILING)
    unlimited = live(BOTH, {"a": reply(0.1), "b": reply(0.2)})
    assert unlimited.usd == pytest.approx(0.01 + CEILING)
    unpriced = Live(drivers={n: Told(name=n, reply=reply(0.1 if n == "a" else 0.2)) for n in "ab"})
    assert virtually(lambda: unpriced.run(BOTH, QUERY)).usd is None


def test_a_call_abandoned_at_the_deadline_is_charged_what_was_reserved() -> None:
    run = live(Single(target="a"), {"a": reply(5.0)}, Limits(usd=1.0, seconds=1.0))
    assert run.outcome.error is not None
    assert run.outcome.error.kind == "deadline"
    assert run.usd == pytest.approx(CEILING)
    assert run.seconds == pytest.approx(1.0)


def test_the_next_starts_at_once_when_all_that_had_started_failed() -> None:
    plan = Race(branches=(Call(target="a"), Call(target="b"), Call(target="c")), after=(0.0, 60.0, 70.0))
    replies = {"a": reply(0.1, error="timeout"), "b": reply(0.2, error="unavailable"), "c": reply(0.3)}
    for run in (live(plan, replies), replay(plan, QUERY, Dictated(replies))):
        assert run.outcome.target == "c"
        assert run.seconds == pytest.approx(0.6)


def test_a_branch_that_waits_does_not_wait_beyond_the_deadline() -> None:
    plan = Race(branches=(Call(target="a"), Call(target="b")), need=None, after=(0.0, 60.0))
    replies = {"a": reply(0.1, error="timeout"), "b": reply(0.1)}
    for run in (
        live(plan, replies, Limits(seconds=1.0)),
        replay(plan, QUERY, Dictated(replies), limits=Limits(seconds=1.0)),
    ):
        assert run.seconds == pytest.approx(1.0)
        assert run.steps[1].outcome.error is not None
        assert run.steps[1].outcome.error.kind == "deadline"


@pytest.mark.parametrize("limits", [Limits(calls=1), Limits(usd=0.02), Limits(seconds=0.15)])
def test_a_step_keeps_limits_of_its_own(limits: Limits) -> None:
    class Inner(Struct, Plan, frozen=True, kw_only=True):
        def run(self, query: Query) -> Steps:
            best = Outcome(text="none")
            try:
                (best,) = yield Do(branches=(Call(target="a"),))
                (second,) = yield Do(branches=(Call(target="b"),))
            except LimitReached:
                return best
            return second if second.ok else best

    class Outer(Struct, Plan, frozen=True, kw_only=True):
        def run(self, query: Query) -> Steps:
            (first,) = yield Do(branches=(Inner(),), limits=limits)
            (second,) = yield Do(branches=(Call(target="c"),))
            return with_(second, text=f"{first.text} {second.text}")

        def targets(self) -> tuple[str, ...]:
            return "a", "b", "c"

    replies = {name: reply(0.1, text=name, usd=CEILING) for name in "abc"}
    run = live(Outer(), replies)
    assert run.outcome.text == "a c"
    assert run.outcome.limited
    assert comparable(replay(Outer(), QUERY, Recorded(run.steps))) == comparable(run)
    table = replay(Outer(), QUERY, Dictated(replies), estimate=lambda call, query: CEILING)
    assert comparable(table)[0] == comparable(run)[0]


def test_concurrent_calls_cannot_overspend_together() -> None:
    names = [f"t{i}" for i in range(10)]
    plan = Race(branches=tuple(Call(target=n) for n in names), need=None)
    run = live(plan, dict.fromkeys(names, reply(usd=CEILING)), Limits(usd=3.5 * CEILING))
    assert sum(1 for s in run.steps if s.outcome.ok) == 3
    assert sum(1 for s in run.steps if refused(s)) == 7
    assert run.usd == pytest.approx(3 * CEILING)


def test_only_the_final_call_streams_through_nesting() -> None:
    inner = Cascade(steps=(Single(target="a"), Single(target="b")), accept=Predicted(quality=0, above=1))
    outer = Cascade(steps=(Vote(members=(Single(target="v"),)), inner), accept=Predicted(quality=0, above=1))
    plan = Fallback(plans=(Single(target="x"), outer))
    replies = {name: reply(text=name) for name in "abv"} | {"x": reply(error="unavailable")}
    drivers = {name: Told(name=name, reply=r) for name, r in replies.items()}
    sent: list[bytes] = []

    async def sink(event: bytes) -> None:
        sent.append(event)

    run = virtually(lambda: Live(drivers=drivers).run(plan, QUERY, sink=sink))
    assert sent == [b"b"]
    assert {n: d.sinks for n, d in drivers.items()} == {"a": 0, "b": 1, "v": 0, "x": 0}
    assert {n: d.calls for n, d in drivers.items()} == dict.fromkeys("abvx", 1)
    assert run.outcome.streamed


def test_a_stream_cut_by_the_deadline_says_so_and_is_not_taken_over() -> None:
    class Trickle(Told):
        async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
            assert sink is not None
            await sink(b"first")
            await asyncio.sleep(9)
            return self.reply

    drivers = {"a": Trickle(name="a", reply=reply()), "b": Told(name="b", reply=reply())}
    plan = Fallback(plans=(Single(target="a"), Single(target="b")))

    async def sink(event: bytes) -> None:
        pass

    run = virtually(lambda: Live(drivers=drivers).run(plan, QUERY, limits=Limits(seconds=1), sink=sink))
    assert run.outcome.streamed
    assert run.outcome.error.kind == "deadline"
    assert drivers["b"].calls == 0


# ------------------------------------------------------------------------------------------------------ whose fault it is


class Words(Told):
    """Streams three events, each after `reply.seconds`."""

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        self.calls += 1
        assert sink is not None
        for word in (b"one", b"two", b"three"):
            await asyncio.sleep(self.reply.seconds)
            await sink(word)
        return self.reply


def streamed(sink: Sink, *, seconds: float = 0.1, timeout_seconds: float = 1.0, limits: Limits = UNLIMITED) -> Any:
    """Stream words into `sink`; return (the run, the health that was reported to)."""
    drivers = {
        "a": Words(name="a", reply=reply(seconds), timeout_seconds=timeout_seconds),
        "b": Told(name="b", reply=reply()),
    }
    health = Health(failures=1)
    plan = Fallback(plans=(Single(target="a"), Single(target="b")))
    run = virtually(lambda: Live(drivers=drivers, health=health).run(plan, QUERY, limits=limits, sink=sink))
    assert drivers["b"].calls == 0
    return run, health


def slow_sink(seconds: float) -> Sink:
    async def sink(event: bytes) -> None:
        await asyncio.sleep(seconds)

    return sink


def test_a_slow_client_takes_none_of_the_targets_time() -> None:
    run, health = streamed(slow_sink(0.9))
    assert run.outcome.ok
    assert run.seconds == pytest.approx(3 * 0.1 + 3 * 0.9)
    assert health.resting("a") == 0.0


def test_a_slow_target_is_timed_out_however_slow_its_client_is() -> None:
    run, health = streamed(slow_sink(0.3), seconds=0.4)
    assert run.outcome.error.kind == "broken_stream"
    # Its own second ends 0.2 s before its third word; twice 0.3 s were the client's.
    assert run.outcome.seconds == pytest.approx(1.0 + 2 * 0.3)
    assert health.resting("a") > 0.0


def test_time_that_a_client_took_across_the_time_out_is_given_back_once() -> None:
    run, _ = streamed(slow_sink(0.95), seconds=0.6)
    assert run.outcome.error.kind == "broken_stream"
    assert run.outcome.seconds == pytest.approx(1.0 + 0.95)


def test_a_client_that_takes_nothing_is_gone_after_the_time_out() -> None:
    run, health = streamed(slow_sink(1e6))
    assert run.outcome.error.kind == "client_gone"
    assert run.outcome.streamed
    assert run.outcome.seconds == pytest.approx(0.1 + 1.0)
    assert health.resting("a") == 0.0


def test_a_sink_that_raises_is_a_client_that_went_away(caplog: pytest.LogCaptureFixture) -> None:
    async def sink(event: bytes) -> None:
        raise ConnectionResetError("it hung up")

    run, health = streamed(sink)
    assert run.outcome.error.kind == "client_gone"
    assert run.outcome.streamed
    assert health.resting("a") == 0.0
    assert not caplog.records


@pytest.mark.parametrize("sink", [slow_sink(0.0), slow_sink(5.0)])
def test_the_askers_deadline_is_no_fault_of_the_target(sink: Sink) -> None:
    run, health = streamed(sink, seconds=0.4, limits=Limits(seconds=0.5))
    assert run.outcome.error.kind == "deadline"
    assert run.outcome.streamed
    assert run.seconds == pytest.approx(0.5)
    assert health.resting("a") == 0.0


# ------------------------------------------------------------------------------------------- what abandoned calls cost


FAILED = {
    "timeout": Failure(kind="timeout"),
    "broken_stream": Failure(kind="broken_stream", status=200),
    "malformed": Failure(kind="malformed", status=200),
    "gateway timeout": Failure(kind="timeout", status=504),
    "unavailable": Failure(kind="unavailable"),
    "bad_request": Failure(kind="bad_request", status=400),
}


@pytest.mark.parametrize("limits", [UNLIMITED, Limits(usd=1.0), Limits(calls=9)])
@pytest.mark.parametrize("failed", FAILED)
def test_what_a_failed_call_cost_is_estimated_or_unknown_unless_it_was_never_begun(failed: str, limits: Limits) -> None:
    costs = failed in ("timeout", "broken_stream", "malformed")
    replies = {"a": Outcome(error=FAILED[failed], seconds=0.1)}
    for estimate, usd in ((lambda c, q: CEILING, CEILING), (None, None)):
        world = Live(drivers={"a": Told(name="a", reply=replies["a"])}, estimate=estimate)
        run = virtually(lambda world=world: world.run(Single(target="a"), QUERY, limits=limits))
        table = replay(Single(target="a"), QUERY, Dictated(replies), limits=limits, estimate=estimate)
        assert run.usd == (usd if costs else 0.0)
        assert table.usd == run.usd
        assert replay(Single(target="a"), QUERY, Recorded(run.steps)).usd == run.usd


def test_a_call_that_no_time_is_left_for_costs_nothing() -> None:
    plan = Race(branches=(Call(target="a"), Call(target="b")), after=(0.0, 60.0), need=None)
    replies = {"a": reply(0.1), "b": reply(0.1)}
    for run in (
        live(plan, replies, Limits(seconds=1.0)),
        replay(plan, QUERY, Dictated(replies), limits=Limits(seconds=1.0)),
    ):
        assert run.usd == pytest.approx(0.01)


# ------------------------------------------------------------------------------------------------------- what has a price


def prices(usd: float | None, limits: Limits) -> tuple[Run, Run]:
    """Run one call of that estimate, which then costs just as much: (live, on a table)."""
    told = reply(usd=usd)  # type: ignore[arg-type]
    world = Live(drivers={"a": Told(name="a", reply=told)}, estimate=lambda call, query: usd)
    run = virtually(lambda: world.run(Single(target="a"), QUERY, limits=limits))
    return run, replay(
        Single(target="a"), QUERY, Dictated({"a": told}), limits=limits, estimate=lambda call, query: usd
    )


def test_what_has_no_price_is_refused_under_a_limit_on_spend() -> None:
    for run in prices(None, Limits(usd=100.0)):
        assert run.outcome.error is not None
        assert run.outcome.error.kind == "budget"
        assert "price" in run.outcome.error.message
        assert run.usd == 0.0
    for run in prices(None, Limits(calls=1)):
        assert run.outcome.ok
        assert run.usd is None


@pytest.mark.parametrize(("usd", "limit"), [(0.0, 0.0), (0.01, 0.01)])
def test_what_fits_exactly_is_asked(usd: float, limit: float) -> None:
    for run in prices(usd, Limits(usd=limit)):
        assert run.outcome.ok
        assert run.usd == usd


def test_a_reply_without_a_cost_counts_against_the_limit_as_estimated() -> None:
    told = {n: with_(reply(text=n), usd=None) for n in "ab"}
    plan = Cascade(steps=(Single(target="a"), Single(target="b")), accept=Predicted(quality=0, above=1))
    for run in (
        live(plan, told, Limits(usd=1.5 * CEILING)),
        replay(plan, QUERY, Dictated(told), limits=Limits(usd=1.5 * CEILING), estimate=lambda call, query: CEILING),
    ):
        assert run.outcome.text == "a"
        assert run.usd is None


@pytest.mark.parametrize("plan", [Single(target="b"), BOTH, Fallback(plans=(Single(target="a"), Single(target="b")))])
def test_the_record_survives_a_client_that_leaves(plan: Plan) -> None:
    drivers = {
        "a": Told(name="a", reply=reply(0.1, error="unavailable")),
        "b": Told(name="b", reply=reply(9.0)),
    }
    world = Live(drivers=drivers, estimate=lambda call, query: CEILING)

    async def leave() -> Run:
        run = world.open(plan, QUERY, limits=Limits(usd=1.0))
        task = asyncio.create_task(run.go())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return run.close(Outcome(cancelled=True))

    run: Run = virtually(leave)
    last = next(s for s in run.steps if s.call and s.call.target == "b")
    assert last.outcome.cancelled
    assert last.outcome.usd == CEILING
    assert last.outcome.seconds > 0.0
    assert run.usd == pytest.approx(CEILING)
    assert sum(1 for s in run.steps if s.call) == len({*plan.targets()})


def test_a_plan_that_loses_before_it_calls_anybody_is_cancelled_in_replay_too() -> None:
    late = Vote(members=(Single(target="b"),))
    plan = Race(branches=(Single(target="a"), late), after=(0.0, 5.0))
    run = live(plan, {"a": reply(0.1), "b": reply(0.1)})
    assert run.outcome.text == "yes/1/1"
    assert comparable(replay(plan, QUERY, Recorded(run.steps))) == comparable(run)


class Broken(Struct, Plan, frozen=True, kw_only=True):
    how: str

    def run(self, query: Query) -> Steps:
        calls = (Call(target="a"), Call(target="a"))
        if self.how == "after":
            yield Do(branches=calls, after=(0.0,))
        elif self.how == "need":
            yield Do(branches=calls, need=0)
        elif self.how == "raises":
            yield Do(branches=calls)
            raise RuntimeError("no")
        elif self.how == "nothing":
            yield Do(branches=calls)
            return None  # type: ignore[return-value]
        elif self.how == "never":
            yield Do(branches=calls, after=(0.0, inf))
        elif self.how == "nobody":
            yield Do(branches=calls, need=1, after=(inf, inf))
        elif self.how == "nan":
            yield Do(branches=calls, after=(0.0, nan))
        return Outcome(text="never")

    def targets(self) -> tuple[str, ...]:
        return ("a",)


@pytest.mark.parametrize("how", ["after", "need", "raises", "nothing", "never", "nobody", "nan"])
def test_a_broken_plan_is_a_typed_failure_in_every_world(how: str) -> None:
    plan = Broken(how=how)
    run = live(plan, {"a": reply()})
    assert run.outcome.error is not None
    assert run.outcome.error.kind == "internal"
    assert comparable(replay(plan, QUERY, Recorded(run.steps))) == comparable(run)
    assert replay(plan, QUERY, Dictated({"a": reply()})).outcome == run.outcome


@pytest.mark.parametrize("ticks", range(1, 10))
def test_a_run_that_is_left_begins_no_more_calls(ticks: int) -> None:
    """Whenever it is left after a failure that would let the next branch start at once."""
    failed = Outcome(seconds=0.1, error=Failure(kind="unavailable"))
    drivers = {"a": Told(name="a", reply=failed), "b": Told(name="b", reply=Outcome(text="late", seconds=5.0))}
    plan = Race(branches=(Call(target="a"), Call(target="b")), after=(0.0, 30.0))

    async def leave() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        task = asyncio.ensure_future(Live(drivers=drivers).run(plan, QUERY))

        def tick(left: int) -> None:
            if left:
                loop.call_soon(tick, left - 1)
            else:
                task.cancel()

        loop.call_at(begun + 0.1, tick, ticks)
        with pytest.raises(asyncio.CancelledError):
            await task
        return loop.time() - begun

    assert virtually(leave) < 1.0


def test_a_plan_that_never_heeds_a_limit_is_ended() -> None:
    plan = Again(plan=Single(target="a"), times=10_000, stubborn=True)
    run = live(plan, {"a": reply(text="no")}, Limits(calls=2))
    assert run.outcome.error is not None
    assert run.outcome.error.kind == "budget"
    assert comparable(replay(plan, QUERY, Recorded(run.steps))) == comparable(run)


def test_an_unknown_target_is_a_typed_failure() -> None:
    run = live(Single(target="ghost"), {"a": reply()})
    assert run.outcome.error is not None
    assert run.outcome.error.kind == "not_found"
