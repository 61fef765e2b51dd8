"""Calls through the environment's proxies, over aiohttp. `upstream.py` is the door to it; without proxies `lean.py` takes the calls.

Cost: 58 µs of CPU a call (`benchmarks/upstream.py`), the look-up of proxies not counted; 0.1 s and 10 MB to import, so only where it is needed.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final

import aiohttp

from fairlead.errors import TargetError
from fairlead.targets.lean import (
    CONNECT_SECONDS,
    DRAIN_SECONDS,
    HEAD_BYTES,
    KEEPALIVE_SECONDS,
    STREAM_BYTES,
    WHOLE_BYTES,
)
from fairlead.types import Failure

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from yarl import URL

_POURED: Final = 2**20


class _Connector(aiohttp.TCPConnector):
    """Gives out no idle connection on which something has come since: it would be taken for the reply to the next request."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                break
            connection.close()
        return connection


class Session:
    """Connections of one event loop, made where one runs. `from_env`: whether ``HTTP_PROXY`` and its like are heeded."""

    def __init__(self, *, from_env: bool = True) -> None:
        self.from_env = from_env
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            # Plans and drivers keep the time of a whole call.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Without this header upstreams send plain bytes; those that compress all the same are still understood.
            skip_auto_headers=("Accept-Encoding",),
            headers={"User-Agent": "fairlead"},
            trust_env=from_env,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def post(
        self, url: str | URL, headers: Mapping[str, str], body: bytes, *, traceparent: str | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send `body`; return (status, headers, body) of the reply.

        Raises:
            TargetError: ``unavailable`` if the upstream cannot be reached or hangs up.
        """
        reply = await self.send(url, headers, body, traceparent=traceparent)
        try:
            return reply.status, reply.headers, await reply.whole()
        finally:
            reply.leave()

    async def send(
        self, url: str | URL, headers: Mapping[str, str], body: bytes, *, traceparent: str | None = None
    ) -> Incoming:
        """Send `body`; return the reply once its head is here. Call its `leave`, whatever happens.

        Raises:
            TargetError: ``unavailable`` if the upstream cannot be reached or hangs up.
        """
        if traceparent is not None:
            headers = {**headers, "traceparent": traceparent}
        # In one, a large body would hold up everybody else.
        data = body if len(body) < _POURED else io.BytesIO(body)
        try:
            reply = await self._session.post(url, data=data, headers=headers, allow_redirects=False)
        except (aiohttp.ServerTimeoutError, aiohttp.ConnectionTimeoutError) as e:
            message = f"no connection within {CONNECT_SECONDS:g} s"
            raise TargetError(Failure(kind="unavailable", message=message)) from e
        except aiohttp.ClientConnectorError as e:
            why = e.os_error.strerror or type(e.os_error).__name__
            message = f"cannot connect to {e.host}:{e.port}: {why}"
            raise TargetError(Failure(kind="unavailable", message=message)) from e
        except (aiohttp.ClientError, ConnectionError) as e:
            message = f"the upstream hung up: {type(e).__name__}"
            raise TargetError(Failure(kind="unavailable", message=message, sent=True)) from e
        if [c.strip().lower() for c in reply.headers.getall("Transfer-Encoding", ())] not in ([], ["chunked"]):
            # aiohttp reads such a reply to the connection's end, wherever that is.
            reply.close()
            message = "the upstream's reply is malformed: its transfer encoding is not known"
            raise TargetError(Failure(kind="unavailable", message=message, sent=True))
        return Incoming(reply)


class Incoming:
    """A reply whose head is here. `headers` is case-insensitive."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def started(self) -> None:
        """Wait for the head, which is here."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what has come, as it comes. Raises `TargetError` (``broken_stream``) if the connection breaks, or it has no end."""
        readany = self._response.content.readany
        size = 0
        try:
            while chunk := await readany():
                size += len(chunk)
                if size > STREAM_BYTES:
                    message = (
                        f"the stream broke: the upstream's reply is too large: it has more than {STREAM_BYTES} bytes"
                    )
                    raise TargetError(Failure(kind="broken_stream", message=message))
                yield chunk
        except (aiohttp.ClientError, ConnectionError) as e:
            raise TargetError(Failure(kind="broken_stream", message=f"the stream broke: {type(e).__name__}")) from e

    async def whole(self) -> bytes:
        """Read the rest. Raises `TargetError` (``unavailable``) if the connection breaks."""
        readany = self._response.content.readany
        parts: list[bytes] = []
        size = 0
        try:
            while chunk := await readany():
                size += len(chunk)
                if size > WHOLE_BYTES:
                    message = f"the upstream's reply is too large: it has more than {WHOLE_BYTES} bytes"
                    raise TargetError(Failure(kind="unavailable", message=message, sent=True))
                parts.append(chunk)
            return b"".join(parts)
        except (aiohttp.ClientError, ConnectionError) as e:
            message = f"the reply broke off: {type(e).__name__}"
            raise TargetError(Failure(kind="unavailable", message=message, sent=True)) from e

    async def drain(self) -> None:
        """Read the end of a reply whose content is all here, so that its connection can be used again; give up soon."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._response.content.at_eof():
                    await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
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
        """Let go of it: gives the connection back if the reply was read to its end (it is then detached), and closes it if not."""
        self._response.close()
