"""What becomes of a trace that cannot be written: whoever wants to know is told, once, and what it charges is charged all the same."""
# ruff: noqa: F811 - fixtures come from a module of support

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from stores import a_trace, gate, kept, store  # noqa: F401 - fixtures

from fairlead.config import make
from fairlead.errors import StoreError
from fairlead.ledger import Account
from fairlead.sqlite import SQLiteStore
from fairlead.types import Query

MONTH = Account(name="key:a/usd", period="month", limit=1_000_000)
MISSING = ("INSERT INTO nowhere VALUES (1)", ())


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.005)


async def test_lost_is_told_of_what_is_not_written_and_of_nothing_else(store):
    told: list[str] = []
    good = store.append(a_trace("good"), lost=lambda: told.append("good"))
    bad = store.append(a_trace("bad"), [MISSING], lost=lambda: told.append("bad"))
    results = await asyncio.gather(good, bad, return_exceptions=True)
    assert [type(r) for r in results] == [type(None), StoreError]
    again = store.append(a_trace("good"), lost=lambda: told.append("again"))
    with pytest.raises(StoreError, match="there already"):
        await again
    store.stop()
    with pytest.raises(StoreError, match="stopped"):
        await store.append(a_trace("late"), lost=lambda: told.append("late"))
    assert told == ["bad", "again", "late"]


async def test_lost_is_told_when_nobody_waits_for_the_trace_any_more(store):
    told: list[str] = []
    let_go = gate(store)
    future = store.append(a_trace("bad"), [MISSING], lost=lambda: told.append("bad"))
    future.cancel()
    let_go.set()
    await store.append(a_trace("good"))
    assert told == ["bad"]


async def test_lost_is_told_by_a_relaxed_store_too(tmp_path):
    store = SQLiteStore(tmp_path / "s.db", relaxed=True)
    store.start()
    told = threading.Event()
    assert store.append(a_trace("bad"), [MISSING], lost=told.set) is None
    await asyncio.to_thread(store.stop)
    assert told.is_set()


async def test_what_was_spooled_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.sqlite.BUSY_SPOOL_SECONDS", 0.02)
    store = SQLiteStore(tmp_path / "s.db", outage="spool", spool_bytes=2_000)
    store.start()
    told: list[str] = []
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await store.append(a_trace("kept"), lost=lambda: told.append("kept"))
        with pytest.raises(StoreError, match="full"):
            await store.append(a_trace("too much", text="x" * 5_000), lost=lambda: told.append("too much"))
    await until(lambda: store.up and not store.spool_bytes)
    await asyncio.to_thread(store.stop)
    assert told == ["too much"]
    assert [t.id for t in store.traces()] == ["kept"]


async def test_whatever_goes_wrong_in_the_telling_the_writer_goes_on(store, caplog):
    def raises() -> None:
        raise KeyError("nobody listens")

    bad = store.append(a_trace("bad"), [MISSING], lost=raises)
    store._appended, real = lambda *_: 1 / 0, store._appended
    written = store.append(a_trace("good"))
    async with asyncio.timeout(5):
        await written
        with pytest.raises(StoreError):
            await bad
        store._appended = real
        await store.append(a_trace("after"))
    assert [t.id for t in store.traces()] == ["good", "after"]
    assert "could not be noted" in caplog.text


async def test_whatever_breaks_a_batch_those_who_wait_are_told_and_the_writer_goes_on(store, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(store._writer, "_write", broken)
        async with asyncio.timeout(5):
            with pytest.raises(StoreError, match="whether this was written is not known"):
                await store.append(a_trace("t0"))
            with pytest.raises(StoreError, match="not known"):
                await asyncio.to_thread(store.flush)
    await store.append(a_trace("t1"))
    assert [t.id for t in store.traces()] == ["t1"]
    assert store.failures == 2


async def test_what_is_remembered_is_forgotten_by_the_thread_that_remembers_it(store):
    class Noted(dict):  # type: ignore[type-arg]
        def clear(self) -> None:
            self.by = threading.current_thread().name
            super().clear()

    await store.append(a_trace("t0", at=100.0))
    store._recent = Noted(store._recent)
    assert (await asyncio.to_thread(lambda: store.forget(before=200.0))).traces == 1
    assert store._recent.by == "fairlead-store"
    assert (len(store._recent), store._recent_size) == (0, 0)
    assert await store.get("t0") is None


@pytest.mark.parametrize("case", ["plain", "relaxed", "asker gone"])
async def test_what_a_plan_cost_is_charged_though_its_trace_is_lost(tmp_path: Path, monkeypatch, case: str) -> None:
    target = {
        "type": "scripted",
        "replies": ["4"],
        "profile": {"input_usd_per_mtok": 100.0, "output_usd_per_mtok": 100.0, "max_output_tokens": 10},
    }
    config = make(
        {
            "targets": {"cheap": target},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "cheap"}}},
            "store": {"path": str(tmp_path / "s.db"), "relaxed": case == "relaxed"},
            "gateway": {
                "port": 0,
                "keys": {"a": {"hash": "sha256:" + "0" * 64, "budgets": [{"usd": 1.0, "period": "month"}]}},
            },
        }
    )
    began, let_go = threading.Event(), threading.Event()

    def broken(*_: object) -> None:
        began.set()
        let_go.wait(10)
        raise RuntimeError("the disk says no")

    async with config.router() as router:
        assert router.ledger is not None
        monkeypatch.setattr("fairlead.sqlstore._add_trace", broken)
        asked = asyncio.create_task(router.handle(Query.ask("hi", route="auto"), accounts=(MONTH,)))
        await asyncio.to_thread(began.wait, 10)
        if case == "asker gone":
            asked.cancel()
        let_go.set()
        results = await asyncio.gather(asked, return_exceptions=True)
        names = {"plain": "StoreError", "relaxed": "tuple", "asker gone": "CancelledError"}
        assert type(results[0]).__name__ == names[case]
        await until(lambda: bool(router.ledger and router.ledger._late))
        await router.ledger._housekeep()
        assert await asyncio.to_thread(router.ledger.spent, MONTH) > 0
