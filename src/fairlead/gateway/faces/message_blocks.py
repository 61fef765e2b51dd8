"""The content blocks of an Anthropic message, grown from deltas of the chat format, and the events that tell of them. Sans I/O.

A whole reply is one delta, so a streamed answer and a whole one are made by the same code and cannot differ in what they hold.

The format has one block open at a time; the chat format lets tool calls grow side by side. So blocks stand in the order in which they began, the
first that is not ended is written as it comes, and what arrives for later ones waits. Thinking and text end when another block begins, a tool
call when its arguments are a whole JSON object and another block begins: nothing but blanks can follow one. Calls that come one after the
other are written at once, those that come interleaved one by one.

A tool's input is an object. Arguments that do not begin one are held to the end and sent as ``{"arguments": "…"}``; those that begin one and
break off are sent as they came, since they are out already.

Citations, pictures and sound of an answer have no place here. Only choice 0 is read: the format has no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from fairlead.targets.calls import Numbers
from fairlead.types import Tokens

Event = dict[str, Any]
Kind = Literal["text", "thinking", "redacted_thinking", "tool_use"]

_DELTA: Final = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
_STOP: Final = {
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}


class _Block(Struct, kw_only=True):
    """One block. `pieces` are its text, thinking or arguments as they came; the first `sent` of them are out."""

    kind: Kind
    pieces: list[str] = []
    sent: int = 0
    begun: bool = False
    sealed: bool = False
    """Nothing more can come for it."""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        if len(self.pieces) - self.sent > 1:
            self.pieces[self.sent :] = ["".join(self.pieces[self.sent :])]
        return "".join(self.pieces)

    @property
    def whole(self) -> bool:
        """Whether nothing but blanks can follow."""
        if self.kind != "tool_use" or self.sealed:
            return True
        return bool(self.pieces) and self.pieces[-1].rstrip()[-1:] in ("}", "") and _object(self.text) is not None


class Blocks:
    """Grows blocks. `key` is what ids are made of where a server gave none; `stops` are the sequences that the request named."""

    __slots__ = ("_at", "_blocks", "_calls", "_finish", "_key", "_numbers", "_refused", "_stops", "stop_sequence")

    def __init__(self, key: str, stops: Iterable[str] = ()) -> None:
        self._key, self._stops = key, frozenset(stops)
        self._blocks: list[_Block] = []
        self._at = 0
        """The block that is being written."""
        self._calls: list[_Block] = []
        self._numbers = Numbers()
        self._finish = ""
        self._refused = False
        self.stop_sequence: str | None = None

    # ------------------------------------------------------------------------------------------------ what comes

    def take(self, choice: dict[str, Any], said: str = "delta") -> list[Event]:
        """Take a choice of a chunk, or (`said` is ``message``) of a whole reply; return the events that say so."""
        if choice.get("index"):
            return []
        delta = choice.get(said) or {}
        self._think(delta.get("reasoning_content"), delta.get("thinking_blocks") or ())
        self._say(_text(delta.get("content")))
        if refusal := delta.get("refusal"):
            self._refused = True
            self._say(refusal)
        for call in delta.get("tool_calls") or ():
            self._call(call)
        self._finish = choice.get("finish_reason") or self._finish
        # Some servers say which of the sequences it was.
        stopped = choice.get("stop_reason")
        if isinstance(stopped, str) and stopped in self._stops:
            self.stop_sequence = stopped
        return list(self._flow())

    def end(self) -> list[Event]:
        """Say that nothing more comes."""
        for n, block in enumerate(self._blocks):
            if block.kind == "tool_use" and not block.sealed:
                block.id = block.id or f"toolu_{self._key}_{n}"
            block.sealed = True
        return list(self._flow())

    def stop_reason(self, finish: str = "") -> str:
        """Say why the answer ended; `finish` is what the outcome says, where no choice said so."""
        if self._refused:
            return "refusal"
        reason = _STOP.get(self._finish or finish)
        if reason is not None:
            return reason
        if self.stop_sequence is not None:
            return "stop_sequence"
        return "tool_use" if self._calls else "end_turn"

    @property
    def content(self) -> list[dict[str, Any]]:
        """The blocks as a whole message has them."""
        return [_written(block) for block in self._blocks]

    # ------------------------------------------------------------------------------------------------ blocks

    def _last(self, kind: Kind) -> _Block | None:
        """Return the last block, if it is of this kind and may grow."""
        last = self._blocks[-1] if self._blocks else None
        return last if last is not None and last.kind == kind and not last.sealed else None

    def _new(self, kind: Kind) -> _Block:
        block = _Block(kind=kind)
        self._blocks.append(block)
        return block

    def _say(self, text: str) -> None:
        if text:
            (self._last("text") or self._new("text")).pieces.append(text)

    def _think(self, text: Any, blocks: Iterable[dict[str, Any]]) -> None:
        rest = text if isinstance(text, str) else ""
        for block in blocks:
            if block.get("type") == "redacted_thinking":
                new = self._new("redacted_thinking")
                new.data, new.sealed = block.get("data") or "", True
                continue
            # A whole reply has the text of its blocks a second time.
            thought = block.get("thinking") or ""
            before, found, after = rest.partition(thought) if thought else ("", "", rest)
            if found or not thought:
                self._muse(before)
                rest = after
            self._sign(thought, block.get("signature") or "")
        self._muse(rest)

    def _muse(self, text: str) -> None:
        if text:
            (self._last("thinking") or self._new("thinking")).pieces.append(text)

    def _sign(self, thought: str, signature: str) -> None:
        """End a block of thinking whose text may have come before, in whole or in part."""
        block = self._last("thinking")
        written = block.text if block is not None else ""
        if block is None or not thought.startswith(written):
            block, written = self._new("thinking"), ""
        if rest := thought[len(written) :]:
            block.pieces.append(rest)
        block.signature, block.sealed = signature, True

    def _call(self, call: dict[str, Any]) -> None:
        inner, id = call.get("function") or call.get("custom") or {}, call.get("id") or ""
        number = self._numbers.of(call.get("index"), id)
        if number == len(self._calls):
            self._calls.append(self._new("tool_use"))
        block = self._calls[number]
        block.id = block.id or id
        block.name = block.name or inner.get("name") or ""
        if piece := inner.get("arguments") or inner.get("input"):
            block.pieces.append(piece)

    # ------------------------------------------------------------------------------------------------ events

    def _flow(self) -> Iterator[Event]:
        """Write what can be written by now."""
        while self._at < len(self._blocks):
            block, n = self._blocks[self._at], self._at
            if not block.begun:
                if block.kind == "tool_use" and not block.sealed and not (block.id and block.name):
                    return
                block.begun = True
                yield {"type": "content_block_start", "index": n, "content_block": _begun(block)}
            if piece := _pending(block):
                kind, field = _DELTA[block.kind]
                yield {"type": "content_block_delta", "index": n, "delta": {"type": kind, field: piece}}
            if not (block.sealed or (n + 1 < len(self._blocks) and block.whole)):
                return
            if block.signature:
                delta = {"type": "signature_delta", "signature": block.signature}
                yield {"type": "content_block_delta", "index": n, "delta": delta}
            block.sealed = True
            yield {"type": "content_block_stop", "index": n}
            self._at += 1


def _pending(block: _Block) -> str:
    """Take what is to be written of a block now."""
    new = block.pieces[block.sent :]
    if not new:
        return ""
    if block.kind == "tool_use" and not block.sent:
        text = block.text.lstrip()
        if not text.startswith("{"):
            if not (block.sealed or (text and block.whole)):
                return ""
            new = [msgspec.json.encode(_input(text)).decode() if _input(text) else ""]
    block.sent = len(block.pieces)
    return "".join(new)


def _begun(block: _Block) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "redacted_thinking":
            return {"type": "redacted_thinking", "data": block.data}
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}


def _written(block: _Block) -> dict[str, Any]:
    out = _begun(block)
    match block.kind:
        case "text":
            out["text"] = block.text
        case "thinking":
            out |= {"thinking": block.text, "signature": block.signature}
        case "tool_use":
            out["input"] = _input(block.text)
    return out


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _input(arguments: str) -> dict[str, Any]:
    """Read a tool's arguments. What is no object is put into one; nothing, and null, are an empty one."""
    found = _object(arguments)
    if found is not None:
        return found
    return {} if arguments.strip() in ("", "null") else {"arguments": arguments}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(p.get("text") or "" for p in content or () if isinstance(p, dict))


def usage(tokens: Tokens | None) -> dict[str, Any]:
    """Count as Anthropic does: input beside what the cache gave and took, not with it. Where nothing was counted, zeros: the format insists on them."""
    t = tokens or Tokens()
    out: dict[str, Any] = {
        "input_tokens": max(0, t.input - t.cached_input - t.cache_write),
        "cache_creation_input_tokens": t.cache_write,
        "cache_read_input_tokens": t.cached_input,
        "output_tokens": t.output,
    }
    if t.reasoning:
        out["output_tokens_details"] = {"thinking_tokens": t.reasoning}
    return out
