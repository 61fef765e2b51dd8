"""A model to stand behind the gateway while clients of others are tried: an upstream of its own process that speaks both wire formats.

    python upstream.py PORT

``POST /v1/chat/completions`` is OpenAI's format (and vLLM's ``top_k``), ``POST /v1/messages`` (and ``/count_tokens``) Anthropic's. It answers by
reading the request, with rules in place of a model: a tool that fits the prompt is called, with arguments found there; a result is told back; a
schema is filled; a greeting is greeted. What one format says and the other does too gives the same answer, so that a difference is the gateway's.

It is as strict as its models are, since a wrong translation shows as their 400: fields must be known; every tool call needs its result and every result
its call; Anthropic's turns alternate, signatures of thinking must be its own, and a tool loop with thinking must begin with it. It counts what it
"cached". Models whose name begins with ``flaky`` fail with 429 the first time they see a prompt, ``down`` always with 500, ``long`` find every prompt
too long, ``cut`` break off in the middle of their stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from aiohttp import web

SIGNATURE: Final = "signed-here-"
SEEN: set[str] = set()
"""Prompts that were asked before: for `flaky` models and what is cached."""

CHAT_FIELDS: Final = frozenset(
    {"model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stream", "stream_options"}
    | {"stop", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "seed", "logprobs", "top_logprobs"}
    | {
        "top_k",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "user",
        "reasoning_effort",
        "service_tier",
        "metadata",
    }
    | {"store", "modalities", "verbosity", "prompt_cache_key", "safety_identifier", "functions", "function_call"}
)
MESSAGES_FIELDS: Final = frozenset(
    {"model", "messages", "max_tokens", "system", "tools", "tool_choice", "stream", "stop_sequences", "temperature"}
    | {"top_p", "top_k", "thinking", "output_config", "metadata", "service_tier", "cache_control"}
)


class Refusal(Exception):
    """The request is refused: a status, a kind of error in either format, a message."""

    def __init__(self, status: int, kind: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, headers


class Result(NamedTuple):
    """What a tool said."""

    id: str
    text: str


class Asked(NamedTuple):
    """A request, in whichever format it came."""

    said: list[tuple[str, str]]
    """Role and text of each turn."""
    results: list[Result]
    """Of the last turn, if it holds results of tools."""
    called: list[str]
    """Names of tools called before."""
    tools: dict[str, dict[str, Any]]
    about: dict[str, str]
    choice: str
    """``auto``, ``none``, ``any``, or a tool's name."""
    parallel: bool
    schema: dict[str, Any] | None
    """What the answer's JSON must fit; ``{}``: any object."""
    pictures: int
    files: int
    sounds: int
    thinks: bool
    stops: list[str]
    most: int | None

    @property
    def prompt(self) -> str:
        """The last that the user said."""
        return next((text for role, text in reversed(self.said) if role == "user" and text), "")


class Called(NamedTuple):
    """One call of a tool."""

    id: str
    name: str
    arguments: dict[str, Any]


class Answer(NamedTuple):
    """What is answered, in no format yet. `finish` is OpenAI's word."""

    text: str
    calls: list[Called]
    thinking: str
    finish: str
    stop: str | None


# ---------------------------------------------------------------------------------------------------------- the "model"


def answer(asked: Asked) -> Answer:
    """Answer a request by rule."""
    thinking = f"They want an answer to: {asked.prompt[:60]}" if asked.thinks else ""
    if calls := call(asked):
        return Answer("", calls, thinking, "tool_calls", None)
    finish, stop, text = "stop", None, write(asked)
    for word in asked.stops:
        if word in text:
            text, stop = text[: text.index(word)], word
    words = pieces(text)
    if asked.most is not None and len(words) > asked.most:
        text, finish, stop = "".join(words[: asked.most]), "length", None
    return Answer(text, [], thinking, finish, stop)


