"""Several routers on one store: one learns, all serve what it has learned; when it is gone another goes on."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fairlead.config import make
from fairlead.replica import PAUSE_SECONDS
from fairlead.router import Router
from fairlead.spending import Limit
from fairlead.types import Feedback, Query


def router(store: dict[str, Any], **more: Any) -> Router:
    made = make(
        {
            "targets": {"a": {"type": "scripted", "replies": ["1"]}, "b": {"type": "scripted", "replies": ["2"]}},
            "routes": {"auto": {"policy": {"type": "thompson", "features": {"signals": ["length"]}}}},
            "learning": {"batch": 8, "seconds": 0.01},
            "store": store,
            "gateway": {"shared": True, **more},
        }
    ).router()
    assert made.replica is not None
    made.replica.look_seconds = 0.02
    return made


async def until(what: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "this did not come to be"
        await asyncio.sleep(0.02)


async def test_one_learns_and_all_serve_it(tmp_path: Path) -> None:
    store = {"path": str(tmp_path / "s.sqlite")}
    first, second = router(store), router(store)
    async with first, second:
        await until(lambda: first.replica.leads or second.replica.leads)  # type: ignore[union-attr]
        leader, other = (first, second) if first.replica.leads else (second, first)  # type: ignore[union-attr]
        version = leader.serving["auto"].version
        ids = [(await other.handle(Query.ask("hi")))[1].id for _ in range(4)]
        for id in ids:
            await other.feedback(Feedback(trace_id=id, value=1.0))
        await until(lambda: other.serving["auto"].version > version)
        await until(lambda: not leader.store.unlearned("auto"))
        await until(lambda: other.serving["auto"].digest == leader.serving["auto"].digest)
        assert (leader.learner.learned, other.learner.learned) == (4, 0), "each lesson once, by the one that learns"
        # An operator steps back, on either: both follow, and the one that learns goes on from there.
        await asyncio.to_thread(other.store.activate, "auto", version)
        await until(lambda: leader.serving["auto"].version == other.serving["auto"].version == version)
        await leader.stop()
        await until(lambda: other.replica.leads)  # type: ignore[union-attr]
        id = (await other.handle(Query.ask("hi")))[1].id
        await other.feedback(Feedback(trace_id=id, value=0.0))
        await until(lambda: other.learner.learned == 1)
        assert await asyncio.to_thread(other.store.verify) == 5


async def test_a_store_that_cannot_be_looked_at_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fairlead.errors import StoreError

    async with router({"path": str(tmp_path / "s.sqlite")}) as only:
        await until(lambda: only.replica.leads)  # type: ignore[union-attr]

        def gone(*_: Any) -> Any:
            raise StoreError("gone")

        with monkeypatch.context() as patched:
            patched.setattr(only.store, "lease", gone)
            await until(lambda: "serves on with what it has" in caplog.text)
            outcome, trace = await only.handle(Query.ask("hi"))
            assert outcome.ok
        await until(lambda: "in step again" in caplog.text)
        await only.feedback(Feedback(trace_id=trace.id, value=1.0))
        await until(lambda: only.learner.learned == 1)


async def test_one_that_is_stopped_while_it_looks_leads_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread cannot be cancelled: what it takes meanwhile is given back, and it takes nothing after."""
    async with router({"path": str(tmp_path / "s.sqlite")}) as only:
        replica, lease = only.replica, only.store.lease
        assert replica is not None
        asked, go = threading.Event(), threading.Event()

        def slow(name: str, owner: str, seconds: float) -> bool:
            if seconds > 0.0:
                asked.set()
                go.wait(10.0)
            return lease(name, owner, seconds)

        monkeypatch.setattr(only.store, "lease", slow)
        await asyncio.to_thread(asked.wait, 10.0)
        stopping = asyncio.create_task(replica.stop())
        await asyncio.sleep(0.05)
        go.set()
        await stopping
        replica.look()
        assert not replica.leads
        assert not only.store.rows("SELECT owner FROM leases WHERE name = 'learner'")


async def test_what_cannot_be_published_is_tried_ever_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with router({"path": str(tmp_path / "s.sqlite")}) as only:
        replica, clock = only.replica, [0.0]
        assert replica is not None
        _, trace = await only.handle(Query.ask("hi"))
        await replica.stop()
        replica._ended = False
        monkeypatch.setattr("fairlead.replica.monotonic", lambda: clock[0])

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("cannot be packed")

        with monkeypatch.context() as patched:
            patched.setattr(only.store, "save_policy", broken)
            await only.feedback(Feedback(trace_id=trace.id, value=1.0))
            for _ in range(100):
                await asyncio.to_thread(replica.look)
                await asyncio.to_thread(only.learner.wait)
                clock[0] += replica.look_seconds
            assert 2 <= only.learner.failed <= 10
        clock[0] += PAUSE_SECONDS
        await asyncio.to_thread(replica.look)
        await asyncio.to_thread(only.learner.wait)
        assert only.learner.learned == 1, "and it is not forgotten"


async def test_a_look_that_breaks_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with router({"path": str(tmp_path / "s.sqlite")}) as only:
        await until(lambda: only.replica.leads)  # type: ignore[union-attr]
        with monkeypatch.context() as patched:
            patched.setattr(only.store, "active", lambda _: 1 / 0)
            await until(lambda: "a look at the store broke" in caplog.text)
        _, trace = await only.handle(Query.ask("hi"))
        await only.feedback(Feedback(trace_id=trace.id, value=1.0))
        await until(lambda: only.learner.learned == 1)


async def test_budgets_of_routes_are_kept_together(tmp_path: Path) -> None:
    """Two replicas, one budget: together they spend no more than it, whoever is asked."""
    profile = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0, "max_output_tokens": 1}
    data = {
        "targets": {"a": {"type": "scripted", "replies": ["four"], "profile": profile}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
        "store": {"path": str(tmp_path / "s.sqlite")},
        "gateway": {"shared": True},
    }
    from fairlead.errors import NoEligibleTarget

    async def ask(router: Router) -> float:
        try:
            return (await router.handle(Query.ask("what is 2+2?")))[1].usd or 0.0
        except NoEligibleTarget:
            return 0.0

    one, two = make(data).router(), make(data).router()
    for each in (one, two):  # as a policy that keeps a budget states it
        each.spending.limits["auto"] = Limit(usd=0.0002, seconds=86400.0)
    async with one, two:
        spent = sum(await asyncio.gather(*(ask(r) for _ in range(60) for r in (one, two))))
        assert 0.0 < spent <= 0.0002 + 1e-12
