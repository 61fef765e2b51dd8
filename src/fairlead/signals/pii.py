"""Personal data and secrets in a conversation: how many, and of which kinds. Ours, no paper.

What is found and how well: `fairlead.detect.personal`, `fairlead.detect.credentials`, docs/guides/personal-data.md. The reading says what there
is, never what it says. What is read is what the action `mask` would mask: every text of the request, in messages and in the other fields of the
body. JSON in strings is read value by value, each knowing its key.

About 9 µs for 300 characters of prose, 45 µs with some numbers in it, 150 µs if they are nothing but numbers to look into. Messages are read
each time; of the other fields findings are remembered. What is large (`LARGE`), and all with `presidio`, is read off the event loop; a
guard that reads it holds if it is late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, Final, Literal, TypeAlias

import msgspec

from fairlead.detect import personal
from fairlead.detect.finder import Finder
from fairlead.detect.strings import Walk, fields, messages, size
from fairlead.errors import ConfigError
from fairlead.signals.base import Law, Range, Signal, alike, implies
from fairlead.types import Query, Reading

Found: TypeAlias = tuple[str, float]
"""A kind and how sure."""
SCANS: Final = ("all", "user", "last")
LARGE: Final = 10_000
"""A request of more bytes may take more than a millisecond or two."""
_REMEMBERED: Final = 256
"""So many fields, by digest."""


class PII(Signal):
    """Value: how many were found.

    Parts, yes or no: `found`, `secret` (a key, token, private key or password), and each kind that is looked for.

    Args:
        kinds: what to look for: `email`, `phone`, `iban`, `card`, `ip`, `national_id`, `api_key`, `token`, `private_key`, `password`, and with
            `presidio` `name` and `address`. None: all of these.
        allow: kinds that do not count.
        scan: all texts of the request, or those of the user's messages, or of the last message alone.
        presidio: a spaCy model, such as ``en_core_web_lg``, by which Presidio finds names and addresses.

    Raises:
        ConfigError: at the first reading (or `check`), for a kind or a scan that is not known, or if Presidio is not installed.
    """

    def __init__(
        self,
        *,
        kinds: list[str] | None = None,
        allow: list[str] | None = None,
        scan: Literal["all", "user", "last"] = "all",
        presidio: str | None = None,
    ) -> None:
        self.kinds = kinds
        self.allow = allow
        self.scan = scan
        self.presidio = presidio

    @property
    def slow(self) -> bool:
        """Presidio is."""
        return self.presidio is not None

    def takes_long(self, query: Query) -> bool:
        """Presidio, and what is large."""
        return self.slow or size(query) > LARGE

    def check(self) -> None:
        """Raise `ConfigError` now rather than at the first query."""
        self.finder.load()

    @cached_property
    def finder(self) -> Finder:
        """What looks."""
        if self.scan not in SCANS:
            raise ConfigError(f"scan is one of {', '.join(SCANS)}", path="$.scan")
        return Finder(kinds=self.kinds, without=self.allow or (), model=self.presidio)

    def ranges(self) -> Mapping[str, Range]:
        """A count, and yes or no; null where it was read too late."""
        yes_no = Range(kind="bool", null=True)
        return {
            "value": Range(kind="int", low=0, null=True),
            **dict.fromkeys(("found", "secret", *self.finder.kinds), yes_no),
        }

    def laws(self) -> Sequence[Law]:
        """Something is found iff some kind is, and then the count is above zero; a secret iff one of the secret kinds is."""
        kinds = self.finder.kinds
        return (
            _iff("found", kinds),
            _iff("secret", [k for k in kinds if k in personal.SECRET]),
            alike({"found": True}, {"value": {"ge": 1}}),
        )

    def laws_at(self, numbers: Sequence[float]) -> Sequence[Law]:
        """Where it matters how many: two kinds are two, at least."""
        pairs = combinations(self.finder.kinds, 2) if numbers else ()
        return [implies({a: True, b: True}, {"value": {"ge": 2}}) for a, b in pairs]

    @cached_property
    def _remembered(self) -> dict[bytes, list[Found]]:
        return {}

    def _read(self, query: Query) -> Reading:
        said = messages(query)
        if self.scan == "last":
            said = said[-1:]
        found = self._found("messages", [m for m in said if self.scan != "user" or m.get("role") == "user"])
        if self.scan == "all":
            for name, raw in fields(query).items():
                found += self._found_in(name, raw)
        kinds = {kind for kind, _ in found}
        return Reading(
            value=len(found),
            parts={
                "found": bool(found),
                "secret": not kinds.isdisjoint(personal.SECRET),
                **{k: k in kinds for k in self.finder.kinds},
            },
            confidence=max((score for _, score in found), default=1.0),
        )

    def _found_in(self, name: str, raw: bytes) -> list[Found]:
        """Look through a field of the body, or remember it: definitions of tools come again with each request."""
        key = hashlib.blake2b(raw, digest_size=16, key=name.encode()[:64]).digest()
        found = self._remembered.get(key)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            found = self._remembered[key] = self._found(name, msgspec.json.decode(raw))
        return found

    def _found(self, name: str, value: Any) -> list[Found]:
        found: list[Found] = []

        def look(text: str, key: str) -> str:
            spans = self.finder.find(text, key)
            found.extend((s.kind, s.score) for s in spans)
            return "" if spans else text  # changed: so that JSON is not looked through again as it is written

        Walk(look, holds=lambda text, key: bool(self.finder.find(text, key))).field(name, value)
        return found


def _iff(part: str, kinds: Sequence[str]) -> Law:
    """Write that `part` is true iff one of `kinds` is."""
    return alike({part: True}, {"any": [{k: True} for k in kinds]}) if kinds else {"not": {part: True}}
