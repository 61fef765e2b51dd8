"""What is written of a trace, and the chain that shows whether it was changed afterwards. Ours, no paper.

Canonical bytes: JSON with fields in the order of their struct and keys of dicts sorted, so that the same trace gives the same bytes on
every machine. A reply's own bytes and the request's body are not part of them.

    hash_n = SHA-256(hash_(n-1) || body_n),    hash_0 = a constant of the chain

The chain shows a changed byte, a missing row, swapped rows and, with the count and the last hash that the store keeps, a cut-off tail.
It is not signed: whoever may write the file can also compute the whole chain anew, count and head included. Against that, note the
head's hash somewhere else now and then (`fairlead trace verify` prints it, and `--head HASH` looks an old one up).

Cost of a trace with a prompt and an answer of 300 characters each: encode 7 µs, hash 3 µs, decode 14 µs.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
from msgspec import Raw, Struct
from msgspec.structs import replace

from fairlead.errors import ChainBroken, FairleadError, StoreError
from fairlead.plans.base import hook
from fairlead.types import Feedback, Message, Outcome, Trace

TRACES_BEGIN = hashlib.sha256(b"fairlead: chain of traces, 1").digest()
FEEDBACK_BEGIN = hashlib.sha256(b"fairlead: chain of feedback, 1").digest()

T = TypeVar("T", Trace, Feedback)


def _plain(o: Any) -> Any:
    if isinstance(o, np.generic):
        return o.item()
    if isinstance(o, np.ndarray):
        return o.tolist()
    raise TypeError(f"a {type(o).__name__} cannot be written")


_encoder = msgspec.json.Encoder(enc_hook=_plain, order="deterministic")
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind, dec_hook=hook) for kind in (Trace, Feedback)
}


def encode(what: Any) -> bytes:
    """Return canonical bytes.

    Infinite log-probabilities become the largest finite number (JSON knows no infinity).

    Raises:
        StoreError: if something in it cannot be written and read back.
    """
    try:
        body = _encoder.encode(what)
        # Infinities and NaN come out as null, which a number's field would not read back. Rare, so looked at only if there is one.
        if b"null" in body and type(what) in _decoders:
            body = _encoder.encode(_finite(what))
            _decoders[type(what)].decode(body)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError, FairleadError) as e:
        raise StoreError(f"a {type(what).__name__} cannot be stored: {e}") from e
    return body


def decode(body: bytes, kind: type[T]) -> T:
    """Read a trace or a feedback back.

    Raises:
        StoreError: if the bytes are something else, or hold a plan that is not installed here.
    """
    try:
        read: Any = _decoders[kind].decode(body)
    except (msgspec.MsgspecError, FairleadError, ValueError) as e:
        raise StoreError(f"a stored {kind.__name__.lower()} cannot be read: {e}") from e
    if kind is Trace and b'"tool_calls":' in body:
        read = replace(
            read,
            outcome=_raw_calls(read.outcome),
            steps=tuple(replace(s, outcome=_raw_calls(s.outcome)) for s in read.steps),
        )
    return cast(T, read)


def _raw_calls(o: Outcome) -> Outcome:
    calls: Any = o.tool_calls  # decoded, since msgspec decodes no union with Raw
    return o if calls is None else replace(o, tool_calls=Raw(_encoder.encode(calls)))


def link(before: bytes, body: bytes) -> bytes:
    """Return the hash of a row from the hash before it and its body."""
    return hashlib.sha256(before + body).digest()


class Row(Struct, frozen=True):
    """One row of a chain as the store has it."""

    seq: int
    id: str
    body: bytes
    prev: bytes
    hash: bytes


def check(rows: Iterable[Row], *, begin: bytes, count: int, head: bytes, what: str = "trace", after: int = 0) -> int:
    """Follow a chain from its first row to its last; return the number of the last.

    Args:
        rows: in order of `seq`, which counts from `after` + 1.
        begin: what the first row is chained to: a constant, or the hash of row `after`.
        count: how many rows the store says it wrote.
        head: the hash of the last row that the store says it wrote.
        what: what the rows are, for messages.
        after: the last row that was forgotten on purpose.

    Raises:
        ChainBroken: naming the first row that is wrong.
    """
    seq, last, prev = after, f"what was forgotten, up to {after}" if after else "the beginning", begin
    for row in rows:
        name = f"{what} {row.seq} ({row.id})"
        if row.seq <= after:
            raise ChainBroken(f"{name} is there, but everything up to row {after} was forgotten: it was put in later")
        if row.seq != seq + 1:
            gone = f"{seq + 1}" if row.seq == seq + 2 else f"{seq + 1} to {row.seq - 1}"
            raise ChainBroken(f"{what} {gone} missing: {name} comes right after {last}")
        if link(row.prev, row.body) != row.hash:
            raise ChainBroken(f"{name} was changed after it was written: its bytes do not match its hash")
        if row.prev != prev:
            raise ChainBroken(f"{name} does not follow {last}: one of them was changed, moved or put in later")
        seq, last, prev = row.seq, name, row.hash
    if seq < count:
        raise ChainBroken(f"the last {count - seq} of {count} {what} rows are missing: the chain ends at {last}")
    if seq > count or prev != head:
        raise ChainBroken(f"the chain ends at {last}, which is not the last {what} that the store wrote")
    return seq


# ---------------------------------------------------------------------------------------------- what is not written


def lean(trace: Trace) -> Trace:
    """Leave out the request's body and the replies' bytes, which are never stored."""
    changed: dict[str, Any] = {}
    if trace.query.body:
        changed["query"] = replace(trace.query, body={})
    if trace.outcome.reply:
        changed["outcome"] = replace(trace.outcome, reply=b"")
    if any(s.outcome.reply for s in trace.steps):
        changed["steps"] = tuple(replace(s, outcome=replace(s.outcome, reply=b"")) for s in trace.steps)
    return replace(trace, **changed) if changed else trace


def blank(trace: Trace) -> Trace:
    """Put spaces in place of messages, answers, tool calls and what targets said of their failures.

    Roles, lengths, counts, prices and signals stay, so the decision can still be replayed. A signal that is a vector or a keyword
    says something of the text all the same: who minds that must not read such a signal.
    """
    steps = tuple(
        replace(
            s,
            outcome=_blank_outcome(s.outcome),
            call=s.call
            and replace(s.call, messages=None if s.call.messages is None else _blank_messages(s.call.messages)),
        )
        for s in trace.steps
    )
    query = replace(trace.query, messages=_blank_messages(trace.query.messages))
    return replace(trace, query=query, steps=steps, outcome=_blank_outcome(trace.outcome), text_kept=False)


def blank_feedback(feedback: Feedback) -> Feedback:
    """Put spaces in place of a correction."""
    return feedback if not feedback.correction else replace(feedback, correction=" " * len(feedback.correction))


def _blank_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    out = []
    for m in messages:
        if isinstance(m.content, str):
            content: Any = " " * len(m.content)
        else:
            content = m.content and tuple(replace(p, text=" " * len(p.text)) for p in m.content)
        out.append(replace(m, content=content, tool_calls=m.tool_calls and tuple({} for _ in m.tool_calls)))
    return tuple(out)


def _blank_outcome(o: Outcome) -> Outcome:
    # What our own limits say holds no text of the user's, and a replay raises it again word for word.
    error = o.error
    if error is not None and error.kind not in ("budget", "deadline"):
        error = replace(error, message="")
    return replace(
        o, text=" " * len(o.text), tool_calls=None if o.tool_calls is None else Raw(b"[]"), error=error, reply=b""
    )


def _finite(trace: Any) -> Any:
    def outcome(o: Outcome) -> Outcome:
        if o.logprobs is None or all(map(math.isfinite, o.logprobs)):
            return o
        most = sys.float_info.max
        return replace(o, logprobs=tuple(max(-most, min(most, x)) for x in o.logprobs))

    if not isinstance(trace, Trace):
        return trace
    steps = tuple(replace(s, outcome=outcome(s.outcome)) for s in trace.steps)
    return replace(trace, steps=steps, outcome=outcome(trace.outcome))
