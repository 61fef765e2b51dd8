"""A lean HTTP/1.1 client: POST, connections kept open, one write a request, replies parsed by httptools.

`upstream.py` is the door to it; what has to go through a proxy is aiohttp's. What a client must know is here: the connection used last is used
first, and never one that its server closed; a reply that comes in pieces, packed, or without an end but the connection's is understood; what is
malformed, ambiguous or too large is refused; a reader that is slow slows the sender; whoever gives up closes the connection, which tells the
upstream to stop. Framing is read as strictly as llhttp can (RFC 9112, section 6); folded headers, bare line feeds and spaces after the size of a
chunk are let pass, as old servers send them.

A connection is given to the next request as soon as its reply is whole, so a reply lives in an object of its own (`Incoming`) and never in the
connection: its reader may come later.

A request is never sent twice (RFC 9112, section 9.3.1). Where an upstream hangs up after the request was sent, nobody knows whether it was worked
on (`Failure.sent`).

Over TLS, whoever cuts the connection can cut a reply that has no length and no chunks: its end is the connection's, and cannot be told from it.

Cost: 15 µs of CPU a call of 1 kB, where aiohttp takes 58; 11 for an event of a stream that comes event by event, where it takes 15, most of it the
system's and the loop's (`benchmarks/upstream.py`).
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import quote, urlsplit

import httptools

from fairlead.coalesce import Coalesced
from fairlead.errors import TargetError
from fairlead.types import Failure

if TYPE_CHECKING:
    from yarl import URL

CONNECT_SECONDS: Final = 10.0
"""For all of it: the name's look-up, the connection, TLS."""
KEEPALIVE_SECONDS: Final = 15.0
DRAIN_SECONDS: Final = 0.05
HEAD_BYTES: Final = 64 * 1024
"""The most that a head may have; and what comes between two pieces of a body."""
HEADERS: Final = 256
WHOLE_BYTES: Final = 256 * 1024 * 1024
"""The most that a whole reply may have, unpacked."""
STREAM_BYTES: Final = WHOLE_BYTES
"""The most that a stream may have, unpacked: what it says is kept until its end."""
MEMBERS: Final = 1000
"""The most that a packed reply may consist of."""
WAITING_BYTES: Final = 256 * 1024
"""Of a stream that nobody reads, more than this is not taken from the socket (but what one read brings)."""
_JOINED: Final = 64 * 1024
_PIECE: Final = 256 * 1024
_POURED: Final = 1024 * 1024
"""From here on a body is sent in pieces, each when the one before has gone: in one it would be copied, and with TLS hold up everybody."""
_LOOKED_UP_SECONDS: Final = 10.0
_STAGGER_SECONDS: Final = 0.25
_QUIET_SECONDS: Final = 1.0
_KNOWN: Final = 512
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_OURS: Final = ("content-length", "transfer-encoding")


class Headers(Mapping[str, str]):
    """Headers of a reply, whatever the case of their names; those that come twice are joined by commas."""

    __slots__ = ("of",)

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.of: dict[bytes, bytes] = {}
        of = self.of
        for name, value in pairs:
            key = name.lower()
            of[key] = of[key] + b", " + value if key in of else value

    def __getitem__(self, name: str) -> str:
        return self.of[name.lower().encode()].decode("latin-1").strip()

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self.of)

    def __len__(self) -> int:
        return len(self.of)


