"""Models on AWS Bedrock, by its Converse format (``POST /model/{model}/converse`` and ``/converse-stream``).

Converse spells what Anthropic's format says in other words, for models of many makers. So a request is first put into Anthropic's shape (see
`anthropic_messages`, with all that it sees to) and then respelled: blocks, cache points after the block that bore the mark, tools, limits.
What Converse has no place for goes into ``additionalModelRequestFields`` where the model is known to read it there (thinking and top_k of Claude,
topK of Nova, effort of Nova and gpt-oss), and is named in `Outcome.dropped` where not.

HTTP is ours. Of botocore (``pip install 'fairlead[bedrock]'``) come signatures (SigV4), the chain of credentials with their renewal, which runs in a
thread, and the event stream's framing with its checksums. Cost: about 15 µs to translate a short request, 60 µs to sign it,
9 µs a streamed event beside the network client's own.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar, Final, Self
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct
from yarl import URL

from fairlead.errors import ConfigError, TargetError
from fairlead.secret import checked, reveal
from fairlead.targets import anthropic_messages, signed, upstream, wire
from fairlead.targets.anthropic_messages import MessagesFormat, Reader
from fairlead.targets.anthropic_messages import call as tool_call
from fairlead.targets.base import UNKNOWN
from fairlead.types import Failure, Outcome, Profile, Query, Tokens

LAST_SECONDS: Final = 60
"""How long keys must be good yet to be used while new ones are fetched."""
_BEARER: Final = "AWS_BEARER_TOKEN_BEDROCK"
_SERVICE: Final = "bedrock"
_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_BROKEN: Final = ("malformed_model_output", "malformed_tool_use")
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9\s\-()\[\]]+|\s+")
_METADATA: Final = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")
_REGION: Final = re.compile(r"arn:aws[^:]*:bedrock:([a-z0-9-]+):")
_UNKNOWN_MODEL: Final = re.compile(r"model identifier is invalid|on-demand throughput|end of its life", re.IGNORECASE)
_STATUS: Final = {
    "ThrottlingException": 429,
    "ServiceQuotaExceededException": 429,
    "ModelNotReadyException": 503,
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "ExpiredTokenException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 502,
    "ModelStreamErrorException": 502,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
"""What an error's name says, as the status that means it elsewhere."""


