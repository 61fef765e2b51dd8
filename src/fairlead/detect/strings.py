"""All strings of a request: through messages, parts, tool calls, and JSON that is written inside strings.

A `Walk` rebuilds a value with each of its strings changed. What makes the format work (roles, types, ids, names of tools) and media are
left as they are. Inside a string that is JSON, all is data: keys, and whole numbers, which become strings if they change. A string beside a
key is changed knowing the key: ``{"pin_ssn": "078051120"}``.

JSON without a backslash in which nothing is found as it is written is not taken apart: large tool results cost no more than other texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

Change: TypeAlias = Callable[[str, str], str]
"""From (a text, the key that it stands at, or nothing) to the text to put in its place."""

_KEPT: Final = frozenset(
    ("role", "type", "id", "tool_call_id", "name", "model", "format", "detail", "encoding", "call_id", "object")
)
_MEDIA: Final = frozenset(("image_url", "input_audio", "file_data", "file_id", "audio"))
NESTED: Final = 3
"""How deep JSON in strings in JSON is read as JSON."""


class Walk:
    """Changes strings by `change`; `holds` says whether it would change a text, and does nothing else."""

    __slots__ = ("change", "holds")

    def __init__(self, change: Change, *, holds: Callable[[str, str], bool]) -> None:
        self.change, self.holds = change, holds

    def request(self, value: Any) -> Any:
        """Return `value`, part of a request, with its texts changed."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.request(v) for v in value]
        if isinstance(value, dict):
            return {
                k: v if k in _MEDIA or (k in _KEPT and isinstance(v, str)) else self.request(v)
                for k, v in value.items()
            }
        return value

    def text(self, text: str, key: str = "", depth: int = 0) -> str:
        """Return `text` changed: its values, if it is a JSON object or array, else as a whole."""
        if depth < NESTED and text.strip()[:1] + text.strip()[-1:] in ("{}", "[]"):
            if "\\" not in text and not self.holds(text, key):
                return text
            try:
                data = msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
                pass  # looks like it, but is not
            else:
                changed = self._data(data, key, depth + 1)
                if changed != data:
                    return msgspec.json.encode(changed).decode()
                # Once more as it is written: a key that is there twice is decoded once.
        return self.change(text, key)

    def _data(self, value: Any, key: str, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value, key, depth)
        if isinstance(value, list):
            return [self._data(v, key, depth) for v in value]
        if isinstance(value, dict):
            return {self.change(k, ""): self._data(v, k, depth) for k, v in value.items()}
        if isinstance(value, int) and not isinstance(value, bool) and (key or abs(value) >= 1_000_000):
            text = str(value)
            changed = self.change(text, key)
            return value if changed == text else changed
        return value
