"""Everything but chat, over real sockets: feedback, dry runs, traces, sums, metrics, health; and a restart."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairlead.config import Config, make
from fairlead.errors import ConfigError, StoreError
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.server import Server

ASK = [{"role": "user", "content": "what is 2+2?"}]


def config(tmp_path: Path, **more: Any) -> Config:
    return make(
        {
            "targets": {
                "cheap": {
                    "type": "scripted",
                    "replies": ["four"],
                    "profile": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2, "modalities": ["text"]},
                },
                "dear": {
                    "type": "scripted",
                    "replies": ["4"],
                    "profile": {"input_usd_per_mtok": 10, "output_usd_per_mtok": 20, "context_tokens": 50},
                },
            },
            "routes": {"auto": {"policy": {"type": "thompson", "features": {"signals": ["length"]}}}},
            "learning": {"batch": 1, "seconds": 0.01},
            "store": {"path": str(tmp_path / "store.sqlite"), **more.pop("store", {})},
            "gateway": {"port": 0, **more.pop("gateway", {})},
            **more,
        }
    )


class Api:
    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.gateway, self.http = gateway, http

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.http.post(path, json=body) as r:
            return r.status, await r.json()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(path) as r:
            return r.status, await (r.json() if r.content_type == "application/json" else r.text())

    async def ask(self, model: str = "auto") -> str:
        status, reply = await self.post("/v1/chat/completions", {"model": model, "messages": ASK})
        assert status == 200
        id: str = reply["id"]
        return id


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with (
        Gateway.of(config(tmp_path)) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        yield Api(app, http)


async def test_life_of_feedback(api: Api) -> None:
    """Accepted, learned, seen again, revised; and what cannot be taken says why."""
    id = await api.ask()
    version = api.gateway.router.serving["auto"].version
    status, receipt = await api.post("/v1/feedback", {"id": id, "value": 1.0})
    assert (status, receipt["status"], receipt["trace_id"], receipt["value"]) == (200, "accepted", id, 1.0)
    assert receipt["late_seconds"] >= 0.0
    assert await asyncio.to_thread(api.gateway.router.learner.wait, 5)
    assert api.gateway.router.serving["auto"].version == version + 1
    assert (await api.post("/v1/feedback", {"response_id": id, "value": 1.0}))[1]["status"] == "duplicate"
    assert (await api.post("/v1/feedback", {"id": id, "value": 0.0}))[1]["status"] == "revised"
    assert (await api.post("/v1/feedback", {"id": id, "label": "up", "source": "judge"}))[1]["status"] == "kept"
    assert await asyncio.to_thread(api.gateway.router.learner.wait, 5)
    assert api.gateway.router.serving["auto"].version == version + 1, "one answer, one lesson"
    _, shown = await api.get(f"/v1/traces/{id}")
    assert [(f.get("source", "user"), f["value"]) for f in shown["feedback"]] == [("user", 0.0), ("judge", 1.0)]
    target = shown["trace"]["outcome"]["target"]
    _, stats = await api.get("/v1/stats")
    (row,) = [t for t in stats["targets"] if t["name"] == target]
    assert (row["judged"], row["quality"]) == (2, 0.5)  # the revised value stands once


async def test_corrections(api: Api) -> None:
    id = await api.ask("cheap")
    _, receipt = await api.post("/v1/feedback", {"id": id, "correction": "four", "source": "a"})
    assert receipt["value"] == 1.0
    _, receipt = await api.post("/v1/feedback", {"id": id, "correction": "xyz", "source": "b"})
    assert receipt["value"] == 0.0
    _, receipt = await api.post("/v1/feedback", {"id": id, "correction": "xyz", "value": 0.7, "source": "c"})
    assert receipt["value"] == 0.7
    status, reply = await api.post("/v1/feedback", {"id": id, "correction": "x" * 30_000, "source": "d"})
    assert (status, reply["error"]["param"]) == (400, "value")


async def test_corrections_of_masked_answers_are_masked_too(tmp_path: Path) -> None:
    """What the client saw was restored; beside the masked trace no value may stand, and an equal text is no correction."""
    mail, other = "bo@example.org", "ann@example.com"
    masking = config(
        tmp_path,
        targets={"cheap": {"type": "scripted", "replies": ["I wrote to [EMAIL_1]."]}},
        guards=[{"name": "private", "when": {"pii.found": True}, "do": ["mask"]}],
        routes={"auto": {"policy": {"type": "fixed", "plan": "cheap"}}},
    )
    async with (
        Gateway.of(masking) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        api = Api(app, http)
        ask = {"model": "auto", "messages": [{"role": "user", "content": f"mail {mail}"}]}
        _, reply = await api.post("/v1/chat/completions", ask)
        assert reply["choices"][0]["message"]["content"] == f"I wrote to {mail}."
        id = reply["id"]
        for source, sent, value in (
            ("a", {"correction": f"I wrote to {mail}."}, 1.0),
            ("b", {"correction": f"I wrote to {mail} and {other}.", "value": 0.5}, 0.5),
        ):
            _, receipt = await api.post("/v1/feedback", {"id": id, "source": source, **sent})
            assert receipt["value"] == value
        _, shown = await api.get(f"/v1/traces/{id}")
        assert [f["correction"] for f in shown["feedback"]] == [
            "I wrote to [EMAIL_1].",
            "I wrote to [EMAIL_1] and [EMAIL_2].",
        ]
        assert not any(m in json.dumps(shown) for m in (mail, other))
        app.router.actions.clear()  # the mask has left the config: what it masked is not known
        status, reply = await api.post("/v1/feedback", {"id": id, "source": "c", "correction": f"To {mail}."})
        assert (status, reply["error"]["param"]) == (400, "value")
        await api.post("/v1/feedback", {"id": id, "source": "d", "correction": f"To {mail}.", "value": 0.1})
        _, shown = await api.get(f"/v1/traces/{id}")
        assert shown["feedback"][-1]["correction"].strip() == ""


async def test_corrections_of_what_is_kept_without_text_are_blank(tmp_path: Path) -> None:
    blocking = config(
        tmp_path,
        guards=[{"name": "private", "when": {"pii.found": True}, "do": ["stop"]}],
        actions={"stop": {"type": "block", "reply": True}},
    )
    async with (
        Gateway.of(blocking) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        api = Api(app, http)
        ask = {"model": "auto", "messages": [{"role": "user", "content": "mail bo@example.org"}]}
        await api.post("/v1/chat/completions", ask)
        _, traces = await api.get("/v1/traces")
        id = traces["data"][0]["id"]
        await api.post("/v1/feedback", {"id": id, "correction": "bo@example.org", "value": 0.5})
        _, shown = await api.get(f"/v1/traces/{id}")
        assert [f["correction"].strip() for f in shown["feedback"]] == [""]


async def test_every_kind_of_feedback(api: Api) -> None:
    """Each kind has a value, and counts by its kind unless it says how much."""
    kinds: list[tuple[dict[str, Any], float, float]] = [
        ({"value": 0.25}, 0.25, 1.0),
        ({"label": "down"}, 0.0, 1.0),
        ({"rating": 4, "of": 5}, 0.75, 1.0),
        ({"rating": 0, "of": 10, "lowest": 0}, 0.0, 1.0),
        ({"test": True}, 1.0, 1.0),
        ({"test": 0.8}, 0.8, 1.0),
        ({"judge": 0.9}, 0.9, 0.6),
        ({"reask": True}, 0.0, 0.2),
        ({"reask": False}, 1.0, 0.2),
        ({"abandon": True}, 0.0, 0.1),
        ({"abandon": True, "confidence": 0.5, "value": 0.3}, 0.3, 0.5),
        ({"value": 0.5, "confidence": 0.0}, 0.5, 0.0),
    ]
    for source, (body, value, weight) in enumerate(kinds):
        id = await api.ask()
        status, receipt = await api.post("/v1/feedback", {"id": id, "source": f"s{source}", **body})
        assert (status, receipt["value"], receipt["weight"]) == (200, value, weight), body
        _, shown = await api.get(f"/v1/traces/{id}")
        kind = next((k for k in ("label", "rating", "test", "judge", "reask", "abandon") if k in body), "value")
        assert shown["feedback"][0].get("kind", "value") == kind


async def test_weak_and_strong_judgements_of_one_answer(api: Api) -> None:
    """Late, repeated and contradictory ones: the answer counts as one, by the one that counts most."""
    id = await api.ask()
    said: list[tuple[dict[str, Any], str, float]] = [
        ({"reask": True, "source": "app"}, "accepted", 0.2),
        ({"reask": True, "source": "app"}, "duplicate", 0.0),
        ({"judge": 0.7, "source": "judge"}, "kept", 0.4),
        ({"label": "up"}, "kept", 0.4),
        ({"label": "down"}, "revised", 0.0),
        ({"test": False, "source": "tests"}, "kept", 0.0),
    ]
    for body, status, weight in said:
        _, receipt = await api.post("/v1/feedback", {"id": id, **body})
        assert (receipt["status"], receipt["weight"]) == (status, pytest.approx(weight)), body
    assert await asyncio.to_thread(api.gateway.router.learner.wait, 5)
    assert api.gateway.router.store.unlearned("auto") == []


async def test_feedback_is_signed_by_the_key_it_came_with(tmp_path: Path) -> None:
    keys = {"keys": {"one": hashed("fl-one"), "two": hashed("fl-two")}}
    async with (
        Gateway.of(config(tmp_path, gateway=keys)) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        api = Api(app, http)
        http.headers["authorization"] = "Bearer fl-one"
        id = await api.ask()
        for key, value in (("one", 1.0), ("two", 0.0)):
            http.headers["authorization"] = f"Bearer fl-{key}"
            assert (await api.post("/v1/feedback", {"id": id, "value": value}))[0] == 200
        _, shown = await api.get(f"/v1/traces/{id}")
        assert [(f["by"], f["value"]) for f in shown["feedback"]] == [("one", 1.0), ("two", 0.0)]


async def test_a_tenant_sees_its_own_only(tmp_path: Path) -> None:
    keys = {
        "ops": hashed("fl-ops"),
        "red": {"hash": hashed("fl-red"), "tenant": "red"},
        "blue": {"hash": hashed("fl-blue"), "tenant": "blue"},
    }
    async with (
        Gateway.of(config(tmp_path, gateway={"keys": keys})) as app,
        Server(app, host="127.0.0.1", port=0) as server,
    ):
        apis = {}
        async with contextlib.AsyncExitStack() as open_:
            for name in keys:
                bearer = {"authorization": f"Bearer fl-{name}"}
                http = await open_.enter_async_context(aiohttp.ClientSession(server.url, headers=bearer))
                apis[name] = Api(app, http)
            ids = {name: await apis[name].ask() for name in ("red", "blue", "ops")}
            for name, api in apis.items():
                may = set(ids) if name == "ops" else {name}
                _, listed = await api.get("/v1/traces")
                assert {t["id"] for t in listed["data"]} == {ids[n] for n in may}
                _, stats = await api.get("/v1/stats")
                assert stats["requests"] == 3
                assert {row["id"] for row in stats["recent"]} == {ids[n] for n in may}
                for other, id in ids.items():
                    want = 200 if other in may else 404
                    assert (await api.get(f"/v1/traces/{id}"))[0] == want
                    for judged in ({"value": 1.0}, {"correction": "four"}):
                        assert (await api.post("/v1/feedback", {"id": id, "source": str(judged), **judged}))[0] == want
            _, listed = await apis["red"].get("/v1/traces?limit=1")
            assert [t["id"] for t in listed["data"]] == [ids["red"]]
            assert len(app.router.store.feedback(ids["red"])) == 4  # by red and by ops


async def test_feedback_that_is_refused(api: Api) -> None:
    id = await api.ask()
    for body, status in (
        ({"id": "nobody", "value": 1.0}, 404),
        ({"id": "nobody", "correction": "x"}, 404),
        ({"id": id, "value": 1.5}, 400),
        ({"id": id, "value": "good"}, 400),
        ({"id": id, "label": "splendid"}, 400),
        ({"id": id}, 400),
        ({"value": 1.0}, 400),
        ({"id": id, "value": 1.0, "confidence": 2}, 400),
        ({"id": id, "value": 1.0, "surprise": 1}, 400),
        ({"id": id, "rating": 6}, 400),
        ({"id": id, "rating": 1, "of": 1}, 400),
        ({"id": id, "test": 2}, 400),
        ({"id": id, "test": True, "label": "up"}, 400),
        ([], 400),
    ):
        got, reply = await api.post("/v1/feedback", body)
        assert (got, "message" in reply["error"]) == (status, True), body
    _, shown = await api.get(f"/v1/traces/{id}")
    assert shown["feedback"] == []


async def test_dry_run_tells_and_keeps_nothing(api: Api) -> None:
    for value in (1.0, 0.0):
        id = await api.ask("cheap")
        await api.post("/v1/feedback", {"id": id, "value": value})
    before = api.gateway.router.store.count()
    body = {"model": "auto", "messages": ASK, "fairlead": {"max_usd": 1}}
    status, told = await api.post("/v1/route", body)
    assert status == 200
    assert {o["target"] for o in told["options"]} == {"cheap", "dear"}
    assert sum(o["probability"] for o in told["options"]) == pytest.approx(1.0)
    (chosen,) = [o for o in told["options"] if o["chosen"]]
    assert chosen["probability"] == pytest.approx(told["propensity"])
    assert told["reasons"]
    assert told["what_would_change_it"]
    assert set(told["signals"]) == {"length"}
    long = {"model": "auto", "messages": [{"role": "user", "content": "word " * 100}]}
    _, told = await api.post("/v1/route", long)
    assert told["eligible"] == ["cheap"]
    assert "do not fit its context" in told["excluded"]["dear"]
    assert any("dear could be chosen" in line for line in told["what_would_change_it"])
    assert api.gateway.router.store.count() == before
    assert (await api.get("/v1/stats"))[1]["requests"] == before
    assert (await api.post("/v1/route", {"model": "nope", "messages": ASK}))[0] == 404
    assert (await api.post("/v1/route", {"model": "auto"}))[0] == 400


async def test_traces(api: Api) -> None:
    ids = [await api.ask() for _ in range(3)]
    _, listed = await api.get("/v1/traces?limit=2")
    assert [t["id"] for t in listed["data"]] == [ids[2], ids[1]]
    _, shown = await api.get(f"/v1/traces/{ids[0]}")
    assert shown["trace"]["id"] == ids[0]
    assert shown["explanation"]["propensity"] == shown["trace"]["decision"]["propensity"]
    for path, status in (("/v1/traces/none", 404), ("/v1/traces?limit=0", 400), ("/v1/traces?limit=x", 400)):
        assert (await api.get(path))[0] == status


async def test_metrics(api: Api) -> None:
    await api.ask("cheap")
    id = await api.ask("cheap")
    await api.post("/v1/feedback", {"id": id, "value": 1.0})
    await api.post("/v1/chat/completions", {"model": "nope", "messages": ASK})
    async with api.http.post("/v1/chat/completions", json={"model": "cheap", "messages": ASK, "stream": True}) as r:
        await r.read()
    _, text = await api.get("/metrics")
    lines = text.splitlines()
    for line in (
        'fairlead_requests_total{route="cheap",status="2xx",target="cheap"} 3.0',
        'fairlead_tokens_total{kind="output",route="cheap",target="cheap"} 3.0',
        'fairlead_refused_total{status="404"} 1.0',
        'fairlead_feedback_total{status="accepted"} 1.0',
        'fairlead_request_seconds_count{route="cheap"} 3.0',
        'fairlead_first_byte_seconds_count{route="cheap"} 1.0',
        "fairlead_overhead_seconds_count 3.0",
        "fairlead_store_failures_total 0.0",
    ):
        assert line in lines, line
    assert any(line.startswith("fairlead_learned_total ") for line in lines)


async def test_health_and_page(api: Api) -> None:
    assert (await api.get("/healthz"))[0] == 200
    assert (await api.get("/readyz"))[0] == 200
    async with api.http.get("/") as r:
        html = await r.text()
        policy = r.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    for outside in ('src="http', "src='http", "@import", "url(http", "cdn"):
        assert outside not in html


async def test_a_restart_does_not_blank_the_page(tmp_path: Path) -> None:
    for round in (1, 2):
        async with (
            Gateway.of(config(tmp_path)) as app,
            Server(app, host="127.0.0.1", port=0) as server,
            aiohttp.ClientSession(server.url) as http,
        ):
            api = Api(app, http)
            id = await api.ask()
            await api.post("/v1/feedback", {"id": id, "value": 0.5})
            _, stats = await api.get("/v1/stats")
            assert stats["requests"] == stats["traces"] == round
            assert sum(t["judged"] for t in stats["targets"]) == round
            assert len(stats["recent"]) == round
            assert stats["recent"][0]["feedback"] == 0.5


async def test_text_that_is_not_kept_is_not_shown(tmp_path: Path) -> None:
    async with (
        Gateway.of(config(tmp_path, store={"text": False})) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        api = Api(app, http)
        id = await api.ask()
        status, reply = await api.post("/v1/feedback", {"id": id, "correction": "five"})
        assert (status, reply["error"]["param"]) == (400, "value")
        for path in ("/v1/stats", "/v1/traces", f"/v1/traces/{id}"):
            async with http.get(path) as r:
                assert b"2+2" not in await r.read(), path


async def test_a_trace_that_cannot_be_kept_withholds_the_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, also: Any = ()) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreError("the disk is full"))
        return future

    monkeypatch.setattr(api.gateway.router.store, "append", full)
    status, reply = await api.post("/v1/chat/completions", {"model": "cheap", "messages": ASK})
    assert (status, reply["error"]["code"]) == (500, "trace_not_kept")
    async with api.http.post("/v1/chat/completions", json={"model": "cheap", "messages": ASK, "stream": True}) as r:
        text = await r.read()
    assert b"trace_not_kept" in text
    assert b"[DONE]" not in text


async def test_what_breaks_unforeseen_is_a_500_and_is_logged(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("boom with details")

    monkeypatch.setattr(api.gateway.router, "handle", broken)
    monkeypatch.setattr(api.gateway.stats, "show", broken)
    status, reply = await api.post("/v1/chat/completions", {"model": "cheap", "messages": ASK})
    assert (status, reply["error"]["code"]) == (500, "internal_error")
    assert "boom" not in reply["error"]["message"]
    assert "boom with details" in caplog.text
    assert (await api.get("/v1/stats"))[0] == 500


def test_settings_that_are_refused(tmp_path: Path) -> None:
    for settings, path in (
        ({"host": "0.0.0.0"}, "$.gateway.keys"),
        ({"keys": {"me": "fl-in-the-clear"}}, "$.gateway.keys.me"),
        ({"strongest": "nobody"}, "$.gateway.strongest"),
    ):
        with pytest.raises(ConfigError) as caught:
            Gateway.of(config(tmp_path, gateway=settings))
        assert caught.value.path == path
        assert "fl-in-the-clear" not in str(caught.value)
