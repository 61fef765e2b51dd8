"""The OpenAI chat format: request fields of a call, and completions and chunks from an outcome.

Request fields stay undecoded (`msgspec.Raw`) unless a plan replaces them, so what the client sent is forwarded byte for byte.
Writing a completion costs about 5 µs, a chunk 2 µs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from fairlead.errors import TargetError
from fairlead.types import Call, Failure, Message, Outcome, Query, Tokens

NULL: Final = Raw(b"null")
"""JSON's null; msgspec reads a field typed ``Raw | None`` as null alone, so an optional raw field has this as its default."""

_PLAIN: Final = "!#$&'()*+-./:;<=>?@[]^_`{|}~ "
"""Characters of a name that stand as they are in a header."""
_encode = msgspec.json.Encoder().encode

# ---------------------------------------------------------------------------------------------------------- requests


def fields(call: Call, query: Query) -> dict[str, Raw]:
    """Return the request's fields: the query's own, with what `call` replaces.

    Raises:
        TargetError: ``bad_request``, if a replaced message holds an image, sound or file that is not in the query's body.
    """
    out = {} if call.alone else dict(query.body)
    if call.messages is not None:
        out["messages"] = _messages(call.messages, query)
    elif "messages" not in out:
        out["messages"] = _messages(query.messages, query)
    for key, value in call.params.items():
        out[key] = Raw(_encode(value))
    return out


def dropped(names: Iterable[str]) -> bytes:
    """Write, as the comment that begins a stream, what of the request was left out; nothing if nothing was. The edge makes a header of it."""
    said = ", ".join(quote(name, safe=_PLAIN) for name in dict.fromkeys(names))
    return b": x-fairlead-dropped " + said.encode() + b"\n\n" if said else b""


def is_true(raw: Raw | None) -> bool:
    """Whether a field is there and is JSON's ``true``."""
    return raw is not None and bytes(raw).strip() == b"true"


def wants_usage(body: dict[str, Raw]) -> bool:
    """Whether the client asked for the usage chunk of a stream."""
    raw = body.get("stream_options")
    if raw is None:
        return False
    try:
        options = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return False
    return isinstance(options, dict) and options.get("include_usage") is True


def _messages(messages: Sequence[Message], query: Query) -> Raw:
    # Messages that a plan took over from the query keep their own bytes, and so their images and unknown fields.
    kept: dict[int, Raw] = {}
    if (raw := query.body.get("messages")) is not None:
        own = msgspec.json.decode(raw, type=list[Raw])
        if len(own) == len(query.messages):
            kept = {id(m): r for m, r in zip(query.messages, own, strict=True)}
    return Raw(_encode([kept.get(id(m)) or _message(m) for m in messages]))


def _message(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role}
    if isinstance(message.content, tuple):
        other = sorted({p.type for p in message.content} - {"text"})
        if other:
            text = f"a plan wrote a message with {', '.join(other)}; it may only reuse such messages whole"
            raise TargetError(Failure(kind="bad_request", message=text))
        out["content"] = [{"type": "text", "text": p.text} for p in message.content]
    else:
        out["content"] = message.content
    if message.tool_calls is not None:
        out["tool_calls"] = message.tool_calls
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    return out


# ----------------------------------------------------------------------------------------------------------- replies


class Choice(Struct, frozen=True, kw_only=True):
    """One answer of a completion. `logprobs` are entries as `token_logprob` makes them."""

    text: str = ""
    reasoning: str = ""
    thinking_blocks: tuple[dict[str, Any], ...] = ()
    """Signed thinking, each block with its driver's mark (see `fairlead.targets.signed`)."""
    tool_calls: Raw | None = None
    finish: str = "stop"
    stop: str | None = None
    """The stop sequence that ended it, where a server says which. Written as vLLM does."""
    logprobs: tuple[dict[str, Any], ...] | None = None


def token_logprob(token: str, logprob: float, top: Iterable[tuple[str, float]] = ()) -> dict[str, Any]:
    """Write one token's log-probability the way OpenAI does."""
    return {
        "token": token,
        "logprob": logprob,
        "bytes": list(token.encode()),
        "top_logprobs": [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in top],
    }


def usage(tokens: Tokens) -> dict[str, Any]:
    """Write token counts the way OpenAI does."""
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cached_input,
            **_told(
                cache_creation_tokens=tokens.cache_write,
                audio_tokens=tokens.audio_input,
                image_tokens=tokens.image_input,
            ),
        },
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, **_told(audio_tokens=tokens.audio_output)},
    }


