"""A lean HTTP/1.1 client for upstreams on plain HTTP: connections kept open, one write a request, replies parsed by httptools.

Such upstreams stand beside the gateway: vLLM, SGLang, llama.cpp, Ollama, a sidecar. What has to go through TLS or a proxy is aiohttp's (see
`upstream.py`, the one door to both). What a client must know is here: idle connections that the server closed are not used, a reply that comes in pieces,
compressed, or without an end but the connection's is understood; what is malformed, ambiguous or too large is refused; a reader that is slow slows
the sender; whoever gives up closes the connection, which tells the upstream to stop.

A request is never sent twice. Where an upstream hangs up after the request was sent, nobody knows whether it was worked on (`Failure.sent`).

Cost: 20 µs of CPU a call, where aiohttp takes 70 (`benchmarks/upstream.py`).
"""

from __future__ import annotations

import asyncio
import socket
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httptools

from fairlead.errors import TargetError
from fairlead.types import Failure

CONNECT_SECONDS: Final = 10.0
KEEPALIVE_SECONDS: Final = 15.0
DRAIN_SECONDS: Final = 0.05
HEAD_BYTES: Final = 64 * 1024
WHOLE_BYTES: Final = 256 * 1024 * 1024
"""The most that a whole reply may have, unpacked."""
WAITING_BYTES: Final = 1024 * 1024
"""Of a stream that nobody reads, more than this is not taken from the socket."""
_JOINED: Final = 64 * 1024
_KNOWN: Final = 512


class Headers(Mapping[str, str]):
    """Headers of a reply, whatever the case of their names."""

    __slots__ = ("_of",)

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._of: dict[str, str] = {}
        for name, value in pairs:
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            self._of[key] = f"{self._of[key]}, {text}" if key in self._of else text

    def __getitem__(self, name: str) -> str:
        return self._of[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)


