"""Several processes on one store: one chain, nothing acknowledged lost, nobody blocked; and the tables of others."""
# ruff: noqa: F811 - fixtures come from a module of support

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from stores import a_trace, gate, kept, store  # noqa: F401 - fixtures

from fairlead.errors import ConfigError, StoreError
from fairlead.store import Sum
from fairlead.types import Feedback

CHILD = """
import asyncio, sys
sys.path[:0] = {path!r}
from stores import a_trace
from fairlead.types import Feedback

name, most = sys.argv[1], int(sys.argv[2])

def said(line):
    sys.stdout.write(line + "\\n")
    sys.stdout.flush()

async def client(store, n):
    for i in range(n, most, 10):
        id = f"{{name}}-{{i}}"
        await store.append(a_trace(id))
        said(id)
        if i % 5 == 0:
            receipt = await store.add_feedback(Feedback(trace_id=id, value=0.5))
            assert receipt.status == "accepted", receipt
            said(f"judged {{id}}")

async def main():
    store = {code}
    store.start()
    await asyncio.gather(*(client(store, n) for n in range(10)))
    store.stop()

asyncio.run(main())
"""


def child(kept, name: str, most: int) -> subprocess.Popen[str]:
    code = CHILD.format(path=sys.path, code=kept.code)
    return subprocess.Popen([sys.executable, "-c", code, name, str(most)], stdout=subprocess.PIPE, text=True)


def test_four_processes_write_one_chain_on_a_new_store(kept):
    children = [child(kept, f"p{i}", 500) for i in range(4)]
    said = [line for c in children for line in c.communicate()[0].split()]
    assert [c.returncode for c in children] == [0] * 4
    store = kept.store()
    assert store.verify() == store.count() == 2000
    traces = list(store.traces())
    assert len({t.id for t in traces}) == 2000
    assert {t.id for t in traces} <= set(said)
    assert sum(1 for _ in store.judgements()) == 400
    assert len(store.unlearned("auto")) == 400


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_one_that_is_killed_loses_nothing_acknowledged_and_blocks_nobody(kept):
    victim, *others = [child(kept, "victim", 100_000), child(kept, "a", 300), child(kept, "b", 300)]
    acknowledged = [victim.stdout.readline().rstrip("\n") for _ in range(200)]
    os.kill(victim.pid, signal.SIGKILL)
    acknowledged += victim.communicate()[0].split("\n")[:-1]  # a last line without its end was cut by the kill
    for other in others:
        acknowledged += other.communicate()[0].split("\n")[:-1]
        assert other.returncode == 0
    store = kept.store()
    written = {t.id for t in store.traces()} | {f"judged {f.trace_id}" for f in store.judgements()}
    assert not set(acknowledged) - written
    assert store.verify() == store.count() >= 600


async def test_an_id_is_refused_by_whichever_store_comes_second(kept, store):
    other = kept.store()
    await store.append(a_trace("t0"))
    with pytest.raises(StoreError, match="t0 is there already"):
        await other.append(a_trace("t0"))
    await other.append(a_trace("t1"))
    assert store.count() == other.count() == store.verify() == 2
    assert (await store.get("t1")).id == "t1"
    assert (await other.add_feedback(Feedback(trace_id="t0", value=1.0))).status == "accepted"
    assert (await store.add_feedback(Feedback(trace_id="t0", value=1.0))).status == "duplicate"


async def test_one_store_rolls_back_and_the_other_sees_it(kept, store):
    other = kept.store()
    for i in range(2):
        store.save_policy("auto", {"type": "x"}, {"n_": i}, note="n")
    assert other.active("auto").version == 2
    assert other.active("nobody") is None
    store.activate("auto", 1)
    assert other.active("auto") == next(s for s in store.versions("auto") if s.version == 1)


def test_a_lease_has_one_owner_until_it_ends(kept, store, monkeypatch):
    other = kept.store()
    assert store.lease("learner", "a", 10.0)
    assert not other.lease("learner", "b", 10.0)
    assert other.lease("another", "b", 10.0)
    assert store.lease("learner", "a", 10.0), "kept longer"
    assert not store.lease("learner", "a", 0.0), "given back"
    assert other.lease("learner", "b", 0.001)
    while not store.lease("learner", "a", 10.0):
        pass


# -------------------------------------------------------------------------------------------------------- tables of others

MONEY = """
CREATE TABLE IF NOT EXISTS money(name TEXT PRIMARY KEY, micro INTEGER NOT NULL, rate REAL, seal BLOB);
CREATE TABLE IF NOT EXISTS money_log(seq INTEGER PRIMARY KEY AUTOINCREMENT, said TEXT);
CREATE INDEX IF NOT EXISTS money_of ON money(micro);
"""


@pytest.fixture
def rich(kept):
    store = kept.make()
    kept.made.append(store)
    store.tables(MONEY)
    store.tables(MONEY)
    store.start()
    return store


def spend(name: str, micro: int):
    def work(connection):
        connection.execute("INSERT INTO money_log(said) VALUES (?)", (f"{name} 100% sure? {micro}",))
        changed = connection.execute(
            "UPDATE money SET micro = micro - ? WHERE name = ? AND micro >= ?", (micro, name, micro)
        )
        if changed.rowcount != 1:
            raise ConfigError(f"{name} has not that much")
        return connection.execute("SELECT micro FROM money WHERE name = ?", (name,)).fetchone()[0]

    return work


