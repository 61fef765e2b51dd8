"""Personal data and secrets in a conversation: how many, and of which kinds. Ours, no paper.

What is found and how well: `fairlead.detect.personal`, `fairlead.detect.credentials`, docs/guides/personal-data.md. The reading says what there
is, never what it says. JSON in tool results and in the arguments of tool calls is read value by value, each knowing its key.

About 11 µs for a message of 300 characters of prose, 45 µs with some numbers in it; for 100,000 characters 5 ms of prose, 12 to 60 ms of JSON
full of numbers. Every message is read each time. With `presidio` it takes milliseconds, and is read off the event loop; a guard that
reads it holds if it is late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, Literal

from fairlead.detect import personal
from fairlead.detect.finder import Finder
from fairlead.detect.span import Span
from fairlead.detect.strings import Walk
from fairlead.errors import ConfigError
from fairlead.signals.base import Law, Range, Signal
from fairlead.types import Message, Query, Reading

SCANS: Final = ("all", "user", "last")


class PII(Signal):
    """Value: how many were found.

    Parts, yes or no: `found`, `secret` (a key, token, private key or password), and each kind that is looked for.

    Args:
        kinds: what to look for: `email`, `phone`, `iban`, `card`, `ip`, `national_id`, `api_key`, `token`, `private_key`, `password`, and with
            `presidio` `name` and `address`. None: all of these.
        allow: kinds that do not count.
        scan: which messages: all, the user's, or the last alone.
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

    def check(self) -> None:
        """Raise `ConfigError` now rather than at the first query."""
        self.finder.load()

    @cached_property
    def finder(self) -> Finder:
        """What looks."""
        if self.scan not in SCANS:
            raise ConfigError(f"scan is one of {', '.join(SCANS)}", path="$.scan")
        return Finder(kinds=self.kinds, without=self.allow or (), model=self.presidio)

    def parts(self) -> frozenset[str]:
        """Known without reading anything."""
        return frozenset(("found", "secret", *self.finder.kinds))

    def ranges(self) -> Mapping[str, Range]:
        """A count, and yes or no."""
        return {"value": Range(kind="int", low=0), **{p: Range(kind="bool") for p in sorted(self.parts())}}

    def laws(self) -> Sequence[Law]:
        """Something is found iff some kind is, and then the count is above zero; a secret iff one of the secret kinds is."""
        kinds = self.finder.kinds
        secret = [k for k in kinds if k in personal.SECRET]
        return (
            _iff("found", [{k: True} for k in kinds]),
            _iff("secret", [{k: True} for k in secret]),
            _iff("found", [{"value": {"ge": 1}}]),
        )

    def _read(self, query: Query) -> Reading:
        spans: list[Span] = []

        def look(text: str, key: str) -> str:
            found = self.finder.find(text, key)
            spans.extend(found)
            return "" if found else text  # changed: so that JSON is not looked through again as it is written

        walk = Walk(look, holds=lambda text, key: bool(self.finder.find(text, key)))
        for message in self._scanned(query):
            if isinstance(message.content, str):
                walk.text(message.content)
            else:
                for part in message.content or ():
                    walk.text(part.text)
            if message.tool_calls:
                walk.request(message.tool_calls)
        kinds = {s.kind for s in spans}
        return Reading(
            value=len(spans),
            parts={
                "found": bool(spans),
                "secret": not kinds.isdisjoint(personal.SECRET),
                **{k: k in kinds for k in self.finder.kinds},
            },
            confidence=max((s.score for s in spans), default=1.0),
        )

    def _scanned(self, query: Query) -> Sequence[Message]:
        if self.scan == "all":
            return query.messages
        if self.scan == "user":
            return [m for m in query.messages if m.role == "user"]
        return query.messages[-1:]


def _iff(part: str, conditions: list[Law]) -> Law:
    """Write that `part` is true iff one of `conditions` is."""
    if not conditions:
        return {part: False}
    return {
        "any": [{"all": [{part: True}, {"any": conditions}]}, {"all": [{part: False}, {"not": {"any": conditions}}]}]
    }
