"""What time it is where you are, when a query arrives. Ours, no paper. About 2 µs.

It reads `Query.at`, which the router stamps when it admits a query, and never a clock: so a replay sees the same. A query that nobody
admitted (a dry run, a row of a table) has no time: everything is null and the confidence 0, so no test on it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fairlead.errors import ConfigError
from fairlead.signals.base import Law, Range, Signal, alike
from fairlead.types import Query, Reading

_SATURDAY: Final = 5


class Clock(Signal):
    """Value: the hour, 0 to 23. Parts: `minute_of_day` (0 to 1439), `weekday` (Monday is 0, Sunday 6), `weekend` (Saturday or Sunday).

    Args:
        zone: an IANA time zone such as ``Europe/Berlin``; its summer time is heeded.

    Raises:
        ConfigError: at the first reading (or `check`), if no such zone is known.
    """

    __slots__ = ("_zone",)
    _zone: tzinfo

    def __init__(self, *, zone: str = "UTC") -> None:
        self.zone = zone

    def check(self) -> None:
        """Raise `ConfigError` for a zone that is not known here."""
        try:
            if self.zone == "localtime":
                raise ValueError("it is another zone on another machine")
            # UTC needs no database.
            self._zone = UTC if self.zone == "UTC" else ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as e:
            raise ConfigError(
                f"no time zone is called {self.zone!r}; use a name like Europe/Berlin, and if this machine has no zones: pip install tzdata",
                path="$.zone",
            ) from e

    def ranges(self) -> Mapping[str, Range]:
        """Numbers of a calendar; all null for a query that nobody admitted."""
        return {
            "value": Range(kind="int", low=0, high=23, null=True),
            "minute_of_day": Range(kind="int", low=0, high=1439, null=True),
            "weekday": Range(kind="int", low=0, high=6, null=True),
            "weekend": Range(kind="bool", null=True),
        }

    def laws(self) -> Sequence[Law]:
        """Hours are of sixty minutes, the weekend is Saturday and Sunday, and all are known or none is."""
        return (
            *(alike({"value": {"ge": h}}, {"minute_of_day": {"ge": 60 * h}}) for h in range(1, 24)),
            alike({"weekend": True}, {"weekday": {"ge": _SATURDAY}}),
            *(alike({"value": None}, {key: None}) for key in ("minute_of_day", "weekday", "weekend")),
        )

    def _read(self, query: Query) -> Reading:
        try:
            zone = self._zone
        except AttributeError:  # a slot that is not filled yet
            self.check()
            zone = self._zone
        if not query.at:
            return Reading(confidence=0.0)
        try:
            now = datetime.fromtimestamp(query.at, zone)
        except (OverflowError, ValueError, OSError):  # beyond the calendar
            return Reading(confidence=0.0)
        day = now.weekday()
        return Reading(
            value=now.hour,
            parts={"minute_of_day": 60 * now.hour + now.minute, "weekday": day, "weekend": day >= _SATURDAY},
        )
