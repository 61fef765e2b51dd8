"""One run that uses every kind of secret and fails in every way: none of them is anywhere that somebody may look."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairlead import cli
from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.keys import hashed
from fairlead.gateway.server import Server

SECRETS = {
    "PROVIDER_KEY": "sk-prov-0a1b2c3d4e5f60718293",
    "HEADER_TOKEN": "tok-header-99887766554433221100",
    "AWS_SECRET": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "GOOGLE_TOKEN": "ya29.a0AfH6SMBxGoogleLikeToken1234567",
    "CLAUDE_KEY": "sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
    "REDIS_PASSWORD": "sesame-opens-the-redis-of-the-tests",
}
VIRTUAL, ADMIN, WRONG = "fl-virtual-key-0123456789abcdef", "fl-admin-key-fedcba9876543210", "fl-nobodys-key-5566778899"
ASK = {"messages": [{"role": "user", "content": "hi"}]}


async def test_no_secret_is_anywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.DEBUG)

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echoes what it was sent, headers and all, in an error, in a broken reply, or not at all."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            echo = json.dumps({"error": {"message": f"bad key: {head.decode()}", "code": head.decode()}}).encode()
            match body.get("user"):
                case "401" | "429" | "500" as status:
                    writer.write(b"HTTP/1.1 %b X\r\ncontent-length: %d\r\n\r\n%b" % (status.encode(), len(echo), echo))
                case "broken":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(head), head))
                case "header":
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nx-echo: " + head.replace(b"\r\n", b" ") + b"\r\nbad header\r\n\r\n"
                    )
                case "event":
                    event = b"data: " + echo + b"\n\n"
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event)
                case _:
                    pass
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    talks: list[asyncio.Task[Any] | None] = []

    async def redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echoes what it was sent, the password with it, in an error."""
        talks.append(asyncio.current_task())
        while said := await reader.read(65536):
            writer.write(b"-ERR " + said.replace(b"\r\n", b" ") + b"\r\n")
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    shared = await asyncio.start_server(redis, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    targets: dict[str, Any] = {
        "chat": {
            "type": "openai_chat",
            "model": "m",
            "base_url": base + "/v1",
            "api_key": "${PROVIDER_KEY}",
            "headers": {"x-extra-token": "${HEADER_TOKEN}"},
        },
        "azure": {"type": "azure_openai", "model": "d", "endpoint": base, "api_key": "${PROVIDER_KEY}"},
        "gemini": {"type": "gemini", "model": "g", "base_url": base, "api_key": "${GOOGLE_TOKEN}"},
        "claude": {"type": "anthropic_messages", "model": "c", "base_url": base, "api_key": "${CLAUDE_KEY}"},
        "down": {
            "type": "openai_chat",
            "model": "m",
            "base_url": "http://127.0.0.1:1/v1",
            "api_key": "${PROVIDER_KEY}",
        },
    }
    config = {
        "targets": targets,
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "chat"}}},
        "store": {"path": str(tmp_path / "s.sqlite")},
        "gateway": {
            "port": 0,
            "keys": {"ann": {"hash": hashed(VIRTUAL), "limits": {"requests_per_minute": 10_000}}},
            "redis": {
                "url": f"redis://127.0.0.1:{shared.sockets[0].getsockname()[1]}/0",
                "password": "${REDIS_PASSWORD}",
            },
            "admin_keys": {"root": hashed(ADMIN)},
            "log": {"format": "json", "level": "debug", "access": True},
        },
        "retries": {"most": 0},
        "breaker": {"failures": 10**6},
        "fallbacks": 0,
    }
    seen: list[str] = []
    async with (
        Gateway.of(make(config)) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as served,
        aiohttp.ClientSession(served.url) as http,
    ):

        async def ask(method: str, path: str, key: str, body: Any = None) -> Any:
            async with http.request(method, path, json=body, headers={"authorization": f"Bearer {key}"}) as reply:
                text = await reply.text()
                seen.append(text + str(dict(reply.headers)))
                return text

        for model in (*targets, "auto", "nobody"):
            for how in ("401", "429", "500", "broken", "header", "event", "nothing"):
                for stream in (False, True):
                    await ask(
                        "POST", "/v1/chat/completions", VIRTUAL, {**ASK, "model": model, "user": how, "stream": stream}
                    )
        await ask("POST", "/v1/chat/completions", WRONG, {**ASK, "model": "auto"})
        await ask("POST", "/v1/messages", VIRTUAL, {**ASK, "model": "auto", "max_tokens": 5})
        await ask("POST", "/v1/responses", VIRTUAL, {"model": "auto", "input": "hi"})
        made = json.loads(await ask("POST", "/admin/keys", ADMIN, {"name": "bob"}))
        issued = made["key"]
        seen.pop()  # this once it is shown
        await ask("POST", "/v1/chat/completions", issued, {**ASK, "model": "auto"})
        for path in (
            "/",
            "/metrics",
            "/healthz",
            "/readyz",
            "/openapi.json",
            "/v1/stats",
            "/v1/traces?limit=200",
            "/v1/models",
        ):
            await ask("GET", path, VIRTUAL)
        for path in ("keys", "audit", "config", "state", "spend", "limits"):
            await ask("GET", f"/admin/{path}", ADMIN)
            await ask("GET", f"/admin/{path}", WRONG)
    server.close()
    shared.close()
    await asyncio.gather(*filter(None, talks))
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    cli.main(["validate", str(tmp_path / "c.yaml")])
    out = capsys.readouterr()
    files = {str(p): p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file()}
    logs = "\n".join(f"{r.getMessage()} {r.exc_text or ''} {r.__dict__}" for r in caplog.records)
    assert len(seen) > 100
    assert "chat" in logs
    assert "Redis is gone" in logs
    everywhere = {"replies": "\n".join(seen), "logs": logs, "output": out.out + out.err, **files}
    for where, text in everywhere.items():
        for name, secret in {**SECRETS, "VIRTUAL": VIRTUAL, "ADMIN": ADMIN, "WRONG": WRONG, "ISSUED": issued}.items():
            assert secret not in text, (
                f"{name} in {where}: …{text[max(0, text.index(secret) - 200) : text.index(secret) + 20]}"
            )
            assert secret[6:-6] not in text, f"most of {name} in {where}"
