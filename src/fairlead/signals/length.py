"""How long a query is. Ours, no paper. About 6 µs for 300 characters.

Characters, lines and the token estimate count everything. Words and the share of digits are read off the first `READ`
characters alone (the words of a longer text are scaled up), so that a megabyte costs little more than a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fairlead.pool import characters, estimate_tokens
from fairlead.signals.base import COUNT, SHARE, Law, Range, Signal, alike, implies
from fairlead.types import Query, Reading

READ: Final = 20_000
_DIGITS: Final = "0123456789"
_ASCII_DIGITS: Final = b"0123456789"


class Length(Signal):
    """Value: characters of the last user message.

    Parts: `characters_all` (all messages), `tokens` (estimate for all messages, see `fairlead.pool.estimate_tokens`), `words`,
    `longest_word` (characters), `lines`, and `digits` (share of the characters that are 0-9).
    """

    def ranges(self) -> Mapping[str, Range]:
        """Counts, and a share."""
        counts = dict.fromkeys(("value", "characters_all", "tokens", "words", "lines"), COUNT)
        return {**counts, "longest_word": Range(kind="int", low=0, high=READ), "digits": SHARE}

    def laws(self) -> Sequence[Law]:
        """No text, no lines, words or digits; and words have letters."""
        return (
            alike({"value": 0}, {"lines": 0}),
            alike({"words": 0}, {"longest_word": 0}),
            implies({"value": 0}, {"words": 0, "digits": 0.0}),
            implies({"value": {"gt": 0}}, {"characters_all": {"gt": 0}, "tokens": {"ge": 4}}),
        )

    def _read(self, query: Query) -> Reading:
        text, everything = query.text, characters(query)
        head = text[:READ]
        words = head.split()
        return Reading(
            value=len(text),
            parts={
                "characters_all": everything,
                "tokens": estimate_tokens(query, everything),
                "words": len(words) if len(text) <= READ else round(len(words) * len(text) / READ),
                "longest_word": max(map(len, words), default=0),
                "lines": text.count("\n") + 1 if text else 0,
                "digits": _digits(head) / len(head) if head else 0.0,
            },
        )


def _digits(text: str) -> int:
    """Count digits 0 to 9."""
    if text.isascii():  # ten times as fast
        data = text.encode()
        return len(data) - len(data.translate(None, _ASCII_DIGITS))
    return sum(map(text.count, _DIGITS))
