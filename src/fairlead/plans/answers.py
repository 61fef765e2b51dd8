"""Answers: what an answer text says, in a normal form, so that two answers can be compared.

A closed set of extractors, by name; plans carry the name as data. Ours, no paper. About 1 µs for a short text.

- ``text``: the whole text, case folded, runs of white space as one space, without closing punctuation.
- ``last_line``: the same of the last line that is not empty.
- ``number``: the last number, so that ``1,000``, ``1000`` and ``1000.0`` are one answer.
- ``choice``: a capital letter from A to E that stands alone: after the last "answer" if that word is there, else the last one.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal, TypeAlias

Extractor: TypeAlias = Literal["text", "last_line", "number", "choice"]

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?!\d|\.\d|,\d{3}|[eE][-+]?\d)")
_NAMED_CHOICE = re.compile(r"(?i:answer(?:\s+is)?)[\s:*]*\(?([A-E])(?![\w'\u2019])")
_CHOICE = re.compile(r"(?<![\w'\u2019])([A-E])(?![\w'\u2019])")


def extract(text: str, how: Extractor) -> str | None:
    """Return the answer in `text` in normal form; None if there is none."""
    match how:
        case "text":
            return _plain(text)
        case "last_line":
            lines = text.strip().splitlines()
            return _plain(lines[-1]) if lines else None
        case "number":
            found = _NUMBER.findall(text)
            return _number(found[-1]) if found else None
        case "choice":
            found = _NAMED_CHOICE.findall(text) or _CHOICE.findall(text)
            return found[-1] if found else None


def _plain(text: str) -> str | None:
    return " ".join(text.casefold().split()).rstrip(".!") or None


def _number(digits: str) -> str:
    number = Decimal(digits.replace(",", ""))
    return f"{number.normalize():f}" if number else "0"