def write(asked: Asked) -> str:
    """Write the text of an answer."""
    if asked.schema is not None or "JSON" in asked.prompt:
        schema = asked.schema or _schema_of_words(asked)
        return json.dumps(fill(schema, asked.prompt, schema), ensure_ascii=False)
    prompt = asked.prompt
    if "what is my name" in prompt.lower():
        for _, text in reversed(asked.said):
            if found := re.search(r"[Mm]y name is (\w+)", text):
                return f"Your name is {found[1]}."
    seen = [
        f"{n} {what}" for n, what in ((asked.pictures, "picture"), (asked.files, "file"), (asked.sounds, "sound")) if n
    ]
    given = f"I was given {', '.join(seen)}." if seen else ""
    if asked.results:
        said = "The tools say: " + " and ".join(r.text for r in asked.results)
        return f"{said}. {given}" if given else said
    if given:
        return given
    if re.match(r"(hello|hi)\b", prompt.lower()):
        return "Hello! How are you today?"
    system = next((text for role, text in asked.said if role == "system"), "")
    return f"{system} You said: {prompt[:200]}".strip()


def call(asked: Asked) -> list[Called]:
    """Choose tools and their arguments. None if text is the better answer."""
    if asked.choice == "none" or not asked.tools:
        return []
    forced = asked.choice not in ("auto", "any")
    if asked.results and not forced:
        fresh = [n for n in asked.tools if n not in asked.called]
        if asked.choice == "auto" or not fresh:
            return []
        return [
            Called(
                _id(asked, fresh[-1], 0),
                fresh[-1],
                fill(asked.tools[fresh[-1]], _results(asked), asked.tools[fresh[-1]]),
            )
        ]
    names = [asked.choice] if forced else _fitting(asked)
    if not names and asked.choice == "any":
        names = list(asked.tools)[:1]
    made: list[Called] = []
    for name in names:
        schema = asked.tools[name]
        places = _places(asked.prompt) if {"city", "location"} & schema.get("properties", {}).keys() else []
        for place in places or [""]:
            prompt = asked.prompt if not place else f"in {place}."
            made.append(Called(_id(asked, name, len(made)), name, fill(schema, prompt, schema)))
    return made if asked.parallel else made[:1]


def _results(asked: Asked) -> str:
    return " ".join(r.text for r in asked.results)


def _fitting(asked: Asked) -> list[str]:
    prompt = asked.prompt.lower()
    whole = [n for n in asked.tools if re.search(rf"(?<![\w]){re.escape(n.lower())}(?![\w])", prompt)]
    if whole:
        return whole
    words = set(re.findall(r"[^\W\d_]{4,}", prompt))
    likeness = {
        n: len(words & set(re.findall(r"[^\W\d_]{4,}", f"{n} {asked.about[n]}".lower().replace("_", " "))))
        for n in asked.tools
    }
    best = max(likeness, key=lambda n: likeness[n])
    return [best] if likeness[best] else []


def _places(prompt: str) -> list[str]:
    found = re.search(r"\bin ([A-Z]\w+(?: [A-Z]\w+)*(?:,? (?:and )?(?:in )?[A-Z]\w+(?: [A-Z]\w+)*)*)", prompt)
    return [] if found is None else [p for p in re.split(r", | and (?:in )?", found[1]) if p not in ("CA", "")]


def _id(asked: Asked, name: str, n: int) -> str:
    return "call_" + hashlib.sha256(f"{len(asked.said)}{asked.prompt}{name}{n}".encode()).hexdigest()[:20]


def _schema_of_words(asked: Asked) -> dict[str, Any]:
    """Read which keys are wanted off the prompt, for a mode that has no schema."""
    names = re.findall(r"['\"`](\w+)['\"`]", " ".join(text for _, text in asked.said)) or ["answer"]
    return {
        "type": "object",
        "properties": {n: {"type": "string"} for n in names if n not in ("object", "string", "type", "properties")},
    }


