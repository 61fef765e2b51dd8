"""The search among decisions: every filter, pages, tenants, what is not kept, and how far it looks; in either database."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateways import config, serving, where  # noqa: F401 - a fixture
from stores import a_trace

from fairlead.gateway import search as searching
from fairlead.gateway.door import hashed
from fairlead.gateway.search import Sought, search
from fairlead.sqlite import SQLiteStore
from fairlead.types import Act, Failure, Feedback, Identity, Message, Outcome, Query, Trace

replace = msgspec.structs.replace


def made(i: int) -> Trace:
    t = a_trace(f"t{i}", text=f"question {i} of Käthe", answer=f"answer {i}", at=100.0 + i)
    identity = Identity(tenant="red" if i % 2 else "blue", key=f"key{i % 3}")
    decision = replace(
        t.decision,
        policy="rules",
        rule="long" if i % 4 == 0 else "",
        guards=("private",) if i % 5 == 0 else (),
    )
    t = replace(t, query=replace(t.query, identity=identity, route="auto" if i % 3 else "other"), decision=decision)
    if i % 7 == 0:
        t = replace(
            t,
            outcome=Outcome(target="a", error=Failure(kind="timeout", message="slow")),
            acts=(Act(name="mask", did="masked"),),
        )
    return t


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = SQLiteStore(tmp_path / "s.sqlite")
    store.start()
    for i in range(100):
        store.append(made(i))
    for i in range(0, 100, 10):
        await store.add_feedback(Feedback(trace_id=f"t{i}", value=float(i >= 50)))
    store.flush()
    yield store
    store.stop()


def ids(found: searching.Found) -> set[int]:
    return {int(row.id[1:]) for row in found.data}


async def test_each_filter(store: SQLiteStore) -> None:
    """Each finds exactly the traces that fit, and two together those that fit both."""
    every = range(100)
    fits = {
        "route": ("other", lambda i: i % 3 == 0),
        "target": ("a", lambda i: True),
        "tenant": ("red", lambda i: i % 2 == 1),
        "key": ("key2", lambda i: i % 3 == 2),
        "rule": ("long", lambda i: i % 4 == 0),
        "guard": ("private", lambda i: i % 5 == 0),
        "action": ("mask", lambda i: i % 7 == 0),
        "judged": ("yes", lambda i: i % 10 == 0),
    }
    for field, (value, is_it) in fits.items():
        found = search(store, Sought(**{field: value}), limit=200)
        assert ids(found) == {i for i in every if is_it(i)}, field
        assert found.older is None
        assert ids(search(store, Sought(**{field: value, "error": "timeout"}), limit=200)) == {
            i for i in every if is_it(i) and i % 7 == 0
        }
    for error, is_it in (
        ("any", lambda i: i % 7 == 0),
        ("none", lambda i: i % 7),
        ("timeout", lambda i: i % 7 == 0),
        ("auth", lambda i: False),
    ):
        assert ids(search(store, Sought(error=error), limit=200)) == {i for i in every if is_it(i)}
    assert ids(search(store, Sought(judged="good"), limit=200)) == {50, 60, 70, 80, 90}
    assert ids(search(store, Sought(judged="bad"), limit=200)) == {0, 10, 20, 30, 40}
    assert len(search(store, Sought(judged="no"), limit=200).data) == 90
    for word in ("KÄTHE", "käthe"):
        assert len(search(store, Sought(word=word), limit=200).data) == 100
    assert ids(search(store, Sought(word="Question 42 "), limit=200)) == {42}
    assert ids(search(store, Sought(word="answer 17"), limit=200)) == {17}
    assert ids(search(store, Sought(word="t99"), limit=200)) == {99}
    assert ids(search(store, Sought(word="masked"), limit=200)) == ids(search(store, Sought(action="mask"), limit=200))
    assert search(store, Sought(target="b"), limit=200).data == []
    assert search(store, Sought(route="a\0b"), limit=200).data == []


async def test_pages_hold_all_once(store: SQLiteStore) -> None:
    seen: list[str] = []
    before = None
    for _ in range(20):
        found = search(store, Sought(tenant="red"), limit=7, before=before)
        seen += [row.id for row in found.data]
        before = found.older
        if before is None:
            break
    assert seen == [f"t{i}" for i in range(99, 0, -2)]


async def test_a_search_ends(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at no more than it may, says how many that were, and goes on where it is told to."""
    monkeypatch.setattr(searching, "MOST", 64)
    found = search(store, Sought(word="question 3 "), limit=5)
    assert (found.data, found.searched, found.older is None) == ([], 64, False)
    found = search(store, Sought(word="question 3 "), limit=5, before=found.older)
    assert (ids(found), found.searched) == ({3}, 36)
    monkeypatch.setattr(searching, "MOST", 20_000)
    monkeypatch.setattr(searching, "SECONDS", 0.0)
    assert search(store, Sought(word="question 3 "), limit=5).searched == 64


