"""``POST /v1/responses``: OpenAI's Responses API over the chat format, with its events and its stored conversations.

Requests: items become messages. Thinking, texts and tool calls that follow each other are one assistant message, so that results stand right behind
it, as chat insists. A reasoning item's ``encrypted_content`` holds the marked signature (see `output_items` and `fairlead.targets.signed`), its
summary the text. What chat has no place for is told by name. What would change the meaning if it were left out is refused: ``background``,
``conversation``, ``prompt``.

Replies: `output_items` grows the items; here they become the whole object, or the events, each with its number. A response's id is the query's
with another beginning (``resp_`` for ``chatcmpl-``), and `base.query_id` leads back, so feedback takes either.

State: `fairlead.gateway.kept`. A response is kept unless ``store`` is false, the store keeps no text, the trace's text is not kept, or something in
it was masked: the object then says ``"store": false``, and going on from it is a 404. Tenants see their own only; a key that names no tenant sees
all, as with traces.

Cost: about 35 µs a request, 20 µs a whole answer and 7 µs a streamed event, beside one write of the store for each that is kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from fairlead.actions.mask import Mask
from fairlead.gateway.faces.base import Face, Read, Writer, renamed
from fairlead.gateway.faces.output_items import REDACTED, THINKING, Event, Item, Output
from fairlead.gateway.kept import TURNS, Body, Kept, Turn
from fairlead.gateway.refusal import Refused, of_validation
from fairlead.targets import wire
from fairlead.types import Outcome, Query, Tokens, Trace

T = TypeVar("T")

PREFIX: Final = "resp_"
_AS_IT_IS: Final = ("model", "stream", "fairlead", "temperature", "top_p", "parallel_tool_calls", "user", "service_tier",
                    "safety_identifier", "prompt_cache_key", "prompt_cache_retention")  # fmt: skip
_READ: Final = frozenset(
    {
        *_AS_IT_IS,
        *("input", "instructions", "tools", "tool_choice", "text", "reasoning", "max_output_tokens", "top_logprobs"),
        *("include", "metadata", "store", "previous_response_id", "truncation", "stream_options"),
    }
)
_REFUSED: Final = {
    "background": "answers are given at once here; leave it out, and stream if they take long",
    "conversation": "conversations are gone on with by previous_response_id here",
    "prompt": "no prompts are kept here; send the text as instructions and input",
}
_IDLE: Final[tuple[Any, ...]] = (None, False, [], {}, "")
"""Values that ask for nothing."""
_ECHO: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What an object says of its request, where that said nothing."""
_NOT_RUN: Final = re.compile(
    r"mcp|computer.*|local_shell|shell|apply_patch|file_search|image_generation|namespace|tool_search|programmatic.*"
)
"""Tools of the format whose calls chat cannot carry."""
_OWN_ITEM: Final = re.compile(r"(?:msg|rs|fc|ctc|item)_([0-9a-f]{28})_(i?\d{1,6})")
_REFERENCES: Final = 100
_INPUTS: Final = 100
"""Items of a page of `input_items` at most."""


class State(Struct, kw_only=True):
    """What is known of one request between reading it and ending its answer."""

    echo: dict[str, Any]
    input: list[Item]
    keep: bool
    """Whether it is to be kept."""
    previous: str | None = None
    whose: frozenset[str | None] = frozenset()
    """Tenants of the stored items that it goes on from."""
    stream: _Events | None = None
    """What writes it, once a stream has begun."""


