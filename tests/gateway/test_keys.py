"""Keys: of the file and of the store, what they allow, how they end; and that no secret is written anywhere."""

import asyncio
import contextlib
import hashlib
import io
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from gateways import ADMIN, ASK, Client, config, serving, where  # noqa: F401 - a fixture

from fairlead.config import BudgetConfig, KeyConfig, ScopeConfig, make
from fairlead.errors import ConfigError
from fairlead.gateway import keys as keys_module
from fairlead.gateway.door import Door, hashed
from fairlead.gateway.keys import Keyring, new_key
from fairlead.gateway.refusal import Refused


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_key_lives(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """Made, used, changed, rotated with an overlap, revoked; each at once, and its name stays its own."""
    async with serving(config(tmp_path, store=where)) as client:
        key = await client.key("ann", tenant="red", roles=["reader"], metadata={"for": "tests"})
        assert (await client.ask(key))[0] == 200
        _, listed = await client.admin("GET", "keys")
        (shown,) = listed["data"]
        assert key not in str(listed)
        assert (shown["name"], shown["prefix"], shown["tenant"]) == ("ann", key[:8], "red")
        (trace,) = [t async for t in _traces(client)]
        assert (trace.query.identity.key, trace.query.identity.tenant) == ("ann", "red")
        assert trace.query.identity.roles == ("reader",)

        status, changed = await client.admin("PATCH", f"keys/{shown['id']}", {"team": "blue"})
        assert (status, changed["team"], changed["tenant"]) == (200, "blue", "red"), "what is left out stays"
        status, made = await client.admin("POST", f"keys/{shown['id']}/rotate", {"overlap_seconds": 60})
        assert status == 201
        assert (made["name"], made["team"]) == ("ann", "blue")
        assert (await client.ask(key))[0] == (await client.ask(made["key"]))[0] == 200
        status, _ = await client.admin("POST", f"keys/{shown['id']}/rotate")
        assert status == 409, "the new one is what is rotated next"
        status, again = await client.admin("POST", f"keys/{made['id']}/rotate")
        assert status == 201
        status, body, _ = await client.ask(made["key"])
        assert (status, body["error"]["code"]) == (401, "key_expired"), "no overlap was asked for"

        assert (await client.admin("DELETE", f"keys/{again['id']}"))[0] == 200
        status, body, _ = await client.ask(again["key"])
        assert (status, body["error"]["code"]) == (401, "key_revoked")
        status, taken = await client.admin("POST", "keys", {"name": "ann"})
        assert (status, taken["error"]["code"]) == (409, "key_name_taken")


async def _traces(client: Client) -> Any:
    for trace in await asyncio.to_thread(lambda: list(client.gateway.router.store.traces())):
        yield trace


async def test_keys_that_ended(tmp_path: Path) -> None:
    own = {
        "old": {"hash": hashed("fl-old"), "expires": datetime(2020, 1, 1)},
        "new": {"hash": hashed("fl-new"), "expires": datetime(2120, 1, 1)},
    }
    async with serving(config(tmp_path, keys=own)) as client:
        short = await client.key("short", expires=soon(-1.0))
        for key, code in (("fl-old", "key_expired"), (short, "key_expired"), ("fl-?", "invalid_api_key")):
            status, body, _ = await client.ask(key)
            assert (status, body["error"]["code"]) == (401, code)
        assert (await client.ask("fl-new"))[0] == 200
        assert (await client.ask(None))[0] == 401
        assert (await client.ask("fl-old", "/healthz", "GET"))[0] == 200, "what is open is open to all"


async def test_routes_and_targets_of_a_key(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        dear = await client.key("dear", routes=["auto", "dear"], targets=["dear"])
        some = await client.key("some", targets=["cheap"])
        status, body, _ = await client.ask(dear, model="cheap")
        assert (status, body["error"]["code"]) == (404, "model_not_found"), "as if there were none"
        status, _, headers = await client.ask(dear, model="dear")
        assert (status, headers["x-fairlead-target"]) == (200, "dear")
        assert (await client.ask(some, model="dear"))[0] == 404
        status, body, headers = await client.ask(some, fairlead={"allow": ["cheap"]})
        assert (status, headers["x-fairlead-target"]) == (200, "cheap")
        for asked in (["dear"], ["cheap", "dear"]):
            status, body, _ = await client.ask(some, fairlead={"allow": asked})
            assert (status, body["error"]["code"]) == (400, "unknown_target")
        status, body, _ = await client.ask(some, fairlead={"allow": []})
        assert (status, body["error"]["code"]) == (503, "no_eligible_target")
        status, body, _ = await client.ask(dear, "/v1/route", json={**ASK, "model": "cheap"})
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        for key, names in ((dear, {"auto", "dear"}), (some, {"auto", "cheap"})):
            _, listed, _ = await client.ask(key, "/v1/models", "GET")
            assert {m["id"] for m in listed["data"]} == names


async def test_a_new_key_works_at_once_on_every_replica(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """Made at one process of the store, used at the other; what is revoked ends there within the poll."""
    made = config(tmp_path, store=where, shared=True)
    async with serving(made) as a, serving(made) as b:
        key = await a.key("ann")
        found = await asyncio.gather(*(b.ask(key) for _ in range(20)))
        assert {status for status, _, _ in found} == {200}, "all of them, though one look is enough"
        (shown,) = (await b.admin("GET", "keys"))[1]["data"]
        assert (await b.admin("DELETE", f"keys/{shown['id']}"))[0] == 200
        assert (await b.ask(key))[0] == 401
        async with asyncio.timeout(10.0):
            while (await a.ask(key))[0] != 401:
                await asyncio.sleep(0.05)


async def test_a_flood_of_bad_keys_is_none_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown keys cause one look at the store in a second, all together; the poll is another."""
    async with serving(config(tmp_path)) as client:
        store, looks = client.gateway.router.store, 0
        fetch = store.fetch

        async def counted(sql: str, params: Any = ()) -> Any:
            nonlocal looks
            looks += "keys_" in sql
            return await fetch(sql, params)

        monkeypatch.setattr(store, "fetch", counted)
        began = time.monotonic()
        found = await asyncio.gather(*(client.ask(f"fl-bad-{i}") for i in range(200)))
        assert {status for status, _, _ in found} == {401}
        assert 1 <= looks <= 2 * (1 + int(time.monotonic() - began) + 1)


async def test_while_the_store_is_gone_known_keys_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairlead.errors import StoreError

    async with serving(config(tmp_path)) as client:
        key = await client.key("ann")

        async def gone(sql: str, params: Any = ()) -> Any:
            raise StoreError("gone")

        monkeypatch.setattr(client.gateway.router.store, "fetch", gone)
        assert (await client.ask("fl-unknown"))[0] == 401
        assert (await client.ask(key))[0] == 200
        assert (await client.admin("GET", "keys"))[0] == 503


async def test_the_door_does_not_open_when_the_last_key_goes(tmp_path: Path) -> None:
    async with serving(config(tmp_path, admin_keys={})) as client:
        assert (await client.ask())[0] == 200, "on loopback, without any key, it is open"
        assert (await client.ask(None, "/admin/keys", "GET"))[0] == 200, "and so is the admin API"
        keyring, store, who = client.gateway.door.keyring, client.gateway.router.store, keys_module.Actor(who="cli:me")
        made = await store.transact("test", lambda c: keys_module.create(c, who, keys_module.NewKey(name="first")))
        await keyring.refresh()
        assert (await client.ask())[0] == 401
        assert (await client.ask(made.key, "/admin/keys", "GET"))[0] == 404, "which is not there once there are keys"
        assert (await client.ask(made.key))[0] == 200
        await store.transact("test", lambda c: keys_module.revoke(c, who, made.id))
        await keyring.refresh()
        assert (await client.ask())[0] == 401


class Counted(dict[bytes, Any]):
    looked = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        self.looked += 1
        return super().get(key, default)


def test_timing_of_key_checks_every_key_takes_the_same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right, wrong, empty, revoked or a prefix of a right one: one hash and one look into one dict."""
    key = new_key()
    keyring = Keyring(keys={"a": hashed(key), "old": KeyConfig(hash=hashed("fl-o"), expires=datetime(2020, 1, 1))})
    hashes = 0
    sha256 = hashlib.sha256

    def counting(data: bytes) -> Any:
        nonlocal hashes
        hashes += 1
        return sha256(data)

    monkeypatch.setattr(keys_module.hashlib, "sha256", counting)
    keyring.kept = Counted(keyring.kept)
    for given in (key.encode(), key[:-1].encode(), b"", b"x" * 1000, b"fl-o"):
        before = hashes, keyring.kept.looked
        found = None
        with contextlib.suppress(Refused):  # it has expired
            found = keyring.find(given)
        assert (found is not None) == (given == key.encode())
        assert (hashes - before[0], keyring.kept.looked - before[1]) == (1, 1)


def test_what_a_config_may_not_say() -> None:
    day = {"usd": 1.0, "period": "day"}
    base: dict[str, Any] = {
        "targets": {"a": {"type": "scripted"}},
        "routes": {"auto": {"policy": "random"}},
    }
    for gateway, path in (
        ({"keys": {"k": {"hash": hashed("x"), "routes": ["atuo"]}}}, "$.gateway.keys.k.routes"),
        ({"keys": {"k": {"hash": hashed("x"), "targets": ["b"]}}}, "$.gateway.keys.k.targets"),
        ({"keys": {"k": {"hash": hashed("x"), "budgets": [{"usd": 1, "period": "week"}]}}}, "$.gateway.keys.k.budgets"),
    ):
        with pytest.raises(ConfigError) as caught:
            make({**base, "gateway": gateway})
        assert caught.value.path.startswith(path)
    budgets = make({**base, "gateway": {"limits": {"team:x": {"budgets": [day, day]}}}}).gateway.limits
    for more, path in (
        ({"limits": budgets}, "$.gateway.limits.team:x.budgets"),
        ({"limits": {"x": ScopeConfig()}}, "$.gateway.limits.x"),
        ({"admin_keys": {"root": "plain"}}, "$.gateway.admin_keys.root"),
    ):
        with pytest.raises(ConfigError) as caught:
            Door(keys={}, host="127.0.0.1", **more)
        assert caught.value.path == path
    Door(keys={}, host="0.0.0.0", admin_keys={"root": hashed("x")})
    with pytest.raises(ConfigError):
        Door(keys={}, host="0.0.0.0")


async def test_no_secret_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file, log line, reply and page of a run, searched for every key that was used in it, and for their hashes."""
    monkeypatch.setenv("THE_PROVIDER_KEY", "sk-provider-secret-of-the-test")
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    replies: list[bytes] = []
    targets = {
        "cheap": {"type": "scripted", "replies": ["four"]},
        "up": {
            "type": "openai_chat",
            "model": "m",
            "base_url": "http://127.0.0.1:9/v1",
            "api_key": "${THE_PROVIDER_KEY}",
        },
    }
    try:
        async with serving(config(tmp_path, targets=targets, keys={"own": hashed("fl-own-secret")})) as client:
            key = await client.key("ann", limits={"requests_per_minute": 3})
            (_, shown) = (await client.admin("GET", "keys"))[1]["data"]
            _, made = await client.admin("POST", f"keys/{shown['id']}/rotate", {"overlap_seconds": 9})
            secrets = [key, made["key"], ADMIN, "fl-own-secret", "sk-provider-secret-of-the-test"]
            for secret in secrets:
                for _ in range(4):
                    for model in ("auto", "up", secret):
                        replies.append(_bytes(await client.ask(secret, model=model)) if model != secret else b"")
                await client.ask(secret + "x")
                await client.ask(secret, headers={"x-fairlead-user": "me"}, stream=True)
            paths = ["/", "/metrics", "/v1/stats", "/v1/traces", "/v1/models", "/healthz", "/readyz", "/openapi.json"]
            for path in paths:
                replies.append(_bytes(await client.ask("fl-own-secret", path, "GET")))
            for path in ("keys", "audit", "spend", "state", "config", "limits"):
                replies.append(_bytes(await client.ask(ADMIN, f"/admin/{path}", "GET")))
            await client.admin("DELETE", f"keys/{made['id']}")
            files = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]  # with its journal, while it runs
        files += [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    finally:
        logging.getLogger().removeHandler(handler)
    assert b"ann" in b"".join(files), "the search finds what is there"
    for secret in secrets:
        hashed_ = hashlib.sha256(secret.encode()).hexdigest().encode()
        for what in (lines.getvalue().encode(), *replies, *files):
            assert secret.encode() not in what
        for what in (lines.getvalue().encode(), *replies):
            assert hashed_ not in what


def _bytes(answer: tuple[int, Any, Any]) -> bytes:
    status, body, headers = answer
    return repr((status, body, dict(headers))).encode()


def test_a_scope_has_the_same_accounts_whoever_asks_for_it() -> None:
    """The ledger knows an account by its identity: keys of one team, and tenants that a front end vouches for, share theirs."""
    budget = [BudgetConfig(usd=1.0, period="month")]
    ann, bob = (KeyConfig(hash=hashed(f"fl-{n}"), team="x", vouches=True) for n in ("ann", "bob"))
    ring = Keyring(
        keys={"ann": ann, "bob": bob}, limits={s: ScopeConfig(budgets=budget) for s in ("team:x", "tenant:t")}
    )
    one, two = ring.callers["ann"], ring.callers["bob"]
    assert one.accounts[0] is two.accounts[0]
    assert ring.on_behalf(one, "t").accounts[1] is ring.on_behalf(two, "t").accounts[1]
    assert ring.on_behalf(one, "other") is one


async def test_the_look_for_keys_outlives_what_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys_module, "POLL_SECONDS", 0.01)
    async with serving(config(tmp_path)) as client:
        ring = client.gateway.door.keyring
        with monkeypatch.context() as patched:
            patched.setattr(ring, "_fill", lambda: 1 / 0)
            await client.gateway.router.store.transact("a change", keys_module._changed)
            while "the look for changed keys broke" not in caplog.text:
                await asyncio.sleep(0.01)
        issued = await client.gateway.router.store.transact(
            "a key", lambda c: keys_module.create(c, keys_module.Actor(who="test"), keys_module.NewKey(name="ann"))
        )
        while ring.find(issued.key.encode()) is None:
            await asyncio.sleep(0.01)


async def test_a_key_that_has_expired_is_not_rotated(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        await client.key("ann", expires=soon(-1))
        _, listed = await client.admin("GET", "keys")
        id = listed["data"][0]["id"]
        status, body = await client.admin("POST", f"keys/{id}/rotate")
        assert (status, body["error"]["code"]) == (409, "key_expired")
        assert (await client.admin("PATCH", f"keys/{id}", {"expires": soon(60)}))[0] == 200
        assert (await client.admin("POST", f"keys/{id}/rotate"))[0] == 201
