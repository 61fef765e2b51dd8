"""Targets that speak Gemini's own format, ``models/{model}:generateContent``: requests are translated from the chat format and replies back to it.

Translated: system prompts, text, pictures, sound and files (data URLs as bytes, others by address), tools, tool choice, calls and results in parallel
(with their ids where the service knows ids), limits, sampling, ``n``, ``seed``, penalties, JSON and schemas, log-probabilities, effort and budgets of
thinking; finish reasons, blocked prompts, token counts of each kind, retry hints of errors.

Thought signatures stand on parts. Each becomes one thinking block, marked as `fairlead.targets.signed` says, with the place it stood at before the
signature: ``c0.`` the first call, ``t.`` the text. On the way back it is put there again. Gemini 3 answers 400 to a call without one in the turn that
is under way; a call that another model made gets the value that Google documents for this, so a session may move to Gemini within a tool loop.

What has no counterpart is named in `Outcome.dropped`. Cost: about 40 µs a call and 10 µs a streamed event beside the network client's own.
"""

from __future__ import annotations

import mimetypes
import re
import secrets as random_bits
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar, Final, Self
from urllib.parse import quote

import msgspec
import numpy as np
from msgspec import Raw, Struct
from msgspec.structs import replace

from fairlead.errors import TargetError
from fairlead.secret import checked, reveal
from fairlead.targets import signed, sse, upstream, vectors, wire
from fairlead.targets.anthropic_messages import data_url, refusing
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Tokens

NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Google's guide on thought signatures has clients send for a call that Gemini did not make."""
_PLACED: Final = re.compile(r"(c\d+|t)\.(.*)", re.DOTALL)
_GENERATION: Final = re.compile(r"gemini-(?:(\d+)(?:\.(\d+))?|(?:pro|flash|flash-lite)-latest)")
_BLOCKED: Final = frozenset(
    {
        *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
    }
)
_BROKEN: Final = frozenset(
    {
        *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"),
        *("MALFORMED_RESPONSE", "NO_IMAGE", "IMAGE_OTHER", "OTHER"),
    }
)
_SAME: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_TRANSLATED: Final = frozenset(
    {
        *_SAME,
        *("messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "tools"),
        *("tool_choice", "response_format", "reasoning_effort", "thinking"),
    }
)
# Values that ask for nothing: leaving these out changes no answer.
_IDLE: Final[dict[str, Any]] = {
    "parallel_tool_calls": True,
    "store": False,
    "logit_bias": {},
    "modalities": ["text"],
    "verbosity": "medium",
    "service_tier": "auto",
}
_STOPS: Final = 5
_EMBEDDED: Final = frozenset({"input", "model", "dimensions", "encoding_format"})
_BUDGET: Final = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
"""Thinking tokens for an effort, where a model takes budgets only; the last is the most that any but Pro takes."""
_MOST_OF_PRO: Final = 32768


class GeminiFormat(Driver):
    """What is behind Gemini's format, wherever it is served. A member says where to send; `model` is a name such as ``gemini-3-pro``."""

    remote: ClassVar[bool] = True
    provider: ClassVar[str]
    """Who signs the thoughts, in its marks."""
    call_ids: ClassVar[bool] = True
    """Whether the service knows ids of calls; else results are matched by name and order."""
    embeds: ClassVar[bool] = True
    """Whether it gives vectors, too."""
    model: str
    _secrets: tuple[str, ...] = ()
    _upstream: upstream.Upstream | None = None

    @abstractmethod
    async def _prepare(self, verb: str) -> tuple[str, dict[str, str]]:
        """Return (URL, headers) for ``generateContent`` or ``streamGenerateContent``.

        Raises:
            TargetError: if no credentials can be had.
        """

    @property
    def signer(self) -> str:
        """Whose mark its thoughts bear."""
        return signed.signer(self.provider, self.model)

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._upstream is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        if query.task == "embeddings":
            return await self._embed(self._upstream, call, query)
        fields = {k: msgspec.json.decode(v) for k, v in wire.fields(call, query).items()}
        with refusing("Gemini's"):
            request, dropped = translate(fields, model=self.model, signer=self.signer, call_ids=self.call_ids)
        told = tuple(dict.fromkeys(dropped))
        body = msgspec.json.encode(request)
        start = perf_counter()
        if sink is None:
            url, headers = await self._prepare("generateContent")
            reply = await self._upstream.post(url, headers, body)
            if reply.status != 200:
                raise TargetError(refusal(*reply, *self._secrets))
            return replace(read(reply.body, id=query.id, signer=self.signer, secrets=self._secrets), dropped=told)
        url, headers = await self._prepare("streamGenerateContent")
        async with self._upstream.stream(url + "?alt=sse", headers, body) as streaming:
            if streaming.status != 200:
                head = await streaming.head()
                raise TargetError(refusal(streaming.status, streaming.headers, head, *self._secrets))
            reader = StreamReader(
                id=query.id,
                created=int(time.time()),
                pass_usage=wire.wants_usage(query.body),
                start=start,
                signer=self.signer,
                secrets=self._secrets,
            )
            first = wire.dropped(told)
            async for chunk in streaming.chunks():
                if events := reader.feed(chunk):
                    await sink(first + events)
                    first = b""
            if events := reader.close():
                await sink(first + events)
            return replace(reader.outcome(), dropped=told)

    async def _embed(self, line: upstream.Upstream, call: Call, query: Query) -> Outcome:
        """Ask for vectors (``batchEmbedContents``). Texts only; what has no place is told."""
        if not self.embeds:
            raise TargetError(Failure(kind="bad_request", message=f"{self.name} gives no vectors"))
        fields = {k: msgspec.json.decode(v) for k, v in vectors.request(call, query, model=self.model).items()}
        texts = fields.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            message = f"{self.name} takes texts, not token numbers"
            raise TargetError(Failure(kind="bad_request", message=message))
        model = "models/" + self.model.removeprefix("models/")
        size = {} if fields.get("dimensions") is None else {"outputDimensionality": fields["dimensions"]}
        requests = [{"model": model, "content": {"parts": [{"text": t}]}, **size} for t in texts]
        url, headers = await self._prepare("batchEmbedContents")
        reply = await line.post(url, headers, msgspec.json.encode({"requests": requests}))
        if reply.status != 200:
            raise TargetError(refusal(*reply, *self._secrets))
        try:
            found = msgspec.json.decode(reply.body, type=_Vectors)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            why = upstream.shorten(str(e), *self._secrets)
            raise TargetError(
                Failure(kind="malformed", message=f"the reply holds no vectors: {why}", status=200)
            ) from e
        if len(found.embeddings) != len(texts):
            message = f"the reply holds {len(found.embeddings)} vectors for {len(texts)} inputs"
            raise TargetError(Failure(kind="malformed", message=message, status=200))
        tokens = _tokens(found.usage_metadata)
        written = vectors.written(
            [np.asarray(e.values, np.float32) for e in found.embeddings],
            model=self.model,
            tokens=0 if tokens is None else tokens.input,
            as_base64=fields.get("encoding_format") == "base64",
        )
        told = tuple(k for k in fields if k not in _EMBEDDED and fields[k] is not None)
        return Outcome(model=self.model, tokens=tokens, finish="stop", reply=written, dropped=told)


class Gemini(GeminiFormat):
    """A model of the Gemini API, behind ``POST {base_url}/models/{model}:generateContent``.

    Args:
        name: what routes and traces call it.
        model: what the upstream calls it.
        base_url: up to and with the version.
        api_key: a reference, ``${NAME}``; None sends no key.
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        headers: sent with each call; values may be references too. Those that carry credentials must be.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a key that is written out, or a base_url that is not http(s).
    """

    provider: ClassVar[str] = "gemini"

    @classmethod
    def example(cls) -> Self:
        """Of a server that is not there."""
        return cls(name="a", model="m", base_url="http://127.0.0.1:1")

    def __init__(
        self,
        *,
        name: str,
        model: str,
        base_url: str = "https://generativelanguage.googleapis.com/v1beta",
        api_key: str | None = None,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
        headers: dict[str, str] | None = None,
        proxies_from_env: bool = False,
    ) -> None:
        self.name = name
        self.model = model
        self.base_url = upstream.check_url(base_url)
        self.api_key = checked(api_key, path="$.api_key")
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.headers = upstream.check_headers(headers)
        self.proxies_from_env = proxies_from_env
        self._headers: dict[str, str] = {}

    async def start(self) -> None:
        """Read the secrets and open the connection pool. Raises `ConfigError` if a variable is unset."""
        headers, secrets = upstream.revealed(self.headers)
        headers["Content-Type"] = "application/json"
        if self.api_key is not None:
            key = reveal(self.api_key, path=f"$.targets.{self.name}.api_key")
            headers["x-goog-api-key"] = key
            secrets.append(key)
        self._headers, self._secrets = headers, tuple(secrets)
        self._upstream = await upstream.shared(proxies_from_env=self.proxies_from_env).__aenter__()

    async def stop(self) -> None:
        """Let go of the connection pool."""
        self._headers, self._secrets = {}, ()
        if self._upstream is not None:
            opened, self._upstream = self._upstream, None
            await opened.__aexit__()

    async def _prepare(self, verb: str) -> tuple[str, dict[str, str]]:
        model = quote(self.model.removeprefix("models/"), safe="")
        return f"{self.base_url.rstrip('/')}/models/{model}:{verb}", self._headers


# ----------------------------------------------------------------------------------------------------------- requests


def generation(model: str) -> tuple[int, int]:
    """Return the generation in a model's name, such as (2, 5); an alias like ``gemini-flash-latest`` is of the newest, other names of none."""
    match = _GENERATION.search(model)
    if match is None:
        return (0, 0)
    return (int(match[1]), int(match[2] or 0)) if match[1] else (99, 0)


def translate(
    fields: dict[str, Any], *, model: str, signer: str = "", call_ids: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """Return (Gemini's request, the names of what it has no place for).

    Thoughts that `signer` marked are sent; others are left out. `call_ids`: whether calls and results bear ids.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if the request is not in OpenAI's chat format.
    """
    said = _Conversation(fields["messages"], signer=signer, call_ids=call_ids, strict=generation(model) >= (3, 0))
    dropped = said.dropped
    dropped += [k for k, v in fields.items() if k not in _TRANSLATED and v is not None and v != _IDLE.get(k, ...)]
    out: dict[str, Any] = {"contents": said.contents}
    if said.system:
        out["systemInstruction"] = {"parts": said.system}
    if config := _generation_config(fields, model, dropped):
        out["generationConfig"] = config
    if fields.get("tools"):
        declared = [_declared(tool, f"tools[{i}]", dropped) for i, tool in enumerate(fields["tools"])]
        if functions := [d for d in declared if d is not None]:
            out["tools"] = [{"functionDeclarations": functions}]
            if (choice := _choice(fields.get("tool_choice"), dropped)) is not None:
                out["toolConfig"] = {"functionCallingConfig": choice}
    return out, dropped


class _Conversation:
    """Messages as Gemini's contents: the assistant is ``model``, results of tools are the user's."""

    __slots__ = ("_ids", "_names", "_order", "_signer", "_strict", "contents", "dropped", "system")

    def __init__(self, messages: Sequence[dict[str, Any]], *, signer: str, call_ids: bool, strict: bool) -> None:
        self._signer, self._ids, self._strict = signer, call_ids, strict
        self._names: dict[str, str] = {}
        self._order: dict[str, int] = {}
        self.system: list[dict[str, Any]] = []
        self.contents: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
        results: dict[int, list[dict[str, Any]]] = {}
        for i, message in enumerate(messages):
            at = f"messages[{i}]"
            if message.get("cache_control") is not None:
                self.dropped.append(f"{at}.cache_control")
            if message.get("name") and message["role"] != "tool":
                self.dropped.append(f"{at}.name")
            match message["role"]:
                case "system" | "developer":
                    self.system += self._parts(message.get("content"), at)
                case "user":
                    self._add("user", self._parts(message.get("content"), at))
                case "assistant":
                    self._add("model", self._answer(message, at, current=i > last_user))
                case "tool":
                    # Parallel results are one content, in the order of their calls: without ids that is what they are matched by.
                    if results:
                        self.contents.pop()
                    parts = self._result(message, at)
                    results.setdefault(self._order[message["tool_call_id"]], []).extend(parts)
                    self._add("user", [p for _, each in sorted(results.items()) for p in each])
                    continue
                case role:
                    raise ValueError(f"there is no role {role!r}")
            results = {}

    def _add(self, role: str, parts: list[dict[str, Any]]) -> None:
        if parts:
            self.contents.append({"role": role, "parts": parts})

    def _answer(self, message: dict[str, Any], at: str, *, current: bool) -> list[dict[str, Any]]:
        """Return the parts of an answer. `current`: it belongs to the turn that is under way, whose calls Gemini 3 wants signed."""
        taken = signed.take(message.get("thinking_blocks") or (), self._signer, unmarked=False)
        self.dropped += taken.left_out
        if message.get("reasoning_content") and not message.get("thinking_blocks"):
            self.dropped.append("reasoning_content")
        places: dict[str, str] = {}
        for block in taken.blocks:
            if (match := _PLACED.fullmatch(block.get("signature") or "")) is not None:
                places[match[1]] = match[2]
        texts = self._parts(message.get("content"), at)
        if "t" in places:
            # It may have come after the last text, on a part of its own.
            texts = texts or [{"text": ""}]
            texts[-1]["thoughtSignature"] = places["t"]
        calls = []
        for j, call in enumerate(message.get("tool_calls") or ()):
            function = call["function"]
            self._names[call["id"]], self._order[call["id"]] = function["name"], j
            arguments = msgspec.json.decode(function.get("arguments") or "{}")
            if not isinstance(arguments, dict):
                raise ValueError(f"{at}.tool_calls[{j}]: arguments must be an object")
            part: dict[str, Any] = {"functionCall": {"name": function["name"], "args": arguments}}
            if self._ids:
                part["functionCall"]["id"] = call["id"]
            if (signature := places.get(f"c{j}")) is not None:
                part["thoughtSignature"] = signature
            calls.append(part)
        if calls and current and self._strict and "thoughtSignature" not in calls[0]:
            calls[0]["thoughtSignature"] = NO_SIGNATURE
        return texts + calls

    def _result(self, message: dict[str, Any], at: str) -> list[dict[str, Any]]:
        id = message["tool_call_id"]
        if id not in self._names:
            raise ValueError(f"{at} answers a call {id!r} that no message before it makes")
        parts = self._parts(message.get("content"), at)
        text = "\n".join(p["text"] for p in parts if "text" in p)
        response: Any = None
        if message.get("is_error"):
            response = {"error": text}
        else:
            try:
                response = msgspec.json.decode(text)
            except msgspec.DecodeError:
                response = None
            if not isinstance(response, dict):
                response = {"output": text}
        result: dict[str, Any] = {"name": self._names[id], "response": response}
        if self._ids:
            result["id"] = id
        return [{"functionResponse": result}, *(p for p in parts if "text" not in p)]

    def _parts(self, content: Any, at: str) -> list[dict[str, Any]]:
        if content is None or content == "":
            return []
        if isinstance(content, str):
            return [{"text": content}]
        return [p for part in content if (p := self._part(part, at)) is not None]

    def _part(self, part: dict[str, Any], at: str) -> dict[str, Any] | None:
        if part.get("cache_control") is not None:
            self.dropped.append(f"{at}.cache_control")
        match part.get("type", "text"):
            case "text" | "refusal":
                text = part["text"] if part.get("type", "text") == "text" else part["refusal"]
                return {"text": text} if text else None
            case "image_url":
                image = part["image_url"]
                image = {"url": image} if isinstance(image, str) else image
                if image.get("detail") not in (None, "auto"):
                    self.dropped.append(f"{at}.image_url.detail")
                return _medium(image["url"])
            case "input_audio":
                sound = part["input_audio"]
                return {"inlineData": {"mimeType": f"audio/{sound['format']}", "data": sound["data"]}}
            case "file":
                file = part["file"]
                if not (file.get("file_data") or file.get("file_url")):
                    raise ValueError(f"{at}: a file by its id is only known where it was sent to")
                return _medium(file.get("file_data") or file["file_url"], file.get("filename"))
        raise ValueError(f"a part of type {part.get('type')!r} has no counterpart")


def _medium(url: str, name: str | None = None) -> dict[str, Any]:
    """Return bytes or an address as a part; the type of an address is read off its name, if that tells."""
    if url.startswith("data:"):
        data = data_url(url)
        return {"inlineData": {"mimeType": data.media_type, "data": data.base64}}
    guessed = mimetypes.guess_type(name or url.partition("?")[0])[0]
    return {"fileData": {"fileUri": url, **({"mimeType": guessed} if guessed else {})}}


def _generation_config(fields: dict[str, Any], model: str, dropped: list[str]) -> dict[str, Any]:
    out = {theirs: fields[ours] for ours, theirs in _SAME.items() if fields.get(ours) is not None}
    if out.get("candidateCount") == 1:
        del out["candidateCount"]
    if not out.get("responseLogprobs"):
        for key in ("responseLogprobs", "logprobs"):
            out.pop(key, None)
    limit = fields.get("max_completion_tokens")
    limit = fields.get("max_tokens") if limit is None else limit
    if limit is not None:
        out["maxOutputTokens"] = limit
    if stop := fields.get("stop"):
        stops = [stop] if isinstance(stop, str) else stop
        out["stopSequences"] = stops[:_STOPS]
        if len(stops) > _STOPS:
            dropped.append(f"stop[{_STOPS}]")
    if (wish := fields.get("response_format")) is not None:
        match wish["type"]:
            case "text":
                pass
            case "json_object":
                out["responseMimeType"] = "application/json"
            case "json_schema":
                out["responseMimeType"] = "application/json"
                out["responseJsonSchema"] = wish["json_schema"].get("schema") or {"type": "object"}
            case other:
                raise ValueError(f"response_format {other!r} has no counterpart")
    if (thinking := _thinking(fields, model, dropped)) is not None:
        out["thinkingConfig"] = thinking
    return out


def _thinking(fields: dict[str, Any], model: str, dropped: list[str]) -> dict[str, Any] | None:
    """Return how much to think, as the model's generation says it: a level since 3, a budget in 2.5, nothing before."""
    wish, level = fields.get("thinking"), fields.get("reasoning_effort")
    if wish is None and level is None:
        return None
    if level is not None and level not in _BUDGET:
        raise ValueError(f"there is no reasoning_effort {level!r}")
    born, pro = generation(model), "pro" in model.rpartition("/")[2]
    if born and (0, 0) < born < (2, 5):
        dropped += [k for k in ("thinking", "reasoning_effort") if fields.get(k) is not None]
        return None
    kind = None if wish is None else wish["type"]
    shown = {"includeThoughts": True} if kind in ("enabled", "adaptive") or (level not in (None, "none")) else {}
    if kind == "disabled":
        level, kind = "none", None
    if wish is not None and kind == "enabled":
        if level is not None:
            dropped.append("reasoning_effort")  # the budget says it
        most = _MOST_OF_PRO if pro else _BUDGET["max"]
        if wish["budget_tokens"] > most:
            dropped.append("thinking.budget_tokens")
        return {"thinkingBudget": min(wish["budget_tokens"], most), **shown}
    if born < (3, 0):
        if level is None:
            return {"thinkingBudget": -1, **shown}
        if level == "none" and pro:
            dropped.append("thinking disabled" if wish else "reasoning_effort none")
            return {"thinkingBudget": 128}
        return {"thinkingBudget": _BUDGET[level], **shown}
    if level is None:
        return shown
    # The first Pro of the third generation knows two levels; no model of it can be kept from thinking at all.
    known = ("low", "high") if pro and born == (3, 0) else ("low", "medium", "high") if pro else _LEVELS
    near = level if level in known else known[0] if level in ("none", "minimal") else known[-1]
    if near != level:
        dropped.append(f"reasoning_effort {level}" if fields.get("reasoning_effort") else "thinking disabled")
    return {"thinkingLevel": near, **shown}


_LEVELS: Final = ("minimal", "low", "medium", "high")


def _declared(tool: dict[str, Any], at: str, dropped: list[str]) -> dict[str, Any] | None:
    if tool.get("type", "function") != "function":
        dropped.append(f"{at} of type {tool['type']}")
        return None
    if tool.get("cache_control") is not None:
        dropped.append(f"{at}.cache_control")
    function = tool["function"]
    if function.get("strict"):
        dropped.append(f"{at}.strict")
    out = {"name": function["name"]}
    if function.get("description"):
        out["description"] = function["description"]
    if function.get("parameters"):
        out["parametersJsonSchema"] = function["parameters"]
    return out


def _choice(choice: Any, dropped: list[str]) -> dict[str, Any] | None:
    match choice:
        case None:
            return None
        case "auto" | "none":
            return {"mode": choice.upper()}
        case "required":
            return {"mode": "ANY"}
        case {"type": "function", "function": {"name": name}}:
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}:
            names = [t["function"]["name"] for t in tools if t.get("type") == "function"]
            if mode == "required":
                return {"mode": "ANY", "allowedFunctionNames": names}
            dropped.append("tool_choice.allowed_tools")
            return {"mode": "AUTO"}
    raise ValueError(f"tool_choice {choice!r} has no counterpart")


# ------------------------------------------------------------------------------------------------------------ replies


class _Call(Struct, rename="camel"):
    name: str = ""
    id: str | None = None
    args: Raw = Raw(b"{}")


class _Blob(Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""


class _Code(Struct, rename="camel"):
    code: str = ""
    output: str = ""


class _Part(Struct, rename="camel"):
    text: str = ""
    thought: bool = False
    thought_signature: str = ""
    function_call: _Call | None = None
    inline_data: _Blob | None = None
    executable_code: _Code | None = None
    code_execution_result: _Code | None = None


class _Content(Struct):
    parts: list[_Part] = []


class _Chosen(Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _Top(Struct):
    candidates: list[_Chosen] = []


class _Logprobs(Struct, rename="camel"):
    chosen_candidates: list[_Chosen] = []
    top_candidates: list[_Top] = []


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int = 0
    logprobs_result: _Logprobs | None = None


class _Modal(Struct, rename="camel"):
    modality: str = ""
    token_count: int = 0


class _Usage(Struct, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: list[_Modal] | None = None
    cache_tokens_details: list[_Modal] | None = None
    candidates_tokens_details: list[_Modal] | None = None


class _Vector(Struct):
    values: list[float]


class _Vectors(Struct, rename="camel"):
    embeddings: list[_Vector] = []
    usage_metadata: _Usage | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _Response(Struct, rename="camel"):
    candidates: list[_Candidate] = []
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str = ""
    error: Raw = wire.NULL


_response = msgspec.json.Decoder(_Response)


def _tokens(usage: _Usage | None) -> Tokens | None:
    """Count as OpenAI does: thoughts are part of the output, what built-in tools fed in is part of the input, and cached pictures are cached."""
    if usage is None or usage.prompt_token_count is None:
        return None
    prompt, cached = _modal(usage.prompt_tokens_details), _modal(usage.cache_tokens_details)
    thoughts = usage.thoughts_token_count or 0
    return Tokens(
        input=usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0),
        cached_input=usage.cached_content_token_count or 0,
        output=(usage.candidates_token_count or 0) + thoughts,
        reasoning=thoughts,
        audio_input=max(0, prompt.get("AUDIO", 0) - cached.get("AUDIO", 0)),
        image_input=max(0, prompt.get("IMAGE", 0) - cached.get("IMAGE", 0)),
        audio_output=_modal(usage.candidates_tokens_details).get("AUDIO", 0),
    )


def _modal(details: list[_Modal] | None) -> dict[str, int]:
    return {d.modality: d.token_count for d in details or ()}


class _Answer:
    """One candidate, as far as it has come. `take` gives the delta that a part adds."""

    __slots__ = ("_signer", "blocks", "calls", "finish", "images", "logprobs", "message", "text", "thought", "thoughts")

    def __init__(self, signer: str) -> None:
        self._signer = signer
        self.text: list[str] = []
        self.thought: list[str] = []
        """Thoughts since the last signature."""
        self.thoughts: list[str] = []
        self.blocks: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish: str | None = None
        self.message: str | None = None

    def take(self, part: _Part) -> list[dict[str, Any]]:
        """Add a part; return the deltas that say so."""
        out: list[dict[str, Any]] = []
        place = "t"
        if part.function_call is not None:
            place = f"c{len(self.calls)}"
            call = part.function_call
            arguments = bytes(call.args).decode()
            entry = {
                "id": call.id or f"call_{random_bits.token_hex(12)}",
                "type": "function",
                "function": {"name": call.name, "arguments": "{}" if arguments == "null" else arguments},
            }
            out.append({"tool_calls": [{"index": len(self.calls), **entry}]})
            self.calls.append(entry)
        elif part.thought:
            self.thought.append(part.text)
            self.thoughts.append(part.text)
            if part.text:
                out.append({"reasoning_content": part.text})
        elif part.inline_data is not None:
            url = f"data:{part.inline_data.mime_type};base64,{part.inline_data.data}"
            image = {"type": "image_url", "index": len(self.images), "image_url": {"url": url}}
            self.images.append(image)
            out.append({"images": [image]})
        else:
            text = part.text
            if part.executable_code is not None:
                text = f"\n```python\n{part.executable_code.code}\n```\n"
            elif part.code_execution_result is not None:
                text = f"\n```\n{part.code_execution_result.output}\n```\n"
            if text:
                self.text.append(text)
                out.append({"content": text})
        if part.thought_signature:
            block = {
                "type": "thinking",
                "thinking": "".join(self.thought),
                "signature": signed.sign(f"{place}.{part.thought_signature}", self._signer)
                if self._signer
                else part.thought_signature,
            }
            self.thought = []
            self.blocks.append(block)
            # A block goes before the call it belongs to, as in the formats that know blocks.
            out.insert(0, {"thinking_blocks": [block]})
        return out

    def take_logprobs(self, result: _Logprobs | None) -> list[dict[str, Any]]:
        """Add log-probabilities; return them as OpenAI writes them."""
        if result is None:
            return []
        entries = []
        for i, chosen in enumerate(result.chosen_candidates):
            top = result.top_candidates[i].candidates if i < len(result.top_candidates) else ()
            entries.append(
                wire.token_logprob(
                    chosen.token, chosen.log_probability, [(c.token, c.log_probability) for c in top if c.token]
                )
            )
        self.logprobs += entries
        return entries

    def ended(self) -> str:
        """Say why it ended, in OpenAI's words.

        Raises:
            TargetError: ``malformed``, if the model failed and nothing came of it.
        """
        reason = self.finish or "STOP"
        if reason in _BROKEN and not (self.text or self.calls or self.images):
            message = f"the model gave no answer: {reason} {self.message or ''}".strip()
            raise TargetError(Failure(kind="malformed", message=message, status=200))
        if reason == "MAX_TOKENS":
            return "length"
        if reason in _BLOCKED:
            return "content_filter"
        return "tool_calls" if self.calls else "stop"

    def outcome(self, model: str, tokens: Tokens | None) -> Outcome:
        """Sum it up."""
        logprobs = self.logprobs or None
        known = {t["token"]: t["logprob"] for t in logprobs[0]["top_logprobs"]} if logprobs else {}
        if known and logprobs:
            known.setdefault(logprobs[0]["token"], logprobs[0]["logprob"])
        return Outcome(
            text="".join(self.text),
            model=model,
            tokens=tokens,
            logprobs=None if logprobs is None else tuple(t["logprob"] for t in logprobs),
            first_entropy=wire.entropy(known.values()) if known else None,
            finish=self.ended(),
            tool_calls=Raw(msgspec.json.encode(self.calls)) if self.calls else None,
        )


def read(body: bytes, *, id: str, signer: str = "", secrets: Sequence[str] = ()) -> Outcome:
    """Read a whole reply.

    Raises:
        TargetError: ``malformed`` if it is none; ``blocked`` if the provider refused the prompt.
    """
    try:
        response = _response.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        why = upstream.shorten(str(e), *secrets)
        failure = Failure(kind="malformed", message=f"the reply is not one of Gemini's: {why}", status=200)
        raise TargetError(failure) from e
    _check(response, secrets)
    if not response.candidates:
        raise TargetError(Failure(kind="malformed", message="the reply has no candidates", status=200))
    answers = []
    for candidate in response.candidates:
        answer = _Answer(signer)
        for part in candidate.content.parts if candidate.content is not None else ():
            answer.take(part)
        answer.take_logprobs(candidate.logprobs_result)
        answer.finish, answer.message = candidate.finish_reason, candidate.finish_message
        answers.append(answer)
    tokens = _tokens(response.usage_metadata)
    outcome = answers[0].outcome(response.model_version, tokens)
    choices = [
        wire.Choice(
            text="".join(a.text),
            reasoning="".join(a.thoughts),
            thinking_blocks=tuple(a.blocks),
            tool_calls=Raw(msgspec.json.encode(a.calls)) if a.calls else None,
            finish=a.ended(),
            logprobs=tuple(a.logprobs) if a.logprobs else None,
        )
        for a in answers
    ]
    reply = wire.completions(choices, id=id, created=int(time.time()), model=response.model_version, tokens=tokens)
    if any(a.images for a in answers):
        whole = msgspec.json.decode(reply)
        for choice, answer in zip(whole["choices"], answers, strict=True):
            if answer.images:
                choice["message"]["images"] = answer.images
        reply = msgspec.json.encode(whole)
    return replace(outcome, reply=reply)


class StreamReader:
    """Reads one stream of responses and writes it as OpenAI chunks. Sans I/O.

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
        self.secrets = secrets
        self._signer = signer
        self._framer = sse.Framer()
        self._chunks = wire.Chunks(id=id, created=created, model="")
        self._answers: dict[int, _Answer] = {}
        self._usage: _Usage | None = None
        self._first_seconds: float | None = None

    def feed(self, read: bytes) -> bytes:
        """Take one read; return the chunks to pass on, possibly none."""
        try:
            return b"".join([self._take(_response.decode(e.data)) for e in self._framer.feed(read)])
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as e:
            message = f"an event of the stream is malformed: {upstream.shorten(str(e), *self.secrets)}"
            raise TargetError(Failure(kind="malformed", message=message)) from e

    def close(self) -> bytes:
        """Say that the stream has ended; return what is left to pass on. Endings are told here: token counts may follow a finish reason."""
        out = b""
        try:
            out = b"".join([self._take(_response.decode(e.data)) for e in self._framer.close()])
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise _cut() from e
        if not self._answers or any(a.finish is None for a in self._answers.values()):
            raise _cut()
        for index, answer in sorted(self._answers.items()):
            role = {} if self._first_seconds is not None else {"role": "assistant"}
            out += self._chunks.delta(role, index=index, finish=answer.ended())
        tokens = _tokens(self._usage)
        if self.pass_usage and tokens is not None:
            out += self._chunks.usage(wire.usage(tokens))
        return out

    def outcome(self) -> Outcome:
        """Sum up what was read."""
        first = self._answers[min(self._answers)]
        outcome = first.outcome(self._chunks.model, _tokens(self._usage))
        return replace(outcome, first_token_seconds=self._first_seconds)

    def _take(self, response: _Response) -> bytes:
        _check(response, self.secrets)
        self._chunks.model = response.model_version or self._chunks.model
        self._usage = response.usage_metadata or self._usage  # each is of the whole call so far
        out = []
        for candidate in response.candidates:
            fresh = candidate.index not in self._answers
            answer = self._answers.setdefault(candidate.index, _Answer(self._signer))
            logprobs = answer.take_logprobs(candidate.logprobs_result)
            for part in candidate.content.parts if candidate.content is not None else ():
                for delta in answer.take(part):
                    if self._first_seconds is None:
                        self._first_seconds = perf_counter() - self.start
                    role = {"role": "assistant"} if fresh else {}
                    fresh = False
                    told = {"content": logprobs} if logprobs else None
                    logprobs = []
                    out.append(self._chunks.delta({**role, **delta}, index=candidate.index, logprobs=told))
            if candidate.finish_reason:
                answer.finish, answer.message = candidate.finish_reason, candidate.finish_message
        return b"".join(out)


# ------------------------------------------------------------------------------------------------------------- errors


class _Detail(Struct, rename="camel"):
    type: str = msgspec.field(default="", name="@type")
    retry_delay: str = ""
    reason: str = ""


class _Status(Struct):
    message: str = ""
    status: str = ""
    code: int | None = None
    details: list[_Detail] = []


class _Error(Struct):
    error: _Status


def refusal(status: int, headers: Mapping[str, str], body: bytes, *secrets: str) -> Failure:
    """Turn an error reply, a google.rpc.Status, into a typed failure; when to try again stands in its details."""
    said = body.strip()
    if said.startswith(b"["):  # a stream that never began is refused as a list
        said = said[1:].rpartition(b"]")[0]
    failure = upstream.refusal(status, headers, said or body, *secrets)
    try:
        error = msgspec.json.decode(said, type=_Error).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return failure
    for detail in error.details:
        if detail.type.endswith("RetryInfo") and failure.retry_after_seconds is None:
            match = re.fullmatch(r"(\d+(?:\.\d+)?)s", detail.retry_delay)
            failure = replace(
                failure, retry_after_seconds=min(float(match[1]), upstream.WAIT_SECONDS) if match else None
            )
        if detail.reason in ("API_KEY_INVALID", "API_KEY_EXPIRED"):
            failure = replace(failure, kind="auth")
    if failure.kind == "bad_request" and "exceeds the maximum number of tokens" in error.message:
        failure = replace(failure, kind="context_too_long")
    return failure


def _check(response: _Response, secrets: Sequence[str]) -> None:
    error = bytes(response.error)
    if error != b"null":
        body = b'{"error":' + error + b"}"
        try:
            code = msgspec.json.decode(body, type=_Error).error.code
        except (msgspec.DecodeError, UnicodeDecodeError):
            code = None
        raise TargetError(refusal(code if code is not None and 400 <= code < 600 else 502, {}, body, *secrets))
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason and not response.candidates:
        why = f"the provider blocked the prompt: {feedback.block_reason} {feedback.block_reason_message or ''}"
        raise TargetError(Failure(kind="blocked", message=upstream.shorten(why, *secrets), status=200))


def _cut() -> TargetError:
    return TargetError(Failure(kind="broken_stream", message="the stream ended before the answer did", status=200))
