"""Blocks in tags, such as ``<think>…</think>``, in what a model wrote; and text made safe to stand inside one. Ours, no paper. 5 µs.

Reading is strict: a tag is ``<name>`` or ``</name>``, exactly. Escaping is generous: whatever a reader, or another model, might take for such a tag
is no tag afterwards, so what a model wrote can neither close the block that it is quoted in nor open another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple


class Block(NamedTuple):
    """One block: its tag, what it holds (stripped), and where it stands, tags included."""

    tag: str
    text: str
    start: int
    end: int


def blocks(text: str, tags: Iterable[str]) -> tuple[Block, ...] | None:
    """Return the blocks of `tags` in `text`, in order; None if one of these tags is unbalanced, or stands inside a block."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    for match in _strict(tuple(tags)).finditer(text):
        closes = bool(match[1])
        if opened is None and not closes:
            opened = match
        elif opened is not None and closes and match[2] == opened[2]:
            inside = text[opened.end() : match.start()]
            found.append(Block(match[2], inside.strip(), opened.start(), match.end()))
            opened = None
        else:
            return None
    return None if opened is not None else tuple(found)


def escape(text: str, tags: Iterable[str]) -> str:
    """Return `text` with ``&lt;`` for the ``<`` of everything that looks like one of `tags`, in any case and spacing, with attributes or not."""
    return _loose(tuple(tags)).sub("&lt;", text)


@cache
def _strict(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"<(/?)({'|'.join(map(re.escape, tags))})>")


@cache
def _loose(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<(?=\s*(?:/\s*)?(?:{'|'.join(map(re.escape, tags))})(?!\w))", re.IGNORECASE)
