"""What every way to read an answer shares. Votes, probes, merges and the grading of probes all compare answers through these.

A plan holds the *name* of a reader as data (`answers: number`), and readers have no parameters: the same name means the same everywhere, now and
when a trace is replayed. A reader is a pure function of the texts.

Equivalent answers are one group. What failed, and what holds no such answer, is in no group: it agrees with nobody, not even with
another failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

from fairlead import catalog
from fairlead.types import Outcome

Group: TypeAlias = int | None
"""Which of the different answers a text gives, counted from 0 in the order of their first appearance; None: no answer."""


class Reader(ABC):
    """Reads answers off texts. Members implement `read`; those for which sameness is more than an equal normal form, `group` too."""

    @abstractmethod
    def read(self, text: str) -> str | None:
        """Return the answer in `text` in normal form; None if there is none."""

    def group(self, answers: Sequence[str | None]) -> tuple[Group, ...]:
        """Part answers in normal form into groups that say the same. Which answers share a group does not depend on their order."""
        seen: dict[str, int] = {}
        return tuple(None if a is None else seen.setdefault(a, len(seen)) for a in answers)


@cache
def reader(name: str) -> Reader:
    """Return the reader called `name`. Raises `UnknownName` if there is none."""
    found: Reader = catalog.find("answers", name)()
    return found


def extract(text: str, how: str) -> str | None:
    """Return the answer in `text` in normal form, as the reader called `how` reads it; None if there is none."""
    return reader(how).read(text)


def groups(outcomes: Sequence[Outcome], how: str) -> tuple[Group, ...]:
    """Say which outcomes give the same answer; None: it failed, or gives none."""
    found = reader(how)
    return found.group([found.read(o.text) if o.ok else None for o in outcomes])


def same(first: str, second: str, how: str) -> bool:
    """Whether two texts give the same answer; no answer is the same as none."""
    found = reader(how)
    one, other = found.group([found.read(first), found.read(second)])
    return one is not None and one == other


def check(name: str) -> None:
    """Raise `ValueError` if no reader is called so: what a plan says when it is made."""
    # The built-in ones first: names from installed packages take a millisecond to list.
    if name not in catalog.CATALOG["answers"] and name not in catalog.names("answers"):
        raise ValueError(f"no way to read answers is called {name!r}; there are {', '.join(catalog.names('answers'))}")
