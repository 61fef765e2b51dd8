"""The lean client against servers that misbehave byte by byte."""

import asyncio
import contextlib
import gzip
import random
import shutil
import socket
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from fairlead.errors import TargetError
from fairlead.targets import lean
from fairlead.targets.upstream import TRACEPARENT, Upstream

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
    async with listening(handler) as port, Upstream() as upstream:
        yield upstream, f"http://127.0.0.1:{port}/v1/x?y=1"


@asynccontextmanager
async def listening(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on a port; in the end wait until every connection has been taken leave of."""
    tasks = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        await handler(reader, writer)

    server = await asyncio.start_server(tracked, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


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


# ------------------------------------------------------------------------------------------------- byte for byte


class Scripted:
    """Answers the n-th request of all with the n-th of `replies` (the last from then on); a piece that is None ends the connection."""

    def __init__(self, *replies: tuple[bytes | None, ...]) -> None:
        self.replies = replies
        self.connections = self.gone = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                n = len(self.heads)
                self.heads.append(head)
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(size))
                for piece in self.replies[min(n, len(self.replies) - 1)]:
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone += 1
        finally:
            writer.close()


async def read(upstream: Upstream, url: str, got: list[bytes]) -> None:
    """Read a stream to its end."""
    async with upstream.stream(url, {}, b"{}") as streaming:
        async for chunk in streaming.chunks():
            got.append(chunk)


def packed(body: bytes, coding: str, *more: bytes) -> bytes:
    """A whole reply with a packed body."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return head + body + b"".join(more)


async def test_a_chunked_stream_cut_at_every_byte_is_never_taken_for_whole() -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n2\r\nfg\r\n0\r\nX-T: 1\r\n\r\n"
    head = whole.index(b"\r\n\r\n") + 4
    for at in range(1, len(whole)):
        async with serving(Scripted((whole[:at], None))) as (upstream, url):
            got: list[bytes] = []
            with pytest.raises(TargetError) as caught:
                await read(upstream, url, got)
            assert caught.value.failure.kind == ("unavailable" if at < head else "broken_stream")
            # What had come was handed out before it broke.
            assert b"".join(got) == (b"abcde"[: max(0, at - head - 7)] + b"fg"[: max(0, at - head - 17)])


async def test_a_stream_arrives_event_by_event() -> None:
    """Each event is there before the next is sent, and the end before nothing else is asked: all over one connection."""
    read_so_far = asyncio.Event()
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                await reader.readuntil(b"{}")
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for i in range(5):
                    writer.write(b"2\r\n%d\n\r\n" % i)
                    await read_so_far.wait()
                    read_so_far.clear()
                writer.write(b"0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()

    async with serving(handler) as (upstream, url), asyncio.timeout(10):
        for _ in range(2):
            got = []
            async with upstream.stream(url, {}, b"{}") as streaming:
                async for chunk in streaming.chunks():
                    got.append(chunk)
                    read_so_far.set()
                    if chunk == b"4\n":
                        break
                await streaming.drain()  # the end comes after what was wanted
            assert got == [b"%d\n" % i for i in range(5)]
        assert connections == 1


async def test_the_next_request_may_go_out_before_a_stream_is_read() -> None:
    """The reply is whole, so its connection is free; what it brought waits for its reader."""
    replies = (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond",),
    )
    served = Scripted(*replies)
    async with serving(served) as (upstream, url), upstream.stream(url, {}, b"{}") as first:
        await asyncio.sleep(0.02)
        assert (await upstream.post(url, {}, b"{}")).body == b"second"
        assert await first.whole() == b"first"
        assert first.headers["content-length"] == "5"
        assert served.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: a\r\n  b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n002;x=y\r\n{}\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + GOOD,
        b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-Name: \xe9\xff\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_what_old_and_odd_servers_send_is_understood(reply: bytes) -> None:
    async with serving(Server(reply)) as (upstream, url):
        for _ in range(2):
            assert (await upstream.post(url, {}, b"{}")).body == b"{}"


@pytest.mark.parametrize("status", [204, 304])
async def test_a_reply_without_a_body_is_whole(status: int) -> None:
    served = Server(b"HTTP/1.1 %d X\r\nETag: y\r\n\r\n" % status)
    async with serving(served) as (upstream, url):
        for _ in range(2):
            reply = await upstream.post(url, {}, b"{}")
            assert (reply.status, reply.body) == (status, b"")
        assert served.connections == 1


@pytest.mark.parametrize(
    ("reply", "connections"),
    [
        (GOOD, 1),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", 1),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 3),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 3),
        (b"HTTP/1.1 200 OK\r\nconnection: x, Close\r\nContent-Length: 2\r\n\r\n{}", 3),
        (GOOD + b"garbage", 3),
        (GOOD + b"H", 3),
        (b"HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\n{}", 3),
        (b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=9\r\nContent-Length: 2\r\n\r\n{}", 3),
    ],
)
async def test_a_connection_is_used_again_only_if_it_may_be(reply: bytes, connections: int) -> None:
    served = Server(reply)
    async with serving(served) as (upstream, url):
        for _ in range(3):
            await upstream.post(url, {}, b"{}")
        assert served.connections == connections


async def test_the_connection_used_last_is_used_first() -> None:
    used: list[int] = []
    counter = iter(range(9))

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = next(counter)
        try:
            while True:
                await reader.readuntil(b"{}")
                used.append(mine)
                writer.write(GOOD)
        except asyncio.IncompleteReadError:
            writer.close()

    async with serving(handler) as (upstream, url):
        await asyncio.gather(*(upstream.post(url, {}, b"{}") for _ in range(3)))
        assert set(used) == {0, 1, 2}
        for _ in range(4):
            await upstream.post(url, {}, b"{}")
        assert len(set(used[3:])) == 1


async def test_idle_connections_are_closed_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "KEEPALIVE_SECONDS", 0.02)
    served = Scripted((GOOD,))
    async with serving(served) as (upstream, url):
        await upstream.post(url, {}, b"{}")
        async with asyncio.timeout(5):
            while not served.gone:
                await asyncio.sleep(0.01)


async def test_a_connection_closed_while_nobody_looked_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server closed it while the event loop was busy with other things: the socket knows, the loop does not yet."""
    monkeypatch.setattr(lean, "_QUIET_SECONDS", 0.0)
    sockets = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sockets.append(writer.get_extra_info("socket"))
        await Server()(reader, writer)

    async with serving(handler) as (upstream, url):
        await upstream.post(url, {}, b"{}")
        sockets[0].shutdown(socket.SHUT_RDWR)
        assert (await upstream.post(url, {}, b"{}")).status == 200
        assert len(sockets) == 2


async def test_a_request_that_was_sent_is_not_sent_again() -> None:
    """The connection dies after the second request has come: it may have been worked on (RFC 9112, section 9.3.1)."""
    served = Scripted((GOOD,), (None,), (GOOD,))
    async with serving(served) as (upstream, url):
        await upstream.post(url, {}, b"{}")
        with pytest.raises(TargetError) as caught:
            await upstream.post(url, {}, b"{}")
        assert (caught.value.failure.kind, caught.value.failure.sent) == ("unavailable", True)
        assert (await upstream.post(url, {}, b"{}")).status == 200
        assert len(served.heads) == 3


async def test_two_hundred_at_once() -> None:
    served = Scripted((GOOD[:20], GOOD[20:]))
    async with serving(served) as (upstream, url):
        for _ in range(2):
            replies = await asyncio.gather(*(upstream.post(url, {}, b"{}") for _ in range(200)))
            assert {(r.status, r.body) for r in replies} == {(200, b"{}")}
        assert served.connections <= 200


@pytest.mark.parametrize("how", ["before the head", "within the body"])
async def test_cancelling_closes_the_socket(how: str) -> None:
    reply = () if how == "before the head" else (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",)
    served = Scripted(reply)
    async with serving(served) as (upstream, url):
        task = asyncio.create_task(upstream.post(url, {}, b"{}"))
        async with asyncio.timeout(5):
            while not served.bodies:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not served.gone:
                await asyncio.sleep(0.005)


async def test_closing_ends_what_is_under_way() -> None:
    served = Scripted(())
    async with serving(served) as (upstream, url):
        task = asyncio.create_task(upstream.post(url, {}, b"{}"))
        async with asyncio.timeout(5):
            while not served.bodies:
                await asyncio.sleep(0.005)
            await upstream.__aexit__()
            with pytest.raises(TargetError) as caught:
                await task
            assert caught.value.failure.kind == "unavailable"
            await upstream.__aenter__()


# ------------------------------------------------------------------------------------------------------- packed bodies


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"hello " * 99_999)),
        ("GZip", gzip.compress(b"hello " * 50_000) + gzip.compress(b"hello " * 49_999)),
        ("x-gzip", gzip.compress(b"hello " * 99_999)),
        ("deflate", zlib.compress(b"hello " * 99_999)),
        ("deflate", zlib.compress(b"hello " * 99_999, wbits=-15)),
        ("identity", b"hello " * 99_999),
    ],
)
async def test_every_packing_is_understood_piece_by_piece(coding: str, body: bytes) -> None:
    whole = packed(body, coding)
    async with serving(Scripted((whole[:90], whole[90:300], whole[300:]))) as (upstream, url):
        assert (await upstream.post(url, {}, b"{}")).body == b"hello " * 99_999
        async with upstream.stream(url, {}, b"{}") as streaming:
            pieces = [c async for c in streaming.chunks()]
            assert b"".join(pieces) == b"hello " * 99_999
            assert max(map(len, pieces)) <= 600_000
        async with upstream.stream(url, {}, b"{}") as streaming:
            assert await streaming.whole() == b"hello " * 99_999


@pytest.mark.parametrize("body", [gzip.compress(b"hello " * 9999)[:-9], gzip.compress(b"hello")[:-8], b"no gzip"])
async def test_a_packed_reply_that_is_cut_or_garbage_is_not_taken_for_whole(body: bytes) -> None:
    async with serving(Server(packed(body, "gzip"))) as (upstream, url):
        with pytest.raises(TargetError) as caught:
            await upstream.post(url, {}, b"{}")
        assert caught.value.failure.kind == "unavailable"
        with pytest.raises(TargetError) as caught:
            await read(upstream, url, [])
        assert caught.value.failure.kind in ("broken_stream", "unavailable")


async def test_a_packed_stream_is_unpacked_no_faster_than_it_is_read() -> None:
    bomb = gzip.compress(b"\0" * 300_000_000, 1)
    async with serving(Server(packed(bomb, "gzip"))) as (upstream, url), upstream.stream(url, {}, b"{}") as streaming:
        async for chunk in streaming.chunks():
            assert len(chunk) <= 1_000_000
            break
        assert len(await streaming.head()) <= 1_000_000


# ---------------------------------------------------------------------------------------------------- floods and bounds


@pytest.mark.parametrize(
    ("start", "flood"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\nX-Filler: " + b"y" * 1000 + b"\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 5000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", b"y" * 5000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", b"x=y;" * 1000),
    ],
    ids=["interim", "interim with headers", "head", "trailer", "trailers", "chunk extension"],
)
async def test_no_flood_without_end_is_taken(start: bytes, flood: bytes) -> None:
    gone = asyncio.Event()
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(start)
        try:
            while sent < 30_000_000:
                writer.write(flood * (1 + 10_000 // len(flood)))
                await writer.drain()
                await asyncio.sleep(0)
                sent += 10_000
        except ConnectionError:
            gone.set()
        finally:
            writer.close()

    async with serving(handler) as (upstream, url), asyncio.timeout(10):
        with pytest.raises(TargetError) as caught:
            await upstream.post(url, {}, b"{}")
        assert caught.value.failure.kind == "unavailable"
        assert sent < 30_000_000


async def test_a_reply_larger_than_what_is_held_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "WHOLE_BYTES", 100_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n"
    async with serving(Server(head + b"x" * 5_000_000)) as (upstream, url):
        with pytest.raises(TargetError, match="too large"):
            await upstream.post(url, {}, b"{}")
        async with upstream.stream(url, {}, b"{}") as streaming:
            with pytest.raises(TargetError, match="too large"):
                await streaming.whole()
        async with upstream.stream(url, {}, b"{}") as streaming:  # read as it comes it may be as long as it likes
            assert sum([len(c) async for c in streaming.chunks()]) == 5_000_000


async def test_a_body_in_pieces_of_one_byte() -> None:
    body = b"1\r\nx\r\n" * 50_000
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    async with serving(Server(wire)) as (upstream, url):
        assert (await upstream.post(url, {}, b"{}")).body == b"x" * 50_000


# ------------------------------------------------------------------------------------------------------ large requests


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1_048_576, 20_000_000])
async def test_bodies_of_every_size_arrive(size: int) -> None:
    served = Scripted((GOOD,))

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await served(reader, writer)

    body = random.Random(size).randbytes(size)
    async with serving(handler) as (upstream, url), asyncio.timeout(20):
        for _ in range(2):
            assert (await upstream.post(url, {}, body)).status == 200
        assert served.bodies == [body, body]
        assert served.connections == 1


async def test_an_upstream_that_refuses_before_it_has_read_is_heard() -> None:
    reply = b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge"
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await asyncio.sleep(0.05)
        while await reader.read(2**20):
            pass
        writer.close()

    async with serving(handler) as (upstream, url), asyncio.timeout(10):
        for _ in range(2):
            got = await upstream.post(url, {}, b"x" * 30_000_000)
            assert (got.status, got.body) == (413, b"large")
        assert connections == 2, "half a request went over the first"


async def test_cancelling_a_large_request_closes_the_socket() -> None:
    begun, go_on, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await go_on.wait()
        with contextlib.suppress(ConnectionError):
            while await reader.read(2**20):
                pass
        gone.set()
        writer.close()

    async with serving(handler) as (upstream, url), asyncio.timeout(10):
        task = asyncio.create_task(upstream.post(url, {}, b"x" * 30_000_000))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await gone.wait()


# --------------------------------------------------------------------------------------------------- what is sent where


async def test_headers_go_out_as_they_are_given() -> None:
    served = Server()
    async with serving(served) as (upstream, url):
        headers = {"Authorization": "Bearer k", "X-Word": "café", "user-agent": "mine"}
        for _ in range(2):
            await upstream.post(url, headers, b"{}")
        headers["Authorization"] = "Bearer other"
        await upstream.post(url, headers, b"{}")
        token = TRACEPARENT.set("00-11111111111111111111111111111111-2222222222222222-01")
        await upstream.post(url, headers, b"{}")
        TRACEPARENT.reset(token)
        first, second, third, traced = (h.split(b"\r\n") for h in served.heads)
        assert first == second
        assert b"X-Word: caf\xc3\xa9" in first
        assert b"Authorization: Bearer k" in first
        assert b"Authorization: Bearer other" in third
        assert [line for line in first if line.lower().startswith(b"user-agent")] == [b"user-agent: mine"]
        assert b"traceparent: 00-11111111111111111111111111111111-2222222222222222-01" in traced
        assert not any(line.startswith(b"traceparent") for line in third)


@pytest.mark.parametrize(
    "headers",
    [
        {"A": "b\nc"},
        {"A": "b\rc"},
        {"A": "b\0c"},
        {"A": "\x7f"},
        {"A\r\nB": "c"},
        {"A b": "c"},
        {"": "c"},
        {"A:": "c"},
        {"Content-Length": "3"},
        {"transfer-encoding": "chunked"},
        {"A": "\ud800"},
    ],
)
async def test_no_header_that_could_be_two_goes_out(headers: dict[str, str]) -> None:
    served = Server()
    async with serving(served) as (upstream, url):
        with pytest.raises(TargetError, match="nothing was sent") as caught:
            await upstream.post(url, headers, b"{}")
        assert caught.value.failure.kind == "internal"
        assert not served.requests


async def test_no_trace_id_can_split_a_request() -> None:
    served = Server()
    async with serving(served) as (upstream, url):
        token = TRACEPARENT.set("00\r\nX: y")
        with pytest.raises(TargetError, match="line break"):
            await upstream.post(url, {}, b"{}")
        TRACEPARENT.reset(token)
        assert not served.requests


@pytest.mark.parametrize("bad", ["\n", "\r\n", "\t", "\0"])
async def test_no_url_can_split_a_request(bad: str) -> None:
    served = Server()
    async with serving(served) as (upstream, url):
        with pytest.raises(TargetError, match="line break"):
            await upstream.post(url + bad + "x", {}, b"{}")
        assert not served.requests


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("", b"/"),
        ("?a=b", b"/?a=b"),
        ("/v1/m%2Fx:y@z?q=%20&r=/?#f", b"/v1/m%2Fx:y@z?q=%20&r=/?"),
        ("/a/../b//c/~%7e", b"/a/../b//c/~%7e"),
        ("/caf\xe9 x?\xe9=1", b"/caf%C3%A9%20x?%C3%A9=1"),
    ],
)
async def test_path_and_query_are_kept(path: str, sent: bytes) -> None:
    served = Server()
    async with serving(served) as (upstream, url):
        base = url.removesuffix("/v1/x?y=1")
        await upstream.post(base + path, {}, b"{}")
        assert served.heads[0].split(b"\r\n")[0] == b"POST " + sent + b" HTTP/1.1"
        await upstream.post(URL(base + "/m/a%3Ab%2Fc", encoded=True), {}, b"{}")
        assert served.heads[1].split(b"\r\n")[0] == b"POST /m/a%3Ab%2Fc HTTP/1.1"


@pytest.mark.parametrize(
    ("url", "place", "host"),
    [
        ("http://a.b/x", (False, "a.b", 80), "a.b"),
        ("http://A.b:80/x", (False, "a.b", 80), "a.b"),
        ("http://a.b:443/x", (False, "a.b", 443), "a.b:443"),
        ("https://a.b/x", (True, "a.b", 443), "a.b"),
        ("https://a.b:8443/x", (True, "a.b", 8443), "a.b:8443"),
        ("http://[::1]/x", (False, "::1", 80), "[::1]"),
        ("http://[::1]:8000/x", (False, "::1", 8000), "[::1]:8000"),
        ("http://b\xfccher.example/x", (False, "xn--bcher-kva.example", 80), "xn--bcher-kva.example"),
    ],
)
def test_where_a_url_leads_and_what_the_host_is_called(url: str, place: tuple[bool, str, int], host: str) -> None:
    assert lean._parsed(url) == (place, "/x")
    assert lean._Origin(*place).authority == host


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/x",
        "a/x",
        "http:///x",
        "http://u:p@a/x",
        "http://u@a/x",
        "http://a:b/x",
        "http://a:99999/x",
        "http://[::1/x",
        "http://a b/x",
        "http://a\u2100/x",
    ],
)
async def test_a_url_that_leads_nowhere_is_refused_without_being_shown(url: str) -> None:
    async with Upstream() as upstream:
        with pytest.raises(TargetError, match="nothing was sent") as caught:
            await upstream.post(url, {}, b"{}")
        assert "u:p" not in caught.value.failure.message


# ------------------------------------------------------------------------------------------------------- getting there


async def test_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Server()
    try:
        server = await asyncio.start_server(served, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    async with server, Upstream() as upstream:
        port = server.sockets[0].getsockname()[1]
        assert (await upstream.post(f"http://[::1]:{port}/x", {}, b"{}")).status == 200
        assert b"\r\nHost: [::1]:%d\r\n" % port in served.heads[0]


def found(*addresses: tuple[str, int]) -> Callable[..., Awaitable[list[tuple[object, ...]]]]:
    """A resolver that knows only these."""

    async def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        await asyncio.sleep(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    return getaddrinfo


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One refuses, one never answers (here: takes for ever); whoever answers first is spoken to, the others are let go."""
    served = Server()
    async with serving(served) as (upstream, url):
        port = int(url.split(":")[2].split("/")[0])
        real = lean._socket
        waiting = asyncio.Event()

        async def dialled(to: lean._Address) -> socket.socket:
            if to.address == ("127.0.0.2", 2):
                try:
                    await asyncio.sleep(60)
                finally:
                    waiting.set()
            return await real(to)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", found(("127.0.0.1", 1), ("127.0.0.2", 2), ("127.0.0.1", port)))
        monkeypatch.setattr(lean, "_socket", dialled)
        monkeypatch.setattr(lean, "_STAGGER_SECONDS", 0.01)
        async with asyncio.timeout(5):
            assert (await upstream.post(url.replace("127.0.0.1", "many.example"), {}, b"{}")).status == 200
            assert waiting.is_set()


async def test_one_look_up_serves_all_who_ask_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    async with serving(Server()) as (upstream, url):
        port = int(url.split(":")[2].split("/")[0])

        async def getaddrinfo(*args: object, **kwargs: object) -> list[tuple[object, ...]]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.01)
            return await found(("127.0.0.1", port))()

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        named = url.replace("127.0.0.1", "one.example")
        tasks = [asyncio.create_task(upstream.post(named, {}, b"{}")) for _ in range(20)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # who gives up takes nobody's answer away
        assert [r.status for r in await asyncio.gather(*tasks[1:])] == [200] * 19
        assert asked == 1


async def test_who_does_not_answer_in_time_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(to: lean._Address) -> socket.socket:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(lean, "_socket", never)
    monkeypatch.setattr(lean, "CONNECT_SECONDS", 0.02)
    async with Upstream() as upstream:
        with pytest.raises(TargetError, match=r"no connection within 0\.02 s") as caught:
            await upstream.post("http://127.0.0.1:1/x", {}, b"{}")
        assert (caught.value.failure.kind, caught.value.failure.sent) == ("unavailable", False)


# ---------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for ``localhost`` with its key, made here; nobody but the tests trusts it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian: apt-get install openssl)")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = path.with_name("key.pem")
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(path),
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


@asynccontextmanager
async def serving_tls(
    handler: Handler, certificate: Path, *, trusted: bool = True
) -> AsyncIterator[tuple[Upstream, str]]:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate)
    own.set_alpn_protocols(["h2", "http/1.1"])
    context = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    async with listening(handler, own) as port, Upstream(context=context) as upstream:
        yield upstream, f"https://localhost:{port}/x"


async def test_tls(certificate: Path) -> None:
    served = Scripted((GOOD,))
    async with serving_tls(served, certificate) as (upstream, url), asyncio.timeout(20):
        big = random.Random(0).randbytes(3_000_000)
        for body in (b"{}", b"{}", big, b"{}"):
            assert (await upstream.post(url, {}, body)).body == b"{}"
        async with upstream.stream(url, {}, b"{}") as streaming:
            assert [c async for c in streaming.chunks()] == [b"{}"]
        assert served.connections == 1
        assert served.bodies[2] == big


async def test_tls_is_verified(certificate: Path) -> None:
    served = Scripted((GOOD,))
    async with serving_tls(served, certificate, trusted=False) as (upstream, url):
        with pytest.raises(TargetError, match="its certificate does not hold: self") as caught:
            await upstream.post(url, {}, b"{}")
        assert (caught.value.failure.kind, caught.value.failure.sent) == ("unavailable", False)
    async with serving_tls(served, certificate) as (upstream, url):
        with pytest.raises(TargetError, match="its certificate does not hold: IP address mismatch"):
            await upstream.post(url.replace("localhost", "127.0.0.1"), {}, b"{}")
    assert not served.heads


async def test_only_http_1_1_is_offered_over_tls(certificate: Path) -> None:
    spoken = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoken.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await Server()(reader, writer)

    async with serving_tls(handler, certificate, trusted=False) as (upstream, url):
        monkey = ssl.create_default_context
        try:
            ssl.create_default_context = lambda *_: monkey(cafile=str(certificate))
            assert (await upstream.post(url, {}, b"{}")).status == 200
        finally:
            ssl.create_default_context = monkey
    assert spoken == ["http/1.1"]


async def test_who_does_not_speak_tls_is_unavailable() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD)
        writer.close()

    async with serving(plain) as (upstream, url):
        with pytest.raises(TargetError, match=r"cannot connect to 127\.0\.0\.1:\d+: "):
            await upstream.post(url.replace("http:", "https:"), {}, b"{}")


