"""HTTP to upstreams: one small interface, `post` and `stream`, over a client of our own (`lean.py`), or aiohttp where proxies are to be heeded.

All drivers of one event loop share one client, so they share its connections too. Cancelling a call closes its connection, which
tells the upstream to stop. Nothing is retried here: a second POST may be billed twice, and plans know better where to go next.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self
from weakref import WeakKeyDictionary

import msgspec

from fairlead.errors import ConfigError, TargetError
from fairlead.secret import checked, redact, reveal
from fairlead.targets import lean
from fairlead.types import Failure, FailureKind

if TYPE_CHECKING:
    from yarl import URL

    from fairlead.targets import proxied

MESSAGE_CHARACTERS: Final = 500
ERROR_BYTES: Final = 64 * 1024
WAIT_SECONDS: Final = 86400.0
"""The longest wait that an upstream may ask for."""
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


class Streaming(Protocol):
    """A reply that is still coming in. `headers` is case-insensitive."""

    status: int
    headers: Any

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield what has come, as it comes. Raises `TargetError` (``broken_stream``) if the connection breaks."""

    async def whole(self) -> bytes:
        """Read the rest. Raises `TargetError` (``unavailable``) if the connection breaks."""

    async def drain(self) -> None:
        """Read the end of a reply whose content is all here, so that its connection can be used again; give up soon."""

    async def head(self, size: int = ERROR_BYTES) -> bytes:
        """Read up to `size` bytes, for an error's message."""


class Upstream:
    """Connections, shared by their users in one event loop and closed by the last. `context`: how TLS is verified; None: by the system's
    authorities. With `proxies_from_env` everything goes over aiohttp."""

    def __init__(self, *, proxies_from_env: bool = False, context: ssl.SSLContext | None = None) -> None:
        self.proxies_from_env = proxies_from_env
        self.context = context
        self._client: lean.Client | proxied.Session | None = None
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._client is None:
            self._client = self._made()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        tb: TracebackType | None = None,
    ) -> None:
        self._users -= 1
        if self._users == 0 and self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def post(self, url: str | URL, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send `body`, wait for the whole reply. A `URL` made with ``encoded=True`` goes out as it is, for whom its spelling is signed.

        Raises:
            TargetError: ``unavailable`` if the upstream cannot be reached or hangs up.
        """
        return Reply(*await self._opened().post(url, headers, body, traceparent=TRACEPARENT.get()))

    @asynccontextmanager
    async def stream(self, url: str | URL, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Streaming]:
        """Send `body`; hand out the reply once its head is here. Leaving the block early closes the connection.

        Raises:
            TargetError: ``unavailable`` if the upstream cannot be reached or hangs up.
        """
        reply = await self._opened().send(url, headers, body, traceparent=TRACEPARENT.get())
        try:
            await reply.started()
            yield reply
        finally:
            reply.leave()

    def _made(self) -> lean.Client | proxied.Session:
        if not self.proxies_from_env:
            return lean.Client(context=self.context)
        from fairlead.targets import proxied  # aiohttp takes a while to import, and most need none

        return proxied.Session()

    def _opened(self) -> lean.Client | proxied.Session:
        if self._client is None:
            raise TargetError(Failure(kind="internal", message="the driver is not started; await start() first"))
        return self._client


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
    if status < 300:
        return Failure(kind="malformed", message=f"the upstream answered with status {status}, not 200", status=status)
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:ERROR_BYTES].decode("utf-8", "replace").strip(), ""
    if not isinstance(data, dict):
        return str(data), ""
    error = data.get("error", data)
    if not isinstance(error, dict):
        return str(error), ""
    message = error.get("message") or error.get("detail") or data.get("detail") or ""
    return str(message), f"{error.get('code') or ''} {error.get('type') or ''}".strip()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date) as seconds from now, a day at most; None if there is none."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                at = parsedate_to_datetime(value)
            except (ValueError, OverflowError):
                continue
            seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
        if math.isfinite(seconds):
            return min(max(0.0, seconds), WAIT_SECONDS)
    return None


def _kind(status: int, words: str) -> FailureKind:
    words = words.lower()
    if status == 413 or (status in (400, 422) and any(sign in words for sign in _TOO_LONG)):
        return "context_too_long"
    match status:
        case 401 | 402 | 403 | 407:
            return "auth"
        case 404:
            return "not_found"
        case 408 | 504:
            return "timeout"
        case 429:
            return "rate_limited"
    return "bad_request" if status < 500 else "unavailable"
