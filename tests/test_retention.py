"""Retention: the oldest go, from both chains, and the rest still proves itself; leases, housekeeping and the export."""
# ruff: noqa: F811 - fixtures come from a module of support

import asyncio
import json
import math
import sqlite3
import time

import msgspec
import pyarrow.parquet as pq
import pytest
from stores import a_trace, kept, store  # noqa: F401 - fixtures

from fairlead import cli
from fairlead.errors import ChainBroken
from fairlead.sqlite import SQLiteStore
from fairlead.store import Forgotten
from fairlead.table import OutcomeTable
from fairlead.types import Failure, Feedback, Outcome, Tokens

DAY = 86400.0


async def days(store, n: int, start: int = 0) -> None:
    """Append one trace a day, judged half a day later."""
    for i in range(start, start + n):
        await store.append(a_trace(f"t{i}", at=DAY * i))
        await store.add_feedback(Feedback(trace_id=f"t{i}", value=0.5, at=DAY * (i + 0.5)))


async def test_the_oldest_are_forgotten_and_the_rest_proves_itself(store, monkeypatch):
    monkeypatch.setattr("fairlead.sqlstore.FORGET", 3)
    await days(store, 20)
    head = store.head()
    assert store.forget(before=0.0) == Forgotten(traces=0, feedback=0)
    assert store.forget(before=8 * DAY) == Forgotten(traces=8, feedback=8)
    assert [t.id for t in store.traces()] == [f"t{i}" for i in range(8, 20)]
    assert store.verify() == store.count() == 12
    assert {name: c.seq for name, c in store.checkpoints().items()} == {"traces": 8, "feedback": 8}
    assert store.head() == head
    assert [t.id for t, _ in store.unlearned("auto")] == [f"t{i}" for i in range(8, 20)]
    assert await store.get("t3") is None
    assert (await store.add_feedback(Feedback(trace_id="t3", value=0.5))).status == "unknown"
    await days(store, 2, start=20)
    assert store.forget(before=100 * DAY, keep=5) == Forgotten(traces=9, feedback=14)
    assert [t.id for t in store.traces()] == [f"t{i}" for i in range(17, 22)]
    assert store.verify() == store.count() == 5
    assert store.forget(before=100 * DAY) == Forgotten(traces=5, feedback=0)
    assert store.verify() == store.count() == 0
    store.stop()
    store.start()
    await days(store, 1, start=30)
    assert store.verify() == store.count() == 1


async def test_a_clock_that_was_wrong_neither_stops_nor_widens_it(store):
    later = time.time() + 400 * DAY
    for id, at in (("a", DAY), ("wrong", later), ("b", 2 * DAY), ("c", 50 * DAY), ("back", 0.0), ("d", 51 * DAY)):
        await store.append(a_trace(id, at=at))
    assert store.forget(before=10 * DAY).traces == 3
    assert [t.id for t in store.traces()] == ["c", "back", "d"]
    assert store.verify() == 3


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("UPDATE checkpoints SET seq = 6 WHERE chain = 'traces'", "checkpoint of the traces, up to row 6, was changed"),
        ("UPDATE checkpoints SET hash = x'00ff' WHERE chain = 'feedback'", "checkpoint of the feedback"),
        ("DELETE FROM checkpoints", "trace 1 to 5 missing"),
        ("DELETE FROM traces WHERE seq = 6", "trace 6 missing"),
        (
            "INSERT INTO traces SELECT 2, 'new', at, seconds, route, target, body, prev, hash FROM traces WHERE seq = 7",
            r"trace 2 \(new\) is there, but everything up to row 5 was forgotten",
        ),
    ],
)
async def test_a_checkpoint_covers_nothing_else(kept, store, tamper, message):
    await days(store, 10)
    store.forget(before=5 * DAY)
    store.stop()
    assert store.verify() == 5
    kept.raw(tamper)
    with pytest.raises(ChainBroken, match=message):
        store.verify()


async def test_only_what_a_checkpoint_covers_can_be_deleted(tmp_path):
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    await days(store, 4)
    store.forget(before=2 * DAY)
    store.stop()
    connection = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("DELETE FROM traces WHERE seq = 3")
    connection.close()


async def test_no_byte_of_what_was_forgotten_stays_in_the_file(tmp_path):
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    for i in range(50):
        await store.append(a_trace(f"t{i}", text=f"PURPLE ELEPHANT {i} " * 300, at=DAY * i))
        await store.add_feedback(
            Feedback(trace_id=f"t{i}", value=0.0, kind="correction", correction=f"RED RHINO {i} " * 9, at=DAY * i + 1)
        )
    store.stop()
    assert b"ELEPHANT 3 " in store.path.read_bytes()
    store.start()
    store.forget(before=40 * DAY)
    store.stop()
    left = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    for i in range(50):
        for words in (f"ELEPHANT {i} ", f"RHINO {i} "):
            assert (words.encode() in left) == (i >= 40), words
    assert store.verify() == 10


async def test_policies_that_only_forgotten_traces_named_are_pruned(store, monkeypatch):
    monkeypatch.setattr("fairlead.sqlstore.GRACE_SECONDS", -1.0)
    monkeypatch.setattr("fairlead.sqlstore.KEEP", 1)
    digests = [store.save_policy("auto", {"type": "x"}, {"n_": i}, note="n").digest for i in range(4)]
    for i, name in enumerate([digests[0], digests[1], digests[1]]):
        trace = a_trace(f"t{i}", at=DAY * i)
        await store.append(
            msgspec.structs.replace(trace, decision=msgspec.structs.replace(trace.decision, policy_digest=name))
        )
    store.prune("auto", keep=1, grace_seconds=-1.0)
    assert [s.pruned for s in store.versions("auto")] == [False, False, True, False]
    store.forget(before=2 * DAY)
    store.prune("auto", keep=1, grace_seconds=-1.0)
    assert [s.pruned for s in store.versions("auto")] == [True, False, True, False]
    assert store.verify() == 1


