"""The store: traces, feedback, learned state. What a router needs of one, whatever keeps it.

`sqlite.py` keeps it in one file. Writing never blocks the event loop: `append` hands the trace to a writer and returns a future that
is done when the trace has been handed to the operating system.

Lessons. The first judgement of an answer leaves a *lesson* of its weight. An answer is one observation, however many judge it, and weighs in
all what its weightiest judgement does: a later one that counts more leaves a further lesson of what it adds (`rewards.lesson`), any other is
kept and shown, and teaches nothing. A lesson stays until `save_policy(..., learned=[trace id, ...])` keeps the version that has learned it, or
`forget_lessons` gives it up; each mention of an id takes off the oldest lesson of that answer. Whoever learns takes up `unlearned(route)` when
it starts, before it takes any feedback, so that what was accepted is learned once, also when the process died in between.

Others keep tables of their own beside it (money, keys, batches): `tables` makes them, `transact` writes them in the writer's batched
transactions, `rows` and `fetch` read them, and `append(trace, also=...)` writes them in the very transaction of a trace. SQL is the part
that SQLite and PostgreSQL share: ``?`` for a parameter, `ON CONFLICT`, `RETURNING`, no time functions but `Store.now`.
Transactions that write run one after the other, whichever process they come from, so what `work` reads is true until it has written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from fairlead.component import State
from fairlead.rewards import Lesson
from fairlead.types import Feedback, Target, Trace

BEGIN = "as configured"
"""How the note of a version begins that a config began with: it has learned nothing yet, and is never pruned."""
STRAIGHT = "the target itself"
"""Note of the version by which a target is asked for by its own name."""
KEEP = 32
"""Newest versions of a route that `prune` leaves alone."""

T = TypeVar("T")
Value: TypeAlias = int | float | str | bytes | None
"""What a column holds."""
Statement: TypeAlias = tuple[str, tuple[Value, ...]]
"""SQL with ``?`` for each parameter, and the parameters."""


class Sum(NamedTuple):
    """SQL that adds an amount, its last parameter, to what `key`, the others, names. A transaction adds up those that name the same, and runs it once."""

    sql: str
    key: tuple[Value, ...]
    amount: int

    @property
    def statement(self) -> Statement:
        """The same by itself."""
        return self.sql, (*self.key, self.amount)


class Cursor(Protocol):
    """What a statement brought."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def fetchone(self) -> Any:
        """Return the next row as a tuple, or None."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left, as tuples."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Where SQL is run, inside a transaction that somebody else begins and ends."""

    def execute(self, sql: str, params: Sequence[Value] = (), /) -> Cursor:
        """Run one statement."""


class Receipt(Struct, frozen=True, kw_only=True):
    """What became of a feedback.

    ``accepted``: the first judgement of this answer. ``kept``: the first by this source, but another judged the answer before.
    ``duplicate``: the same judgement by the same source was there already; nothing is learned twice. ``revised``: the source changed its
    mind; the new value stands in every report. ``unknown``: no trace has this id. ``spooled``: the database is gone; the judgement is kept
    on this machine, and what it is will be found out when the database is back.
    """

    status: Literal["accepted", "kept", "duplicate", "revised", "unknown", "spooled"]
    trace_id: str
    lesson: Lesson | None = None
    """What is learned of it: all of a first judgement; of a kept or revised one what it adds, if it counts for more than those before."""
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
    pruned: bool = False
    """Only this row is kept: the version can neither be loaded nor be made active."""


class Forgotten(Struct, frozen=True, kw_only=True):
    """How many rows `Store.forget` deleted."""

    traces: int
    feedback: int