class Client:
    """Connections of one event loop, by host and port."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], deque[Connection]] = {}
        self._all: set[Connection] = set()
        self._heads: dict[Any, tuple[str, int, bytes]] = {}

    async def close(self) -> None:
        """Close every connection."""
        for connection in tuple(self._all):
            connection.close()
        await asyncio.sleep(0)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Connection:
        """Send a POST; return its connection, whose reply is yet to come.

        Raises:
            TargetError: ``unavailable`` if there is no connection to be had.
        """
        key = (url, *headers.items())
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= _KNOWN:
                self._heads.clear()
            known = self._heads[key] = _head(url, headers)
        host, port, head = known
        connection = self._take(host, port) or await self._connect(host, port)
        connection.begin()
        head = b"%b%d\r\n\r\n" % (head, len(body))
        if len(body) < _JOINED:
            connection.transport.write(head + body)
        else:
            connection.transport.write(head)
            connection.transport.write(body)
        return connection

    def _take(self, host: str, port: int) -> Connection | None:
        """Return an open connection that nobody uses: the one used last, whose server has had the least time to close it."""
        idle = self._idle.get((host, port))
        if not idle:
            return None
        now = time.monotonic()
        while idle:
            connection = idle.pop()
            if connection.open and now - connection.idle_since < KEEPALIVE_SECONDS:
                if idle and now - idle[0].idle_since >= KEEPALIVE_SECONDS:
                    idle.popleft().close()
                return connection
            connection.close()
        return None

    async def _connect(self, host: str, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                transport, connection = await loop.create_connection(lambda: Connection(self, host, port), host, port)
        except TimeoutError as e:
            raise _unavailable(f"no connection within {CONNECT_SECONDS:g} s") from e
        except socket.gaierror as e:
            raise _unavailable(f"cannot connect to {host}:{port}: {e.strerror or 'the name is not known'}") from e
        except (OSError, UnicodeError) as e:
            why = getattr(e, "strerror", None) or str(e) or type(e).__name__
            raise _unavailable(f"cannot connect to {host}:{port}: {why}") from e
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._all.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Keep a connection whose reply is whole for the next request."""
        connection.idle_since = time.monotonic()
        self._idle.setdefault((connection.host, connection.port), deque()).append(connection)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed."""
        self._all.discard(connection)
        idle = self._idle.get((connection.host, connection.port))
        if idle is not None and connection in idle:
            idle.remove(connection)


class Connection(asyncio.Protocol):
    """One connection, and the reply that comes over it."""

    __slots__ = (
        "_body",
        "_bytes",
        "_chunked",
        "_client",
        "_coding",
        "_done",
        "_failure",
        "_head_bytes",
        "_keep",
        "_left",
        "_length",
        "_news",
        "_pairs",
        "_parser",
        "_paused",
        "_started",
        "_waiting",
        "_whole",
        "headers",
        "host",
        "idle_since",
        "open",
        "port",
        "status",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, client: Client, host: str, port: int) -> None:
        self._client, self.host, self.port = client, host, port
        self.open = False
        self.idle_since = 0.0
        self._parser: Any = None
        self._news: asyncio.Future[None] | None = None
        self._done = True

    def begin(self) -> None:
        """Expect a reply."""
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._pairs: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._bytes = self._waiting = self._head_bytes = 0
        self._coding: Any = None
        self._length = self._chunked = self._started = self._done = self._paused = self._whole = False
        self._keep = self._left = False
        self._failure: Failure | None = None

    # ------------------------------------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._done:  # nothing was asked: whatever this is, it is not an answer
            self.close()
            return
        if not self.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the upstream switches to another protocol")
        except (httptools.HttpParserError, _Wrong) as e:
            why = e.__context__ if isinstance(e.__context__, _Wrong) else e
            if self._done:
                self.close()  # the reply is whole, and something follows it
            else:
                self._fail(f"the upstream's reply is malformed: {why}"[:200])
        else:
            if not self.status and self._head_bytes > HEAD_BYTES:
                self._fail(f"the head of the upstream's reply has more than {HEAD_BYTES} bytes")

    def eof_received(self) -> bool:
        """Close: whoever sends no more is sent no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        self.open = False
        self._client.forget(self)
        if not self._done:
            if exc is None and self._started and self.status and not self._length and not self._chunked:
                self._finish()  # its end is the connection's
            else:
                self._fail(f"the upstream hung up: {type(exc).__name__ if exc is not None else 'end of stream'}")

    def close(self) -> None:
        """Close the connection."""
        self.open = False
        if not self.transport.is_closing():
            self.transport.abort()

    # ------------------------------------------------------------------------------------------------ the parser's side

    def on_message_begin(self) -> None:
        """A reply begins. Raises `_Wrong` if nothing was asked that it could answer."""
        if self._done:
            raise _Wrong("something follows it")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._pairs.append((name, value))
        if len(self._pairs) > 256:
            raise _Wrong("too many headers")

    def on_headers_complete(self) -> None:
        """Take the head."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        self.headers = headers = Headers(self._pairs)
        self._length = "content-length" in headers
        self._chunked = "transfer-encoding" in headers
        if self._length and self._chunked:
            raise _Wrong("it has two lengths")
        if self._chunked and headers["transfer-encoding"].strip().lower() != "chunked":
            raise _Wrong("its transfer encoding is not known")
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding in ("gzip", "x-gzip", "deflate"):
            self._coding = zlib.decompressobj(wbits=47)
        elif coding not in ("identity", ""):
            raise _Wrong(f"its content encoding {coding[:20]!r} is not known")
        self.status, self._started = status, True
        self._tell()

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._coding is not None:
            try:
                data = self._coding.decompress(data, WHOLE_BYTES)
            except zlib.error as e:
                raise _Wrong("it cannot be unpacked") from e
            if self._coding.unconsumed_tail:
                raise _Wrong("it is too large")
        if not data:
            return
        self._body.append(data)
        self._bytes += len(data)
        self._waiting += len(data)
        if self._bytes > WHOLE_BYTES and self._whole:
            raise _Wrong(f"it has more than {WHOLE_BYTES} bytes")
        if self._waiting > WAITING_BYTES and not self._whole and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self._tell()

    def on_message_complete(self) -> None:
        """The reply is whole, unless it was an interim one."""
        if self._parser.get_status_code() < 200:
            self._pairs = []
            self._head_bytes = 0
            return
        self._keep = self._parser.should_keep_alive()
        self._finish()

    def _finish(self) -> None:
        self._done = True
        self._tell()

    def _fail(self, message: str) -> None:
        if not self._done:
            self._failure = Failure(kind="unavailable", message=message, sent=True)
            self._finish()
        self.close()

    # ------------------------------------------------------------------------------------------------ the reader's side

    def _tell(self) -> None:
        news = self._news
        if news is not None and not news.done() and (self._done or not self._whole):
            news.set_result(None)

    async def _wait(self) -> None:
        """Wait until something has happened; closes the connection if nobody waits any more."""
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        except BaseException:
            self.close()
            raise
        finally:
            self._news = None

    async def reply(self) -> tuple[int, Mapping[str, str], bytes]:
        """Wait for the whole reply. Raises `TargetError` (``unavailable``)."""
        self._whole = True
        while not self._done:
            await self._wait()
        if self._failure is not None:
            raise TargetError(self._failure)
        found = self.status, self.headers, self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.leave()
        return found

    async def started(self) -> None:
        """Wait for the head. Raises `TargetError` (``unavailable``)."""
        while not self._started and not self._done:
            await self._wait()
        if self._failure is not None and not self._started:
            raise TargetError(self._failure)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield each read as it comes. Raises `TargetError` (``broken_stream``) if the connection breaks."""
        while True:
            while self._body:
                body, self._body, self._waiting = self._body, [], 0
                if self._paused and self.open:
                    self._paused = False
                    self.transport.resume_reading()
                yield body[0] if len(body) == 1 else b"".join(body)
            if self._done:
                break
            await self._wait()
        if self._failure is not None:
            message = f"the stream broke: {self._failure.message}"
            raise TargetError(Failure(kind="broken_stream", message=message))

    async def whole(self) -> bytes:
        """Read the rest. Raises `TargetError` (``unavailable``) if the connection breaks."""
        return (await self.reply())[2]

    async def drain(self) -> None:
        """Read the end of a reply whose content is all here, so that its connection can be used again; give up soon."""
        if self._done:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._done:
                    await self._wait()
        except TimeoutError:
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
        """Let go of the reply. A connection whose reply is whole, and read, is kept for the next request; any other is closed."""
        if self._done and self._keep and self.open:
            self._keep = False
            self._client.release(self)
        elif self.open and not self._left:
            self._done = True
            self.close()
        self._left = True


class _Wrong(Exception):
    """What is wrong with a reply."""


def _head(url: str, headers: Mapping[str, str]) -> tuple[str, int, bytes]:
    """Write what is the same for all requests to `url` with these headers: (host, port, head up to the length)."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = f"[{host}]" if ":" in host else host
    lines = [f"POST {path} HTTP/1.1", f"Host: {named if port == 80 else f'{named}:{port}'}", "User-Agent: fairlead"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    for line in (url, *lines):  # the URL too: taking it apart drops its line breaks silently
        if any(c in line for c in "\r\n\0"):
            text = "a header or the URL holds a line break; nothing was sent"
            raise TargetError(Failure(kind="internal", message=text))
    try:
        head = "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
    except UnicodeEncodeError as e:
        raise TargetError(Failure(kind="internal", message="a header holds characters that HTTP does not know")) from e
    return host, port, head


def _unavailable(message: str) -> TargetError:
    return TargetError(Failure(kind="unavailable", message=message))
