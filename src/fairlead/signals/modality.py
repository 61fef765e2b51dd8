"""What a query is made of besides words: pictures, sound, files, by the types of its content parts. Ours, no paper. About 2 µs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fairlead.signals.base import YES_NO, Law, Range, Signal, alike
from fairlead.types import Query, Reading

_RICHEST: Final = ("audio", "image", "file", "text")


class Modality(Signal):
    """Value: the richest there is, of `audio`, `image`, `file`, `text` in this order; null for a query without content.

    Parts, yes or no: `text` (some message has words), `image`, `audio`, `file`, and `other` (a content part of no known type).
    """

    def ranges(self) -> Mapping[str, Range]:
        """Yes or no, and one of them."""
        value = Range(kind="string", among=_RICHEST, null=True)
        return {"value": value, **dict.fromkeys((*_RICHEST, "other"), YES_NO)}

    def laws(self) -> Sequence[Law]:
        """The value is the first of its order that is there."""
        first = (alike({"value": n}, {n: True, **dict.fromkeys(_RICHEST[:i], False)}) for i, n in enumerate(_RICHEST))
        return (*first, alike({"value": None}, dict.fromkeys(_RICHEST, False)))

    def _read(self, query: Query) -> Reading:
        found = query.modalities
        parts = {kind: kind in found for kind in ("audio", "image", "file")}
        parts["text"] = any(m.text for m in query.messages)
        return Reading(
            value=next((kind for kind in _RICHEST if parts[kind]), None),
            parts={**parts, "other": not found.issubset(_RICHEST)},
        )
