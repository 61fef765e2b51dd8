"""Fenced blocks, as Markdown has them, in what a model wrote. Ours, no paper. 1 µs; 0.5 ms for 50,000 characters."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_FENCE: Final = re.compile(r"^[ \t]*```[ \t]{0,3}([\w+#-]{0,20})[^`\n]*$", re.MULTILINE)


class Block(NamedTuple):
    """What stands between two fences, and the name of its language as the first one gives it, in lower case; empty if it gives none."""

    language: str
    text: str


def fenced(text: str) -> Block | None:
    """Return the last fenced block that is not blank; None if there is none. One that is never closed goes to the end of the text."""
    last, opened = None, None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        else:
            last, opened = _between(text, opened, match.start()) or last, None
    if opened is not None:
        last = _between(text, opened, len(text)) or last
    return last


def _between(text: str, opened: re.Match[str], end: int) -> Block | None:
    inside = text[opened.end() : end]
    return Block(opened[1].lower(), inside) if inside.strip() else None
