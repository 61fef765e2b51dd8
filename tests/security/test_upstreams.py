"""Hostile upstreams on raw sockets: whatever they send, the client gets a clean error, the trace says so, memory stays bounded, and nobody gets
the reply of another.

Each case runs over both clients: the lean one, and aiohttp, which takes calls through proxies.
"""

import asyncio
import contextlib
import copy
import gzip
import json
import logging
import random
import re
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateways import ASK

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.server import Server
from fairlead.targets.anthropic_messages import AnthropicMessages
from fairlead.targets.base import Driver
from fairlead.targets.gemini import Gemini
from fairlead.targets.openai_chat import OpenAIChat
from fairlead.targets.upstream import Reply
from fairlead.types import Call, Query

MB = 1_000_000
KEY = "fl-key-of-the-security-tests"
SECRET = "tok-99887766554433221100"
Script = tuple[bytes | float | None, ...]
"""What an upstream sends: bytes, a pause in seconds, and None where it closes the connection."""


def completion(text: str, **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    return json.dumps({**whole, **more}, separators=(",", ":")).encode()


def chunk(text: str | None = None) -> bytes:
    delta, finish = ({}, "stop") if text is None else ({"content": text}, None)
    return json.dumps({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode()


def events(*data: bytes, done: bool = True) -> bytes:
    return b"".join(b"data: %b\n\n" % d for d in data) + (b"data: [DONE]\n\n" if done else b"")


def reply(body: bytes, *heads: bytes, status: bytes = b"200 OK") -> bytes:
    heads = (b"HTTP/1.1 " + status, *heads, b"content-length: %d" % len(body))
    return b"\r\n".join(heads) + b"\r\n\r\n" + body


def headed(*heads: bytes, body: bytes = b"") -> bytes:
    """A reply with these headers and no others."""
    return b"\r\n".join((b"HTTP/1.1 200 OK", *heads)) + b"\r\n\r\n" + body


GOOD, EVIL = completion("good"), completion("EVIL")
N = len(GOOD)
SSE = b"content-type: text/event-stream"
CHUNKED = b"transfer-encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (N, GOOD)
DEEP = b"[" * 100_000 + b"]" * 100_000


class Upstream:
    """Plays `script` once, for the next request, and answers every other one well. Counts what was asked over which connection."""

    def __init__(self) -> None:
        self.script: Script | None = None
        self.connections = self.sent = 0
        self.asked: list[int] = []
        """The connection of each request."""
        self.heads: list[bytes] = []
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections = mine = self.connections + 1
        try:
            while True:
                self.heads.append(head := await reader.readuntil(b"\r\n\r\n"))
                found = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(found[1]) if found else 0)
                self.asked.append(mine)
                script, self.script = self.script, None
                if script is None:
                    script = (reply(events(chunk("good"), chunk()), SSE) if b'"stream":true' in body else reply(GOOD),)
                for piece in script:
                    if piece is None:
                        return
                    if isinstance(piece, float):
                        await asyncio.sleep(piece)
                        continue
                    writer.write(piece)
                    await writer.drain()
                    self.sent += len(piece)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class House:
    """A gateway before one hostile upstream."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession, upstream: Upstream) -> None:
        self.gateway, self.http, self.upstream = gateway, http, upstream
        self.why = ""
        """Of the last failure that was kept."""

    async def ask(self, script: Script | None = None, **more: Any) -> tuple[int, str, Mapping[str, str]]:
        self.upstream.script = script
        headers = {"authorization": f"Bearer {KEY}"}
        async with self.http.post("/v1/chat/completions", json={**ASK, **more}, headers=headers) as got:
            return got.status, await got.text(), got.headers

    async def wrong(self, script: Script, *, stream: bool = False, reused: bool = False) -> str | None:
        """Play a script, then ask once more; return what is not as it should be. `reused`: the connection may be."""
        status, text, headers = await self.ask(script, stream=stream)
        bad = self.upstream.asked[-1]
        trace = await self.gateway.router.store.get(headers.get("x-fairlead-id", ""))
        if trace is None or trace.outcome.error is None or trace.steps[0].outcome.error is None:
            return f"no failure is kept of {status} {text[:200]!r}"
        self.why = trace.outcome.error.message
        broken = stream and status == 200
        if "EVIL" in text or "[DONE]" in text or '"error"' not in text:
            return f"the client got {status} {text[:200]!r}"
        if status not in (502, 503, 504) and not (broken and trace.outcome.error.kind == "broken_stream"):
            return f"status {status}, {trace.outcome.error}"
        if SECRET in text:
            return "a secret is told"
        status, text, _ = await self.ask(stream=stream)
        if status != 200 or "good" not in text or "EVIL" in text or '"error"' in text:
            return f"the next request got {status} {text[:200]!r}"
        return "the connection was used again" if self.upstream.asked[-1] == bad and not reused else None


@asynccontextmanager
async def house(tmp_path: Path, client: str, *, seconds: float = 5.0, **more: Any) -> AsyncIterator[House]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    hostile = {
        "type": "openai_chat",
        "model": "m",
        "base_url": upstream.url,
        "timeout_seconds": seconds,
        "proxies_from_env": client == "aiohttp",
        "headers": {"x-api-token": "${TOKEN}"},
        "profile": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0, "max_output_tokens": 10},
    }
    config = {
        "targets": {"a": hostile, **more.pop("targets", {})},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
        "store": {"path": str(tmp_path / "s.sqlite")},
        "gateway": {
            "port": 0,
            "keys": {"ann": {"hash": hashed(KEY), "budgets": [{"usd": 1.0, "period": "day"}]}},
        },
        "retries": {"most": 0},
        "breaker": {"failures": 10**6},
        "fallbacks": 0,
        **more,
    }
    async with (
        server,
        Gateway.of(make(config)) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as served,
        aiohttp.ClientSession(served.url) as http,
    ):
        try:
            yield House(gateway, http, upstream)
        finally:
            server.close()


@pytest.fixture(params=["lean", "aiohttp"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which client calls upstreams."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("TOKEN", SECRET)
    name = request.param
    assert isinstance(name, str)
    return name


# -------------------------------------------------------------------------------------------------------------- framing

AMBIGUOUS: dict[str, Script] = {
    "two lengths": (headed(b"content-length: %d" % N, b"content-length: 5", body=GOOD),),
    "two lengths in one": (headed(b"content-length: %d, 5" % N, body=GOOD),),
    "a length, then chunks": (headed(b"content-length: %d" % N, CHUNKED, body=IN_CHUNKS),),
    "chunks, then a length": (headed(CHUNKED, b"content-length: %d" % N, body=IN_CHUNKS),),
    "a length and unknown chunks": (headed(b"content-length: %d" % N, b"transfer-encoding: x", body=GOOD),),
    "a length with a space": (headed(b"content-length : %d" % (N + 9), body=GOOD), None),
    "unknown chunks": (headed(b"transfer-encoding: xchunked", body=IN_CHUNKS), None),
    "chunks, then not": (headed(b"transfer-encoding: chunked, identity", body=IN_CHUNKS), None),
    "packed chunks": (headed(b"transfer-encoding: gzip, chunked", body=IN_CHUNKS), None),
    "chunks behind a tab": (headed(b"transfer-encoding: \x0bchunked", body=IN_CHUNKS), None),
    "a folded length": (headed(b"content-length: %d" % N, b" 0", body=GOOD),),
    "a bare return": (headed(b"x: y\rtransfer-encoding: chunked", b"content-length: %d" % N, body=GOOD),),
    "a bare feed": (headed(b"x: y\ntransfer-encoding: chunked", b"content-length: %d" % N, body=GOOD),),
    "a zero in a value": (headed(b"x: a\0b", b"content-length: %d" % N, body=GOOD),),
    "a zero in a name": (headed(b"x\0: y", b"content-length: %d" % N, body=GOOD),),
    "no name": (headed(b": y", b"content-length: %d" % N, body=GOOD),),
    "no colon": (headed(b"xyz", b"content-length: %d" % N, body=GOOD),),
    "a length with a sign": (headed(b"content-length: +%d" % N, body=GOOD),),
    "less than nothing": (headed(b"content-length: -%d" % N, body=GOOD),),
    "a length in hex": (headed(b"content-length: 0x%x" % N, body=GOOD),),
    "a length that overflows": (headed(b"content-length: 99999999999999999999999", body=GOOD),),
    "an empty length": (headed(b"content-length: ", body=GOOD),),
    "more than its length": (headed(b"content-length: %d" % (N - 4), body=GOOD),),
    "less than its length": (headed(b"content-length: %d" % (N + 4), body=GOOD), None),
    "a chunk of less than nothing": (headed(CHUNKED, body=b"-1\r\n" + GOOD),),
    "a chunk in 0x": (headed(CHUNKED, body=b"0x" + IN_CHUNKS),),
    "a chunk that overflows": (headed(CHUNKED, body=b"f" * 18 + b"\r\n" + GOOD),),
    "a chunk larger than all memory": (headed(CHUNKED, body=b"f" * 12 + b"\r\n" + GOOD), None),
    "a chunk without a size": (headed(CHUNKED, body=b"\r\n" + GOOD),),
    "a chunk longer than its size": (headed(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (N - 4, GOOD)),),
    "a chunk whose size ends in a feed": (headed(CHUNKED, body=b"%x\n%b\r\n0\r\n\r\n" % (N, GOOD)),),
    "a zero in a chunk's extension": (headed(CHUNKED, body=b"%x;\0\r\n%b\r\n0\r\n\r\n" % (N, GOOD)),),
    "a chunk that is cut": (headed(CHUNKED, body=b"%x\r\n%b" % (N, GOOD[:-9])), None),
    "no last chunk": (headed(CHUNKED, body=b"%x\r\n%b\r\n" % (N, GOOD)), None),
    "a head that is cut": (b"HTTP/1.1 200 OK\r\ncontent-le", None),
    "nothing": (None,),
    "no status": (reply(GOOD, status=b"OK"),),
    "status 1000": (reply(GOOD, status=b"1000 X"),),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + GOOD,),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    "HTTP/9.9": (reply(GOOD).replace(b"HTTP/1.1", b"HTTP/9.9"),),
    "a request": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x46", None),
    "noise": (random.Random(0).randbytes(2000), None),
    "a header too many": (headed(*[b"x-%d: y" % i for i in range(1000)], b"content-length: %d" % N, body=GOOD),),
    "a header too large": (headed(b"x: " + b"y" * 100_000, b"content-length: %d" % N, body=GOOD),),
    "an unknown packing": (reply(GOOD, b"content-encoding: br"),),
    "no gzip": (reply(GOOD, b"content-encoding: gzip"),),
    "gzip with a tail": (reply(gzip.compress(GOOD) + GOOD, b"content-encoding: gzip"),),
    "gzip of too many members": (reply(gzip.compress(b"") * 20_000, b"content-encoding: gzip"),),
}  # fmt: skip
WHOLE_ALL_THE_SAME = ("no gzip", "gzip with a tail", "gzip of too many members")
"""Where the reply's frame is right, so its connection may go on."""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_reply_whose_end_is_in_doubt_is_refused_and_its_connection_with_it(
    tmp_path: Path, client: str, stream: bool
) -> None:
    """What two parsers could read in two ways, and what is cut, broken, or no HTTP at all."""
    wrong = {}
    async with house(tmp_path, client) as at:
        for name, script in AMBIGUOUS.items():
            found = await at.wrong(script, stream=stream, reused=name in WHOLE_ALL_THE_SAME)
            if found is not None:
                wrong[name] = found
            elif name == "gzip of too many members" and client == "lean":
                assert "unpacked" in at.why  # and not that nothing was in it
    assert not wrong


async def test_lenience_towards_old_servers_never_changes_where_a_reply_ends(tmp_path: Path, client: str) -> None:
    """Folded headers, bare line feeds and spaces after a chunk's size are read, and each reply is whole and the next one right."""
    odd: list[bytes] = [
        headed(b"x: y", b" content-length: 5", b"content-length: %d" % N, body=GOOD),
        headed(b"content-length:", b" %d" % N, body=GOOD),
        headed(b"transfer-encoding:", b"\tchunked", body=IN_CHUNKS),
        headed(b"content-length: %d" % N, body=GOOD).replace(b"\r\n", b"\n"),
        headed(CHUNKED, body=b"%x  \r\n%b\r\n0  \r\n\r\n" % (N, GOOD)),
        headed(CHUNKED, body=b"%x;a=b\r\n%b\r\n0\r\ncontent-encoding: gzip\r\nx-fairlead-id: EVIL\r\n\r\n" % (N, GOOD)),
    ]
    async with house(tmp_path, client) as at:
        for wire in odd:
            for script in (wire,), None:
                status, text, headers = await at.ask(script)
                assert (status, "good" in text) == (200, True), (wire, text)
                assert "EVIL" not in str(headers)
            # Cut by one byte of the body it is no longer whole.
            cut = wire[: wire.index(GOOD) + N - 1]
            assert await at.wrong((cut, None)) is None, wire
        assert at.upstream.connections < 2 * len(odd) + 2


async def test_what_follows_a_reply_is_never_the_answer_to_the_next(tmp_path: Path, client: str) -> None:
    """An upstream that answers once more than it was asked would be one answer ahead for ever after, each client getting another's."""
    plain, streamed = reply(GOOD), reply(events(chunk("good"), chunk()), SSE)
    extra = reply(EVIL)
    async with house(tmp_path, client) as at:
        for stream, first in (False, plain), (True, streamed):
            for tail in (
                (extra,),
                (extra * 3,),
                (0.01, extra),
                (b"\r\n" + extra,),
                (b"HTTP/1.1 100 Continue\r\n\r\n" + extra,),
                (b"x",),
                (extra[:40],),
            ):
                status, text, _ = await at.ask((first + tail[0], *tail[1:]) if isinstance(tail[0], bytes) else (first, *tail), stream=stream)  # fmt: skip
                # aiohttp refuses a reply at whose end it finds what is none.
                assert "EVIL" not in text
                assert (status, "good" in text) == (200, True) or (client == "aiohttp" and status == 502), (tail, text)
                await asyncio.sleep(0.03)  # what comes while nobody asks is nobody's
                for _ in range(2):
                    status, text, _ = await at.ask(stream=stream)
                    assert (status, "good" in text, "EVIL" in text) == (200, True, False), (tail, text)
                assert at.upstream.asked[-2] != at.upstream.asked[-3]


# -------------------------------------------------------------------------------------------------------------- content

NONSENSE: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"9" * 5000,
    "a page": b"<html><script>alert(1)</script>",
    "not UTF-8": GOOD.replace(b"good", b"\xff\xfe"),
    "overlong UTF-8": GOOD.replace(b"good", b"\xc0\xaf"),
    "a raw surrogate": GOOD.replace(b"good", b"\xed\xa0\x80"),
    "half a pair": GOOD.replace(b"good", b"\\ud800"),
    "control characters": GOOD.replace(b"good", b"a\x01\nb"),
    "no choices": completion("x", choices=[]),
    "choices of null": completion("x", choices=None),
    "no message": completion("x", choices=[{"message": None}]),
    "cut": GOOD[:-9],
    "two": GOOD + GOOD,
    "deep": DEEP,
    "deep within": GOOD[:-1] + b',"x":' + DEEP + b"}",
    "deep tools": GOOD.replace(b'"content":"good"', b'"content":"good","tool_calls":' + DEEP),
    "a deep error": b'{"error":' + DEEP + b"}",
    "an error": b'{"error":{"message":"no\\r\\nset-cookie: EVIL=1","code":"a\\r\\nb"}}'.replace(b"EVIL", b"x"),
}
STATUSES: dict[str, bytes] = {
    "201": reply(GOOD, status=b"201 Created"),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "206": reply(GOOD, status=b"206 Partial Content"),
    "407": reply(b"{}", status=b"407 Proxy Authentication Required"),
    "999": reply(GOOD, status=b"999 X"),
    "a deep 500": reply(DEEP, status=b"500 X"),
    "401 with the key": reply(b'{"error":{"message":"bad key %b"}}' % SECRET.encode(), status=b"401 X"),
}
LINES: dict[str, bytes] = {
    "nothing": b"",
    "a page": b"<html>",
    "no JSON": b"data: {nope\n\n",
    "no JSON later": events(chunk("a"), b"{nope"),
    "not UTF-8": events(chunk("a"), chunk("X").replace(b"X", b"\xff\xfe"), chunk()),
    "a raw return": events(chunk("X").replace(b"X", b"a\rdata: b"), chunk()),
    "deep": events(chunk("a"), DEEP),
    "deep within": events(chunk("a"), chunk("b")[:-1] + b',"x":' + DEEP + b"}", chunk()),
    "a deep error": b"event: error\ndata: " + DEEP + b"\n\n",
    "no end": events(chunk("a"), done=False),
    "an error that ends it": events(chunk("a"), b'{"error":{"message":"x\\n\\ndata: [DONE"}}'),
    "an index that is none": events(b'{"choices":[{"index":"x","delta":{"content":"a"}}]}', chunk()),
}


