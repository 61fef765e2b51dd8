"""Signals: named facts observed about a query, before any model is called.

A signal is pure and synchronous and reads only the query. The `Observer` evaluates just those that some policy, predictor or
rule asks for, once per query, and notes what each cost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import ClassVar, final

import msgspec

from fairlead.component import Component
from fairlead.errors import UnknownName
from fairlead.types import Query, Reading, Signals


class Signal(Component, ABC):
    """One kind of fact. Members implement `_read`."""

    family: ClassVar[str] = "signals"

    @final
    def read(self, query: Query) -> Reading:
        """Observe `query`; the reading says what it cost in seconds."""
        start = perf_counter()
        reading = self._read(query)
        return msgspec.structs.replace(reading, seconds=perf_counter() - start)

    def parts(self) -> frozenset[str] | None:
        """Name the parts of every reading. As it is here, a sample's: the same signal gives the same parts for any text.

        A member of which that is not true returns None: not known in advance.
        """
        return frozenset(self.read(Query.ask("sample")).parts)

    @abstractmethod
    def _read(self, query: Query) -> Reading:
        """Observe `query`. Pure: the same query gives the same reading, and the query is not changed."""


class Observer:
    """The signals of one router by name. Names are the user's own; by default a signal goes by its catalogue name."""

    def __init__(self, *, signals: Mapping[str, Signal]) -> None:
        self.signals = dict(signals)

    def read(self, query: Query, needs: Iterable[str]) -> Signals:
        """Read the signals in `needs` and no others.

        Raises:
            UnknownName: if nothing here goes by such a name.
        """
        try:
            return Signals(readings={name: self.signals[name].read(query) for name in needs})
        except KeyError as e:
            raise UnknownName("signal", str(e.args[0]), self.signals) from None

    def check(self, needs: Iterable[str]) -> None:
        """Raise `UnknownName` now rather than at the first query."""
        for name in needs:
            if name not in self.signals:
                raise UnknownName("signal", name, self.signals)
