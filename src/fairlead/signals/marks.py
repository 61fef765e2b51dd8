"""Surface marks of what a query is about: code, maths, multiple choice, lists, questions, quotes, JSON, links, numbers.

Ours, no paper: hints, not classifiers. Every pattern is bounded (no nested or unbounded quantifiers next to each other), so the
time is linear in the text; and of a long text only its first and last `READ` characters are searched. About 25 µs for 300
characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from fairlead.signals.base import COUNT, YES_NO, Law, Range, Signal, alike
from fairlead.types import Query, Reading

READ: Final = 2_000

_CODE: Final = re.compile(
    r"```|^[ \t]{0,12}(?:(?:async )?def \w{1,60}\(|class \w{1,60}[:({]|import \w{1,60}[;.]?$|from [\w.]{1,60} import |#include|"
    r"(?:export )?function \w{0,60}\(|(?:const|let|var) \w{1,60} ?=|SELECT [^\n]{1,200} FROM )|\) ?\{$|;$",
    re.MULTILINE,
)
# What a pattern cannot match without is looked for first: single characters, which take next to no time, and words only where they are there.
_CODE_SIGNS: Final = ("`", ";", "{", "#include", "import ", "SELECT ")
_CODE_WORDS: Final = {"(": ("def ", "function ", "class "), ":": ("class ",), "=": ("const ", "let ", "var ")}
_FORMULA: Final = re.compile(
    r"\\(?:frac|sum|int|sqrt|begin|cdot|times|leq|geq|pi)\b|\$[^$\n]{0,80}[\\^_=+][^$\n]{0,80}\$", re.IGNORECASE
)
# Begins with the digit, though that makes the look-behind longer: only then does the search skip to the next digit by itself.
_SUM: Final = re.compile(
    r"\d(?: ?[+*\u00d7\u00f7=^] ?\d| (?i:plus|minus|times|divided by|multiplied by) \d|"
    r"(?<![\d/-]\d)\d{0,11} ?[-\u2212/] ?\d{1,12}(?![\d/-]))"
)
_MATHS_SIGNS: Final = (
    "equation", "integral", "derivative", "polynomial", "solve for", "theorem", "prove that", "how many", "sum of", "product of",
)  # fmt: skip
_MATHS: Final = re.compile(rf"\b(?:{'|'.join(_MATHS_SIGNS)})\b", re.IGNORECASE)
_CHOICE_A: Final = re.compile(r"[Aa](?<![^\s(].)[).:]\s")
_CHOICE_B: Final = re.compile(r"[Bb](?<![^\s(].)[).:]\s")
_CHOICE_ENDS: Final = (")", ".", ":")
_ITEM: Final = re.compile(r"[ \t]{0,8}(?:[-*•]|\d{1,3}[.)])[ \t]")
_ASKS: Final = re.compile(r"\s{0,8}(?:what|who|whom|whose|which|when|where|why|how)\b", re.IGNORECASE)
_QUOTE: Final = re.compile(r'^[ \t]{0,4}>[ \t]?\S|"[^"\n]{20,400}"|[“«„]', re.MULTILINE)
_JSON: Final = re.compile(r'"[\w .-]{1,60}"\s{0,4}:\s{0,4}["\d\[{tfn-]')
_NUMBER: Final = re.compile(r"[0-9]+")
_DIGITS: Final = b"0123456789"
_DIGITS_ONLY: Final = bytes(b if b in _DIGITS else 32 for b in range(256))


_MARKS: Final = ("code", "maths", "multiple_choice", "list", "question", "quote", "json", "url")


class Marks(Signal):
    """Value: how many of the yes-or-no marks are there.

    Parts, yes or no: `code`, `maths`, `multiple_choice`, `list` (two items or more), `question`, `quote`, `json`, `url`.
    Counts: `numbers` (runs of digits) and `longest_number` (digits in the longest run).
    """

    def ranges(self) -> Mapping[str, Range]:
        """Marks are yes or no; of their number there are eight."""
        marks = dict.fromkeys(_MARKS, YES_NO)
        return {"value": Range(kind="int", low=0, high=len(_MARKS)), **marks, "numbers": COUNT, "longest_number": COUNT}

    def laws(self) -> Sequence[Law]:
        """The value counts the marks (said of none, one and all); numbers have digits."""
        return (
            alike({"value": {"ge": 1}}, {"any": [{name: True} for name in _MARKS]}),
            alike({"value": len(_MARKS)}, dict.fromkeys(_MARKS, True)),
            alike({"numbers": 0}, {"longest_number": 0}),
        )

    def _read(self, query: Query) -> Reading:
        text = query.text
        if len(text) > 2 * READ:
            text = text[:READ] + "\n" + text[-READ:]
        lower = text.lower()
        numbers = text.encode().translate(_DIGITS_ONLY).split() if text.isascii() else _NUMBER.findall(text)
        marks = {
            "code": _code(text),
            "maths": _maths(text, lower, bool(numbers)),
            "multiple_choice": _choice(text, lower),
            "list": "\n" in text and sum(1 for line in text.split("\n") if _ITEM.match(line)) >= 2,
            "question": "?" in text or "\uff1f" in text or "\u061f" in text or bool(_ASKS.match(text)),
            "quote": ('"' in text or ">" in text or not text.isascii()) and bool(_QUOTE.search(text)),
            "json": '"' in text and bool(_JSON.search(text)),
            "url": "://" in text,
        }
        return Reading(
            value=sum(marks.values()),
            parts={**marks, "numbers": len(numbers), "longest_number": max(map(len, numbers), default=0)},
        )


def _code(text: str) -> bool:
    for sign in _CODE_SIGNS:
        if sign in text:
            return bool(_CODE.search(text))
    for sign, words in _CODE_WORDS.items():
        if sign in text and any(map(text.__contains__, words)):
            return bool(_CODE.search(text))
    return False


def _choice(text: str, lower: str) -> bool:
    for end in _CHOICE_ENDS:
        if end in text and f"b{end}" in lower:
            return bool(_CHOICE_A.search(text) and _CHOICE_B.search(text))
    return False


def _maths(text: str, lower: str, digits: bool) -> bool:
    # Letters and digits beyond ASCII have forms of their own that a pattern knows and a plain comparison does not.
    other = not text.isascii()
    if (digits or other) and _SUM.search(text):
        return True
    if ("\\" in text or "$" in text) and _FORMULA.search(text):
        return True
    return (other or any(map(lower.__contains__, _MATHS_SIGNS))) and bool(_MATHS.search(text))
