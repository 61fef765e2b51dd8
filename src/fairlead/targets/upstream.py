"""HTTP to upstreams: one small interface, `post` and `stream`, over a lean client of our own for plain HTTP and aiohttp for TLS and proxies.

All drivers of one event loop share one session, so they share its connections too. Cancelling a call closes its connection, which
tells the upstream to stop. Nothing is retried here: a second POST may be billed twice, and plans know better where to go next.

Cost: see `lean.py`; over aiohttp about 70 µs of CPU a call.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from weakref import WeakKeyDictionary

import aiohttp
import msgspec
from yarl import URL

from fairlead.errors import ConfigError, TargetError
from fairlead.secret import checked, redact, reveal
from fairlead.targets import lean
from fairlead.types import Failure, FailureKind

CONNECT_SECONDS: Final = 10.0
KEEPALIVE_SECONDS: Final = 15.0
DRAIN_SECONDS: Final = 0.05
MESSAGE_CHARACTERS: Final = 500
ERROR_BYTES: Final = 64 * 1024
_SECRET_HEADER: Final = re.compile(r"key|token|auth|secret|password|cookie", re.IGNORECASE)

_TOO_LONG: Final = (
    "context_length_exceeded",
    "maximum context length",
    "context length exceeded",
    "exceed_context_size",
    "exceeds the available context size",
    "prompt is too long",
    "input is too long",
    "too many input tokens",
)


TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("fairlead_traceparent", default=None)
"""W3C ``traceparent`` that goes with each call of the request being answered; None: none does."""


class Reply(NamedTuple):
    """A whole reply. `headers` is case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Streaming(ABC):
    """A reply that is still coming in. `headers` is case-insensitive."""

    status: int
    headers: Mapping[str, str]

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """Yield each read as it comes. Raises `TargetError` (``broken_stream``) if the connection breaks."""

    @abstractmethod
    async def whole(self) -> bytes:
        """Read the rest. Raises `TargetError` (``unavailable``) if the connection breaks."""

    @abstractmethod
    async def drain(self) -> None:
        """Read the end of a reply whose content is all here, so that its connection can be used again; give up soon."""

    async def head(self, size: int = ERROR_BYTES) -> bytes:
        """Read up to `size` bytes, for an error's message."""
        parts: list[bytes] = []
        async for chunk in self.chunks():
            parts.append(chunk)
            size -= len(chunk)
            if size <= 0:
                break
        return b"".join(parts)


Streaming.register(lean.Connection)


class _Streaming(Streaming):
    """aiohttp's."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield each read as it comes. Raises `TargetError` (``broken_stream``) if the connection breaks."""
        readany = self._response.content.readany
        try:
            while chunk := await readany():
                yield chunk
        except (aiohttp.ClientError, ConnectionError) as e:
            raise TargetError(Failure(kind="broken_stream", message=f"the stream broke: {type(e).__name__}")) from e

    async def whole(self) -> bytes:
        """Read the rest. Raises `TargetError` (``unavailable``) if the connection breaks."""
        try:
            return await self._response.read()
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
            # The answer is whole; all that is lost is the connection, which the caller closes.
            return