async def test_what_was_not_kept_is_not_shown_nor_searched(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.sqlite", text=False)
    store.start()
    store.append(a_trace("one", text="a secret"))
    store.flush()
    (row,) = search(store, Sought(), limit=5).data
    assert row.prompt is None
    assert search(store, Sought(word="secret"), limit=5).data == []
    store.stop()


async def test_large_traces_are_not_read(tmp_path: Path) -> None:
    """One of a megabyte is listed without its text, and found by its columns alone."""
    store = SQLiteStore(tmp_path / "s.sqlite")
    store.start()
    store.append(a_trace("large", text="needle " + "x" * 1_000_000))
    parts = Query(
        id="p", route="auto", messages=(Message(role="system", content="be brief"), Message(role="user", content=None))
    )
    store.append(replace(a_trace("small"), query=parts))
    store.flush()
    small, large = search(store, Sought(), limit=5).data
    assert (large.id, large.target, large.prompt) == ("large", "a", None)
    assert small.prompt == ""
    assert [r.id for r in search(store, Sought(word="LARGE"), limit=5).data] == ["large"]
    assert search(store, Sought(word="needle"), limit=5).data == []
    assert search(store, Sought(tenant="red"), limit=5).data == []
    store.stop()


async def test_over_http(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """A tenant's key finds its own decisions alone, whatever it asks for; what is no filter is refused with those that are."""
    red, ops = "fl-red-key-of-the-search", "fl-ops-key-of-the-search"
    keys = {"red": {"hash": hashed(red), "tenant": "red"}, "ops": hashed(ops)}
    async with serving(config(tmp_path, store=where, keys=keys)) as client:
        for key in (red, ops, ops):
            assert (await client.ask(key))[0] == 200
        await client.ask(ops, model="dear")

        async def find(query: str, key: str = ops) -> tuple[int, Any]:
            status, body, _ = await client.ask(key, f"/v1/decisions{query}", "GET")
            return status, body

        status, found = await find("")
        assert (status, len(found["data"]), found["searched"], found["older"]) == (200, 4, 4, None)
        assert found["data"][0]["route"] == "dear"
        assert found["data"][0]["prompt"] == "what is 2+2?"
        assert len((await find("?route=auto&target=cheap&word=2%2B2"))[1]["data"]) == 3
        assert len((await find("?tenant=red"))[1]["data"]) == 1
        for query in ("", "?tenant=", "?tenant=blue", "?key=ops", "?word=2"):
            mine = (await find(query, red))[1]["data"]
            assert {row["tenant"] for row in mine} <= {"red"}, query
            assert len(mine) == (query != "?key=ops")
        for query in (
            "?limit=0",
            "?limit=201",
            "?before=x",
            "?before=0",
            "?colour=red",
            "?judged=perhaps",
            "?word=" + "x" * 201,
        ):
            status, body = await find(query)
            assert status == 400, query
            assert body["error"]["message"]
        assert "word, route" in (await find("?colour=red"))[1]["error"]["message"]
        assert (await client.ask(None, "/v1/decisions", "GET"))[0] == 401
