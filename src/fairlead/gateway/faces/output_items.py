"""The items of a Response, grown from deltas of the chat format, and the events that tell of it. Sans I/O.

A whole reply is one delta, so a streamed answer and a whole one are made by the same code and cannot differ in what they hold.

Thinking and texts are one item at a time, ended when another kind begins. Tool calls stay open to the end: servers write several at once.
A block of signed thinking ends its item, whose ``encrypted_content`` is ``thinking:`` or ``redacted:`` and the marked signature or data.
Only choice 0 is read: the format has no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fairlead.targets.calls import Numbers

Item = dict[str, Any]
Event = dict[str, Any]

THINKING: Final = "thinking:"
REDACTED: Final = "redacted:"
_DELTA: Final = {"output_text": "response.output_text.delta", "refusal": "response.refusal.delta"}
_DONE: Final = {"output_text": "response.output_text.done", "refusal": "response.refusal.done"}


class Output:
    """Grows items. `key` is what their ids are made of: the response's own, and the item's number."""

    __slots__ = ("_calls", "_item", "_key", "_logprobs", "_numbers", "_waiting", "ended", "items")

    def __init__(self, key: str) -> None:
        self._key = key
        self.items: list[Item] = []
        self.ended = ""
        """Why the answer ended, as the chat format says; empty: it did not say."""
        self._item: int | None = None
        """The message or thinking that is being written."""
        self._calls: dict[int, int] = {}
        """Number of a tool call -> number of its item."""
        self._numbers = Numbers()
        self._waiting: dict[int, dict[str, str]] = {}
        """Tool calls whose id or name is not here yet."""
        self._logprobs: list[dict[str, Any]] = []
        """What came before the text that it belongs to."""

    # ------------------------------------------------------------------------------------------------ what comes

    def choice(self, choice: dict[str, Any], said: str = "delta") -> Iterator[Event]:
        """Take a choice of a chunk, or (`said` is ``message``) of a whole reply."""
        if choice.get("index"):
            return
        delta = choice.get(said) or {}
        yield from self._thought(delta.get("reasoning_content"), delta.get("thinking_blocks") or ())
        logprobs = (choice.get("logprobs") or {}).get("content")
        if logprobs:
            self._logprobs += [_logprob(t) for t in logprobs]
        if text := _text(delta.get("content")):
            yield from self._said("output_text", text)
        if refusal := delta.get("refusal"):
            yield from self._said("refusal", refusal)
        for annotation in delta.get("annotations") or ():
            yield from self._annotated(annotation)
        for call in delta.get("tool_calls") or ():
            yield from self._called(self._numbers.of(call.get("index"), call.get("id")), call)
        self.ended = choice.get("finish_reason") or self.ended

    def end(self) -> Iterator[Event]:
        """Say that nothing more comes."""
        for number in sorted(self._waiting):
            yield from self._opened(number)
        if not self.items:
            yield from self._part("output_text")
        status = "incomplete" if self.incomplete else "completed"
        yield from self._close(status)
        for n in sorted(self._calls.values()):
            yield from self._finish_call(n, status)

    @property
    def incomplete(self) -> str:
        """Why the answer is not whole, in the words of the format; empty: it is."""
        return {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self.ended, "")

    # ------------------------------------------------------------------------------------------------ thinking

    def _thought(self, text: Any, blocks: Any) -> Iterator[Event]:
        written = self._open_text("reasoning")
        if isinstance(text, str) and text:
            told = written + text
            # A whole reply has the text of its blocks a second time.
            if not blocks or not all((b.get("thinking") or "") in told for b in blocks):
                yield from self._think(text)
        for block in blocks:
            redacted = block.get("type") == "redacted_thinking"
            whole = "" if redacted else block.get("thinking") or ""
            written = self._open_text("reasoning")
            if written and not whole.startswith(written):
                yield from self._close("completed")
                written = ""
            if redacted or not whole:
                yield from self._begin("reasoning")
            yield from self._think(whole[len(written) :])
            sealed = REDACTED + (block.get("data") or "") if redacted else THINKING + (block.get("signature") or "")
            assert self._item is not None
            self.items[self._item]["encrypted_content"] = sealed
            yield from self._close("completed")

    def _think(self, text: str) -> Iterator[Event]:
        if not text:
            return
        yield from self._begin("reasoning")
        at, item = self._here()
        if not item["summary"]:
            part = {"type": "summary_text", "text": ""}
            item["summary"].append(part)
            yield {"type": "response.reasoning_summary_part.added", **at, "summary_index": 0, "part": dict(part)}
        item["summary"][0]["text"] += text
        yield {"type": "response.reasoning_summary_text.delta", **at, "summary_index": 0, "delta": text}

    # ------------------------------------------------------------------------------------------------ what is said

    def _said(self, kind: str, text: str) -> Iterator[Event]:
        yield from self._part(kind)
        at, item = self._here()
        part = item["content"][-1]
        at = {**at, "content_index": len(item["content"]) - 1}
        event = {"type": _DELTA[kind], **at, "delta": text}
        if kind == "output_text":
            event["logprobs"], self._logprobs = self._logprobs, []
            part["text"] += text
            part["logprobs"] += event["logprobs"]
        else:
            part["refusal"] += text
        yield event

    def _annotated(self, annotation: dict[str, Any]) -> Iterator[Event]:
        """Take a citation. The chat format writes what it is in a field of its own: ``{"type": "url_citation", "url_citation": {…}}``."""
        kind = annotation.get("type")
        inner = annotation.get(str(kind))
        if not isinstance(inner, dict):
            return
        yield from self._part("output_text")
        at, item = self._here()
        part = item["content"][-1]
        flat = {"type": kind, **inner}
        part["annotations"].append(flat)
        yield {
            "type": "response.output_text.annotation.added",
            **at,
            "content_index": len(item["content"]) - 1,
            "annotation_index": len(part["annotations"]) - 1,
            "annotation": flat,
        }

    def _part(self, kind: str) -> Iterator[Event]:
        """Have the message open, and a part of this kind at its end."""
        yield from self._begin("message")
        at, item = self._here()
        if item["content"] and item["content"][-1]["type"] == kind:
            return
        yield from self._close_part()
        part: Item = (
            {"type": kind, "text": "", "annotations": [], "logprobs": []}
            if kind == "output_text"
            else {"type": kind, "refusal": ""}
        )
        item["content"].append(part)
        index = len(item["content"]) - 1
        yield {"type": "response.content_part.added", **at, "content_index": index, "part": _copy(part)}

    def _close_part(self) -> Iterator[Event]:
        at, item = self._here()
        if not item["content"]:
            return
        part = item["content"][-1]
        at = {**at, "content_index": len(item["content"]) - 1}
        if part["type"] == "output_text":
            if self._logprobs:  # of tokens without text, such as the end
                event = {"type": _DELTA["output_text"], **at, "delta": "", "logprobs": self._logprobs}
                part["logprobs"] += self._logprobs
                self._logprobs = []
                yield event
            yield {"type": _DONE["output_text"], **at, "text": part["text"], "logprobs": part["logprobs"]}
        else:
            yield {"type": _DONE["refusal"], **at, "refusal": part["refusal"]}
        yield {"type": "response.content_part.done", **at, "part": _copy(part)}

    # ------------------------------------------------------------------------------------------------ items

    def _begin(self, kind: str) -> Iterator[Event]:
        """Have an item of this kind open, as the one that is being written."""
        if self._item is not None:
            if self.items[self._item]["type"] == kind:
                return
            yield from self._close("completed")
        n = len(self.items)
        item: Item = (
            {"type": "reasoning", "id": f"rs_{self._key}_{n}", "summary": []}
            if kind == "reasoning"
            else {
                "type": "message",
                "id": f"msg_{self._key}_{n}",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
        )
        self._item = n
        self.items.append(item)
        yield {"type": "response.output_item.added", "output_index": n, "item": _copy(item)}

    def _close(self, status: str) -> Iterator[Event]:
        if self._item is None:
            return
        at, item = self._here()
        if item["type"] == "message":
            yield from self._close_part()
            item["status"] = status
        elif item["summary"]:
            part = item["summary"][0]
            at = {**at, "summary_index": 0}
            yield {"type": "response.reasoning_summary_text.done", **at, "text": part["text"]}
            yield {"type": "response.reasoning_summary_part.done", **at, "part": dict(part)}
        n, self._item = self._item, None
        yield {"type": "response.output_item.done", "output_index": n, "item": _copy(item)}

    def _here(self) -> tuple[dict[str, Any], Item]:
        assert self._item is not None
        item = self.items[self._item]
        return {"item_id": item["id"], "output_index": self._item}, item

    def _open_text(self, kind: str) -> str:
        """What is written so far of the thinking that is open."""
        if self._item is None or self.items[self._item]["type"] != kind:
            return ""
        summary = self.items[self._item]["summary"]
        return str(summary[0]["text"]) if summary else ""

    # ------------------------------------------------------------------------------------------------ tool calls

    def _called(self, number: int, call: dict[str, Any]) -> Iterator[Event]:
        custom = call.get("custom")
        inner = custom if isinstance(custom, dict) else call.get("function") or {}
        piece = inner.get("input" if custom else "arguments") or ""
        if number in self._calls:
            yield from self._more(self._calls[number], piece)
            return
        waiting = self._waiting.setdefault(number, {"kind": "", "id": "", "name": "", "text": ""})
        waiting["kind"] = waiting["kind"] or ("custom_tool_call" if custom is not None else "")
        waiting["id"] = waiting["id"] or call.get("id") or ""
        waiting["name"] = waiting["name"] or inner.get("name") or ""
        waiting["text"] += piece
        if waiting["id"] and waiting["name"]:
            yield from self._opened(number)

    def _opened(self, number: int) -> Iterator[Event]:
        """Begin the item of a call, with what came of it so far."""
        yield from self._close("completed")
        call = self._waiting.pop(number)
        n = self._calls[number] = len(self.items)
        custom = call["kind"] == "custom_tool_call"
        item: Item = {
            "type": call["kind"] or "function_call",
            "id": f"{'ctc' if custom else 'fc'}_{self._key}_{n}",
            "status": "in_progress",
            "call_id": call["id"] or f"call_{self._key}_{n}",
            "name": call["name"],
            "input" if custom else "arguments": "",
        }
        self.items.append(item)
        yield {"type": "response.output_item.added", "output_index": n, "item": dict(item)}
        yield from self._more(n, call["text"])

    def _more(self, n: int, piece: str) -> Iterator[Event]:
        if not piece:
            return
        item = self.items[n]
        field, event = _CALLS[item["type"]]
        item[field] += piece
        yield {"type": f"{event}.delta", "item_id": item["id"], "output_index": n, "delta": piece}

    def _finish_call(self, n: int, status: str) -> Iterator[Event]:
        item = self.items[n]
        field, event = _CALLS[item["type"]]
        item["status"] = status
        done = {"type": f"{event}.done", "item_id": item["id"], "output_index": n, field: item[field]}
        if field == "arguments":
            done["name"] = item["name"]
        yield done
        yield {"type": "response.output_item.done", "output_index": n, "item": dict(item)}


_CALLS: Final = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(p.get("text") or "" for p in content or () if isinstance(p, dict))


def _logprob(token: dict[str, Any]) -> dict[str, Any]:
    """Write a token's log-probability with all its fields, some of which servers leave out."""

    def one(t: dict[str, Any]) -> dict[str, Any]:
        text = t.get("token") or ""
        return {"token": text, "logprob": t.get("logprob", 0.0), "bytes": t.get("bytes") or list(text.encode())}

    return {**one(token), "top_logprobs": [one(t) for t in token.get("top_logprobs") or ()]}


def _copy(item: Item) -> Item:
    """Copy an item as it is now: it may grow on before the event is written."""
    return {
        k: [_copy(p) if isinstance(p, dict) else p for p in v] if isinstance(v, list) else v for k, v in item.items()
    }
