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
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from math import inf, isfinite
from time import perf_counter
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar, final

import msgspec
from msgspec import Struct

from fairlead.component import Component
from fairlead.errors import ConfigError, UnknownName
from fairlead.types import Query, Reading, Scalar, Signals

log = logging.getLogger(__name__)

T = TypeVar("T")

Law: TypeAlias = dict[str, Any]
"""A condition as data, over a signal's own keys: ``value``, or a part's name."""


class Range(Struct, frozen=True, kw_only=True):
    """What a key's value can be.

    `low` and `high` bound a number, both included; `among` lists all that a string can be (None: any string). `null`: it may also be
    null (nothing found, or read too late).

    Raises:
        ConfigError: for bounds of what is no number or that leave nothing between them, and for an `among` of what is no string.
    """

    kind: Literal["bool", "int", "number", "string"]
    low: float | None = None
    high: float | None = None
    among: tuple[str, ...] | None = None
    null: bool = False

    def __post_init__(self) -> None:
        if (self.low, self.high) != (None, None) and self.kind not in ("int", "number"):
            raise ConfigError(f"low and high bound a number, not a {self.kind}")
        if self.among is not None and self.kind != "string":
            raise ConfigError(f"among lists strings; this is of kind {self.kind}")
        low, high = -inf if self.low is None else self.low, inf if self.high is None else self.high
        if not low <= high:
            raise ConfigError(f"nothing lies between {self.low} and {self.high}")


def within(value: Scalar, allowed: Range) -> bool:
    """Say whether a key whose range is `allowed` may have `value`. Nothing that a trace could not keep: text with halves of characters, an
    integer of more than 64 bits."""
    match value:
        case None:
            return allowed.null
        case bool():
            return allowed.kind == "bool"
        case str():
            return allowed.kind == "string" and (_written(value) if allowed.among is None else value in allowed.among)
        case float() if allowed.kind != "number" or not isfinite(value):
            return False
        case _ if allowed.kind not in ("int", "number"):
            return False
        case int() if not -(2**63) <= value < 2**64:
            return False
    return (allowed.low is None or value >= allowed.low) and (allowed.high is None or value <= allowed.high)


def _written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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

    def takes_long(self, query: Query) -> bool:
        """Whether it does for this query. A member that is quick for most overrides this, cheaply; its keys can then all be null, for it
        may be late."""
        return self.slow

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

    def laws_at(self, numbers: Sequence[float]) -> Sequence[Law]:
        """State such laws of which there is one for every number: those for `numbers`, which are what rules compare the keys with."""
        return ()

    @abstractmethod
    def _read(self, query: Query) -> Reading:
        """Observe `query`. Pure: the same query gives the same reading, and the query is not changed."""


class Observer:
    """The signals of one router by name. Names are the user's own; by default a signal goes by its catalogue name.

    Args:
        signals: by name.
        budget_seconds: how long `observe` waits for slow signals.
        threads: how many readings of one slow signal are under way at most, over all queries; further ones wait, and count as late
            meanwhile. Each signal has its own, so that one that hangs makes no other late.
    """

    def __init__(self, *, signals: Mapping[str, Signal], budget_seconds: float = 0.1, threads: int = 4) -> None:
        self.signals = dict(signals)
        self.budget_seconds = budget_seconds
        self.threads = threads
        self._slow = frozenset(
            name for name, s in self.signals.items() if s.slow or type(s).takes_long is not Signal.takes_long
        )
        """Those that may be, for some query."""
        self._workers: dict[str, ThreadPoolExecutor] = {}

    def read(self, query: Query, needs: Iterable[str]) -> Signals:
        """Read the signals in `needs` and no others, each to its end.

        Raises:
            UnknownName: if nothing here goes by such a name.
        """
        needs = tuple(needs)
        self.check(needs)
        return Signals(readings={name: self.signals[name].read(query) for name in needs})

    async def observe(self, query: Query, needs: Sequence[str]) -> Signals:
        """Read the signals in `needs`, the slow ones in threads and within the budget. One that is not there in time is late, and one that
        raises is, too: the decision goes on without it, and a guard that reads it holds."""
        slow = [n for n in needs if n in self._slow and self.signals[n].takes_long(query)] if self._slow else ()
        if not slow:
            return Signals(readings={name: self._read(name, query) for name in needs})
        readings = {name: self._read(name, query) for name in needs if name not in slow}
        works: dict[Callable[[], Reading], Executor] = {
            partial(self._read, name, query): self._threads(name) for name in slow
        }
        found = await in_time(works, self.budget_seconds)
        for name, reading in zip(slow, found, strict=True):
            readings[name] = reading or Reading(confidence=0.0, seconds=self.budget_seconds, late=True)
        return Signals(readings={name: readings[name] for name in needs})

    def _read(self, name: str, query: Query) -> Reading:
        try:
            signal = self.signals[name]
        except KeyError:
            raise UnknownName("signal", name, self.signals) from None
        try:
            return signal.read(query)
        except Exception as e:  # noqa: BLE001 - the wall around signals; not the message of what was raised, which may hold the text
            where = traceback.extract_tb(e.__traceback__)[-1]
            log.error("the signal %s broke: %s at %s:%s", name, type(e).__name__, where.filename, where.lineno)
            return Reading(confidence=0.0, late=True)

    def stop(self) -> None:
        """Let the threads go."""
        while self._workers:
            self._workers.popitem()[1].shutdown(wait=False, cancel_futures=True)

    def _threads(self, name: str) -> ThreadPoolExecutor:
        if name not in self._workers:
            self._workers[name] = ThreadPoolExecutor(self.threads, thread_name_prefix=f"fairlead-signal-{name}")
        return self._workers[name]

    def check(self, needs: Iterable[str]) -> None:
        """Raise `UnknownName` now rather than at the first query."""
        for name in needs:
            if name not in self.signals:
                raise UnknownName("signal", name, self.signals)


async def in_time(works: Mapping[Callable[[], T], Executor], seconds: float) -> list[T | None]:
    """Do `works`, each in the threads given, side by side; None for what is not there after `seconds`, or never will be since it raised.

    Whoever is cancelled meanwhile leaves nothing behind: what has not begun never will, what has ends unheard.
    """
    loop = asyncio.get_running_loop()
    futures = [loop.run_in_executor(workers, work) for work, workers in works.items()]
    for future in futures:
        future.add_done_callback(_heard)
    try:
        await asyncio.wait(futures, timeout=seconds)
        return [f.result() if f.done() and not f.cancelled() and f.exception() is None else None for f in futures]
    finally:
        for future in futures:
            future.cancel()


def _heard(future: asyncio.Future[Any]) -> None:
    """Take an exception, so that asyncio does not complain, in words that may hold the text, that nobody did."""
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
