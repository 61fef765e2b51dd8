"""What lint reports: findings, each with the values that show it, and what it proved."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from fairlead.types import Scalar

Level: TypeAlias = Literal["error", "warning", "note"]
Kind: TypeAlias = Literal[
    "config",
    "never_holds",
    "shadowed",
    "test_always",
    "test_never",
    "conflict",
    "dead_zone",
    "guard_never",
    "guard_always",
    "impasse",
    "taken_away",
    "one_route",
    "late",
    "not_proved",
]


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing found."""

    level: Level
    kind: Kind
    message: str
    route: str = ""
    path: str = "$"
    """Where in the file."""
    witness: dict[str, Scalar] | None = None
    """Values of signals that show it, by key; ``signal (late)`` and ``signal (confidence)`` where these matter. Checked on the rules
    themselves before it is reported."""


class Report(Struct, frozen=True, kw_only=True):
    """All of it."""

    findings: tuple[Finding, ...]
    proved: tuple[str, ...] = ()
    rules: int = 0
    guards: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether there is no warning and no error."""
        return all(f.level == "note" for f in self.findings)
