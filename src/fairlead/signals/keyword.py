"""Named groups of words and phrases that a query may hold. Ours, no paper. About 8 µs a group for 300 characters.

Words match whole and in any case; in scripts that write no spaces between words (Thai, Chinese, Japanese …) they match anywhere.
Spaces in a phrase match any white space. An entry that starts with ``re:`` is a regular expression as it stands (also in any
case); its cost is its author's: only the first `READ` characters of a text are searched.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Final, Self

from fairlead.errors import ConfigError
from fairlead.signals.base import Signal
from fairlead.types import Query, Reading

READ: Final = 20_000
_SPACED: Final = 0x0E00
"""Scripts before this code point (Latin, Greek, Cyrillic, Hebrew, Arabic, Indic …) put spaces between words."""


class Keyword(Signal):
    """Value: the first group, in the order given, with a match in the last user message; None if no group has one.

    Parts: each group's name, yes or no.

    Args:
        rules: group name -> words, phrases, or ``re:`` patterns.

    Raises:
        ConfigError: at the first reading (or `check`), for an empty group or word, or a pattern that does not compile.
    """

    def __init__(self, *, rules: dict[str, list[str]]) -> None:
        self.rules = rules

    @classmethod
    def example(cls) -> Self:
        """One group."""
        return cls(rules={"code": ["print", "def"]})

    def check(self) -> None:
        """Raise `ConfigError` now rather than at the first query."""
        _ = self.patterns

    @cached_property
    def patterns(self) -> dict[str, re.Pattern[str]]:
        """One compiled pattern per group."""
        return {name: _group(words, f"$.rules.{name}") for name, words in self.rules.items()}

    def _read(self, query: Query) -> Reading:
        text = query.text[:READ]
        parts = {name: bool(pattern.search(text)) for name, pattern in self.patterns.items()}
        first = next((name for name, found in parts.items() if found), None)
        return Reading(value=first, parts={**parts})


def _group(words: object, path: str) -> re.Pattern[str]:
    if not isinstance(words, list | tuple) or not words:
        raise ConfigError("a group is a list of one or more words", path=path)
    return re.compile("|".join(_entry(w, f"{path}[{i}]") for i, w in enumerate(words)), re.IGNORECASE)


def _entry(word: object, path: str) -> str:
    if not isinstance(word, str) or not word.strip():
        raise ConfigError("a word is a string that is not empty (quote numbers, yes and no in YAML)", path=path)
    if word.startswith("re:"):
        body = word[3:]
        try:
            groups = re.compile(body, re.IGNORECASE)
        except re.error as e:
            raise ConfigError(f"{body!r} is not a regular expression: {e}", path=path) from e
        if groups.groups:
            raise ConfigError("use (?:…) for groups: entries are joined, which would renumber others", path=path)
        if groups.search("") is not None:
            raise ConfigError(f"{body!r} matches the empty text, so it would match every query", path=path)
        return f"(?:{body})"
    pieces = word.split()
    before = r"(?<!\w)" if _spaced(pieces[0][0]) else ""
    after = r"(?!\w)" if _spaced(pieces[-1][-1]) else ""
    return before + r"\s+".join(map(re.escape, pieces)) + after


def _spaced(character: str) -> bool:
    return character.isalnum() and ord(character) < _SPACED
