"""Gateways on real sockets and real stores, for tests of keys, limits and the admin API."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairlead.config import Config, make
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.server import Server

ASK = {"model": "auto", "messages": [{"role": "user", "content": "what is 2+2?"}]}
ADMIN = "fl-admin-key-of-the-tests"
PRICES = {"input_usd_per_mtok": 100.0, "output_usd_per_mtok": 100.0, "max_output_tokens": 1}


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """A config's store: each test runs once with either database."""
    if request.param == "sqlite":
        return {"path": str(tmp_path / "store.sqlite")}
    return {"url": request.getfixturevalue("postgres_url"), "spool": str(tmp_path / "spool")}


def config(
    tmp_path: Path, *, targets: dict[str, Any] | None = None, store: dict[str, Any] | None = None, **gateway: Any
) -> Config:
    """Two scripted targets, one route, an admin key."""
    gateway.setdefault("admin_keys", {"root": hashed(ADMIN)})
    return make(
        {
            "targets": targets
            or {
                "cheap": {"type": "scripted", "replies": ["four"], "profile": PRICES},
                "dear": {"type": "scripted", "replies": ["4"], "profile": PRICES},
            },
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "cheap"}}},
            "store": store or {"path": str(tmp_path / "store.sqlite")},
            "gateway": {"port": 0, **gateway},
        }
    )


class Client:
    """Asks one gateway with one key."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession) -> None:
        self.gateway, self.http = gateway, http

    async def ask(
        self, key: str | None = None, path: str = "/v1/chat/completions", method: str = "POST", **more: Any
    ) -> tuple[int, Any, Any]:
        """Return status, body and headers."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        headers |= more.pop("headers", {})
        json = {**ASK, **more} if path == "/v1/chat/completions" else more.pop("json", None)
        async with self.http.request(method, path, json=json, headers=headers) as r:
            body = await r.read()
            is_json = r.content_type == "application/json" and body
            return r.status, (await r.json() if is_json else body), r.headers

    async def admin(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        """Ask the admin API."""
        status, body, _ = await self.ask(ADMIN, f"/admin/{path}", method, json=json)
        return status, body

    async def key(self, name: str, **more: Any) -> str:
        """Make a key and return it."""
        status, made = await self.admin("POST", "keys", {"name": name, **more})
        assert status == 201, made
        key: str = made["key"]
        return key


@contextlib.asynccontextmanager
async def serving(config: Config, **more: Any) -> AsyncIterator[Client]:
    """A gateway on a socket, and a client of it."""
    async with (
        Gateway.of(config, **more) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        yield Client(gateway, http)
