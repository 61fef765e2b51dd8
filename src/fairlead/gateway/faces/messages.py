"""``POST /v1/messages``: Anthropic's Messages API over the chat format, with its events; and what its clients ask beside it, the size of a prompt.

Requests: blocks become parts, tool results tool messages in their order (the rest of the turn follows them), thinking ``thinking_blocks``. An answer
in which thinking comes after text, and no call was made yet, becomes two messages, so that a driver for the same format puts it together as it
was; thinking between calls moves before them.

What chat has no place for is told by name: blocks of tools that the provider ran, ``container``, ``mcp_servers``, ``context_management``, fields
of betas. What would change the meaning if it were left out is refused: an unknown kind of block, a picture by ``file_id``, ``inference_geo``.
``anthropic-version`` and ``anthropic-beta`` are taken and not read: what a beta adds to the body is told.

Replies: `message_blocks` grows the content; here it becomes the whole message, or the events. A message's id is the query's with another
beginning (``msg_``, and ``req_`` in ``request-id``), and `base.query_id` leads back, so feedback takes either. Token counts come with the last
event but one: when the first goes out, nobody knows them, and it says 0.

Cost: about 20 µs a short request and 4 µs a message more, 5 µs a whole answer, 4 µs a streamed event.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct
from starlette.requests import Request
from starlette.responses import Response

from fairlead import pool, tokens
from fairlead.errors import NoEligibleTarget
from fairlead.gateway import limits
from fairlead.gateway import read as reading
from fairlead.gateway.door import CALLER
from fairlead.gateway.faces.base import Face, Read, Writer, renamed
from fairlead.gateway.faces.message_blocks import Blocks, Event, usage
from fairlead.gateway.limits import Shown
from fairlead.gateway.refusal import Headers, Refused, of_validation
from fairlead.targets import wire
from fairlead.types import Outcome, Query

if TYPE_CHECKING:
    from fairlead.gateway.app import Gateway

PREFIX: Final = "msg_"
PATH: Final = "/v1/messages"
COUNT: Final = "/v1/messages/count_tokens"
COUNTED: Final = "x-fairlead-tokens"
_AS_IT_IS: Final = ("model", "stream", "fairlead", "max_tokens", "temperature", "top_p", "top_k", "thinking", "cache_control")  # fmt: skip
_READ: Final = frozenset(
    {
        *_AS_IT_IS,
        *("messages", "system", "tools", "tool_choice", "stop_sequences", "metadata"),
        *("output_config", "output_format", "service_tier", "inference_geo"),
    }
)
_IDLE: Final[tuple[Any, ...]] = (None, False, [], {}, "", {"enabled": False}, {"type": "direct"}, ["direct"])
"""Values that ask for nothing."""
_SERVED: Final = ("server_tool_use", "mcp_tool_use", "container_upload", "tool_reference", "browser_state")
"""Blocks of what a provider did by itself, and, with those that end in ``_tool_result``, what came of it: left out, and told."""
_CHOICE: Final = {"auto": "auto", "any": "required", "none": "none"}
_ERRORS: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_TOO_LONG: Final = "prompt is too long"
"""What clients look for in a message before they shorten a conversation by themselves."""
_Most: TypeAlias = Annotated[int, Meta(ge=1)]
_MOST_MODELS: Final = 1000


class Kept(Struct, frozen=True, kw_only=True):
    """What the writer must know of a request."""

    stops: tuple[str, ...] = ()


class Messages(Face):
    """The Messages API."""

    path = PATH
    api = "messages"

    async def read(self, fields: dict[str, Raw]) -> Read:
        """Turn a request into the chat format."""
        if "max_tokens" not in fields:
            text = "max_tokens is missing: the most tokens that the answer may have"
            raise Refused(400, text, code="missing_required_parameter", param="max_tokens")
        _as(_Most, _decoded(fields["max_tokens"], "max_tokens"), "max_tokens")
        return translated(fields)

    def whole(self, outcome: Outcome, query: Query, read: Read) -> bytes:
        """Write a message."""
        made = _blocks(query, read)
        reply = msgspec.json.decode(outcome.reply or wire.completion(outcome, id=query.id, created=0))
        for choice in reply.get("choices") or ():
            made.take(choice, "message")
        made.end()
        return msgspec.json.encode(
            {
                **_head(query, outcome.model),
                "content": made.content,
                "stop_reason": made.stop_reason(outcome.finish),
                "stop_sequence": made.stop_sequence,
                "usage": usage(outcome.tokens),
            }
        )

    def writer(self, query: Query, read: Read) -> Writer:
        """Make the writer of one stream."""
        return _Events(query, read)

    def error(self, refused: Refused) -> bytes:
        """Write an error in Anthropic's shape."""
        return error(refused)

    def headers(self, id: str) -> Headers:
        """Return the header that Anthropic's clients show in their errors."""
        return [(b"request-id", renamed(id, "req_").encode())]

    def limits(self, shown: Sequence[Shown]) -> Headers:
        """Write limits under Anthropic's names."""
        return limits.anthropic(shown)


