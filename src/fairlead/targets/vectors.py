"""Vectors in OpenAI's format: what a driver sends to ``POST {base_url}/embeddings``, and what it reads of the reply.

The request and the reply go through as they came, but for the model's name: numbers or base64, whatever was asked for. What is read is how many
vectors there are, which must be as many as inputs, and the tokens. Cost: about 2 µs for each kB of the reply.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from fairlead.errors import TargetError
from fairlead.targets import upstream
from fairlead.types import Call, Failure, Outcome, Query, Tokens


class _Usage(Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Vector(Struct):
    embedding: Raw


class _Reply(Struct):
    data: list[_Vector]
    model: str | None = None
    usage: _Usage | None = None


def request(call: Call, query: Query, *, model: str) -> dict[str, Raw]:
    """Return the fields to send. Raises `TargetError` (``bad_request``) where a plan wrote messages of its own: those are for chat."""
    if call.messages is not None or call.alone:
        message = f"{call.target} gives vectors, and a plan asked it for an answer; use a `fixed` route"
        raise TargetError(Failure(kind="bad_request", message=message))
    fields = {name: raw for name, raw in query.body.items() if name not in ("stream", "messages")}
    fields |= {name: Raw(msgspec.json.encode(value)) for name, value in call.params.items()}
    return {**fields, "model": Raw(msgspec.json.encode(model))}


def inputs(fields: dict[str, Raw]) -> int:
    """Return how many inputs a request holds: a text or an array of numbers is one."""
    found = msgspec.json.decode(fields.get("input", b'""'))
    return len(found) if isinstance(found, list) and found and not isinstance(found[0], int) else 1


def read(body: bytes, *, count: int, secrets: Iterable[str] = ()) -> Outcome:
    """Read a reply. Raises `TargetError` (``malformed``) if it does not hold `count` vectors."""
    try:
        reply = msgspec.json.decode(body, type=_Reply)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        why = upstream.shorten(str(e), *secrets)
        raise TargetError(Failure(kind="malformed", message=f"the reply holds no vectors: {why}", status=200)) from e
    if len(reply.data) != count:
        message = f"the reply holds {len(reply.data)} vectors for {count} inputs"
        raise TargetError(Failure(kind="malformed", message=message, status=200))
    usage = reply.usage
    counted = None if usage is None else usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    tokens = None if counted is None else Tokens(input=counted)
    return Outcome(model=reply.model or "", tokens=tokens, finish="stop", reply=body)


async def ask(
    line: upstream.Upstream, base_url: str, headers: dict[str, str], secrets: tuple[str, ...], fields: dict[str, Raw]
) -> Outcome:
    """Send a request and read its vectors. Raises `TargetError`."""
    reply = await line.post(base_url.rstrip("/") + "/embeddings", headers, msgspec.json.encode(fields))
    if reply.status != 200:
        raise TargetError(upstream.refusal(reply.status, reply.headers, reply.body, *secrets))
    return read(reply.body, count=inputs(fields), secrets=secrets)


def written(vectors: Iterable[NDArray[np.float32]], *, model: str, tokens: int, as_base64: bool) -> bytes:
    """Write a reply. Base64 holds little-endian float32, as OpenAI has it."""

    def one(vector: NDArray[np.float32]) -> Any:
        if as_base64:
            return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()
        return vector.tolist()

    data = [{"object": "embedding", "index": i, "embedding": one(v)} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})