class Bedrock(MessagesFormat):
    """A model on Bedrock.

    Args:
        name: what routes and traces call it.
        model: a model's id, an inference profile's, or an ARN of one.
        region: None: the one that the ARN names, or AWS's own settings.
        base_url: the endpoint; None: the region's.
        access_key: a reference, ``${NAME}``, as are `secret_key` and `session_token`; None: what AWS's chain of credentials finds.
        secret_key: see `access_key`.
        session_token: see `access_key`.
        api_key: a reference to a key of Bedrock's own, sent in place of a signature; None: ``AWS_BEARER_TOKEN_BEDROCK`` if that is set and no
            `access_key` given.
        profile_name: the profile in AWS's files to take credentials and region from.
        guardrail: ``ID:VERSION`` of a guardrail to apply.
        max_tokens: where the request names none. A thinking budget comes on top.
        like: the Claude model whose rules it follows, such as ``claude-opus-5-5``, where `model` does not tell (an ARN of a profile).
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a key that is written out, half a pair of keys, a guardrail without its version, or a base_url that is not http(s).
    """

    provider: ClassVar[str] = "bedrock"

    @classmethod
    def example(cls) -> Self:
        """Of a server that is not there."""
        return cls(name="a", model="m", region="eu-central-1", base_url="http://127.0.0.1:1")

    def __init__(
        self,
        *,
        name: str,
        model: str,
        region: str | None = None,
        base_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        api_key: str | None = None,
        profile_name: str | None = None,
        guardrail: str | None = None,
        max_tokens: int = 4096,
        like: str | None = None,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
        proxies_from_env: bool = False,
    ) -> None:
        if (access_key is None) != (secret_key is None):
            raise ConfigError("access_key and secret_key go together", path="$.access_key")
        if guardrail is not None and ":" not in guardrail:
            raise ConfigError("write a guardrail as ID:VERSION", path="$.guardrail")
        self.name = name
        self.model = model
        self.region = region
        self.base_url = None if base_url is None else upstream.check_url(base_url)
        self.access_key = checked(access_key, path="$.access_key")
        self.secret_key = checked(secret_key, path="$.secret_key")
        self.session_token = checked(session_token, path="$.session_token")
        self.api_key = checked(api_key, path="$.api_key")
        self.profile_name = profile_name
        self.guardrail = guardrail
        self.max_tokens = max_tokens
        self.like = like
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.proxies_from_env = proxies_from_env
        self._aws: _AWS | None = None

    @property
    def extra(self) -> tuple[str, str] | None:
        """AWS's own package."""
        return "botocore", "bedrock"

    async def start(self) -> None:
        """Find region and credentials (in a thread: AWS's chain reads files and asks servers) and open the connection pool.

        Raises:
            ConfigError: without botocore, region or credentials, or if a variable is unset.
        """
        self._aws = await asyncio.to_thread(self._open)
        self._upstream = await upstream.shared(proxies_from_env=self.proxies_from_env).__aenter__()

    async def stop(self) -> None:
        """Let go of the credentials and the connection pool."""
        self._aws, self._secrets = None, ()
        if self._upstream is not None:
            opened, self._upstream = self._upstream, None
            await opened.__aexit__()

    def _open(self) -> _AWS:
        path = f"$.targets.{self.name}"
        try:
            import botocore.session
            from botocore.credentials import Credentials
            from botocore.exceptions import BotoCoreError
        except ImportError as e:
            raise ConfigError("Bedrock needs botocore; pip install 'fairlead[bedrock]'", path=path) from e
        # It would log what it signs, a session's token among it.
        logging.getLogger("botocore.auth").setLevel(logging.INFO)
        given = (
            ("access_key", self.access_key),
            ("secret_key", self.secret_key),
            ("session_token", self.session_token),
        )
        keys = {k: reveal(v, path=f"{path}.{k}") for k, v in given if v is not None}
        try:
            session = botocore.session.Session(profile=self.profile_name)
            arn = _REGION.match(self.model)
            region = self.region or (arn[1] if arn else None) or session.get_config_variable("region")
            if not region:
                raise ConfigError("name a region, here or in AWS_REGION", path=f"{path}.region")
            key = self.api_key or (f"${{{_BEARER}}}" if not keys and os.environ.get(_BEARER) else None)
            if key is not None:
                return _AWS(region, None, reveal(key, path=f"{path}.api_key"))
            found = (
                Credentials(keys["access_key"], keys["secret_key"], keys.get("session_token"))
                if keys
                else session.get_credentials()
            )
        except BotoCoreError as e:
            raise ConfigError(f"AWS's settings cannot be used: {e}", path=path) from e
        if found is None:
            message = (
                "no AWS credentials found; give access_key and secret_key, or set up AWS's own chain of credentials"
            )
            raise ConfigError(message, path=path)
        return _AWS(region, found, "")

    async def _prepare(self, request: dict[str, Any], *, streaming: bool) -> tuple[str | URL, dict[str, str], bytes]:
        if self._aws is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        if self.guardrail is not None:
            id, _, version = self.guardrail.rpartition(":")
            request = {**request, "guardrailConfig": {"guardrailIdentifier": id, "guardrailVersion": version}}
        body = msgspec.json.encode(request)
        base = self.base_url or f"https://bedrock-runtime.{self._aws.region}.amazonaws.com"
        path = f"/model/{quote(self.model, safe='')}/{'converse-stream' if streaming else 'converse'}"
        # As it is spelled here it is signed, so as it is spelled it must go out.
        url = URL(base.rstrip("/") + path, encoded=True)
        headers, self._secrets = await self._aws.headers(str(url), body)
        return url, headers, body

    def _translate(self, fields: dict[str, Any], *, bare: bool = False) -> tuple[dict[str, Any], list[str]]:
        with anthropic_messages.refusing("Bedrock's"):
            return translate(
                fields,
                model=self.model,
                max_tokens=self.max_tokens,
                most=self.profile.max_output_tokens,
                like=self.like,
                signer=self.signer,
                bare=bare,
            )

    def _thinks(self, request: dict[str, Any]) -> bool:
        if "thinking" in request.get("additionalModelRequestFields", {}):
            return True
        return any("reasoningContent" in b for t in request["messages"] for b in t["content"])

    def _read(self, body: bytes, query: Query) -> Outcome:
        return read(body, id=query.id, model=self.model, signer=self.signer, secrets=self._secrets)

    def _reader(self, query: Query, start: float) -> Reader:
        return StreamReader(
            id=query.id,
            created=int(time.time()),
            model=self.model,
            pass_usage=wire.wants_usage(query.body),
            start=start,
            signer=self.signer,
            secrets=self._secrets,
        )

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return refusal(status, headers, body, *self._secrets)


