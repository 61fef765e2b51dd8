"""Hostile requests on real sockets: paths, heads that two parsers may read differently, bombs, SQL, line ends. No 5xx, nothing found, nothing split."""

import asyncio
import io
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateways import ADMIN, ASK, config, serving, where  # noqa: F401 - a fixture
from yarl import URL

from fairlead.gateway.door import hashed

KEY = "fl-key-of-the-security-tests"
KEYS: dict[str, Any] = {"ops": hashed(KEY)}
BODY = json.dumps(ASK).encode()


async def send(url: str, *data: bytes) -> bytes:
    """Send bytes as they are, piece by piece; return all that comes until the gateway closes, or has been silent."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    out = b""
    try:
        for i, piece in enumerate(data):
            await asyncio.sleep(0.02 if i else 0)
            writer.write(piece)
        async with asyncio.timeout(0.4):
            while piece := await reader.read(65536):
                out += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return out


def statuses(reply: bytes) -> list[int]:
    return [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) ", reply)]


# ------------------------------------------------------------------------------------------------------------- paths

NAMES = (
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%252f..%252fetc%252fpasswd",
    "..%5c..%5cetc%5cpasswd",
    "..\\..\\etc\\passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "%00",
    "file%00.txt",
    "..%c0%af..%c0%afetc/passwd",
    "%ef%bc%8e%ef%bc%8e/etc/passwd",
    "%ff%fe",
    ";/admin/keys",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
)
PLACES = ("/", "/v1/files/", "/v1/traces/", "/v1/batches/", "/v1/responses/", "/admin/keys/", "/admin/limits/", "/admin/../v1/traces/")  # fmt: skip


async def test_no_path_of_a_request_names_a_file(tmp_path: Path) -> None:
    async with serving(config(tmp_path, keys=KEYS)) as client:
        url = str(client.http._base_url).rstrip("/")
        asked = [(p, n, m) for p in PLACES for n in NAMES for m in ("GET", "DELETE")]
        for place, name, method in asked:
            key = ADMIN if place.startswith("/admin") else KEY
            head = f"{method} {place}{name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
            reply = await send(url, head.encode())
            assert statuses(reply) in ([400], [401], [404], [405]), (place, name, method, reply[:300])
            assert b"root:" not in reply
        for name in (
            "../../evil",
            "..\\evil",
            "/etc/passwd",
            "a\x00b",
            "\uff0e\uff0e/x",
            "a" * 5000,
            '"; x="',
            "a\r\nb: c",
        ):
            form = (
                b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
                b'--b\r\ncontent-disposition: form-data; name="file"; filename="%b"\r\n\r\nx\r\n--b--\r\n'
            ) % name.encode()
            headers = {"authorization": f"Bearer {KEY}", "content-type": "multipart/form-data; boundary=b"}
            async with client.http.post("/v1/files", data=form, headers=headers) as reply:
                body = await reply.json()
                assert reply.status in (200, 400), body
                if reply.status == 200:
                    assert not set("/\\\0\r\n") & set(body["filename"])
                    assert len(body["filename"]) <= 200
        assert not list(tmp_path.parent.rglob("*evil*"))


# ----------------------------------------------------------------------------------------------------------- two parsers

HIDDEN = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ncontent-length: 44\r\n",
        b"content-length: 5, 44\r\n",
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"transfer-encoding: identity\r\ncontent-length: 5\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b"transfer-encoding : chunked\r\n",
        b" transfer-encoding: chunked\r\n",
        b"transfer-encoding:\x0bchunked\r\n",
        b"transfer-encoding: \x00chunked\r\n",
        b"x: y\r\n transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"x: y\rtransfer-encoding: chunked\r\n",
        b"x: y\ntransfer-encoding: chunked\ncontent-length: 5\r\n",
        b"content-length: +5\r\n",
        b"content-length: -5\r\n",
        b"content-length: 0x5\r\n",
        b"content-length: 5 5\r\n",
        b"content-length: 99999999999999999999999999\r\n",
        b"content-length : 5\r\n",
        b"x\x00y: z\r\ncontent-length: 5\r\n",
        b"x: y\x00z\r\ncontent-length: 5\r\n",
        b": empty\r\ncontent-length: 5\r\n",
    ],
)
async def test_what_two_parsers_may_read_differently_is_refused(tmp_path: Path, head: bytes) -> None:
    async with serving(config(tmp_path, keys=KEYS)) as client:
        url = str(client.http._base_url).rstrip("/")
        start = b"POST /v1/route HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n" % KEY.encode()
        reply = await send(url, start + head + b"\r\n" + b"0\r\n\r\n" + HIDDEN)
        assert statuses(reply) == [400], reply
        assert b'"status":"ok"' not in reply


@pytest.mark.parametrize("chunk", [b"-1\r\nx\r\n", b"0x1\r\nx\r\n", b"1 \r\nx\r\n", b"1\nx\r\n", b"fffffffffffffffff\r\nx", b"\r\n", b"g\r\n", b"1\r\nxy\r\n"])  # fmt: skip
async def test_chunks_that_make_no_sense_are_refused(tmp_path: Path, chunk: bytes) -> None:
    async with serving(config(tmp_path, keys=KEYS)) as client:
        url = str(client.http._base_url).rstrip("/")
        head = b"POST /v1/route HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ntransfer-encoding: chunked\r\n\r\n"
        reply = await send(url, head % KEY.encode() + chunk + b"0\r\n\r\n" + HIDDEN)
        assert b'"status":"ok"' not in reply, reply
        assert set(statuses(reply)) <= {400}, reply


# ------------------------------------------------------------------------------------------------------------- splitting

LINES = (
    "a\r\nset-cookie: x=1",
    "a\nx-evil: 1",
    "a\rx-evil: 1",
    "a\x00b",
    "é\u2028\u010d\u010ax-evil: 1",
    "\x85x",
    "\x7f",
)


async def test_nothing_that_a_client_writes_splits_an_answer_or_a_request(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        found = re.search(rb"(?i)content-length: *(\d+)", heads[-1])
        assert found
        await reader.readexactly(int(found[1]))
        body = b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"4"},"finish_reason":"stop"}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    async with server:
        at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        targets = {"cheap": {"type": "openai_chat", "model": "m", "base_url": at}}
        async with serving(config(tmp_path, targets=targets, keys=KEYS)) as client:
            for evil in LINES:
                tool = {"type": "function", "function": {"name": evil, "parameters": {}}}
                more: list[dict[str, Any]] = [
                    {"model": evil},
                    {"user": evil},
                    {"tools": [tool]},
                    {"metadata": {evil: evil}},
                    {"x" + evil: 1},
                    *({"fairlead": {f: evil}} for f in ("tenant", "user", "session", "episode")),
                    {"fairlead": {"allow": [evil]}},
                    {"fairlead": {"regions": [evil]}},
                ]
                for body in more:
                    status, _, headers = await client.ask(KEY, **body)
                    assert status < 500 or "regions" in str(body), (body, status)
                    assert not {"set-cookie", "x-evil"} & {h.lower() for h in headers}
                    assert all(c.isprintable() and c.isascii() for v in headers.values() for c in v)
        assert heads
        for head in heads:
            assert b"evil" not in head
            assert b"set-cookie" not in head
            assert head.count(b"\n") == head.count(b"\r\n")


# ----------------------------------------------------------------------------------------------------------------- bombs

DEEP = 100_000
BOMBS: dict[str, bytes] = {
    "brackets": b"[" * 5_000_000,
    "nested": b'{"model":"auto","messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "nested_objects": b'{"model":"auto","messages":[{"role":"user","content":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}]}",
    "nested_field": BODY[:-1] + b',"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "number": BODY[:-1] + b',"n":' + b"9" * 100_000 + b',"stream":1}',
    "exponent": BODY[:-1] + b',"fairlead":{"max_usd":1e999}}',
    "long_key": b'{"' + b"k" * 1_000_000 + b'":1}',
    "many_keys": b"{" + b",".join(b'"k%d":1' % i for i in range(50_000)) + b"}",
    "same_key": b"{" + b",".join(b'"k":1' for _ in range(50_000)) + b"}",
    "not_utf8": b'{"model":"\xff\xfe"}',
    "overlong": b'{"model":"\xc0\xaf"}',
    "surrogate": b'{"model":"\\ud800","messages":[{"role":"user","content":"\\udfff"}]}',
    "raw_surrogate": b'{"model":"\xed\xa0\x80"}',
    "nan": b'{"model":NaN}',
    "nothing": b"",
    "null": b"null",
    "string": b'"x"',
    "bom": b"\xef\xbb\xbf{}",
    "unended": b'{"model":"auto',
}  # fmt: skip
TAKERS = (
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/route"),
    ("POST", "/v1/feedback"),
    ("POST", "/v1/batches"),
    ("POST", "/v1/files"),
    ("POST", "/admin/keys"),
    ("PATCH", "/admin/keys/x"),
    ("POST", "/admin/keys/x/rotate"),
    ("PUT", "/admin/limits/team:x"),
)


@pytest.mark.parametrize("bomb", BOMBS)
async def test_json_bombs_are_refused_everywhere(tmp_path: Path, bomb: str) -> None:
    async with serving(config(tmp_path, keys=KEYS)) as client:
        for method, path in TAKERS:
            headers = {"authorization": f"Bearer {ADMIN if path.startswith('/admin') else KEY}"}
            async with client.http.request(method, path, data=io.BytesIO(BOMBS[bomb]), headers=headers) as reply:
                text = await reply.text()
                assert 400 <= reply.status < 500, (path, text[:300])
                assert len(text) < 5000
        assert (await client.ask(KEY))[0] == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_packed_body_is_never_unpacked(tmp_path: Path, coding: str) -> None:
    import gzip

    async with serving(config(tmp_path, keys=KEYS)) as client:
        packed = gzip.compress(b" " * 10_000_000 + BODY)
        headers = {"authorization": f"Bearer {KEY}", "content-encoding": coding}
        for method, path in TAKERS[:9]:
            async with client.http.request(method, path, data=packed, headers=headers) as reply:
                assert reply.status in (400, 415), await reply.text()


# ------------------------------------------------------------------------------------------------------------------- SQL

SQL = ("' OR '1'='1", "x' OR 1=1 --", "'; DROP TABLE traces; --", "\" OR \"\"=\"", "x') UNION SELECT digest, 1, 2, 3, 4 FROM keys_issued --", "%", "_", "%' ESCAPE '", "\\'; --", "1; SELECT pg_sleep(9)", "?", "%s", "$1", ":id", "{}", "\u02bc OR 1=1")  # fmt: skip


async def test_sql_in_every_id_name_and_cursor_finds_nothing(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """What stands in the store is still there, whole, and nobody was given it."""
    async with serving(config(tmp_path, store=where, keys=KEYS)) as client:
        await client.key("ann", tenant="red")
        assert (await client.ask(KEY))[0] == 200
        for evil in SQL:
            word = urllib.parse.quote(evil, safe="")
            assert (await client.ask(evil.encode().decode("latin-1", "replace")))[0] == 401
            gets: list[tuple[str, str, str]] = [
                (KEY, "GET", f"/v1/{what}/{word}") for what in ("files", "batches", "traces", "responses")
            ]
            gets += [(KEY, "DELETE", f"/v1/files/{word}"), (KEY, "DELETE", f"/v1/responses/{word}")]
            gets += [(KEY, "GET", f"/v1/files/{word}/content"), (KEY, "POST", f"/v1/batches/{word}/cancel")]
            gets += [(KEY, "GET", f"/v1/responses/{word}/input_items")]
            gets += [(ADMIN, m, f"/admin/keys/{word}") for m in ("GET", "DELETE")]
            for key, method, path in gets:
                status, body, _ = await client.ask(key, path, method)
                assert status == 404, (method, path, body)
            for path in (f"/v1/files?after={word}", f"/v1/files?purpose={word}", f"/v1/batches?after={word}"):
                status, body, _ = await client.ask(KEY, path, "GET")
                assert (status, body["data"]) == (200, []), (path, body)
            for path in (f"/v1/traces?limit={word}", f"/v1/files?limit={word}"):
                assert (await client.ask(KEY, path, "GET"))[0] == 400
            for path in (f"/admin/audit?limit={word}", f"/admin/audit?before={word}"):
                assert (await client.ask(ADMIN, path, "GET"))[0] == 400
            for body in ({"id": evil, "value": 1.0}, {"response_id": evil, "value": 1.0}):
                assert (await client.ask(KEY, "/v1/feedback", json=body))[0] == 404
            batch = {"input_file_id": evil, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            assert (await client.ask(KEY, "/v1/batches", json=batch))[0] in (400, 404)
            reply = {"model": "auto", "input": "x", "previous_response_id": evil}
            assert (await client.ask(KEY, "/v1/responses", json=reply))[0] == 404
            said = dict.fromkeys(("tenant", "user", "session", "episode"), evil)
            assert (await client.ask(KEY, user=evil, fairlead=said))[0] == 200
        store = client.gateway.router.store
        assert await asyncio.to_thread(store.verify) == 1 + len(SQL) == store.count()
        kept = {t.query.identity.tenant for t in await asyncio.to_thread(lambda: list(store.traces()))}
        assert kept == {None, *SQL}, "each is a word"
        assert [k["name"] for k in (await client.admin("GET", "keys"))[1]["data"]] == ["ops", "ann"]


# -------------------------------------------------------------------------------------------------------------- trailers


@pytest.mark.parametrize("split", [False, True], ids=["at once", "after the head"])
async def test_a_trailer_is_never_a_header(tmp_path: Path, split: bool) -> None:
    """Front ends strip headers of a client's that speak of who asks; what follows a body goes past them."""
    keys = {"front": {"hash": hashed(KEY), "vouches": True, "tenant": "red"}}
    body = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    known = b"authorization: Bearer %b\r\n" % KEY.encode()
    asked = {
        known + b"x-fairlead-user: evil\r\nx-fairlead-roles: admin\r\n": (b"", 401),
        b"x-api-key: %b\r\n" % KEY.encode(): (b"", 401),
        b"x-fairlead-user: evil\r\nx-fairlead-roles: evil\r\nx-fairlead-max-usd: x\r\nhost: evil\r\n": (known, 200),
        b"content-length: 5\r\n": (known, 0),
    }
    async with serving(config(tmp_path, keys=keys)) as client:
        url = str(client.http._base_url).rstrip("/")
        for trailers, (own, status) in asked.items():
            wire = head + own + b"\r\n" + body + trailers + b"\r\n"
            at = len(wire) - len(trailers) - 2
            reply = await send(url, wire[:at], wire[at:]) if split else await send(url, wire)
            # One that says how long the body was is refused with its connection.
            assert statuses(reply) == ([status] if status else []), (trailers, reply)
        kept = await asyncio.to_thread(lambda: list(client.gateway.router.store.traces()))
        assert kept
        assert all("evil" not in str(t.query.identity) for t in kept)


