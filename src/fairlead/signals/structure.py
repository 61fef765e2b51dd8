"""What form of answer a request asks for: JSON, a schema, tools, a stream, several answers; in its text, code or a table. Ours, no paper.

The fields of the request body say most of it; what is missing, or is not of the form that OpenAI's chat API gives it, counts as not
asked for. Whether code or a table is asked for is read off the first and last `READ` characters of the last user message by a few
English patterns: hints, with a linear time. About 18 µs for 300 characters, 310 µs at most, and 1 µs more for each kilobyte of a schema.
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
_CODE: Final = re.compile(
    r"```|\b(?:write|create|implement|give|show|generate|fix|refactor|complete)\b[^.?!\n]{0,60}"
    r"\b(?:code|functions?|script|program|class|query|regex|snippet|sql|python|javascript|typescript|bash|html)\b",
    re.IGNORECASE,
)
_TABLE: Final = re.compile(
    r"\b(?:in|as|into|of|with|make|create|draw|give)\b[^.?!\n]{0,30}\b(?:a|the)\s(?:\w{1,20}\s)?table\b", re.IGNORECASE
)


class _Format(msgspec.Struct):
    type: str = ""


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
        choice: str | _Format = _field(body, "tool_choice", str | _Format, "")
        n: int = _field(body, "n", int, 1)
        text = query.text
        if len(text) > 2 * READ:
            text = text[:READ] + "\n" + text[-READ:]
        asked = {
            "schema": form == "json_schema",
            "json": form in ("json_schema", "json_object"),
            "tool_forced": choice == "required" or not isinstance(choice, str),
            "code": bool(_CODE.search(text)),
            "table": "table" in text.lower() and bool(_TABLE.search(text)),
        }
        return Reading(
            value=next((form for form, there in zip(_FORMS, asked.values(), strict=False) if there), "text"),
            parts={**asked, "stream": _field(body, "stream", bool, False), "tools": len(query.tools), "n": max(1, n)},
        )


def _field(body: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    """Read one field of the body; `default` if it is not there, or not of this kind."""
    raw = body.get(name)
    if raw is None:
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return default
