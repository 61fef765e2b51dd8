"""The admin API over a real socket: who may come in, what it changes, what it writes down."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateways import ADMIN, config, serving, where  # noqa: F401 - a fixture

from fairlead.config import Config
from fairlead.errors import ConfigError, StoreError
from fairlead.gateway.door import hashed


async def test_who_may_come_in(tmp_path: Path) -> None:
    """Its own key only, which opens nothing else; without admin keys it is not there; foreign pages never."""
    async with serving(config(tmp_path, keys={"own": hashed("fl-own")})) as client:
        for key, status in ((None, 401), ("fl-own", 401), ("fl-no", 401), (ADMIN, 200)):
            assert (await client.ask(key, "/admin/keys", "GET"))[0] == status
        status, body, headers = await client.ask(None, "/admin/nowhere", "GET")
        assert (status, body["error"]["code"], headers["www-authenticate"]) == (401, "invalid_admin_key", "Bearer")
        assert (await client.ask(ADMIN))[0] == 401
        assert (await client.ask(ADMIN, "/admin/nowhere", "GET"))[0] == 404
        status, _, headers = await client.ask(ADMIN, "/admin/keys", "PUT")
        assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
    (tmp_path / "b").mkdir()
    async with serving(config(tmp_path / "b", keys={"own": hashed("fl-own")}, admin_keys={})) as client:
        status, body, _ = await client.ask("fl-own", "/admin/keys", "GET")
        assert (status, body["error"]["code"]) == (404, "not_found")
        _, body, _ = await client.ask("fl-own", "/nowhere", "GET")
        assert "/admin" not in body["error"]["message"].replace("/nowhere", "")
    (tmp_path / "c").mkdir()
    async with serving(config(tmp_path / "c", admin_keys={})) as client:
        assert (await client.ask(None, "/admin/keys", "GET"))[0] == 200
        for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
            assert (await client.ask(None, "/admin/keys", json={"name": "x"}, headers=headers))[0] == 403


async def test_what_is_refused(tmp_path: Path) -> None:
    """Bad input is a 4xx that says what is wrong, and changes nothing."""
    own = {"own": {"hash": hashed("fl-own")}}
    async with serving(config(tmp_path, keys=own, limits={"team:file": {}})) as client:
        await client.key("ann")
        _, listed = await client.admin("GET", "keys")
        ids = {k["name"]: k["id"] for k in listed["data"]}
        day = {"usd": 1, "period": "day"}
        cases: list[tuple[str, str, Any, int, str]] = [
            ("POST", "keys", None, 400, "invalid_json"),
            ("POST", "keys", [], 400, "invalid_type"),
            ("POST", "keys", {}, 400, "invalid_type"),
            ("POST", "keys", {"name": "a/b"}, 400, "invalid_type"),
            ("POST", "keys", {"name": "x", "surprise": 1}, 400, "invalid_type"),
            ("POST", "keys", {"name": "x", "tenant": ""}, 400, "invalid_type"),
            ("POST", "keys", {"name": "x", "tenant": "a\x00b"}, 400, "invalid_type"),
            ("POST", "keys", {"name": "x", "tenant": "a\n"}, 400, "invalid_value"),
            ("POST", "keys", {"name": "x", "budgets": [day, day]}, 400, "invalid_value"),
            ("POST", "keys", {"name": "x", "budgets": [{"usd": -1, "period": "day"}]}, 400, "invalid_type"),
            ("POST", "keys", {"name": "x", "limits": {"concurrent": 0}}, 400, "invalid_type"),
            ("POST", "keys", {"name": "x", "expires": "tomorrow"}, 400, "invalid_type"),
            ("POST", "keys", {"name": "x", "routes": ["atuo"]}, 404, "unknown_route"),
            ("POST", "keys", {"name": "x", "targets": ["auto"]}, 404, "unknown_target"),
            ("POST", "keys", {"name": "ann"}, 409, "key_name_taken"),
            ("POST", "keys", {"name": "own"}, 409, "key_name_taken"),
            ("PATCH", f"keys/{ids['ann']}", {"name": "bob"}, 400, "invalid_type"),
            ("PATCH", f"keys/{ids['own']}", {"team": "x"}, 409, "key_of_config"),
            ("DELETE", f"keys/{ids['own']}", None, 409, "key_of_config"),
            ("PATCH", "keys/none", {}, 404, "key_not_found"),
            ("GET", "keys/none", None, 404, "key_not_found"),
            ("POST", f"keys/{ids['ann']}/rotate", {"overlap_seconds": -1}, 400, "invalid_type"),
            ("GET", "limits/team:none", None, 404, "limits_not_found"),
            ("DELETE", "limits/team:none", None, 404, "limits_not_found"),
            ("PUT", "limits/none", {}, 400, "invalid_scope"),
            ("PUT", "limits/team:file", {}, 409, "limits_of_config"),
            ("PUT", "limits/team:x", {"budgets": [day, day]}, 400, "invalid_value"),
            ("GET", "audit?limit=0", None, 400, "invalid_value"),
            ("GET", "audit?limit=%C2%B2", None, 400, "invalid_value"),
            ("GET", "audit?before=x", None, 400, "invalid_value"),
            ("POST", "reload", None, 409, "config_error"),
            ("POST", "routes/none/activate", {"version": 1}, 404, "route_not_found"),
            ("POST", "routes/auto/activate", {"version": 99}, 404, "version_not_found"),
            ("POST", "routes/auto/activate", {"version": 0}, 400, "invalid_type"),
            ("POST", "drain", {"on": "yes"}, 400, "invalid_type"),
        ]
        for method, path, body, status, code in cases:
            got, reply = await client.admin(method, path, body)
            assert (got, reply["error"]["code"]) == (status, code), (method, path, body)
        _, listed = await client.admin("GET", "keys")
        assert {k["name"]: k["id"] for k in listed["data"]} == ids


async def test_an_open_gateway_makes_no_first_key(tmp_path: Path) -> None:
    """It would close the gateway to everybody, the admin API included. With an admin key, which a reload brings, keys are made."""
    now = [config(tmp_path, admin_keys={})]
    async with serving(now[0], load=lambda: now[-1]) as client:
        assert (await client.admin("GET", "config"))[1]["open"] is True
        status, refused = await client.admin("POST", "keys", {"name": "carol"})
        assert (status, refused["error"]["code"]) == (409, "admin_key_needed")
        assert "fairlead key new --admin" in refused["error"]["message"]
        assert "gateway.admin_keys" in refused["error"]["message"]
        assert (await client.admin("GET", "keys"))[1]["data"] == []
        assert (await client.ask())[0] == 200, "nobody is locked out"
        now.append(config(tmp_path))
        assert (await client.admin("POST", "reload"))[0] == 200
        assert (await client.admin("GET", "config"))[1]["open"] is False
        assert (await client.ask(await client.key("carol")))[0] == 200
        assert (await client.ask())[0] == 401


async def test_sql_in_every_word_is_a_word(tmp_path: Path) -> None:
    evil = "x'); DROP TABLE keys_issued; --"
    async with serving(config(tmp_path)) as client:
        await client.key("ann", tenant=evil, team=evil, user=evil, roles=[evil], metadata={evil: evil})
        assert (await client.admin("PUT", f"limits/team:{evil}", {"limits": {"concurrent": 1}}))[0] == 200
        assert (await client.admin("GET", f"limits/team:{evil}"))[1]["scope"] == f"team:{evil}"
        for path in (f"keys/{evil}", f"keys/{evil}/rotate"):
            assert (await client.admin("GET" if path.endswith("--") else "POST", path))[0] == 404
        assert [k["team"] for k in (await client.admin("GET", "keys"))[1]["data"]] == [evil]
        assert (await client.admin("DELETE", f"limits/team:{evil}"))[0] == 204


async def test_the_audit_log_tells_who_did_what(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """Each change, in order, without keys or hashes; and nobody can change a line."""
    async with serving(config(tmp_path, store=where)) as client:
        key = await client.key("ann", budgets=[{"usd": 2, "period": "day"}], metadata={"note": "private words"})
        (shown,) = (await client.admin("GET", "keys"))[1]["data"]
        await client.admin("PATCH", f"keys/{shown['id']}", {"limits": {"concurrent": 3}, "user": None})
        await client.admin("PUT", "limits/team:x", {"limits": {"concurrent": 1}})
        await client.admin("DELETE", "limits/team:x")
        await client.admin("DELETE", f"keys/{shown['id']}")
        await client.admin("DELETE", f"keys/{shown['id']}")
        await client.admin("POST", "drain", {"on": True})
        await client.admin("POST", "drain", {"on": False})
        _, log = await client.admin("GET", "audit")
        lines = log["data"][::-1]
        assert [line["what"] for line in lines] == [
            "key.create",
            "key.change",
            "limits.set",
            "limits.drop",
            "key.revoke",
            "gateway.drain",
            "gateway.drain",
        ]
        assert {(line["who"], line["address"]) for line in lines} == {("root", "127.0.0.1")}
        assert lines[0]["detail"]["budgets"] == [{"usd": 2.0, "period": "day"}]
        assert lines[0]["detail"]["metadata"] == ["note"]
        assert lines[1]["detail"]["limits"]["concurrent"] == 3
        assert not any(secret in str(log) for secret in (key, key[8:], hashed(key)[7:], "private words"))
        _, page = await client.admin("GET", f"audit?limit=2&before={lines[3]['seq']}")
        assert [line["seq"] for line in page["data"]] == [lines[2]["seq"], lines[1]["seq"]]
        for statement in ("UPDATE keys_audit SET who = 'nobody'", "DELETE FROM keys_audit"):
            with pytest.raises(StoreError, match="append-only"):
                await client.gateway.router.store.transact("test", lambda c, s=statement: c.execute(s))


async def test_limits_of_a_team_change_at_once(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        key = await client.key("ann", team="x")
        zero = {"budgets": [{"usd": 0, "period": "month"}]}
        assert (await client.ask(key))[0] == 200
        assert (await client.admin("PUT", "limits/team:x", zero))[1]["budgets"] == [{"usd": 0.0, "period": "month"}]
        assert (await client.ask(key))[0] == 402
        assert (await client.admin("GET", "limits"))[1]["data"][0]["scope"] == "team:x"
        assert (await client.admin("DELETE", "limits/team:x"))[0] == 204
        assert (await client.ask(key))[0] == 200


async def test_spend_of_every_account(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        budgets = [{"usd": 5, "period": "month"}, {"usd": 9, "period": "total"}]
        key = await client.key("ann", team="x", budgets=budgets, limits={"requests_per_minute": 50})
        await client.admin("PUT", "limits/team:x", {"budgets": [{"usd": 1, "period": "day"}]})
        await client.ask(key)
        usd = sum(t.usd or 0.0 for t in await asyncio.to_thread(lambda: list(client.gateway.router.store.traces())))
        _, shown = await client.admin("GET", "spend")
        rows = {(r["account"], r["period"]): r for r in shown["data"]}
        assert set(rows) == {
            ("key:ann/requests", "minute"),
            ("key:ann/usd", "month"),
            ("key:ann/usd", "total"),
            ("team:x/usd", "day"),
        }
        for row in rows.values():
            assert row["left"] == row["limit"] - row["spent"] - row["held"]
            assert (row["ends"] is None) == (row["period"] == "total")
        assert {r["spent"] for r in rows.values() if r["unit"] == "micro_usd"} == {round(usd * 1e6)}


async def test_reload_and_config(tmp_path: Path) -> None:
    """A good config takes the live one's place, keys of the store stay; a bad one changes nothing."""
    now: list[Config | str] = []

    def load() -> Config:
        if isinstance(now[-1], str):
            raise ConfigError(now[-1])
        return now[-1]

    now.append(config(tmp_path, keys={"own": hashed("fl-own")}))
    async with serving(now[0], load=load) as client:  # type: ignore[arg-type]
        issued = await client.key("ann")
        before = (await client.admin("GET", "config"))[1]
        assert before["routes"] == ["auto"]
        now.append("a key is wrong")
        status, reply = await client.admin("POST", "reload")
        assert (status, reply["error"]["code"]) == (409, "config_error")
        assert (await client.admin("GET", "config"))[1] == before
        now.append(config(tmp_path, keys={"other": hashed("fl-other")}))
        status, reply = await client.admin("POST", "reload")
        after = (await client.admin("GET", "config"))[1]
        assert (status, reply) == (200, {"digest": after["digest"], "before": before["digest"]})
        assert (after["digest"] != before["digest"], after["reloads"]) == (True, 1)
        keys = {"fl-own": 401, "fl-other": 200, issued: 200}
        assert {key: (await client.ask(key))[0] for key in keys} == keys
        lines = (await client.admin("GET", "audit"))[1]["data"]
        assert [line["what"] for line in lines] == ["config.reload", "config.refused", "key.create"]
        assert lines[0]["detail"] == {"before": before["digest"]}
        assert lines[1]["detail"] == {"why": "a key is wrong"}


