"""Two tenants and one gateway: whatever an id leads to is its own tenant's, and another is told that there is nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

from gateways import config, serving, where  # noqa: F401 - a fixture

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
