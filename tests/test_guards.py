"""Guards: every one that holds applies, whatever the policy would like, and also to a target asked for by name."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config import make
from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget
from fairlead.guards import Guards, read, selects
from fairlead.plans.single import Single
from fairlead.policies.base import Proposal
from fairlead.policies.fixed import Fixed
from fairlead.pool import Eligibility
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.signals.base import Signal
from fairlead.types import Failure, Option, Outcome, Profile, Query, Reading, Signals, Target

TARGETS = (
    Target(name="near", profile=Profile(tags=frozenset({"local", "small"}))),
    Target(name="far", profile=Profile(regions=frozenset({"eu"}))),
    Target(name="away"),
)
LONG = {"length": {"gt": 50}}


def router(tmp_path: Path, guards: list[Any], policy: Any = "random", **more: Any) -> Router:
    return make(
        {
            "targets": {
                "near": {"type": "scripted", "replies": ["near"], "profile": {"tags": ["local"]}},
                "far": {"type": "scripted", "replies": ["far"], "profile": {"regions": ["eu"]}},
                "away": {"type": "scripted", "replies": ["away"]},
            },
            "routes": {"auto": {"policy": policy}, "other": {"policy": policy, **more.pop("other", {})}},
            "guards": guards,
            "store": {"path": str(tmp_path / "traces.sqlite")},
            **more,
        }
    ).router()


def signals(**values: Any) -> Signals:
    return Signals(readings={k: Reading(value=v) for k, v in values.items()})


def test_selectors() -> None:
    near, far, _ = TARGETS
    assert selects("near", near)
    assert selects("tag:local", near)
    assert selects("region:eu", far)
    assert not selects("tag:eu", far)
    assert not selects("tag:near", near)


def test_all_that_hold_apply() -> None:
    guards = Guards(
        read(
            [
                {"name": "a", "when": {"x": {"gt": 1}}, "only": ["tag:local", "far"], "do": ["mask"]},
                {"name": "b", "when": {"x": {"gt": 2}}, "never": ["region:eu"], "do": ["tag", "mask"]},
                {"name": "c", "do": ["tag"]},
            ],
            path="$",
        )
    )
    left = {x: guards.apply(signals(x=x), Eligibility(targets=TARGETS)) for x in (1, 2, 3)}
    assert [g.guards for g in left.values()] == [("c",), ("a", "c"), ("a", "b", "c")]
    assert [[t.name for t in g.eligible.targets] for g in left.values()] == [
        ["near", "far", "away"],
        ["near", "far"],
        ["near"],
    ]
    assert left[3].eligible.excluded == {"away": "guard 'a' holds", "far": "guard 'b' holds"}
    assert left[3].actions == ("mask", "tag", "mask", "tag")


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["near", "far", "away", "tag:local", "region:eu"])), max_size=5
    )
)
def test_a_guard_more_never_lets_a_target_in(specs: list[tuple[int, str]]) -> None:
    data = [{"name": f"g{i}", "when": {"x": {"gt": x}}, "only": [who]} for i, (x, who) in enumerate(specs)]
    for x in range(5):
        before = {t.name for t in TARGETS}
        for n in range(len(data) + 1):
            left = Guards(read(data[:n], path="$")).apply(signals(x=x), Eligibility(targets=TARGETS))
            now = {t.name for t in left.eligible.targets}
            assert now <= before
            before = now


async def test_no_policy_gets_round_a_guard(tmp_path: Path) -> None:
    guards = [{"name": "private", "when": LONG, "only": ["tag:local"]}]
    async with router(tmp_path, guards) as r:
        for i in range(30):
            outcome, trace = await r.handle(Query.ask(f"{i} " + "word " * 20))
            assert outcome.text == "near"
            assert trace.decision.guards == ("private",)
            assert trace.decision.excluded == dict.fromkeys(("far", "away"), "guard 'private' holds")
            assert replay_decision(trace, r.store).same
        assert {(await r.handle(Query.ask(f"{i}")))[0].text for i in range(30)} == {"near", "far", "away"}


async def test_a_target_by_its_own_name_is_guarded_too(tmp_path: Path) -> None:
    guards = [{"name": "private", "when": LONG, "only": ["tag:local"]}]
    async with router(tmp_path, guards) as r:
        query = msgspec.structs.replace(Query.ask("word " * 20), route="far")
        with pytest.raises(NoEligibleTarget, match="guard 'private' holds"):
            await r.handle(query)
        (refusal,) = r.store.traces()
        assert refusal.decision.guards == ("private",)
        assert replay_decision(refusal, r.store).same


async def test_a_failing_target_is_not_replaced_by_one_that_is_guarded(tmp_path: Path) -> None:
    guards = [{"name": "private", "when": LONG, "only": ["near"]}]
    async with router(tmp_path, guards) as r:
        r.world.drivers["near"].replies = [{"error": {"kind": "unavailable", "message": "down"}}]  # type: ignore[attr-defined]
        _, trace = await r.handle(Query.ask("word " * 20))
        assert {s.outcome.target for s in trace.steps} == {"near"}


async def test_a_route_adds_guards_of_its_own(tmp_path: Path) -> None:
    guards = [{"name": "private", "when": LONG, "never": ["away"]}]
    async with router(tmp_path, guards, other={"guards": [{"name": "own", "never": ["far"]}]}) as r:
        query = Query.ask("word " * 20)
        assert [t.name for t in r.guarded(query, r.observe(query)).eligible.targets] == ["near", "far"]
        query = msgspec.structs.replace(query, route="other")
        assert [t.name for t in r.guarded(query, r.observe(query)).eligible.targets] == ["near"]


class Slow(Signal):
    """Waits to be let go."""

    go = threading.Event()

    @property
    def slow(self) -> bool:
        return True

    def _read(self, query: Query) -> Reading:
        Slow.go.wait(10)
        return Reading(value=0)


@pytest.mark.parametrize(("late", "who"), [("holds", {"near"}), ("passes", {"near", "far", "away"})])
async def test_a_guard_that_cannot_be_judged_holds(tmp_path: Path, late: str, who: set[str]) -> None:
    data = [{"name": "private", "when": {"length": {"gt": 5}}, "only": ["near"], "late": late}]
    async with router(tmp_path, data) as r:
        r.observer = type(r.observer)(signals={"length": Slow()}, budget_seconds=0.01)
        Slow.go.clear()
        _, trace = await r.handle(Query.ask("x"))
        assert trace.signals.readings["length"].late
        assert set(trace.decision.eligible) == who
        Slow.go.set()


@pytest.mark.parametrize(
    ("guard", "path", "hint"),
    [
        ({"name": "a", "do": ["blok"]}, "do", "block"),
        ({"name": "a", "only": ["naer"]}, "only", "near"),
        ({"name": "a", "only": ["tag:lokal"]}, "only", "profile"),
        ({"name": "a", "when": {"lenght": 1}, "do": ["block"]}, "when", "length"),
        ({"name": "a", "when": {"length.wordz": 1}, "do": ["block"]}, "when", "no part"),
        ({"name": "a"}, "", "does something"),
        ({"do": ["block"]}, "name", "needs a name"),
        ({"name": "a", "do": ["block"], "late": "maybe"}, "late", "holds or passes"),
        ({"name": "a", "doo": []}, "", "unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(tmp_path: Path, guard: Any, path: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as e:
        router(tmp_path, [guard])
    assert e.value.path.startswith("$.guards[0]" + (f".{path}" if path else ""))


def test_two_guards_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two guards"):
        router(tmp_path, [{"name": "a", "do": ["block"]}] * 2)


async def test_a_policy_cannot_get_round_a_guard_by_its_fallbacks(tmp_path: Path) -> None:
    class Sly(Fixed):
        def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
            return Proposal([Option(plan=Single(target="near"), probability=1.0)], fallbacks=(Single(target="far"),))

    async with router(tmp_path, [{"name": "private", "only": ["near"]}]) as r:
        r.serving["auto"] = msgspec.structs.replace(r.serving["auto"], policy=Sly(plan="near"))
        with pytest.raises(FairleadError, match="fallback on far"):
            await r.handle(Query.ask("x"))


async def test_a_refusal_keeps_no_text_where_a_guard_would_have_hidden_it(tmp_path: Path) -> None:
    guards = [{"name": "private", "when": LONG, "only": ["near"], "do": ["block"]}]
    async with router(tmp_path, guards) as r:
        r.pool.health.failed("near", Failure(kind="rate_limited", retry_after_seconds=60.0))
        with pytest.raises(NoEligibleTarget) as e:
            await r.handle(Query.ask("secret " * 20))
        (kept,) = r.store.traces()
        assert e.value.trace == kept
        assert "secret" not in repr(kept)
        assert (kept.decision.actions, kept.text_kept) == (("block",), False)
        assert e.value.kinds == {"near": "rest", "far": "guard", "away": "guard"}


class Breaks(Signal):
    """Breaks with the text in its hand."""

    def _read(self, query: Query) -> Reading:
        raise ValueError(query.text)


async def test_a_signal_that_breaks_is_late_and_says_nothing_of_the_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with router(tmp_path, [{"name": "private", "when": {"length": {"gt": 5}}, "only": ["near"]}]) as r:
        r.observer = type(r.observer)(signals={"length": Breaks()})
        _, trace = await r.handle(Query.ask("my secret"))
        assert (trace.signals.readings["length"].late, trace.decision.eligible) == (True, ("near",))
        assert "secret" not in caplog.text
        assert "ValueError" in caplog.text


async def test_the_router_ends_when_its_plans_have(tmp_path: Path) -> None:
    r = router(tmp_path, [])
    await r.start()
    gate, ask = asyncio.Event(), type(r.world.drivers["near"])._ask

    async def held(self: Any, *args: Any) -> Outcome:
        await gate.wait()
        return await ask(self, *args)

    r.world.drivers["near"]._ask = held.__get__(r.world.drivers["near"])  # type: ignore[method-assign, attr-defined]
    asked = asyncio.ensure_future(r.handle(msgspec.structs.replace(Query.ask("x"), route="near")))
    await asyncio.sleep(0.05)
    stopped = asyncio.ensure_future(r.stop())
    await asyncio.sleep(0.05)
    assert not stopped.done()
    gate.set()
    await stopped
    assert (await asked)[0].text == "near"
