"""A database that is gone for a while: what is acknowledged meanwhile is written when it is back, once, and nothing else is pretended."""
# ruff: noqa: F811 - fixtures come from a module of support

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from postgres import GUARDED, PASSWORD, VARIABLE
from stores import a_trace, gate, kept  # noqa: F401 - fixtures

from fairlead import chain, sqlstore
from fairlead.errors import ConfigError, StoreError
from fairlead.postgres import PostgresStore, marked, translated
from fairlead.spool import Spools
from fairlead.sqlite import SQLiteStore
from fairlead.store import Sum
from fairlead.types import Feedback, Query

TABLE = "CREATE TABLE IF NOT EXISTS paid(id TEXT PRIMARY KEY, micro INTEGER)"


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.005)


@pytest.fixture
def gone(kept, monkeypatch):
    """Take the database away for the length of a block."""
    monkeypatch.setattr("fairlead.sqlite.BUSY_SPOOL_SECONDS", 0.02)
    monkeypatch.setattr("fairlead.sqlite.BUSY_SECONDS", 0.02)

    @contextmanager
    def gone():
        if kept.kind == "postgres":
            kept.server.stop()
            try:
                yield
            finally:
                kept.server.start()
        else:
            with closing(sqlite3.connect(kept.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                yield

    return gone


def with_table(kept, **more):
    store = kept.make(outage="spool", **more)
    kept.made.append(store)
    store.tables(TABLE)
    store.start()
    return store


def spools(kept) -> list[str]:
    folder = kept.spool if kept.kind == "postgres" else kept.path.with_name("s.db.spool")
    return sorted(p.name for p in folder.glob("*")) if folder.exists() else []


async def test_traces_and_feedback_wait_for_a_database_that_is_gone(kept, gone):
    store = with_table(kept)
    await store.append(a_trace("before"))
    with gone():
        for i in range(20):
            await store.append(a_trace(f"t{i}"), [Sum("INSERT INTO paid VALUES (?, ?)", (f"t{i}",), i)])
        assert not store.up
        receipt = await store.add_feedback(Feedback(trace_id="t3", value=0.25))
        assert (receipt.status, receipt.lesson) == ("spooled", None)
        assert (await store.add_feedback(Feedback(trace_id="before", value=0.75))).status == "spooled"
        found = await store.get("t7")
        assert (found.id, found.outcome.text, found.query.text) == ("t7", "hi", "hello")
        assert store.count() == 21
        with pytest.raises(StoreError, match="gone"):
            await store.transact("money", lambda c: c.execute("INSERT INTO paid VALUES ('x', 1)"))
        with pytest.raises(StoreError, match="gone"):
            await asyncio.to_thread(store.save_policy, "auto", {"type": "x"}, {}, note="n")
        assert store.spooled == 22
        assert store.spool_bytes > 9_000
        assert len(spools(kept)) == 1
    await until(lambda: store.up and not store.spool_bytes)
    await store.append(a_trace("after"))
    assert [t.id for t in store.traces()] == ["before", *(f"t{i}" for i in range(20)), "after"]
    assert [(f.trace_id, f.value) for f in store.judgements()] == [("t3", 0.25), ("before", 0.75)]
    assert [t.id for t, _ in store.unlearned("auto")] == ["t3", "before"]
    assert store.rows("SELECT count(*), sum(micro) FROM paid") == [(20, 190)]
    assert store.verify() == store.count() == 22
    assert store.rows("SELECT * FROM spools") == []
    assert spools(kept) == []


async def test_where_it_is_refused_it_is_refused_at_once_and_works_again_after(kept, gone):
    store = kept.store(outage="refuse")
    await store.append(a_trace("before"))
    with gone():
        for id in ("a", "b"):
            with pytest.raises(StoreError):
                await store.append(a_trace(id))
        assert (store.failures, store.spooled) == (2, 0)
    await until(lambda: store.up)
    await store.append(a_trace("a"))
    assert store.verify() == 2


async def test_feedback_on_a_trace_that_still_waits_waits_behind_it(kept, gone, monkeypatch):
    store = kept.store(outage="spool")
    monkeypatch.setattr("fairlead.writer.BATCH", 1)
    with gone():
        for i in range(5):
            await store.append(a_trace(f"t{i}"))
    await until(lambda: store.up)
    statuses = [(await store.add_feedback(Feedback(trace_id=f"t{i}", value=0.5))).status for i in range(5)]
    assert set(statuses) <= {"accepted", "spooled"}
    await until(lambda: not store.spool_bytes)
    assert store.verify() == 5
    assert len(list(store.judgements())) == 5


async def test_the_spool_is_bounded(kept, gone):
    store = kept.store(outage="spool", spool_bytes=5_000)
    with gone():
        said = await asyncio.gather(*(store.append(a_trace(f"a{i}")) for i in range(2)), return_exceptions=True)
        more = []
        for i in range(20):
            more += await asyncio.gather(store.append(a_trace(f"b{i}")), return_exceptions=True)
        refused = [e for e in more if e is not None]
        assert refused
        assert "spool" in str(refused[-1])
        assert "full" in str(refused[-1])
        assert store.spool_bytes <= 5_000
    await until(lambda: store.up and not store.spool_bytes)
    assert store.verify() == sum(e is None for e in [*said, *more])


async def test_a_trace_that_is_there_already_when_its_spool_is_written_is_kept_once(kept, gone, caplog):
    store = kept.store(outage="spool")
    await store.append(a_trace("t0"))
    with gone():
        for id in ("t0", "t1"):
            await store.append(a_trace(id))
    await until(lambda: store.up and not store.spool_bytes)
    assert [t.id for t in store.traces()] == ["t0", "t1"]
    assert store.verify() == 2


DYING = """
import asyncio, os, sys
sys.path[:0] = {path!r}
import fairlead.sqlite
fairlead.sqlite.BUSY_SPOOL_SECONDS = 0.02
from stores import a_trace
from fairlead.types import Feedback, Query

async def main():
    store = {code}
    store.start()
    await store.append(a_trace("t0"))
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(1, 10):
        await store.append(a_trace(f"t{{i}}"))
    await store.add_feedback(Feedback(trace_id="t5", value=0.5))
    print(store.spooled, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
async def test_what_a_killed_process_had_acknowledged_is_written_by_the_next_that_starts(kept, gone):
    code = kept.code if kept.kind == "postgres" else kept.code[:-1] + ", outage='spool')"
    command = [sys.executable, "-c", DYING.format(path=sys.path, code=code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        with gone():
            out, _ = child.communicate("go\n")
        assert out == "10\n"
    (name,) = spools(kept)
    folder = kept.spool if kept.kind == "postgres" else kept.path.with_name("s.db.spool")
    with (folder / name).open("ab") as file:
        file.write(b"\x00\x00\x01\x00half a record")  # what a write that was cut off leaves
    store = kept.store(outage="spool")
    await until(lambda: not spools(kept))
    assert [t.id for t in store.traces()] == [f"t{i}" for i in range(10)]
    assert [f.trace_id for f in store.judgements()] == ["t5"]
    assert store.verify() == 10


def test_a_spool_in_use_is_nobody_elses(tmp_path):
    one, other = (Spools(tmp_path / "s", most_bytes=1000) for _ in range(2))
    one.put([("a", b"1"), ("", b"2")])
    other.adopt()
    assert other.next() is None
    assert (one.find("a"), one.find("b")) == (b"1", None)
    one.close()
    other.adopt()
    spool = other.next()
    assert spool.read(1) == ([b"1"], 9)
    assert spool.read(9)[0] == [b"1", b"2"]
    other.skip(spool, 9)
    assert spool.read(9)[0] == [b"2"]
    other.remove(spool)
    assert other.next() is None
    assert list((tmp_path / "s").iterdir()) == []


def test_a_damaged_record_ends_a_spool(tmp_path):
    spools = Spools(tmp_path, most_bytes=1000)
    spools.put([("", b"first"), ("", b"second"), ("", b"third")])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"second", b"secant"))
    spool = spools.next()
    assert spool.read(9) == ([b"first"], 13)
    assert spool.torn
    spools.close()


# -------------------------------------------------------------------------------------------------------- SQLite


async def test_a_full_disk(tmp_path):
    from fairlead.sqlite import SQLiteStore

    store = SQLiteStore(tmp_path / "s.db", outage="spool", spool=tmp_path / "another disk")
    store.start()
    await store.append(a_trace("t0"))
    store._blocking("limit", lambda c, _: c.execute("PRAGMA max_page_count = 1").fetchall())
    await asyncio.gather(*(store.append(a_trace(f"t{i}", text="x" * 5000)) for i in range(1, 9)))
    assert store.spooled == 8
    await until(lambda: store.up and not store.spool_bytes)
    assert store.verify() == 9
    store.stop()


# -------------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture
def postgres(postgres_url, postgres_server, tmp_path):
    store = PostgresStore(postgres_url, outage="refuse")
    store.tables(TABLE)
    store.start()
    yield store
    store.stop()


def cut(server) -> None:
    """End all connections to the server but this one's."""
    server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND usename = 'fairlead'"
    )


async def test_a_connection_that_is_cut_is_opened_again_and_nobody_notices(postgres, postgres_server):
    for i in range(3):
        await postgres.append(a_trace(f"t{i}"))
        assert (await postgres.fetch("SELECT count(*) FROM traces")) == [(i + 1,)]
        cut(postgres_server)
    let_go = gate(postgres)
    futures = [postgres.append(a_trace(f"u{i}")) for i in range(10)]
    let_go.set()
    await asyncio.gather(*futures)
    assert (postgres.failures, postgres.verify()) == (0, 13)


@pytest.mark.parametrize("at", ["before", "after"])
async def test_a_commit_whose_answer_is_lost_is_written_once(postgres, monkeypatch, at):
    database, real = postgres.database, postgres.database.transaction
    cuts = iter([True, False, False, False])

    @contextmanager
    def transaction(connection):
        with real(connection):
            yield
            lose = next(cuts, False)
            if lose and at == "before":
                connection.raw.close()
        if lose:
            connection.raw.close()
            raise database.error_lost()

    import psycopg

    monkeypatch.setattr(database, "error_lost", lambda: psycopg.OperationalError("the answer is lost"), raising=False)
    monkeypatch.setattr(database, "transaction", transaction)
    pay = postgres.transact("pay", lambda c: c.execute("INSERT INTO paid VALUES ('a', 1)").rowcount)
    await asyncio.gather(postgres.append(a_trace("t0")), pay)
    assert await pay == 1
    assert postgres.rows("SELECT * FROM paid") == [("a", 1)]
    assert (postgres.failures, postgres.verify()) == (0, 1)


async def test_a_client_that_says_nothing_holds_nobody_up(postgres_url, postgres, monkeypatch):
    import psycopg

    monkeypatch.setattr("fairlead.postgres.SILENT_SECONDS", 0.2)
    silent = PostgresStore(postgres_url, outage="refuse").database.open()
    silent.execute("BEGIN")
    silent.execute("SELECT * FROM heads FOR UPDATE")
    await postgres.append(a_trace("t0"))  # waits until the server has ended the silent one
    with pytest.raises(psycopg.Error):
        silent.execute("SELECT 1")
    silent.raw.close()


def test_a_password_is_told_to_nobody(postgres_url, postgres_server, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    wrong = "hunter two / battery@staple"
    url = postgres_server.url(postgres_url.rpartition("%3D")[2], GUARDED)
    monkeypatch.setenv(VARIABLE, PASSWORD)
    right = PostgresStore(url)
    right.start()
    assert right.count() == 0
    right.stop()
    monkeypatch.setenv(VARIABLE, wrong)
    store = PostgresStore(url)
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        store.start()
    monkeypatch.setenv("WHOLE", f"postgresql://fairlead:{wrong.replace('/', '%2F').replace('@', '%40')}@127.0.0.1:1/x")
    whole = PostgresStore("${WHOLE}")
    with pytest.raises(StoreError) as refused:
        whole.start()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=VARIABLE):
        store.start()
    monkeypatch.setenv(VARIABLE, PASSWORD)
    said = f"{caught.value} {refused.value} {store!r} {whole!r} {store.database!r} {caplog.text} {capfd.readouterr()}"
    for secret in ("hunter", "battery"):
        assert secret not in said
    assert caught.value.__cause__ is None
    for url in ("postgresql://me:secret@host/x", "postgresql://host/x?password=secret", "mysql://host/x"):
        with pytest.raises(ConfigError) as told:
            PostgresStore(url)
        assert "secret" not in str(told.value)


def test_a_database_without_tables_or_of_another_version_is_refused(postgres_url, postgres_server):
    with pytest.raises(StoreError, match="there is no store"):
        PostgresStore(postgres_url, read_only=True).start()
    store = PostgresStore(postgres_url)
    store.start()
    reader = PostgresStore(postgres_url, read_only=True)
    reader.start()
    with pytest.raises(StoreError, match="reading only"):
        reader.flush()
    reader.stop()
    store.stop()
    postgres_server.run(f"UPDATE {postgres_url.rpartition('%3D')[2]}.fairlead SET schema = 99")
    with pytest.raises(StoreError, match="newer Fairlead"):
        PostgresStore(postgres_url).start()


async def test_rows_of_postgresql_stay(postgres, postgres_server, postgres_url):
    import psycopg

    await postgres.append(a_trace("t0"))
    await postgres.add_feedback(Feedback(trace_id="t0", value=1.0))
    schema = postgres_url.rpartition("%3D")[2]
    for statement in ("UPDATE traces SET at = 0", "DELETE FROM traces", "TRUNCATE traces", "DELETE FROM feedback"):
        with pytest.raises(psycopg.Error, match="append-only"):
            postgres_server.run(f"SET search_path TO {schema}; {statement}")


def test_sql_is_translated():
    assert (
        marked("SELECT '100% ?' WHERE a = ? AND b LIKE '%' || ?")
        == "SELECT '100%% ?' WHERE a = %s AND b LIKE '%%' || %s"
    )
    assert translated("CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT, b REAL, c BLOB, d INTEGER)") == (
        "CREATE TABLE x(a BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, b DOUBLE PRECISION, c BYTEA, d BIGINT)"
    )


async def test_what_was_acknowledged_and_cannot_be_written_is_set_aside(kept, gone, caplog):
    store = with_table(kept)
    with gone():
        await store.append(a_trace("t0"), [Sum("INSERT INTO paid VALUES (?, ?)", ("a",), 1)])
        await store.append(a_trace("t1"), [Sum("INSERT INTO paid VALUES (?, 0 + ?)", ("a",), 1)])
        store.spools.put([("", b"of another version")])
        await store.append(a_trace("t2"))
    await until(lambda: store.up and not store.spool_bytes)
    assert [t.id for t in store.traces()] == ["t0", "t2"]
    assert (store.failures, store.verify()) == (2, 2)
    await until(lambda: len(spools(kept)) == 1)
    (name,) = spools(kept)
    assert name.endswith(".unwritten")
    assert name in caplog.text


async def test_a_config_names_the_database(postgres_url, tmp_path, monkeypatch):
    from fairlead.cli.validate import unset
    from fairlead.config import make

    def data(url):
        targets = {"a": {"type": "scripted", "replies": ["yes"]}}
        return {"targets": targets, "routes": {"auto": {"policy": "random"}}, "store": {"url": url}}

    monkeypatch.delenv(VARIABLE)
    read = make(data(postgres_url), folder=tmp_path)
    assert any(VARIABLE in said and "the store" in said for said in unset(read))
    monkeypatch.setenv(VARIABLE, PASSWORD)
    assert not list(unset(read))
    router = read.router()
    await router.start()
    outcome, _ = await router.handle(Query.ask("hello"))
    assert outcome.text == "yes"
    assert router.store.count() == 1
    await router.stop()
    assert read.file.store.spool == str(tmp_path / "fairlead.spool")
    with pytest.raises(ConfigError, match=r"\$\.store\.url: a password must not be written here"):
        make(data("postgresql://me:secret@host/x"))


async def test_a_router_serves_and_is_judged_while_postgresql_is_gone(postgres_url, postgres_server, tmp_path):
    from fairlead.config import make

    targets = {name: {"type": "scripted", "replies": ["yes"]} for name in ("a", "b")}
    store = {"url": postgres_url}
    learning = {"batch": 1, "seconds": 0.01}
    data = {"targets": targets, "routes": {"auto": {"policy": "beta_thompson"}}, "store": store, "learning": learning}
    router = make(data, folder=tmp_path).router()
    await router.start()
    try:
        first, _ = await router.handle(Query.ask("hello"))
        postgres_server.stop()
        try:
            answered = [await router.handle(Query.ask("hello")) for _ in range(5)]
            assert [outcome.text for outcome, _ in answered] == ["yes"] * 5
            said = [await router.feedback(Feedback(trace_id=trace.id, value=1.0)) for _, trace in answered]
            assert {receipt.status for receipt in said} == {"spooled"}
        finally:
            postgres_server.start()
        await until(lambda: router.store.up and not router.store.spool_bytes)
        await router.handle(Query.ask("hello"))
        assert first.text == "yes"
        assert router.store.verify() == router.store.count() == 7
        assert len(list(router.store.judgements())) == 5
    finally:
        await router.stop()


async def test_charges_of_a_spool_from_before_they_were_added_up_are_written(tmp_path: Path) -> None:
    old = sqlstore._pack(("trace", chain.encode(a_trace("t0")), [("INSERT INTO paid VALUES (?, ?)", ("a", 3))]))
    store = SQLiteStore(tmp_path / "a.sqlite")
    store.tables("CREATE TABLE IF NOT EXISTS paid(id TEXT PRIMARY KEY, micro INTEGER);")
    store.start()
    try:
        store._blocking("spool", sqlstore._kept(old).do)
        assert store.rows("SELECT * FROM paid") == [("a", 3)]
        assert store.read("t0") == a_trace("t0")
    finally:
        store.stop()
