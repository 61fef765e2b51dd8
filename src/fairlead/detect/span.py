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

INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Soft hyphen, zero width, direction marks, joiners, fillers, variation selectors, tags: all that shows nothing."""
_HIDDEN: Final = re.compile(f"[{INVISIBLE}]")
_SPACES: Final = [0x00A0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000]
_DASHES: Final = [*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63]
# Of all scripts that have digits of their own (Unicode 14, category Nd), the full width apart.
_ZEROS: Final = [
    *(
        0x0660,
        0x06F0,
        0x07C0,
        0x0966,
        0x09E6,
        0x0A66,
        0x0AE6,
        0x0B66,
        0x0BE6,
        0x0C66,
        0x0CE6,
        0x0D66,
        0x0DE6,
        0x0E50,
        0x0ED0,
        0x0F20,
    ),
    *(
        0x1040,
        0x1090,
        0x17E0,
        0x1810,
        0x1946,
        0x19D0,
        0x1A80,
        0x1A90,
        0x1B50,
        0x1BB0,
        0x1C40,
        0x1C50,
        0xA620,
        0xA8D0,
        0xA900,
        0xA9D0,
    ),
    *(
        0xA9F0,
        0xAA50,
        0xABF0,
        0x104A0,
        0x10D30,
        0x11066,
        0x110F0,
        0x11136,
        0x111D0,
        0x112F0,
        0x11450,
        0x114D0,
        0x11650,
        0x116C0,
    ),
    *(
        0x11730,
        0x118E0,
        0x11950,
        0x11C50,
        0x11D50,
        0x11DA0,
        0x16A60,
        0x16AC0,
        0x16B50,
        *range(0x1D7CE, 0x1D800, 10),
        0x1E140,
    ),
    *(0x1E2F0, 0x1E950, 0x1FBF0),
]
_PLAIN: Final = {
    **dict.fromkeys(_SPACES, 32),
    **dict.fromkeys(_DASHES, 45),
    **{zero + i: 0x30 + i for zero in _ZEROS for i in range(10)},
    **{c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)},
}
_OTHER: Final = frozenset(map(chr, _PLAIN))


def plain(text: str) -> tuple[str, Sequence[int] | None]:
    """Return (what a detector reads, the place in `text` of each of its characters and of its end; None: the same places)."""
    if text.isascii():
        return text, None
    text = _translated(text)
    if not _HIDDEN.search(text):
        return text, None
    places = [i for i, c in enumerate(text) if not _HIDDEN.match(c)]
    return "".join([text[i] for i in places]), [*places, len(text)]


def seen(text: str) -> str:
    """Return what `plain` makes of a text, without the places."""
    return text if text.isascii() else _HIDDEN.sub("", _translated(text))


def _translated(text: str) -> str:
    """Return `text` with one character for one; a set of its characters is looked through quicker than the text is."""
    return text if _OTHER.isdisjoint(set(text)) else text.translate(_PLAIN)


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