async def test_others_keep_tables_of_every_type(rich):
    row = ("a", 2**53 + 1, 0.1, b"\x00\xff")
    await rich.transact("a row", lambda c: c.execute("INSERT INTO money VALUES (?, ?, ?, ?)", row))
    await rich.transact(
        "another", lambda c: c.execute("INSERT INTO money VALUES (?, ?, ?, ?)", ("b?", True, None, b""))
    )
    assert rich.rows("SELECT * FROM money ORDER BY name") == [row, ("b?", 1, None, b"")]
    assert await rich.fetch("SELECT name FROM money WHERE micro > ? AND name != 'b?'", (1,)) == [("a",)]
    assert await rich.fetch("SELECT sum(micro), count(*) FROM money") == [(2**53 + 2, 2)]
    with pytest.raises(StoreError, match="cannot be read"):
        rich.rows("SELECT * FROM nowhere")
    with pytest.raises(StoreError):
        rich.rows("INSERT INTO money VALUES ('c', 1, 1, NULL)")
    with pytest.raises(StoreError, match="is started"):
        rich.tables(MONEY)


async def test_rows_of_a_table_that_is_append_only_stay(kept):
    store = kept.make()
    kept.made.append(store)
    for _ in range(2):
        store.tables("CREATE TABLE IF NOT EXISTS audit(seq INTEGER PRIMARY KEY, said TEXT)", append_only=("audit",))
        store.start()
        store.stop()
    store.start()
    await store.transact("a row", lambda c: c.execute("INSERT INTO audit VALUES (1, 'a')"))
    for statement in ("UPDATE audit SET said = 'b'", "DELETE FROM audit"):
        with pytest.raises(StoreError, match="append-only"):
            await store.transact("a change", lambda c, s=statement: c.execute(s))
    assert store.rows("SELECT * FROM audit") == [(1, "a")]


async def test_what_a_job_refuses_is_undone_alone_and_is_no_failure(rich, caplog):
    await rich.transact("money", lambda c: c.execute("INSERT INTO money VALUES ('a', 10, NULL, NULL)"))
    let_go = gate(rich)
    before = rich.commits
    futures = [rich.transact(f"spend {i}", spend("a", 4)) for i in range(5)]
    traces = [rich.append(a_trace(f"t{i}")) for i in range(3)]
    let_go.set()
    got = await asyncio.gather(*futures, *traces, return_exceptions=True)
    assert got[:2] == [6, 2]
    assert [type(e) for e in got[2:5]] == [ConfigError] * 3
    assert got[5:] == [None] * 3
    assert len(rich.rows("SELECT * FROM money_log")) == 2
    assert (rich.failures, rich.commits) == (0, before + 2), "all of them in one transaction behind the gate's"
    assert not caplog.records
    assert rich.verify() == 3


async def test_a_job_that_breaks_is_a_failure_of_its_own(rich, caplog):
    def broken(connection):
        connection.execute("INSERT INTO money VALUES ('x', 1, NULL, NULL)")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    let_go = gate(rich)
    futures = [rich.transact("broken", broken), rich.append(a_trace("t0")), rich.transact("wrong", lambda c: 1 / 0)]
    let_go.set()
    got = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(e) for e in got] == [StoreError, type(None), StoreError]
    assert "broken was not written" in str(got[0])
    assert rich.rows("SELECT * FROM money") == []
    assert (rich.failures, rich.verify()) == (2, 1)


async def test_a_trace_and_what_belongs_to_it_are_written_together(rich):
    settle = Sum("INSERT INTO money VALUES (?, ?, NULL, NULL)", ("t0",), 5)
    await rich.append(a_trace("t0"), [settle])
    with pytest.raises(StoreError, match="t0 is there already"):
        await rich.append(a_trace("t0"), [Sum("UPDATE money SET micro = ?", (), 7)])
    with pytest.raises(StoreError, match="trace t1 was not written"):
        await rich.append(a_trace("t1"), [settle])
    assert rich.rows("SELECT name, micro FROM money") == [("t0", 5)]
    assert rich.count() == rich.verify() == 1


async def test_two_stores_never_spend_more_than_there_is(kept, rich):
    other = kept.store()
    await rich.transact("money", lambda c: c.execute("INSERT INTO money VALUES ('a', 100, NULL, NULL)"))
    jobs = [s.transact("spend", spend("a", 1)) for _ in range(100) for s in (rich, other)]
    got = await asyncio.gather(*jobs, return_exceptions=True)
    assert sorted(g for g in got if isinstance(g, int)) == list(range(100))
    assert rich.rows("SELECT micro FROM money") == [(0,)]


async def test_text_that_no_database_takes_is_no_failure(store):
    await store.append(a_trace("t0"))
    assert await store.get("t\0") is None
    assert store.like("\0") == []
    assert (await store.add_feedback(Feedback(trace_id="t0\0", value=1.0))).status == "unknown"
    assert (await store.add_feedback(Feedback(trace_id="t0", value=1.0, source="a\0b"))).status == "accepted"
    assert (await store.add_feedback(Feedback(trace_id="t0", value=1.0, source="a\0b"))).status == "duplicate"
    assert [f.source for f in store.feedback("t0")] == ["a\ufffdb"]
    assert (store.failures, store.verify()) == (0, 1)
