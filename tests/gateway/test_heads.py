"""Heads of answers, as the server's protocol writes them: raw bytes over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairlead.gateway import protocol
from fairlead.gateway.server import Server


@contextlib.asynccontextmanager
async def serving(*messages: dict[str, Any]) -> AsyncIterator[int]:
    """Serve an application that sends `messages`, whatever it is asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with Server(app, host="127.0.0.1", port=0) as server:
        yield server.port


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
LAST = GET + b"connection: close\r\n\r\n"


async def test_two_answers_on_one_connection_each_have_their_own_head() -> None:
    async with serving(start((b"content-length", b"2"), (b"x-a", b"1")), body(b"ok")) as port:
        said = await raw(port, GET + b"\r\n" + LAST)
    first, second, third = said.split(b"HTTP/1.1 200 OK\r\n")
    assert not first
    for answer in (second, third):
        head, _, content = answer.partition(b"\r\n\r\n")
        assert content == b"ok"
        lines = head.split(b"\r\n")
        assert lines.count(b"content-length: 2") == lines.count(b"x-a: 1") == 1
        assert sum(line.startswith(b"date: ") for line in lines) == 1
    assert b"connection: close" in third
    assert b"connection: close" not in second


async def test_an_answer_to_head_has_no_body() -> None:
    async with serving(start((b"content-length", b"2")), body(b"")) as port:
        said = await raw(port, LAST.replace(b"GET", b"HEAD"))
    assert said.endswith(b"content-length: 2\r\nconnection: close\r\n\r\n")


async def test_what_is_answered_already_goes_out_to_a_client_that_half_closes() -> None:
    """An answer that takes time does not: it is as if the client had left, and nobody pays for what nobody may hear."""
    async with serving(start((b"content-length", b"2")), body(b"ok")) as port:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET + b"\r\n")
            writer.write_eof()
            assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"\r\n\r\nok")
            writer.close()


OFFER = b"POST /a HTTP/1.1\r\nhost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nx-a: 1\r\n"


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    "sent",
    [
        b"content-length: 31\r\n\r\nGET /smuggled HTTP/1.1\r\na: b\r\n\r",
        b"transfer-encoding: chunked\r\n\r\n1f\r\nGET /smuggled HTTP/1.1\r\na: b\r\n\r\r\n0\r\n\r\n",
    ],
)
async def test_an_offer_of_another_protocol_is_not_taken_up(sent: bytes, cut: bool) -> None:
    """As Java's client makes it with each request: the body is the body, and never the next request."""
    seen: list[tuple[str, bytes, list[bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got, more = b"", True
        while more:
            message = await receive()
            got, more = got + message["body"], message["more_body"]
        seen.append((scope["path"], got, [name for name, _ in scope["headers"]]))
        await send(start((b"content-length", b"2")))
        await send(body(b"ok"))

    async with Server(app, host="127.0.0.1", port=0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for i in range(2):
            head, _, rest = sent.partition(b"\r\n\r\n")
            for piece in [OFFER + head + b"\r\n\r\n", rest] if cut else [OFFER + sent]:
                writer.write(piece)
                await asyncio.sleep(0.05)
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 10)).startswith(b"HTTP/1.1 200"), i
        writer.write(LAST)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200")
        writer.close()
    text = b"GET /smuggled HTTP/1.1\r\na: b\r\n\r"
    framing = sent.partition(b":")[0]
    assert seen == [("/a", text, [b"host", b"connection", b"x-a", framing])] * 2 + [
        ("/", b"", [b"host", b"connection"])
    ]


async def test_a_tunnel_is_refused() -> None:
    async with serving(start((b"content-length", b"2")), body(b"ok")) as port:
        said = await raw(port, b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400")


async def test_empty_lines_do_not_keep_a_connection_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol.Protocol, "head_seconds", 0.3)
    async with serving(start((b"content-length", b"2")), body(b"ok")) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + b"\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 10)
        writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):  # one that goes on is served
            writer.write(b"\r\n" + GET + b"\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 10)
        writer.close()


@pytest.mark.parametrize(
    "header",
    [(b"x-a", b"1\r\nx-b: 2"), (b"x-a", b"1\n"), (b"x-a", b"1\0"), (b"x-a\r\nx-b", b"1"), (b"x a", b"1")],
)
async def test_a_header_that_would_be_two_is_never_sent(header: tuple[bytes, bytes], caplog: Any) -> None:
    async with serving(start((b"content-length", b"2"), header), body(b"ok")) as port:
        said = await raw(port, GET + b"\r\n")
    assert said == b"" or b"x-b" not in said
    assert b"ok" not in said
    assert any(r.levelname == "ERROR" for r in caplog.records), "it is the application's fault, and the log says so"


@pytest.mark.parametrize("data", [b"toolong", b"x"])
async def test_a_body_that_is_not_as_long_as_its_head_says_is_an_error(data: bytes, caplog: Any) -> None:
    async with serving(start((b"content-length", b"2")), body(data)) as port:
        said = await raw(port, GET + b"\r\n")
    assert b"toolong" not in said
    assert any(r.levelname == "ERROR" for r in caplog.records)


async def test_what_has_no_length_comes_in_chunks() -> None:
    async with serving(start((b"x-a", b"1")), body(b"one", more=True), body(b"two")) as port:
        said = await raw(port, LAST)
    head, _, content = said.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert content == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_names_of_headers_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_names", set())
    monkeypatch.setattr(protocol, "_NAMES", 3)
    for n in range(5):
        async with serving(start((b"content-length", b"2"), (b"x-%d" % n, b"1")), body(b"ok")) as port:
            assert b"x-%d: 1" % n in await raw(port, LAST)
            assert len(protocol._names) <= 3
    assert protocol._plain(b"x-9")
    assert not protocol._plain(b"connection")
    assert not protocol._plain(b"X-Upper")