async def test_what_no_client_of_ours_may_see_is_a_clean_502(tmp_path: Path, client: str) -> None:
    """Replies whose frame is right and whose content is not: no JSON, no UTF-8, nested without end, an answer to another question."""
    wrong: dict[Any, str | None] = {}
    async with house(tmp_path, client) as at:
        for name, body in NONSENSE.items():
            for stream in (False, True):
                wrong[name, stream] = await at.wrong((reply(body, b"content-type: application/json"),), stream=stream, reused=True)  # fmt: skip
        for name, wire in STATUSES.items():
            for stream in (False, True):
                wrong[name, stream] = await at.wrong((wire,), stream=stream, reused=True)
        for name, body in LINES.items():
            wrong[name, "events"] = await at.wrong((reply(body, SSE),), stream=True, reused=True)
    assert not {k: v for k, v in wrong.items() if v is not None}


async def test_another_target_takes_over_where_nothing_is_out(tmp_path: Path, client: str) -> None:
    price = {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.1, "max_output_tokens": 10}
    backup = {"type": "scripted", "replies": ["backup"], "profile": price}
    scripts: list[Script] = [AMBIGUOUS["two lengths"], AMBIGUOUS["no last chunk"], (reply(NONSENSE["deep within"]),)]
    scripts += [(reply(NONSENSE["not UTF-8"]),), (STATUSES["204"],), (STATUSES["a deep 500"],)]
    async with house(tmp_path, client, targets={"b": backup}, fallbacks=1) as at:
        for script in scripts:
            for stream in (False, True):
                status, text, headers = await at.ask(script, stream=stream)
                assert (status, headers["x-fairlead-fallbacks"]) == (200, "1"), text
                assert "backup" in text
                trace = await at.gateway.router.store.get(headers["x-fairlead-id"])
                assert trace is not None
                assert trace.steps[0].outcome.error is not None
                assert trace.outcome.target == "b"