class Responses(Face):
    """The Responses API.

    Args:
        kept: where conversations are kept; None: none are, since the store keeps no text.
        most_bytes: of a conversation that is gone on with.
    """

    path = "/v1/responses"
    api = "responses"

    def __init__(self, *, kept: Kept | None, most_bytes: int) -> None:
        self.kept, self.most_bytes = kept, most_bytes

    # ------------------------------------------------------------------------------------------------ requests

    async def read(self, fields: dict[str, Raw]) -> Read:
        """Turn a request into the chat format."""
        given = {name: _decoded(raw, name) for name, raw in fields.items() if name not in ("model", "fairlead")}
        for name, why in _REFUSED.items():
            if given.get(name) not in _IDLE:
                raise Refused(400, f"{name}: {why}", code="unsupported_parameter", param=name, retry=False)
        dropped = [name for name, value in given.items() if name not in _READ and value not in _IDLE]
        if given.get("truncation") == "auto":
            dropped.append("truncation")
        if (given.get("stream_options") or {}) != {} and _typed(given, "stream_options", dict).get(
            "include_obfuscation"
        ):
            dropped.append("stream_options.include_obfuscation")
        own = _items(given)
        previous = _typed(given, "previous_response_id", str | None)
        wanted = _typed(given, "store", bool | None)
        state = State(
            echo={name: value for name in _ECHO if (value := given.get(name)) is not None},
            input=own,
            keep=wanted is not False and self.kept is not None,
            previous=previous,
        )
        if wanted and self.kept is None:
            dropped.append("store")
        before, rows = await self._before(previous)
        referred = await self._referred(own)
        state.whose = frozenset(row.tenant for row in (*rows, *referred.values()))
        messages = _Messages(dropped)
        if instructions := given.get("instructions"):
            messages.instruct(instructions)
        for item in before:
            messages.take(item, "previous_response_id")
        for i, item in enumerate(own):
            own[i] = _resolved(item, referred, i)  # so that it is kept as what it stood for
            messages.take(own[i], f"input[{i}]")
        out: dict[str, Raw] = {
            str(name): fields[name] for name in _AS_IT_IS if given.get(name, 0) is not None and name in fields
        }
        chat: dict[str, Any] = {"messages": messages.made}
        _options(given, chat, dropped)
        return Read(
            fields={**out, **{k: Raw(msgspec.json.encode(v)) for k, v in chat.items()}},
            dropped=tuple(dict.fromkeys(dropped)),
            kept=state,
        )

    async def _before(self, previous: str | None) -> tuple[list[Item], list[Turn]]:
        """Read the conversation that is gone on with: its items, and its turns."""
        if previous is None:
            return [], []
        rows = await self._need("previous_response_id").chain(previous, size=self.most_bytes)
        if not rows:
            raise not_found(previous, "previous_response_id")
        if rows[0].previous is not None:
            if len(rows) >= TURNS or sum(len(bytes(r.body.response)) for r in rows) > self.most_bytes // 2:
                text = f"this conversation has more than {TURNS} turns or {self.most_bytes} bytes; begin a new one"
                raise Refused(400, text, code="conversation_too_long", param="previous_response_id", retry=False)
            raise not_found(rows[0].previous, "previous_response_id")
        return [item for row in rows for item in (*row.body.input, *row.output)], rows

    async def _referred(self, items: list[Item]) -> dict[str, Turn]:
        """Read the responses that references name, by the middle of their items' ids."""
        keys = {m[1] for item in items if _kind(item) == "item_reference" and (m := _OWN_ITEM.fullmatch(_id(item)))}
        if len(keys) > _REFERENCES:
            raise Refused(400, f"input refers to items of more than {_REFERENCES} responses", param="input")
        found = {}
        for key in sorted(keys):
            if (row := await self._need("input").get(PREFIX + key)) is not None:
                found[key] = row
        return found

    def _need(self, param: str) -> Kept:
        if self.kept is None:
            text = f"{param}: no conversation is kept here, since `store.text` is false in the gateway's config; send all items as input"
            raise Refused(400, text, code="store_keeps_no_text", param=param, retry=False)
        return self.kept

    def check(self, query: Query, read: Read) -> None:
        """Raise `Refused` (404) where the conversation is another tenant's."""
        state: State = read.kept
        tenant = query.identity.tenant
        if tenant is not None and not state.whose <= {tenant}:
            raise not_found(state.previous or "an item", "previous_response_id" if state.previous else "input")

    # ------------------------------------------------------------------------------------------------ answers

    def whole(self, outcome: Outcome, query: Query, read: Read) -> bytes:
        """Write the whole object."""
        return msgspec.json.encode(_answered(outcome, query, read.kept))

    def writer(self, query: Query, read: Read) -> Writer:
        """Make the writer of one stream."""
        return _Events(query, read.kept)

    async def keep(self, query: Query, read: Read, outcome: Outcome, trace: Trace) -> None:
        """Keep the response, unless something of it is hidden in the trace."""
        state: State = read.kept
        masked = any(act.name == Mask.type_name() and act.did != "passed" for act in trace.acts)
        if not trace.text_kept or masked:
            state.keep = False
        if not state.keep or self.kept is None:
            return
        id, identity = renamed(query.id, PREFIX), trace.query.identity
        body = Body(input=_named(state.input, id), response=Raw(msgspec.json.encode(_answered(outcome, query, state))))
        await self.kept.put(
            id, body, tenant=identity.tenant, key=identity.key, route=query.route, previous=state.previous
        )

    # ------------------------------------------------------------------------------------------------ what is kept

    async def stored(self, id: str, tenant: str | None) -> Turn:
        """Read a response that `tenant` may see (None: any). Raises `Refused` (404)."""
        row = None if self.kept is None else await self.kept.get(id)
        if row is None or tenant not in (None, row.tenant):
            raise not_found(id, "response_id")
        return row

    async def delete(self, id: str, tenant: str | None) -> dict[str, Any]:
        """Delete a response that `tenant` may see; its trace stays. Raises `Refused` (404)."""
        await self.stored(id, tenant)
        assert self.kept is not None
        await self.kept.delete(id)
        return {"id": id, "object": "response.deleted", "deleted": True}

    async def inputs(
        self, id: str, tenant: str | None, *, limit: str = "20", order: str = "desc", after: str | None = None
    ) -> dict[str, Any]:
        """List the items that a response's own request sent. Raises `Refused`."""
        items = (await self.stored(id, tenant)).body.input
        if not re.fullmatch(r"\d{1,3}", limit) or not 1 <= int(limit) <= _INPUTS:
            raise Refused(400, f"limit must be a whole number from 1 to {_INPUTS}", param="limit")
        if order not in ("asc", "desc"):
            raise Refused(400, "order must be asc or desc", param="order")
        items = items if order == "asc" else items[::-1]
        if after is not None:
            at = next((i for i, item in enumerate(items) if item["id"] == after), None)
            if at is None:
                raise Refused(404, f"no item has the id {after[:200]!r}", param="after", code="not_found")
            items = items[at + 1 :]
        page = items[: int(limit)]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": "", "last_id": ""}
        return {"object": "list", "data": page, **ends, "has_more": len(page) < len(items)}


