"""A capital letter from A to E that stands alone: after the last "answer" if that word is there, else the last one. Ours, no paper. 2 µs."""

from __future__ import annotations

import re
from typing import Final

from fairlead.answers.base import Reader

_NAMED: Final = re.compile(r"(?i:answer(?:\s+is)?)[\s:*]*\(?([A-E])(?![\w'\u2019])")
_ALONE: Final = re.compile(r"(?<![\w'\u2019])([A-E])(?![\w'\u2019])")


class Choice(Reader):
    """Two texts are one answer if they choose the same letter."""

    def read(self, text: str) -> str | None:
        """Return the letter; None if there is none."""
        found = _NAMED.findall(text) or _ALONE.findall(text)
        return found[-1] if found else None