async def test_a_redirect_is_not_followed_and_no_key_goes_along(tmp_path: Path, client: str) -> None:
    """Neither to another host, nor to the same one; what it says is not fetched, and the client learns no address."""
    elsewhere = Upstream()
    other = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    async with other, house(tmp_path, client) as at:
        for status in (300, 301, 302, 303, 305, 307, 308):
            for place in (b"http://127.0.0.1:%d/v1/chat/completions" % port, b"//127.0.0.1:%d/" % port, b"/v1/other", b"file:///etc/passwd"):  # fmt: skip
                for stream in (False, True):
                    before = len(at.upstream.heads)
                    wire = reply(EVIL, b"location: " + place, b"refresh: 0;url=" + place, status=b"%d X" % status)
                    got, text, headers = await at.ask((wire,), stream=stream)
                    assert (got, json.loads(text)["error"]["code"]) == (502, "upstream_not_found"), text
                    assert "location" not in headers
                    assert str(port) not in text
                    assert len(at.upstream.heads) == before + 1
        assert SECRET.encode() in at.upstream.heads[-1]
        assert elsewhere.connections == 0
        other.close()


SAID: dict[str, bytes] = {
    "a model's name": reply(GOOD.replace(b'"m"', b'"m\\r\\nx-evil: 1"')),
    "an id": reply(GOOD.replace(b'"x"', b'"x\\r\\nx-evil: 1"')),
    "headers": reply(GOOD, b"set-cookie: a=b", b"x-evil: 1", b"x-fairlead-id: evil", b"x-request-id: evil", b"location: /", b"x-ratelimit-limit-requests: 0", b"access-control-allow-origin: *", b"trailer: x"),
    "an error": reply(b'{"error":{"message":"x\\r\\nx-evil: 1","code":"\\r\\nx-evil: 1","type":"\\nx"}}', b"retry-after: 1\x01", status=b"429 X"),
    "a wait without end": reply(b"{}", b"retry-after: 1e300", status=b"429 X"),
    "a wait of many digits": reply(b"{}", b"retry-after: " + b"9" * 4000, status=b"503 X"),
    "a wait of less than nothing": reply(b"{}", b"retry-after: -9", status=b"503 X"),
    "no number": reply(b"{}", b"retry-after: nan", b"retry-after-ms: inf", status=b"503 X"),
    "a date after all dates": reply(b"{}", b"retry-after: Mon, 01 Jan 99999999999999999999 00:00:00 GMT", status=b"503 X"),
    "a zone of another world": reply(b"{}", b"retry-after: Mon, 01 Jan 2024 00:00:00 +9999999999", status=b"503 X"),
}  # fmt: skip
COMMENTS = (
    b": x-fairlead-dropped evil\r\n\r\n",
    b": x-fairlead-dropped evil\n\n: x-fairlead-cost-usd 99\n\n",
    b"event: x\nid: evil\nretry: 1\n\n",
    b":" + b"y" * 5000 + b"\n\n",
)