def fill(schema: dict[str, Any], prompt: str, root: dict[str, Any], name: str = "") -> Any:
    """Make an instance of a JSON schema, from what the prompt holds where it fits."""
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return next((v for v in schema["enum"] if str(v).lower() in prompt.lower()), schema["enum"][0])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return fill(next(s for s in schema[key] if s.get("type") != "null"), prompt, root, name)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind if isinstance(kind, str) else next(k for k in kind if k != "null")
    numbers = iter(re.findall(r"-?\d+(?:\.\d+)?", prompt))
    match kind:
        case "object":
            made = {}
            for key, inner in schema.get("properties", {}).items():
                made[key] = fill(inner, prompt, root, key)
                if isinstance(made[key], int | float) and not isinstance(made[key], bool):
                    prompt = prompt.replace(str(made[key]), "", 1)  # each number is used once
            return made
        case "array":
            return [fill(schema.get("items", {}), prompt, root, name)]
        case "integer":
            return int(float(next(numbers, "1")))
        case "number":
            return float(next(numbers, "1"))
        case "boolean":
            return True
        case "null":
            return None
    return _words(prompt, name)


def _words(prompt: str, name: str) -> str:
    if name in ("city", "location") and (places := _places(prompt)):
        return places[0]
    if "name" in name:
        for pattern in (r"['\"]([^'\"]+)['\"]", r"(?:named|called|name is) (\w+)", r"^([A-Z]\w+)\b"):
            if found := re.search(pattern, prompt):
                return found[1]
    return f"{name or 'text'} for: {prompt[:40]}"


def pieces(text: str) -> list[str]:
    """Cut a text into what counts as its tokens."""
    return re.findall(r"\s*\S+", text)


def sign(thinking: str) -> str:
    """Sign thinking as its own."""
    return SIGNATURE + hashlib.sha256(thinking.encode()).hexdigest()[:24]


def tokens(value: Any) -> int:
    """Count tokens, roughly."""
    return len(json.dumps(value)) // 4 + 1


def misbehave(model: str, prompt: str, long: str) -> None:
    """Fail as the model's name says. `long` is how the format's owner says that a prompt is too long."""
    if model.startswith("down"):
        raise Refusal(500, "api_error", "the model is down, as its name says")
    if model.startswith("long"):
        raise Refusal(400, "context_length_exceeded", long)
    if model.startswith("flaky") and (key := f"{model} {prompt}") not in SEEN:
        SEEN.add(key)
        raise Refusal(429, "rate_limit_error", "slow down", **{"retry-after": "0.1"})


# -------------------------------------------------------------------------------------------------------- OpenAI's format


def read_chat(body: dict[str, Any]) -> Asked:
    """Read a request in OpenAI's format, and find what is wrong with it."""
    if unknown := body.keys() - CHAT_FIELDS:
        raise Refusal(
            400, "invalid_request_error", f"Unrecognized request arguments supplied: {', '.join(sorted(unknown))}"
        )
    if not isinstance(body.get("temperature", 0), int | float):
        raise Refusal(400, "invalid_request_error", "Invalid type for 'temperature'")
    said: list[tuple[str, str]] = []
    counts = dict.fromkeys(("image_url", "file", "input_audio"), 0)
    open_calls: dict[str, str] = {}
    results: list[Result] = []
    called: list[str] = []
    for i, m in enumerate(body["messages"]):
        role: str = m["role"]
        content: Any = m.get("content")
        parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        if role == "assistant" and not parts and not m.get("tool_calls"):
            raise Refusal(400, "invalid_request_error", f"messages[{i}]: content or tool_calls is needed")
        text = ""
        for part in parts:
            if part["type"] == "text":
                text += part["text"]
            elif part["type"] in counts and role == "user":
                counts[part["type"]] += 1
                if part["type"] == "image_url" and not part["image_url"]["url"].startswith(("data:image/", "http")):
                    raise Refusal(400, "invalid_request_error", f"messages[{i}]: not a picture")
            elif part["type"] != "refusal":
                raise Refusal(400, "invalid_request_error", f"messages[{i}]: Invalid value: {part['type']!r}")
        if role == "tool":
            if m["tool_call_id"] not in open_calls:
                raise Refusal(400, "invalid_request_error", f"messages[{i}]: a tool message must follow its tool_calls")
            del open_calls[m["tool_call_id"]]
            results.append(Result(m["tool_call_id"], text))
            continue
        if open_calls:
            raise Refusal(
                400, "invalid_request_error", f"tool_call_ids did not have response messages: {', '.join(open_calls)}"
            )
        if role not in ("system", "developer", "user", "assistant"):
            raise Refusal(400, "invalid_request_error", f"messages[{i}]: no role {role!r}")
        if role != "user" or not any(p["type"] != "text" for p in parts):
            results = []  # a picture among them cannot stand in a tool message: it follows as the user's
        for c in m.get("tool_calls") or ():
            json.loads(c["function"]["arguments"])
            open_calls[c["id"]] = c["function"]["name"]
            called.append(c["function"]["name"])
        said.append(("system" if role == "developer" else role, text))
    if open_calls:
        raise Refusal(
            400, "invalid_request_error", f"tool_call_ids did not have response messages: {', '.join(open_calls)}"
        )
    tools = {t["function"]["name"]: t["function"] for t in body.get("tools") or ()}
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        choice = choice["function"]["name"]
    form = body.get("response_format") or {"type": "text"}
    schema = {"json_object": {}, "text": None}.get(form["type"], form.get("json_schema", {}).get("schema"))
    stop = body.get("stop") or []
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    return Asked(
        said, results, called,
        {n: t.get("parameters") or {} for n, t in tools.items()}, {n: t.get("description") or "" for n, t in tools.items()},
        "any" if choice == "required" else choice, body.get("parallel_tool_calls") is not False, schema,
        counts["image_url"], counts["file"], counts["input_audio"], bool(body.get("reasoning_effort")) and body["reasoning_effort"] != "none",
        [stop] if isinstance(stop, str) else stop, most,
    )  # fmt: skip


