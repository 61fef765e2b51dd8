"""The lean client against servers that misbehave byte by byte."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from fairlead.errors import TargetError
from fairlead.targets import lean
from fairlead.targets.upstream import Upstream

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers every request with the same bytes; counts connections and requests, and keeps what it was sent."""

    def __init__(self, reply: bytes = GOOD, *, close: bool = False) -> None:
        self.reply, self.close = reply, close
        self.connections = self.requests = self.gone = 0
        self.heads: list[bytes] = []
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                self.heads.append(head)
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(self.reply)
                await writer.drain()
                if self.close:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone += 1
        finally:
            writer.close()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[Upstream, str]]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        async with Upstream() as upstream:
            yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?y=1"
    finally:
        server.close()


async def test_connections_are_used_again() -> None:
    served = Server()
    async with serving(served) as (upstream, url):
        for _ in range(5):
            reply = await upstream.post(url, {"A": "b"}, b"{}")
            assert (reply.status, reply.body, reply.headers.get("Content-Type")) == (200, b"{}", "application/json")
        assert (served.connections, served.requests) == (1, 5)
        assert served.heads[0].startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"\r\nA: b\r\n" in served.heads[0]
        await asyncio.gather(*(upstream.post(url, {}, b"{}") for _ in range(100)))
        assert served.requests == 105
        await asyncio.gather(*(upstream.post(url, {}, b"{}") for _ in range(100)))
        assert served.connections <= 100


async def test_nobody_gets_the_reply_of_another() -> None:
    """Many at once, one after the other: a connection is given on only when its reply has been read."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def ask(upstream: Upstream, url: str, who: int) -> None:
        for i in range(30):
            body = b"%d of %d" % (i, who)
            if i % 2:
                assert (await upstream.post(url, {}, body)).body == body
                continue
            async with upstream.stream(url, {}, body) as streaming:
                assert b"".join([c async for c in streaming.chunks()]) == body
                await streaming.drain()

    async with serving(echo) as (upstream, url):
        async with asyncio.timeout(20):
            await asyncio.gather(*(ask(upstream, url, n) for n in range(20)))


async def test_a_connection_that_the_server_closed_is_not_used() -> None:
    served = Server(close=True)
    async with serving(served) as (upstream, url):
        for _ in range(5):
            assert (await upstream.post(url, {}, b"{}")).status == 200
            await asyncio.sleep(0.01)
        assert served.connections == 5


async def test_idle_connections_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "KEEPALIVE_SECONDS", 0.02)
    served = Server()
    async with serving(served) as (upstream, url):
        await upstream.post(url, {}, b"{}")
        await asyncio.sleep(0.05)
        await upstream.post(url, {}, b"{}")
        assert served.connections == 2


@pytest.mark.parametrize("step", [1, 7])
async def test_a_reply_that_comes_in_pieces(step: int) -> None:
    wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for i in range(0, len(wire), step):
            writer.write(wire[i : i + step])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    async with serving(drip) as (upstream, url):
        assert (await upstream.post(url, {}, b"{}")).body == b"abcde"
    async with serving(drip) as (upstream, url), upstream.stream(url, {}, b"{}") as streaming:
        assert b"".join([c async for c in streaming.chunks()]) == b"abcde"


async def test_a_reply_cut_at_every_byte_is_never_taken_for_whole() -> None:
    for whole in (GOOD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"):
        for at in range(len(whole)):
            async with serving(Server(whole[:at], close=True)) as (upstream, url):
                with pytest.raises(TargetError) as caught:
                    await upstream.post(url, {}, b"{}")
                assert caught.value.failure.kind == "unavailable"
                assert caught.value.failure.sent, "it may have been worked on"


async def test_the_end_of_the_connection_may_be_the_end() -> None:
    async with serving(Server(b"HTTP/1.1 200 OK\r\n\r\nto the end", close=True)) as (upstream, url):
        assert (await upstream.post(url, {}, b"{}")).body == b"to the end"


async def test_packed_replies_are_understood() -> None:
    body = gzip.compress(b"hello " * 1000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with serving(Server(head + body)) as (upstream, url):
        assert (await upstream.post(url, {}, b"{}")).body == b"hello " * 1000


async def test_a_packed_reply_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "WHOLE_BYTES", 100_000)
    body = gzip.compress(b"\0" * 10_000_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with serving(Server(head + body)) as (upstream, url):
        with pytest.raises(TargetError, match="too large"):
            await upstream.post(url, {}, b"{}")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 300 + b"content-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 100_000,
    ],
)
async def test_what_is_malformed_or_ambiguous_is_refused(reply: bytes) -> None:
    async with serving(Server(reply)) as (upstream, url):
        with pytest.raises(TargetError) as caught:
            async with asyncio.timeout(5):
                await upstream.post(url, {}, b"{}")
        assert caught.value.failure.kind == "unavailable"


async def test_what_follows_a_reply_is_not_the_next_one() -> None:
    """An upstream that sends two replies for one request must not answer the next request with the second."""
    served = Server(GOOD + GOOD.replace(b"{}", b"[]"))
    async with serving(served) as (upstream, url):
        for _ in range(3):
            assert (await upstream.post(url, {}, b"{}")).body == b"{}"
            await asyncio.sleep(0.01)
        assert served.connections == 3


async def test_whoever_gives_up_closes_the_connection() -> None:
    served = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    async with serving(served) as (upstream, url):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await upstream.post(url, {}, b"{}")
        async with upstream.stream(url, {}, b"{}") as streaming:
            assert streaming.status == 200
        await asyncio.sleep(0.02)
        assert (served.connections, served.gone) == (2, 2)


async def test_a_slow_reader_slows_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "WAITING_BYTES", 10_000)
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        try:
            while sent < 100_000_000:
                writer.write(b"x" * 100_000)
                await writer.drain()
                sent += 100_000
        except ConnectionError:
            pass

    async with serving(flood) as (upstream, url), upstream.stream(url, {}, b"{}") as streaming:
        await asyncio.sleep(0.1)
        assert sent < 30_000_000, "the rest waits in the sockets"
        got = 0
        async for chunk in streaming.chunks():
            got += len(chunk)
            if got > 40_000_000:
                break


@pytest.mark.parametrize("name", ["X\r\nY: z", "X"])
async def test_no_header_can_split_a_request(name: str) -> None:
    served = Server()
    async with serving(served) as (upstream, url):
        with pytest.raises(TargetError, match="line break"):
            await upstream.post(url, {name: "a\r\nb: c"}, b"{}")
        with pytest.raises(TargetError, match="line break"):
            await upstream.post(url + "\r\nx: y", {}, b"{}")
        assert served.requests == 0


async def test_nobody_is_there() -> None:
    async with Upstream() as upstream:
        with pytest.raises(TargetError, match=r"cannot connect to 127\.0\.0\.1:1: ") as caught:
            await upstream.post("http://127.0.0.1:1/x", {}, b"{}")
        assert not caught.value.failure.sent
        with pytest.raises(TargetError, match=r"cannot connect to no-such-host\.invalid:80: "):
            await upstream.post("http://no-such-host.invalid/x", {}, b"{}")
