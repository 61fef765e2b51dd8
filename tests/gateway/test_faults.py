"""What goes wrong around a gateway: nothing that was acknowledged is lost, nothing is silent, nothing grows without bound."""

import asyncio
import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from fairlead.config import make
from fairlead.errors import StoreError
from fairlead.gateway.app import Gateway
from fairlead.gateway.protocol import Protocol
from fairlead.gateway.server import Server
from fairlead.sqlite import SQLiteStore

ASK = {"model": "auto", "messages": [{"role": "user", "content": "what is 2+2?"}]}
ANSWER = "/v1/chat/completions"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# ------------------------------------------------------------------------------------------------------ what is served


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """A bare TCP server that does what a fault needs."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, limit=1 << 26)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def request(reader: asyncio.StreamReader) -> bytes:
    """Read one request; return its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: *(\d+)", head)
    return await reader.readexactly(int(found[1])) if found else b""


def model(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "openai_chat", "model": "m", "base_url": url, **more}


@asynccontextmanager
async def serving(tmp_path: Path, targets: dict[str, Any], **more: Any) -> AsyncIterator[tuple[Gateway, str]]:
    first = next(iter(targets))
    config = {
        "targets": targets,
        "routes": {"auto": {"policy": {"type": "fixed", "plan": first}}},
        "store": {"path": str(tmp_path / "s.sqlite")},
        "gateway": {"port": 0, **more.pop("gateway", {})},
        "retries": {"most": 0},
        **more,
    }
    async with Gateway.of(make(config)) as gateway, Server(gateway, host="127.0.0.1", port=0) as server:
        yield gateway, server.url


async def ask(url: str, **more: Any) -> tuple[int, str, Any]:
    async with aiohttp.ClientSession() as http, http.post(url + "/v1/chat/completions", json={**ASK, **more}) as reply:
        return reply.status, await reply.text(), reply.headers


async def large(url: str, text: str) -> tuple[int, str]:
    body = json.dumps({**ASK, "messages": [{"role": "user", "content": text}]}).encode()
    async with aiohttp.ClientSession() as http, http.post(url + ANSWER, data=io.BytesIO(body)) as reply:
        return reply.status, await reply.text()