def chat_usage(body: dict[str, Any], made: Answer) -> dict[str, Any]:
    """Count, in OpenAI's words: what was asked before is cached, thinking is a part of the completion."""
    prompt, thought = tokens(body["messages"]), len(pieces(made.thinking))
    out = len(pieces(made.text)) + sum(tokens(c.arguments) for c in made.calls) + thought
    cached = prompt // 2 if _seen(body) else 0
    return {
        "prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0},
    }  # fmt: skip


def _seen(body: dict[str, Any]) -> bool:
    key = json.dumps([body["model"], body.get("system"), body["messages"]])
    before = key in SEEN
    SEEN.add(key)
    return before


def logprobs(text: str, top: int) -> dict[str, Any]:
    """Give each token a probability."""
    entries = []
    for i, word in enumerate(pieces(text)):
        entry = {"token": word, "logprob": -0.01 * (i + 1), "bytes": list(word.encode())}
        others = [entry, {"token": " other", "logprob": -5.0, "bytes": list(b" other")}]
        entries.append({**entry, "top_logprobs": others[:top]})
    return {"content": entries, "refusal": None}


def chat_whole(body: dict[str, Any], made: Answer) -> dict[str, Any]:
    """Write an answer in OpenAI's format."""
    message: dict[str, Any] = {"role": "assistant", "content": made.text or None, "refusal": None}
    if made.thinking:
        message["reasoning_content"] = made.thinking
    if made.calls:
        message["tool_calls"] = [_chat_call(c) for c in made.calls]
    probabilities = logprobs(made.text, body.get("top_logprobs") or 0) if body.get("logprobs") else None
    choices = [
        {"index": i, "message": message, "finish_reason": made.finish, "logprobs": probabilities}
        for i in range(body.get("n") or 1)
    ]
    return {"id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices,
            "usage": chat_usage(body, made), "service_tier": "default"}  # fmt: skip


def _chat_call(c: Called) -> dict[str, Any]:
    return {
        "id": c.id,
        "type": "function",
        "function": {"name": c.name, "arguments": json.dumps(c.arguments, ensure_ascii=False)},
    }