class _AWS:
    """Region and credentials of a driver that runs; writes what proves who asks."""

    __slots__ = ("_credentials", "_key", "_last", "_renewing", "region")

    def __init__(self, region: str, credentials: Any, key: str) -> None:
        self.region = region
        self._credentials, self._key = credentials, key
        self._last: Any = None
        self._renewing = asyncio.Lock()

    async def headers(self, url: str, body: bytes) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return (headers, the secrets among them). Raises `TargetError` (``auth``) if credentials cannot be renewed."""
        plain = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            return {**plain, "Authorization": f"Bearer {self._key}"}, (self._key,)
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        keys = await self._keys()
        request = AWSRequest(method="POST", url=url, headers=plain, data=body)
        SigV4Auth(keys, _SERVICE, self.region).add_auth(request)
        return dict(request.headers.items()), tuple(s for s in (keys.access_key, keys.secret_key, keys.token) if s)

    async def _keys(self) -> Any:
        """Return keys that are good now. To renew them asks a server: that is done in a thread, by one call, while others use what is still good."""
        from botocore.exceptions import BotoCoreError

        credentials = self._credentials
        try:
            if _stale(credentials):
                if self._renewing.locked() and self._last is not None and not credentials.refresh_needed(LAST_SECONDS):
                    return self._last
                async with self._renewing:
                    if _stale(credentials):
                        self._last = await asyncio.to_thread(credentials.get_frozen_credentials)
                        return self._last
            self._last = credentials.get_frozen_credentials()
            return self._last
        except (BotoCoreError, OSError) as e:
            message = f"the AWS credentials cannot be renewed: {type(e).__name__}"
            raise TargetError(Failure(kind="auth", message=message)) from e


def _stale(credentials: Any) -> bool:
    refresh_needed = getattr(credentials, "refresh_needed", None)
    return refresh_needed is not None and bool(refresh_needed())


# ----------------------------------------------------------------------------------------------------------- requests


def translate(
    fields: dict[str, Any],
    *,
    model: str,
    max_tokens: int,
    most: int | None = None,
    like: str | None = None,
    signer: str = "",
    bare: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Return (Converse's request, the names of what it has no place for). Arguments as in `anthropic_messages.translate`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if the request is not in OpenAI's chat format, or has no counterpart.
    """
    kind = _maker(like or model)
    fields = dict(fields)
    own: list[str] = []
    more: dict[str, Any] = {}
    level, thinking = fields.get("reasoning_effort"), fields.get("thinking")
    if kind != "claude":
        for key in ("thinking", "reasoning_effort"):
            fields.pop(key, None)
        if thinking is not None and thinking.get("type") != "disabled":
            own.append("thinking")
        if level not in (None, "none"):
            more |= _effort(kind, level, own)
    tier, metadata, user = (fields.pop(k, None) for k in ("service_tier", "metadata", "user"))
    safety = fields.pop("safety_identifier", None)
    own += [k for k, v in (("user", user), ("safety_identifier", safety)) if v]
    if fields.pop("cache_control", None):
        own.append("cache_control")
    said, dropped = anthropic_messages.translate(
        fields,
        model=model,
        max_tokens=max_tokens,
        most=most,
        like=like,
        signer=signer,
        files=tuple(_DOCUMENTS),
        served=False,
        unmarked=kind == "claude",
        bare=bare,
    )
    dropped = own + dropped
    respell = _Respell(dropped, caches=kind in ("claude", "nova"))
    turns = [{"role": t["role"], "content": respell.turn(t["content"])} for t in said["messages"]]
    if turns[0]["role"] == "assistant":
        # A conversation must start with the user.
        dropped.append("messages (a turn of the user's was put first)")
        turns.insert(0, {"role": "user", "content": [{"text": "…"}]})
    limits = {
        "maxTokens": said["max_tokens"],
        "temperature": said.get("temperature"),
        "topP": said.get("top_p"),
        "stopSequences": said.get("stop_sequences"),
    }
    if limits["temperature"] is not None and limits["temperature"] > 1.0:
        limits["temperature"] = 1.0
        dropped.append("temperature above 1")
    if (top_k := said.get("top_k")) is not None:
        if kind == "claude":
            more["top_k"] = top_k
        elif kind == "nova":
            more["inferenceConfig"] = {"topK": top_k}
        else:
            dropped.append("top_k")
    if "thinking" in said:
        more["thinking"] = said["thinking"]
    out: dict[str, Any] = {"messages": turns, "inferenceConfig": {k: v for k, v in limits.items() if v is not None}}
    if "system" in said:
        out["system"] = respell.content(said["system"])
    if "tools" in said and (tools := _tools(said, respell, dropped)) is not None:
        out["toolConfig"] = tools
    if config := said.get("output_config"):
        out["outputConfig"] = _output(config)
    if more:
        out["additionalModelRequestFields"] = more
    if tier in ("priority", "default", "flex"):
        out["serviceTier"] = {"type": tier}
    elif tier not in (None, "auto"):
        dropped.append("service_tier")
    if metadata:
        if all(_METADATA.fullmatch(str(x)) for pair in metadata.items() for x in pair) and len(metadata) <= 16:
            out["requestMetadata"] = {k: str(v) for k, v in metadata.items()}
        else:
            dropped.append("metadata")
    return out, dropped


