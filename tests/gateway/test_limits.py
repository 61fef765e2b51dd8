"""Limits and money over HTTP: never more than allowed, whoever shares them, and everything given back."""

import asyncio
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gateways import config, serving, where  # noqa: F401 - a fixture

from fairlead.config import LimitsConfig
from fairlead.gateway import limits
from fairlead.gateway.door import hashed
from fairlead.gateway.faces.base import Face
from fairlead.gateway.keys import rates_of
from fairlead.ledger import Ledger
from fairlead.types import Call, Query

SLOW = {"slow": {"type": "scripted", "replies": [{"text": "a b c", "word_seconds": 30.0, "delay_seconds": 0.0}]}}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """The clock of the edge stands still, 20 seconds into the present minute."""
    moment = time.time() // 60.0 * 60.0 + 20.0
    monkeypatch.setattr(limits, "time", SimpleNamespace(time=lambda: moment))
    return moment


def counts(answers: list[tuple[int, Any, Any]]) -> dict[int, int]:
    statuses = [status for status, _, _ in answers]
    return {s: statuses.count(s) for s in set(statuses)}


async def test_200_at_once_against_a_budget_of_exactly_100(tmp_path: Path) -> None:
    """Each costs what is estimated for it: 100 are answered, 100 are told so, and both books agree."""
    # An answer of one token for a prompt whose tokens are counted as they are estimated.
    exact = {"type": "scripted", "replies": [{"text": "4", "tokens": {"input": 0, "output": 1}}]}
    profile = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 100.0, "max_output_tokens": 1}
    made = config(tmp_path, targets={"cheap": {**exact, "profile": profile}})
    async with serving(made) as client:
        router = client.gateway.router
        cost = router.pool.estimate_usd(Call(target="cheap"), Query.ask("what is 2+2?"))
        assert cost == pytest.approx(1e-4)
        key = await client.key("ann", budgets=[{"usd": 0.01, "period": "month"}])
        answers = await asyncio.gather(*(client.ask(key) for _ in range(200)))
        assert counts(answers) == {200: 100, 402: 100}
        refused = next(body for status, body, _ in answers if status == 402)
        assert refused["error"]["code"] == "budget_exceeded"
        for said in ("key:ann", "0.000000 of 0.01 USD a month", "begins anew at 20"):
            assert said in refused["error"]["message"]
        (row,) = [r for r in (await client.admin("GET", "spend"))[1]["data"] if r["account"] == "key:ann/usd"]
        assert (row["limit"], row["spent"], row["left"]) == (10_000, 10_000, 0)
        assert await asyncio.to_thread(router.ledger.reconcile) == {}


async def test_two_gateways_share_a_budget(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """200 at once over two processes' worth of gateways on one store: never more than 100, and all of it in the end."""
    exact = {"type": "scripted", "replies": [{"text": "4", "tokens": {"input": 0, "output": 1}}]}
    profile = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 100.0, "max_output_tokens": 1}
    targets = {"cheap": {**exact, "profile": profile}}
    made = [config(tmp_path, targets=targets, store=where, shared=True) for _ in range(2)]
    async with serving(made[0]) as a, serving(made[1]) as b:
        key = await a.key("ann", team="blue")
        await a.admin("PUT", "limits/team:blue", {"budgets": [{"usd": 0.01, "period": "day"}]})
        assert await b.gateway.door.keyring.refresh()
        answers = await asyncio.gather(*((a, b)[i % 2].ask(key) for i in range(200)))
        done = counts(answers)
        assert set(done) == {200, 402}
        assert done[200] <= 100
        async with asyncio.timeout(20.0):  # what one has leased and does not use comes back to the other
            while done[200] < 100:
                await asyncio.sleep(0.2)
                status, _, _ = await (a, b)[done[200] % 2].ask(key)
                done[200] += status == 200
        for client in (a, b):
            assert (await client.ask(key))[0] == 402
        rows = (await a.admin("GET", "spend"))[1]["data"]
        assert [(r["account"], r["spent"]) for r in rows] == [("team:blue/usd", 10_000)]


