"""The store: traces, feedback, learned state. What a router needs of one, whatever keeps it.

`sqlite.py` keeps it in one file. Writing never blocks the event loop: `append` hands the trace to a writer and returns a future that
is done when the trace has been handed to the operating system.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from fairlead.component import State
from fairlead.types import Feedback, Target, Trace


class Receipt(Struct, frozen=True, kw_only=True):
    """What became of a feedback.

    ``accepted``: new. ``duplicate``: the same judgement by the same source was there already; nothing is learned twice.
    ``revised``: the source changed its mind; the new value stands in every report, but it is not learned again.
    ``unknown``: no trace has this id.
    """

    status: Literal["accepted", "duplicate", "revised", "unknown"]
    trace_id: str
    late_seconds: float = 0.0
    """Time between the answer and its judgement."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """One version of what a route's policy has learned."""

    route: str
    version: int
    digest: str
    at: float
    note: str
    active: bool


class Store(ABC):
    """Append-only traces, feedback, versioned state. Methods without `async` are safe to call in the event loop only where they say so."""

    @abstractmethod
    def start(self) -> None:
        """Open the store. Raises `StoreError`."""

    @abstractmethod
    def stop(self) -> None:
        """Write what is waiting and close."""

    @abstractmethod
    def append(self, trace: Trace) -> Future[None] | None:
        """Hand over a trace; returns at once.

        The future is done when the operating system has it, or holds a `StoreError` (None: relaxed mode). An id that is there already
        is refused.
        """

    @abstractmethod
    async def get(self, id: str) -> Trace | None:
        """Read one trace."""

    @abstractmethod
    async def add_feedback(self, feedback: Feedback) -> Receipt:
        """Keep a judgement, and say what became of it."""

    @abstractmethod
    def feedback(self, trace_id: str) -> list[Feedback]:
        """Read the judgements of one answer that stand (the latest of each source and kind), oldest first. Blocks."""

    @abstractmethod
    def traces(self, *, newest_first: bool = False, limit: int | None = None) -> Iterator[Trace]:
        """Read traces in order of writing. Blocks: not for the event loop."""

    @abstractmethod
    def count(self) -> int:
        """Return how many traces are kept (those still waiting to be written included)."""

    @abstractmethod
    def save_policy(
        self, route: str, spec: dict[str, object], state: State, *, note: str, activate: bool = True
    ) -> Snapshot:
        """Keep a policy's spec and state under its digest as the route's next version. Blocks.

        The newest version is taken again if it has the same digest and note.
        """

    @abstractmethod
    def load_policy(self, digest: str) -> tuple[dict[str, object], State]:
        """Read a policy's spec and state. Raises `StoreError` if no such digest was kept. Blocks."""

    @abstractmethod
    def versions(self, route: str) -> list[Snapshot]:
        """List a route's versions, oldest first. Blocks."""

    @abstractmethod
    def activate(self, route: str, version: int) -> Snapshot:
        """Make a version the active one (roll back or forward). Raises `StoreError` if there is none. Blocks."""

    @abstractmethod
    def save_pool(self, digest: str, targets: tuple[Target, ...]) -> None:
        """Keep a pool's targets under its digest. Blocks."""

    @abstractmethod
    def load_pool(self, digest: str) -> tuple[Target, ...]:
        """Read a pool's targets. Raises `StoreError`. Blocks."""

    @abstractmethod
    def verify(self) -> int:
        """Check the chain from the first trace to the last; return how many there are. Raises `ChainBroken`. Blocks."""