async def test_nothing_that_an_upstream_says_becomes_a_header_or_a_line_of_an_answer(
    tmp_path: Path, client: str
) -> None:
    own = re.compile(r"x-fairlead-|x-ratelimit-|x-should-retry|x-request-id$|content-|retry-after$|date$|server$|cache-control$|transfer-encoding$|connection$")  # fmt: skip
    async with house(tmp_path, client, breaker={"failures": 10**6, "rest_seconds": 0.001, "most_seconds": 0.001}) as at:
        for name, wire in SAID.items():
            for stream in (False, True):
                status, text, headers = await at.ask((wire,), stream=stream)
                assert status in (200, 429, 502, 503), (name, text)
                for key, value in headers.items():
                    assert own.match(key.lower()), (name, key)
                    assert "evil" not in (key + value).lower(), name
                    assert len(value) < 300, (name, key)
                if "retry-after" in headers:
                    assert 0 <= int(headers["retry-after"]) <= 86400, name
                await asyncio.sleep(0.002)
        for comment in COMMENTS:
            status, text, headers = await at.ask((reply(comment + events(chunk("a"), chunk()), SSE),), stream=True)
            assert (status, "evil" in text, "yyy" in text) == (200, False, False), text
            assert "x-fairlead-dropped" not in headers
            assert all(re.match(r"data: |: x-fairlead-cost-usd \d|$", line) for line in text.split("\n")), text
        split = "a\r\n\r\ndata: [DONE]\r\n\r\nevent: error\n\n"
        status, text, _ = await at.ask((reply(events(chunk(split), chunk()), SSE),), stream=True)
        said = [json.loads(e[6:]) for e in text.split("\n\n") if e.startswith("data: {")]
        assert said[0]["choices"][0]["delta"]["content"] == split
        assert text.count("\ndata: [DONE]\n") == 1


