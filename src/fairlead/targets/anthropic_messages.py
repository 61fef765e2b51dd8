"""Targets that speak Anthropic's Messages format. The request is translated from the OpenAI chat format and the reply back to it.

Translated: system and developer messages (joined, in order, as the system prompt), text, pictures and files (data URLs as base64 or text, others by
URL or id), tools and tool choice, tool calls and results (those of one turn begin the next, whatever came between), thinking with its signed blocks
(see `signed`), ``cache_control``, ``reasoning_effort``, ``response_format`` with a schema, ``strict``, ``stop``, sampling, limits, ``user``,
``service_tier``; stop reasons, token counts, and streamed events. What a model accepts of this is `claude`'s business.

What would be answered with a 400 is not sent: blank text, ids of calls in other alphabets, more than four marks for the cache, an answer begun
where a model takes none. A tool call without its result, or a result without its call, is refused here with its id.

Not translatable: ``n`` above 1, ``logprobs``, ``seed``, ``logit_bias``, penalties and the like. What is left out is named in `Outcome.dropped`, and
before the first event of a stream.

If an upstream refuses signed thinking (it was another account's, or the conversation before it has changed), the call is made once more
without any. `MessagesFormat` holds all this for other ways to reach the same format: a member says where and how to send.

Cost: about 10 µs to translate a short request (2 µs a message more), 4 µs a streamed event beside the network client's own.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from time import perf_counter
from typing import Any, ClassVar, Final, NamedTuple, Protocol, Self

import msgspec
from msgspec import Raw, Struct
from yarl import URL

from fairlead.errors import TargetError
from fairlead.secret import checked, reveal
from fairlead.targets import claude, signed, sse, upstream, wire
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Tokens

NO_SAMPLING: Final = "2026-10-21"
"""From this version of the API on, sampling parameters are refused for every model."""
_MARKS: Final = 4
"""How many marks for the cache a request may have."""
_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    # A turn with tools that the provider runs, cut off to be gone on with: it is not whole.
    "pause_turn": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TRANSLATED: Final = frozenset(
    {
        *("messages", "model", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "stop"),
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "thinking", "reasoning_effort"),
        *("response_format", "user", "safety_identifier", "metadata", "service_tier", "cache_control"),
    }
)
# Values that ask for nothing: leaving these out changes no answer.
_IDLE: Final[dict[str, Any]] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "store": False,
    "modalities": ["text"],
    "verbosity": "medium",
}
_IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_FILES: Final = ("application/pdf",)
_TEXTS: Final = ("application/json", "application/xml", "application/yaml", "application/x-yaml", "application/csv")
_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OTHER: Final = re.compile(r"[^a-zA-Z0-9_-]")
_SERVED: Final = re.compile(r".+_\d{8}")
"""Types of tools that the provider knows or runs, such as ``web_search_20250305``."""
_THOUGHTS: Final = ("thinking", "redacted_thinking")
_ABOUT_THINKING: Final = re.compile(
    r"signature|thinking.{0,40}block|redacted_thinking|reasoning.?content", re.IGNORECASE
)


class MessagesFormat(Driver):
    """What is behind Anthropic's format, wherever it is served and however it is spelled.

    A member has `model`, `like`, `max_tokens`, `version` and an open `_upstream`, and says where to send (`_prepare`). One whose format differs
    replaces `_translate`, `_thinks`, `_read`, `_reader` and `_refusal` too.
    """

    remote: ClassVar[bool] = True
    provider: ClassVar[str]
    """Who signs the thinking, in its marks."""
    model: str
    like: str | None
    max_tokens: int
    version: str
    _secrets: tuple[str, ...] = ()
    _upstream: upstream.Upstream | None = None

    @abstractmethod
    async def _prepare(self, request: dict[str, Any], *, streaming: bool) -> tuple[str | URL, dict[str, str], bytes]:
        """Return (URL, headers, body) for a translated request, which has no ``stream`` yet.

        Raises:
            TargetError: if no credentials can be had.
        """

    @property
    def signer(self) -> str:
        """Whose mark its thinking bears."""
        return signed.signer(self.provider, self.model)

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        fields = {k: msgspec.json.decode(v) for k, v in wire.fields(call, query).items()}
        request, dropped = self._translate(fields)
        try:
            return await self._send(request, dropped, query, sink)
        except TargetError as e:
            failure = e.failure
            if failure.status != 400 or not _ABOUT_THINKING.search(failure.message) or not self._thinks(request):
                raise
        request, dropped = self._translate(fields, bare=True)
        outcome = await self._send(request, dropped, query, sink)
        return msgspec.structs.replace(outcome, retries=1)

    async def _send(self, request: dict[str, Any], dropped: list[str], query: Query, sink: Sink | None) -> Outcome:
        if self._upstream is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        url, headers, body = await self._prepare(request, streaming=sink is not None)
        start = perf_counter()
        told = tuple(dict.fromkeys(dropped))
        if sink is None:
            reply = await self._upstream.post(url, headers, body)
            if reply.status != 200:
                raise TargetError(self._refusal(*reply))
            return msgspec.structs.replace(self._read(reply.body, query), dropped=told)
        async with self._upstream.stream(url, headers, body) as streaming:
            if streaming.status != 200:
                raise TargetError(self._refusal(streaming.status, streaming.headers, await streaming.head()))
            reader = self._reader(query, start)
            first = wire.dropped(told)
            async for chunk in streaming.chunks():
                if events := reader.feed(chunk):
                    await sink(first + events)
                    first = b""
                if reader.done:
                    break
            reader.close()
            await streaming.drain()
            return msgspec.structs.replace(reader.outcome(), dropped=told)

    def _translate(self, fields: dict[str, Any], *, bare: bool = False) -> tuple[dict[str, Any], list[str]]:
        with refusing("Anthropic's"):
            return translate(
                fields,
                model=self.model,
                max_tokens=self.max_tokens,
                most=self.profile.max_output_tokens,
                like=self.like,
                signer=self.signer,
                sampling=self.version < NO_SAMPLING,
                bare=bare,
            )

    def _thinks(self, request: dict[str, Any]) -> bool:
        """Whether a translated request holds thinking, or asks for it."""
        if (request.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
            return True
        return any(b["type"] in _THOUGHTS for t in request["messages"] for b in t["content"])

    def _read(self, body: bytes, query: Query) -> Outcome:
        return read(body, id=query.id, signer=self.signer, secrets=self._secrets)

    def _reader(self, query: Query, start: float) -> Reader:
        return StreamReader(
            id=query.id,
            created=int(time.time()),
            pass_usage=wire.wants_usage(query.body),
            start=start,
            signer=self.signer,
            secrets=self._secrets,
        )

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return refusal(status, headers, body, *self._secrets)


class Reader(Protocol):
    """Reads one stream and writes it as OpenAI chunks. Sans I/O."""

    done: bool

    def feed(self, read: bytes, /) -> bytes:
        """Take one read; return the chunks to pass on, possibly none."""

    def close(self) -> None:
        """Say that the stream has ended. Raises `TargetError` (``broken_stream``) if the answer has not."""

    def outcome(self) -> Outcome:
        """Sum up what was read."""


class AnthropicMessages(MessagesFormat):
    """A model behind ``POST {base_url}/v1/messages``.

    Args:
        name: what routes and traces call it.
        model: what the upstream calls it.
        base_url: without the version.
        api_key: a reference, ``${NAME}``; None sends no key.
        version: the ``anthropic-version`` header.
        max_tokens: where the request names none; the format insists on a number. A thinking budget comes on top.
        like: the Claude model whose rules it follows, such as ``claude-opus-5-5``, where `model` does not tell.
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        headers: sent with each call; values may be references too. Those that carry credentials must be.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a key that is written out, or a base_url that is not http(s).
    """

    provider: ClassVar[str] = "anthropic"

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
        like: str | None = None,
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
        self.like = like
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.headers = upstream.check_headers(headers)
        self.proxies_from_env = proxies_from_env
        self._headers: dict[str, str] = {}

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

    async def _prepare(self, request: dict[str, Any], *, streaming: bool) -> tuple[str | URL, dict[str, str], bytes]:
        body = msgspec.json.encode({**request, "stream": True} if streaming else request)
        return self.base_url.rstrip("/") + "/v1/messages", self._headers, body


# ----------------------------------------------------------------------------------------------------------- requests


@contextmanager
def refusing(whose: str) -> Iterator[None]:
    """Type what goes wrong while a request is put into `whose` format: the fault is the asker's (``bad_request``)."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        why = str(e) if type(e) is ValueError else f"{type(e).__name__}: {e}"
        message = f"the request cannot be put into {whose} format: {why}"[: upstream.MESSAGE_CHARACTERS]
        raise TargetError(Failure(kind="bad_request", message=message)) from e