# ------------------------------------------------------------------------------------------------------------- reading


def _decoded(raw: Raw, name: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Refused(400, f"{name}: not valid JSON: {e}", code="invalid_json", param=name) from e


def _typed(given: dict[str, Any], name: str, kind: type[T] | Any, where: str = "") -> Any:
    try:
        return msgspec.convert(given.get(name), kind)
    except msgspec.ValidationError as e:
        raise of_validation(e, where + name) from e


def _wrong(where: str, text: str) -> Refused:
    return Refused(400, f"{where}: {text}", code="invalid_value", param=where)


def not_found(id: str, param: str) -> Refused:
    """Say that there is no such response for whoever asks."""
    text = f"no response {id[:200]!r} is kept: it was not stored, was deleted, is too old, or is not yours"
    return Refused(
        404, text, code="previous_response_not_found" if param != "response_id" else "not_found", param=param
    )


def _items(given: dict[str, Any]) -> list[Item]:
    found = given.get("input")
    if isinstance(found, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": found}]}]
    if found is None and not given.get("previous_response_id"):
        raise Refused(
            400, "input is missing: a text, or an array of items", code="missing_required_parameter", param="input"
        )
    items: list[Item] = msgspec.convert([] if found is None else _list_of_objects(found, "input"), list[dict[str, Any]])
    if not items and not given.get("previous_response_id"):
        raise Refused(400, "input: at least one item is needed", code="empty_array", param="input")
    return items


def _list_of_objects(value: Any, where: str) -> list[dict[str, Any]]:
    try:
        return msgspec.convert(value, list[dict[str, Any]])
    except msgspec.ValidationError as e:
        raise of_validation(e, where) from e


def _kind(item: Item) -> str:
    return str(item.get("type") or ("message" if "role" in item else ""))


def _id(item: Item) -> str:
    return str(item.get("id") or "")


def _resolved(item: Item, referred: dict[str, Turn], i: int) -> Item:
    """Return the item that a reference names; any other as it is."""
    if _kind(item) != "item_reference":
        return item
    found = _OWN_ITEM.fullmatch(_id(item))
    row = referred.get(found[1]) if found else None
    for known in () if row is None else (*row.body.input, *row.output):
        if known.get("id") == item["id"]:
            return known
    raise Refused(404, f"input[{i}]: no item {_id(item)[:200]!r} is kept", code="not_found", param=f"input[{i}].id")


class _Messages:
    """Messages of the chat format, made of items."""

    def __init__(self, dropped: list[str]) -> None:
        self.made: list[dict[str, Any]] = []
        self._dropped = dropped

    def instruct(self, instructions: Any) -> None:
        if isinstance(instructions, str):
            self.made.append({"role": "system", "content": instructions})
            return
        for i, item in enumerate(_list_of_objects(instructions, "instructions")):
            self.take(item, f"instructions[{i}]")

    def take(self, item: Item, where: str) -> None:
        """Add one item."""
        match _kind(item):
            case "message":
                self._message(item, where)
            case "function_call" | "custom_tool_call":
                self._call(item, where)
            case "function_call_output" | "custom_tool_call_output":
                content = self._content(item.get("output"), f"{where}.output", one="")
                id = _word(item, "call_id", where)
                self.made.append({"role": "tool", "tool_call_id": id, "content": content})
            case "reasoning":
                self._reasoning(item, where)
            case "":
                raise _wrong(where, "an item needs a type, or a role")
            case other:
                self._dropped.append(f"{where} ({other[:40]})")

    def _message(self, item: Item, where: str) -> None:
        role = item.get("role")
        if role not in ("user", "assistant", "system", "developer"):
            raise _wrong(f"{where}.role", "must be user, assistant, system or developer")
        content = self._content(item.get("content"), f"{where}.content", one="" if role == "assistant" else None)
        if item.get("phase") is not None:
            self._dropped.append(f"{where}.phase")
        if role != "assistant":
            self.made.append({"role": role, "content": content})
            return
        message = self._assistant(new=self._last.get("content") is not None and not self._last.get("tool_calls"))
        if message.get("content") is None:
            message["content"] = content
        else:  # said after a tool call: it stays in front of the results
            message["content"] = [*_parts(message["content"]), *_parts(content)]

    def _call(self, item: Item, where: str) -> None:
        call: dict[str, Any] = {"id": _word(item, "call_id", where)}
        name = _word(item, "name", where)
        if _kind(item) == "function_call":
            call |= {"type": "function", "function": {"name": name, "arguments": _word(item, "arguments", where)}}
        else:
            call |= {"type": "custom", "custom": {"name": name, "input": _word(item, "input", where)}}
        self._assistant().setdefault("tool_calls", []).append(call)

    def _reasoning(self, item: Item, where: str) -> None:
        summary = _list_of_objects(item.get("summary") or [], f"{where}.summary")
        content = _list_of_objects(item.get("content") or [], f"{where}.content")
        text = "".join(str(p.get("text") or "") for p in summary or content)
        sealed = str(item.get("encrypted_content") or "")
        block: dict[str, Any] | None = None
        if sealed.startswith(THINKING):
            block = {"type": "thinking", "thinking": text, "signature": sealed.removeprefix(THINKING)}
        elif sealed.startswith(REDACTED):
            block = {"type": "redacted_thinking", "data": sealed.removeprefix(REDACTED)}
        elif sealed:
            self._dropped.append(f"{where}.encrypted_content")
        if block is None and not text:
            return
        message = self._assistant(new=self._last.get("content") is not None and not self._last.get("tool_calls"))
        if text:
            message["reasoning_content"] = message.get("reasoning_content", "") + text
        if block is not None:
            message.setdefault("thinking_blocks", []).append(block)

    @property
    def _last(self) -> dict[str, Any]:
        return self.made[-1] if self.made and self.made[-1]["role"] == "assistant" else {}

    def _assistant(self, *, new: bool = False) -> dict[str, Any]:
        """Return the assistant message that is under way, or a new one."""
        if new or not self._last:
            self.made.append({"role": "assistant", "content": None})
        return self.made[-1]

    def _content(self, content: Any, where: str, *, one: str | None) -> str | list[dict[str, Any]]:
        """Turn parts into chat's; texts alone become one text, joined by `one` (None: only a single one does)."""
        if isinstance(content, str):
            return content
        parts = [self._part(p, f"{where}[{i}]") for i, p in enumerate(_list_of_objects(content, where))]
        parts = [p for p in parts if p]
        if all(set(p) == {"type", "text"} for p in parts) and (one is not None or len(parts) == 1):
            return (one or "").join(p["text"] for p in parts)
        return parts

    def _part(self, part: dict[str, Any], where: str) -> dict[str, Any]:
        match part.get("type"):
            case "input_text" | "output_text" | "text" | "summary_text":
                out: dict[str, Any] = {"type": "text", "text": _word(part, "text", where)}
            case "refusal":
                out = {"type": "text", "text": _word(part, "refusal", where)}
            case "input_image" if part.get("image_url"):
                image = {"url": _word(part, "image_url", where)}
                out = {"type": "image_url", "image_url": {**image, **_only(part, "detail")}}
            case "input_image" | "input_file" if set(part) & {"file_id", "file_data", "file_url"}:
                out = {"type": "file", "file": _only(part, "file_id", "file_data", "file_url", "filename")}
            case "input_image" | "input_file":
                raise _wrong(where, "needs image_url, file_data, file_url or file_id")
            case "input_audio":
                out = {"type": "input_audio", "input_audio": part.get("input_audio")}
            case str() as other:
                self._dropped.append(f"{where} ({other[:40]})")
                return {}
            case _:
                raise _wrong(where, "a part needs a type")
        return {**out, **_only(part, "cache_control")}


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []


def _only(part: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: part[name] for name in names if part.get(name) is not None}


def _word(item: Item, name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise Refused(400, f"{where}.{name}: expected a text", code="invalid_type", param=f"{where}.{name}")
    return value


def _options(given: dict[str, Any], chat: dict[str, Any], dropped: list[str]) -> None:
    """Translate what is not the conversation."""
    tools = []
    for i, tool in enumerate(_list_of_objects(given.get("tools") or [], "tools")):
        kind = str(tool.get("type"))
        if kind in ("function", "custom"):
            tools.append(_tool(tool, kind, f"tools[{i}]", dropped))
        elif _NOT_RUN.fullmatch(kind):
            dropped.append(f"tools[{i}] ({kind[:40]})")
        else:
            tools.append(tool)
    if tools:
        chat["tools"] = tools
    choice = given.get("tool_choice")
    if choice is not None and (tools or choice == "none"):
        made = _choice(choice)
        if made is None:
            dropped.append("tool_choice")
        elif tools:
            chat["tool_choice"] = made
    elif choice not in (None, "auto"):
        dropped.append("tool_choice")
    text = _typed(given, "text", dict[str, Any] | None) or {}
    if format := _typed(text, "format", dict[str, Any] | None, "text."):
        kind = format.get("type")
        if kind == "json_schema":
            schema = {k: v for k, v in format.items() if k != "type" and v is not None}
            chat["response_format"] = {"type": kind, "json_schema": schema}
        elif kind == "json_object":
            chat["response_format"] = {"type": kind}
        elif kind != "text":
            raise _wrong("text.format.type", "must be text, json_object or json_schema")
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    dropped += [f"text.{k}" for k, v in text.items() if k not in ("format", "verbosity") and v is not None]
    reasoning = _typed(given, "reasoning", dict[str, Any] | None) or {}
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    for name, value in reasoning.items():
        # Whatever summary there is, is shown: only its kind cannot be asked for.
        if name != "effort" and value not in (None, "auto"):
            dropped.append(f"reasoning.{name}")
    if (most := _typed(given, "max_output_tokens", int | None)) is not None:
        chat["max_completion_tokens"] = most
    logprobs = False
    for i, wanted in enumerate(_typed(given, "include", list[str] | None) or []):
        if wanted == "message.output_text.logprobs":
            logprobs = True
        elif wanted != "reasoning.encrypted_content":  # that is always given
            dropped.append(f"include[{i}] ({wanted[:60]})")
    if top := _typed(given, "top_logprobs", int | None):
        logprobs, chat["top_logprobs"] = True, top
    if logprobs:
        chat["logprobs"] = True


def _tool(tool: dict[str, Any], kind: str, where: str, dropped: list[str]) -> dict[str, Any]:
    inner = {"name": _word(tool, "name", where), **_only(tool, "description")}
    if kind == "function":
        inner |= _only(tool, "parameters", "strict")
    elif isinstance(format := tool.get("format"), dict):
        grammar = {k: v for k, v in format.items() if k != "type"}
        inner["format"] = {"type": "grammar", "grammar": grammar} if format.get("type") == "grammar" else format
    known = {"type", "name", "description", "parameters", "strict", "format", "cache_control"}
    dropped += [f"{where}.{k}" for k, v in tool.items() if k not in known and v not in _IDLE]
    return {"type": kind, kind: inner, **_only(tool, "cache_control")}


def _choice(choice: Any) -> Any:
    """Translate ``tool_choice``; None where chat has no place for it."""
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise _wrong("tool_choice", "expected a text or an object")
    kind = choice.get("type")
    if kind in ("function", "custom"):
        return {"type": kind, kind: {"name": _word(choice, "name", "tool_choice")}}
    if kind != "allowed_tools":
        return None
    named = _list_of_objects(choice.get("tools"), "tool_choice.tools")
    tools = [{"type": t["type"], t["type"]: _only(t, "name")} for t in named if t.get("type") in ("function", "custom")]
    if len(tools) < len(named):
        return None
    return {"type": kind, kind: {"mode": choice.get("mode", "auto"), "tools": tools}}


def _named(items: list[Item], id: str) -> list[Item]:
    """Give each item of a request an id, and each message parts, as they are listed."""
    key, out = id.removeprefix(PREFIX), []
    for i, item in enumerate(items):
        kind = _kind(item)
        item = {**item, "type": kind, "id": f"item_{key}_i{i}"}
        if kind == "message" and isinstance(text := item.get("content"), str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            more: dict[str, Any] = {"annotations": []} if part == "output_text" else {}
            item["content"] = [{"type": part, "text": text, **more}]
        out.append(item)
    return out


# ------------------------------------------------------------------------------------------------------------- writing


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached_input, "cache_write_tokens": tokens.cache_write},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def _object(query: Query, state: State, *, status: str, model: str, output: list[Item]) -> dict[str, Any]:
    """Write a Response that is not answered yet."""
    id = renamed(query.id, PREFIX)
    return {
        "id": id,
        "object": "response",
        "created_at": _made(id),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": output,
        "usage": None,
        **_ECHO,
        **state.echo,
        "store": state.keep,
    }


def _made(id: str) -> int:
    """When a response was begun, in Unix seconds: its id begins with it."""
    try:
        return int(id.removeprefix(PREFIX)[:12], 16) // 1000
    except ValueError:
        return int(time.time())


def _ended(object: dict[str, Any], output: Output, tokens: Tokens | None) -> dict[str, Any]:
    """Write the rest of a Response that is answered."""
    why = output.incomplete
    if why:
        object |= {"status": "incomplete", "incomplete_details": {"reason": why}}
    else:
        object |= {"status": "completed", "completed_at": int(time.time())}
    object["usage"] = None if tokens is None else _usage(tokens)
    return object


def _answered(outcome: Outcome, query: Query, state: State) -> dict[str, Any]:
    """Write the whole object of an answer, streamed or not."""
    if state.stream is not None:
        output = state.stream.settled()
    else:
        output = Output(renamed(query.id, PREFIX).removeprefix(PREFIX))
        reply = msgspec.json.decode(outcome.reply or wire.completion(outcome, id=query.id, created=0))
        for choice in reply.get("choices") or ():
            for _ in output.choice(choice, "message"):
                pass
        for _ in output.end():
            pass
    made = _object(query, state, status="completed", model=outcome.model, output=output.items)
    return _ended(made, output, outcome.tokens)


class _Events(Writer):
    """Writes a stream."""

    def __init__(self, query: Query, state: State) -> None:
        self._query, self._state = query, state
        self._n = 0
        self._begun = False
        self._model = query.route
        self._output = Output(renamed(query.id, PREFIX).removeprefix(PREFIX))
        self._tail: list[Event] | None = None
        state.stream = self

    def settled(self) -> Output:
        """Say that nothing more comes, and return what there is; the events that tell of it go out by `close`."""
        if self._tail is None:
            self._tail = list(self._output.end())
        return self._output

    def feed(self, events: bytes) -> bytes:
        out = []
        for event in events.split(b"\n\n"):
            if not event.startswith(b"data: "):
                out.append(event + b"\n\n" if event else b"")
                continue
            chunk = msgspec.json.decode(event[6:])
            out.append(self._begin(chunk.get("model") or self._model))
            for choice in chunk.get("choices") or ():
                out.append(self._write(self._output.choice(choice)))
        return b"".join(out)

    def close(self, outcome: Outcome) -> bytes:
        begun = self._begin(outcome.model or self._model)
        made = _answered(outcome, self._query, self._state)
        tail, self._tail = self._tail or [], []
        return begun + self._write([*tail, {"type": f"response.{made['status']}", "response": made}])

    def broken(self, refused: Refused) -> bytes:
        begun = self._begin(self._model)
        items = [{**i, "status": "incomplete"} if i.get("status") == "in_progress" else i for i in self._output.items]
        made = _object(self._query, self._state, status="failed", model=self._model, output=items)
        made["store"] = False
        code = "rate_limit_exceeded" if refused.status == 429 else "server_error"
        made["error"] = {"code": code, "message": refused.message}
        error = {"type": "error", "code": refused.code, "message": refused.message, "param": refused.param}
        return begun + self._write([error, {"type": "response.failed", "response": made}])

    def _begin(self, model: str) -> bytes:
        self._model = model
        if self._begun:
            return b""
        self._begun = True
        made = _object(self._query, self._state, status="in_progress", model=model, output=[])
        kinds = ("response.created", "response.in_progress")
        return self._write([{"type": kind, "response": made} for kind in kinds])

    def _write(self, events: Iterable[Event]) -> bytes:
        out = []
        for event in events:
            event["sequence_number"] = self._n
            self._n += 1
            out.append(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event)))
        return b"".join(out)