# ------------------------------------------------------------------------------------------------------ money and counts


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5_000_000},
        {"completion_tokens": -1},
        {"prompt_tokens": 10**18},
        {"prompt_tokens": 10**20},
        {"prompt_tokens": 10**40, "completion_tokens": 10**40},
        {"prompt_tokens_details": {"cached_tokens": -(10**6)}},
        {"prompt_tokens_details": {"audio_tokens": -(10**6)}},
        {"completion_tokens_details": {"reasoning_tokens": -(10**6)}},
    ],
    ids=str,
)
async def test_counts_that_no_call_can_have_neither_give_money_back_nor_take_it_all(
    tmp_path: Path, client: str, usage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """They are unknown: the estimate is charged, the answer and its trace are kept, and the log says so."""
    lie = completion("x", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, **usage})
    last = json.dumps({"id": "x", "choices": [], "usage": json.loads(lie)["usage"]}).encode()
    async with house(tmp_path, client) as at:
        for stream in (False, True):
            wire = reply(events(chunk("x"), chunk(), last), SSE) if stream else reply(lie)
            status, text, headers = await at.ask((wire,), stream=stream)
            assert (status, "x-fairlead-cost-usd" in headers) == (200, False), text
            trace = await at.gateway.router.store.get(headers["x-fairlead-id"])
            assert trace is not None
            assert trace.outcome.tokens is None
            charged = sum(trace.charged.values())
            assert 0 < charged < 1000
            assert (await at.ask())[0] == 200
        assert caplog.text.count("no call can have") == 2
        assert at.gateway.router.store.verify() == 4


