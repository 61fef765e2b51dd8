"""All strings of a request: through messages, parts, tool calls, and JSON that is written inside strings.

A `Walk` rebuilds a value with each of its strings changed. What makes the format work (roles, types, ids, names of tools) and media are
left as they are. In what is data (a string that is JSON, metadata, arguments, fields that are not of the format) all is read: keys too, and
whole numbers, which become strings if they change. A string beside a key is changed knowing the key: ``{"pin_ssn": "078051120"}``.

JSON without a backslash in which nothing is found as it is written is not taken apart: large tool results cost no more than other texts.
What is nested deeper than `DEEP` is read as it is written.

Which strings count as texts is said here alone, for all who read requests: `messages` and `fields` give their parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from fairlead.types import Query

Change: TypeAlias = Callable[[str, str], str]
"""From (a text, the key that it stands at, or nothing) to the text to put in its place."""

_KEPT: Final = frozenset(
    ("role", "type", "id", "tool_call_id", "name", "model", "format", "detail", "encoding", "call_id", "object")
)
_MEDIA: Final = frozenset(("image_url", "input_audio", "file_data", "file_id"))
_DATA: Final = frozenset(("metadata", "input", "arguments"))
"""What stands at these is data, wherever they are."""
_FORMAT: Final = frozenset((
    "messages", "tools", "functions", "tool_choice", "function_call", "response_format", "prediction", "audio", "modalities",
    "stream_options", "web_search_options",
))  # fmt: skip
"""Fields of a request that are built as the format has it; others are data."""
NESTED: Final = 3
"""How deep JSON in strings in JSON is read as JSON."""
DEEP: Final = 100
"""How deep lists and objects are gone through, those in strings included."""
_MESSAGES: Final = msgspec.json.Decoder(list[dict[str, Any]])


def messages(query: Query) -> list[dict[str, Any]]:
    """Return the messages as targets get them, fields that routing does not know included; a query without a body has the typed ones alone."""
    raw = query.body.get("messages")
    if raw is not None:
        return _MESSAGES.decode(raw)
    typed: list[dict[str, Any]] = msgspec.to_builtins(query.messages)
    return typed


def fields(query: Query) -> dict[str, bytes]:
    """Return all fields of the body but ``messages`` that may hold text, as JSON. ``model`` is none: a name, which drivers replace."""
    raw = {k: bytes(v) for k, v in query.body.items() if k not in ("messages", "model")}
    return {k: v for k, v in raw.items() if b'"' in v}


def size(query: Query) -> int:
    """Return about how much there is to read, in bytes."""
    if query.body:
        return sum(memoryview(raw).nbytes for raw in query.body.values())
    return sum(len(m.text) for m in query.messages)


def texts(message: dict[str, Any]) -> list[str]:
    """List the texts of a message in order, each as a whole."""
    found: list[str] = []

    def gather(value: Any, depth: int) -> None:
        if isinstance(value, str):
            found.append(value)
        elif depth > DEEP:
            found.append(msgspec.json.encode(value).decode())
        elif isinstance(value, list | tuple):
            for v in value:
                gather(v, depth + 1)
        elif isinstance(value, dict):
            for k, v in value.items():
                if not _kept(k, v):
                    gather(_said(v) if k == "audio" else v, depth + 1)

    gather(message, 0)
    return found


def _kept(key: str, value: Any) -> bool:
    """Whether what stands at `key` is no text: media, and what makes the format work."""
    return key in _MEDIA or (key in _KEPT and isinstance(value, str))


def _said(audio: Any) -> Any:
    """Return what was said of a sound."""
    return audio.get("transcript") if isinstance(audio, dict) else audio


class Walk:
    """Changes strings by `change`; `holds` says whether it would change a text, and does nothing else."""

    __slots__ = ("change", "holds")

    def __init__(self, change: Change, *, holds: Callable[[str, str], bool]) -> None:
        self.change, self.holds = change, holds

    def field(self, name: str, value: Any) -> Any:
        """Return a field of a request with its texts changed."""
        return self.request(value) if name in _FORMAT else self._whole(value, "", 0)

    def request(self, value: Any, level: int = 0) -> Any:
        """Return `value`, part of a request that is built as the format has it, with its texts changed."""
        if isinstance(value, str):
            return self.text(value, level=level)
        if level > DEEP:
            return self._deep(value)
        if isinstance(value, list | tuple):
            return [self.request(v, level + 1) for v in value]
        if isinstance(value, dict):
            return {k: self._at(k, v, level + 1) for k, v in value.items()}
        return value

    def _at(self, key: str, value: Any, level: int) -> Any:
        if _kept(key, value):
            return value
        if key in _DATA:
            return self._whole(value, "" if isinstance(value, str) else key, level)
        if key == "audio" and isinstance(value, dict):
            return {k: self.request(v, level) if k == "transcript" else v for k, v in value.items()}
        return self.request(value, level)

    def text(self, text: str, key: str = "", depth: int = 0, level: int = 0) -> str:
        """Return `text` changed: its values, if it is a JSON object or array, else as a whole. It lies in `depth` strings and `level` lists
        and objects."""
        if depth < NESTED and text.strip()[:1] + text.strip()[-1:] in ("{}", "[]"):
            if "\\" not in text and not self.holds(text, key):
                return text
            try:
                data = msgspec.json.decode(text)
                changed = self._data(data, key, depth + 1, level)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
                pass  # looks like it, but is not, or is nested too deep
            else:
                if changed != data:
                    return msgspec.json.encode(changed).decode()
                # Once more as it is written: a key that is there twice is decoded once.
        return self.change(text, key)

    def _data(self, value: Any, key: str, depth: int, level: int) -> Any:
        if isinstance(value, str):
            return self.text(value, key, depth, level)
        if level > DEEP:
            raise RecursionError
        if isinstance(value, list):
            return [self._data(v, key, depth, level + 1) for v in value]
        if isinstance(value, dict):
            return {self.change(k, ""): self._data(v, k, depth, level + 1) for k, v in value.items()}
        if isinstance(value, int) and not isinstance(value, bool) and (key or abs(value) >= 1_000_000):
            text = str(value)
            changed = self.change(text, key)
            return value if changed == text else changed
        return value

    def _whole(self, value: Any, key: str, level: int) -> Any:
        try:
            return self._data(value, key, 0, level)
        except RecursionError:
            return self._deep(value)

    def _deep(self, value: Any) -> Any:
        """Return what is nested too deep changed as it is written; as a string, if it is no JSON then."""
        text = msgspec.json.encode(value).decode()
        changed = self.change(text, "")
        if changed == text:
            return value
        try:
            return msgspec.json.decode(changed)
        except msgspec.DecodeError:
            return changed