async def test_requests_a_minute_of_key_team_and_tenant(tmp_path: Path, now: float) -> None:
    async with serving(config(tmp_path)) as client:
        await client.admin("PUT", "limits/team:blue", {"limits": {"requests_per_minute": 4}})
        await client.admin("PUT", "limits/tenant:red", {"limits": {"requests_per_minute": 6}})
        ann = await client.key("ann", team="blue", tenant="red", limits={"requests_per_minute": 3})
        bob = await client.key("bob", team="blue", tenant="red")
        eve = await client.key("eve", tenant="red")
        statuses = {}
        for name, key in (("ann", ann), ("bob", bob), ("eve", eve)):
            statuses[name] = [(await client.ask(key))[0] for _ in range(4)]
        assert statuses == {"ann": [200] * 3 + [429], "bob": [200] + [429] * 3, "eve": [200, 200, 429, 429]}
        _, body, headers = await client.ask(ann)
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert "key:ann: 3 requests a minute are made" in body["error"]["message"]
        assert headers["retry-after"] == "40"


async def test_headers_say_what_is_left(tmp_path: Path, now: float) -> None:
    """OpenAI's names, on answers whole and streamed, and on refusals: of the tightest limit of each kind."""
    async with serving(config(tmp_path)) as client:
        key = await client.key("ann", limits={"requests_per_minute": 3, "tokens_per_minute": 10_000})
        free = await client.key("free")
        _, _, headers = await client.ask(free)
        assert not [h for h in headers if h.startswith("x-ratelimit")]
        for left, more in ((2, {}), (1, {"stream": True}), (0, {})):
            status, _, headers = await client.ask(key, **more)
            assert status == 200
            assert headers["x-ratelimit-limit-requests"] == "3"
            assert headers["x-ratelimit-remaining-requests"] == str(left)
            assert headers["x-ratelimit-limit-tokens"] == "10000"
            assert 9000 < int(headers["x-ratelimit-remaining-tokens"]) < 10_000
            assert headers["x-ratelimit-reset-requests"] == headers["x-ratelimit-reset-tokens"] == "40s"
        status, _, headers = await client.ask(key)
        assert (status, headers["x-ratelimit-remaining-requests"]) == (429, "0")


def test_headers_of_both_shapes() -> None:
    shown = [limits.Shown(kind="requests", limit=5, remaining=2, ends=1_800_000_030.0)]
    assert limits.openai(shown, now=1_800_000_017.5) == [
        (b"x-ratelimit-limit-requests", b"5"),
        (b"x-ratelimit-remaining-requests", b"2"),
        (b"x-ratelimit-reset-requests", b"13s"),
    ]
    assert limits.anthropic(shown) == [
        (b"anthropic-ratelimit-requests-limit", b"5"),
        (b"anthropic-ratelimit-requests-remaining", b"2"),
        (b"anthropic-ratelimit-requests-reset", b"2027-01-15T08:00:30Z"),
    ]
    assert [limits.duration(s) for s in (-1.0, 0.2, 59.1, 60.0, 150.0)] == [b"0s", b"1s", b"1m0s", b"1m0s", b"2m30s"]
    assert Face.limits(object(), shown)  # type: ignore[arg-type]


async def test_tokens_are_held_as_estimated_and_charged_as_used(tmp_path: Path, now: float) -> None:
    replies = [{"text": "four", "tokens": {"input": 20, "output": 10}}]
    async with serving(config(tmp_path, targets={"cheap": {"type": "scripted", "replies": replies}})) as client:
        key = await client.key("ann", limits={"tokens_per_minute": 100})
        for left in (70, 40, 10):
            status, _, _ = await client.ask(key, max_tokens=4)
            assert status == 200
            (account,) = client.gateway.door.keyring.callers["ann"].limits.tokens
            assert client.gateway.router.ledger.left(account, now=now) == left
        status, body, headers = await client.ask(key, max_tokens=4)
        assert (status, body["error"]["type"], headers["x-ratelimit-remaining-tokens"]) == (429, "tokens", "10")
        status, body, headers = await client.ask(key, messages=[{"role": "user", "content": "word " * 1000}])
        assert (status, headers.get("x-should-retry")) == (429, "false"), "no minute will ever have room for it"
        assert "retry-after" not in headers


