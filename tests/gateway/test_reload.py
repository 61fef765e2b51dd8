"""A config that changes while the gateway serves: checked whole, swapped at once, and nothing under way is touched."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from fairlead import config
from fairlead.errors import ConfigError
from fairlead.gateway.app import Gateway
from fairlead.gateway.server import Server

ASK = [{"role": "user", "content": "what is 2+2?"}]


def written(path: Path, **more: Any) -> Path:
    data = {
        "targets": {"a": {"type": "scripted", "replies": [{"text": "old", "delay_seconds": 0.3}]}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
        "gateway": {"port": 0},
        "store": {"path": "s.sqlite"},
        **more,
    }
    path.write_text(yaml.safe_dump(data))
    return path


NEW = {
    "targets": {"b": {"type": "scripted", "replies": ["new"]}},
    "routes": {"auto": {"policy": {"type": "fixed", "plan": "b"}}},
}


class Serving:
    def __init__(self, path: Path, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.path, self.gateway, self.http = path, gateway, http

    async def ask(self) -> tuple[str, str]:
        async with self.http.post("/v1/chat/completions", json={"model": "auto", "messages": ASK}) as r:
            reply = await r.json()
            assert r.status == 200, reply
            return reply["choices"][0]["message"]["content"], r.headers["x-fairlead-config"]


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    path = written(tmp_path / "c.yaml")
    gateway = Gateway.of(config.load(path), load=lambda: config.load(path))
    async with (
        gateway,
        Server(gateway, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        yield Serving(path, gateway, http)


async def test_requests_under_way_end_on_the_old_one(serving: Serving) -> None:
    before = serving.gateway.config_digest
    under_way = asyncio.ensure_future(serving.ask())
    await asyncio.sleep(0.1)
    written(serving.path, **NEW)
    after = await serving.gateway.reload()
    assert after != before
    assert await serving.ask() == ("new", after)
    assert await under_way == ("old", before)
    async with serving.http.get("/healthz") as r:
        assert (await r.json())["config"] == after
    assert serving.gateway.router.store.count() == 2
    assert await asyncio.to_thread(serving.gateway.router.store.verify) == 2


async def test_a_request_that_is_still_coming_in_is_answered_by_the_new_one(serving: Serving) -> None:
    body, half = json.dumps({"model": "auto", "messages": ASK}).encode(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:20]
        await half.wait()
        yield body[20:]

    asked = asyncio.ensure_future(serving.http.post("/v1/chat/completions", data=slowly()))
    while not serving.gateway.in_flight:
        await asyncio.sleep(0.01)
    written(serving.path, **NEW)
    after = await serving.gateway.reload()
    await asyncio.sleep(0.1)
    half.set()
    async with await asked as r:
        assert (r.status, r.headers["x-fairlead-config"]) == (200, after)


async def test_a_request_whose_signals_are_being_read_ends_on_the_old_one(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, old = serving.gateway.config_digest, serving.gateway.router
    reading, on, observe = asyncio.Event(), asyncio.Event(), old.observer.observe

    async def slowly(*args: Any) -> Any:
        reading.set()
        await on.wait()
        return await observe(*args)

    monkeypatch.setattr(old.observer, "observe", slowly)
    asked = asyncio.ensure_future(serving.ask())
    await reading.wait()
    written(serving.path, **NEW)
    await serving.gateway.reload()
    await asyncio.sleep(0.1)
    on.set()
    assert await asked == ("old", before)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"gateway": {"port": 0, "drain_seconds": 99.0}}, "gateway.drain_seconds cannot change"),
        ({"targets": {"b": {"type": "scripted", "replys": []}}}, "replies"),
        ({"gateway": {"port": 1}}, "gateway.port cannot change"),
        ({"store": {"path": "other.sqlite"}}, "store.path cannot change"),
        (
            {
                "targets": {
                    "a": {
                        "type": "openai_chat",
                        "model": "m",
                        "base_url": "http://127.0.0.1:1",
                        "api_key": "${NOT_SET_HERE}",
                    }
                }
            },
            "NOT_SET_HERE",
        ),
    ],
)
async def test_a_config_that_is_wrong_changes_nothing(serving: Serving, change: dict[str, Any], why: str) -> None:
    before, router = serving.gateway.config_digest, serving.gateway.router
    written(serving.path, **change)
    with pytest.raises(ConfigError) as caught:
        await serving.gateway.reload()
    assert why in str(caught.value)
    assert serving.gateway.router is router
    assert await serving.ask() == ("old", before)


async def test_what_was_learned_goes_on(tmp_path: Path) -> None:
    """Also what was judged on the way: a lesson is learned once, by the old router or by the new."""
    routes = {"auto": {"policy": {"type": "thompson", "features": {"signals": ["length"]}}}}
    path = written(tmp_path / "c.yaml", routes=routes, learning={"batch": 1, "seconds": 0.01})
    gateway = Gateway.of(config.load(path), load=lambda: config.load(path))
    async with gateway:
        from fairlead.types import Feedback, Query

        ids = [(await gateway.router.handle(Query.ask("hi")))[1].id for _ in range(3)]
        await gateway.router.feedback(Feedback(trace_id=ids[0], value=1.0))
        assert await asyncio.to_thread(gateway.router.learner.wait, 5)
        version = gateway.router.serving["auto"].version
        judging = asyncio.ensure_future(gateway.router.feedback(Feedback(trace_id=ids[1], value=1.0)))
        written(path, routes=routes, learning={"batch": 1, "seconds": 0.02})
        await gateway.reload()
        await judging
        await gateway.router.feedback(Feedback(trace_id=ids[2], value=1.0))
        assert await asyncio.to_thread(gateway.router.learner.wait, 5)
        assert gateway.router.serving["auto"].version == version + 2
        assert await asyncio.to_thread(gateway.router.store.unlearned, "auto") == []
        arms = gateway.router.serving["auto"].policy.state()
        assert arms
