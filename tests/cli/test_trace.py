"""The verbs `trace` and `state` print what is there, and their exit code says whether it is whole."""

import argparse
import asyncio
import json
import sqlite3
from contextlib import closing

import msgspec
import pytest

from fairlead.cli import state, trace
from fairlead.errors import StoreError
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.random import Random
from fairlead.pool import Pool
from fairlead.sqlite import SQLiteStore
from fairlead.store import STRAIGHT
from fairlead.types import (
    Call,
    Failure,
    Feedback,
    Forecast,
    Option,
    Outcome,
    Query,
    Reading,
    Signals,
    Step,
    Target,
    Tokens,
    Trace,
)


@pytest.fixture
def path(tmp_path):
    """A store with three traces, one feedback and two versions, closed."""
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    pool, policy = Pool(targets=(Target(name="a"), Target(name="b"))), Random()
    store.save_pool(pool.digest, pool.targets)
    kept = store.save_policy("auto", policy.spec(), policy.state(), note="as configured")
    store.save_policy("auto", Random(weights={"a": 1.0}).spec(), {}, note="learned from 3 answers")

    async def fill():
        for i in range(3):
            query = Query.ask("what is two and two?", id=f"chatcmpl-{i}")
            signals = Signals(
                readings={"length": Reading(value=20), "kind": Reading(parts={"math": 0.9}, confidence=0.5)}
            )
            decision = policy.decide(query, signals, pool)
            decision = msgspec.structs.replace(decision, policy_digest=kept.digest, version=1)
            target = decision.plan.target
            outcome = Outcome(text="four", target="a", finish="stop", tokens=Tokens(input=9, output=1), usd=0.001)
            steps = (Step(path=(0, 0, 0, 0), call=Call(target=target), outcome=outcome),)
            plan = Fallback(plans=(decision.plan,))
            await store.append(
                Trace(
                    id=query.id,
                    at=1e9 + i,
                    query=query,
                    signals=signals,
                    decision=decision,
                    plan=plan,
                    steps=steps,
                    outcome=outcome,
                    usd=0.001,
                )
            )
        await store.add_feedback(Feedback(trace_id="chatcmpl-1", value=0.75, at=1e9 + 61, correction="4"))

    asyncio.run(fill())
    store.stop()
    return store.path


def call(*words: str, store) -> int:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers()
    trace.add_parser(verbs)
    state.add_parser(verbs)
    args = parser.parse_args([*words, "--store", str(store)])
    return args.func(args)


def test_verify_prints_count_and_head_and_finds_tampering(path, capsys):
    assert call("trace", "verify", store=path) == 0
    out = capsys.readouterr().out
    head = out.split()[-1]
    assert out == f"ok  3 traces, 1 judgement, head {head}\n"
    assert call("trace", "verify", "--head", head, store=path) == 0
    assert call("trace", "verify", "--head", "00" * 32, store=path) == 1
    capsys.readouterr()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER traces_stay")
        connection.execute(
            "UPDATE traces SET body = CAST(replace(CAST(body AS TEXT), 'four', 'five') AS BLOB) WHERE seq = 2"
        )
    assert call("trace", "verify", store=path) == 1
    assert "BROKEN  trace 2 (chatcmpl-1) was changed" in capsys.readouterr().out


