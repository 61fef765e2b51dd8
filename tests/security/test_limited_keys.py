"""A key that is limited to some routes and targets: everything that it can get is searched for the names of the others."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateways import ASK, PRICES, Client, serving

from fairlead.config import Config, make
from fairlead.errors import FairleadError, NoEligibleTarget
from fairlead.gateway.door import hashed
from fairlead.gateway.keys import Caller
from fairlead.gateway.sight import Sight
from fairlead.types import Constraints

ALL, BOTH, BY_ROUTE, BY_TARGET = "fl-all", "fl-both", "fl-by-route", "fl-by-target"
INSIDE = {"routes": ["auto", "ruled", "low", "stale", "quick"], "targets": ["quick", "slow", "stale"]}
OUTSIDE = re.compile("yak|zebra", re.IGNORECASE)
"""Targets that are outside, and routes."""
TEXT = "a question of the reds"


def config(tmp_path: Path) -> Config:
    small = PRICES | {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    dear = PRICES | {"input_usd_per_mtok": 900.0, "output_usd_per_mtok": 900.0}
    down = {"type": "scripted", "replies": [{"error": {"kind": "unavailable", "message": "down"}}]}
    answer = {"type": "scripted", "replies": ["four"], "profile": small}
    rules = {
        "type": "rules",
        "rules": [{"name": "best", "when": {"length.tokens": {"gt": 0}}, "use": "yak-best"}],
        "default": "quick",
    }
    return make(
        {
            "targets": {
                "quick": answer,
                "slow": answer,
                "stale": down,
                "yak-best": {**answer, "profile": dear},
                "yak-down": down,
                "yak-vectors": {"type": "embedder"},
            },
            "routes": {
                "auto": {"policy": {"type": "thompson"}},
                "ruled": {"policy": rules},
                "low": {
                    "policy": {"type": "fixed", "plan": {"kind": "fallback", "plans": ["yak-down", "yak-best", "slow"]}}
                },
                "zebra": {"policy": {"type": "fixed", "plan": "yak-best"}},
            },
            "guards": [{"name": "only-them", "when": {"length.tokens": {"gt": 1000}}, "only": ["yak-best"]}],
            "breaker": {"failures": 1, "rest_seconds": 300.0},
            "store": {"path": str(tmp_path / "s.sqlite")},
            "gateway": {
                "port": 0,
                "keys": {
                    "all": {"hash": hashed(ALL), "tenant": "red"},
                    "both": {"hash": hashed(BOTH), "tenant": "red", **INSIDE},
                    "by-route": {"hash": hashed(BY_ROUTE), "routes": INSIDE["routes"]},
                    "by-target": {"hash": hashed(BY_TARGET), "targets": INSIDE["targets"]},
                },
            },
        }
    )


MESSAGES = [{"role": "user", "content": TEXT}]
FACES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/responses": {"input": TEXT},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/v1/completions": {"prompt": TEXT},
    "/v1/embeddings": {"input": TEXT},
    "/v1/route": {"messages": MESSAGES},
}
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"stream": True},
    {"stream": "no"},
    {"fairlead": {"max_usd": 1e-9}},
    {"fairlead": {"regions": ["mars"]}},
    {"fairlead": {"allow": ["slow", "NAME"]}},
    {"fairlead": {"allow": []}},
    {"fairlead": {"prefer": {"yes": 1}}},
    {"messages": [{"role": "user", "content": "long " * 2000}]},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
)
LISTS = (
    *("/metrics", "/v1/stats", "/v1/models", "/v1/traces", "/v1/traces?limit=1000", "/v1/decisions", "/v1/batches"),
    *(
        "/v1/decisions?word=yak",
        "/v1/decisions?target=yak-best",
        "/v1/decisions?route=zebra",
        "/v1/decisions?error=any",
    ),
    *("/v1/files", "/readyz", "/healthz", "/openapi.json", "/", "/nowhere", "/v1/models/zebra", "/v1/models/nope"),
)


async def everything(client: Client, key: str | None) -> list[tuple[str, str]]:
    """Ask for all that there is; return (what was asked, everything that came, but the names that were asked with)."""
    found: list[tuple[str, str]] = []

    async def ask(path: str, method: str = "GET", **more: Any) -> Any:
        asked = f"{method} {path} {more}"
        if path == "/v1/chat/completions":
            status, body, headers = await client.ask(key, path, method, **more.pop("json"), **more)
        else:
            status, body, headers = await client.ask(key, path, method, **more)
        found.append((asked, f"{status} {body} {dict(headers)}"))
        return body

    for path in LISTS:
        body = await ask(path)
        await ask(path, headers={"anthropic-version": "2023-06-01"})
        for item in body.get("data", ()) if isinstance(body, dict) else ():
            if "/v1/traces" in path or "/v1/decisions" in path:
                await ask(f"/v1/traces/{item['id']}")
    ids = await asyncio.to_thread(lambda: [t.id for t in client.gateway.router.store.traces()])
    for id in ids:
        await ask(f"/v1/traces/{id}")
        await ask(f"/v1/responses/{id.replace('chatcmpl-', 'resp_')}")
        await ask(f"/v1/responses/{id.replace('chatcmpl-', 'resp_')}/input_items")
        await ask("/v1/feedback", "POST", json={"id": id, "value": 0.5, "source": str(key)})
    for path, body in FACES.items():
        for model in ("auto", "ruled", "low", "stale", "quick", "zebra", "yak-best", "nope", ""):
            for way in WAYS:
                if "messages" in way and "messages" not in body:
                    continue
                sent = {"model": model, **body, **way}
                if way.get("fairlead", {}).get("allow"):
                    sent["fairlead"] = {"allow": ["slow", "nope"]}
                await ask(path, "POST", json=sent)
        for header in ("x-fairlead-allow", "x-fairlead-prefer", "x-fairlead-nope", "x-fairlead-roles"):
            await ask(path, "POST", json={"model": "auto", **body}, headers={header: "nope"})
    return found


@pytest.fixture
async def client(tmp_path: Path) -> Any:
    """A gateway that has answered, refused and failed for a key without limits, of the same tenant."""
    async with serving(config(tmp_path)) as client:
        for path, body in FACES.items():
            for model in ("auto", "ruled", "low", "zebra", "yak-best", "yak-down", "yak-vectors", "stale", "quick"):
                sent = {"model": model, **body}
                if path == "/v1/chat/completions":
                    await client.ask(ALL, path, **sent)
                else:
                    await client.ask(ALL, path, json=sent)
        await client.ask(ALL, "/v1/route", json={**ASK, "fairlead": {"allow": ["yak-best"]}})
        yield client


def outside(found: list[tuple[str, str]], pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """What names somebody outside, where the request did not."""
    out = []
    for asked, came in found:
        for name in ("yak-best", "yak", "zebra"):
            if re.search(rf"\b{name}\b", asked):
                came = re.sub(rf"\b{name}\b", "", came)
        if hit := pattern.search(came):
            out.append((asked, came[max(0, hit.start() - 150) : hit.end() + 50]))
    return out


@pytest.mark.parametrize("key", [BOTH, BY_TARGET, BY_ROUTE])
async def test_nothing_that_a_limited_key_gets_names_what_is_outside(client: Client, key: str) -> None:
    """Every endpoint, every face, every error, headers and bodies; asked twice, as its own requests are in the lists by then."""
    pattern = {BOTH: OUTSIDE, BY_TARGET: re.compile("yak"), BY_ROUTE: re.compile("zebra")}[key]
    for _ in range(2):
        found = await everything(client, key)
        assert outside(found, pattern) == []
    statuses = {came.split()[0] for _, came in found}
    assert statuses >= {"200", "400", "402", "404", "503"}, "the search has seen answers and errors of many kinds"
    text = str(found)
    assert all(word in text for word in (TEXT, "quick", "slow", "ruled", "no_eligible_target", "excluded"))


async def test_the_search_finds_what_is_there(client: Client) -> None:
    """A key without limits is told all of it, so the tests above can fail; and the store keeps all of it."""
    found = await everything(client, ALL)
    text = str(outside(found, OUTSIDE))
    for where in ("/metrics", "/v1/stats", "/v1/models", "/v1/traces", "/v1/decisions", "/v1/route", "/v1/chat"):
        assert where in text, where
    assert "did you mean" in str(found) or "known: " in str(found)
    await client.ask(BOTH)
    (newest,) = await asyncio.to_thread(lambda: list(client.gateway.router.store.traces(newest_first=True, limit=1)))
    assert newest.query.identity.key == "both"
    assert {"yak-best", "yak-down", "yak-vectors"} <= newest.decision.excluded.keys()


async def test_without_a_key_nobody_is_named(client: Client) -> None:
    for path in ("/readyz", "/healthz", "/", "/openapi.json", "/v1/models", "/v1/traces", "/metrics"):
        _, body, headers = await client.ask(None, path, "GET")
        assert not OUTSIDE.search(f"{body} {dict(headers)}"), path
    _, ready, _ = await client.ask(ALL, "/readyz", "GET")
    assert "yak-down" in ready["resting_seconds"]
    _, ready, _ = await client.ask(BOTH, "/readyz", "GET")
    assert set(ready["resting_seconds"]) == {"stale"}


@pytest.mark.parametrize("name", ["zebra", "yak-best"])
async def test_a_name_outside_is_one_that_does_not_exist(client: Client, name: str) -> None:
    """Same status, code, words and headers: whoever guesses names learns nothing."""
    other = name.replace("a", "o")

    async def answer(name: str, path: str, method: str, **more: Any) -> tuple[int, str, list[str]]:
        more = json.loads(json.dumps(more).replace("NAME", name))
        if path == "/v1/chat/completions":
            more |= more.pop("json", {})
        status, body, headers = await client.ask(BOTH, path.replace("NAME", name), method, **more)
        told = json.loads(json.dumps(body).replace(name, "NAME")) if isinstance(body, dict) else repr(body)
        if isinstance(told, dict):
            told.pop("request_id", None)
        kept = sorted(k.lower() for k in headers)
        return status, json.dumps(told), kept

    asked: list[tuple[str, str, dict[str, Any]]] = [
        (path, "POST", {"json": {"model": model, **body, **way}})
        for path, body in FACES.items()
        for model in ("NAME", "fairlead/NAME")
        for way in ({}, {"stream": 5}, {"tools": 5}, {"fairlead": {"max_usd": "much"}}, {"user": 7})
    ]
    allowing: list[dict[str, Any]] = [{"allow": ["NAME"]}, {"allow": ["slow", "NAME"]}, {"allow": ["NAME", "slow"]}]
    asked += [
        (p, "POST", {"json": {"model": "auto", **b, "fairlead": way}}) for p, b in FACES.items() for way in allowing
    ]
    asked += [
        (p, "POST", {"json": {"model": "auto", **b}, "headers": {"x-fairlead-allow": "slow, NAME"}})
        for p, b in FACES.items()
    ]
    for version in ({}, {"anthropic-version": "2023-06-01"}):
        asked += [
            ("/v1/models/NAME", "GET", {"headers": version}),
            ("/v1/models?after_id=NAME", "GET", {"headers": version}),
        ]
    asked += [(f"/v1/decisions?{field}=NAME", "GET", {}) for field in ("route", "target")]
    for path, method, more in asked:
        real, made_up = await answer(name, path, method, **more), await answer(other, path, method, **more)
        assert real == made_up, (path, more)
        assert real[0] in (200, 400, 404), (path, more)


async def test_what_is_inside_works_as_ever(client: Client) -> None:
    """The limits cut what is outside, and nothing else."""
    for model in ("auto", "ruled", "quick"):
        status, _, headers = await client.ask(BOTH, model=model)
        assert (status, headers["x-fairlead-target"] in INSIDE["targets"]) == (200, True)
        status, told, _ = await client.ask(BOTH, f"/v1/traces/{headers['x-fairlead-id']}", "GET")
        assert status == 200
        assert told["trace"]["decision"].get("excluded", {}).keys() <= {"stale"}
        chosen = told["trace"]["decision"]["options"][told["trace"]["decision"]["chosen"]]
        assert chosen["plan"]["target"] == told["explanation"]["chosen"] == headers["x-fairlead-target"]
    _, dry, _ = await client.ask(BOTH, "/v1/route", json={**ASK, "model": "auto"})
    assert {o["target"] for o in dry["options"]} <= {"quick", "slow"}
    assert set(dry["eligible"]) <= set(INSIDE["targets"])
    assert dry["reasons"]
    assert any("stale" in said for said in dry["what_would_change_it"])
    _, dry, _ = await client.ask(BOTH, "/v1/route", json={**ASK, "model": "ruled"})
    assert dry["chosen"] == "quick"
    _, stats, _ = await client.ask(BOTH, "/v1/stats", "GET")
    assert {t["name"] for t in stats["targets"]} == set(INSIDE["targets"])
    assert {r["name"] for r in stats["routes"]} == {"auto", "ruled", "low"}
    assert stats["requests"] > sum(stats["by_route"].values()), "sums count all requests"
    _, decisions, _ = await client.ask(BOTH, "/v1/decisions?route=auto", "GET")
    assert decisions["data"]
    status, told, _ = await client.ask(BOTH, fairlead={"max_usd": 1e-9})
    assert (status, told["error"]["code"]) == (402, "budget_exceeded")
    assert "quick: may cost" in told["error"]["message"]


async def test_an_error_of_our_own_is_told_without_names(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise FairleadError("the policy proposed a plan on yak-best, not eligible")

    monkeypatch.setattr(client.gateway.router, "handle", broken)
    monkeypatch.setattr(client.gateway.router, "consider", broken)
    for path in ("/v1/chat/completions", "/v1/route"):
        more = {} if path.startswith("/v1/chat") else {"json": ASK}
        status, told, _ = await client.ask(BOTH, path, **more)
        assert (status, told["error"]["code"], "yak" in str(told)) == (500, "internal_error", False)
        assert "yak-best" in str((await client.ask(ALL, path, **more))[1]), "who has no limits is told the reason"


def test_a_sentence_that_names_somebody_outside(tmp_path: Path) -> None:
    """Whole names only, of those that there are and of those that a record has of targets that have left."""
    router = config(tmp_path).router()
    sight = Sight.of(
        Caller(key="both", routes=frozenset(INSIDE["routes"]), targets=frozenset(INSIDE["targets"])), router
    )
    assert sight is not None
    assert Sight.of(Caller(key="all"), router) is None
    assert Sight.of(None, router) is None
    assert sight.says("the fixed plan needs quick, not eligible now")
    assert sight.says("yak-bests and a myak-best")
    assert not sight.says("the fixed plan needs slow, yak-best, not eligible now; slow stands in")
    assert not sight.says("fallback: zebra")
    assert sight.says("it was gone")
    assert not sight.says("it was gone", ["gone"])
    told = sight.refusal(NoEligibleTarget({"quick": "not for rule 'x'; yak-best not eligible", "yak-best": "asked"}))
    assert told.excluded == {"quick": "may not answer this"}
    assert "yak" not in str(told)
    assert "yak" not in str(sight.refusal(NoEligibleTarget({"yak-best": "not eligible"})))
    text = (
        b'# HELP a b\na{route="zebra"} 1.0\na{route="auto",target="yak-best"} 1.0\na{target="none",route="auto"} 2.0\n'
        b'b{account="route:zebra",period="day"} 1.0\nb{account="route:auto",period="day"} 3.0\nb{account="team:zebra"} 4.0\n'
    )
    assert [line.rpartition(b" ")[2] for line in sight.metrics(text).splitlines()] == [b"b", b"2.0", b"3.0", b"4.0"]


async def test_a_trace_of_others_is_there_only_if_the_key_could_have_asked_for_it(client: Client) -> None:
    store = client.gateway.router.store
    sight = Sight.of(client.gateway.door.keyring.caller("both"), client.gateway.router)
    assert sight is not None
    status, _, headers = await client.ask(ALL, model="auto", fairlead={"allow": ["quick", "slow", "stale"]})
    assert status == 200
    seen = await store.get(headers["x-fairlead-id"])
    assert seen is not None
    assert sight.sees(seen)
    _, told, _ = await client.ask(BOTH, f"/v1/traces/{seen.id}", "GET")
    assert not OUTSIDE.search(str(told))
    named = msgspec.structs.replace(seen.query, constraints=Constraints(allow=("slow", "yak-best")))
    assert sight.trace(msgspec.structs.replace(seen, query=named)).query.constraints.allow == ("slow",)
    for route, answered in (("zebra", "quick"), ("yak-best", "quick"), ("auto", "yak-best"), ("gone", "quick")):
        query = msgspec.structs.replace(seen.query, route=route)
        outcome = msgspec.structs.replace(seen.outcome, target=answered)
        assert not sight.sees(msgspec.structs.replace(seen, query=query, outcome=outcome)), (route, answered)


async def test_who_may_not_see_a_trace_may_not_judge_it(client: Client) -> None:
    """Else it would teach a route that it may not ask for; and what a correction is worth tells how like the answer it is."""
    _, _, headers = await client.ask(ALL, model="zebra")
    id = headers["x-fairlead-id"]
    for key in (BOTH, BY_ROUTE, BY_TARGET):
        for said in ({"value": 1.0}, {"correction": "four"}):
            status, body, _ = await client.ask(key, "/v1/feedback", json={"id": id, **said})
            assert (status, body["error"]["code"]) == (404, "trace_not_found"), key
    assert (await client.ask(ALL, "/v1/feedback", json={"id": id, "value": 1.0}))[0] == 200
    judged = 0
    for key in (BOTH, BY_ROUTE, BY_TARGET):
        for route in INSIDE["routes"]:
            status, _, headers = await client.ask(key, model=route)
            if status == 200:  # its own
                said = {"id": headers["x-fairlead-id"], "value": 1.0}
                assert (await client.ask(key, "/v1/feedback", json=said))[0] == 200
                judged += 1
    assert judged >= 9
