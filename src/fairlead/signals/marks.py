"""Surface marks of what a query is about: code, maths, multiple choice, lists, questions, quotes, JSON, links, numbers.

Ours, no paper: hints, not classifiers. Every pattern is bounded (no nested or unbounded quantifiers next to each other), so the
time is linear in the text; and of a long text only its first and last `READ` characters are searched. About 25 µs for 300
characters.
"""

from __future__ import annotations

import re
from typing import Final

from fairlead.signals.base import Signal
from fairlead.types import Query, Reading

READ: Final = 2_000

_CODE: Final = re.compile(
    r"```|^[ \t]{0,12}(?:(?:async )?def \w{1,60}\(|class \w{1,60}[:({]|import \w{1,60}[;.]?$|from [\w.]{1,60} import |#include|"
    r"(?:export )?function \w{0,60}\(|(?:const|let|var) \w{1,60} ?=|SELECT [^\n]{1,200} FROM )|\) ?\{$|;$",
    re.MULTILINE,
)
_MATHS: Final = re.compile(
    r"\\(?:frac|sum|int|sqrt|begin|cdot|times|leq|geq|pi)\b|\$[^$\n]{0,80}[\\^_=+][^$\n]{0,80}\$|"
    r"\d ?[+*\u00d7\u00f7=^] ?\d|(?<![\d/-])\d{1,12} ?[-\u2212/] ?\d{1,12}(?![\d/-])|"
    r"\d (?:plus|minus|times|divided by|multiplied by) \d|"
    r"\b(?:equation|integral|derivative|polynomial|solve for|theorem|prove that|how many|sum of|product of)\b",
    re.IGNORECASE,
)
_CHOICE_A: Final = re.compile(r"(?:^|[\s(])[Aa][).:]\s", re.MULTILINE)
_CHOICE_B: Final = re.compile(r"(?:^|[\s(])[Bb][).:]\s", re.MULTILINE)
_ITEM: Final = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)])[ \t]", re.MULTILINE)
_ASKS: Final = re.compile(r"[?\uff1f\u061f]|^\s{0,8}(?:what|who|whom|whose|which|when|where|why|how)\b", re.IGNORECASE)
_QUOTE: Final = re.compile(r'^[ \t]{0,4}>[ \t]?\S|"[^"\n]{20,400}"|[“«„]', re.MULTILINE)
_JSON: Final = re.compile(r'"[\w .-]{1,60}"\s{0,4}:\s{0,4}["\d\[{tfn-]')
_NUMBER: Final = re.compile(r"[0-9]+")


class Marks(Signal):
    """Value: how many of the yes-or-no marks are there.

    Parts, yes or no: `code`, `maths`, `multiple_choice`, `list` (two items or more), `question`, `quote`, `json`, `url`.
    Counts: `numbers` (runs of digits) and `longest_number` (digits in the longest run).
    """

    def _read(self, query: Query) -> Reading:
        text = query.text
        if len(text) > 2 * READ:
            text = text[:READ] + "\n" + text[-READ:]
        marks = {
            "code": bool(_CODE.search(text)),
            "maths": bool(_MATHS.search(text)),
            "multiple_choice": bool(_CHOICE_A.search(text) and _CHOICE_B.search(text)),
            "list": len(_ITEM.findall(text)) >= 2,
            "question": bool(_ASKS.search(text)),
            "quote": bool(_QUOTE.search(text)),
            "json": bool(_JSON.search(text)),
            "url": "://" in text,
        }
        numbers = _NUMBER.findall(text)
        return Reading(
            value=sum(marks.values()),
            parts={**marks, "numbers": len(numbers), "longest_number": max(map(len, numbers), default=0)},
        )