async def test_a_tls_stream_that_breaks_off_is_not_whole(certificate: Path) -> None:
    served = Scripted((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", None))
    async with serving_tls(served, certificate) as (upstream, url):
        with pytest.raises(TargetError) as caught:
            await read(upstream, url, [])
        assert caught.value.failure.kind == "broken_stream"


# ------------------------------------------------------------------------------------------------------ another loop


def test_all_this_holds_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def some() -> None:
        await test_nobody_gets_the_reply_of_another()
        await test_connections_are_used_again()
        await test_a_chunked_stream_cut_at_every_byte_is_never_taken_for_whole()
        await test_the_end_of_the_connection_may_be_the_end()
        await test_what_follows_a_reply_is_not_the_next_one()
        await test_bodies_of_every_size_arrive(20_000_000)
        await test_an_upstream_that_refuses_before_it_has_read_is_heard()
        await test_a_stream_arrives_event_by_event()
        await test_closing_ends_what_is_under_way()

    uvloop.run(some())


# ------------------------------------------------------------------------------------------------------------ proxies


async def test_proxies_of_the_environment_are_heeded_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Server()
    direct = Server()
    async with listening(proxy) as there, listening(direct) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{there}")
        monkeypatch.setenv("NO_PROXY", "")
        url = f"http://127.0.0.1:{port}/v1/x"
        async with Upstream() as upstream:
            assert (await upstream.post(url, {}, b"{}")).body == b"{}"
        assert (direct.requests, proxy.requests) == (1, 0)
        async with Upstream(proxies_from_env=True) as upstream:
            token = TRACEPARENT.set("00-11111111111111111111111111111111-2222222222222222-01")
            assert (await upstream.post(url, {}, b"{}")).body == b"{}"
            TRACEPARENT.reset(token)
            async with upstream.stream(url, {}, b"{}") as streaming:
                assert streaming.status == 200
                assert streaming.headers.get("Content-Type") == "application/json"
                assert await streaming.head() == b"{}"
                await streaming.drain()
        assert (direct.requests, proxy.requests) == (1, 2)
        assert proxy.heads[0].startswith(b"POST " + url.encode() + b" HTTP/1.1\r\n")
        assert b"traceparent: 00-1111" in proxy.heads[0]


async def test_what_fails_on_the_way_through_aiohttp_has_the_same_kinds() -> None:
    async with Upstream(proxies_from_env=True) as upstream:
        with pytest.raises(TargetError, match=r"cannot connect to 127\.0\.0\.1:1: ") as caught:
            await upstream.post("http://127.0.0.1:1/x", {}, b"{}")
        assert (caught.value.failure.kind, caught.value.failure.sent) == ("unavailable", False)
        for reply, kind in ((GOOD[:20], "unavailable"), (GOOD[:-1], "broken_stream")):
            async with listening(Server(reply, close=True)) as port:
                with pytest.raises(TargetError) as caught:
                    await read(upstream, f"http://127.0.0.1:{port}/x", [])
                assert caught.value.failure.kind == kind
                with pytest.raises(TargetError) as caught:
                    await upstream.post(f"http://127.0.0.1:{port}/x", {}, b"{}")
                assert (caught.value.failure.kind, caught.value.failure.sent) == ("unavailable", True)


async def test_nothing_is_sent_before_the_start() -> None:
    with pytest.raises(TargetError, match="not started"):
        await Upstream().post("http://127.0.0.1:1/x", {}, b"{}")
