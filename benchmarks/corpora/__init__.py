"""Generated, labelled corpora for guards, and what is measured on them. `benchmarks/guards.py` prints it all.

Each module has ``corpus(*, seed)``, which makes labelled examples, and ``measure(*, data, seed)``, which returns a `Section`. Names,
numbers and texts are made up here; nothing is anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table of figures."""

    name: str
    setting: str
    """How it was measured: sizes, splits, seeds, what an interval is."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    marks: dict[str, bool] = field(default_factory=dict)
    """What must hold -> whether it did."""
    notes: tuple[str, ...] = ()