def test_the_store_is_that_of_the_config_here(path, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    trace.add_parser(parser.add_subparsers())
    (path.parent / "fairlead.yaml").write_text("store: {path: s.db}")
    monkeypatch.chdir(path.parent)
    monkeypatch.delenv("FAIRLEAD_STORE", raising=False)
    for words in ([], ["--store", "fairlead.yaml"]):
        args = parser.parse_args(["trace", "list", *words])
        assert args.func(args) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
    monkeypatch.setenv("FAIRLEAD_STORE", "nowhere.db")
    args = parser.parse_args(["trace", "list"])
    with pytest.raises(StoreError, match=r"nowhere\.db"):
        args.func(args)


def test_list_is_newest_first(path, capsys):
    assert call("trace", "list", "-n", "2", store=path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["atcmpl-2", "atcmpl-1"]
    assert "2001-09-09 01:46:41 UTC  auto -> a  ok" in lines[1]


def test_show_tells_the_story(path, capsys):
    assert call("trace", "show", "chatcmpl-1", store=path) == 0
    out = capsys.readouterr().out
    for piece in (
        "user: what is two and two?",
        "length: 20",
        "kind: math 0.9 (confidence 0.50)",
        "0.5000  single ",
        "propensity 0.5",
        "because random",
        "ran       fallback",
        "0.0.0.0",
        "9 tokens in, 1 out",
        "four",
        "user (value): 0.75, confidence 1, correction '4', 60.0 s after the answer",
    ):
        assert piece in out, piece


def test_show_as_json_can_be_read(path, capsys):
    assert call("trace", "show", "chatcmpl-1", "--json", store=path) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["trace"]["id"] == "chatcmpl-1"
    assert data["feedback"][0]["value"] == 0.75


def test_any_part_of_an_id_will_do_if_it_is_the_only_one(path, capsys):
    for part in ("atcmpl-2", "pl-2", "chatcmpl-2", "-2"):
        assert call("trace", "show", part, store=path) == 0
        assert "trace     chatcmpl-2\n" in capsys.readouterr().out
    with pytest.raises(StoreError, match="several traces have 'cmpl' in their id"):
        call("trace", "show", "cmpl", store=path)
    with pytest.raises(StoreError, match="fairlead trace list"):
        call("trace", "show", "nobody", store=path)


def test_forecasts_are_shown():
    option = Option(plan=Single(target="a"), probability=1.0, forecast=Forecast(quality=0.5, quality_sd=0.1, usd=0.002))
    assert trace._forecast(option.forecast, "quality") == "  expects quality 0.500 ± 0.100, 0.002000 USD"
    assert trace._forecast(option.forecast, "utility") == "  expects utility 0.500 ± 0.100, 0.002000 USD"


@pytest.fixture
def refused(path):
    """The same store, with one more query, which nobody might answer."""
    store = SQLiteStore(path)
    store.start()

    async def fill():
        known = store.read("chatcmpl-0")
        decision = msgspec.structs.replace(
            known.decision,
            options=(),
            chosen=0,
            propensity=0.0,
            reasons=(),
            eligible=(),
            excluded={"a": "resting", "b": "too dear"},
        )
        outcome = Outcome(error=Failure(kind="no_target", message="nobody"))
        trace = msgspec.structs.replace(
            known, id="chatcmpl-9", decision=decision, plan=None, steps=(), outcome=outcome, usd=0.0
        )
        await store.append(trace)

    asyncio.run(fill())
    store.stop()
    return path


def test_a_refusal_is_listed_shown_and_replayed(refused, capsys):
    assert call("trace", "list", "-n", "1", store=refused) == 0
    assert "auto -> -  no_target" in capsys.readouterr().out
    assert call("trace", "show", "chatcmpl-9", store=refused) == 0
    out = capsys.readouterr().out
    assert "refused: nobody may answer" in out
    assert "not a: resting" in out
    assert "failed (no_target: nobody)" in out
    assert call("trace", "replay", "chatcmpl-9", store=refused) == 0
    assert capsys.readouterr().out == "same  chatcmpl-9: nobody may answer\n"


def test_replay_says_same_or_what_differs(path, capsys):
    assert call("trace", "replay", "chatcmpl-1", store=path) == 0
    assert capsys.readouterr().out.startswith("same  chatcmpl-1: 2 options, propensity 0.5, single ")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER traces_stay")
        changed = "replace(CAST(body AS TEXT), '\"propensity\":0.5', '\"propensity\":0.9')"
        connection.execute(f"UPDATE traces SET body = CAST({changed} AS BLOB) WHERE seq = 2")
    assert call("trace", "replay", "chatcmpl-1", store=path) == 1
    assert capsys.readouterr().out == "DIFFERENT  propensity: 0.5, recorded 0.9\n"


def test_versions_and_rollback(path, capsys):
    assert call("state", "versions", store=path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines] == ["  auto 1", "* auto 2"]
    assert call("state", "rollback", "auto", store=path) == 0
    assert "serves version 1" in capsys.readouterr().out
    call("state", "versions", "auto", store=path)
    assert capsys.readouterr().out.startswith("* auto 1")
    assert call("state", "rollback", "auto", "--to", "2", store=path) == 0
    assert call("state", "rollback", "auto", "--to", "1", store=path) == 0
    with pytest.raises(StoreError, match=r"where the present config began.*--to"):
        call("state", "rollback", "auto", store=path)
    with pytest.raises(StoreError, match="has no version 9"):
        call("state", "rollback", "auto", "--to", "9", store=path)
    with pytest.raises(StoreError, match="routes with versions: auto"):
        call("state", "versions", "nobody", store=path)


def test_targets_asked_straight_are_listed_by_name_only(path, capsys):
    store = SQLiteStore(path)
    store.start()
    store.save_policy("a", {"type": "fixed"}, {}, note=STRAIGHT)
    store.stop()
    assert call("state", "versions", store=path) == 0
    assert [line[2:8] for line in capsys.readouterr().out.splitlines()] == ["auto 1", "auto 2"]
    assert call("state", "versions", "a", store=path) == 0
    assert capsys.readouterr().out.startswith("* a 1")


def test_rollback_walks_past_what_was_pruned_and_stops_where_the_config_began(path, capsys):
    store = SQLiteStore(path)
    store.start()
    for i in range(2):
        store.save_policy("auto", {"type": "x"}, {"n_": i}, note="learned")
    store.prune("auto", keep=1, grace_seconds=0)
    store.save_policy("auto", {"type": "y"}, {}, note="as configured, signals z")
    store.save_policy("auto", {"type": "y"}, {"n_": 1}, note="learned")
    store.prune("auto", keep=1, grace_seconds=0)
    store.stop()
    capsys.readouterr()
    call("state", "versions", store=path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("(pruned)") for line in lines] == [False, True, True, True, False, False]
    assert call("state", "rollback", "auto", store=path) == 0
    assert "serves version 5" in capsys.readouterr().out
    with pytest.raises(StoreError, match="where the present config began"):
        call("state", "rollback", "auto", store=path)
    with pytest.raises(StoreError, match=r"version 2 .*was pruned"):
        call("state", "rollback", "auto", "--to", "2", store=path)
    assert call("trace", "verify", store=path) == 0


def test_a_missing_store_is_not_made(tmp_path):
    for words in (("trace", "list"), ("state", "rollback", "auto")):
        with pytest.raises(StoreError, match="there is no store at"):
            call(*words, store=tmp_path / "no.db")
    assert list(tmp_path.iterdir()) == []


def test_rollback_works_while_a_gateway_writes(path):
    gateway = SQLiteStore(path)
    gateway.start()
    before = gateway.active("auto")
    assert call("state", "rollback", "auto", store=path) == 0
    assert gateway.active("auto").version < before.version
    assert call("trace", "verify", store=path) == 0
    gateway.stop()
