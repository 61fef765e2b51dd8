"""Two tenants and one gateway: whatever an id leads to is its own tenant's, and another is told that there is nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gateways import PRICES, Client, config, serving, where  # noqa: F401 - a fixture

from fairlead.config import make
from fairlead.gateway.door import hashed

RED, BLUE = "fl-red-key-of-the-tests", "fl-blue-key-of-the-tests"
KEYS: dict[str, Any] = {
    name: {"hash": hashed(key), "tenant": name, "budgets": [{"usd": 50, "period": "day"}]}
    for name, key in (("red", RED), ("blue", BLUE))
}
LINE = json.dumps(
    {
        "custom_id": "c",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "auto", "messages": [{"role": "user", "content": "of the red"}]},
    }
)


async def test_what_is_one_tenants_is_nobody_elses(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    made = config(tmp_path, store=where, keys=KEYS, limits={"tenant:red": {"limits": {"requests_per_minute": 3}}})
    async with serving(made) as client:
        status, answer, headers = await client.ask(RED, user="of the red")
        assert status == 200
        trace = headers["x-fairlead-id"]
        _, kept, _ = await client.ask(RED, "/v1/responses", json={"model": "auto", "input": "of the red"})
        form = (
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="red.jsonl"\r\n\r\n%b\r\n--b--\r\n'
        ) % LINE.encode()
        upload = {"authorization": f"Bearer {RED}", "content-type": "multipart/form-data; boundary=b"}
        async with client.http.post("/v1/files", data=form, headers=upload) as reply:
            file = (await reply.json())["id"]
        begin = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        _, batch, _ = await client.ask(RED, "/v1/batches", json=begin)
        async with asyncio.timeout(20):
            while batch["status"] != "completed":
                await asyncio.sleep(0.05)
                _, batch, _ = await client.ask(RED, f"/v1/batches/{batch['id']}", "GET")
        out, said, conversation = batch["output_file_id"], answer["id"], kept["id"]

        asked: list[tuple[str, str, Any]] = [
            ("GET", f"/v1/traces/{trace}", None),
            ("GET", f"/v1/traces/{said}", None),
            ("GET", f"/v1/traces/{conversation}", None),
            ("POST", "/v1/feedback", {"id": trace, "value": 0.0}),
            ("POST", "/v1/feedback", {"id": trace, "correction": "x"}),
            ("POST", "/v1/feedback", {"response_id": conversation, "value": 0.0}),
            ("GET", f"/v1/responses/{conversation}/input_items", None),
            ("GET", f"/v1/responses/{conversation}", None),
            ("DELETE", f"/v1/responses/{conversation}", None),
            ("POST", "/v1/responses", {"model": "auto", "input": "x", "previous_response_id": conversation}),
            ("POST", "/v1/batches", begin),
            ("POST", "/v1/batches", {**begin, "input_file_id": out}),
            ("GET", f"/v1/batches/{batch['id']}", None),
            ("POST", f"/v1/batches/{batch['id']}/cancel", None),
            *(("GET", f"/v1/files/{id}{more}", None) for id in (file, out) for more in ("", "/content")),
            *(("DELETE", f"/v1/files/{id}", None) for id in (file, out)),
        ]
        claims = {"x-fairlead-tenant": "red", "x-fairlead-user": "red"}
        for said_too in ({}, claims):
            for method, path, body in asked:
                status, told, _ = await client.ask(BLUE, path, method, json=body, headers=dict(said_too))
                assert status == 404, (method, path, told)
                assert "of the red" not in str(told)
            lists = [
                "/v1/traces",
                "/v1/decisions",
                "/v1/decisions?tenant=red",
                "/v1/decisions?word=red",
                "/v1/files",
                "/v1/batches",
                f"/v1/files?after={file}",
                f"/v1/batches?after={batch['id']}",
            ]
            for path in lists:
                status, told, _ = await client.ask(BLUE, path, "GET", headers=dict(said_too))
                assert (status, told["data"]) == (200, []), path
            _, stats, _ = await client.ask(BLUE, "/v1/stats", "GET", headers=dict(said_too))
            assert stats["recent"] == []
            assert "of the red" not in str(stats)
            for path in ("/v1/models", "/metrics"):
                _, told, _ = await client.ask(BLUE, path, "GET", headers=dict(said_too))
                assert trace not in str(told)
                assert "of the red" not in str(told)

        for method, path, body in asked[:10]:  # the same for whose they are: the table asks for what is there
            if method != "DELETE":
                assert (await client.ask(RED, path, method, json=body))[0] in (200, 400, 429), (method, path)

        while (await client.ask(RED))[0] == 200:
            pass
        status, told, _ = await client.ask(RED)
        assert (status, told["error"]["code"]) == (429, "rate_limit_exceeded")
        for _ in range(5):
            status, _, _ = await client.ask(BLUE, headers={"x-fairlead-tenant": "red"})
            assert status == 200, "another tenant's rates are not used up, nor does it pay from them"
        judged = await asyncio.to_thread(client.gateway.router.store.feedback, trace)
        assert {f.by for f in judged} == {"red"}


# ---------------------------------------------------------------------------------------------------------------- caches

FRONT, TWIN = "fl-front-key-of-the-tests", "fl-red-twin-of-the-tests"
MORE: dict[str, Any] = {
    "front": {"hash": hashed(FRONT), "vouches": True},
    "twin": {"hash": hashed(TWIN), "tenant": "red"},
}
QUESTION, ALIKE = "What is the capital of France?", "what is the capital of France ?"
Who = tuple[str, dict[str, str]]
OTHERS: dict[str, tuple[Who, Who]] = {
    "another tenant": ((RED, {}), (BLUE, {})),
    "another tenant that says it is this one": (
        (RED, {}),
        (BLUE, {"x-fairlead-tenant": "red", "x-fairlead-user": "ann"}),
    ),
    "another key of the tenant": ((RED, {}), (TWIN, {})),
    "a front end": ((RED, {}), (FRONT, {"x-fairlead-tenant": "red"})),
    "two tenants behind a front end": ((FRONT, {"x-fairlead-tenant": "red"}), (FRONT, {"x-fairlead-tenant": "blue"})),
    "one and none behind a front end": ((FRONT, {"x-fairlead-tenant": "red"}), (FRONT, {})),
}


@pytest.mark.parametrize("similar", [None, 0.8], ids=["exact", "similar"])
async def test_no_answer_of_one_tenant_comes_out_of_the_cache_for_another(
    tmp_path: Path, similar: float | None
) -> None:
    """Neither for the same question nor for one like it, nor for two that are asked at once; nor does the time tell, as it is a miss."""
    cache = {"similar": similar} if similar else {}
    made = make(
        {
            "targets": {
                "a": {"type": "scripted", "replies": [{"text": "Paris", "delay_seconds": 0.01}], "profile": PRICES}
            },
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
            "guards": [{"name": "cached", "do": ["cache"]}],
            "actions": {"cache": cache},
            "store": {"path": str(tmp_path / "s.sqlite")},
            "gateway": {"port": 0, "keys": KEYS | MORE},
        }
    )
    async with serving(made) as client:

        async def ask(who: Who, question: str, n: int) -> str:
            key, headers = who
            body = {"messages": [{"role": "user", "content": question}], "seed": n, "temperature": 0}
            status, answer, told = await client.ask(key, headers=dict(headers), **body)
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "Paris")
            tag: str = told["x-fairlead-tag-cache"]
            return tag

        for n, (why, (one, other)) in enumerate(OTHERS.items()):
            for seed, question in (n, QUESTION), (50 + n, ALIKE):
                assert await ask(one, QUESTION, seed) == "miss", why
                assert await ask(other, question, seed) == "miss", why
            # It is there, for whose it is.
            assert await ask(one, QUESTION, n) == "hit", why
            assert await ask(one, ALIKE, n) == ("similar" if similar else "miss"), why
            at_once = await asyncio.gather(*(ask(who, QUESTION, 100 + n) for who in (one, other, one, other)))
            assert sorted(at_once) == ["hit", "hit", "miss", "miss"], why


# --------------------------------------------------------------------------------------------------------------- budgets


async def test_no_tenant_spends_what_another_may(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """What one has used up is used up for it alone; and no name in a request makes another pay, or tells what is left of its budget."""
    limits = {f"tenant:{name}": {"budgets": [{"usd": 0.01, "period": "day"}]} for name in ("red", "blue")}
    async with serving(config(tmp_path, store=where, keys=KEYS | MORE, limits=limits)) as client:
        claims = {"x-fairlead-tenant": "red", "x-fairlead-user": "red"}
        said: list[dict[str, Any]] = [
            {"headers": claims},
            {"fairlead": {"tenant": "red"}},
            {"user": "red"},
            {"metadata": {"tenant": "red"}},
        ]
        for more in said:
            assert (await client.ask(BLUE, **more))[0] == 200
        spent = dict(await _spent(client))
        assert spent["tenant:blue/usd"] > 0
        assert not spent.get("tenant:red/usd")
        while (reply := await client.ask(BLUE))[0] == 200:
            pass
        assert (reply[0], reply[1]["error"]["code"]) == (402, "budget_exceeded")
        for more in said:
            status, told, _ = await client.ask(BLUE, **more)
            assert status == 402
            assert "red" not in str(told)
        assert (await client.ask(RED))[0] == 200
        assert (await client.ask(TWIN))[0] == 200
        assert (await client.ask(FRONT, headers={"x-fairlead-tenant": "blue"}))[0] == 402, (
            "who vouches pays from whom it names"
        )
        assert (await client.ask(FRONT, headers={"x-fairlead-tenant": "red"}))[0] == 200
        for path in ("/admin/spend", "/admin/keys", "/admin/audit"):
            assert (await client.ask(BLUE, path, "GET"))[0] == 401


async def _spent(client: Client) -> list[tuple[str, int]]:
    store = client.gateway.router.store
    return await asyncio.to_thread(lambda: store.rows("SELECT name, spent FROM ledger_accounts"))  # type: ignore[attr-defined]
