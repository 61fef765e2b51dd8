"""The SQLite file: what its disk does, files of earlier versions, what is no store, and kill -9."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing

import msgspec
import numpy as np
import pytest
from stores import a_trace, gate, raw

from fairlead.database import SCHEMA
from fairlead.errors import ChainBroken, StoreError
from fairlead.rewards import Lesson
from fairlead.sqlite import SQLiteStore
from fairlead.types import Feedback, Message, Trace


@pytest.fixture
def store(tmp_path):
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    yield store
    store.stop()


async def fill(store: SQLiteStore, n: int, start: int = 0) -> None:
    await asyncio.gather(*(store.append(a_trace(f"t{i}")) for i in range(start, start + n)))


def versions_of(store: SQLiteStore, n: int) -> list[str]:
    """Keep `n` versions that hold the same large array and differ in a small one; return their digests."""
    large = np.random.default_rng(0).normal(size=(100, 100))
    return [store.save_policy("auto", {"type": "x"}, {"x_": large, "n_": i}, note="learned").digest for i in range(n)]


def arrays(store: SQLiteStore) -> list[str]:
    return [name for (name,) in store._rows("SELECT digest FROM artifacts WHERE kind = 'array'")]


def decided_by(id: str, digest: str) -> Trace:
    trace = a_trace(id)
    return msgspec.structs.replace(trace, decision=msgspec.structs.replace(trace.decision, policy_digest=digest))


async def test_a_failing_disk_is_told_and_later_traces_chain_on(store, caplog):
    await fill(store, 3)
    raw(
        store.path,
        "CREATE TRIGGER full BEFORE INSERT ON traces WHEN new.id LIKE 'bad%' BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    )
    let_go = gate(store)
    futures = [store.append(a_trace(id)) for id in ("good1", "bad1", "good2", "bad2")]
    let_go.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(r, StoreError) for r in results] == [False, True, False, True]
    assert store.failures == 2
    assert "trace bad1 was not written" in caplog.text
    assert await store.get("bad1") is None
    assert store.count() == 5
    raw(store.path, "DROP TRIGGER full")
    await store.append(a_trace("bad1"))
    assert store.verify() == store.count() == 6


async def test_two_swapped_rows_are_found(store):
    await fill(store, 10)
    store.stop()
    raw(
        store.path,
        "DROP INDEX traces_id",
        "UPDATE traces SET seq = -1 WHERE seq = 4",
        "UPDATE traces SET seq = 4 WHERE seq = 5",
        "UPDATE traces SET seq = 5 WHERE seq = -1",
    )
    with pytest.raises(ChainBroken, match=r"trace 4 \(t4\) does not follow trace 3"):
        store.verify()


async def test_rows_cannot_be_changed_by_accident(store):
    await fill(store, 1)
    await store.add_feedback(Feedback(trace_id="t0", value=1.0))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        for statement in (
            "UPDATE traces SET at = 0",
            "DELETE FROM traces",
            "DELETE FROM feedback",
            "UPDATE feedback SET at = 0",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


async def test_a_version_that_is_not_written_leaves_its_lessons(store):
    await fill(store, 1)
    await store.add_feedback(Feedback(trace_id="t0", value=0.1))
    raw(store.path, "CREATE TRIGGER full BEFORE DELETE ON lessons BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(StoreError, match="disk full"):
        store.save_policy("auto", {"type": "fixed"}, {}, note="learned", learned=["t0"])
    assert store.versions("auto") == []
    assert len(store.unlearned("auto")) == 1


# -------------------------------------------------------------------------------------------------------- privacy


async def test_without_text_no_byte_of_it_reaches_the_disk(tmp_path):
    store = SQLiteStore(tmp_path / "s.db", text=False)
    store.start()
    await store.append(a_trace("t0", text="PURPLE ELEPHANT", answer="GREEN GIRAFFE"))
    await store.add_feedback(Feedback(trace_id="t0", value=0.0, kind="correction", correction="RED RHINO"))

    def everything() -> bytes:
        return b"".join(p.read_bytes() for p in tmp_path.iterdir())

    live = everything()
    got = await store.get("t0")
    store.stop()
    for data in (live, everything()):
        assert b"t0" in data
        for word in (b"PURPLE", b"ELEPHANT", b"GREEN", b"GIRAFFE", b"RHINO"):
            assert word not in data
    assert got.query.messages == (Message(role="user", content=" " * 15),)
    assert got.outcome.text == " " * 13
    assert store.verify() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
async def test_only_the_owner_may_read_the_files(store):
    await fill(store, 1)
    for path in store.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


# -------------------------------------------------------------------------------------------------------- older files


UNSHARED = tuple(f"DROP TABLE {t}" for t in ("leases", "checkpoints", "spools"))
"""What schema 5 brought, undone."""
UNWEIGHED = (
    *UNSHARED,
    "DROP TABLE taught",
    *(f"ALTER TABLE lessons DROP COLUMN {c}" for c in ("value", "weight", "further")),
)
"""What schema 4 brought, undone."""


async def test_a_file_of_schema_3_keeps_its_lessons_whole(store):
    await fill(store, 2)
    await store.add_feedback(Feedback(trace_id="t0", value=0.3))
    store.stop()
    raw(store.path, *UNWEIGHED, "PRAGMA user_version=3")
    store.start()
    assert store._rows("PRAGMA user_version") == [(SCHEMA,)]
    assert [lesson for _, lesson in store.unlearned("auto")] == [Lesson(value=0.3, weight=1.0)]
    assert (await store.add_feedback(Feedback(trace_id="t0", value=1.0, source="late"))).lesson is None
    assert (await store.add_feedback(Feedback(trace_id="t1", value=1.0))).lesson.weight == 1.0


@pytest.fixture
def older(store, monkeypatch):
    """A file as schema 2 had it: policies whole, and no table of parts."""
    with monkeypatch.context() as m:
        m.setattr("fairlead.component.LARGE", 10**9)
        digests = versions_of(store, 2)
    store.stop()
    raw(store.path, "DROP TABLE parts", *UNWEIGHED, "PRAGMA user_version=2")
    return store, digests


async def test_a_file_of_schema_2_is_read_as_it_is_and_brought_up_to_date_by_a_writer(older):
    store, digests = older
    reader = SQLiteStore(store.path, read_only=True)
    reader.start()
    assert reader.load_policy(digests[1])[1]["n_"] == 1
    assert reader.verify() == 0
    assert store._rows("PRAGMA user_version") == [(2,)]
    store.start()
    assert store._rows("PRAGMA user_version") == [(SCHEMA,)]
    assert store.load_policy(digests[0])[1]["x_"].shape == (100, 100)
    assert versions_of(store, 3)[:2] == digests, "a digest does not depend on how a policy is kept"
    assert len(arrays(store)) == 1
    await store.append(decided_by("t0", digests[0]))
    assert store.prune("auto", keep=1, grace_seconds=0) == 1
    assert store.verify() == 1
    assert store.load_policy(digests[0])[1]["n_"] == 0


def test_a_writer_that_fails_half_way_through_leaves_schema_2(older, monkeypatch):
    store, digests = older
    monkeypatch.setattr("fairlead.sqlite._PARTS", "CREATE TABLE parts(a); CREATE TABLE parts(a);")
    with pytest.raises(StoreError):
        store.start()
    assert store._rows("PRAGMA user_version") == [(2,)]
    assert store._rows("SELECT count(*) FROM sqlite_master WHERE name = 'parts'") == [(0,)]
    monkeypatch.undo()
    store.start()
    assert store._rows("PRAGMA user_version") == [(SCHEMA,)]
    assert store.load_policy(digests[0])[1]["n_"] == 0


# -------------------------------------------------------------------------------------------------------- opening


def test_what_is_no_store_is_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, not a database\n" * 100)
    with pytest.raises(StoreError, match="cannot be read as a store"):
        SQLiteStore(text).start()
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE x(y)")
    for read_only in (False, True):
        with pytest.raises(StoreError, match="not a Fairlead store"):
            SQLiteStore(foreign, read_only=read_only).start()
    with pytest.raises(StoreError, match="no store at"):
        SQLiteStore(tmp_path / "missing.db", read_only=True).start()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        SQLiteStore(tmp_path / "file" / "s.db").start()


@pytest.mark.parametrize(("schema", "message"), [(99, "newer Fairlead"), (1, "earlier Fairlead .*begin a new store")])
def test_another_schema_is_refused(store, schema, message):
    store.stop()
    raw(store.path, f"PRAGMA user_version={schema}")
    for read_only in (False, True):
        with pytest.raises(StoreError, match=message):
            SQLiteStore(store.path, read_only=read_only).start()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
def test_a_gateway_of_before_the_store_was_shared_is_waited_for_and_named(store, monkeypatch):
    import fcntl

    monkeypatch.setattr("fairlead.sqlite.BUSY_SECONDS", 0.01)
    with open(f"{store.path}.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="stop that one"):
            SQLiteStore(store.path).start()


def test_a_reader_writes_nothing(store):
    reader = SQLiteStore(store.path, read_only=True)
    reader.start()
    assert reader.count() == 0
    with pytest.raises(StoreError, match="reading only"):
        reader.flush()


CHILD = """
import asyncio, sys
sys.path[:0] = {path!r}
from fairlead.plans.single import Single
from fairlead.sqlite import SQLiteStore
from fairlead.types import Decision, Option, Outcome, Query, Signals, Trace