# ------------------------------------------------------------------------------------------------- SQL, wherever a word may stand

QUOTES = (
    "' OR '1'='1",
    "x'; DROP TABLE traces; --",
    '" OR ""="',
    "\\'; DELETE FROM keys_issued; --",
    "%' OR id LIKE '%",
)
CANARY = "canary-7c1f"
BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": ASK,
    "/v1/route": ASK,
    "/v1/completions": {"model": "auto", "prompt": "x"},
    "/v1/embeddings": {"model": "auto", "input": "x"},
    "/v1/responses": {"model": "auto", "input": "x"},
    "/v1/messages": {**ASK, "max_tokens": 9},
    "/v1/messages/count_tokens": ASK,
    "/v1/batches": {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "/v1/feedback": {"id": "x", "value": 1.0},
    "/admin/keys": {"name": "x"},
}
LEFT_OUT = ("/admin/drain", "/admin/reload")
"""What a wrong word could set going."""


def words_of(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """Return the members that the description knows of a body."""
    found: list[str] = []
    todo = [schema]
    while todo:
        one = todo.pop()
        if "$ref" in one:
            one = document["components"]["schemas"][one["$ref"].rpartition("/")[2]]
        found += one.get("properties", {})
        todo += [s for key in ("allOf", "anyOf", "oneOf") for s in one.get(key, ())]
    return sorted(set(found))


async def test_sql_in_every_place_that_the_description_names(tmp_path: Path, where: dict[str, Any]) -> None:  # noqa: F811
    """Each path's, query's and body's member of each operation in turn: no 5xx, nobody is given what is not theirs, and what stood there stands."""
    async with serving(config(tmp_path, store=where, keys=KEYS)) as client:
        await client.key(CANARY, tenant=CANARY, metadata={"note": CANARY})
        assert (await client.admin("PUT", f"limits/team:{CANARY}", {"limits": {"concurrent": 7}}))[0] == 200
        assert (await client.ask(KEY, user=CANARY))[0] == 200
        said = {"model": "auto", "input": CANARY, "metadata": {"note": CANARY}}
        _, response, _ = await client.ask(KEY, "/v1/responses", json=said)
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", b"{}", filename=f"{CANARY}.jsonl")
        async with client.http.post("/v1/files", data=form, headers={"authorization": f"Bearer {KEY}"}) as reply:
            file = await reply.json()
        store = client.gateway.router.store
        tables = "SELECT name FROM sqlite_master ORDER BY name" if "path" in where else "SELECT tablename FROM pg_tables ORDER BY tablename"  # fmt: skip
        before = await asyncio.to_thread(store.rows, tables)  # type: ignore[attr-defined]
        _, document, _ = await client.ask(KEY, "/openapi.json", "GET")
        asked = 0
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if path in LEFT_OUT or not isinstance(operation, dict):
                    continue
                key = ADMIN if path.startswith("/admin") else KEY
                named = operation.get("parameters", [])
                body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
                for evil in QUOTES:
                    word = urllib.parse.quote(evil, safe="")
                    at = re.sub(r"\{\w+\}", word, path)
                    wanted: list[tuple[str, Any]] = [(at, BASES.get(path) if body else None)] if at != path else []
                    wanted += [(f"{path}?{p['name']}={word}", None) for p in named if p["in"] == "query" and at == path]
                    for member in words_of(body, document) if at == path else ():
                        wanted.append((path, {**BASES.get(path, {}), member: evil}))
                        wanted.append((path, {**BASES.get(path, {}), member: {evil: evil}}))
                    for url, sent in wanted:
                        headers = {"authorization": f"Bearer {key}"}
                        async with client.http.request(method.upper(), _raw(client, url), json=sent, headers=headers) as reply:  # fmt: skip
                            text = await reply.text()
                        asked += 1
                        assert reply.status < 500, (method, url, sent, text)
                        assert CANARY not in text or method == "post", (method, url, sent, text)
        assert asked > 300
        assert await asyncio.to_thread(store.rows, tables) == before  # type: ignore[attr-defined]
        assert await asyncio.to_thread(store.verify) == store.count() > 0
        names = [k["name"] for k in (await client.admin("GET", "keys"))[1]["data"]]
        assert names[:2] == ["ops", CANARY]
        for path in (f"/v1/files/{file['id']}", f"/v1/responses/{response['id']}"):
            status, kept, _ = await client.ask(KEY, path, "GET")
            assert (status, CANARY in str(kept)) == (200, True)
        status, limits = await client.admin("GET", f"limits/team:{CANARY}")
        assert (status, limits["limits"]["concurrent"]) == (200, 7)


def _raw(client: Any, url: str) -> URL:
    return URL(f"{str(client.http._base_url).rstrip('/')}{url}", encoded=True)
