"""A capital letter from A to E that stands alone: after the last "answer is" or "answer:" if there is one, else the last letter. Ours, no paper. 2 µs.

The article A before a word in small letters is no choice ("I cannot answer. A reliable source is needed."), nor are ``C++`` and ``E.g.``.
"""

from __future__ import annotations

import re
from typing import Final

from fairlead.answers.base import Reader

_LETTER: Final = r"([A-E])(?![\w'\u2019+#]|\.\w)(?!(?<=A)[^\S\n]+(?!(?:is|because|since|as|and|or)\b)[a-z])"
"""No part of a word, of ``C++`` or ``E.g.``; and an A before a word in small letters is an article."""
_NAMED: Final = re.compile(r"(?i:answer(?:\s+is|\s*\**:))[\s:*]*\(?" + _LETTER)
_ALONE: Final = re.compile(r"(?<![\w'\u2019])" + _LETTER)


class Choice(Reader):
    """Two texts are one answer if they choose the same letter."""

    def read(self, text: str) -> str | None:
        """Return the letter; None if there is none."""
        found = _NAMED.findall(text) or _ALONE.findall(text)
        return found[-1] if found else None