def _maker(model: str) -> str:
    for name in ("claude", "nova", "gpt-oss"):
        if name in model:
            return name
    return ""


def _effort(kind: str, level: str, dropped: list[str]) -> dict[str, Any]:
    near = {"minimal": "low", "xhigh": "high", "max": "high"}.get(level, level)
    if kind not in ("nova", "gpt-oss"):
        dropped.append("reasoning_effort")
        return {}
    if near != level:
        dropped.append(f"reasoning_effort {level}")
    if kind == "nova":
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": near}}
    return {"reasoning_effort": near}


class _Respell:
    """Writes blocks of Anthropic's as Converse has them."""

    def __init__(self, dropped: list[str], *, caches: bool) -> None:
        self._dropped, self._caches = dropped, caches
        self._names: set[str] = set()

    def turn(self, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        out = self.content(blocks)
        if any("document" in b for b in out) and not any("text" in b for b in out):
            # A document needs a text beside it.
            names = ", ".join(b["document"]["name"] for b in out if "document" in b)
            out.append({"text": names})
        return out

    def content(self, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for block in blocks:
            out.append(self._block(block))
            self.point(block, out)
        return out

    def point(self, block: dict[str, Any], out: list[dict[str, Any]]) -> None:
        """Put a cache point behind a block that bears the mark; one of its results may bear it too, where no point may stand."""
        marks = [b.get("cache_control") for b in (block, *block.get("content", ()))]
        mark = next((m for m in marks if m), None)
        if mark is None:
            return
        if not self._caches:
            self._dropped.append("cache_control")
            return
        out.append({"cachePoint": {"type": "default", **({"ttl": mark["ttl"]} if "ttl" in mark else {})}})

    def _block(self, block: dict[str, Any]) -> dict[str, Any]:
        match block["type"]:
            case "text":
                return {"text": block["text"]}
            case "image":
                source = block["source"]
                if source["type"] != "base64":
                    raise ValueError("a picture is sent to Bedrock in the request itself, as a data URL")
                return {
                    "image": {
                        "format": source["media_type"].removeprefix("image/"),
                        "source": {"bytes": source["data"]},
                    }
                }
            case "document":
                return {"document": self._document(block)}
            case "tool_use":
                return {"toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}}
            case "tool_result":
                content = [self._block(b) for b in block.get("content", ())] or [{"text": "(no output)"}]
                status = {"status": "error"} if block.get("is_error") else {}
                return {"toolResult": {"toolUseId": block["tool_use_id"], "content": content, **status}}
            case "thinking":
                text = {"text": block["thinking"]}
                if block["signature"]:
                    text["signature"] = block["signature"]
                return {"reasoningContent": {"reasoningText": text}}
            case "redacted_thinking":
                data = base64.b64encode(block["data"].encode("latin-1", "replace")).decode()
                return {"reasoningContent": {"redactedContent": data}}
        raise ValueError(f"a block of type {block['type']!r} has no counterpart")

    def _document(self, block: dict[str, Any]) -> dict[str, Any]:
        source = block["source"]
        name = self._name(block.get("title") or "document")
        match source["type"]:
            case "base64":
                kind = _DOCUMENTS[source["media_type"]]
                return {"format": kind, "name": name, "source": {"bytes": source["data"]}}
            case "text":
                return {"format": "txt", "name": name, "source": {"text": source["data"]}}
        raise ValueError("a file is sent to Bedrock in the request itself, as file_data")

    def _name(self, title: str) -> str:
        """Return a name in the alphabet that documents' names have, and once only."""
        base = _NOT_IN_A_NAME.sub(" ", title).strip()[:180] or "document"
        base = re.sub(r"\s+", " ", base)
        name, n = base, 1
        while name in self._names:
            n += 1
            name = f"{base} {n}"
        self._names.add(name)
        return name


def _tools(said: dict[str, Any], respell: _Respell, dropped: list[str]) -> dict[str, Any] | None:
    tools: list[dict[str, Any]] = []
    for tool in said["tools"]:
        spec = {"name": tool["name"], "inputSchema": {"json": tool["input_schema"]}}
        spec |= {k: tool[k] for k in ("description", "strict") if k in tool}
        tools.append({"toolSpec": spec})
        respell.point(tool, tools)
    choice = said.get("tool_choice") or {}
    called = any(b["type"] == "tool_use" for t in said["messages"] for b in t["content"])
    if choice.get("type") == "none":
        if not called:
            return None
        # The conversation's calls need their tools; that no further one may be called cannot be said.
        dropped.append("tool_choice")
        choice = {}
    if choice.get("disable_parallel_tool_use"):
        dropped.append("parallel_tool_calls")
    out: dict[str, Any] = {"tools": tools}
    match choice.get("type"):
        case "auto" | "any" as kind:
            out["toolChoice"] = {kind: {}}
        case "tool":
            out["toolChoice"] = {"tool": {"name": choice["name"]}}
    return out


def _output(config: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if "effort" in config:
        out["effort"] = config["effort"]
    if "format" in config:
        schema = msgspec.json.encode(config["format"]["schema"]).decode()
        out["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": {"schema": schema}}}
    return out


# ------------------------------------------------------------------------------------------------------------ replies


class _Usage(Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0

    def tokens(self) -> Tokens:
        """Count as OpenAI does: `inputTokens` leaves out what the cache gave or took."""
        cached, written = self.cache_read_input_tokens, self.cache_write_input_tokens
        return Tokens(
            input=self.input_tokens + cached + written,
            cached_input=cached,
            cache_write=written,
            output=self.output_tokens,
        )


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class _Text(Struct):
    text: str = ""
    signature: str = ""


class _Reasoning(Struct, rename="camel"):
    """Of a whole reply `reasoning_text`, of an event `text` or `signature`."""

    reasoning_text: _Text | None = None
    redacted_content: bytes = b""
    text: str = ""
    signature: str = ""


class _Cited(Struct):
    content: list[_Text] = []


class _Block(Struct, rename="camel"):
    text: str = ""
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None


class _Said(Struct):
    content: list[_Block] = []


class _Output(Struct):
    message: _Said


class _Reply(Struct, rename="camel"):
    output: _Output
    stop_reason: str
    usage: _Usage | None = None


class _Start(Struct, rename="camel"):
    tool_use: _ToolUse | None = None


class _Event(Struct, rename="camel"):
    """One event's payload, of whichever type."""

    content_block_index: int = 0
    start: _Start | None = None
    delta: _Block | None = None
    stop_reason: str = ""
    usage: _Usage | None = None


_reply = msgspec.json.Decoder(_Reply)
_event = msgspec.json.Decoder(_Event)


def read(body: bytes, *, id: str, model: str, signer: str = "", secrets: Sequence[str] = ()) -> Outcome:
    """Read a whole reply; its thinking is handed out with `signer`'s mark.

    Raises:
        TargetError: ``malformed`` if it is none, or if the model wrote what Bedrock could not read.
    """
    try:
        reply = _reply.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        why = upstream.shorten(str(e), *secrets)
        failure = Failure(kind="malformed", message=f"the reply is not one of Converse: {why}", status=200)
        raise TargetError(failure) from e
    finish = _finish(reply.stop_reason)
    text: list[str] = []
    reasoning: list[str] = []
    blocks: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in reply.output.message.content:
        text.append(block.text)
        if block.citations_content is not None:
            text += [c.text for c in block.citations_content.content]
        if (use := block.tool_use) is not None:
            calls.append(tool_call(use.tool_use_id, use.name, bytes(use.input).decode()))
        if (thought := block.reasoning_content) is not None:
            said = thought.reasoning_text or _Text()
            reasoning.append(said.text)
            blocks.append(_thought(said.text, said.signature, thought.redacted_content, signer))
    choice = wire.Choice(
        text="".join(text),
        reasoning="".join(reasoning),
        thinking_blocks=tuple(blocks),
        tool_calls=Raw(msgspec.json.encode(calls)) if calls else None,
        finish=finish,
    )
    tokens = None if reply.usage is None else reply.usage.tokens()
    return Outcome(
        text=choice.text,
        model=model,
        tokens=tokens,
        finish=finish,
        tool_calls=choice.tool_calls,
        reply=wire.completions([choice], id=id, created=int(time.time()), model=model, tokens=tokens),
    )


def _thought(text: str, signature: str, redacted: bytes, signer: str) -> dict[str, Any]:
    if redacted:
        # A blob here; a string, and the same one, in Anthropic's own format.
        return signed.marked({"type": "redacted_thinking", "data": redacted.decode("latin-1")}, signer)
    return signed.marked({"type": "thinking", "thinking": text, "signature": signature}, signer)


def _finish(reason: str) -> str:
    if reason in _BROKEN:
        message = f"the model's output could not be read ({reason})"
        raise TargetError(Failure(kind="malformed", message=message, status=200))
    return _FINISH.get(reason, "stop")


def refusal(status: int, headers: Mapping[str, str], body: bytes, *secrets: str) -> Failure:
    """Type an error by its name, with the id that AWS's support asks for."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = None
    said = said if isinstance(said, dict) else {"message": body.decode("utf-8", "replace")}
    name = str(headers.get("x-amzn-errortype") or said.get("__type") or "")
    message = str(said.get("message") or said.get("Message") or "")
    failure = _typed(name.partition(":")[0].rpartition("#")[2], message, status, headers, *secrets)
    return anthropic_messages.identified(failure, headers.get("x-amzn-requestid"), *secrets)


def _typed(name: str, message: str, status: int, headers: Mapping[str, str], *secrets: str) -> Failure:
    meant = _STATUS.get(name, status)
    if meant == 400 and _UNKNOWN_MODEL.search(message):
        meant = 404
    error = msgspec.json.encode({"error": {"message": f"{name}: {message}" if name else message}})
    failure = upstream.refusal(meant, headers, error, *secrets)
    return msgspec.structs.replace(failure, status=status)


class StreamReader:
    """Reads one event stream and writes it as OpenAI chunks. Sans I/O.

    Raises:
        TargetError: from `feed` and `close`: the upstream's own error, a malformed event, or a stream that stops too early.
    """

    def __init__(
        self,
        *,
        id: str,
        created: int,
        model: str,
        pass_usage: bool,
        start: float = 0.0,
        signer: str = "",
        secrets: Sequence[str] = (),
    ) -> None:
        from botocore.eventstream import EventStreamBuffer

        self.pass_usage = pass_usage
        self.start = start
        self.signer = signer
        self.secrets = secrets
        self.done = False
        self._framer = EventStreamBuffer()
        self._chunks = wire.Chunks(id=id, created=created, model=model)
        self._role: dict[str, Any] = {"role": "assistant"}
        self._text: list[str] = []
        self._thoughts: dict[int, _Reasoning] = {}
        """Blocks of thinking that are under way."""
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._tokens: Tokens | None = None
        self._first_seconds: float | None = None

    def feed(self, read: bytes) -> bytes:
        """Take one read; return the chunks to pass on, possibly none."""
        from botocore.eventstream import ParserError

        try:
            self._framer.add_data(read)
            return b"".join([self._take(m.headers, m.payload) for m in self._framer])
        except (ParserError, msgspec.DecodeError, ValueError) as e:
            message = f"an event of the stream is malformed: {upstream.shorten(str(e), *self.secrets)}"
            raise TargetError(Failure(kind="malformed", message=message)) from e

    def close(self) -> None:
        """Say that the stream has ended."""
        if self._finish is None:
            message = "the stream ended before the answer did"
            raise TargetError(Failure(kind="broken_stream", message=message, status=200))

    def outcome(self) -> Outcome:
        """Sum up what was read."""
        calls = [c for _, c in sorted(self._calls.items())]
        return Outcome(
            text="".join(self._text),
            model=self._chunks.model,
            tokens=self._tokens,
            first_token_seconds=self._first_seconds,
            finish=self._finish or "stop",
            tool_calls=Raw(msgspec.json.encode(calls)) if calls else None,
        )

    def _take(self, headers: Mapping[str, Any], payload: bytes) -> bytes:
        if (kind := headers.get(":message-type", "event")) != "event":
            raise TargetError(self._reported(kind, headers, payload))
        event = _event.decode(payload)
        match headers.get(":event-type"):
            case "contentBlockStart" if event.start is not None and event.start.tool_use is not None:
                use = event.start.tool_use
                self._calls[event.content_block_index] = made = tool_call(use.tool_use_id, use.name, "")
                return self._chunks.delta(self._begin({"tool_calls": [{"index": len(self._calls) - 1, **made}]}))
            case "contentBlockDelta" if event.delta is not None:
                return self._grow(event.content_block_index, event.delta)
            case "contentBlockStop":
                return self._end(event.content_block_index)
            case "messageStop":
                self._finish = _finish(event.stop_reason)
                return self._chunks.delta(self._begin({}), finish=self._finish)
            case "metadata":
                self.done = True
                if event.usage is not None:
                    self._tokens = event.usage.tokens()
                    if self.pass_usage:
                        return self._chunks.usage(wire.usage(self._tokens))
        return b""

    def _grow(self, index: int, delta: _Block) -> bytes:
        if delta.text:
            self._text.append(delta.text)
            return self._chunks.delta(self._begin({"content": delta.text}))
        if delta.tool_use is not None and index in self._calls:
            return self._argue(index, msgspec.json.decode(delta.tool_use.input, type=str))
        if (said := delta.reasoning_content) is not None:
            thought = self._thoughts.setdefault(index, _Reasoning())
            thought.text += said.text
            thought.signature += said.signature
            thought.redacted_content += said.redacted_content
            if said.text:
                return self._chunks.delta(self._begin({"reasoning_content": said.text}))
        return b""

    def _end(self, index: int) -> bytes:
        if (thought := self._thoughts.pop(index, None)) is not None:
            block = _thought(thought.text, thought.signature, thought.redacted_content, self.signer)
            return self._chunks.delta(self._begin({"thinking_blocks": [block]}))
        if index in self._calls and not self._calls[index]["function"]["arguments"]:
            return self._argue(index, "{}")
        return b""

    def _argue(self, index: int, piece: str) -> bytes:
        self._calls[index]["function"]["arguments"] += piece
        n = list(self._calls).index(index)
        return self._chunks.delta({"tool_calls": [{"index": n, "function": {"arguments": piece}}]})

    def _begin(self, delta: dict[str, Any]) -> dict[str, Any]:
        if self._first_seconds is None:
            self._first_seconds = perf_counter() - self.start
        role, self._role = self._role, {}
        return {**role, **delta}

    def _reported(self, kind: str, headers: Mapping[str, Any], payload: bytes) -> Failure:
        if kind == "error":
            name, message = str(headers.get(":error-code", "")), str(headers.get(":error-message", ""))
        else:
            name = str(headers.get(":exception-type", ""))
            try:
                said = msgspec.json.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError):
                said = {}
            message = str(said.get("message", "")) if isinstance(said, dict) else ""
        # In a stream names begin small: throttlingException.
        name = name[:1].upper() + name[1:]
        return _typed(name, message, _STATUS.get(name, 502), {}, *self.secrets)
