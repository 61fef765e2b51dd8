"""The description of the API says what is there: every route, every type, every status; made of the structs themselves."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateways import ADMIN, config, serving

from fairlead.gateway.app import Gateway
from fairlead.gateway.openapi import ENDPOINTS, ErrorBody, Loose, Text


def documented(gateway: Gateway) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(gateway._described())
    return made


def test_every_route_of_the_application_and_no_other(tmp_path: Path) -> None:
    gateway = Gateway.of(config(tmp_path))
    served = {("POST", face.path) for face in gateway.faces}
    for route in gateway._rest.routes:
        served |= {(m, route.path.replace(":path}", "}")) for m in (route.methods or ()) if m != "HEAD"}  # type: ignore[attr-defined]
    paths = documented(gateway)["paths"]
    assert {(m.upper(), path) for path, methods in paths.items() for m in methods} == served
    assert len({(e.method, e.path) for e in ENDPOINTS}) == len(ENDPOINTS)


def test_every_reference_leads_somewhere_and_none_is_left_over(tmp_path: Path) -> None:
    made = documented(Gateway.of(config(tmp_path)))
    text = json.dumps(made)
    schemas = made["components"]["schemas"]
    for name in schemas:
        assert f"#/components/schemas/{name}" in text, f"{name} is never used"
    for reference in text.split("#/components/schemas/")[1:]:
        assert reference.partition('"')[0] in schemas
    ids = [op["operationId"] for methods in made["paths"].values() for op in methods.values()]
    assert len(set(ids)) == len(ids)
    assert made["openapi"] == "3.1.0"


async def test_what_is_given_is_what_is_described(tmp_path: Path) -> None:
    """Each admin endpoint, asked: its status and its reply's type are the table's, nothing missing and nothing more."""
    table = {(e.method, e.path): e for e in ENDPOINTS}
    async with serving(config(tmp_path)) as client:
        _, made = await client.admin("POST", "keys", {"name": "ann", "budgets": [{"usd": 1, "period": "total"}]})
        _, other = await client.admin("POST", "keys", {"name": "bob"})
        await client.ask(made["key"])
        asked: list[tuple[str, str, Any]] = [
            ("POST", "/admin/keys", {"name": "eve"}),
            ("GET", "/admin/keys", None),
            ("GET", f"/admin/keys/{made['id']}", None),
            ("PATCH", f"/admin/keys/{made['id']}", {"team": "x"}),
            ("POST", f"/admin/keys/{made['id']}/rotate", {"overlap_seconds": 5}),
            ("DELETE", f"/admin/keys/{other['id']}", None),
            ("PUT", "/admin/limits/team:x", {"limits": {"concurrent": 2}}),
            ("GET", "/admin/limits/team:x", None),
            ("GET", "/admin/limits", None),
            ("GET", "/admin/spend", None),
            ("DELETE", "/admin/limits/team:x", None),
            ("GET", "/admin/audit", None),
            ("GET", "/admin/config", None),
            ("GET", "/admin/state", None),
            ("POST", "/admin/routes/auto/activate", {"version": 1}),
            ("POST", "/admin/drain", None),
        ]
        seen = set()
        for method, path, body in asked:
            name = path.replace(made["id"], "{id}").replace(other["id"], "{id}")
            name = name.replace("team:x", "{scope}").replace("/auto/", "/{route}/")
            endpoint = table[method, name]
            seen.add((method, name))
            async with client.http.request(
                method, path, json=body, headers={"authorization": f"Bearer {ADMIN}"}
            ) as reply:
                raw = await reply.read()
                assert reply.status == endpoint.status, (method, path, raw)
            if endpoint.gives is None:
                assert raw == b""
                continue
            read = msgspec.json.decode(raw, type=endpoint.gives)
            assert json.loads(msgspec.json.encode(read)) == json.loads(raw)
        admin = {key for key, e in table.items() if e.key == "admin"}
        assert admin - seen == {("POST", "/admin/reload")}, "which tests/gateway/test_admin.py asks"
        for path in ("/admin/keys/none", "/nowhere", "/v1/traces/none"):
            status, body, _ = await client.ask(ADMIN if "admin" in path else made["key"], path, "GET")
            assert status == 404
            assert msgspec.to_builtins(msgspec.convert(body, ErrorBody)) == body


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_every_endpoint_says_enough(endpoint: Any) -> None:
    assert endpoint.says.endswith(".")
    assert endpoint.gives is None or isinstance(endpoint.gives, Text) or endpoint.gives == Loose or endpoint.gives
    if endpoint.takes is not None:
        assert 400 in endpoint.errors
        assert 413 in endpoint.errors
    if "{" in endpoint.path and endpoint.method != "PUT":
        assert 404 in endpoint.errors


async def test_it_is_open_and_names_every_face(tmp_path: Path) -> None:
    async with serving(config(tmp_path)) as client:
        status, made, _ = await client.ask(None, "/openapi.json", "GET")
        assert status == 200
        assert "post" in made["paths"]["/v1/chat/completions"]
        assert set(made["paths"]["/admin/keys"]["post"]["responses"]) >= {"201", "400", "401", "409"}
        schema = made["components"]["schemas"]["NewKey"]
        assert (schema["required"], schema["additionalProperties"]) == (["name"], False)