async def test_roll_back_while_serving(tmp_path: Path) -> None:
    made = config(tmp_path)
    data = msgspec.to_builtins(made.file)
    data["routes"]["auto"]["policy"] = {"type": "thompson", "features": {"signals": ["length"]}}
    data["learning"] = {"batch": 1, "seconds": 0.0}
    from fairlead.config import make

    async with serving(make(data)) as client:
        key = await client.key("ann")
        for _ in range(2):
            _, reply, _ = await client.ask(key)
            await client.ask(key, "/v1/feedback", json={"id": reply["id"], "value": 1.0})
        assert await asyncio.to_thread(client.gateway.router.learner.wait, 5)
        _, state = await client.admin("GET", "state")
        auto = state["routes"]["auto"]
        first, last = auto["versions"][0]["version"], auto["version"]
        assert last > first
        assert state["targets"]["cheap"] == {"state": "closed", "resting_seconds": 0.0, "failures_in_a_row": 0}
        assert state["learner"]["learned"] == 2
        status, active = await client.admin("POST", "routes/auto/activate", {"version": first})
        assert (status, active["version"], active["active"]) == (200, first, True)
        _, _, headers = await client.ask(key)
        assert headers["x-fairlead-version"] == str(first)


async def test_drain(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        key = await client.key("ann")
        assert (await client.ask(None, "/readyz", "GET"))[0] == 200
        assert await client.admin("POST", "drain") == (200, {"draining": True, "in_flight": 0})
        status, body, _ = await client.ask(None, "/readyz", "GET")
        assert (status, body["status"]) == (503, "draining")
        assert (await client.ask(key))[0] == 200, "who comes all the same is answered"
        assert (await client.admin("POST", "drain", {"on": False}))[1]["draining"] is False
        assert (await client.ask(None, "/readyz", "GET"))[0] == 200


async def test_what_was_done_is_said_even_if_the_store_goes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A new key is shown but once: it is shown though it cannot be read again. An audit line that cannot be written is in the log."""
    async with serving(config(tmp_path), load=lambda: config(tmp_path)) as client:

        def gone(*_: Any, **__: Any) -> Any:
            raise StoreError("gone")

        with monkeypatch.context() as patched:
            patched.setattr(client.gateway.door.keyring, "refresh", gone)
            key = await client.key("ann")
            zero = {"budgets": [{"usd": 0, "period": "month"}]}
            status, said = await client.admin("PUT", "limits/team:x", zero)
            assert (status, said["scope"], said["source"]) == (200, "team:x", "store")
        assert (await client.admin("GET", "limits/team:x"))[0] == 200
        assert (await client.ask(key))[0] == 200
        with monkeypatch.context() as patched:
            patched.setattr("fairlead.gateway.keys.note", gone)
            assert (await client.admin("POST", "drain", {"on": True}))[0] == 200
        assert "gateway.drain gateway by root from 127.0.0.1" in caplog.text


async def test_an_activation_that_is_refused_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(config(tmp_path)) as client:
        router = client.gateway.router
        (first,) = router.store.versions("auto")
        policy = router.serving["auto"].policy
        await asyncio.to_thread(router.publish, "auto", policy, "by hand")
        second = router.serving["auto"].version
        assert second != first.version
        for of, answer, code in ((router, None, "route_changed"), (router.learner, False, "route_learning")):
            name = "resume" if of is router else "wait"
            with monkeypatch.context() as patched:
                patched.setattr(of, name, lambda *_, answer=answer, **__: answer)
                status, body = await client.admin("POST", "routes/auto/activate", {"version": first.version})
            assert (status, body["error"]["code"]) == (409, code)
            active = router.store.active("auto")
            assert active is not None
            assert active.version == router.serving["auto"].version == second
        assert (await client.admin("POST", "routes/auto/activate", {"version": first.version}))[0] == 200
        assert router.serving["auto"].version == first.version
