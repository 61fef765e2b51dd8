"""Targets that speak Anthropic's Messages format. The request is translated from the OpenAI chat format and the reply back to it.

Translated: system and developer messages (joined, in order, as the system prompt), text, images (data URLs as base64, others by URL),
tools and tool choice, tool calls and results (results in a row become one user turn), ``stop``, ``temperature`` (cut at 1, Anthropic's
largest), ``top_p``, ``max_tokens`` and ``max_completion_tokens``, ``user``, ``parallel_tool_calls``; stop reasons, token counts, thinking
(as ``reasoning_content``), and streamed events.

Not translatable: ``n`` above 1, ``logprobs``, ``seed``, ``response_format``, penalties and the like. Such a field is left out, and the
log says so once for each field and target.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from time import perf_counter
from typing import Any, ClassVar, Final, Self

import msgspec
from msgspec import Raw, Struct

from fairlead.errors import TargetError
from fairlead.secret import checked, reveal
from fairlead.targets import sse, upstream, wire
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Tokens

log = logging.getLogger(__name__)

_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TRANSLATED: Final = frozenset(
    {
        "messages",
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "user",
    }
)
# Values that ask for nothing: leaving these out changes no answer.
_IDLE: Final = {"n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0, "store": False}


class AnthropicMessages(Driver):
    """A model behind ``POST {base_url}/v1/messages``.

    Args:
        name: what routes and traces call it.
        model: what the upstream calls it.
        base_url: without the version.
        api_key: a reference, ``${NAME}``; None sends no key.
        version: the ``anthropic-version`` header.
        max_tokens: where the request names none; the format insists on a number.
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        headers: sent with each call; values may be references too. Those that carry credentials must be.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a key that is written out, or a base_url that is not http(s).
    """

    remote: ClassVar[bool] = True

    @classmethod
    def example(cls) -> Self:
        """Of a server that is not there."""
        return cls(name="a", model="m", base_url="http://127.0.0.1:1")

    def __init__(
        self,
        *,
        name: str,
        model: str,
        base_url: str = "https://api.anthropic.com",
        api_key: str | None = None,
        version: str = "2023-06-01",
        max_tokens: int = 4096,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
        headers: dict[str, str] | None = None,
        proxies_from_env: bool = False,
    ) -> None:
        self.name = name
        self.model = model
        self.base_url = upstream.check_url(base_url)
        self.api_key = checked(api_key, path="$.api_key")
        self.version = version
        self.max_tokens = max_tokens
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.headers = upstream.check_headers(headers)
        self.proxies_from_env = proxies_from_env
        self._secrets: tuple[str, ...] = ()
        self._headers: dict[str, str] = {}
        self._upstream: upstream.Upstream | None = None
        self._told: set[str] = set()

    async def start(self) -> None:
        """Read the secrets and open the connection pool. Raises `ConfigError` if a variable is unset."""
        headers, secrets = upstream.revealed(self.headers)
        headers["Content-Type"] = "application/json"
        headers["anthropic-version"] = self.version
        if self.api_key is not None:
            key = reveal(self.api_key, path=f"$.targets.{self.name}.api_key")
            headers["x-api-key"] = key
            secrets.append(key)
        self._headers, self._secrets = headers, tuple(secrets)
        self._upstream = await upstream.shared(proxies_from_env=self.proxies_from_env).__aenter__()

    async def stop(self) -> None:
        """Let go of the connection pool."""
        self._headers, self._secrets = {}, ()
        if self._upstream is not None:
            opened, self._upstream = self._upstream, None
            await opened.__aexit__()

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._upstream is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        try:
            fields = {k: msgspec.json.decode(v) for k, v in wire.fields(call, query).items()}
            request, dropped = translate(fields, model=self.model, max_tokens=self.max_tokens)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            message = f"the request cannot be put into Anthropic's format: {type(e).__name__}: {e}"
            raise TargetError(Failure(kind="bad_request", message=message[: upstream.MESSAGE_CHARACTERS])) from e
        for field in dropped:
            if field not in self._told:
                self._told.add(field)
                log.warning("target %s: Anthropic's format has no %r; it is left out", self.name, field)
        url = self.base_url.rstrip("/") + "/v1/messages"
        start = perf_counter()
        if sink is None:
            reply = await self._upstream.post(url, self._headers, msgspec.json.encode(request))
            if reply.status != 200:
                raise TargetError(upstream.refusal(*reply, *self._secrets))
            return read(reply.body, id=query.id, secrets=self._secrets)
        body = msgspec.json.encode({**request, "stream": True})
        async with self._upstream.stream(url, self._headers, body) as streaming:
            if streaming.status != 200:
                head = await streaming.head()
                raise TargetError(upstream.refusal(streaming.status, streaming.headers, head, *self._secrets))
            include = wire.wants_usage(query.body)
            now = int(time.time())
            reader = StreamReader(id=query.id, created=now, pass_usage=include, start=start, secrets=self._secrets)
            async for chunk in streaming.chunks():
                if events := reader.feed(chunk):
                    await sink(events)
                if reader.done:
                    break
            reader.close()
            await streaming.drain()
            return reader.outcome()


# ----------------------------------------------------------------------------------------------------------- requests


def translate(fields: dict[str, Any], *, model: str, max_tokens: int) -> tuple[dict[str, Any], list[str]]:
    """Return (Anthropic's request, the fields that it has no place for).

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if the request is not in OpenAI's chat format.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in fields["messages"]:
        role = message["role"]
        if role in ("system", "developer"):
            system += _blocks(message.get("content"))
            continue
        if role == "tool":
            role, blocks = "user", [_result(message)]
        elif role == "assistant":
            blocks = _blocks(message.get("content")) + [_use(c) for c in message.get("tool_calls") or ()]
        elif role == "user":
            blocks = _blocks(message.get("content"))
        else:
            raise ValueError(f"there is no role {role!r}")
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    most = fields.get("max_completion_tokens") or fields.get("max_tokens") or max_tokens
    out: dict[str, Any] = {"model": model, "max_tokens": most, "messages": turns}
    dropped = [k for k, v in fields.items() if k not in _TRANSLATED and v is not None and v != _IDLE.get(k, ...)]
    if system:
        out["system"] = system
    if fields.get("temperature") is not None:
        out["temperature"] = min(fields["temperature"], 1.0)
        if fields["temperature"] > 1.0:
            dropped.append("temperature above 1")
    if fields.get("top_p") is not None:
        out["top_p"] = fields["top_p"]
    if stop := fields.get("stop"):
        out["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if fields.get("user"):
        out["metadata"] = {"user_id": fields["user"]}
    if fields.get("tools"):
        out["tools"] = [_tool(t["function"]) for t in fields["tools"] if t.get("type", "function") == "function"]
        dropped += [f"tool of type {t['type']}" for t in fields["tools"] if t.get("type", "function") != "function"]
        choice = _choice(fields.get("tool_choice"))
        if fields.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
            choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
        if choice is not None:
            out["tool_choice"] = choice
    return out, dropped


def _blocks(content: Any) -> list[dict[str, Any]]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_block(part) for part in content if part.get("type", "text") != "text" or part["text"]]


def _block(part: dict[str, Any]) -> dict[str, Any]:
    match part.get("type", "text"):
        case "text" | "refusal":
            return {"type": "text", "text": part.get("text") or part["refusal"]}
        case "image_url":
            image = part["image_url"]
            url = image if isinstance(image, str) else image["url"]
            return {"type": "image", "source": _source(url)}
    raise ValueError(f"a part of type {part.get('type')!r} has no counterpart")


def _source(url: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.partition(",")
    media_type, _, encoding = head.removeprefix("data:").partition(";")
    if encoding.rpartition(";")[2] != "base64":
        raise ValueError("a data URL must be base64")
    return {"type": "base64", "media_type": media_type, "data": data}


def _use(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = msgspec.json.decode(function.get("arguments") or "{}")
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _result(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "tool_result",
        "tool_use_id": message["tool_call_id"],
        "content": _blocks(message.get("content")),
    }


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    out = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}
    if function.get("description"):
        out["description"] = function["description"]
    return out


def _choice(choice: Any) -> dict[str, Any] | None:
    match choice:
        case None:
            return None
        case "auto" | "none":
            return {"type": choice}
        case "required":
            return {"type": "any"}
        case {"type": "function", "function": {"name": name}}:
            return {"type": "tool", "name": name}
    raise ValueError(f"tool_choice {choice!r} has no counterpart")


# ------------------------------------------------------------------------------------------------------------ replies


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Block(Struct):
    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class _Message(Struct):
    content: list[_Block]
    model: str = ""
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Delta(Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Head(Struct):
    model: str = ""
    usage: _Usage | None = None


class _Event(Struct):
    type: str
    index: int = 0
    message: _Head | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Raw = wire.NULL


_message = msgspec.json.Decoder(_Message)
_event = msgspec.json.Decoder(_Event)


def _tokens(usage: _Usage | None) -> Tokens | None:
    """Count as OpenAI does: Anthropic's `input_tokens` leaves out what the cache gave or took, OpenAI's holds it."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    return Tokens(input=usage.input_tokens + cached + written, cached_input=cached, output=usage.output_tokens)


def read(body: bytes, *, id: str, secrets: Sequence[str] = ()) -> Outcome:
    """Read a whole message. Raises `TargetError` (``malformed``) if it is none."""
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        why = upstream.shorten(str(e), *secrets)
        failure = Failure(kind="malformed", message=f"the reply is not a message: {why}", status=200)
        raise TargetError(failure) from e
    text = "".join(b.text for b in message.content if b.type == "text")
    calls = [_call(b.id, b.name, bytes(b.input).decode()) for b in message.content if b.type == "tool_use"]
    choice = wire.Choice(
        text=text,
        reasoning="".join(b.thinking for b in message.content if b.type == "thinking"),
        tool_calls=Raw(msgspec.json.encode(calls)) if calls else None,
        finish=_finish(message.stop_reason),
    )
    tokens = _tokens(message.usage)
    return Outcome(
        text=text,
        model=message.model,
        tokens=tokens,
        finish=choice.finish,
        tool_calls=choice.tool_calls,
        reply=wire.completions([choice], id=id, created=int(time.time()), model=message.model, tokens=tokens),
    )


def _call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _finish(reason: str | None) -> str:
    return _FINISH.get(reason or "end_turn", "stop")


class StreamReader:
    """Reads one stream of events and writes it as OpenAI chunks. Sans I/O.

    Raises:
        TargetError: from `feed` and `close`: the upstream's own error, a malformed event, or a stream that stops too early.
    """

    def __init__(
        self, *, id: str, created: int, pass_usage: bool, start: float = 0.0, secrets: Sequence[str] = ()
    ) -> None:
        self.pass_usage = pass_usage
        self.start = start
        self.secrets = secrets
        self.done = False
        self._framer = sse.Framer()
        self._chunks = wire.Chunks(id=id, created=created, model="")
        self._role: dict[str, Any] = {"role": "assistant"}
        self._text: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._usage = _Usage()
        self._reason: str | None = None
        self._first_seconds: float | None = None

    def feed(self, read: bytes) -> bytes:
        """Take one read; return the chunks to pass on, possibly none."""
        try:
            events = self._framer.feed(read)
            return b"".join([self._take(_event.decode(e.data)) for e in events])
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as e:
            message = f"an event of the stream is malformed: {upstream.shorten(str(e), *self.secrets)}"
            raise TargetError(Failure(kind="malformed", message=message)) from e

    def close(self) -> None:
        """Say that the stream has ended."""
        if not self.done:
            message = "the stream ended before the answer did"
            raise TargetError(Failure(kind="broken_stream", message=message, status=200))

    def outcome(self) -> Outcome:
        """Sum up what was read."""
        calls = [c for _, c in sorted(self._calls.items())]
        for call in calls:
            call["function"]["arguments"] = call["function"]["arguments"] or "{}"
        return Outcome(
            text="".join(self._text),
            model=self._chunks.model,
            tokens=_tokens(self._usage),
            first_token_seconds=self._first_seconds,
            finish=_finish(self._reason),
            tool_calls=Raw(msgspec.json.encode(calls)) if calls else None,
        )

    def _take(self, event: _Event) -> bytes:
        match event.type:
            case "message_start" if event.message is not None:
                self._chunks.model = event.message.model
                self._count(event.message.usage)
            case "content_block_start" if event.content_block is not None:
                return self._open(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                return self._grow(event.index, event.delta)
            case "message_delta":
                self._count(event.usage)
                if event.delta is not None and event.delta.stop_reason is not None:
                    self._reason = event.delta.stop_reason
            case "message_stop":
                self.done = True
                out = self._chunks.delta(self._begin({}), finish=_finish(self._reason))
                tokens = _tokens(self._usage)
                return out + self._chunks.usage(wire.usage(tokens)) if self.pass_usage and tokens else out
            case "error":
                raise TargetError(self._reported(bytes(event.error)))
        # Whatever else there is (pings, block ends, kinds yet to come) carries nothing for the client.
        return b""

    def _open(self, index: int, block: _Block) -> bytes:
        if block.type == "text" and block.text:
            return self._grow(index, _Delta(type="text_delta", text=block.text))
        if block.type != "tool_use":
            return b""
        self._calls[index] = _call(block.id, block.name, "")
        n = len(self._calls) - 1
        return self._chunks.delta(self._begin({"tool_calls": [{"index": n, **self._calls[index]}]}))

    def _grow(self, index: int, delta: _Delta) -> bytes:
        match delta.type:
            case "text_delta":
                self._text.append(delta.text)
                return self._chunks.delta(self._begin({"content": delta.text}))
            case "thinking_delta":
                return self._chunks.delta(self._begin({"reasoning_content": delta.thinking}))
            case "input_json_delta" if index in self._calls:
                self._calls[index]["function"]["arguments"] += delta.partial_json
                n = list(self._calls).index(index)
                piece = {"index": n, "function": {"arguments": delta.partial_json}}
                return self._chunks.delta({"tool_calls": [piece]})
        return b""

    def _begin(self, delta: dict[str, Any]) -> dict[str, Any]:
        if self._first_seconds is None:
            self._first_seconds = perf_counter() - self.start
        role, self._role = self._role, {}
        return {**role, **delta}

    def _count(self, usage: _Usage | None) -> None:
        if usage is not None:
            for field in usage.__struct_fields__:
                value = getattr(usage, field)
                if value is not None:
                    setattr(self._usage, field, value)

    def _reported(self, error: bytes) -> Failure:
        _, kind = upstream.describe(b'{"error":' + error + b"}")
        status = {
            "rate_limit_error": 429,
            "overloaded_error": 529,
            "invalid_request_error": 400,
            "authentication_error": 401,
            "permission_error": 403,
            "not_found_error": 404,
            "request_too_large": 413,
            "timeout_error": 504,
        }.get(kind, 500)
        return upstream.refusal(status, {}, error, *self.secrets)