class Upstream:
    """A session, shared by its users in one event loop and closed by the last."""

    def __init__(self, *, proxies_from_env: bool = False) -> None:
        self.proxies_from_env = proxies_from_env
        self._session: aiohttp.ClientSession | None = None
        self._lean = lean.Client()
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                # Plans and drivers keep the time of a whole call.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Without this header upstreams send plain bytes; those that compress all the same are still understood.
                skip_auto_headers=("Accept-Encoding",),
                headers={"User-Agent": "fairlead"},
                trust_env=self.proxies_from_env,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        tb: TracebackType | None = None,
    ) -> None:
        self._users -= 1
        if self._users == 0 and self._session is not None:
            session, self._session = self._session, None
            await self._lean.close()
            await session.close()

    async def post(self, url: str | URL, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send `body`, wait for the whole reply. A `URL` made with ``encoded=True`` goes out as it is, for whom its spelling is signed.

        Raises:
            TargetError: ``unavailable`` if the upstream cannot be reached or hangs up.
        """
        if self._is_plain(url):
            connection = await self._lean.send(str(url), self._traced(headers), body)
            return Reply(*(await connection.reply()))
        response = await self._send(url, headers, body)
        try:
            return Reply(response.status, response.headers, await _Streaming(response).whole())
        finally:
            response.close()

    @asynccontextmanager
    async def stream(self, url: str | URL, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Streaming]:
        """Send `body`; hand out the reply once its head is here. Leaving the block early closes the connection.

        Raises:
            TargetError: ``unavailable`` if the upstream cannot be reached or hangs up.
        """
        if self._is_plain(url):
            connection = await self._lean.send(str(url), self._traced(headers), body)
            try:
                await connection.started()
                yield connection  # type: ignore[misc] # registered
            finally:
                connection.leave()
            return
        response = await self._send(url, headers, body)
        try:
            yield _Streaming(response)
        finally:
            # Gives the connection back if the reply was read to its end (it is then detached), and closes it if not.
            response.close()

    def _is_plain(self, url: str | URL) -> bool:
        """Whether the lean client takes it: plain HTTP, and no proxy to look for. Raises `TargetError` if nothing is open."""
        if self._session is None:
            raise TargetError(Failure(kind="internal", message="the driver is not started; await start() first"))
        return not self.proxies_from_env and (
            url.startswith("http://") if isinstance(url, str) else url.scheme == "http"
        )

    def _traced(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        above = TRACEPARENT.get()
        return headers if above is None else {**headers, "traceparent": above}

    async def _send(self, url: str | URL, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        """Send `body`; return the reply once its head is here."""
        assert self._session is not None
        try:
            return await self._session.post(
                url, data=_payload(body), headers=self._traced(headers), allow_redirects=False
            )
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


def _payload(body: bytes) -> bytes | io.BytesIO:
    """Let aiohttp send a large body in pieces; in one it would hold up everybody else."""
    return body if len(body) < 2**20 else io.BytesIO(body)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool, Upstream]] = WeakKeyDictionary()


def shared(*, proxies_from_env: bool = False) -> Upstream:
    """Return the running loop's session. Enter it in `start`, leave it in `stop`."""
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    if proxies_from_env not in of_loop:
        of_loop[proxies_from_env] = Upstream(proxies_from_env=proxies_from_env)
    return of_loop[proxies_from_env]


# ------------------------------------------------------------------------------------------------- checks of arguments


def check_url(base_url: str) -> str:
    """Return `base_url` if it is one. Raises `ConfigError`."""
    scheme, _, rest = base_url.partition("://")
    if scheme not in ("http", "https") or not rest:
        raise ConfigError("write a URL like https://host/v1", path="$.base_url")
    if "@" in rest.partition("/")[0]:
        raise ConfigError("a URL must not hold a password; use api_key or headers", path="$.base_url")
    return base_url


def check_headers(headers: dict[str, str] | None) -> dict[str, str] | None:
    """Return `headers` if each whose name speaks of a credential holds a reference to it. Raises `ConfigError`."""
    for key, value in (headers or {}).items():
        if _SECRET_HEADER.search(key):
            checked(value, path=f"$.headers.{key}")
    return headers


def revealed(headers: dict[str, str] | None) -> tuple[dict[str, str], list[str]]:
    """Resolve references among header values: (headers, the secrets among them)."""
    out: dict[str, str] = {}
    secrets: list[str] = []
    for key, value in (headers or {}).items():
        if value.strip().startswith(("${", "os.environ/")):
            value = reveal(value, path=f"$.headers.{key}")
            secrets.append(value)
        out[key] = value
    return out, secrets


# ----------------------------------------------------------------------------------------------------------- failures


def refusal(status: int, headers: Mapping[str, str], body: bytes, *secrets: str) -> Failure:
    """Turn a reply with an error status into a typed failure. No secret survives in its message."""
    if 300 <= status < 400:
        message = f"the upstream redirects (status {status}); set base_url to where it redirects to"
        return Failure(kind="not_found", message=message, status=status)
    message, code = describe(body)
    return Failure(
        kind=_kind(status, f"{code} {message}"),
        message=shorten(message or f"status {status}", *secrets),
        status=status,
        retry_after_seconds=retry_after(headers),
    )


def shorten(message: str, *secrets: str) -> str:
    """Take secrets out of an upstream's message, then cut it. In that order, or half a key could remain."""
    message = " ".join(redact(message, *secrets).split())
    return message if len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 1] + "…"


def describe(body: bytes) -> tuple[str, str]:
    """Read (message, code) off an error body: OpenAI's, Anthropic's, Ollama's and FastAPI's shapes, or plain text."""
    try:
        data: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace").strip(), ""
    if not isinstance(data, dict):
        return str(data), ""
    error = data.get("error", data)
    if not isinstance(error, dict):
        return str(error), ""
    message = error.get("message") or error.get("detail") or data.get("detail") or ""
    return str(message), f"{error.get('code') or ''} {error.get('type') or ''}".strip()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date) as seconds from now; None if there is none."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                at = parsedate_to_datetime(value)
            except ValueError:
                continue
            seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _kind(status: int, words: str) -> FailureKind:
    words = words.lower()
    if status == 413 or (status in (400, 422) and any(sign in words for sign in _TOO_LONG)):
        return "context_too_long"
    match status:
        case 401 | 402 | 403:
            return "auth"
        case 404:
            return "not_found"
        case 408 | 504:
            return "timeout"
        case 429:
            return "rate_limited"
    return "bad_request" if status < 500 else "unavailable"
