"""What breaks where nobody expects it: the client gets an answer in its API's shape, it is counted, and nothing is left behind."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from gateways import PRICES, config, serving

from fairlead.config import Config
from fairlead.errors import StoreError
from fairlead.gateway import edge, logs, read
from fairlead.gateway.app import Gateway
from fairlead.types import Query


def lines(gateway: Gateway, name: str) -> list[str]:
    return [line for line in gateway.metrics.text().decode().splitlines() if line.startswith(name)]


async def test_a_store_that_is_gone_while_a_request_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(config(tmp_path, admin_keys={})) as c:
        _, first, _ = await c.ask(path="/v1/responses", json={"model": "auto", "input": "hi"})

        async def gone(*_: Any) -> None:
            raise StoreError("the database is gone")

        monkeypatch.setattr(c.gateway.router.store, "fetch", gone)
        more = {"model": "auto", "input": "go on", "previous_response_id": first["id"]}
        status, body, headers = await c.ask(path="/v1/responses", json=more)
        assert (status, body["error"]["code"]) == (503, "store_unavailable")
        assert headers["retry-after"]
        assert lines(c.gateway, "fairlead_refused_total") == ['fairlead_refused_total{status="503"} 1.0']


async def test_a_defect_while_a_request_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret words")

    monkeypatch.setattr(read, "query", broken)
    async with serving(config(tmp_path, admin_keys={})) as c:
        status, body, _ = await c.ask()
        assert (status, body["error"]["code"]) == (500, "internal_error")
        assert "secret" not in str(body)
        assert c.gateway.in_flight == 0


async def test_what_the_client_was_sent_is_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is withheld is a 500 in the figures; a store that is slow is not a client that stopped reading."""
    async with serving(config(tmp_path, admin_keys={})) as c:
        assert c.gateway.kept is not None

        async def broken(*_: Any, **__: Any) -> None:
            raise StoreError("no")

        monkeypatch.setattr(c.gateway.kept, "put", broken)
        status, body, _ = await c.ask(path="/v1/responses", json={"model": "auto", "input": "hi"})
        assert (status, body["error"]["code"]) == (500, "conversation_not_kept")
        (counted,) = lines(c.gateway, "fairlead_requests_total")
        assert 'status="5xx"' in counted

        async def slow(*_: Any, **__: Any) -> None:
            await asyncio.sleep(0.5)

        monkeypatch.setattr(c.gateway.kept, "put", slow)
        monkeypatch.setattr(edge, "CLOSING_SECONDS", 0.1)
        status, body, _ = await c.ask(path="/v1/responses", json={"model": "auto", "input": "hi"})
        assert (status, body["status"]) == (200, "completed")


async def test_a_body_that_trickles_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes in time, all of them too slowly."""
    monkeypatch.setattr(read, "PAUSE_SECONDS", 0.4)
    async with serving(config(tmp_path, admin_keys={})) as c:
        assert c.http._base_url is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", c.http._base_url.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 500\r\n\r\n")
        answer = asyncio.ensure_future(reader.read())
        for _ in range(30):
            if answer.done():
                break
            writer.write(b" ")
            await asyncio.sleep(0.05)
        assert b" 408 " in (await answer).split(b"\r\n")[0]
        writer.close()
        assert c.gateway.in_flight == 0


async def test_nothing_is_kept_of_a_query_that_has_ended(tmp_path: Path) -> None:
    async with Gateway.of(config(tmp_path, admin_keys={})) as gateway:
        router = gateway.router
        for _ in range(3):
            query = msgspec.structs.replace(Query.ask("hi", max_tokens=1), route="auto")
            router.pool.eligible(query, left_usd=1.0)
            assert router.pool._sizes
            await router.handle(query)
            assert not router.pool._sizes
            await router.consider(query)
            assert not router.pool._sizes


async def test_a_reload_keeps_within_what_a_target_takes_at_once(tmp_path: Path) -> None:
    target = {"type": "scripted", "replies": [{"text": "4", "delay_seconds": 0.3}], "profile": {"concurrent": 1}}

    def made() -> Config:
        return config(tmp_path, admin_keys={}, targets={"cheap": target})

    async with serving(made(), load=made) as c:
        first = asyncio.ensure_future(c.ask())
        await asyncio.sleep(0.1)
        await c.gateway.reload()
        second = asyncio.ensure_future(c.ask())
        await asyncio.sleep(0.05)
        lanes = c.gateway.router.world.lanes
        assert lanes is not None
        assert lanes.under_way("cheap") == (1, 1)
        assert [(await task)[0] for task in (first, second)] == [200, 200]


async def test_a_stop_does_not_wait_for_the_batches_of_the_router_before(tmp_path: Path) -> None:
    target = {"type": "scripted", "replies": [{"text": "4", "delay_seconds": 30.0}], "profile": PRICES}

    def made() -> Config:
        return config(tmp_path, admin_keys={}, targets={"cheap": target})

    async with asyncio.timeout(20):
        async with serving(made(), load=made) as c:
            line = b'{"custom_id":"1","method":"POST","url":"/v1/completions","body":{"model":"auto","prompt":"hi"}}'
            form = {"purpose": "batch"}
            data = aiohttp.FormData(form)
            data.add_field("file", line, filename="b.jsonl")
            async with c.http.post("/v1/files", data=data) as r:
                file = (await r.json())["id"]
            wanted = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
            status, _, _ = await c.ask(path="/v1/batches", json=wanted)
            assert status == 200
            while not c.gateway.router.under_way:
                await asyncio.sleep(0.02)
            await c.gateway.reload()


async def test_every_answer_has_the_id_that_its_line_in_the_log_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where OpenAI's and Anthropic's clients look for it; also where nothing was decided."""
    caplog.set_level("INFO")
    seen: list[tuple[str, str]] = []
    logs.access.addFilter(lambda record: seen.append((record.getMessage(), logs.REQUEST.get())) or True)
    async with serving(config(tmp_path, admin_keys={})) as c:
        _, body, headers = await c.ask()
        assert headers["x-request-id"] == headers["x-fairlead-id"] == body["id"]
        status, _, headers = await c.ask(model="nobody")
        assert status == 404
        assert ("refused", headers["x-request-id"]) in seen
        status, body, headers = await c.ask(path="/v1/messages", json={"model": "nobody", "messages": []})
        assert (status // 100, headers["request-id"]) == (4, body["request_id"])
        assert headers["request-id"].startswith("req_")