def chat_events(body: dict[str, Any], made: Answer) -> Iterator[dict[str, Any]]:
    """Write an answer as OpenAI's chunks: arguments of tools come in halves."""
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    more = {"usage": None} if wants_usage else {}
    top = body.get("top_logprobs") or 0

    def chunk(
        index: int, delta: dict[str, Any], finish: str | None = None, probabilities: Any = None
    ) -> dict[str, Any]:
        return {
            **head,
            "choices": [{"index": index, "delta": delta, "finish_reason": finish, "logprobs": probabilities}],
            **more,
        }

    every = logprobs(made.text, top)["content"] if body.get("logprobs") else None
    for index in range(body.get("n") or 1):
        yield chunk(index, {"role": "assistant", "content": "" if not made.calls else None, "refusal": None})
        for word in pieces(made.thinking):
            yield chunk(index, {"reasoning_content": word})
        for i, word in enumerate(pieces(made.text)):
            yield chunk(
                index,
                {"content": word},
                probabilities=None if every is None else {"content": every[i : i + 1], "refusal": None},
            )
        for i, c in enumerate(made.calls):
            whole = _chat_call(c)
            arguments = whole["function"]["arguments"]
            half = len(arguments) // 2
            yield chunk(index, {"tool_calls": [{"index": i, **whole, "function": {"name": c.name, "arguments": ""}}]})
            for part in (arguments[:half], arguments[half:]):
                yield chunk(index, {"tool_calls": [{"index": i, "function": {"arguments": part}}]})
        yield chunk(index, {}, made.finish)
    if wants_usage:
        yield {**head, "choices": [], "usage": chat_usage(body, made)}


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer ``POST /v1/chat/completions``."""
    try:
        body = await request.json()
        asked = read_chat(body)
        long = "This model's maximum context length is 200000 tokens. However, your messages resulted in 300000 tokens."
        misbehave(body["model"], asked.prompt, long)
    except Refusal as e:
        error = {"message": str(e), "type": e.kind, "param": None, "code": e.kind}
        return web.json_response({"error": error}, status=e.status, headers=e.headers)
    except (KeyError, TypeError, ValueError) as e:
        error = {"message": f"{type(e).__name__}: {e}", "type": "invalid_request_error", "param": None, "code": None}
        return web.json_response({"error": error}, status=400)
    made = answer(asked)
    if not body.get("stream"):
        return web.json_response(chat_whole(body, made))
    out = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await out.prepare(request)
    for i, event in enumerate(chat_events(body, made)):
        if i == 3 and body["model"].startswith("cut"):
            assert request.transport is not None
            request.transport.abort()
            return out
        await out.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
    await out.write(b"data: [DONE]\n\n")
    return out


# ----------------------------------------------------------------------------------------------------- Anthropic's format


def read_messages(body: dict[str, Any]) -> Asked:
    """Read a request in Anthropic's format, and find what is wrong with it."""
    if unknown := body.keys() - MESSAGES_FIELDS:
        raise Refusal(400, "invalid_request_error", f"{min(unknown)}: Extra inputs are not permitted")
    if not isinstance(body.get("max_tokens"), int):
        raise Refusal(400, "invalid_request_error", "max_tokens: Field required")
    said: list[tuple[str, str]] = []
    if body.get("system"):
        system = body["system"]
        said.append(("system", system if isinstance(system, str) else "".join(b["text"] for b in system)))
    counts = dict.fromkeys(("image", "document"), 0)
    calls: dict[str, str] = {}
    called: list[str] = []
    results: list[Result] = []
    thinking = body.get("thinking") or {"type": "disabled"}
    thinks = thinking["type"] in ("enabled", "adaptive")
    if thinking["type"] == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
        raise Refusal(
            400, "invalid_request_error", "`max_tokens` must be greater than `thinking.budget_tokens`, of 1024 at least"
        )
    if thinks and body.get("temperature", 1) != 1:
        raise Refusal(400, "invalid_request_error", "`temperature` may only be set to 1 when thinking is enabled")
    for i, m in enumerate(body["messages"]):
        if m["role"] not in ("user", "assistant"):
            raise Refusal(400, "invalid_request_error", f"messages.{i}: Unexpected role {m['role']!r}")
        blocks = [{"type": "text", "text": m["content"]}] if isinstance(m["content"], str) else m["content"]
        if not blocks:
            raise Refusal(400, "invalid_request_error", f"messages.{i}: content must not be empty")
        text, results = "", []
        for j, block in enumerate(blocks):
            where = f"messages.{i}.content.{j}"
            match block["type"]:
                case "text":
                    if not block["text"].strip():
                        raise Refusal(
                            400,
                            "invalid_request_error",
                            "messages: text content blocks must contain non-whitespace text",
                        )
                    text += block["text"]
                case "thinking" if m["role"] == "assistant":
                    if block["signature"] != sign(block["thinking"]):
                        raise Refusal(400, "invalid_request_error", f"{where}: Invalid `signature` in `thinking` block")
                case "tool_use" if m["role"] == "assistant":
                    if not isinstance(block["input"], dict):
                        raise Refusal(
                            400, "invalid_request_error", f"{where}.input: Input should be a valid dictionary"
                        )
                    calls[block["id"]] = block["name"]
                    called.append(block["name"])
                case "tool_result" if m["role"] == "user":
                    if calls.pop(block["tool_use_id"], None) is None:
                        raise Refusal(
                            400, "invalid_request_error", f"{where}: unexpected `tool_use_id`: {block['tool_use_id']}"
                        )
                    inner = block.get("content") or ""
                    parts = [{"type": "text", "text": inner}] if isinstance(inner, str) else inner
                    results.append(Result(block["tool_use_id"], "".join(p.get("text", "") for p in parts)))
                    for part in parts:
                        if part["type"] in counts:
                            counts[part["type"]] += 1
                case "image" | "document" if m["role"] == "user":
                    counts[block["type"]] += 1
                    if block["source"]["type"] not in ("base64", "url", "text", "content", "file"):
                        raise Refusal(400, "invalid_request_error", f"{where}.source: Input tag not known")
                case other:
                    raise Refusal(
                        400,
                        "invalid_request_error",
                        f"{where}: Input tag '{other}' does not match any of the expected tags",
                    )
        if calls and m["role"] == "user":
            raise Refusal(
                400,
                "invalid_request_error",
                f"`tool_use` ids were found without `tool_result` blocks: {', '.join(calls)}",
            )
        if (
            thinks
            and thinking["type"] == "enabled"
            and m["role"] == "assistant"
            and i == len(body["messages"]) - 2
            and any(b["type"] == "tool_use" for b in blocks)
            and blocks[0]["type"] != "thinking"
        ):
            raise Refusal(
                400, "invalid_request_error", f"messages.{i}.content.0.type: Expected `thinking` or `redacted_thinking`"
            )
        said.append((m["role"], text))
    if calls:
        raise Refusal(
            400, "invalid_request_error", f"`tool_use` ids were found without `tool_result` blocks: {', '.join(calls)}"
        )
    tools = {t["name"]: t for t in body.get("tools") or () if t.get("type", "custom") == "custom"}
    for name, tool in tools.items():
        if tool["input_schema"].get("type") != "object":
            raise Refusal(400, "invalid_request_error", f"tools.{name}.input_schema.type: Field required")
    choice = body.get("tool_choice") or {"type": "auto"}
    if thinks and choice["type"] in ("any", "tool"):
        raise Refusal(400, "invalid_request_error", "Thinking may not be enabled when tool_choice forces tool use.")
    form = (body.get("output_config") or {}).get("format")
    return Asked(
        said, results, called, {n: t["input_schema"] for n, t in tools.items()}, {n: t.get("description") or "" for n, t in tools.items()},
        choice["name"] if choice["type"] == "tool" else choice["type"], not choice.get("disable_parallel_tool_use"),
        None if form is None else form["schema"], counts["image"], counts["document"], 0, thinks, body.get("stop_sequences") or [], body["max_tokens"],
    )  # fmt: skip


