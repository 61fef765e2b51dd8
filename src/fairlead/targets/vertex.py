"""Models on Google Cloud's Vertex AI: Gemini by `gemini`'s translation, Claude by `anthropic_messages`'s, with Google's addresses and tokens.

Tokens come of google-auth (``pip install 'fairlead[vertex]'``): from a file of credentials (a service account's, or one of workload identity), else the
application's default credentials. They are fetched in a thread, one fetch at a time, and kept until `EARLY_SECONDS` before they expire. Its HTTP is
the standard library's, so that nothing more is needed. Without it, `token` may name a variable that holds one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

import msgspec

from fairlead.errors import ConfigError, TargetError
from fairlead.secret import checked, reveal
from fairlead.targets import upstream
from fairlead.targets.anthropic_messages import MessagesFormat
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.targets.gemini import GeminiFormat
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink

EARLY_SECONDS: Final = 300.0
"""How long before its end a token is replaced."""
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_FETCH_SECONDS: Final = 20.0
_VERSION: Final = "vertex-2023-10-16"


class Vertex(Driver):
    """A model on Vertex AI.

    Args:
        name: what routes and traces call it.
        model: what the platform calls it, such as ``gemini-2.5-pro`` or ``claude-sonnet-4-5@20250929``.
        project: None: the one that the credentials name.
        location: a region, ``us`` or ``eu``, or ``global``.
        publisher: None: ``anthropic`` if the model's name begins with ``claude``, else ``google``.
        credentials: path of a file of credentials; None: the application's default ones.
        token: a reference, ``${NAME}``, to a token, in place of credentials. It is read once, at start.
        base_url: the endpoint; None: the location's.
        max_tokens: of Claude, where the request names none. A thinking budget comes on top.
        like: the Claude model whose rules it follows, where `model` does not tell.
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a token that is written out, a token without a project, both token and credentials, or a base_url that is not http(s).
    """

    remote: ClassVar[bool] = True
    paths: ClassVar[tuple[str, ...]] = ("credentials",)

    @classmethod
    def example(cls) -> Self:
        """Of a server that is not there."""
        return cls(name="a", model="m", project="p", token="${VERTEX_TOKEN}", base_url="http://127.0.0.1:1")

    def __init__(
        self,
        *,
        name: str,
        model: str,
        project: str | None = None,
        location: str = "global",
        publisher: Literal["google", "anthropic"] | None = None,
        credentials: str | None = None,
        token: str | None = None,
        base_url: str | None = None,
        max_tokens: int = 4096,
        like: str | None = None,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
        proxies_from_env: bool = False,
    ) -> None:
        if token is not None and credentials is not None:
            raise ConfigError("give credentials or a token, not both", path="$.token")
        if token is not None and project is None:
            raise ConfigError("a token does not say which project it is for; write it", path="$.project")
        self.name = name
        self.model = model
        self.project = project
        self.location = location
        self.publisher = publisher
        self.credentials = credentials
        self.token = checked(token, path="$.token")
        self.base_url = None if base_url is None else upstream.check_url(base_url)
        self.max_tokens = max_tokens
        self.like = like
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.proxies_from_env = proxies_from_env
        self._inner: _Gemini | _Claude | None = None
        self._opened: upstream.Upstream | None = None

    @property
    def extra(self) -> tuple[str, str] | None:
        """Google's own package, where no token is given."""
        return ("google.auth", "vertex") if self.token is None else None

    async def start(self) -> None:
        """Read the credentials and open the connection pool; a token is fetched with the first call.

        Raises:
            ConfigError: if a variable is unset, credentials cannot be read, no project is known, or google-auth is missing.
        """
        at = f"$.targets.{self.name}"
        if self.token is not None:
            tokens = Tokens(static=reveal(self.token, path=f"{at}.token"))
        else:
            tokens = Tokens(*await asyncio.to_thread(load, self.credentials, self.proxies_from_env, at))
        project = self.project or tokens.project
        if project is None:
            raise ConfigError("the credentials name no project; write it", path=f"{at}.project")
        place = f"/v1/projects/{quote(project, safe=':')}/locations/{quote(self.location, safe='')}/publishers"
        claude = self.publisher == "anthropic" or (self.publisher is None and self.model.startswith("claude"))
        model = quote(self.model, safe="@")
        url = f"{self._host()}{place}/{'anthropic' if claude else 'google'}/models/{model}"
        self._opened = await upstream.shared(proxies_from_env=self.proxies_from_env).__aenter__()
        kind = _Claude if claude else _Gemini
        self._inner = kind(self, url, tokens, self._opened)

    async def stop(self) -> None:
        """Let go of the connection pool."""
        self._inner = None
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.__aexit__()

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._inner is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        return await self._inner._ask(call, query, sink)

    def _host(self) -> str:
        if self.base_url is not None:
            return self.base_url.rstrip("/").removesuffix("/v1")
        if self.location == "global":
            return "https://aiplatform.googleapis.com"
        if self.location in ("us", "eu"):
            return f"https://aiplatform.{self.location}.rep.googleapis.com"
        return f"https://{self.location}-aiplatform.googleapis.com"


