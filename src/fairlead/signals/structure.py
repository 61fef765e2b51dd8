"""What form of answer a request asks for: JSON, a schema, tools, a stream, several answers; in its text, code or a table. Ours, no paper.

The fields of the request body say most of it; what is missing, or is not of the form that OpenAI's chat API gives it (for a tool's choice also
Anthropic's), counts as not asked for. Whether code or a table is asked for is read off the first and last `READ` characters of the last user message by a few
English patterns: hints, with a linear time. Costs are in docs/guides/signals.md; a schema adds 1 µs for each kilobyte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from fairlead.signals.base import COUNT, YES_NO, Law, Range, Signal, alike, implies
from fairlead.types import Query, Reading

READ: Final = 2_000
_FORMS: Final = ("schema", "json", "tool", "code", "table", "text")
_NOUNS: Final = (
    "code", "function", "script", "program", "class", "query", "regex", "snippet", "sql", "python", "javascript", "typescript", "bash",
    "html",
)  # fmt: skip
_CODE: Final = re.compile(
    r"\b(?:(?P<verb>write|create|implement|give|show|generate|fix|refactor|complete)"
    rf"|(?P<noun>functions|{'|'.join(_NOUNS)}))\b|(?P<end>[.?!\n])"
)
_NEAR: Final = 60
"""Characters between what to do and the code to do it to, at most, in one sentence."""
_TABLE: Final = re.compile(
    r"\b(?:in|as|into|of|with|make|create|draw|give)\b[^.?!\n]{0,30}\b(?:a|the)\s(?:\w{1,20}\s)?table\b", re.IGNORECASE
)


_FORCES: Final = frozenset({"required", "function", "custom", "any", "tool"})
"""Kinds of a tool's choice that leave no other."""


_MOST: Final = 2**53


class _Format(msgspec.Struct):
    type: str = ""


class _Allowed(msgspec.Struct, frozen=True):
    mode: str = ""


class _Choice(msgspec.Struct):
    type: str = ""
    allowed_tools: _Allowed = _Allowed()


class Structure(Signal):
    """Value: the strictest form asked for, of `schema`, `json`, `tool` (a call is forced), `code`, `table`, `text` in this order.

    Parts, yes or no: `json` (an object, with a schema or without), `schema`, `tool_forced`, `stream`, `code`, `table`. Counts: `tools`
    (offered) and `n` (answers asked for, at least 1).
    """

    def ranges(self) -> Mapping[str, Range]:
        """Yes or no, and counts."""
        return {
            "value": Range(kind="string", among=_FORMS),
            **dict.fromkeys(("json", "schema", "tool_forced", "stream", "code", "table"), YES_NO),
            "tools": COUNT,
            "n": Range(kind="int", low=1),
        }

    def laws(self) -> Sequence[Law]:
        """A schema is one of JSON; the value is the first of its order that is asked for."""
        keys = ("schema", "json", "tool_forced", "code", "table")
        first = (
            alike({"value": form}, {key: True, **dict.fromkeys(keys[:i], False)})
            for i, (form, key) in enumerate(zip(_FORMS, keys, strict=False))
        )
        return (implies({"schema": True}, {"json": True}), *first, alike({"value": "text"}, dict.fromkeys(keys, False)))

    def _read(self, query: Query) -> Reading:
        body = query.body
        form = _field(body, "response_format", _Format, _Format()).type
        choice: str | _Choice = _field(body, "tool_choice", str | _Choice, "")
        n: int = _field(body, "n", int, 1)
        text = query.text
        if len(text) > 2 * READ:
            text = text[:READ] + "\n" + text[-READ:]
        asked = {
            "schema": form == "json_schema",
            "json": form in ("json_schema", "json_object"),
            "tool_forced": _forced(choice),
            "code": _asks_for_code(text),
            "table": "table" in text.lower() and bool(_TABLE.search(text)),
        }
        return Reading(
            value=next((form for form, there in zip(_FORMS, asked.values(), strict=False) if there), "text"),
            parts={
                **asked,
                "stream": _field(body, "stream", bool, False),
                "tools": len(query.tools),
                "n": min(max(1, n), _MOST),
            },
        )


def _asks_for_code(text: str) -> bool:
    """Say whether a text holds a fence, or a verb and a noun of code near each other."""
    text = text.lower()
    if "```" in text:
        return True
    if not any(noun in text for noun in _NOUNS):
        return False
    since = -_NEAR - 1
    for mark in _CODE.finditer(text):
        match mark.lastgroup:
            case "verb":
                since = mark.end()
            case "end":
                since = -_NEAR - 1
            case "noun" if mark.start() - since > _NEAR:
                pass
            case _:
                return True
    return False


def _forced(choice: str | _Choice) -> bool:
    if isinstance(choice, str):
        return choice == "required"
    return choice.type in _FORCES or (choice.type == "allowed_tools" and choice.allowed_tools.mode == "required")


def _field(body: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    """Read one field of the body; `default` if it is not there, or not of this kind."""
    raw = body.get(name)
    if raw is None:
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return default