async def test_housekeeping_is_done_by_one_process(kept, monkeypatch):
    monkeypatch.setattr("fairlead.sqlstore.HOUSEKEEPING_SECONDS", 0.02)
    first = kept.store()
    await days(first, 3)
    await first.append(a_trace("new", at=time.time()))
    done = []
    stores = [kept.make(retention_days=30.0) for _ in range(2)]
    for each in stores:
        kept.made.append(each)
        monkeypatch.setattr(each, "forget", lambda *, before, of=each: done.append(of))
    assert first.lease("housekeeping", "somebody else", 1000.0)
    for each in stores:
        each.start()
    await asyncio.sleep(0.2)
    assert done == []
    first.lease("housekeeping", "somebody else", 0.0)
    async with asyncio.timeout(10):
        while not done:
            await asyncio.sleep(0.01)


# -------------------------------------------------------------------------------------------------------- on the command line


@pytest.fixture
async def config(kept, store, tmp_path):
    """A config beside its store, with 3 old traces and 2 new ones."""
    await days(store, 3)
    now = time.time()
    outcome = Outcome(text="four", target="a", usd=0.25, seconds=1.5, joules=3.0, tokens=Tokens(input=7, output=2))
    new = a_trace("new", at=now, text="2 + 2?")
    step = msgspec.structs.replace(new.steps[0], outcome=outcome)
    await store.append(msgspec.structs.replace(new, outcome=outcome, steps=(step,), text_kept=True))
    failed = msgspec.structs.replace(outcome, text="", error=Failure(kind="malformed"))
    step = msgspec.structs.replace(step, outcome=failed)
    bad = msgspec.structs.replace(a_trace("bad", at=now), outcome=failed, steps=(step,), text_kept=False)
    await store.append(bad)
    refused = msgspec.structs.replace(a_trace("refused", at=now), outcome=Outcome(), steps=())
    await store.append(refused)
    await store.add_feedback(Feedback(trace_id="new", value=0.2, at=now))
    await store.add_feedback(Feedback(trace_id="new", value=0.9, at=now))
    said = f"path: {kept.path}" if kept.kind == "sqlite" else f"url: '{kept.url}'"
    file = tmp_path / "fairlead.yaml"
    file.write_text(f"targets: {{}}\nroutes: {{}}\nstore: {{{said}, retention_days: 30}}\n")
    return str(file)


def run(capsys, *words: str) -> str:
    assert cli.main(["store", *words]) == 0
    return capsys.readouterr().out


async def test_store_on_the_command_line(config, capsys, tmp_path, monkeypatch):
    assert "6 traces, 5 judgements, 1970-01-01" in run(capsys, "info", config)
    assert json.loads(run(capsys, "info", "--json", config))["traces"] == 6
    assert run(capsys, "verify", config).startswith("ok  6 traces, head ")

    out = tmp_path / "out.parquet"
    assert run(capsys, "export", config, str(out)) == f"5 rows in {out}\n"
    table = OutcomeTable.read(out)
    new, bad = table.query_ids.index("new"), table.query_ids.index("bad")
    assert table.models == ["a"]
    assert (table.prompts[new], table.prompts[bad]) == ("2 + 2?", None)
    assert table.quality_QM[new, 0] == 0.9
    assert math.isnan(table.quality_QM[bad, 0]), "nobody judged the failure"
    errors = {row["query_id"]: row["error"] for row in pq.read_table(out).to_pylist()}
    assert (errors["new"], errors["bad"]) == (None, "malformed")
    assert (table.usd_QM[new, 0], table.seconds_QM[new, 0], table.joules_QM[new, 0]) == (0.25, 1.5, 3.0)
    assert (table.input_tokens_QM[new, 0], table.output_tokens_QM[new, 0]) == (7, 2)
    assert table.responses_QMS[new, 0, 0] == "four"
    assert table.extra("propensity")[new, 0, 0] == 1.0
    assert run(capsys, "export", "--days", "2", config, str(out)).startswith("2 rows")

    said = run(capsys, "prune", config)
    assert said == "forgot 3 traces and 3 judgements; 3 traces are left\n"
    told = run(capsys, "verify", config)
    assert "ok  3 traces" in told
    assert "traces: from row 4 on; those before were forgotten by" in told
    assert "forgotten: 3 rows of traces" in run(capsys, "info", config)


def test_what_is_not_there_is_not_made(tmp_path, capsys):
    missing = tmp_path / "no.sqlite"
    for words in (("info",), ("verify",), ("prune", "--days", "1")):
        assert cli.main(["store", *words, str(missing)]) == 1
        assert "there is no store at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["store", "info", str(tmp_path / "no.yaml")]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_prune_wants_to_know_how_old(tmp_path, capsys):
    store = SQLiteStore(tmp_path / "s.sqlite")
    store.start()
    store.stop()
    assert cli.main(["store", "prune", str(store.path)]) == 1
    assert "--days" in capsys.readouterr().err
    assert cli.main(["store", "export", str(store.path), str(tmp_path / "x.xlsx")]) == 1
    assert ".parquet" in capsys.readouterr().err
