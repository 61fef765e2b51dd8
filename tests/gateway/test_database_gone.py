"""PostgreSQL dies under a gateway that serves, and comes back: requests are answered and acknowledged all the while, each is in the store once, and
both books agree."""

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from gateways import ASK, Client, config, serving
from postgres import Server

from fairlead.gateway.door import hashed

ANN, BOB, EVE = (f"fl-{name}-of-the-outage" for name in ("ann", "bob", "eve"))
KEYS: dict[str, Any] = {
    "ann": {"hash": hashed(ANN), "team": "red", "budgets": [{"usd": 50.0, "period": "month"}]},
    "bob": {"hash": hashed(BOB), "tenant": "blue", "limits": {"requests_per_minute": 100_000}},
    "eve": {"hash": hashed(EVE)},
}
TEAMS = {"team:red": {"budgets": [{"usd": 80.0, "period": "day"}]}}
GONE_SECONDS = float(os.environ.get("FAIRLEAD_OUTAGE_SECONDS", "2.5"))
"""How long the database is away: a minute takes a minute, so a run of all tests has less."""


async def settled(client: Client, seconds: float = 30.0 + GONE_SECONDS) -> None:
    """Wait until the store is back and has taken what waited for it, and the ledger has told it what was spent."""
    store: Any = client.gateway.router.store
    async with asyncio.timeout(seconds):
        while not store.up or store.spool_bytes:
            await asyncio.sleep(0.02)


class Load:
    """Clients that ask again and again, and note what they were promised."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: list[str] = []
        self.judged: list[str] = []
        self.wrong: list[str] = []
        self.during: Counter[str] = Counter()
        self.now = "before"
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._client(i, key)) for i, key in enumerate((ANN, ANN, BOB, EVE))]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def reach(self, n: int) -> None:
        """Wait until each client has been answered some more."""
        since = self.during[self.now]
        async with asyncio.timeout(30):
            while self.during[self.now] < since + n:
                await asyncio.sleep(0.01)

    async def _client(self, n: int, key: str) -> None:
        rng = random.Random(n)
        async with aiohttp.ClientSession(self.url, headers={"authorization": f"Bearer {key}"}) as http:
            while not self._over:
                stream, now = rng.random() < 0.3, self.now
                async with http.post("/v1/chat/completions", json={**ASK, "stream": stream}) as reply:
                    text = await reply.text()
                    id = reply.headers.get("x-fairlead-id", "")
                if reply.status != 200 or (stream and not text.endswith("data: [DONE]\n\n")):
                    self.wrong.append(f"{now} {n} {reply.status} {text[:300]}")
                    continue
                self.acknowledged.append(id)
                self.during[now] += 1
                if rng.random() < 0.2:
                    async with http.post("/v1/feedback", json={"id": id, "value": 1.0}) as reply:
                        if reply.status == 200:
                            self.judged.append(id)
                        else:
                            self.wrong.append(f"{now} feedback {reply.status} {await reply.text()}")
                await asyncio.sleep(0.01)


async def test_every_request_is_answered_while_the_database_is_gone_and_none_is_lost(
    tmp_path: Path, postgres_url: str, postgres_server: Server
) -> None:
    where = {"url": postgres_url, "spool": str(tmp_path / "spool"), "budgets": "serve"}
    async with serving(config(tmp_path, store=where, keys=KEYS, limits=TEAMS)) as client:
        store: Any = client.gateway.router.store
        async with Load(str(client.http._base_url)) as load:
            await load.reach(20)
            load.now = "gone"
            await asyncio.to_thread(postgres_server.stop)  # at once, as a crash is
            try:
                gone = time.monotonic()
                await load.reach(40)
                assert not store.up
                # What needs the database says so at once, and the gateway says that it lives.
                for path in ("/healthz", "/readyz", "/metrics", "/v1/models", "/v1/stats"):
                    status, _, _ = await client.ask(EVE, path, "GET")
                    assert status == 200, path
                for method, path, body in (("POST", "keys", {"name": "new"}), ("GET", "audit", None)):
                    began = time.monotonic()
                    status, told = await client.admin(method, path, body)
                    assert status in (500, 503), told
                    assert time.monotonic() - began < 5.0
                await asyncio.sleep(max(0.0, gone + GONE_SECONDS - time.monotonic()))
            finally:
                await asyncio.to_thread(postgres_server.start)
            await settled(client)
            load.now = "after"
            await load.reach(20)
        assert not load.wrong
        assert load.during["gone"] >= 40
        await settled(client)
        # The store's own count, by its rows: each once, in an unbroken chain.
        kept = Counter(id for (id,) in await asyncio.to_thread(store.rows, "SELECT id FROM traces"))
        assert kept == Counter(load.acknowledged)
        assert await asyncio.to_thread(store.verify) == len(load.acknowledged)
        assert Counter(f.trace_id for f in await asyncio.to_thread(lambda: list(store.judgements()))) == Counter(
            load.judged
        )
        assert load.judged
        # `fairlead ledger --check`.
        ledger = client.gateway.router.ledger
        assert ledger is not None
        assert await asyncio.to_thread(ledger.reconcile) == {}
        traces = await asyncio.to_thread(lambda: list(store.traces()))
        charged: Counter[str] = Counter()
        for trace in traces:
            charged.update({name.partition("/")[0]: amount for name, amount in trace.charged.items()})
        spent = dict(
            await asyncio.to_thread(store.rows, "SELECT name, spent FROM ledger_accounts WHERE name LIKE '%/usd'")
        )
        assert {name.partition("/")[0]: amount for name, amount in spent.items()} == charged
        assert charged["key:ann"] == charged["team:red"] > 0
        assert not list((tmp_path / "spool").glob("*"))
        assert (await client.admin("POST", "keys", {"name": "new"}))[0] == 201


async def test_budgets_are_kept_for_as_long_as_nobody_can_say_what_is_left(
    tmp_path: Path, postgres_url: str, postgres_server: Server
) -> None:
    """When a lease has lapsed, who has a budget is refused at once and told when to come back; who has none is served; then both are."""
    where = {"url": postgres_url, "spool": str(tmp_path / "spool")}
    async with serving(config(tmp_path, store=where, keys=KEYS, limits=TEAMS)) as client:
        ledger = client.gateway.router.ledger
        assert ledger is not None
        ledger.lease_seconds = 0.3
        assert (await client.ask(ANN))[0] == 200
        await asyncio.to_thread(postgres_server.stop)
        try:
            async with asyncio.timeout(20):
                while True:
                    began = time.monotonic()
                    status, told, headers = await client.ask(ANN)
                    if status != 200:
                        break
            assert (status, told["error"]["code"]) == (503, "ledger_unavailable"), told
            assert int(headers["retry-after"]) <= 10
            assert time.monotonic() - began < 5.0
            for _ in range(5):
                assert (await client.ask(EVE))[0] == 200
        finally:
            await asyncio.to_thread(postgres_server.start)
        await settled(client)
        async with asyncio.timeout(20):
            while (await client.ask(ANN))[0] != 200:
                await asyncio.sleep(0.05)
        await settled(client)
        assert await asyncio.to_thread(ledger.reconcile) == {}
