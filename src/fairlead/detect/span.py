"""Where in a text something was found: never what.

`plain` makes of a text what detectors read: digits and signs of other widths and scripts as ASCII, invisible characters left out. A
`Span` always refers to the text as it was. Nothing for ASCII; about 6 µs for 300 other characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct


class Span(Struct, frozen=True, order=True):
    """Characters `start` to `end` of a text hold something of a `kind`."""

    start: int
    end: int
    kind: str
    form: str = ""
    """Which of its kind, such as ``de_tax_id`` or ``github``."""
    score: float = 1.0
    """How sure, in (0, 1]: an order of rules, not a measured probability."""


REST: Final = 6
"""Of what overlaps with something surer, fewer characters are not kept."""

# Soft hyphen, zero width, direction marks, joiners, variation selectors, tags.
_INVISIBLE: Final = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef"
_HIDDEN: Final = re.compile(f"[{_INVISIBLE}]")
_SPACES: Final = [0x00A0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000]
_DASHES: Final = [*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63]
_ZEROS: Final = [0x0660, 0x06F0, 0x0966, 0x09E6, 0x0BE6, 0x0E50, *range(0x1D7CE, 0x1D800, 10)]
_PLAIN: Final = {
    **dict.fromkeys(_SPACES, 32),
    **dict.fromkeys(_DASHES, 45),
    **{zero + i: 0x30 + i for zero in _ZEROS for i in range(10)},
    **{c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)},
}
_OTHER: Final = re.compile(f"[{''.join(map(re.escape, map(chr, _PLAIN)))}]")


def plain(text: str) -> tuple[str, Sequence[int] | None]:
    """Return (what a detector reads, the place in `text` of each of its characters and of its end; None: the same places)."""
    if text.isascii():
        return text, None
    if _OTHER.search(text):
        text = text.translate(_PLAIN)  # one character for one
    if not _HIDDEN.search(text):
        return text, None
    places = [i for i, c in enumerate(text) if not _HIDDEN.match(c)]
    return "".join([text[i] for i in places]), [*places, len(text)]


def restored(spans: Iterable[Span], places: Sequence[int] | None) -> list[Span]:
    """Return `spans` of a plain text as spans of the text that it was made of."""
    if places is None:
        return list(spans)
    # Up to just after the last character, so that what is invisible behind it stays.
    return [msgspec.structs.replace(s, start=places[s.start], end=places[s.end - 1] + 1) for s in spans]


def settled(spans: Iterable[Span]) -> list[Span]:
    """Return `spans` by place, none overlapping: the surest, then the longest, whole; of the others what sticks out by `REST` or more."""
    kept: list[Span] = []
    for span in sorted(spans):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
            continue
        last = kept[-1]
        better, worse = (span, last) if _rank(span) > _rank(last) else (last, span)
        kept.pop()
        if better.start - worse.start >= REST:
            kept.append(msgspec.structs.replace(worse, end=better.start))
        kept.append(better)
        if worse.end - better.end >= REST:
            kept.append(msgspec.structs.replace(worse, start=better.end))
    return kept


def _rank(span: Span) -> tuple[float, int]:
    return span.score, span.end - span.start