def error(refused: Refused) -> bytes:
    """Write an error in Anthropic's shape."""
    kind = _ERRORS.get(refused.status, "invalid_request_error" if refused.status < 500 else "api_error")
    message = refused.message
    if refused.code == "context_length_exceeded" and _TOO_LONG not in message.lower():
        message = f"{_TOO_LONG}: {message}"
    said = {"type": "error", "error": {"type": kind, "message": message}}
    return msgspec.json.encode({**said, "request_id": renamed(refused.id, "req_") if refused.id else None})


# ------------------------------------------------------------------------------------------------------------ requests


def translated(fields: dict[str, Raw]) -> Read:
    """Turn a request, or one that only counts, into the chat format. Raises `Refused` (400)."""
    given = {name: _decoded(raw, name) for name, raw in fields.items() if name not in ("model", "fairlead")}
    if given.get("inference_geo") not in (*_IDLE, "global"):
        text = (
            "inference_geo: say which regions the data may go to as x-fairlead-regions, or fairlead.regions in the body"
        )
        raise Refused(400, text, code="unsupported_parameter", param="inference_geo", retry=False)
    dropped = [name for name, value in given.items() if name not in _READ and value not in _IDLE]
    messages = _Messages(dropped)
    messages.instruct(given.get("system"))
    turns = _objects(given.get("messages"), "messages")
    if not turns:
        text = 'messages: at least one is needed, such as [{"role": "user", "content": "…"}]'
        raise Refused(400, text, code="missing_required_parameter", param="messages")
    for i, message in enumerate(turns):
        messages.take(message, f"messages[{i}]")
    out: dict[str, Raw] = {
        name: fields[name] for name in _AS_IT_IS if given.get(name, 0) is not None and name in fields
    }
    chat: dict[str, Any] = {"messages": messages.made}
    stops = _options(given, chat, dropped)
    return Read(
        fields={**out, **{k: Raw(_encoded(v)) for k, v in chat.items()}},
        dropped=tuple(dict.fromkeys(dropped)),
        kept=Kept(stops=tuple(stops)),
    )