def translate(
    fields: dict[str, Any],
    *,
    model: str,
    max_tokens: int,
    most: int | None = None,
    like: str | None = None,
    signer: str = "",
    sampling: bool = True,
    files: Collection[str] = _FILES,
    served: bool = True,
    unmarked: bool = True,
    bare: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Return (Anthropic's request, the names of what it has no place for).

    `max_tokens` holds where the request names none, `most` is the model's limit, `like` names the model whose rules hold. `sampling`: the version
    of the API takes sampling parameters. `files` are types of files taken beside text. `served`: the provider runs tools of its own. Thinking
    that `signer` marked is sent, with `unmarked` also what nobody did; with `bare` none is.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if the request is not in OpenAI's chat format, or has no counterpart.
    """
    rules = claude.traits(like or model)
    if not sampling:
        rules = msgspec.structs.replace(rules, sampling="none")
    said = Conversation(
        fields["messages"], signer=signer, unmarked=unmarked, bare=bare or not rules.thinking, files=files
    )
    dropped = [k for k, v in fields.items() if k not in _TRANSLATED and v is not None and v != _IDLE.get(k, ...)]
    schema = _schema(fields.get("response_format"), rules, dropped)
    tools, choice, tool_marks = _tools(fields, said, rules, dropped, served=served)
    if said.begun and (not rules.prefill or schema is not None):
        said.withdraw()
    dropped += said.dropped
    if not said.turns:
        raise ValueError("there is no message with content but the system's; add one of the user's")
    forced = choice is not None and choice["type"] in ("any", "tool")
    fit = claude.fit(
        fields,
        rules,
        dropped,
        max_tokens=max_tokens,
        most=most,
        blocked=forced or said.begun,
        unthought=said.loop_without_thinking,
    )
    out: dict[str, Any] = {"model": model, "max_tokens": fit.max_tokens, "messages": said.turns}
    config = {"effort": fit.effort, "format": schema}
    given = {
        "system": said.system,
        "thinking": fit.thinking,
        "output_config": {k: v for k, v in config.items() if v is not None} or None,
        "temperature": fit.temperature,
        "top_p": fit.top_p,
        "top_k": fit.top_k,
        "stop_sequences": stops(fields.get("stop"), dropped),
        "metadata": _metadata(fields, dropped),
        "service_tier": _tier(fields.get("service_tier"), dropped),
        "tools": tools,
        "tool_choice": choice,
        "cache_control": None if fields.get("cache_control") is None else _cached(fields["cache_control"]),
    }
    out.update({k: v for k, v in given.items() if v is not None and v != []})
    marks = tool_marks + said.system_marks + said.turn_marks
    room = _MARKS - ("cache_control" in out)
    for name, block in marks[:-room]:
        # The later a mark, the more it covers.
        del block["cache_control"]
        dropped.append(f"{name}.cache_control")
    return out, dropped


class Conversation:
    """The messages in Anthropic's shape: system blocks, and turns that alternate, each with at least one block.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if a message has no counterpart, or a tool call no result.
    """

    __slots__ = (
        "_bare", "_files", "_open", "_signer", "_taken", "_unmarked", "begun", "calls", "dropped", "last", "system", "system_marks", "turn_marks", "turns",
    )  # fmt: skip

    def __init__(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        signer: str,
        unmarked: bool,
        bare: bool,
        files: Collection[str],
    ) -> None:
        self._signer, self._unmarked, self._bare, self._files = signer, unmarked, bare, files
        self._open: dict[str, str] = {}
        """Calls that have no result yet: their ids -> ids as they are sent."""
        self._taken: set[str] = set()
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []
        self.system_marks: list[tuple[str, dict[str, Any]]] = []
        self.turn_marks: list[tuple[str, dict[str, Any]]] = []
        self.dropped: list[str] = []
        self.calls: dict[str, None] = {}
        """Names of the tools that were called."""
        self.begun = False
        """The last turn is the assistant's, to be gone on with."""
        self.last = len(messages) - 1
        for i, message in enumerate(messages):
            self._read(message, f"messages[{i}]")
        self._settled()
        if self.turns and self.turns[-1]["role"] == "assistant":
            self._begin()

    @property
    def loop_without_thinking(self) -> bool:
        """Whether results of tools are the last that was said, and the loop that they are of did not begin with thinking."""
        first = None
        for turn in reversed(self.turns):
            kinds = [b["type"] for b in turn["content"]]
            if turn["role"] == "assistant":
                first = kinds[0]
            elif "tool_result" not in kinds:
                break
        return (
            bool(self.turns)
            and self.turns[-1]["role"] == "user"
            and self.turns[-1]["content"][0]["type"] == "tool_result"
            and first not in _THOUGHTS
        )

    def _read(self, message: dict[str, Any], at: str) -> None:
        role = message["role"]
        if message.get("function_call"):
            raise ValueError(f"{at}.function_call is of an old format; use tool_calls")
        if role in ("system", "developer"):
            blocks = self._blocks(message.get("content"), at, self.system_marks, only=("text",))
            self.system += self._closed(blocks, message, at, self.system_marks)
        elif role == "tool":
            self._result(message, at)
        elif role == "user":
            blocks = self._blocks(message.get("content"), at, self.turn_marks)
            self._add("user", self._closed(blocks, message, at, self.turn_marks))
        elif role == "assistant":
            self._answer(message, at)
        else:
            raise ValueError(f"there is no role {role!r}")
        if message.get("name") and role != "tool":
            self.dropped.append(f"{at}.name")

    def _add(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})

    def _answer(self, message: dict[str, Any], at: str) -> None:
        if self.turns and self.turns[-1]["role"] == "user":
            self._settled()
        blocks = self._thinking(message, at)
        said = self._blocks(message.get("content"), at, self.turn_marks, only=("text", "refusal"))
        if not said and message.get("refusal"):
            said = [{"type": "text", "text": message["refusal"]}]
        uses = [self._use(c, f"{at}.tool_calls[{j}]") for j, c in enumerate(message.get("tool_calls") or ())]
        blocks += self._closed(said + uses, message, at, self.turn_marks)
        if message.get("audio"):
            self.dropped.append(f"{at}.audio")
        self._add("assistant", blocks)

    def _thinking(self, message: dict[str, Any], at: str) -> list[dict[str, Any]]:
        blocks = message.get("thinking_blocks") or ()
        if not blocks and message.get("reasoning_content"):
            self.dropped.append(f"{at}.reasoning_content")
        if self._bare and blocks:
            self.dropped.append(f"{at}.thinking_blocks")
            return []
        taken = signed.take(blocks, self._signer, unmarked=self._unmarked)
        self.dropped += taken.left_out
        return taken.blocks

    def _use(self, call: dict[str, Any], at: str) -> dict[str, Any]:
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        try:
            fields = msgspec.json.decode(arguments)
        except msgspec.DecodeError:
            fields = None
        if not isinstance(fields, dict):
            # A model wrote what is no object, or was cut short: the conversation must go on.
            self.dropped.append(f"{at}.function.arguments")
            fields = {"arguments": arguments}
        self.calls[function["name"]] = None
        return {"type": "tool_use", "id": self._new_id(call["id"]), "name": function["name"], "input": fields}

    def _new_id(self, id: str) -> str:
        """Return the call's id in the alphabet that Anthropic takes, and once only."""
        base = (
            id
            if _ID.fullmatch(id)
            else _OTHER.sub("_", id)[:47] + "_" + blake2b(id.encode(), digest_size=8).hexdigest()
        )
        new, n = base, 1
        while new in self._taken:
            n += 1
            new = f"{base[:56]}_{n}"
        if id in self._open:
            raise ValueError(f"two tool calls side by side have the id {id!r}")
        self._taken.add(new)
        self._open[id] = new
        return new

    def _result(self, message: dict[str, Any], at: str) -> None:
        id = message["tool_call_id"]
        if id not in self._open:
            raise ValueError(f"{at} is the result of {id!r}, but no tool call before it has that id and lacks a result")
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._open.pop(id)}
        if content := self._blocks(message.get("content"), at, self.turn_marks):
            block["content"] = content
        if message.get("is_error"):
            block["is_error"] = True
        if mark := message.get("cache_control"):
            block["cache_control"] = _cached(mark)
            self.turn_marks.append((at, block))
        if self.turns and self.turns[-1]["role"] == "user":
            # Results stand first, whatever was said between.
            content = self.turns[-1]["content"]
            n = sum(b["type"] == "tool_result" for b in content)
            content.insert(n, block)
        else:
            self._add("user", [block])

    def _settled(self) -> None:
        """Make sure that every call so far has its result."""
        for id in self._open:
            raise ValueError(f"the tool call {id!r} has no result; add a message of role tool with its tool_call_id")

    def _begin(self) -> None:
        """See to a last turn that is the assistant's: it ends in text, and not in white space."""
        content = self.turns[-1]["content"]
        if content[-1]["type"] != "text":
            self.withdraw()
            return
        content[-1]["text"] = content[-1]["text"].rstrip()
        self.begun = True

    def withdraw(self) -> None:
        """Take the last turn back, where it is the assistant's and cannot be gone on with."""
        gone = {id(b) for b in self.turns.pop()["content"]}
        self.turn_marks = [m for m in self.turn_marks if id(m[1]) not in gone]
        self.dropped.append(f"messages[{self.last}]")
        self.begun = False

    def _closed(
        self, blocks: list[dict[str, Any]], message: dict[str, Any], at: str, marks: list[tuple[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Put a whole message's mark for the cache on its last block."""
        if mark := message.get("cache_control"):
            if not blocks:
                self.dropped.append(f"{at}.cache_control")
            elif "cache_control" not in blocks[-1]:
                blocks[-1]["cache_control"] = _cached(mark)
                marks.append((at, blocks[-1]))
        return blocks

    def _blocks(
        self,
        content: Any,
        at: str,
        marks: list[tuple[str, dict[str, Any]]],
        *,
        only: tuple[str, ...] = (),
    ) -> list[dict[str, Any]]:
        """Translate content, blank text left out. Of parts not in `only`, where it is given, their names are kept."""
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        out: list[dict[str, Any]] = []
        for j, part in enumerate(content or ()):
            where = f"{at}.content[{j}]"
            if only and part.get("type", "text") not in only:
                self.dropped.append(where)
                continue
            block = self._block(part, where)
            mark = part.get("cache_control")
            if block["type"] == "text" and not block["text"].strip():
                if mark:
                    self.dropped.append(f"{where}.cache_control")
                continue
            if mark:
                block["cache_control"] = _cached(mark)
                marks.append((where, block))
            out.append(block)
        return out

    def _block(self, part: dict[str, Any], at: str) -> dict[str, Any]:
        match part.get("type", "text"):
            case "text":
                return {"type": "text", "text": part["text"]}
            case "refusal":
                return {"type": "text", "text": part["refusal"]}
            case "image_url":
                image = part["image_url"]
                if isinstance(image, str):
                    image = {"url": image}
                if image.get("detail") not in (None, "auto"):
                    self.dropped.append(f"{at}.image_url.detail")
                return _image(image["url"])
            case "file":
                return _file(part["file"], self._files)
        raise ValueError(f"a part of type {part.get('type')!r} has no counterpart")


class _Data(NamedTuple):
    media_type: str
    base64: str

    def text(self) -> str:
        try:
            return base64.b64decode(self.base64, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as e:
            raise ValueError(f"a file of type {self.media_type} must be UTF-8 in base64") from e


def data_url(url: str) -> _Data:
    """Take a data URL apart. Raises `ValueError` if it is not base64."""
    head, _, data = url.partition(",")
    media_type, _, encoding = head.removeprefix("data:").partition(";")
    if encoding.rpartition(";")[2] != "base64":
        raise ValueError("a data URL must be base64")
    return _Data("image/jpeg" if media_type == "image/jpg" else media_type.lower(), data)


def _image(url: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        if not url.startswith(("https://", "http://")):
            raise ValueError("a picture is given by an http(s) or a data URL")
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = data_url(url)
    if media_type not in _IMAGES:
        raise ValueError(f"a picture of type {media_type} has no counterpart; it takes {', '.join(_IMAGES)}")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _file(file: dict[str, Any], files: Collection[str]) -> dict[str, Any]:
    source: dict[str, Any]
    if file.get("file_data"):
        url = file["file_data"]
        if not url.startswith("data:"):
            # Bare base64, as some clients send a PDF.
            url = f"data:application/pdf;base64,{url}"
        data = data_url(url)
        if data.media_type in _IMAGES:
            return _image(url)
        if data.media_type in files:
            source = {"type": "base64", "media_type": data.media_type, "data": data.base64}
        elif data.media_type.startswith("text/") or data.media_type in _TEXTS:
            source = {"type": "text", "media_type": "text/plain", "data": data.text()}
        else:
            raise ValueError(f"a file of type {data.media_type} has no counterpart; it takes PDF, text and pictures")
    elif file.get("file_url"):
        source = {"type": "url", "url": file["file_url"]}
    elif file.get("file_id"):
        source = {"type": "file", "file_id": file["file_id"]}
    else:
        raise ValueError("a file needs file_data, file_url or file_id")
    title = {"title": file["filename"]} if file.get("filename") else {}
    return {"type": "document", "source": source, **title}


def _cached(mark: dict[str, Any]) -> dict[str, Any]:
    if mark["type"] != "ephemeral":
        raise ValueError(f"there is no cache_control of type {mark['type']!r}")
    return {"type": "ephemeral", "ttl": mark["ttl"]} if mark.get("ttl") else {"type": "ephemeral"}


def _schema(wish: dict[str, Any] | None, rules: claude.Traits, dropped: list[str]) -> dict[str, Any] | None:
    if wish is None or wish["type"] == "text":
        return None
    if wish["type"] != "json_schema" or not rules.schemas:
        dropped.append("response_format")
        return None
    schema = claude.closed(wish["json_schema"]["schema"], dropped, where="response_format")
    return {"type": "json_schema", "schema": schema}


def _tools(
    fields: dict[str, Any], said: Conversation, rules: claude.Traits, dropped: list[str], *, served: bool
) -> tuple[list[dict[str, Any]], dict[str, Any] | None, list[tuple[str, dict[str, Any]]]]:
    """Return (tools, tool choice, marks for the cache)."""
    choice = fields.get("tool_choice")
    among: set[str] | None = None
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools") or choice
        among = {(t.get("function") or t)["name"] for t in allowed["tools"]}
        choice = allowed.get("mode", "auto")
    tools: list[dict[str, Any]] = []
    marks: list[tuple[str, dict[str, Any]]] = []
    for i, tool in enumerate(fields.get("tools") or ()):
        at = f"tools[{i}]"
        kind = tool.get("type", "function")
        if kind == "function":
            made = _function(tool["function"], rules, dropped, at)
        elif served and _SERVED.fullmatch(kind):
            made = {k: v for k, v in tool.items() if k != "cache_control"}
        else:
            dropped.append(at)
            continue
        if among is not None and made.get("name") not in among:
            continue
        if mark := tool.get("cache_control"):
            made["cache_control"] = _cached(mark)
            marks.append((at, made))
        tools.append(made)
    if not tools:
        if not said.calls:
            return [], None, []
        # Calls in the conversation need their tools, even if there are none any more.
        stubs = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in said.calls]
        return stubs, {"type": "none"}, []
    return tools, _choice(choice, tools, rules, dropped, parallel=fields.get("parallel_tool_calls")), marks


def _function(function: dict[str, Any], rules: claude.Traits, dropped: list[str], at: str) -> dict[str, Any]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    if function.get("strict"):
        if rules.schemas:
            schema = claude.closed(schema, dropped, where=f"{at}.function.parameters")
        else:
            dropped.append(f"{at}.function.strict")
    out = {"name": function["name"], "input_schema": {"type": "object", **schema}}
    if function.get("description"):
        out["description"] = function["description"]
    if function.get("strict") and rules.schemas:
        out["strict"] = True
    return out


def _choice(
    choice: Any, tools: list[dict[str, Any]], rules: claude.Traits, dropped: list[str], *, parallel: bool | None
) -> dict[str, Any] | None:
    out: dict[str, Any] | None
    match choice:
        case None:
            out = None
        case "auto" | "none":
            out = {"type": choice}
        case "required":
            out = {"type": "any"}
        case {"type": "function", "function": {"name": name}}:
            if all(t.get("name") != name for t in tools):
                raise ValueError(f"tool_choice names {name!r}, which is none of the tools")
            out = {"type": "tool", "name": name}
        case _:
            raise ValueError(f"tool_choice {choice!r} has no counterpart")
    if not rules.forced and out is not None and out["type"] in ("any", "tool"):
        dropped.append("tool_choice")
        out = {"type": "auto"}
    if parallel is False and (out or {}).get("type") != "none":
        out = {**(out or {"type": "auto"}), "disable_parallel_tool_use": True}
    return out


def stops(stop: str | list[str] | None, dropped: list[str]) -> list[str]:
    """Return the stop sequences but those of white space alone, which are refused."""
    given = [stop] if isinstance(stop, str) else stop or []
    dropped += [f"stop[{i}]" for i, s in enumerate(given) if not s.strip()]
    return [s for s in given if s.strip()]


def _metadata(fields: dict[str, Any], dropped: list[str]) -> dict[str, Any] | None:
    own = fields.get("metadata") or {}
    dropped += [f"metadata.{k}" for k in own if k != "user_id"]
    user = own.get("user_id") or fields.get("safety_identifier") or fields.get("user")
    return {"user_id": user} if user else None


def _tier(tier: str | None, dropped: list[str]) -> str | None:
    match tier:
        case None:
            return None
        case "auto" | "priority":
            return "auto"
        case "default" | "standard_only":
            return "standard_only"
    dropped.append("service_tier")
    return None


# ------------------------------------------------------------------------------------------------------------ replies


class _Reasoned(Struct):
    thinking_tokens: int | None = None


class _Kept(Struct):
    ephemeral_1h_input_tokens: int | None = None


class _Searched(Struct):
    web_search_requests: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _Reasoned | None = None
    cache_creation: _Kept | None = None
    server_tool_use: _Searched | None = None


class _Block(Struct):
    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class _Message(Struct):
    content: list[_Block]
    model: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: _Usage | None = None


class _Delta(Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


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
    request_id: str | None = None


_message = msgspec.json.Decoder(_Message)
_event = msgspec.json.Decoder(_Event)


def _tokens(usage: _Usage | None) -> Tokens | None:
    """Count as OpenAI does: Anthropic's `input_tokens` leaves out what the cache gave or took, OpenAI's holds it."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    thought, kept, searched = usage.output_tokens_details, usage.cache_creation, usage.server_tool_use
    extras = (kept.ephemeral_1h_input_tokens or 0) if kept is not None else 0
    if searched is not None:
        extras += searched.web_search_requests or 0
    return Tokens(
        input=usage.input_tokens + cached + written,
        cached_input=cached,
        cache_write=written,
        output=usage.output_tokens,
        reasoning=(thought.thinking_tokens or 0) if thought is not None else 0,
        extras=extras,
    )


def read(body: bytes, *, id: str, signer: str = "", secrets: Sequence[str] = ()) -> Outcome:
    """Read a whole message; its thinking is handed out with `signer`'s mark. Raises `TargetError` (``malformed``) if it is none."""
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        why = upstream.shorten(str(e), *secrets)
        failure = Failure(kind="malformed", message=f"the reply is not a message: {why}", status=200)
        raise TargetError(failure) from e
    text = "".join(b.text for b in message.content if b.type == "text")
    calls = [call(b.id, b.name, bytes(b.input).decode()) for b in message.content if b.type == "tool_use"]
    choice = wire.Choice(
        text=text,
        reasoning="".join(b.thinking for b in message.content if b.type == "thinking"),
        thinking_blocks=tuple(t for b in message.content if (t := _thought(b, signer)) is not None),
        tool_calls=Raw(msgspec.json.encode(calls)) if calls else None,
        finish=_finish(message.stop_reason),
        stop=message.stop_sequence,
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


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    """Write a tool call as OpenAI does."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _thought(block: _Block, signer: str) -> dict[str, Any] | None:
    if block.type == "thinking":
        return signed.marked({"type": "thinking", "thinking": block.thinking, "signature": block.signature}, signer)
    if block.type == "redacted_thinking":
        return signed.marked({"type": "redacted_thinking", "data": block.data}, signer)
    return None


def _finish(reason: str | None) -> str:
    return _FINISH.get(reason or "end_turn", "stop")


def refusal(status: int, headers: Mapping[str, str], body: bytes, *secrets: str) -> Failure:
    """Type an error, with the id that Anthropic's support asks for."""
    failure = upstream.refusal(status, headers, body, *secrets)
    try:
        id = msgspec.json.decode(body, type=_Named).request_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        id = None
    return identified(failure, id or headers.get("request-id"), *secrets)


class _Named(Struct):
    request_id: str | None = None


def identified(failure: Failure, id: str | None, *secrets: str) -> Failure:
    """Write a request's id into the failure's message, whole; it is the upstream's word, so no secret survives in it either."""
    if not id or id in failure.message:
        return failure
    return msgspec.structs.replace(
        failure, message=f"{failure.message} (request {upstream.shorten(id, *secrets)[:80]})"
    )


class StreamReader:
    """Reads one stream of events and writes it as OpenAI chunks. Sans I/O.

    A thinking block is handed out whole, with `signer`'s mark, when it is done; its text as it comes.

    Raises:
        TargetError: from `feed` and `close`: the upstream's own error, a malformed event, or a stream that stops too early.
    """

    def __init__(
        self,
        *,
        id: str,
        created: int,
        pass_usage: bool,
        start: float = 0.0,
        signer: str = "",
        secrets: Sequence[str] = (),
    ) -> None:
        self.pass_usage = pass_usage
        self.start = start
        self.signer = signer
        self.secrets = secrets
        self.done = False
        self._framer = sse.Framer()
        self._chunks = wire.Chunks(id=id, created=created, model="")
        self._role: dict[str, Any] = {"role": "assistant"}
        self._text: list[str] = []
        self._blocks: dict[int, _Block] = {}
        """Blocks of thinking that are under way."""
        self._calls: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, bytes] = {}
        """What a call's block began with, for upstreams that send its input at once."""
        self._usage = _Usage()
        self._reason: str | None = None
        self._stop: str | None = None
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
        for each in calls:
            each["function"]["arguments"] = each["function"]["arguments"] or "{}"
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
            case "content_block_stop":
                return self._end(event.index)
            case "message_delta":
                self._count(event.usage)
                if event.delta is not None and event.delta.stop_reason is not None:
                    self._reason, self._stop = event.delta.stop_reason, event.delta.stop_sequence
            case "message_stop":
                self.done = True
                out = self._chunks.delta(self._begin({}), finish=_finish(self._reason), stop=self._stop)
                tokens = _tokens(self._usage)
                return out + self._chunks.usage(wire.usage(tokens)) if self.pass_usage and tokens else out
            case "error":
                raise TargetError(identified(self._reported(bytes(event.error)), event.request_id, *self.secrets))
        # Whatever else there is (pings, kinds yet to come) carries nothing for the client.
        return b""

    def _open(self, index: int, block: _Block) -> bytes:
        match block.type:
            case "text" if block.text:
                return self._grow(index, _Delta(type="text_delta", text=block.text))
            case "thinking" | "redacted_thinking":
                self._blocks[index] = block
                if block.thinking:
                    return self._chunks.delta(self._begin({"reasoning_content": block.thinking}))
            case "tool_use":
                self._calls[index] = call(block.id, block.name, "")
                self._inputs[index] = bytes(block.input)
                n = len(self._calls) - 1
                return self._chunks.delta(self._begin({"tool_calls": [{"index": n, **self._calls[index]}]}))
        return b""

    def _grow(self, index: int, delta: _Delta) -> bytes:
        match delta.type:
            case "text_delta":
                self._text.append(delta.text)
                return self._chunks.delta(self._begin({"content": delta.text}))
            case "thinking_delta":
                if index in self._blocks:
                    self._blocks[index].thinking += delta.thinking
                return self._chunks.delta(self._begin({"reasoning_content": delta.thinking}))
            case "signature_delta" if index in self._blocks:
                self._blocks[index].signature += delta.signature
            case "input_json_delta" if index in self._calls:
                return self._argue(index, delta.partial_json)
        return b""

    def _end(self, index: int) -> bytes:
        if (block := self._blocks.pop(index, None)) is not None:
            return self._chunks.delta(self._begin({"thinking_blocks": [_thought(block, self.signer)]}))
        if index in self._calls and not self._calls[index]["function"]["arguments"]:
            begun = self._inputs[index]
            return self._argue(index, "{}" if begun == b"null" else begun.decode())
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

    def _count(self, usage: _Usage | None) -> None:
        """Take a count over: each is of all so far, so a later one replaces an earlier."""
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
            "billing_error": 402,
            "permission_error": 403,
            "not_found_error": 404,
            "request_too_large": 413,
            "timeout_error": 504,
        }.get(kind, 500)
        return upstream.refusal(status, {}, error, *self.secrets)