def raw(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


# ------------------------------------------------------------------------------------------------------------ upstream


def events() -> bytes:
    """A whole stream: five pieces of text, an ending, the usage."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    out = []
    for word in ("one", " two", " three", " four", " five"):
        out.append({**head, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
    out.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    out.append({**head, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}})
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in out) + b"data: [DONE]\n\n"


async def test_a_stream_cut_at_every_point(tmp_path: Path) -> None:
    """Wherever an upstream breaks off, the client gets the whole answer (of another target, if nothing was out), or is told; and the trace knows."""
    whole = events()
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    wire = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole)
    after_answer = wire.index(b'"stop"') + len(b'"stop"}]}')

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.loads(await request(reader))
        at = int(body["user"])
        writer.write(wire[:at])
        await writer.drain()

    targets = {"a": None, "b": {"type": "scripted", "replies": ["another answer"]}}
    async with (
        listening(cut) as url,
        serving(tmp_path, {**targets, "a": model(url)}, fallbacks=1, breaker={"failures": 10**6}) as (gateway, at),
    ):
        points = sorted({*range(0, len(wire), 5), *range(len(wire) - 20, len(wire) + 1), len(head), after_answer})
        room = asyncio.Semaphore(20)
        seen: dict[str, int] = {"another": 0, "told": 0, "whole": 0}

        async def one(http: aiohttp.ClientSession, point: int) -> None:
            async with (
                room,
                http.post("/v1/chat/completions", json={**ASK, "stream": True, "user": str(point)}) as reply,
            ):
                text = await reply.text()
                id = reply.headers["x-fairlead-id"]
            trace = await gateway.router.store.get(id)
            assert trace is not None
            said = "".join(
                json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                for line in text.splitlines()
                if line.startswith("data: {") and '"choices": [{' in line.replace('"choices":[{', '"choices": [{')
            )
            if '"error"' in text:
                seen["told"] += 1
                assert "[DONE]" not in text
                assert trace.outcome.error is not None
                assert trace.outcome.error.kind == "broken_stream"
                assert "one two three four five".startswith(said), point
            elif trace.outcome.target == "b":
                seen["another"] += 1
                assert said == "another answer"
                assert trace.steps[0].outcome.error is not None, point
            else:
                seen["whole"] += 1
                assert said == "one two three four five", point
                assert point >= after_answer, "no answer that was cut short is called whole"
            if trace.outcome.target == "b" or trace.outcome.error is None:
                assert text.endswith("data: [DONE]\n\n")

        async with aiohttp.ClientSession(at) as http:
            await asyncio.gather(*(one(http, p) for p in points))
        assert all(seen.values()), seen


async def test_an_upstream_that_hangs(tmp_path: Path) -> None:
    """Before its head, and in the middle of a stream."""
    first = events().split(b"\n\n")[0] + b"\n\n"

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.loads(await request(reader))
        if body.get("stream"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n" + first)
        await reader.read()

    async with listening(hang) as url, serving(tmp_path, {"a": model(url, timeout_seconds=0.3)}) as (_, at):
        status, text, _ = await ask(at)
        assert (status, json.loads(text)["error"]["code"]) == (504, "upstream_timeout")
        status, text, _ = await ask(at, stream=True)
        assert status == 200
        assert '"one"' in text
        assert "no answer in 0.3 s" in text
        assert "[DONE]" not in text


async def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    lost = model("http://no-such-host.invalid/v1")
    async with serving(tmp_path, {"a": lost}) as (_, at):
        status, text, _ = await ask(at)
        assert (status, json.loads(text)["error"]["code"]) == (502, "upstream_unavailable")
        assert "no-such-host.invalid" in text
    other = {"a": lost, "b": {"type": "scripted", "replies": ["four"]}}
    (tmp_path / "x").mkdir()
    async with serving(tmp_path / "x", other, fallbacks=1) as (_, at):
        status, _, headers = await ask(at)
        assert (status, headers["x-fairlead-target"], headers["x-fairlead-fallbacks"]) == (200, "b", "1")


@pytest.mark.parametrize("size", [1_000_000, 19_900_000])
async def test_large_bodies_arrive_whole(tmp_path: Path, size: int) -> None:
    """And so do large answers."""
    got: list[str] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.loads(await request(reader))
        text = body["messages"][0]["content"]
        got.append(hashlib.sha256(text.encode()).hexdigest())
        message = {"role": "assistant", "content": text}
        reply = json.dumps({"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(reply))
        writer.write(reply)
        await writer.drain()

    text = "0123456789abcdef" * (size // 16)
    async with (
        listening(echo) as url,
        serving(tmp_path, {"a": model(url)}, store={"path": str(tmp_path / "s"), "text": False}) as (_, at),
    ):
        status, reply = await large(at, text)
        assert status == 200
        assert got == [hashlib.sha256(text.encode()).hexdigest()]
        assert json.loads(reply)["choices"][0]["message"]["content"] == text
        status, reply = await large(at, "x" * 20_000_001)
        assert (status, json.loads(reply)["error"]["code"]) == (413, "body_too_large")


# ------------------------------------------------------------------------------------------------------------- clients


async def test_a_client_that_sends_its_head_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Protocol, "head_seconds", 0.5)
    async with serving(tmp_path, {"a": {"type": "scripted", "replies": ["four"]}}) as (_, at):

        def drip(silent: bool) -> bytes:
            with raw(at) as client:
                if not silent:
                    for byte in b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-a: ":
                        client.sendall(bytes([byte]))
                    for _ in range(40):
                        try:
                            client.sendall(b"a")
                        except OSError:
                            break
                        time.sleep(0.05)
                return client.recv(1000)

        slow = [asyncio.to_thread(drip, i % 2 == 0) for i in range(8)]
        replies, good = await asyncio.gather(asyncio.gather(*slow), ask(at))
        assert good[0] == 200, "others are served meanwhile"
        assert {r.split(b"\r\n")[0] for r in replies} == {b"", b"HTTP/1.1 408 Request Timeout"}


async def test_a_client_that_stops_in_the_middle_of_a_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.gateway.read.PAUSE_SECONDS", 0.3)
    async with serving(tmp_path, {"a": {"type": "scripted", "replies": ["four"]}}) as (gateway, at):

        def stop(path: bytes, framing: bytes, *pieces: bytes) -> bytes:
            with raw(at) as client:
                client.sendall(b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\n%s\r\n\r\n" % (path, framing))
                for piece in pieces:
                    client.sendall(piece)
                    time.sleep(0.1)
                return client.recv(1000)

        for path in (b"/v1/chat/completions", b"/v1/feedback", b"/v1/responses"):
            for framing in (b"content-length: 100", b"transfer-encoding: chunked"):
                assert (await asyncio.to_thread(stop, path, framing)).startswith(b"HTTP/1.1 408"), (path, framing)
        said = await asyncio.to_thread(stop, b"/v1/chat/completions", b"content-length: 100", b"{", b'"model"')
        assert said.startswith(b"HTTP/1.1 408")
        assert gateway.in_flight == 0


async def test_a_head_without_end(tmp_path: Path) -> None:
    """It is refused long before it could fill the memory."""
    async with serving(tmp_path, {"a": {"type": "scripted", "replies": ["four"]}}) as (_, at):

        def flood(piece: bytes) -> tuple[bytes, int]:
            sent = 0
            with raw(at) as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
                try:
                    while sent < 50_000_000:
                        client.sendall(piece)
                        sent += len(piece)
                except OSError:
                    pass
                try:
                    return client.recv(1000), sent
                except OSError:
                    return b"", sent

        for piece in (b"x-a: " + b"b" * 1000 + b"\r\n", b"x-a: " + b"b" * 10_000):
            reply, sent = await asyncio.to_thread(flood, piece)
            assert sent < 20_000_000
            assert reply.startswith(b"HTTP/1.1 431") or reply == b""


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length : 5\r\n",
        b"content-length: +5\r\n",
        b"content-length: 0x5\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"x-a: b\rc: d\r\n",
        b"x-a\x00: b\r\n",
        b" x-a: b\r\n",
    ],
)
async def test_what_two_parsers_could_read_in_two_ways_is_refused(tmp_path: Path, head: bytes) -> None:
    """A front end and this server must agree where a request ends, or one request can be hidden in another."""
    async with serving(tmp_path, {"a": {"type": "scripted", "replies": ["four"]}}) as (gateway, at):

        def smuggle() -> bytes:
            with raw(at) as client:
                hidden = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
                client.sendall(b"POST /v1/route HTTP/1.1\r\nhost: 127.0.0.1\r\n" + head + b"\r\n" + hidden)
                out = b""
                client.settimeout(2)
                try:
                    while piece := client.recv(4096):
                        out += piece
                except OSError:
                    pass
                return out

        out = await asyncio.to_thread(smuggle)
        assert out.startswith(b"HTTP/1.1 400"), out
        assert b'"status":"ok"' not in out
        assert gateway.router.store.count() == 0


# ------------------------------------------------------------------------------------------------------------ the store


async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be written is not acknowledged; when there is room again everything goes on, and the chain is whole."""
    async with serving(tmp_path, {"a": {"type": "scripted", "replies": ["four " * 500]}}) as (gateway, at):
        store = gateway.router.store
        caplog.set_level(logging.CRITICAL)

        def room(pages: int) -> Any:
            return store.transact("room", lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())

        (pages,) = await store.transact("pages", lambda c: c.execute("PRAGMA page_count").fetchone())
        await room(int(pages) + 40)
        replies = [r for _ in range(8) for r in await asyncio.gather(*(ask(at) for _ in range(8)))]
        good = [h["x-fairlead-id"] for s, _, h in replies if s == 200]
        bad = [json.loads(t)["error"]["code"] for s, t, _ in replies if s != 200]
        assert good
        assert set(bad) == {"trace_not_kept"}
        until = time.monotonic() + 10
        while True:
            try:
                await room(10**6)
                break
            except StoreError:
                assert time.monotonic() < until, "the store tries again"
                await asyncio.sleep(0.05)
        status, _, headers = await ask(at)
        assert status == 200
        kept = {t.id for t in await asyncio.to_thread(lambda: list(store.traces()))}
        assert kept >= {*good, headers["x-fairlead-id"]}
        assert await asyncio.to_thread(store.verify) == len(kept)


async def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day ahead, and back again: everybody is answered, and what was spent is not forgotten."""
    from fairlead.gateway.keys import hashed

    keys = {"ann": {"hash": hashed("fl-ann"), "budgets": [{"usd": 0.001, "period": "month"}]}}
    profile = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 100.0, "max_output_tokens": 4}
    targets = {"a": {"type": "scripted", "replies": ["one two three"], "profile": profile}}
    now = time.time
    async with serving(tmp_path, targets, gateway={"keys": keys}) as (gateway, at):
        headers = {"authorization": "Bearer fl-ann"}
        async with aiohttp.ClientSession(at, headers=headers) as http:

            async def status() -> int:
                async with http.post("/v1/chat/completions", json=ASK) as reply:
                    return reply.status

            assert await status() == 200
            monkeypatch.setattr(time, "time", lambda: now() + 86400.0)
            assert await status() == 200
            monkeypatch.setattr(time, "time", lambda: now() - 40 * 86400.0)
            found = [await status() for _ in range(4)]
            assert found[-1] == 402, "a clock that goes back does not bring the money back"
        assert await asyncio.to_thread(gateway.router.store.verify) >= 2


# --------------------------------------------------------------------------------------------------------- the process


@contextmanager
def process(tmp_path: Path, **more: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`fairlead serve`, as a user starts it."""
    config = {
        "targets": {"a": {"type": "scripted", "replies": ["four"]}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
        "gateway": {"port": 0, "drain_seconds": 1},
        **more,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    served = subprocess.Popen(
        [sys.executable, "-m", "fairlead.cli", "serve", str(tmp_path / "c.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    watchdog = threading.Timer(60.0, served.kill)
    watchdog.start()
    try:
        assert served.stdout is not None
        found = re.search(r"at (http://\S+) ", served.stdout.readline())
        assert found is not None
        yield served, found[1]
    finally:
        watchdog.cancel()
        served.kill()
        served.communicate()


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_thousand_idle_connections(tmp_path: Path) -> None:
    with process(tmp_path) as (served, url):
        assert (await ask(url))[0] == 200
        before = memory(served.pid)
        idle = [raw(url) for _ in range(1000)]
        try:
            status, _, _ = await ask(url)
            assert status == 200
            assert memory(served.pid) - before < 60_000_000
        finally:
            for client in idle:
                client.close()
        assert (await ask(url))[0] == 200


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    from fairlead.gateway.keys import hashed

    keys = {"ann": {"hash": hashed("fl-ann"), "budgets": [{"usd": 1.0, "period": "day"}]}}
    profile = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    more = {
        "targets": {
            "a": {"type": "scripted", "replies": [{"text": "four", "delay_seconds": 0.002}], "profile": profile}
        },
        "gateway": {"port": 0, "keys": keys},
    }
    acknowledged: list[str] = []
    with process(tmp_path, **more) as (served, url):
        async with aiohttp.ClientSession(url, headers={"authorization": "Bearer fl-ann"}) as http:

            async def client() -> None:
                while True:
                    try:
                        async with http.post("/v1/chat/completions", json=ASK) as reply:
                            assert reply.status == 200
                            await reply.read()
                            acknowledged.append(reply.headers["x-fairlead-id"])
                    except aiohttp.ClientError:
                        return

            clients = [asyncio.ensure_future(client()) for _ in range(8)]
            while len(acknowledged) < 100:
                await asyncio.sleep(0.01)
            served.send_signal(signal.SIGKILL)
            await asyncio.gather(*clients)
    store = SQLiteStore(tmp_path / "fairlead.sqlite", read_only=True)
    kept = {t.id: t for t in store.traces()}
    assert kept.keys() >= set(acknowledged)
    assert store.verify() == len(kept)
    charged = sum(sum(t.charged.values()) for t in kept.values())
    ((spent,),) = store.rows("SELECT sum(spent) FROM ledger_accounts WHERE name = 'key:ann/usd'")
    assert spent == charged > 0, "both books agree, also after a death"
    with process(tmp_path, **more) as (_, url):
        async with (
            aiohttp.ClientSession(url, headers={"authorization": "Bearer fl-ann"}) as http,
            http.post(ANSWER, json=ASK) as reply,
        ):
            assert reply.status == 200