# ---------------------------------------------------------------------------------------------------------------- floods


def pieces(start: bytes, piece: bytes, total: int = 25 * MB) -> Script:
    """`piece` again and again; the same bytes, so that nothing but the gateway holds them."""
    many = piece * (1 + 50_000 // len(piece))
    return (start, *[many] * (total // len(many)))


BEGUN = chunk("x").replace(b'"x"', b'""', 1)
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "interim replies": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "a header": (b"HTTP/1.1 200 OK\r\nx: ", b"y"),
    "a body": (headed(b"content-length: 90000000000"), b" " * 1000),
    "a body without end": (headed(), b" " * 1000),
    "chunks": (headed(CHUNKED), b"3e8\r\n" + b" " * 1000 + b"\r\n"),
    "chunks of a byte": (headed(CHUNKED), b"1\r\nx\r\n"),
    "a chunk's extension": (headed(CHUNKED, body=b"2;"), b"x=y;"),
    "trailers": (headed(CHUNKED, body=b"2\r\n{}\r\n0\r\n"), b"x: y\r\n"),
    "an error": (b"HTTP/1.1 500 X\r\n\r\n", b"no " * 1000),
}
STREAMED: dict[str, tuple[bytes, bytes]] = {
    **{name: FLOODS[name] for name in ("interim replies", "headers", "a header", "a body", "chunks of a byte", "an error")},
    "an event": (headed(SSE, body=b"data: "), b"x" * 1000),
    "comments": (headed(SSE), b": keep-alive\n\n"),
    "text": (headed(SSE), events(chunk("x" * 100), done=False)),
    "greetings": (headed(SSE), events(b'{"id":"x","choices":[{"index":0,"delta":{"role":"assistant"}}]}', done=False)),
    "calls": (headed(SSE), events(b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}', done=False)),
}  # fmt: skip


@contextlib.contextmanager
def measured(most: int, why: str) -> Iterator[None]:
    """Fail if the most memory that Python had within is more than `most` bytes beyond what it had before."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, (why, peak)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower bounds, so that it takes no time to reach them."""
    for module in ("lean", "proxied"):
        for name in ("WHOLE_BYTES", "STREAM_BYTES"):
            monkeypatch.setattr(f"fairlead.targets.{module}.{name}", MB)
    monkeypatch.setattr("fairlead.targets.sse.LARGEST", MB // 2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_no_flood_is_taken_to_its_end(tmp_path: Path, client: str, stream: bool) -> None:
    async with house(tmp_path, client, seconds=5.0 if client == "lean" else 1.5) as at:
        for name, (start, piece) in (STREAMED if stream else FLOODS).items():
            before = at.upstream.sent
            with measured(15 * MB, name):
                assert await at.wrong(pieces(start, piece), stream=stream) is None, name
            if name in (("text", "calls") if stream else ("a body",)):
                assert "too large" in at.why, name
            sent = at.upstream.sent - before
            if client == "lean" or name not in (
                "interim replies",
                "a chunk's extension",
            ):  # what aiohttp reads on of it forgets
                assert sent < 15 * MB, (name, sent)


@pytest.mark.usefixtures("small")
async def test_no_bomb_fills_the_memory(tmp_path: Path, client: str) -> None:
    """20 kB that are 20 MB, of which one may be taken."""
    zip = b"content-encoding: gzip"
    bombs = {fill: gzip.compress(fill * (20 * MB // len(fill)), 1) for fill in (b" ", b"\n", b"data: {}\n\n")}
    async with house(tmp_path, client, seconds=10.0) as at:
        for fill, bomb in bombs.items():
            for stream, status in (False, b"200 OK"), (True, b"200 OK"), (fill == b" ", b"500 X"):
                with measured(25 * MB, repr(fill)):
                    assert await at.wrong((reply(bomb, SSE, zip, status=status),), stream=stream, reused=True) is None


# ------------------------------------------------------------------------------------------------- every shape of a reply


class Canned:
    """An upstream without a network: one reply for all."""

    status, body = 200, b""
    headers: Mapping[str, str] = {"Content-Type": "text/event-stream"}

    async def post(self, *_: Any) -> Reply:
        return Reply(self.status, self.headers, self.body)

    @asynccontextmanager
    async def stream(self, *_: Any) -> AsyncIterator["Canned"]:
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body

    async def whole(self) -> bytes:
        return self.body

    async def head(self) -> bytes:
        return self.body

    async def drain(self) -> None:
        pass


DETAILS = {"cached_tokens": 0}
USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "total_tokens": 2,
    "cost": 0.1,
    "is_byok": True,
    "cost_details": {"upstream_inference_cost": 1.0},
    "prompt_tokens_details": DETAILS,
    "completion_tokens_details": {"reasoning_tokens": 1},
}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}]}]}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "a"}]
CHAT = {
    "id": "x",
    "created": 1,
    "model": "m",
    "usage": USAGE,
    "choices": [
        {
            "index": 0,
            "message": {"content": "a", "refusal": "", "reasoning": "r", "tool_calls": [CALL]},
            "finish_reason": "stop",
            "logprobs": LOGPROBS,
        },
        {"index": 1, "message": {"content": THOUGHT}, "finish_reason": "stop"},
    ],
}
CHAT_THOUGHT = {**CHAT, "choices": [{"index": 0, "message": {"content": THOUGHT}, "finish_reason": "stop"}]}
CHAT_EVENTS = [
    {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "a", "reasoning": "r"}, "logprobs": LOGPROBS}],
    },
    {"id": "x", "choices": [{"index": 0, "delta": {"content": THOUGHT, "tool_calls": [CALL]}}]},
    {"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": "stop"}]},
    {"id": "x", "choices": [], "usage": USAGE},
    {"x_groq": {"usage": USAGE}, "choices": []},
]
CLAUDE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "c",
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "content": [
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ],
    "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 1},
}
CLAUDE_EVENTS = [
    {"type": "message_start", "message": {**CLAUDE, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "t"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    },
    {"type": "message_stop"},
]
TOKEN = {"token": "a", "logProbability": -0.1}
GEMINI = {
    "candidates": [
        {
            "index": 0,
            "finishReason": "STOP",
            "finishMessage": "x",
            "content": {
                "role": "model",
                "parts": [
                    {"text": "t", "thought": True, "thoughtSignature": "AAAA"},
                    {"text": "a"},
                    {"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                ],
            },
            "logprobsResult": {"topCandidates": [{"candidates": [TOKEN]}], "chosenCandidates": [TOKEN]},
        }
    ],
    "modelVersion": "g",
    "usageMetadata": {
        "promptTokenCount": 1,
        "candidatesTokenCount": 1,
        "totalTokenCount": 2,
        "thoughtsTokenCount": 1,
        "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 1}],
    },
    "promptFeedback": {"blockReason": "SAFETY"},
}
ERROR = {
    "error": {
        "message": "no",
        "type": "rate_limit_error",
        "code": "x",
        "innererror": {"content_filter_result": {"hate": {"filtered": True}}},
    },
    "detail": "y",
    "request_id": "r",
}
STATUS = {
    "error": {
        "code": 429,
        "message": "x",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"},
            {"reason": "API_KEY_INVALID"},
        ],
    }
}
# fmt: on
GONE = object()
NESTED = "nested without end"
WRONG: list[Any] = [None, -1, 1.5, 10**30, -(2**63), 2**64, "", "\0\r\n\ud83d", "9" * 400 + "s", True, [], {}, [None], {"a": None}, [[]], NESTED, GONE]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], to: Any) -> Any:
    if not path:
        return to if to is not GONE else None
    value = at = copy.deepcopy(value)
    for key in path[:-1]:
        at = at[key]
    if to is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return value