class Store(ABC):
    """Append-only traces, feedback, versioned state. Methods without `async` are safe to call in the event loop only where they say so."""

    @abstractmethod
    def start(self) -> None:
        """Open the store. Raises `StoreError`."""

    @abstractmethod
    def stop(self) -> None:
        """Write what is waiting and close."""

    now: str
    """SQL for the time by the database's clock, in seconds since 1970: what machines go by that may not agree on the time."""

    @property
    def spool_bytes(self) -> int:
        """How much of what was acknowledged is not in the database yet."""
        return 0

    @abstractmethod
    def tables(self, ddl: str, *, append_only: Sequence[str] = (), old: Sequence[str] = ()) -> None:
        """Have tables of others made by `start`, which must come after. Statements end in ``;`` and may be run again and again.

        `CREATE TABLE IF NOT EXISTS` and `CREATE INDEX IF NOT EXISTS`, with the types INTEGER (64 bits), REAL (a double), TEXT and BLOB;
        ``INTEGER PRIMARY KEY AUTOINCREMENT`` numbers rows by itself. Name them after their owner (``ledger_...``). Rows of the tables
        `append_only` can neither be changed nor deleted. `old`: what retention runs beside its own, with the time before which things go.
        Raises `StoreError`.
        """

    @abstractmethod
    def append(
        self, trace: Trace, also: Sequence[Sum] = (), *, lost: Callable[[], object] | None = None
    ) -> Future[None] | None:
        """Hand over a trace; returns at once.

        The future is done when the operating system has it, or holds a `StoreError` (None: relaxed mode). An id that is there already
        is refused. `also` is written in the same transaction: both or neither. `lost` is called if neither will ever be, whether somebody
        still waits for the future or not: in the writer's thread, or before this returns, so it does nothing but pass that on.
        """

    @abstractmethod
    def transact(self, name: str, work: Callable[[Connection], T]) -> Future[T]:
        """Run `work` in the next transaction of the writer, among others; for the event loop, returns at once.

        The future has its result once that is committed. What `work` raises undoes what it wrote, and nothing else; a `FairleadError`
        reaches whoever waits as it is and is no failure of the store, anything else becomes a `StoreError`. `work` runs in the writer's
        thread, does nothing but SQL, and may be called again if its transaction was rolled back.

        Args:
            name: of what is written, for messages.
        """

    @abstractmethod
    def rows(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Read what is committed. Raises `StoreError`. Blocks: not for the event loop."""

    @abstractmethod
    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Read what is committed, in a thread. Raises `StoreError`."""

    @abstractmethod
    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lease `name` for `seconds`, or keep it longer if it is this owner's; say whether `owner` has it now. Blocks.

        One owner has it at a time, over all processes of a store; it ends by itself. 0 seconds give it back. Time is the database's.
        """

    @abstractmethod
    async def get(self, id: str) -> Trace | None:
        """Read one trace."""

    @abstractmethod
    async def add_feedback(
        self, feedback: Feedback, *, learning: Collection[str] | None = None, weight: float | None = None
    ) -> Receipt:
        """Keep a judgement together with its lesson, if it leaves one, and say what became of it.

        `learning`: the routes that learn; judgements of other routes' answers (a target asked for by name, say) leave no lesson. None: all.
        `weight`: how much it counts, in [0, 1]; None: its confidence.
        """

    @abstractmethod
    def feedback(self, trace_id: str) -> list[Feedback]:
        """Read the judgements of one answer that stand (the latest of each source, whatever its kind), oldest first. Blocks."""

    @abstractmethod
    def judged(
        self, *, newest: int, routes: Collection[str] | None = None, revised: bool = False
    ) -> list[tuple[Feedback, str]]:
        """Read the `newest` judgements of each key, oldest first, each with the target whose answer it judges. Blocks.

        `routes`: of their answers only. `revised`: also those that do not stand any more, unless they revise one that is not read.
        """

    @abstractmethod
    def unlearned(self, route: str, *, limit: int = 10_000) -> list[tuple[Trace, Lesson]]:
        """Read the lessons of `route` that no version has learned, oldest first, `limit` at most. Blocks.

        What is read here stays until `save_policy` or `forget_lessons` names it.
        """

    @abstractmethod
    def forget_lessons(self, trace_ids: Sequence[str]) -> None:
        """Give up the lessons of traces, which do harm. Blocks."""

    @abstractmethod
    def traces(self, *, newest_first: bool = False, limit: int | None = None) -> Iterator[Trace]:
        """Read traces in order of writing. Blocks: not for the event loop."""

    @abstractmethod
    def count(self) -> int:
        """Return how many traces are kept (those still waiting to be written included)."""

    @abstractmethod
    def save_policy(
        self,
        route: str,
        spec: dict[str, object],
        state: State,
        *,
        note: str,
        activate: bool = True,
        learned: Sequence[str] = (),
    ) -> Snapshot:
        """Keep a policy's spec and state under its digest as the route's next version. Blocks.

        The newest version is taken again if it has the same digest and note. `learned` names the traces whose lessons this version has
        learned; both or nothing is written.
        """

    @abstractmethod
    def load_policy(self, digest: str) -> tuple[dict[str, object], State]:
        """Read a policy's spec and state. Raises `StoreError` if no such digest was kept, or it was pruned. Blocks."""

    @abstractmethod
    def prune(self, route: str, *, keep: int = KEEP) -> int:
        """Delete what old versions have learned, where no trace needs it; return how many went. `save_policy` does it now and then. Blocks."""

    @abstractmethod
    def versions(self, route: str) -> list[Snapshot]:
        """List a route's versions, oldest first. Blocks."""

    @abstractmethod
    def active(self, route: str) -> Snapshot | None:
        """Return a route's active version: one small read, to be asked every second. Blocks."""

    @abstractmethod
    def activate(self, route: str, version: int) -> Snapshot:
        """Make a version the active one (roll back or forward). Raises `StoreError` if there is none, or it was pruned. Blocks."""

    @abstractmethod
    def save_pool(self, digest: str, targets: tuple[Target, ...]) -> None:
        """Keep a pool's targets under its digest. Blocks."""

    @abstractmethod
    def load_pool(self, digest: str) -> tuple[Target, ...]:
        """Read a pool's targets. Raises `StoreError`. Blocks."""

    @abstractmethod
    def save_guards(self, digest: str, data: dict[str, Any]) -> None:
        """Keep a route's guards (`Guards.data`) under their digest. Blocks."""

    @abstractmethod
    def load_guards(self, digest: str) -> dict[str, Any]:
        """Read a route's guards. Raises `StoreError`. Blocks."""

    @abstractmethod
    def forget(self, *, before: float, keep: int = 0) -> Forgotten:
        """Delete the oldest traces and judgements, up to the first of each that is not older than `before` (Unix time). Blocks.

        The newest `keep` traces stay whatever their age. Lessons of what goes are given up. `verify` follows the chains from there on.
        """

    @abstractmethod
    def verify(self) -> int:
        """Check the chain from the first trace to the last, and that the policies, pools and guards that they name are there and unchanged.

        Returns how many traces there are. Raises `ChainBroken`. Blocks.
        """