async def test_a_failure_uses_no_tokens_and_a_hold_is_no_more_than_the_limit(tmp_path: Path, now: float) -> None:
    replies = ["ok", {"error": {"kind": "bad_request", "message": "no"}}]
    async with serving(config(tmp_path, targets={"cheap": {"type": "scripted", "replies": replies}})) as client:
        key = await client.key("ann", limits={"tokens_per_minute": 50})
        (account,) = client.gateway.door.keyring.callers["ann"].limits.tokens
        ledger = client.gateway.router.ledger
        assert (await client.ask(key, max_tokens=10**9))[0] == 200
        left = ledger.left(account, now=now)
        assert 30 <= left < 50
        assert (await client.ask(key, max_tokens=5))[0] == 400
        assert ledger.left(account, now=now) == left


async def test_concurrent_requests_are_given_back_however_they_end(tmp_path: Path) -> None:
    """Answered, failed, hung up: in the end there is room for as many as before."""
    targets = {**SLOW, "cheap": {"type": "scripted", "replies": ["ok", {"error": {"kind": "timeout"}}]}}
    async with serving(config(tmp_path, targets=targets)) as client:
        key = await client.key("ann", limits={"concurrent": 2})
        (account,) = client.gateway.door.keyring.callers["ann"].limits.concurrent
        ledger = client.gateway.router.ledger
        for _ in range(4):
            assert (await client.ask(key, model="cheap"))[0] in (200, 504)
        assert ledger.left(account) == 2
        hanging = [asyncio.ensure_future(client.ask(key, model="slow", stream=True)) for _ in range(2)]
        async with asyncio.timeout(5.0):
            while ledger.left(account):
                await asyncio.sleep(0.01)
        status, body, headers = await client.ask(key)
        assert (status, headers["retry-after"]) == (429, "1")
        assert "2 requests are under way" in body["error"]["message"]
        for task in hanging:
            task.cancel()  # which closes the connection
        await asyncio.wait(hanging)
        async with asyncio.timeout(5.0):
            while ledger.left(account) < 2:
                await asyncio.sleep(0.01)
        assert (await client.ask(key, model="cheap"))[0] in (200, 504)


async def test_a_front_end_pays_from_the_tenant_that_it_names(tmp_path: Path, now: float) -> None:
    tenants = {"tenant:red": {"limits": {"requests_per_minute": 1}}}
    async with serving(config(tmp_path, limits=tenants)) as client:
        front = await client.key("front", vouches=True)
        plain = await client.key("plain")
        red = {"headers": {"x-fairlead-tenant": "red"}}
        assert [(await client.ask(front, **red))[0] for _ in range(2)] == [200, 429]
        assert (await client.ask(front))[0] == 200
        assert (await client.ask(plain, **red))[0] == 200, "whoever does not vouch uses up nobody else's"


async def test_a_store_that_is_gone_is_no_free_money(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairlead.errors import StoreError

    async with serving(config(tmp_path)) as client:
        rated = await client.key("rated", limits={"requests_per_minute": 5})
        paid = await client.key("paid", budgets=[{"usd": 1.0, "period": "day"}])
        free = await client.key("free")

        def gone(*_: Any) -> Any:
            raise StoreError("gone")

        with monkeypatch.context() as m:
            m.setattr(client.gateway.router.store, "transact", gone)
            for key in (rated, paid):
                status, body, headers = await client.ask(key)
                assert (status, body["error"]["code"]) == (503, "ledger_unavailable")
                assert int(headers["retry-after"]) == 5
            assert (await client.ask(free))[0] == 200
        assert (await client.ask(rated))[0] == (await client.ask(paid))[0] == 200


async def test_load_shedding_answers_503_fast(tmp_path: Path) -> None:
    """One more than may be under way is told at once, before its body is read; afterwards there is room again."""
    async with serving(config(tmp_path, targets=SLOW | {"cheap": {"type": "scripted"}}, max_in_flight=2)) as client:
        key = await client.key("ann")
        hanging = [asyncio.ensure_future(client.ask(key, model="slow", stream=True)) for _ in range(2)]
        async with asyncio.timeout(5.0):
            while client.gateway.in_flight < 2:
                await asyncio.sleep(0.01)
        url = client.http._base_url
        assert url is not None
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5.0)  # though no byte of its body was sent
        assert b" 503 " in head
        assert b"retry-after: 1\r\n" in head
        body = json.loads(await asyncio.wait_for(reader.readuntil(b"}}"), 5.0))
        assert body["error"]["code"] == "overloaded"
        writer.close()
        assert (await client.ask(None, "/healthz", "GET"))[0] == 200
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
        async with asyncio.timeout(5.0):
            while client.gateway.in_flight:
                await asyncio.sleep(0.01)
        assert (await client.ask(key, model="cheap"))[0] == 200