def written(value: Any, *, streaming: bool) -> bytes:
    def one(value: Any) -> bytes:
        return json.dumps(value).replace(f'"{NESTED}"', "[" * 2000 + "]" * 2000).encode()

    return events(*map(one, value if isinstance(value, list) else [value])) if streaming else one(value)


CHAT_DRIVER: dict[str, Any] = {"name": "a", "model": "m", "base_url": "http://x/v1"}


@pytest.mark.parametrize(
    ("driver", "whole", "stream", "error"),
    [
        (OpenAIChat(**CHAT_DRIVER), CHAT, CHAT_EVENTS, ERROR),
        (OpenAIChat(**CHAT_DRIVER, provider="openrouter"), CHAT_THOUGHT, CHAT_EVENTS, ERROR),
        (AnthropicMessages(name="a", model="m", base_url="http://x"), CLAUDE, CLAUDE_EVENTS, ERROR),
        (Gemini(name="a", model="m", base_url="http://x"), GEMINI, [GEMINI], STATUS),
    ],
    ids=["chat", "openrouter", "anthropic", "gemini"],
)
async def test_no_shape_of_a_reply_breaks_a_driver(
    driver: Any, whole: Any, stream: Any, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each member of a reply in turn is of every wrong kind, or missing: the call has an answer, or a failure that is the upstream's."""
    assert isinstance(driver, Driver)
    caplog.set_level(logging.ERROR)
    canned = driver._upstream = Canned()  # type: ignore[attr-defined]
    query, asked = Query.ask("hi"), 0

    async def sink(_: bytes) -> None:
        pass

    for value, streaming, status in (whole, False, 200), (stream, True, 200), (error, False, 429), (error, True, 400), (error, False, 200), ([error], True, 200):  # fmt: skip
        for path in places(value):
            for to in WRONG:
                canned.status = status
                canned.body = written(changed(value, path, to), streaming=streaming and status == 200)
                outcome = await driver.ask(Call(target="a"), query, sink if streaming else None)
                asked += 1
                failure = outcome.error
                assert failure is None or failure.kind != "internal", (path, to, failure)
                assert failure is None or (failure.retry_after_seconds or 0) <= 86400, (path, to)
                assert outcome.tokens is None or (outcome.tokens.input >= 0 and outcome.tokens.output >= 0), (path, to)
                assert outcome.usd is None or 0 <= outcome.usd < 1e6, (path, to)
    assert asked > 500


async def test_no_secret_comes_back_as_the_id_of_a_request(client: str) -> None:
    """Anthropic's id of a request is told, for their support: a header in which an upstream may write what it likes."""
    driver = AnthropicMessages(name="a", model="m", base_url="http://x", api_key="${TOKEN}")
    canned = Canned()
    canned.status, canned.body, canned.headers = 400, b"{}", {"request-id": f"req {SECRET} {SECRET}"}
    await driver.start()
    try:
        driver._upstream = canned  # type: ignore[assignment]
        outcome = await driver.ask(Call(target="a"), Query.ask("hi"))
    finally:
        driver._upstream = None
    assert outcome.error is not None
    assert "req [secret]" in outcome.error.message
    assert SECRET[:-4] not in outcome.error.message