def _decoded(raw: Raw, name: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Refused(400, f"{name}: not valid JSON: {e}", code="invalid_json", param=name) from e


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except OverflowError:  # a whole number of more than 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _as(kind: Any, value: Any, at: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise of_validation(e, at) from e


def _objects(value: Any, at: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):  # `_as` takes 3 µs for such types
        return value
    found: list[dict[str, Any]] = _as(list[dict[str, Any]], value, at)
    return found


def _object(value: Any, at: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    found: dict[str, Any] = _as(dict[str, Any], value, at)
    return found


def _word(block: dict[str, Any], name: str, at: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else str(_as(str, value, f"{at}.{name}"))


def _wrong(at: str, text: str) -> Refused:
    return Refused(400, f"{at}: {text}", code="invalid_value", param=at)


class _Messages:
    """Messages of the chat format, made of turns."""

    def __init__(self, dropped: list[str]) -> None:
        self.made: list[dict[str, Any]] = []
        self._dropped = dropped

    def instruct(self, system: Any) -> None:
        if system not in (None, "", []):
            self.made.append({"role": "system", "content": self._texts(system, "system")})

    def take(self, message: dict[str, Any], at: str) -> None:
        """Add one turn."""
        self._left(message, at, "role", "content")
        content = message.get("content")
        if content is None:
            raise _wrong(f"{at}.content", "is missing: a text, or an array of blocks")
        if not isinstance(content, str):
            content = _objects(content, f"{at}.content")
        match message.get("role"):
            case "user":
                self._asked(content, f"{at}.content")
            case "assistant":
                self._answered(content, f"{at}.content")
            case "system":
                self.made.append({"role": "system", "content": self._texts(content, f"{at}.content")})
            case _:
                raise _wrong(f"{at}.role", "must be user, assistant or system")

    def _asked(self, content: str | list[dict[str, Any]], at: str) -> None:
        if isinstance(content, str):
            self.made.append({"role": "user", "content": content})
            return
        parts: list[dict[str, Any]] = []
        results = False
        for j, block in enumerate(content):
            where = f"{at}[{j}]"
            if block.get("type") == "tool_result":
                self._result(block, where)
                results = True
            else:
                parts += self._part(block, where)
        if parts or not results:
            self.made.append({"role": "user", "content": _joined(parts)})

    def _result(self, block: dict[str, Any], at: str) -> None:
        self._left(block, at, "tool_use_id", "content", "is_error")
        content = block.get("content")
        if not isinstance(content, str):
            found = _objects(content, f"{at}.content")
            content = _joined([p for k, b in enumerate(found) for p in self._part(b, f"{at}.content[{k}]")])
        message = {"role": "tool", "tool_call_id": _word(block, "tool_use_id", at), "content": content, **_mark(block)}
        if _as(bool | None, block.get("is_error"), f"{at}.is_error"):
            message["is_error"] = True
        self.made.append(message)

    def _answered(self, content: str | list[dict[str, Any]], at: str) -> None:
        if isinstance(content, str):
            self.made.append({"role": "assistant", "content": content})
            return
        answer = _Answer()
        for j, block in enumerate(content):
            where = f"{at}[{j}]"
            kind = block.get("type")
            if kind in ("thinking", "redacted_thinking"):
                if answer.parts and not answer.calls:
                    self.made.append(answer.message())
                    answer = _Answer()
                answer.think(block, str(kind), where)
            elif kind == "tool_use":
                self._left(block, where, "id", "name", "input")
                arguments = _encoded(_object(block.get("input"), f"{where}.input")).decode()
                function = {"name": _word(block, "name", where), "arguments": arguments}
                # A call has no place for a mark; the message has, and it stands for its last block.
                if answer.mark:
                    self._dropped.append(f"{answer.marked}.cache_control")
                answer.mark, answer.marked = _mark(block), where
                answer.calls.append({"id": _word(block, "id", where), "type": "function", "function": function})
            else:
                answer.parts += self._part(block, where, answer=True)
        self.made.append(answer.message())

    def _texts(self, content: Any, at: str) -> str | list[dict[str, Any]]:
        if isinstance(content, str):
            return content
        blocks = _objects(content, at)
        for i, block in enumerate(blocks):
            if block.get("type") != "text":
                raise _wrong(f"{at}[{i}].type", "only text stands here")
        return _joined([p for i, block in enumerate(blocks) for p in self._part(block, f"{at}[{i}]")])

    def _part(self, block: dict[str, Any], at: str, *, answer: bool = False) -> list[dict[str, Any]]:
        """Turn a block into parts; none if it is left out."""
        kind = _word(block, "type", at)
        if kind in _SERVED or kind.endswith("_tool_result"):
            self._dropped.append(f"{at} ({kind[:40]})")
            return []
        out: list[dict[str, Any]]
        match kind:
            case "text":
                self._left(block, at, "text")
                out = [{"type": "text", "text": _word(block, "text", at)}]
            case "image" if not answer:
                self._left(block, at, "source")
                out = [_image(_object(block.get("source"), f"{at}.source"), f"{at}.source")]
            case "document" if not answer:
                out = self._document(block, at)
            case "search_result" if not answer:
                self._left(block, at, "title", "source", "content")
                texts = [_word(b, "text", f"{at}.content") for b in _objects(block.get("content"), f"{at}.content")]
                head = f"{_word(block, 'title', at)} ({_word(block, 'source', at)})"
                out = [{"type": "text", "text": "\n".join([head, *texts])}]
            case _:
                whose = "an answer" if answer else "a question"
                raise _wrong(f"{at}.type", f"{kind[:40]!r} in {whose} cannot be translated")
        if out and (mark := _mark(block)):
            out[-1] |= mark
        return out

    def _document(self, block: dict[str, Any], at: str) -> list[dict[str, Any]]:
        self._left(block, at, "source", "title")
        source = _object(block.get("source"), f"{at}.source")
        where = f"{at}.source"
        title = {} if block.get("title") is None else {"filename": _word(block, "title", at)}
        match source.get("type"):
            case "base64":
                file = {"file_data": f"data:{_word(source, 'media_type', where)};base64,{_word(source, 'data', where)}"}
            case "text":
                data = base64.b64encode(_word(source, "data", where).encode("utf-8", "replace")).decode()
                file = {"file_data": f"data:text/plain;base64,{data}"}
            case "url":
                file = {"file_url": _word(source, "url", where)}
            case "file":
                file = {"file_id": _word(source, "file_id", where)}
            case "content":
                if title:
                    self._dropped.append(f"{at}.title")
                content = source.get("content")
                if isinstance(content, str):
                    return [{"type": "text", "text": content}]
                found = _objects(content, f"{where}.content")
                return [p for k, b in enumerate(found) for p in self._part(b, f"{where}.content[{k}]")]
            case _:
                raise _wrong(f"{where}.type", "must be base64, text, url, file or content")
        return [{"type": "file", "file": {**file, **title}}]

    def _left(self, block: dict[str, Any], at: str, *known: str) -> None:
        """Note the fields that are not known and ask for something."""
        known = ("type", "cache_control", *known)
        self._dropped += [f"{at}.{name}" for name, value in block.items() if name not in known and value not in _IDLE]


class _Answer:
    """One assistant message under way."""

    __slots__ = ("calls", "mark", "marked", "parts", "thinking", "thoughts")

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self.thinking: list[dict[str, Any]] = []
        self.thoughts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.mark: dict[str, Any] = {}
        self.marked = ""
        """Where the mark stood."""

    def think(self, block: dict[str, Any], kind: str, at: str) -> None:
        """Add a block of thinking; what nobody signed is text alone, since nobody takes it back."""
        if kind == "redacted_thinking":
            self.thinking.append({"type": kind, "data": _word(block, "data", at)})
            return
        thought = _word(block, "thinking", at)
        self.thoughts.append(thought)
        if block.get("signature"):
            self.thinking.append({"type": kind, "thinking": thought, "signature": _word(block, "signature", at)})

    def message(self) -> dict[str, Any]:
        out: dict[str, Any] = {"role": "assistant", "content": _joined(self.parts) if self.parts else None}
        if not self.parts and not self.calls and not self.thinking:
            out["content"] = ""
        if text := "".join(self.thoughts):
            out["reasoning_content"] = text
        if self.thinking:
            out["thinking_blocks"] = self.thinking
        if self.calls:
            out["tool_calls"] = self.calls
        return {**out, **self.mark}


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Write one plain text as a text: every server takes that."""
    if not parts:
        return ""
    plain = len(parts) == 1 and set(parts[0]) == {"type", "text"}
    text: str | list[dict[str, Any]] = parts[0]["text"] if plain else parts
    return text


def _mark(block: dict[str, Any]) -> dict[str, Any]:
    mark = block.get("cache_control")
    return {} if mark is None else {"cache_control": mark}


def _image(source: dict[str, Any], at: str) -> dict[str, Any]:
    match source.get("type"):
        case "base64":
            url = f"data:{_word(source, 'media_type', at)};base64,{_word(source, 'data', at)}"
        case "url":
            url = _word(source, "url", at)
        case "file":
            raise _wrong(at, "pictures by file_id cannot be translated; send base64 or a url")
        case _:
            raise _wrong(f"{at}.type", "must be base64 or url")
    return {"type": "image_url", "image_url": {"url": url}}


def _options(given: dict[str, Any], chat: dict[str, Any], dropped: list[str]) -> list[str]:
    """Translate what is not the conversation; return the stop sequences."""
    tools = [_tool(t, f"tools[{i}]", dropped) for i, t in enumerate(_objects(given.get("tools"), "tools"))]
    if tools:
        chat["tools"] = tools
    if choice := _object(given.get("tool_choice") or {}, "tool_choice"):
        kind = choice.get("type")
        if not isinstance(kind, str) or (kind != "tool" and kind not in _CHOICE):
            raise _wrong("tool_choice.type", "must be auto, any, tool or none")
        if tools:
            named = (
                {"type": "function", "function": {"name": _word(choice, "name", "tool_choice")}}
                if kind == "tool"
                else None
            )
            chat["tool_choice"] = named or _CHOICE[str(kind)]
            if _as(bool | None, choice.get("disable_parallel_tool_use"), "tool_choice.disable_parallel_tool_use"):
                chat["parallel_tool_calls"] = False
        elif kind not in ("auto", "none"):
            dropped.append("tool_choice")
    config = _object(given.get("output_config") or {}, "output_config")
    format, at = config.get("format"), "output_config.format"
    if format is None:
        format, at = given.get("output_format"), "output_format"
    if format := _object(format or {}, at):
        if format.get("type") != "json_schema":
            raise _wrong(f"{at}.type", "must be json_schema")
        schema = _object(format.get("schema"), f"{at}.schema")
        chat["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    if config.get("effort") is not None:
        chat["reasoning_effort"] = _word(config, "effort", "output_config")
    dropped += [f"output_config.{k}" for k, v in config.items() if k not in ("format", "effort") and v not in _IDLE]
    metadata = _object(given.get("metadata") or {}, "metadata")
    if metadata.get("user_id") is not None:
        chat["user"] = _word(metadata, "user_id", "metadata")
    dropped += [f"metadata.{k}" for k, v in metadata.items() if k != "user_id" and v not in _IDLE]
    if (tier := given.get("service_tier")) is not None:
        chat["service_tier"] = "default" if tier == "standard_only" else tier
    stops: list[str] = _as(list[str] | None, given.get("stop_sequences"), "stop_sequences") or []
    if stops:
        chat["stop"] = stops
    return stops


def _tool(tool: dict[str, Any], at: str, dropped: list[str]) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        return tool  # one that the provider knows, or runs: who does not know it says so
    known = ("type", "name", "description", "input_schema", "strict", "cache_control")
    dropped += [f"{at}.{k}" for k, v in tool.items() if k not in known and v not in _IDLE]
    function: dict[str, Any] = {
        "name": _word(tool, "name", at),
        "parameters": _object(tool.get("input_schema"), f"{at}.input_schema"),
    }
    if tool.get("description"):
        function["description"] = _word(tool, "description", at)
    if _as(bool | None, tool.get("strict"), f"{at}.strict"):
        function["strict"] = True
    return {"type": "function", "function": function, **_mark(tool)}


# ------------------------------------------------------------------------------------------------------------- replies


def _blocks(query: Query, read: Read) -> Blocks:
    kept: Kept = read.kept
    return Blocks(renamed(query.id, ""), kept.stops)


def _head(query: Query, model: str) -> dict[str, Any]:
    return {"id": renamed(query.id, PREFIX), "type": "message", "role": "assistant", "model": model or query.route}


class _Events(Writer):
    """Writes a stream."""

    def __init__(self, query: Query, read: Read) -> None:
        self._query = query
        self._blocks = _blocks(query, read)
        self._begun = False

    def feed(self, events: bytes) -> bytes:
        out = []
        for event in events.split(b"\n\n"):
            if not event.startswith(b"data: "):
                out.append(event + b"\n\n" if event else b"")
                continue
            chunk = msgspec.json.decode(event[6:])
            out.append(self._begin(chunk.get("model") or ""))
            for choice in chunk.get("choices") or ():
                out.append(_written(self._blocks.take(choice)))
        return b"".join(out)

    def close(self, outcome: Outcome) -> bytes:
        begun = self._begin(outcome.model)
        end = self._blocks.end()
        delta = {"stop_reason": self._blocks.stop_reason(outcome.finish), "stop_sequence": self._blocks.stop_sequence}
        end.append({"type": "message_delta", "delta": delta, "usage": usage(outcome.tokens)})
        end.append({"type": "message_stop"})
        return begun + _written(end)

    def broken(self, refused: Refused) -> bytes:
        return b"event: error\ndata: " + error(refused) + b"\n\n"

    def _begin(self, model: str) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        message = {**_head(self._query, model), "content": [], "stop_reason": None, "stop_sequence": None}
        return _written([{"type": "message_start", "message": {**message, "usage": usage(None)}}])


def _written(events: Sequence[Event]) -> bytes:
    return b"".join([b"event: %b\ndata: %b\n\n" % (e["type"].encode(), msgspec.json.encode(e)) for e in events])


# ---------------------------------------------------------------------------------------------- beside the answers


async def count_tokens(gateway: Gateway, request: Request) -> Response:
    """Answer `COUNT`, and say in `COUNTED` how.

    ``counted``: by the tokenizers of all whom the model, or the plan that its route would choose now, may ask; the largest number. ``estimated``:
    one of them has none, so it is a quarter of the characters. Calls nobody, keeps nothing. Raises `Refused`.
    """
    router, headers = gateway.router, {k.lower(): v for k, v in request.scope["headers"]}
    read = translated(reading.split(await gateway.body(request)))
    caller = request.scope.get(CALLER)
    query = reading.query(read, headers, router.serving, router.pool.by_name, caller, api=Messages.api).query
    names: Sequence[str] = (query.route,)
    if query.route not in router.pool.by_name:
        try:
            names = (await router.consider(query))[2].plan.targets()
        except NoEligibleTarget:
            names = ()
    files = [t.profile.tokenizer for n in names if (t := router.pool.by_name.get(n)) is not None]
    n = 0
    for file in files:
        if file is not None:
            n = max(n, await asyncio.to_thread(_prompt, file, query))
    counted = bool(files) and None not in files
    if not counted:
        n = max(n, estimate(query))
    how = "counted" if counted else "estimated"
    return Response(msgspec.json.encode({"input_tokens": n}), media_type="application/json", headers={COUNTED: how})


def _prompt(file: str, query: Query) -> int:
    return tokens.load(file).prompt(query)


def estimate(query: Query) -> int:
    """Estimate the tokens of a prompt with its tools: a quarter of the characters, and four a message."""
    calls = sum(len(msgspec.json.encode(m.tool_calls)) for m in query.messages if m.tool_calls)
    return pool.estimate_tokens(query) + (calls + len(bytes(query.body.get("tools", b"")))) // 4


def model_list(
    names: Sequence[str], profiles: Mapping[str, Any], made: float, asked: Mapping[str, str]
) -> dict[str, Any]:
    """List models in Anthropic's shape, a page of them.

    Args:
        names: of routes and targets.
        profiles: of those that are targets.
        made: Unix seconds.
        asked: of the query string: ``limit``, ``after_id``, ``before_id``.

    Raises:
        Refused: 400 for a wrong one.
    """
    text = asked.get("limit", "20")
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _MOST_MODELS):
        raise Refused(400, f"limit must be a whole number from 1 to {_MOST_MODELS}", param="limit")
    limit, shown, more = int(text), list(names), False
    if (after := asked.get("after_id")) is not None:
        shown = shown[_place(shown, after, "after_id") + 1 :]
    if (before := asked.get("before_id")) is not None:
        shown = shown[: _place(shown, before, "before_id")]
        shown, more = shown[-limit:], len(shown) > limit
    else:
        shown, more = shown[:limit], len(shown) > limit
    at = f"{datetime.fromtimestamp(int(made), UTC):%Y-%m-%dT%H:%M:%SZ}"
    data = []
    for name in shown:
        model: dict[str, Any] = {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": at,
            "lifecycle": "active",
        }
        if (profile := profiles.get(name)) is not None:
            model |= {"max_input_tokens": profile.context_tokens, "max_tokens": profile.max_output_tokens}
        data.append(model)
    return {
        "data": data,
        "has_more": more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def _place(names: list[str], name: str, param: str) -> int:
    if name not in names:
        raise Refused(400, f"{param}: no model is called {name[:200]!r}", code="invalid_value", param=param)
    return names.index(name)