def messages_usage(body: dict[str, Any], made: Answer) -> dict[str, Any]:
    """Count, in Anthropic's words: cached tokens stand beside the input."""
    whole = tokens(body["messages"])
    marked = '"cache_control"' in json.dumps(body)
    before = _seen(body)
    read, written = (whole // 2, 0) if marked and before else (0, whole // 2) if marked else (0, 0)
    out = len(pieces(made.text + " " + made.thinking)) + sum(tokens(c.arguments) for c in made.calls)
    return {"input_tokens": whole - read - written, "cache_read_input_tokens": read, "cache_creation_input_tokens": written,
            "output_tokens": max(1, out), "service_tier": "standard"}  # fmt: skip


def blocks_of(made: Answer) -> list[dict[str, Any]]:
    """Write an answer's blocks."""
    out: list[dict[str, Any]] = []
    if made.thinking:
        out.append({"type": "thinking", "thinking": made.thinking, "signature": sign(made.thinking)})
    if made.text:
        out.append({"type": "text", "text": made.text, "citations": None})
    return out + [
        {"type": "tool_use", "id": c.id.replace("call_", "toolu_"), "name": c.name, "input": c.arguments}
        for c in made.calls
    ]


def messages_whole(body: dict[str, Any], made: Answer) -> dict[str, Any]:
    """Write an answer in Anthropic's format."""
    reason = {"tool_calls": "tool_use", "length": "max_tokens"}.get(made.finish, "end_turn")
    return {"id": "msg_up", "type": "message", "role": "assistant", "model": body["model"], "content": blocks_of(made),
            "stop_reason": "stop_sequence" if made.stop else reason, "stop_sequence": made.stop, "usage": messages_usage(body, made)}  # fmt: skip


def message_events(body: dict[str, Any], made: Answer) -> Iterator[dict[str, Any]]:
    """Write an answer as Anthropic's events."""
    whole = messages_whole(body, made)
    usage = whole["usage"]
    yield {
        "type": "message_start",
        "message": {
            **whole,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 1},
        },
    }
    yield {"type": "ping"}
    for i, block in enumerate(whole["content"]):
        start, deltas = dict(block), []
        match block["type"]:
            case "text":
                start, deltas = (
                    {"type": "text", "text": ""},
                    [{"type": "text_delta", "text": w} for w in pieces(block["text"])],
                )
            case "thinking":
                start = {"type": "thinking", "thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": w} for w in pieces(block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "tool_use":
                start["input"] = {}
                arguments = json.dumps(block["input"], ensure_ascii=False)
                half = len(arguments) // 2
                deltas = [
                    {"type": "input_json_delta", "partial_json": p} for p in ("", arguments[:half], arguments[half:])
                ]
        yield {"type": "content_block_start", "index": i, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": i, "delta": delta}
        yield {"type": "content_block_stop", "index": i}
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    yield {"type": "message_delta", "delta": ending, "usage": usage}
    yield {"type": "message_stop"}


async def messages(request: web.Request) -> web.StreamResponse:
    """Answer ``POST /v1/messages`` and ``/v1/messages/count_tokens``."""
    counting = request.path.endswith("/count_tokens")
    try:
        body = await request.json()
        asked = read_messages({"max_tokens": 2048, **body} if counting else body)
        misbehave(body["model"], asked.prompt, "prompt is too long: 300000 tokens > 200000 maximum")
    except Refusal as e:
        kind = "invalid_request_error" if e.status == 400 else e.kind
        return web.json_response(
            {"type": "error", "error": {"type": kind, "message": str(e)}}, status=e.status, headers=e.headers
        )
    except (KeyError, TypeError, ValueError) as e:
        error = {"type": "invalid_request_error", "message": f"{type(e).__name__}: {e}"}
        return web.json_response({"type": "error", "error": error}, status=400)
    if counting:
        return web.json_response({"input_tokens": tokens(body["messages"])})
    made = answer(asked)
    if not body.get("stream"):
        return web.json_response(messages_whole(body, made))
    out = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await out.prepare(request)
    for i, event in enumerate(message_events(body, made)):
        if i == 4 and body["model"].startswith("cut"):
            assert request.transport is not None
            request.transport.abort()
            return out
        await out.write(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
    return out


async def main(port: int) -> None:
    """Serve until the process is ended."""
    app = web.Application(client_max_size=20_000_000)
    app.add_routes([web.post("/v1/chat/completions", chat), web.post("/v1/messages", messages)])
    app.add_routes([web.post("/v1/messages/count_tokens", messages)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
