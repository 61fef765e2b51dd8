"""Models of OpenAI on Azure: the chat format with Azure's addresses and credentials. Requests, replies and streams are as in `openai_chat`.

Without an `api_version` the v1 surface is asked, ``{endpoint}/openai/v1/chat/completions``, where a deployment goes by as `model`; with one,
``{endpoint}/openai/deployments/{deployment}/chat/completions?api-version=…``. What Azure's filters found (``prompt_filter_results``,
``content_filter_results``) is part of the reply and passed on; a prompt that they stop is a failure of kind ``blocked`` that names the categories.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self
from urllib.parse import quote

import msgspec

from fairlead.errors import ConfigError, TargetError
from fairlead.secret import checked, reveal
from fairlead.targets import openai_chat, providers, upstream, vectors
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink

_AZURE: Final = providers.PROVIDERS["azure"]


class AzureOpenAI(Driver):
    """A deployment of a model on Azure.

    Args:
        name: what routes and traces call it.
        model: the deployment's name.
        endpoint: the resource's, such as ``https://NAME.openai.azure.com``.
        api_key: a reference, ``${NAME}``, to the resource's key, sent as ``api-key``.
        token: a reference to a token of Entra ID, sent in place of a key. It is read once, at start, so something has to restart the gateway or
            reload its config before the token expires.
        api_version: such as ``2024-10-21``; None: the v1 surface, which needs none.
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        headers: sent with each call; values may be references too. Those that carry credentials must be.
        stream_usage: ask for token counts in streams. Turn off for a version that refuses ``stream_options``.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a key that is written out, an endpoint that is not http(s), or both a key and a token.
    """

    remote: ClassVar[bool] = True

    @classmethod
    def example(cls) -> Self:
        """Of a server that is not there."""
        return cls(name="a", model="m", endpoint="http://127.0.0.1:1")

    def __init__(
        self,
        *,
        name: str,
        model: str,
        endpoint: str,
        api_key: str | None = None,
        token: str | None = None,
        api_version: str | None = None,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
        headers: dict[str, str] | None = None,
        stream_usage: bool = True,
        proxies_from_env: bool = False,
    ) -> None:
        if api_key is not None and token is not None:
            raise ConfigError("give a key or a token, not both", path="$.token")
        self.name = name
        self.model = model
        try:
            self.endpoint = upstream.check_url(endpoint)
        except ConfigError as e:
            raise ConfigError(e.message, path="$.endpoint") from e
        self.api_key = checked(api_key, path="$.api_key")
        self.token = checked(token, path="$.token")
        self.api_version = api_version
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.headers = upstream.check_headers(headers)
        self.stream_usage = stream_usage
        self.proxies_from_env = proxies_from_env
        self._line: openai_chat.Line | None = None

    async def start(self) -> None:
        """Read the secrets and open the connection pool. Raises `ConfigError` if a variable is unset."""
        headers, secrets = upstream.revealed(self.headers)
        headers["Content-Type"] = "application/json"
        if self.api_key is not None:
            headers["api-key"] = reveal(self.api_key, path=f"$.targets.{self.name}.api_key")
            secrets.append(headers["api-key"])
        if self.token is not None:
            token = reveal(self.token, path=f"$.targets.{self.name}.token")
            headers["Authorization"] = f"Bearer {token}"
            secrets.append(token)
        opened = await upstream.shared(proxies_from_env=self.proxies_from_env).__aenter__()
        self._line = openai_chat.Line(opened, self._url("chat/completions"), headers, tuple(secrets), _AZURE)

    async def stop(self) -> None:
        """Let go of the connection pool."""
        if self._line is not None:
            line, self._line = self._line, None
            await line.upstream.__aexit__()

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._line is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        if query.task == "embeddings":
            asked = vectors.request(call, query, model=self.model)
            line = self._line
            reply = await line.upstream.post(self._url("embeddings"), line.headers, msgspec.json.encode(asked))
            if reply.status != 200:
                raise TargetError(openai_chat.refusal(*reply, *line.secrets))
            return vectors.read(reply.body, count=vectors.inputs(asked), secrets=line.secrets)
        fields, dropped = openai_chat.request(
            call, query, model=self.model, provider=_AZURE, streaming=sink is not None, usage=self.stream_usage
        )
        return await self._line.ask(fields, query, dropped, sink)

    def _url(self, what: str) -> str:
        # People paste an endpoint in each of the forms that the portal shows.
        base = self.endpoint.rstrip("/").removesuffix("/openai/v1").removesuffix("/openai")
        if self.api_version is None:
            return f"{base}/openai/v1/{what}"
        deployment, version = quote(self.model, safe=""), quote(self.api_version, safe="")
        return f"{base}/openai/deployments/{deployment}/{what}?api-version={version}"