def _told(**counts: int) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if count}


def completion(outcome: Outcome, *, id: str, created: int) -> bytes:
    """Write an outcome as a ``chat.completion``. Log-probabilities are left out: an outcome does not hold its tokens' text."""
    choice = Choice(text=outcome.text, tool_calls=outcome.tool_calls, finish=outcome.finish or "stop")
    return completions([choice], id=id, created=created, model=outcome.model, tokens=outcome.tokens)


def completions(choices: Sequence[Choice], *, id: str, created: int, model: str, tokens: Tokens | None) -> bytes:
    """Write a ``chat.completion`` with several choices."""
    out: dict[str, Any] = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(i, c) for i, c in enumerate(choices)],
    }
    if tokens is not None:
        out["usage"] = usage(tokens)
    return _encode(out)


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    empty = not choice.text and choice.tool_calls is not None
    message: dict[str, Any] = {"role": "assistant", "content": None if empty else choice.text}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.thinking_blocks:
        message["thinking_blocks"] = choice.thinking_blocks
    if choice.tool_calls is not None:
        message["tool_calls"] = choice.tool_calls
    logprobs = None if choice.logprobs is None else {"content": choice.logprobs}
    out = {"index": index, "message": message, "finish_reason": choice.finish, "logprobs": logprobs}
    return out if choice.stop is None else {**out, "stop_reason": choice.stop}


def chunks(outcome: Outcome, *, id: str, created: int, include_usage: bool = False) -> bytes:
    """Write a whole outcome as server-sent events, without ``[DONE]``: for an answer that was not streamed as it came.

    What the reply's own bytes hold beyond the outcome (more choices, log-probabilities, unknown message fields) is kept.
    """
    reply = msgspec.json.decode(outcome.reply or completion(outcome, id=id, created=created), type=_Reply)
    chunk = Chunks(id=id, created=created, model=outcome.model or reply.model)
    events = []
    for i, choice in enumerate(reply.choices):
        delta: dict[str, Any] = dict(choice.message)
        if (raw := choice.message.get("tool_calls")) is not None:
            calls = msgspec.json.decode(raw, type=list[dict[str, Raw]] | None) or []
            delta["tool_calls"] = [{"index": j, **call} for j, call in enumerate(calls)]
            if not calls:
                del delta["tool_calls"]
        events.append(chunk.delta(delta, index=i, logprobs=choice.logprobs))
        stop = choice.stop_reason if isinstance(choice.stop_reason, str) else None
        events.append(chunk.delta({}, index=i, finish=choice.finish_reason or "stop", stop=stop))
    if include_usage:
        if bytes(reply.usage) != b"null":
            events.append(chunk.usage(reply.usage))
        elif outcome.tokens is not None:
            events.append(chunk.usage(usage(outcome.tokens)))
    return b"".join(events)


class Chunks:
    """Writes the events of one stream."""

    __slots__ = ("created", "id", "model")

    def __init__(self, *, id: str, created: int, model: str) -> None:
        self.id, self.created, self.model = id, created, model

    def delta(
        self,
        delta: dict[str, Any],
        *,
        index: int = 0,
        finish: str | None = None,
        stop: str | None = None,
        logprobs: Any = None,
    ) -> bytes:
        """Write one piece of choice `index`. `stop` is the stop sequence that ended it, where that is known."""
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        if stop is not None:
            choice["stop_reason"] = stop
        return self._event({"choices": [choice]})

    def usage(self, usage: Any) -> bytes:
        """Write the closing event that only counts tokens."""
        return self._event({"choices": [], "usage": usage})

    def _event(self, rest: dict[str, Any]) -> bytes:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        return b"data: " + _encode({**head, **rest}) + b"\n\n"


class _ReplyChoice(Struct):
    message: dict[str, Raw]
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Raw = NULL


class _Reply(Struct):
    choices: list[_ReplyChoice]
    model: str = ""
    usage: Raw = NULL


def entropy(logprobs: Iterable[float]) -> float:
    """Entropy in nats of a distribution of which some outcomes' log-probabilities are known; the rest is one bucket.

    The bucket makes it a lower bound of the true entropy, tight when little mass is left over.
    """
    total = rest = 0.0
    for logprob in logprobs:
        p = math.exp(min(logprob, 0.0))
        total -= p * min(logprob, 0.0) if p > 0 else 0.0
        rest += p
    left = 1.0 - rest
    return total - left * math.log(left) if left > 1e-12 else total
