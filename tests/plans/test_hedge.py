"""Hedging on a virtual clock, live and replayed: when the duplicate starts, how often at most, what it costs, and where there is none."""

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import pytest
import virtual_time
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import virtual_clock

from fairlead.config import make
from fairlead.errors import ConfigError
from fairlead.plans.accept import Predicted
from fairlead.plans.base import decode, to_data
from fairlead.plans.cascade import Cascade
from fairlead.plans.hedge import Hedge
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.pool import Pool
from fairlead.router import Router
from fairlead.targets.base import Driver
from fairlead.testing import check_plan, comparable
from fairlead.types import UNLIMITED, Call, Failure, Late, Limits, Outcome, Plan, Profile, Query, Sink
from fairlead.worlds.base import Run
from fairlead.worlds.lateness import BURST, ENOUGH, Lateness
from fairlead.worlds.live import Live
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")
PRICE = 0.01


def virtually(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on a clock that jumps. Not the router, whose store has a thread of its own."""
    with virtual_clock():
        return virtual_time.virtually(make)


class Told(Driver):
    """Takes as long as it is told, call by call (then as the last), and replies or fails."""

    def __init__(
        self,
        *,
        name: str,
        seconds: tuple[float, ...] = (0.1,),
        error: str | None = None,
        profile: Profile = Profile(),  # noqa: B008 - never changed
        timeout_seconds: float = 1e9,
    ) -> None:
        self.name, self.seconds, self.error, self.profile = name, seconds, error, profile
        self.timeout_seconds = timeout_seconds
        self.calls = 0

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        seconds = self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        await asyncio.sleep(seconds)
        if self.error is not None:
            return Outcome(error=Failure(kind=self.error))  # type: ignore[arg-type]
        return Outcome(text=f"{self.name} said so", usd=PRICE)


class Agent(Told):
    kind: ClassVar[Literal["model", "agent", "adapter", "tool", "retriever", "strategy"]] = "agent"


def hedge(**more: Any) -> Hedge:
    return Hedge(first=Single(target="a"), second=Single(target="b"), **{"otherwise": 1.0, "share": 1.0, **more})


def world(*drivers: Told, lateness: Lateness | None = None) -> Live:
    return Live(drivers={d.name: d for d in drivers}, estimate=lambda call, query: PRICE, lateness=lateness)


def live(plan: Plan, *drivers: Told, limits: Limits = UNLIMITED, query: Query = QUERY) -> Run:
    run: Run = virtually(lambda: world(*drivers).run(plan, query, limits=limits))
    return run


def asked(run: Run) -> list[str]:
    return [s.call.target for s in run.steps if s.call is not None]


def test_check_plan() -> None:
    check_plan(Hedge.example)
    check_plan(lambda: hedge(share=0.0))
    check_plan(lambda: Hedge(first=Vote(members=(Single(target="a"), Single(target="c"))), second=Single(target="b")))


@pytest.mark.parametrize(
    "wrong",
    [{"quantile": 1.0}, {"quantile": 0.0}, {"otherwise": -1.0}, {"otherwise": inf}, {"share": 1.1}, {"watch": "b"}],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "watch" not in wrong else "never calls 'b'"):
        hedge(**wrong)
    with pytest.raises(ConfigError):
        decode({**to_data(hedge()), **wrong})


# ---------------------------------------------------------------------------------------------------------- one hedge


def test_a_quick_first_has_no_duplicate() -> None:
    run = live(hedge(), Told(name="a", seconds=(0.9,)), Told(name="b"))
    assert asked(run) == ["a"]
    assert run.usd == PRICE


def test_the_first_good_answer_wins_the_loser_is_cancelled_and_both_are_charged() -> None:
    run = live(hedge(), Told(name="a", seconds=(9.0,)), Told(name="b", seconds=(0.5,)))
    assert run.outcome.target == "b"
    assert run.seconds == pytest.approx(1.5)
    lost, won = (s.outcome for s in run.steps if s.call is not None)
    assert lost.cancelled
    assert lost.usd == PRICE
    assert won.ok
    assert run.usd == pytest.approx(2 * PRICE)
    assert comparable(replay(hedge(), QUERY, Recorded(run.steps))) == comparable(run)


def test_a_first_that_comes_after_all_wins() -> None:
    run = live(hedge(), Told(name="a", seconds=(1.2,)), Told(name="b", seconds=(9.0,)))
    assert run.outcome.target == "a"
    assert run.usd == pytest.approx(2 * PRICE)


def test_a_duplicate_that_fails_does_not_end_the_wait_for_the_first() -> None:
    run = live(hedge(), Told(name="a", seconds=(5.0,)), Told(name="b", error="unavailable"))
    assert run.outcome.target == "a"
    assert run.seconds == pytest.approx(5.0)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_if_the_first_fails_early_the_second_starts_at_once_without_using_up_the_share(share: float) -> None:
    place = world(Told(name="a", error="unavailable"), Told(name="b"))
    for run in ask_all(place, hedge(share=share, otherwise=60.0), 2, side_by_side=False):
        assert run.outcome.target == "b"
        assert run.seconds == pytest.approx(0.2)
    assert place.lateness.take(Late(target="a", share=share)) is (share == 0.5)


def test_if_both_fail_the_firsts_failure_is_told() -> None:
    run = live(hedge(), Told(name="a", error="rate_limited"), Told(name="b", error="unavailable"))
    assert run.outcome.error is not None
    assert run.outcome.error.kind == "rate_limited"


def test_at_most_one_duplicate_of_each_call() -> None:
    drivers = [Told(name="a", seconds=(50.0,)), Told(name="b", seconds=(50.0,))]
    live(hedge(), *drivers)
    assert [d.calls for d in drivers] == [1, 1]


def test_plans_hedge_plans() -> None:
    steps = (Single(target="a"), Single(target="c"))
    slow = Cascade(steps=steps, accept=Predicted(quality=0.0, above=1.0))
    plan = Hedge(first=slow, second=Single(target="b"), otherwise=1.0, share=1.0)
    run = live(plan, Told(name="a", seconds=(0.9,)), Told(name="c", seconds=(9.0,)), Told(name="b"))
    assert run.outcome.target == "b"
    assert run.usd == pytest.approx(3 * PRICE)
    assert comparable(replay(plan, QUERY, Recorded(run.steps))) == comparable(run)


# ----------------------------------------------------------------------------------------------------------- limits


def test_a_limit_on_calls_keeps_the_duplicate_away_and_the_first_answers() -> None:
    run = live(hedge(), Told(name="a", seconds=(9.0,)), Told(name="b"), limits=Limits(calls=1))
    assert run.outcome.target == "a"
    assert run.outcome.limited == "budget"
    run = live(hedge(), Told(name="a", seconds=(9.0,)), Told(name="b"), limits=Limits(usd=1.5 * PRICE))
    assert run.outcome.target == "a"
    assert run.usd == pytest.approx(PRICE)


def test_a_deadline_before_the_delay_uses_up_none_of_the_share() -> None:
    place = world(Told(name="a", seconds=(9.0,)), Told(name="b"))
    for _ in range(2):
        run: Run = virtually(lambda: place.run(hedge(share=0.5), QUERY, limits=Limits(seconds=0.5)))
        assert run.outcome.error is not None
        assert run.outcome.error.kind == "deadline"
        assert run.seconds == pytest.approx(0.5)
    assert place.drivers["b"].calls == 0  # type: ignore[attr-defined]
    assert place.lateness.take(Late(target="a", share=0.5))


# ---------------------------------------------------------------------------------------------------------- the share


def ask_all(place: Live, plan: Plan, count: int, *, side_by_side: bool, query: Query = QUERY) -> list[Run]:
    async def all_of_them() -> list[Run]:
        if side_by_side:
            return list(await asyncio.gather(*(place.run(plan, query) for _ in range(count))))
        return [await place.run(plan, query) for _ in range(count)]

    runs: list[Run] = virtually(all_of_them)
    return runs


@pytest.mark.parametrize("side_by_side", [False, True])
@settings(max_examples=20)
@given(
    share=st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]),
    slow=st.lists(st.sampled_from([0.1, 30.0]), min_size=1, max_size=120),
)
def test_duplicates_never_exceed_their_share(share: float, slow: list[float], side_by_side: bool) -> None:
    a, b = Told(name="a", seconds=tuple(slow)), Told(name="b")
    runs = ask_all(world(a, b), hedge(share=share), len(slow), side_by_side=side_by_side)
    assert all(r.outcome.ok for r in runs)
    assert b.calls <= share * len(slow) + 1e-9
    assert a.calls == len(slow)


def test_a_fleet_that_gets_slow_all_at_once_is_not_sent_more_than_the_share() -> None:
    a, b = Told(name="a", seconds=(0.1,) * 400 + (60.0,)), Told(name="b")
    place = world(a, b)
    ask_all(place, hedge(share=0.05), 400, side_by_side=False)
    assert b.calls == 0
    ask_all(place, hedge(share=0.05), 100, side_by_side=True)
    # What the quiet time saved up, and one in twenty of the new ones.
    assert b.calls == BURST


def test_targets_and_shares_have_buckets_of_their_own() -> None:
    lateness = Lateness()
    one, two, other = Late(target="a", share=0.5), Late(target="b", share=0.5), Late(target="a", share=0.25)
    for _ in range(2):
        lateness.delay(one, (), QUERY)
    assert not lateness.take(two)
    assert not lateness.take(other)
    assert lateness.take(one)
    assert not lateness.take(one)


def test_the_delay_is_the_quantile_of_the_targets_own_latencies() -> None:
    a, b = Told(name="a", seconds=(*(0.1 * (i % 10 + 1) for i in range(100)), 50.0)), Told(name="b", seconds=(0.5,))
    place = world(a, b)
    ask_all(place, Single(target="a"), 100, side_by_side=False)
    run: Run = virtually(lambda: place.run(hedge(quantile=0.9, otherwise=30.0), QUERY))
    assert run.seconds == pytest.approx(0.9 + 0.5)


def test_while_too_few_latencies_are_known_it_waits_for_otherwise() -> None:
    a, b = Told(name="a", seconds=(0.1,) * (ENOUGH - 1) + (50.0,)), Told(name="b", seconds=(0.5,))
    place = world(a, b)
    ask_all(place, Single(target="a"), ENOUGH - 1, side_by_side=False)
    run: Run = virtually(lambda: place.run(hedge(otherwise=7.0), QUERY))
    assert run.seconds == pytest.approx(7.5)


def test_another_target_may_be_watched() -> None:
    steps = (Single(target="gate"), Single(target="a"))
    plan = Hedge(
        first=Cascade(steps=steps, accept=Predicted(quality=0.0, above=1.0)),
        second=Single(target="b"),
        watch="a",
        share=1.0,
    )
    place = world(Told(name="gate", seconds=(0.01,)), Told(name="a", seconds=(2.0,) * 30 + (50.0,)), Told(name="b"))
    ask_all(place, Single(target="gate"), 30, side_by_side=False)
    ask_all(place, Single(target="a"), 30, side_by_side=False)
    run: Run = virtually(lambda: place.run(plan, QUERY))
    assert run.seconds == pytest.approx(2.1)


def test_a_table_may_be_hedged_with_latencies_and_a_share() -> None:
    class Slow(LookUp):
        def __init__(self) -> None:
            self.lateness = Lateness()

        def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
            return Outcome(target=call.target, text="x", usd=PRICE, seconds=60.0 if call.target == "a" else 0.1)

    table = Slow()
    runs = [replay(hedge(share=0.1), QUERY, table) for _ in range(200)]
    assert sum("b" in asked(r) for r in runs) == 20


# -------------------------------------------------------------------------------------------------------- side effects


def test_calls_with_side_effects_have_no_duplicate_in_a_bare_world() -> None:
    for a, b in (
        (Agent(name="a", seconds=(9.0,)), Told(name="b")),
        (Told(name="a", seconds=(9.0,)), Agent(name="b")),
        (Told(name="a", seconds=(9.0,), profile=Profile(side_effects=True)), Told(name="b")),
    ):
        run = live(hedge(), a, b)
        assert asked(run) == ["a"]
        assert run.seconds == pytest.approx(9.0)
    harmless = Agent(name="a", seconds=(9.0,), profile=Profile(side_effects=False))
    assert asked(live(hedge(), harmless, Told(name="b"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("tools", "once"),
    [
        ([{"type": "function", "function": {"name": "f"}}], False),
        ([{"type": "web_search_preview"}], True),
        ([{"type": "function", "function": {"name": "f"}}, {"type": "code_interpreter"}], True),
        ("rubbish", True),
    ],
)
def test_requests_with_tools_that_the_provider_runs_have_no_duplicate(tools: Any, once: bool) -> None:
    query = Query.ask("Book it.", id="q", tools=tools)
    run = live(hedge(), Told(name="a", seconds=(9.0,)), Told(name="b"), query=query)
    assert asked(run) == (["a"] if once else ["a", "b"])


def test_what_may_not_be_sent_twice_still_has_a_successor_when_it_failed() -> None:
    run = live(hedge(), Agent(name="a", error="unavailable"), Told(name="b"))
    assert run.outcome.target == "b"


def router(tmp_path: Path, a: Told, b: Told) -> Router:
    data = {
        "targets": {"x": {"type": "scripted", "replies": ["x"]}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": to_data(hedge(otherwise=0.02))}}},
        "store": {"path": str(tmp_path / "traces.sqlite")},
    }
    made = make({**data, "targets": {n: {"type": "scripted", "replies": [n]} for n in "ab"}}).router()
    made.world.drivers = {"a": a, "b": b}
    made.pool = Pool(targets=(a.target, b.target), health=made.pool.health)
    return made


@pytest.mark.parametrize("kind", [Told, Agent])
async def test_the_router_never_hedges_agents(tmp_path: Path, kind: type[Told]) -> None:
    a, b = kind(name="a", seconds=(0.3,)), Told(name="b", seconds=(0.0,))
    async with router(tmp_path, a, b) as r:
        outcome, trace = await r.handle(Query.ask("do it", id="q"))
    assert outcome.target == ("a" if kind is Agent else "b")
    assert [s.call.target for s in trace.steps if s.call] == (["a"] if kind is Agent else ["a", "b"])


async def test_after_a_restart_latencies_are_known_from_the_traces(tmp_path: Path) -> None:
    query = Query.ask("x")
    async with router(tmp_path, Told(name="a", seconds=(0.003,)), Told(name="b")) as r:
        for i in range(ENOUGH):
            await r.handle(msgspec.structs.replace(query, id=f"q{i}"))
        known = r.world.lateness.quantile("a", 0.5)
        assert known is not None
    async with router(tmp_path, Told(name="a"), Told(name="b")) as again:
        assert again.world.lateness.quantile("a", 0.5) == known
