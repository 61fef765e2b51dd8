"""Signals: named facts observed about a query, before any model is called.

A signal is pure and synchronous and reads only the query. The `Observer` evaluates just those that some policy, predictor, rule or
guard asks for, once per query, and notes what each cost. Those that may take long (`slow`: a dense embedding, a model) are read off
the event loop, side by side, within a time budget; what is not there in time says nothing, and its reading says that it was late.

What a signal may say is known before it says it: `ranges` names its keys with the values that each can take, and `laws` what always
holds between them, in the language of `fairlead.conditions`. By these `fairlead lint` proves things about rules.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from time import perf_counter
from typing import Any, ClassVar, Final, Literal, TypeAlias, final

import msgspec
from msgspec import Struct

from fairlead.component import Component
from fairlead.errors import UnknownName
from fairlead.types import Query, Reading, Scalar, Signals

log = logging.getLogger(__name__)

Law: TypeAlias = dict[str, Any]
"""A condition as data, over a signal's own keys: ``value``, or a part's name."""


class Range(Struct, frozen=True, kw_only=True):
    """What a key's value can be.

    `low` and `high` bound a number, both included; `among` lists all that a string can be (None: any string). `null`: it may also be
    null (nothing found, or read too late).
    """

    kind: Literal["bool", "int", "number", "string"]
    low: float | None = None
    high: float | None = None
    among: tuple[str, ...] | None = None
    null: bool = False


def within(value: Scalar, allowed: Range) -> bool:
    """Say whether a key whose range is `allowed` may have `value`."""
    match value:
        case None:
            return allowed.null
        case bool():
            return allowed.kind == "bool"
        case str():
            return allowed.kind == "string" and (allowed.among is None or value in allowed.among)
        case float() if allowed.kind != "number" or not isfinite(value):
            return False
        case _ if allowed.kind not in ("int", "number"):
            return False
    return (allowed.low is None or value >= allowed.low) and (allowed.high is None or value <= allowed.high)


TAKEN: Final = frozenset({"value", "all", "any", "not"})
"""What a part cannot be called: a law could not speak of it."""
YES_NO: Final = Range(kind="bool")
COUNT: Final = Range(kind="int", low=0)
SHARE: Final = Range(kind="number", low=0.0, high=1.0)


def implies(a: Law, b: Law) -> Law:
    """State that wherever `a` holds, `b` holds too."""
    return {"any": [{"not": a}, b]}


def alike(a: Law, b: Law) -> Law:
    """State that `a` and `b` hold together, or neither does."""
    return {"all": [implies(a, b), implies(b, a)]}


class Signal(Component, ABC):
    """One kind of fact. Members implement `_read`."""

    family: ClassVar[str] = "signals"
    files: ClassVar[bool] = False
    """Whether a reading needs files that `example` only names: its own tests run `check_signal` on some that are there."""

    @property
    def slow(self) -> bool:
        """Whether a reading may take longer than a millisecond or wait for something: it is then read off the event loop."""
        return False

    @final
    def read(self, query: Query) -> Reading:
        """Observe `query`; the reading says what it cost in seconds."""
        start = perf_counter()
        reading = self._read(query)
        return msgspec.structs.replace(reading, seconds=perf_counter() - start)

    def parts(self) -> frozenset[str] | None:
        """Name the parts that a reading can have; None: not known in advance. As it is here, those that `ranges` names."""
        return frozenset(self.ranges()) - {"value"}

    def ranges(self) -> Mapping[str, Range]:
        """Say what each key can be: ``value`` (left out if there is never one), and the parts by name.

        As it is here, by the types of a sample's parts and value, without bounds. A member that knows more says more.
        """
        reading = self.read(Query.ask("sample"))
        found = {"value": reading.value, **reading.parts} if reading.value is not None else reading.parts
        return {key: Range(kind=_kind(v), null=key == "value") for key, v in found.items()}

    def laws(self) -> Sequence[Law]:
        """State what always holds between the keys: conditions of which each is true of every reading. For proofs; none by default."""
        return ()

    @abstractmethod
    def _read(self, query: Query) -> Reading:
        """Observe `query`. Pure: the same query gives the same reading, and the query is not changed."""


class Observer:
    """The signals of one router by name. Names are the user's own; by default a signal goes by its catalogue name.

    Args:
        signals: by name.
        budget_seconds: how long `observe` waits for slow signals.
        threads: how many slow readings are under way at most, over all queries; further ones wait, and count as late meanwhile.
    """

    def __init__(self, *, signals: Mapping[str, Signal], budget_seconds: float = 0.1, threads: int = 4) -> None:
        self.signals = dict(signals)
        self.budget_seconds = budget_seconds
        self.threads = threads
        self._slow = frozenset(name for name, signal in self.signals.items() if signal.slow)
        self._workers: ThreadPoolExecutor | None = None

    def read(self, query: Query, needs: Iterable[str]) -> Signals:
        """Read the signals in `needs` and no others, each to its end.

        Raises:
            UnknownName: if nothing here goes by such a name.
        """
        try:
            return Signals(readings={name: self.signals[name].read(query) for name in needs})
        except KeyError as e:
            raise UnknownName("signal", str(e.args[0]), self.signals) from None

    async def observe(self, query: Query, needs: Sequence[str]) -> Signals:
        """Read the signals in `needs` as `read` does, the slow ones in threads and within the budget. A slow one that raises is late too."""
        if self._slow.isdisjoint(needs):
            return self.read(query, needs)
        if self._workers is None:
            self._workers = ThreadPoolExecutor(self.threads, thread_name_prefix="fairlead-signal")
        loop = asyncio.get_running_loop()
        start = perf_counter()
        under_way = {
            name: loop.run_in_executor(self._workers, self.signals[name].read, query)
            for name in needs
            if name in self._slow
        }
        readings = self.read(query, [name for name in needs if name not in self._slow]).readings
        await asyncio.wait(under_way.values(), timeout=max(0.0, self.budget_seconds - (perf_counter() - start)))
        for name, future in under_way.items():
            if future.done() and (error := future.exception()) is None:
                readings[name] = future.result()
                continue
            if future.done():
                log.warning("the signal %s could not be read: %s", name, type(error).__name__)
            else:
                future.cancel()  # what has not begun never will; what has, ends unheard
                future.add_done_callback(_heard)
            readings[name] = Reading(confidence=0.0, seconds=perf_counter() - start, late=True)
        return Signals(readings={name: readings[name] for name in needs})

    def stop(self) -> None:
        """Let the threads go."""
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)
            self._workers = None

    def check(self, needs: Iterable[str]) -> None:
        """Raise `UnknownName` now rather than at the first query."""
        for name in needs:
            if name not in self.signals:
                raise UnknownName("signal", name, self.signals)


def _heard(future: asyncio.Future[Reading]) -> None:
    """Take an exception that comes too late, so that asyncio does not complain of it."""
    if not future.cancelled():
        future.exception()


def _kind(value: Scalar) -> Literal["bool", "int", "number", "string"]:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "number"
    return "string"
