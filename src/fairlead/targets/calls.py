"""Which tool call a piece of a stream in the chat format belongs to: one rule for all who put calls together.

Pieces of one call bear one index. Some servers send no index: they send each call whole. Some give all calls one index: another id begins
another call.
"""

from __future__ import annotations


class Numbers:
    """Numbers the calls of one answer in the order in which they begin."""

    __slots__ = ("_at", "begun")

    def __init__(self) -> None:
        self.begun = 0
        """How many calls have begun."""
        self._at: dict[int, tuple[int, str]] = {}
        """Index -> number and id of the call that bears it now."""

    def of(self, index: int | None, id: str | None) -> int:
        """Return the number of the call that a piece with this index and id belongs to; it is `begun` - 1 if the call begins with it."""
        if index is not None and (at := self._at.get(index)) is not None:
            number, known = at
            if not id or not known or id == known:
                if id and not known:
                    self._at[index] = (number, id)
                return number
        number, self.begun = self.begun, self.begun + 1
        if index is not None:
            self._at[index] = (number, id or "")
        return number