async def test_what_is_not_there_is_not_asked_for_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    """Whoever goes on beyond a limit does not keep the store busy."""
    async with serving(config(tmp_path)) as client:
        key = await client.key("ann", limits={"requests_per_minute": 1})
        assert (await client.ask(key))[0] == 200
        store, asked = client.gateway.router.store, 0
        transact = store.transact

        def counted(name: str, work: Any) -> Any:
            nonlocal asked
            asked += name.startswith("lease on")
            return transact(name, work)

        monkeypatch.setattr(store, "transact", counted)
        began = time.monotonic()
        for _ in range(60):
            assert (await client.ask(key))[0] == 429
        assert asked <= 3 * (1 + math.ceil((time.monotonic() - began) / 0.1))
        assert asked < 60


async def test_without_limits_the_ledger_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    async with serving(config(tmp_path, keys={"own": hashed("fl-own")})) as client:
        monkeypatch.setattr(limits, "admit", never)
        for name in ("take", "try_take", "left"):
            monkeypatch.setattr(Ledger, name, never)
        assert (await client.ask("fl-own"))[0] == 200


async def test_with_room_in_the_lease_nobody_waits(tmp_path: Path, now: float) -> None:
    """The second request is let in without a turn of the event loop."""
    async with serving(config(tmp_path)) as client:
        rates = rates_of("key:x", LimitsConfig(requests_per_minute=100, tokens_per_minute=100_000, concurrent=50))
        ledger, query = client.gateway.router.ledger, Query.ask("hello")
        (await limits.admit(ledger, rates, query)).end(None, called=False)
        second = limits.admit(ledger, rates, query)
        with pytest.raises(StopIteration) as done:
            second.send(None)
        done.value.value.end(None, called=False)


def test_what_may_be_asked_for() -> None:
    for body, tokens in (
        ({}, 256),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9, "max_tokens": 7, "n": 2}, 18),
        ({"max_tokens": "many", "n": -1}, 256),
    ):
        assert limits.asked_for(Query.ask("x", **body)) == tokens


async def test_an_estimate_above_what_is_left_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        key = await client.key("ann", budgets=[{"usd": 0.0, "period": "total"}])
        status, body, headers = await client.ask(key)
        assert (status, body["error"]["code"]) == (402, "budget_exceeded")
        assert "key:ann: 0.000000 of 0 USD in all are left" in body["error"]["message"]
        assert "begins anew" not in body["error"]["message"]
        assert (headers["x-should-retry"], "retry-after" in headers) == ("false", False)
        targets = client.gateway.router.world.drivers
        assert not any(getattr(d, "asked", []) for d in targets.values())


async def test_a_request_whose_own_limit_is_too_low_is_not_told_of_its_accounts(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        key = await client.key("ann", budgets=[{"usd": 100.0, "period": "total"}])
        status, body, _ = await client.ask(key, fairlead={"max_usd": 0.0})
        assert (status, "key:ann" in body["error"]["message"]) == (402, False)
        assert "more than the query's budget" in body["error"]["message"]


async def test_two_gateways_share_rates(tmp_path: Path, now: float) -> None:
    """Of 200 requests at once over both, never more than the 60 of a minute; and two under way are two, wherever they are."""
    made = config(tmp_path, targets={**SLOW, "cheap": {"type": "scripted"}}, shared=True)
    async with serving(made) as a, serving(made) as b:
        key = await a.key("ann", limits={"requests_per_minute": 60})
        two = await a.key("two", limits={"concurrent": 2})
        await b.gateway.door.keyring.refresh()
        done = counts(await asyncio.gather(*((a, b)[i % 2].ask(key) for i in range(200))))
        assert set(done) == {200, 429}
        assert done[200] <= 60
        hanging = [asyncio.ensure_future(c.ask(two, model="slow", stream=True)) for c in (a, b)]
        async with asyncio.timeout(10.0):
            while a.gateway.in_flight + b.gateway.in_flight < 2:
                await asyncio.sleep(0.01)
            while {(await c.ask(two))[0] for c in (a, b)} != {429}:  # until both have asked the store
                await asyncio.sleep(0.05)
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