class _Gemini(GeminiFormat):
    """Gemini behind a `Vertex`. Calls have no ids there in every version, so results are matched by name and order."""

    provider: ClassVar[str] = "vertex"
    call_ids: ClassVar[bool] = False
    embeds: ClassVar[bool] = False

    def __init__(self, of: Vertex, url: str, tokens: Tokens, opened: upstream.Upstream) -> None:
        self.name, self.model, self.profile = of.name, of.model, of.profile
        self.timeout_seconds = of.timeout_seconds
        self._url, self._tokens, self._upstream = url, tokens, opened

    async def _prepare(self, verb: str) -> tuple[str, dict[str, str]]:
        headers = await self._tokens.headers()
        self._secrets = self._tokens.secrets
        return f"{self._url}:{verb}", headers


class _Claude(MessagesFormat):
    """Claude behind a `Vertex`. Its signatures hold wherever Claude is served, so they bear Anthropic's mark."""

    provider: ClassVar[str] = "anthropic"

    def __init__(self, of: Vertex, url: str, tokens: Tokens, opened: upstream.Upstream) -> None:
        self.name, self.model, self.profile = of.name, of.model, of.profile
        self.timeout_seconds = of.timeout_seconds
        self.max_tokens, self.like, self.version = of.max_tokens, of.like, "2023-06-01"
        self._url, self._tokens, self._upstream = url, tokens, opened

    async def _prepare(self, request: dict[str, Any], *, streaming: bool) -> tuple[str, dict[str, str], bytes]:
        headers = await self._tokens.headers()
        self._secrets = self._tokens.secrets
        body = {k: v for k, v in request.items() if k != "model"}
        body |= {"anthropic_version": _VERSION, **({"stream": True} if streaming else {})}
        verb = "streamRawPredict" if streaming else "rawPredict"
        return f"{self._url}:{verb}", headers, msgspec.json.encode(body)


# ------------------------------------------------------------------------------------------------------------- tokens


class Tokens:
    """Hands out a token that is valid for a while yet."""

    __slots__ = ("_credentials", "_headers", "_lock", "_transport", "project", "secrets")

    def __init__(
        self,
        credentials: Any = None,
        transport: Any = None,
        project: str | None = None,
        *,
        static: str | None = None,
    ) -> None:
        self._credentials, self._transport = credentials, transport
        self.project = project
        self._lock = asyncio.Lock()
        self.secrets: tuple[str, ...] = ()
        self._headers: dict[str, str] = {}
        if static is not None:
            self._take(static)

    async def headers(self) -> dict[str, str]:
        """Return the headers of a call.

        Raises:
            TargetError: ``auth`` if Google refuses the credentials, ``unavailable`` if it cannot be asked.
        """
        if self._credentials is not None and self._left() < EARLY_SECONDS:
            async with self._lock:
                if self._left() < EARLY_SECONDS:
                    await self._refresh()
        return self._headers

    def _left(self) -> float:
        """Seconds until the token at hand ends."""
        if not self._credentials.token or not self._headers:
            return 0.0
        expiry: datetime | None = self._credentials.expiry  # in UTC, and says no zone
        if expiry is None:
            return float("inf")
        return (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()

    async def _refresh(self) -> None:
        failures: Any = import_module("google.auth.exceptions")
        try:
            await asyncio.to_thread(self._credentials.refresh, self._transport)
        except failures.GoogleAuthError as e:
            if self._headers and self._left() > 0.0:
                return  # the one at hand still holds; the next call tries again
            kind: Literal["auth", "unavailable"] = "auth"
            if isinstance(e, failures.TransportError) or e.retryable:
                kind = "unavailable"
            message = f"Google gave no token: {upstream.shorten(str(e.args[0] if e.args else e), *self.secrets)}"
            raise TargetError(Failure(kind=kind, message=message)) from e
        self._take(self._credentials.token)

    def _take(self, token: str) -> None:
        self.secrets = (token,)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}