class Client:
    """Connections of one event loop. `context`: how upstreams behind TLS are verified; None: by the system's authorities."""

    def __init__(self, *, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self._origins: dict[tuple[bool, str, int], _Origin] = {}
        self._heads: dict[tuple[Any, ...], tuple[_Origin, bytes]] = {}
        self._open: set[_Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None

    async def close(self) -> None:
        """Close every connection, and wait until they are. Whoever waits for a reply is told."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._closed = asyncio.get_running_loop().create_future()
        self._heads.clear()  # they hold keys
        for connection in tuple(self._open):
            connection.transport.abort()
        if self._open:
            await self._closed

    async def post(
        self, url: str | URL, headers: Mapping[str, str], body: bytes, *, traceparent: str | None = None
    ) -> tuple[int, Headers, bytes]:
        """Send `body`; return (status, headers, body) of the reply.

        Raises:
            TargetError: ``unavailable`` if the upstream cannot be reached, hangs up, or sends what cannot be read.
        """
        reply = await self.send(url, headers, body, traceparent=traceparent, whole=True)
        try:
            content = await reply.whole()
            return reply.status, reply.headers, content
        finally:
            reply.leave()

    async def send(
        self,
        url: str | URL,
        headers: Mapping[str, str],
        body: bytes,
        *,
        traceparent: str | None = None,
        whole: bool = False,
    ) -> Incoming:
        """Send `body`; return the reply that is to come. Call its `leave`, whatever happens. `whole`: it is wanted whole.

        Raises:
            TargetError: ``unavailable`` if there is no connection to be had; ``internal`` if the URL or a header cannot be sent.
        """
        key = (url := str(url), *headers.items())
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= _KNOWN:
                self._heads.clear()
            known = self._heads[key] = self._head(url, headers)
        origin, head = known
        if traceparent is not None:
            head += _line("traceparent", traceparent)
        head = b"%bContent-Length: %d\r\n\r\n" % (head, len(body))
        connection = self._take(origin) or await self._connect(origin)
        reply = connection.begin(whole=whole)
        write = connection.transport.write
        if len(body) < _JOINED:
            write(head + body)
            return reply
        write(head)
        if len(body) < _POURED:
            write(body)
            return reply
        try:
            await connection.pour(reply, body)
        except BaseException:
            reply.leave()
            raise
        return reply

    def _head(self, url: str, headers: Mapping[str, str]) -> tuple[_Origin, bytes]:
        """Read `url`, and write what is the same for all requests to it with these headers."""
        place, path = _parsed(url)
        tls, host, port = place
        origin = self._origins.get(place)
        if origin is None:
            origin = self._origins[place] = _Origin(tls, host, port)
        own = {"Host": origin.authority, "Accept": "*/*", "User-Agent": "fairlead"}
        given = {name.lower() for name in headers}
        lines = [_line(name, value) for name, value in own.items() if name.lower() not in given]
        lines += [_line(name, value) for name, value in headers.items()]
        return origin, b"POST %b HTTP/1.1\r\n%b" % (path.encode("ascii"), b"".join(lines))

    # ----------------------------------------------------------------------------------------------------- connections

    def _take(self, origin: _Origin) -> _Connection | None:
        """Return an open connection that nobody uses: the one used last, whose server has had the least time to close it."""
        idle = origin.idle
        if not idle:
            return None
        now = time.monotonic()
        while idle:
            connection, _ = idle.popitem()
            if now < connection.expires and connection.fresh(now):
                return connection
            connection.transport.abort()
        return None

    def give(self, connection: _Connection, seconds: float) -> None:
        """Keep a connection whose reply is whole for the next request, `seconds` at most."""
        connection.idle_since = now = time.monotonic()
        connection.expires = now + min(seconds, KEEPALIVE_SECONDS)
        connection.origin.idle[connection] = None
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._swept)

    def forget(self, connection: _Connection) -> None:
        """Drop a connection that is closed."""
        connection.origin.idle.pop(connection, None)
        self._open.discard(connection)
        if self._closed is not None and not self._open and not self._closed.done():
            self._closed.set_result(None)

    def _swept(self) -> None:
        """Close what has been idle for too long; come back when the next one will have been."""
        self._sweep = None
        now = time.monotonic()
        idle = [c for origin in self._origins.values() for c in origin.idle]
        for connection in idle:
            if now >= connection.expires:
                del connection.origin.idle[connection]
                connection.transport.abort()
        rest = [c.expires - now for c in idle if now < c.expires]
        if rest:
            self._sweep = asyncio.get_running_loop().call_later(max(0.01, min(rest)), self._swept)

    async def _connect(self, origin: _Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        if origin.tls and self.context is None:
            self.context = ssl.create_default_context()
            self.context.set_alpn_protocols(["http/1.1"])
        at = f"{origin.host}:{origin.port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                sock = await _dialled(await origin.addresses())
                try:
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self, origin),
                        sock=sock,
                        ssl=self.context if origin.tls else None,
                        server_hostname=origin.host.rstrip(".") if origin.tls else None,
                    )
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError as e:
            if e.errno:  # the system's own
                raise _unavailable(f"cannot connect to {at}: {_why(e)}") from e
            raise _unavailable(f"no connection within {CONNECT_SECONDS:g} s") from e
        except (OSError, UnicodeError) as e:
            raise _unavailable(f"cannot connect to {at}: {_why(e)}") from e
        if self._closed is not None:
            connection.transport.abort()
            raise _unavailable("the driver was stopped")
        self._open.add(connection)
        return connection


class _Origin:
    """Where connections lead to, and those that are idle (a dict for its order: the last is the one used last)."""

    __slots__ = ("_found", "_lookup", "_until", "authority", "host", "idle", "port", "tls")

    def __init__(self, tls: bool, host: str, port: int) -> None:
        self.tls, self.host, self.port = tls, host, port
        named = f"[{host}]" if ":" in host else host
        self.authority = named if port == (443 if tls else 80) else f"{named}:{port}"
        self.idle: dict[_Connection, None] = {}
        self._found: list[_Address] = []
        self._until = 0.0
        self._lookup: asyncio.Task[list[_Address]] | None = None

    async def addresses(self) -> list[_Address]:
        """Look the name up; one look-up serves all who ask meanwhile, and for ten seconds after. Raises `OSError`."""
        if self._found and time.monotonic() < self._until:
            return self._found
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._looked_up())
            self._lookup.add_done_callback(self._ended)
        return await asyncio.shield(self._lookup)

    async def _looked_up(self) -> list[_Address]:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        found = [_Address(family, kind, proto, address) for family, kind, proto, _, address in infos]
        # Families take turns, the resolver's choice first: where one of them leads nowhere, the other is tried next (RFC 8305).
        first = [a for a in found if a.family == found[0].family]
        other = [a for a in found if a.family != found[0].family]
        self._found = [a for a in chain.from_iterable(zip_longest(first, other)) if a is not None]
        self._until = time.monotonic() + _LOOKED_UP_SECONDS
        return self._found

    def _ended(self, task: asyncio.Task[list[_Address]]) -> None:
        self._lookup = None
        if not task.cancelled():
            task.exception()  # whoever asked has it; if they all gave up, nobody is to be told


class _Address(NamedTuple):
    family: int
    kind: int
    proto: int
    address: Any


async def _dialled(addresses: list[_Address]) -> socket.socket:
    """Connect to one of `addresses`: a quarter of a second after one was tried without answer, the next is tried as well."""
    if len(addresses) == 1:
        return await _socket(addresses[0])
    trying: set[asyncio.Task[socket.socket]] = set()
    wrong: BaseException | None = None
    left = iter(addresses)
    try:
        while True:
            address = next(left, None)
            if address is not None:
                trying.add(asyncio.create_task(_socket(address)))
            if not trying:
                assert wrong is not None
                raise wrong
            await asyncio.wait(
                trying,
                timeout=None if address is None else _STAGGER_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in [t for t in trying if t.done()]:
                if (error := task.exception()) is None:
                    trying.discard(task)
                    return task.result()
                trying.discard(task)
                wrong = wrong or error
    finally:
        for task in trying:
            task.cancel()
        for late in await asyncio.gather(*trying, return_exceptions=True):
            if isinstance(late, socket.socket):
                late.close()


async def _socket(to: _Address) -> socket.socket:
    sock = socket.socket(to.family, to.kind, to.proto)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, to.address)
    except BaseException:
        sock.close()
        raise
    return sock


class _Connection(asyncio.Protocol):
    """One connection. It reads replies into the `Incoming` of whoever waits for one."""

    __slots__ = (
        "_client",
        "_framed",
        "_full",
        "_keep",
        "_pairs",
        "_parser",
        "_paused",
        "_pouring",
        "_quiet",
        "_reply",
        "_room",
        "_seconds",
        "_whole_here",
        "_wrong",
        "expires",
        "idle_since",
        "loop",
        "origin",
        "transport",
    )

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    def __init__(self, client: Client, origin: _Origin) -> None:
        self._client, self.origin = client, origin
        self.idle_since = self.expires = 0.0
        self._reply: Incoming | None = None
        self._full = self._paused = self._pouring = False
        self._wrong = ""
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def begin(self, *, whole: bool) -> Incoming:
        """Expect a reply."""
        self._pairs: list[tuple[bytes, bytes]] = []
        self._room = HEAD_BYTES
        self._quiet = 0
        self._framed = self._whole_here = self._keep = False
        self._seconds = KEEPALIVE_SECONDS
        reply = self._reply = Incoming(self, whole=whole)
        return reply

    def fresh(self, now: float) -> bool:
        """Whether its server has not closed it, as far as one can know. What the event loop has not yet seen the socket may know."""
        if self.transport.is_closing():
            return False
        if now - self.idle_since < _QUIET_SECONDS or not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    async def pour(self, reply: Incoming, body: bytes) -> None:
        """Write a large body, as fast as it goes out; give up if the upstream has refused it."""
        self._pouring = True
        view = memoryview(body)
        for start in range(0, len(body), _PIECE):
            if reply.over or reply.status >= 300:
                return
            self.transport.write(view[start : start + _PIECE])
            while self._full and not reply.over and reply.status < 300:
                await reply.news()
            await asyncio.sleep(0)
        self._pouring = False

    # ------------------------------------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.loop = asyncio.get_running_loop()
        self.transport = cast(asyncio.Transport, Coalesced(cast(asyncio.Transport, transport), self.loop))

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        self._parser = None  # they hold each other
        self._client.forget(self)
        self._break(f"the upstream hung up: {'it closed the connection' if exc is None else type(exc).__name__}")

    def eof_received(self) -> None:
        """Whoever sends no more has nothing to be asked. A reply without a length ends here."""
        if self._reply is not None and self._reply.status and not self._framed:
            self._end()
        self.transport.abort()

    def pause_writing(self) -> None:
        """Wait: what was written has not gone out."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        if self._pouring and self._reply is not None:
            self._reply.tell()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        reply = self._reply
        if reply is None:  # nothing was asked: whatever this is, it is not an answer
            self.transport.abort()
            return
        parts = len(reply.parts)
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("the upstream's reply is malformed: it changes the protocol")
            return
        except httptools.HttpParserError as e:
            if not self._whole_here:
                self._break(f"the upstream's reply is malformed: {self._wrong or e}")
                return
            self._keep = False  # the reply is whole, and something follows it
        if len(reply.parts) - parts > 8:
            reply.parts[parts:] = [b"".join(reply.parts[parts:])]  # a piece a byte would fill the memory
        if self._whole_here:
            self._end()
        elif self._quiet > HEAD_BYTES:
            self._break("the upstream's reply is malformed: its head is too large")
        elif not reply.takes_whole:
            if reply.held > WAITING_BYTES and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            if reply.status:
                reply.tell()
        elif reply.held > WHOLE_BYTES:
            self._break(_too_large(WHOLE_BYTES))

    def resume(self) -> None:
        """Read on, if reading was stopped."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _end(self) -> None:
        """The reply is whole: hand it over, keep the connection if it can be used again."""
        reply, self._reply = self._reply, None
        assert reply is not None
        usable = self._keep and not self._pouring and self._seconds > 0
        transport = self.transport
        if usable and not transport.is_closing() and not transport.get_write_buffer_size():
            self.resume()
            self._client.give(self, self._seconds)
        else:
            transport.abort()
        reply.ended(None)

    def _break(self, why: str) -> None:
        """The reply will not become whole."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.ended(why[:300])
            self.transport.abort()

    def drop(self) -> None:
        """Nobody wants the reply any more."""
        self._reply = None
        self.transport.abort()

    # ------------------------------------------------------------------------------------------------ the parser's side

    def on_message_begin(self) -> None:
        """Begin a reply, if one is due."""
        if self._whole_here:
            raise _Wrong

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or one that follows the body and is not read."""
        self._pairs.append((name, value))
        self._room -= len(name) + len(value)
        if self._room < 0:
            self._refuse("its head is too large")
        if len(self._pairs) > HEADERS:
            self._refuse("it has too many headers")

    def on_headers_complete(self) -> None:
        """Take the head."""
        status = self._parser.get_status_code()
        if status < 200:  # interim: the reply is yet to come. What they may have in all stays limited
            return
        reply = self._reply
        assert reply is not None
        headers = reply.headers = Headers(self._pairs)
        of = headers.of
        sized, chunked = b"content-length" in of, b"transfer-encoding" in of
        if chunked and of[b"transfer-encoding"].strip(b" \t").lower() != b"chunked":
            self._refuse("its transfer encoding is not known")
        if b"\0" in b"".join(of.values()):
            self._refuse("a header holds a zero byte")
        if chunked and sized:
            self._refuse("it has two lengths")
        self._framed = sized or chunked or status in (204, 304)
        if not self._framed and any(name.endswith(b" ") for name in of):
            # The parser takes it for the header without the space; were it a length, a reply that is cut would pass for whole.
            self._refuse("a header's name ends in a space")
        if b"content-encoding" in of and (coding := headers["content-encoding"].lower()) not in ("", "identity"):
            if coding not in ("gzip", "x-gzip", "deflate"):
                self._refuse("its content encoding is not known, and was not asked for")
            reply.unpacker = _Unpacker(coding)
        if b"keep-alive" in of and (found := re.search(r"\btimeout=(\d{1,6})\b", headers["keep-alive"])):
            self._seconds = int(found[1]) - 1.0  # so that it is not used while its server closes it
        reply.status = status

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        reply = self._reply
        assert reply is not None
        reply.parts.append(data)
        reply.held += len(data)
        self._quiet = 0

    def on_message_complete(self) -> None:
        """The reply is whole, unless it was an interim one."""
        if self._parser.get_status_code() < 200:
            self._pairs = []
            return
        self._whole_here = True
        self._keep = self._parser.should_keep_alive()

    def _refuse(self, why: str) -> None:
        self._wrong = why  # httptools does not hand on what a callback raises
        raise _Wrong


class Incoming:
    """A reply that is coming in, for one reader. `headers` is case-insensitive; `status` is 0 until the head is here."""

    __slots__ = (
        "_connection",
        "_loop",
        "_waiter",
        "_why",
        "headers",
        "held",
        "over",
        "parts",
        "status",
        "takes_whole",
        "unpacker",
    )

    headers: Headers

    def __init__(self, connection: _Connection, *, whole: bool) -> None:
        self._connection: _Connection | None = connection
        self._loop = connection.loop
        self._waiter: asyncio.Future[None] | None = None
        self._why: str | None = None
        self.takes_whole = whole
        self.status = 0
        self.parts: list[bytes] = []
        self.held = 0
        """Bytes in `parts`."""
        self.over = False
        """Nothing more will come."""
        self.unpacker: _Unpacker | None = None

    # -------------------------------------------------------------------------------------------- the connection's side

    def ended(self, why: str | None) -> None:
        """Nothing more will come: the reply is whole, or `why` it is not."""
        self.over, self._why, self._connection = True, why, None
        self.tell()

    def tell(self) -> None:
        """Wake the reader."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ------------------------------------------------------------------------------------------------ the reader's side

    async def news(self) -> None:
        """Wait until something has happened."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def started(self) -> None:
        """Wait for the head. Raises `TargetError` (``unavailable``)."""
        while not self.status and not self.over:
            await self.news()
        if not self.status:
            raise _unavailable(self._why or "", sent=True)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what has come, as it comes. Raises `TargetError` (``broken_stream``) if the connection breaks, or it has no end."""
        size = 0
        try:
            while True:
                if size > STREAM_BYTES:
                    raise _broken(_too_large(STREAM_BYTES))
                if self.unpacker is not None and (piece := self.unpacker.pull()):
                    size += len(piece)
                    yield piece
                elif self.parts:
                    data = self._taken()
                    if self.unpacker is None:
                        size += len(data)
                        yield data
                    else:
                        self.unpacker.push(data)
                elif self.over:
                    break
                else:
                    await self.news()
            if self._why is None and self.unpacker is not None:
                self.unpacker.check()
        except zlib.error as e:
            raise _broken("what it sends cannot be unpacked") from e
        if self._why is not None:
            raise _broken(self._why)

    async def whole(self) -> bytes:
        """Read the rest. Raises `TargetError` (``unavailable``) if the connection breaks."""
        self.takes_whole = True
        if self._connection is not None:
            self._connection.resume()
        while not self.over:
            await self.news()
        if self._why is not None:
            raise _unavailable(f"the reply broke off: {self._why}" if self.status else self._why, sent=True)
        data = self._taken()
        return data if self.unpacker is None else await self._unpacked(self.unpacker, data)

    async def drain(self) -> None:
        """Read the end of a reply whose content is all here, so that its connection can be used again; give up soon."""
        if self.over:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.over:
                    self._taken()
                    await self.news()
        except TimeoutError:
            # The answer is whole; all that is lost is the connection, which is closed on leaving.
            return

    async def head(self, size: int = HEAD_BYTES) -> bytes:
        """Read up to `size` bytes, for an error's message."""
        parts: list[bytes] = []
        async for chunk in self.chunks():
            parts.append(chunk)
            size -= len(chunk)
            if size <= 0:
                break
        return b"".join(parts)

    def leave(self) -> None:
        """Let go of it: a connection whose reply is not whole is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.over, self._why = True, "it was left"
            connection.drop()

    def _taken(self) -> bytes:
        """Take what has come."""
        parts, self.parts, self.held = self.parts, [], 0
        if self._connection is not None:
            self._connection.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _unpacked(self, unpacker: _Unpacker, data: bytes) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            unpacker.push(data)
            while piece := unpacker.pull():
                parts.append(piece)
                size += len(piece)
                if size > WHOLE_BYTES:
                    raise _unavailable(_too_large(WHOLE_BYTES), sent=True)
                if len(parts) > 1:
                    await asyncio.sleep(0)
            unpacker.check()
        except zlib.error as e:
            raise _unavailable("the upstream's reply is malformed: it cannot be unpacked", sent=True) from e
        return b"".join(parts)


class _Unpacker:
    """Undoes ``gzip`` (of several members too) and ``deflate`` (with zlib's frame, or bare as some send it), no faster than it is asked.

    What it holds is gone through in windows: whatever zlib does not take of what it is given it copies, each time.
    """

    __slots__ = ("_at", "_bits", "_data", "_full", "_members", "_of")

    def __init__(self, coding: str) -> None:
        self._bits = zlib.MAX_WBITS if coding == "deflate" else 16 + zlib.MAX_WBITS
        self._of: Any = None
        self._data = b""
        self._at = self._members = 0
        self._full = False

    def push(self, data: bytes) -> None:
        """Take more of what is packed."""
        self._data, self._at = self._data[self._at :] + data, 0

    def pull(self) -> bytes:
        """Return some more of what was in it; nothing if it needs more to go on. Raises `zlib.error`."""
        while self._at < len(self._data) or self._full:
            if self._of is None:
                self._members += 1
                if self._members > MEMBERS:
                    raise zlib.error("it has too many members")
                bare = self._bits == zlib.MAX_WBITS and self._data[self._at] & 15 != 8
                self._of = zlib.decompressobj(wbits=-zlib.MAX_WBITS if bare else self._bits)
            of = self._of
            window = self._data[self._at : self._at + _JOINED]
            piece: bytes = of.decompress(window, _PIECE)
            self._at += len(window) - len(of.unused_data if of.eof else of.unconsumed_tail)
            self._full = len(piece) == _PIECE and not of.eof  # it may hold back more
            if of.eof:
                self._of = None
            if piece:
                return piece
        return b""

    def check(self) -> None:
        """Raise `zlib.error` if it ended in the middle."""
        if self._of is not None:
            raise zlib.error("the end is missing")


class _Wrong(Exception):
    """Ends a parser's work; the words are in the connection."""


# -------------------------------------------------------------------------------------------------------- URLs and words


def _parsed(url: str) -> tuple[tuple[bool, str, int], str]:
    """Read `url`: (whether TLS, host, port), path and query as they are to be sent. Raises `TargetError` (``internal``)."""
    if _CONTROL.search(url) or "\t" in url:
        raise _refused("the URL holds a line break or another control character")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as e:
        raise _refused("the URL cannot be read") from e
    if parts.scheme not in ("http", "https") or not host or " " in host:
        raise _refused("the URL cannot be read: write one like https://host/v1")
    if "@" in parts.netloc:
        raise _refused("a URL must not hold a password; use api_key or headers")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (tls, host, port if port is not None else 443 if tls else 80), quote(path, safe=_VISIBLE)


def _line(name: str, value: str) -> bytes:
    """Write a header's line. Raises `TargetError` (``internal``) if it would be more than one; the value is not shown."""
    if _CONTROL.search(name) or _CONTROL.search(value):
        raise _refused("a header holds a line break or another control character")
    if not _TOKEN.fullmatch(name):
        raise _refused(f"{name!r} is no name for a header")
    if name.lower() in _OURS:
        raise _refused(f"leave the header {name} out: it is written for each request")
    try:
        return f"{name}: {value}\r\n".encode()
    except UnicodeEncodeError as e:
        raise _refused(f"the header {name} holds what is no text") from e


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold: {error.verify_message}"
    if isinstance(error, ssl.SSLError | socket.gaierror):
        return error.strerror or type(error).__name__
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error) or type(error).__name__


def _too_large(most: int) -> str:
    return f"the upstream's reply is too large: it has more than {most} bytes"


def _refused(message: str) -> TargetError:
    return TargetError(Failure(kind="internal", message=f"{message}; nothing was sent"))


def _unavailable(message: str, *, sent: bool = False) -> TargetError:
    return TargetError(Failure(kind="unavailable", message=message, sent=sent))


def _broken(why: str) -> TargetError:
    return TargetError(Failure(kind="broken_stream", message=f"the stream broke: {why}"))
