"""``POST /v1/completions``: OpenAI's old format for text that goes on from a prompt, over the chat format.

The prompt becomes one message of the user's, so a model of today answers it rather than going on from it. What chat has no place for (`suffix`, `echo`,
`best_of`) is told. Log-probabilities are translated both ways. Thinking, and calls of tools, have no place in the answer.

Cost: about 2 µs a request, 3 µs a whole answer, 3 µs a streamed event.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from msgspec import Raw

from fairlead.gateway.faces.base import Face, Read, Writer, renamed
from fairlead.gateway.faces.chat import DONE
from fairlead.gateway.refusal import Refused, of_validation
from fairlead.targets import wire
from fairlead.types import Outcome, Query

PREFIX: Final = "cmpl_"
_OLD: Final = frozenset({"prompt", "suffix", "echo", "best_of", "logprobs"})
_NOT_HERE: Final = frozenset(
    {"messages", "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "top_logprobs"}
)
"""Fields of chat alone, which the answer would have no place for."""
_IDLE: Final[tuple[Any, ...]] = (None, False, [], {}, "")
_prompt = msgspec.json.Decoder(str | list[str | int | list[int]])
_count = msgspec.json.Decoder(int | None)


class Completions(Face):
    """OpenAI's completions of text."""

    path = "/v1/completions"
    api = "completions"

    async def read(self, fields: dict[str, Raw]) -> Read:
        """Turn a request into the chat format."""
        dropped = [name for name in ("suffix", "echo", "best_of") if self._asks(fields, name)]
        dropped += [name for name in fields if name in _NOT_HERE]
        out = {name: raw for name, raw in fields.items() if name not in _OLD and name not in _NOT_HERE}
        message = {"role": "user", "content": _text(fields)}
        out["messages"] = Raw(msgspec.json.encode([message]))
        try:
            top = _count.decode(fields.get("logprobs", b"null"))
        except msgspec.ValidationError as e:
            raise of_validation(e, "logprobs") from e
        if top is not None:
            out |= {"logprobs": Raw(b"true"), "top_logprobs": Raw(b"%d" % top)}
        return Read(fields=out, dropped=tuple(dropped))

    def _asks(self, fields: dict[str, Raw], name: str) -> bool:
        """Whether a field is there and asks for something: one of the best of as many answers as are given does not."""
        if name not in fields:
            return False
        try:
            value, n = msgspec.json.decode(fields[name]), msgspec.json.decode(fields.get("n", b"1"))
        except msgspec.DecodeError as e:  # a number beyond all bounds
            raise Refused(400, f"{name}: {e}", code="invalid_json", param=name) from e
        return value not in _IDLE and not (name == "best_of" and value == n)

    def whole(self, outcome: Outcome, query: Query, read: Read) -> bytes:
        """Write a ``text_completion``."""
        reply = msgspec.json.decode(outcome.reply or wire.completion(outcome, id=query.id, created=int(time.time())))
        choices = [
            _choice(choice, choice.get("message") or {}, choice.get("finish_reason") or "stop", [0])
            for choice in reply.get("choices") or ()
        ]
        made = _head(query, reply) | {"choices": choices}
        if reply.get("usage") is not None:
            made["usage"] = reply["usage"]
        return msgspec.json.encode(made)

    def writer(self, query: Query, read: Read) -> Writer:
        """Make the writer of one stream."""
        return _Events(query)


def _text(fields: dict[str, Raw]) -> str:
    """Return the prompt. Raises `Refused` if there is not exactly one, or it is no text."""
    if "prompt" not in fields:
        raise Refused(400, "prompt is missing: a text", code="missing_required_parameter", param="prompt")
    try:
        found = _prompt.decode(fields["prompt"])
    except msgspec.ValidationError as e:
        raise of_validation(e, "prompt") from e
    prompts = [found] if isinstance(found, str) else found
    if not all(isinstance(p, str) for p in prompts):
        text = "prompt: token numbers are of one model's tokenizer, and who answers is not known yet; send a text"
        raise Refused(400, text, code="invalid_type", param="prompt", retry=False)
    if len(prompts) != 1:
        text = f"prompt: {len(prompts)} texts; send one in each request"
        raise Refused(400, text, code="too_many_inputs" if prompts else "empty_array", param="prompt", retry=False)
    return str(prompts[0])


def _head(query: Query, of: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": renamed(query.id, PREFIX),
        "object": "text_completion",
        "created": of.get("created") or int(time.time()),
        "model": of.get("model") or query.route,
    }


def _choice(choice: dict[str, Any], said: dict[str, Any], finish: str | None, offset: list[int]) -> dict[str, Any]:
    """Write one choice, or a piece of one; `offset` holds how many characters came before, and is moved on."""
    content = said.get("content")
    if isinstance(content, list):
        content = "".join(p.get("text") or "" for p in content if isinstance(p, dict))
    return {
        "text": (content or "") + (said.get("refusal") or ""),
        "index": choice.get("index") or 0,
        "logprobs": _logprobs((choice.get("logprobs") or {}).get("content"), offset),
        "finish_reason": finish,
    }


def _logprobs(tokens: list[dict[str, Any]] | None, offset: list[int]) -> dict[str, Any] | None:
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset[0])
        offset[0] += len(token.get("token") or "")
    return {
        "tokens": [t.get("token") or "" for t in tokens],
        "token_logprobs": [t.get("logprob") for t in tokens],
        "top_logprobs": [{p["token"]: p["logprob"] for p in t.get("top_logprobs") or ()} for t in tokens],
        "text_offset": offsets,
    }


class _Events(Writer):
    """Writes a stream."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._offsets: dict[int, list[int]] = {}

    def feed(self, events: bytes) -> bytes:
        out = []
        for event in events.split(b"\n\n"):
            if not event.startswith(b"data: "):
                out.append(event + b"\n\n" if event else b"")
                continue
            chunk = msgspec.json.decode(event[6:])
            choices = [
                _choice(c, c.get("delta") or {}, c.get("finish_reason"), self._offsets.setdefault(c.get("index"), [0]))
                for c in chunk.get("choices") or ()
            ]
            pieces = [c for c in choices if c["text"] or c["finish_reason"] or c["logprobs"]]
            usage = chunk.get("usage")
            if not pieces and usage is None:
                continue  # thinking, or a role
            made = _head(self._query, chunk) | {"choices": pieces}
            if usage is not None:
                made["usage"] = usage
            out.append(b"data: " + msgspec.json.encode(made) + b"\n\n")
        return b"".join(out)

    def close(self, outcome: Outcome) -> bytes:
        return DONE

    def broken(self, refused: Refused) -> bytes:
        return b"data: " + refused.body + b"\n\n"