def load(file: str | None, proxies_from_env: bool, at: str) -> tuple[Any, Any, str | None]:
    """Return (credentials, the transport to refresh them with, their project). Blocks: reads files, and may ask the machine's metadata server.

    Raises:
        ConfigError: if there are none, or google-auth is missing.
    """
    try:
        auth: Any = import_module("google.auth")
        failures: Any = import_module("google.auth.exceptions")
    except ImportError as e:
        raise ConfigError("Vertex needs google-auth: pip install 'fairlead[vertex]'", path=at) from e
    transport = Transport(proxies_from_env=proxies_from_env)
    try:
        if file is not None:
            found, project = _read(file)
        else:
            found, project = auth.default(scopes=[_SCOPE], request=transport)
    except (failures.GoogleAuthError, OSError, ValueError) as e:
        raise ConfigError(f"no credentials of Google's: {e}", path=f"{at}.credentials") from e
    return found, transport, project


def _read(file: str) -> tuple[Any, str | None]:
    """Read a file of credentials: (credentials, their project). Only kinds that run no program of the file's choosing.

    Raises:
        ValueError, OSError, or google-auth's own errors: if it is none.
    """
    said = msgspec.json.decode(Path(file).read_bytes(), type=dict[str, Any])
    kind, source = said.get("type"), said.get("credential_source") or {}
    project = said.get("project_id") or said.get("quota_project_id")
    if kind == "service_account":
        module = import_module("google.oauth2.service_account")
        return module.Credentials.from_service_account_info(said, scopes=[_SCOPE]), project
    if kind == "authorized_user":
        module = import_module("google.oauth2.credentials")
        return module.Credentials.from_authorized_user_info(said, scopes=[_SCOPE]), project
    if kind == "external_account" and "executable" not in source:
        name = "google.auth.aws" if "environment_id" in source else "google.auth.identity_pool"
        return import_module(name).Credentials.from_info(said, scopes=[_SCOPE]), project
    raise ValueError(
        f"{file} has type {kind!r}; known: service_account, external_account (without a program), authorized_user"
    )


class _Reply:
    """What google-auth wants of a reply."""

    __slots__ = ("data", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data


class Transport:
    """HTTP for google-auth, over urllib: called in a thread, a few times an hour."""

    __slots__ = ("_opener",)

    def __init__(self, *, proxies_from_env: bool) -> None:
        self._opener: OpenerDirector = build_opener() if proxies_from_env else build_opener(ProxyHandler({}))

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Reply:
        """Make one request. Raises google-auth's `TransportError` if nobody answers."""
        data = body.encode() if isinstance(body, str) else body
        request = Request(url, data=data, headers=dict(headers or {}), method=method)
        try:
            with self._opener.open(request, timeout=timeout or _FETCH_SECONDS) as reply:
                return _Reply(reply.status, dict(reply.headers), reply.read())
        except HTTPError as e:
            with e:
                return _Reply(e.code, dict(e.headers), e.read())
        except (URLError, OSError) as e:
            failures: Any = import_module("google.auth.exceptions")
            raise failures.TransportError(f"{type(e).__name__} on the way to {request.host}") from e