def a_trace(id):
    options = (Option(plan=Single(target="a"), probability=1.0),)
    return Trace(id=id, at=1.0, query=Query.ask("x" * 200, id=id), signals=Signals(),
                 decision=Decision(options=options, chosen=0, propensity=1.0), outcome=Outcome(text="y", target="a"))

async def client(store, name):
    i = 0
    while True:
        id = f"{{name}}-{{i}}"
        await store.append(a_trace(id))
        sys.stdout.write(id + "\\n")
        sys.stdout.flush()
        i += 1

async def main():
    store = SQLiteStore({store!r})
    store.start()
    await asyncio.gather(*(client(store, f"{round}-c{{n}}") for n in range(8)))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_killed_under_load_everything_acknowledged_is_there(tmp_path):
    path = tmp_path / "s.db"
    acknowledged: list[str] = []
    for round in range(3):
        code = textwrap.dedent(CHILD).format(path=sys.path, store=str(path), round=round)
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(150 + 100 * round):
            acknowledged.append(child.stdout.readline().rstrip("\n"))
        os.kill(child.pid, signal.SIGKILL)
        rest, _ = child.communicate()
        acknowledged += rest.split("\n")[:-1]  # a last line without its end was cut by the kill
        reader = SQLiteStore(path, read_only=True)
        reader.verify()
    kept = {t.id for t in SQLiteStore(path, read_only=True).traces()}
    assert len(acknowledged) >= 750
    assert not set(acknowledged) - kept
    store = SQLiteStore(path)
    store.start()
    assert store.verify() == store.count() == len(kept)
    store.stop()
