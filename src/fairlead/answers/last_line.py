"""The last line that is not empty, read as `text` does: for answers that come after their reasons. Ours, no paper. 1 µs."""

from __future__ import annotations

from fairlead.answers.text import Text


class LastLine(Text):
    """Two texts are one answer if their last lines are."""

    def read(self, text: str) -> str | None:
        """Return the last line in normal form; None if there is none."""
        lines = text.strip().splitlines()
        return super().read(lines[-1]) if lines else None
