"""The store in SQL, whatever database keeps it: traces and feedback in two hash chains, policies, pools and guards by their digest.

`sqlite.py` and `postgres.py` open the database and say in what it differs (`database.py`); all that is written and read is here, once.

One thread of each process writes (`writer.py`) and takes what waits into one transaction. Traces are encoded and hashed in that thread.
Several processes may write to one database: each transaction reads the heads of the chains first, alone, so the order of the chain is the
order of the transactions. An id is refused the second time, whichever process comes with it.

What cannot be written (a full disk, say) is never lost silently: the future gets a `StoreError`, the error is logged and counted in
`failures`, and later traces chain to the last one that was written. With ``outage="spool"`` traces and feedback are kept in a file of
this machine while the database is gone (`spool.py`), and written when it is back; what is kept there is acknowledged.

A judgement is written together with its lesson, and a lesson is taken off together with the version that has learned it. So a lesson is
neither lost nor learned twice, whenever the process dies. What has been taught of an answer by less than a whole judgement is noted in a
small table (`taught`), so that a weightier one, days later, teaches just what it adds.

A policy's large arrays are kept once, under digests of their own, however many versions hold them: a version takes as much as it changed.
The policy's own digest is that of the whole, as `Component.digest` gives it.

Old versions of a policy that no trace names, nobody serves and nothing began with are pruned: their row stays, their artifact goes. Which
artifacts no trace names is kept in a small table (`spare`) that the first trace of a version takes it off; whoever changes that table can
make the store forget an artifact, which `verify` then misses, since it goes by the traces. An array goes with the last policy that holds it.

Retention. `forget` deletes the oldest rows of both chains, and notes in `checkpoints` where each chain begins from then on: `verify`
follows it from there. Triggers let nothing go but what a checkpoint covers. A checkpoint carries a seal, the SHA-256 of what it says; like
the chain it is not signed, so whoever may write the database can also make up a checkpoint: note heads somewhere else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from fairlead import chain
from fairlead.component import State, digest, pack, pack_apart, unpack, unpack_apart
from fairlead.database import Database
from fairlead.errors import ChainBroken, StateError, StoreError
from fairlead.rewards import LEAST, Lesson, lesson
from fairlead.spool import Spools
from fairlead.sqlproof import PAGE, TraceColumns, checkpoint, deflated_row, inflated, seal, verified
from fairlead.store import (
    BEGIN,
    KEEP,
    STRAIGHT,
    Connection,
    Forgotten,
    Receipt,
    Snapshot,
    Statement,
    Store,
    Sum,
    T,
    Value,
)
from fairlead.types import Feedback, Target, Trace
from fairlead.writer import Answer, Apart, Became, Heads, Job, Work, Writer

log = logging.getLogger(__name__)

NUL = "\0"
FIRST_OF_WEIGHT = 2
"""How `lessons.further` marks a further lesson that is the first to count for half or more (`Lesson.whole`)."""
READ = 50
"""How many times `newest` rows `judged` looks through at most."""
PRUNE_EVERY = 16
"""Versions of a route from one pruning to the next."""
GRACE_SECONDS = 3600.0
"""How long a version stays after another took its place: requests that it decided may still be running, their traces yet to come."""
FORGET = 1000
"""Rows that one transaction of `forget` deletes, so that others need not wait for long."""
FUTURE_SECONDS = 86400.0
"""A row from so far in the future has a wrong time, and does not hold up `forget`."""
HOUSEKEEPING_SECONDS = 3600.0
"""From one round of `forget` to the next, and how long the process that does it has the lease."""
LOOK_SECONDS = 60.0
"""How often a process looks for what dead ones left in their spools."""

_INSERT = "INSERT INTO artifacts VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


class _Append(Job):
    """One trace for the writer."""

    __slots__ = ("also", "body", "id", "lost", "store", "trace")

    def __init__(
        self,
        store: SQLStore,
        trace: Trace,
        answer: Answer,
        also: Sequence[Sum],
        lost: Callable[[], object] | None,
    ) -> None:
        super().__init__(f"trace {trace.id}", answer)
        self.store, self.trace, self.id, self.also, self.body = store, trace, trace.id, also, b""
        self.lost = lost

    def do(self, connection: Connection, heads: Heads) -> None:
        """Encode and chain it."""
        t = self.trace
        self.body = self.body or chain.encode(t)
        columns = (t.id, t.at, t.seconds, t.query.route, t.outcome.target)
        _add_trace(connection, heads, columns, t.decision.policy_digest, self.body, self.also)

    def record(self) -> bytes:
        """What a spool keeps of it."""
        self.body = self.body or chain.encode(self.trace)
        return _pack(("trace", self.body, list(self.also)))

    def why(self, database: Database, e: Exception) -> Exception:
        """Name the one error that is the caller's."""
        return StoreError(f"a trace with the id {self.id} is there already") if database.known(e) else e

    def ended(self, became: Became) -> None:
        """Let the store find it in memory, or forget it; tell whoever wants to know that it is lost."""
        self.store._appended(self.trace, self.body if became == "written" else None)
        if became == "lost" and self.lost is not None:
            self.lost()


class _Judge(Job):
    """One judgement for the writer."""

    __slots__ = ("behind", "feedback", "learning", "weight")

    def __init__(self, feedback: Feedback, answer: Answer, learning: Collection[str] | None, weight: float) -> None:
        super().__init__(f"feedback on {feedback.trace_id}", answer)
        self.feedback, self.behind, self.learning, self.weight = feedback, feedback.trace_id, learning, weight

    def do(self, connection: Connection, heads: Heads) -> Receipt:
        """Chain it and leave its lesson."""
        return _judge(connection, heads, self.feedback, self.learning, self.weight)

    def record(self) -> bytes:
        """What a spool keeps of it."""
        learning = None if self.learning is None else sorted(self.learning)
        return _pack(("feedback", chain.encode(self.feedback), learning, self.weight))

    def promise(self) -> Receipt:
        """Tell that it is kept, and will be judged when the database is back."""
        return Receipt(status="spooled", trace_id=self.feedback.trace_id)


class _KeptTrace(Job):
    """A trace out of a spool."""

    __slots__ = ("also", "body", "columns", "statements")

    def __init__(self, body: bytes, also: list[Sum], statements: list[Statement]) -> None:
        self.columns = msgspec.json.decode(body, type=TraceColumns)
        super().__init__(f"trace {self.columns.id}", None)
        self.body, self.also = body, also
        self.statements = statements
        """What spools had of charges before they were added up."""

    def do(self, connection: Connection, heads: Heads) -> None:
        """Chain it."""
        t = self.columns
        columns = (t.id, t.at, t.seconds, t.query.route, t.outcome.target)
        _add_trace(connection, heads, columns, t.decision.policy_digest, self.body, self.also)
        for sql, params in self.statements:
            connection.execute(sql, params)


_pack = msgspec.msgpack.encode


def _kept(record: bytes) -> Job:
    """Make a job of what a spool kept."""
    kind, body, *more = msgspec.msgpack.decode(record)
    if kind == "trace":
        sums = [Sum(each[0], tuple(each[1]), each[2]) for each in more[0] if len(each) == 3]
        return _KeptTrace(body, sums, [(each[0], tuple(each[1])) for each in more[0] if len(each) == 2])
    return _Judge(chain.decode(body, Feedback), None, more[0], more[1])


class SQLStore(Store):
    """Keeps everything in a database; made by `SQLiteStore` and `PostgresStore`.

    Args:
        database: where.
        relaxed: `append` returns None and nobody waits; a crash may lose the traces that were still queued.
        text: keep messages, answers and corrections; if not, they are blanked before they are written.
        most_waiting: `append` refuses (with a `StoreError`, logged and counted) while so many wait for a disk that does not keep up.
        recent_bytes: how much of the newest traces is kept in memory, so that feedback soon after the answer reads no disk.
        read_only: open for reading beside live writers.
        spools: where traces and feedback wait while the database is gone; None: they are refused.
        retention_days: `forget` what is older, every hour, in one process of those that have the store open; None: keep everything.
    """

    def __init__(
        self,
        database: Database,
        *,
        relaxed: bool = False,
        text: bool = True,
        most_waiting: int = 8192,
        recent_bytes: int = 8_000_000,
        read_only: bool = False,
        spools: Spools | None = None,
        retention_days: float | None = None,
    ) -> None:
        self.database = database
        self.name, self.now = f"the store {database.name}", database.now
        self.relaxed, self.text = relaxed, text
        self.most_waiting, self.recent_bytes, self.read_only = most_waiting, recent_bytes, read_only
        self.spools, self.retention_days = spools, retention_days
        self._writer = Writer(database, spools=spools, kept=_kept)
        self._ddl: list[str] = []
        self._old: list[str] = []
        self._pending: dict[str, Trace] = {}
        self._recent: dict[str, bytes] = {}
        self._recent_size = 0
        self._known = 0
        """How many traces there were when that was last read, and those of this process since."""
        self._keeper: threading.Thread | None = None
        self._ending = threading.Event()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database.name!r}, relaxed={self.relaxed}, text={self.text})"

    @property
    def failures(self) -> int:
        """What could not be written since the start."""
        return self._writer.failures

    @property
    def commits(self) -> int:
        """Transactions since the start."""
        return self._writer.commits

    @property
    def spooled(self) -> int:
        """What was kept in a file since the start, because the database was gone."""
        return self._writer.spooled

    @property
    def spool_bytes(self) -> int:
        """How much of that is not in the database yet."""
        return 0 if self.spools is None else self.spools.waiting_bytes

    @property
    def up(self) -> bool:
        """Whether the database was there when it was last written to."""
        return self._writer.up

    # ------------------------------------------------------------------------------------------------ its life

    def start(self) -> None:
        """Open the database and begin to write.

        Raises:
            StoreError: if it cannot be opened, is no store, or is of another version.
        """
        if self.read_only:
            self.database.schema()
            return
        if self._writer.open:
            return
        self.database.prepare(self._ddl)
        connection: Connection | None = None
        try:
            connection = self.database.open()
            self._compare(connection)
        except (self.database.error, StoreError) as e:
            if connection is not None:
                self.database.close(connection)
            raise e if isinstance(e, StoreError) else self._unreadable(e) from e
        self._writer.start(connection)
        if self.spools is not None or self.retention_days is not None:
            self._ending.clear()
            self._keeper = threading.Thread(target=self._keep_house, name="fairlead-housekeeping", daemon=True)
            self._keeper.start()

    def stop(self) -> None:
        """Write what is waiting and close."""
        if self._keeper is not None:
            self._ending.set()
            self._keeper.join()
            self._keeper = None
        if self._writer.open:
            self._writer.stop()
        self.database.stop()

    def flush(self) -> None:
        """Block until everything handed over so far is written (or has failed)."""
        self._blocking("flush", lambda _, __: None)

    def _compare(self, connection: Connection) -> None:
        """Log whether the chains end where their heads say."""
        with self.database.transaction(connection):
            for name, (count, _) in Heads(connection, self.database.for_update).read.items():
                begin = checkpoint(connection, name)[0]
                (last,) = connection.execute(f"SELECT max(seq) FROM {name}").fetchone()  # ours, not input
                if name == "traces":
                    self._known = count - begin
                if (begin if last is None else last) != count:
                    log.error(
                        "%s: %d %s rows were written, but the last one is row %s: somebody changed it. "
                        "Writing goes on behind the gap; `fairlead store verify` tells more",
                        *(self.name, count, name, last),
                    )

    def _blocking(self, name: str, work: Work) -> Any:
        """Let the writer do something, and wait for it."""
        if self.read_only:
            raise StoreError(f"{self.name} is open for reading only")
        return self._writer.blocking(name, work)

    def _unreadable(self, e: Exception) -> StoreError:
        return StoreError(f"{self.name} cannot be read ({self.database.says(e)})")

    def _keep_house(self) -> None:
        """Look for what dead processes left; be the one that forgets, if nobody else is."""
        owner, next_round = f"{os.getpid()}-{os.urandom(4).hex()}", 0.0
        while not self._ending.wait(min(LOOK_SECONDS, HOUSEKEEPING_SECONDS)):
            self._writer.look()
            if self.retention_days is None or time.monotonic() < next_round:
                continue
            next_round = time.monotonic() + HOUSEKEEPING_SECONDS
            try:
                if self.lease("housekeeping", owner, HOUSEKEEPING_SECONDS * 0.9):
                    self.forget(before=time.time() - 86400.0 * self.retention_days)
            except StoreError as e:
                log.error("%s: nothing was forgotten this time: %s", self.name, e)

    # ------------------------------------------------------------------------------------------------ tables of others

    def tables(self, ddl: str, *, append_only: Sequence[str] = (), old: Sequence[str] = ()) -> None:
        """Have tables of others made by `start`. Raises `StoreError` if it is started."""
        if self._writer.open:
            raise StoreError(f"{self.name} is started; name tables before")
        self._ddl += [
            statement for part in ddl.split(";") if (statement := part.strip()) and statement not in self._ddl
        ]
        self._ddl += [s for table in append_only for s in self.database.append_only(table) if s not in self._ddl]
        self._old += [s for s in old if s not in self._old]

    def transact(self, name: str, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run `work` in the next transaction of the writer; see `Store.transact`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if self.read_only:
            raise StoreError(f"{self.name} is open for reading only")
        self._writer.put(Apart(name, answer, work), loop, most=self.most_waiting)
        return answer

    def rows(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Read what is committed. Raises `StoreError`. Blocks: not for the event loop."""
        return self._rows(sql, tuple(params))

    async def fetch(self, sql: str, params: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Read what is committed, in a thread. Raises `StoreError`."""
        return await asyncio.to_thread(self.rows, sql, params)

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease, keep it or give it back (0 seconds); say whether `owner` has it now. Blocks."""

        def work(connection: Connection, _: Heads) -> bool:
            (now,) = connection.execute(f"SELECT {self.database.now}").fetchone()
            connection.execute("DELETE FROM leases WHERE until <= ? OR (name = ? AND owner = ?)", (now, name, owner))
            if seconds <= 0.0:
                return False
            new = (name, owner, now + seconds)
            return connection.execute("INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT DO NOTHING", new).rowcount == 1

        taken: bool = self._blocking(f"lease {name}", work)
        return taken

    # ------------------------------------------------------------------------------------------------ traces

    def append(
        self, trace: Trace, also: Sequence[Sum] = (), *, lost: Callable[[], object] | None = None
    ) -> asyncio.Future[None] | None:
        """Hand over a trace; see `Store.append`. For the event loop; returns at once.

        Returns:
            A future that is done when the operating system has the trace, or holds a `StoreError`: the disk failed, the id is
            there already, or too many wait. None in relaxed mode, where such errors are only logged and counted.
        """
        loop = None if self.relaxed else asyncio.get_running_loop()
        answer = None if loop is None else loop.create_future()
        trace = chain.lean(trace) if self.text else chain.blank(chain.lean(trace))
        job = _Append(self, trace, answer, also, lost)
        self._pending.setdefault(trace.id, trace)
        try:
            self._writer.put(job, loop, most=self.most_waiting)
        except StoreError as e:
            self._writer.failed(job, e)
        return answer

    def _appended(self, trace: Trace, body: bytes | None) -> None:
        """Note what became of a trace (no body: it was not written). In the writer's thread, or where it was refused."""
        if body is None:
            if self._pending.get(trace.id) is trace:
                self._pending.pop(trace.id, None)
            return
        self._known += 1
        self._recent[trace.id] = body
        self._recent_size += len(body)
        self._pending.pop(trace.id, None)
        while self._recent_size > self.recent_bytes and len(self._recent) > 1:
            oldest = next(iter(self._recent))
            self._recent_size -= len(self._recent.pop(oldest))

    async def get(self, id: str) -> Trace | None:
        """Read one trace: from memory while it is recent, else from the database in a thread."""
        trace = self._pending.get(id)
        if trace is not None:
            return trace
        body = self._recent.get(id)
        if body is not None:
            return chain.decode(body, Trace)
        if self.spools is not None and (record := self.spools.find(id)) is not None:
            return chain.decode(msgspec.msgpack.decode(record)[1], Trace)
        return await asyncio.to_thread(self.read, id)

    def read(self, id: str) -> Trace | None:
        """Read one trace from the database. Blocks: not for the event loop."""
        if NUL in id:  # no text of PostgreSQL holds one
            return None
        rows = self._rows("SELECT body FROM traces WHERE id = ?", (id,))
        return chain.decode(rows[0][0], Trace) if rows else None

    def like(self, part: str, *, limit: int = 2) -> list[str]:
        """Return up to `limit` ids that have `part` in them, newest first. Blocks: not for the event loop."""
        if NUL in part:
            return []
        rows = self._rows(
            f"SELECT id FROM traces WHERE {self.database.instr}(id, ?) > 0 ORDER BY seq DESC LIMIT ?", (part, limit)
        )
        return [row[0] for row in rows]

    def traces(self, *, newest_first: bool = False, limit: int | None = None) -> Iterator[Trace]:
        """Read written traces in order of writing. Blocks: not for the event loop."""
        page = f"SELECT seq, body FROM traces WHERE seq {'<' if newest_first else '>'} ? ORDER BY seq"
        page += f"{' DESC' if newest_first else ''} LIMIT ?"
        seq, left = (2**62 if newest_first else 0), (2**62 if limit is None else limit)
        while left > 0 and (rows := self._rows(page, (seq, min(PAGE, left)))):
            for seq, body in rows:  # noqa: B007 - the last one is where the next page begins
                yield chain.decode(body, Trace)
            left -= len(rows)

    def count(self) -> int:
        """Return how many traces are kept, by whichever process, those that wait in this one included. Blocks for one small read.

        While the database is gone: as many as there were when it was last there.
        """
        query = "SELECT h.count - coalesce(c.seq, 0) FROM heads h LEFT JOIN checkpoints c ON c.chain = h.chain WHERE h.chain = 'traces'"
        try:
            self._known = int(self._rows(query)[0][0])
        except StoreError:
            if not self._writer.open:
                raise
        return self._known + len(self._pending) + (0 if self.spools is None else len(self.spools.ids))

    # ------------------------------------------------------------------------------------------------ feedback

    async def add_feedback(
        self, feedback: Feedback, *, learning: Collection[str] | None = None, weight: float | None = None
    ) -> Receipt:
        """Keep a judgement. Sources are told apart by key and name; a further one by the same source revises its first, whatever its kind.

        It is written together with its lesson, if it leaves one and its route is among `learning` (None: any).

        Raises:
            StoreError: if it could not be written.
        """
        if not feedback.at:
            feedback = msgspec.structs.replace(feedback, at=time.time())
        if NUL in feedback.trace_id:
            return Receipt(status="unknown", trace_id=feedback.trace_id)
        if NUL in feedback.voter:
            source, by = (text.replace(NUL, "\ufffd") for text in (feedback.source, feedback.by))
            feedback = msgspec.structs.replace(feedback, source=source, by=by)
        if not self.text:
            feedback = chain.blank_feedback(feedback)
        if self.read_only:
            raise StoreError(f"{self.name} is open for reading only")
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._writer.put(_Judge(feedback, answer, learning, feedback.confidence if weight is None else weight))
        return await answer

    def feedback(self, trace_id: str) -> list[Feedback]:
        """Read the judgements of one answer that stand (the latest of each source), oldest first. Blocks."""
        standing: dict[str, Feedback] = {}
        for (body,) in self._rows("SELECT body FROM feedback WHERE trace_id = ? ORDER BY seq", (trace_id,)):
            f = chain.decode(body, Feedback)
            standing.pop(f.voter, None)
            standing[f.voter] = f
        return list(standing.values())

    def judgements(self) -> Iterator[Feedback]:
        """Read all feedback in order of writing, revised ones included (a later one stands over an earlier). Blocks."""
        seq = 0
        while rows := self._rows("SELECT seq, body FROM feedback WHERE seq > ? ORDER BY seq LIMIT ?", (seq, PAGE)):
            for seq, body in rows:  # noqa: B007 - the last one is where the next page begins
                yield chain.decode(body, Feedback)

    def judged(
        self, *, newest: int, routes: Collection[str] | None = None, revised: bool = False
    ) -> list[tuple[Feedback, str]]:
        """Read the `newest` judgements of each key, oldest first, each with the target whose answer it judges. Blocks.

        The newest 50 times `newest` rows of all are looked through, no more: whoever writes more than that hides the others from a restart.
        """
        query = (
            "SELECT body, target, later, earlier FROM (SELECT f.seq, f.body, t.target,"
            " EXISTS (SELECT 1 FROM feedback g WHERE g.trace_id = f.trace_id AND g.source = f.source AND g.seq > f.seq) AS later,"
            " EXISTS (SELECT 1 FROM feedback g WHERE g.trace_id = f.trace_id AND g.source = f.source AND g.seq < f.seq) AS earlier,"
            f" row_number() OVER (PARTITION BY substr(f.source, 1, {self.database.instr}(f.source, '/')) ORDER BY f.seq DESC) AS n"
            " FROM feedback f JOIN traces t ON t.id = f.trace_id WHERE t.target != '' AND f.seq > (SELECT coalesce(max(seq), 0) FROM feedback) - ?"
            f"{'' if routes is None else f' AND t.route IN ({_marks(routes)})'}) x WHERE n <= ? ORDER BY seq"
        )
        out, seen = [], set[tuple[str, str]]()
        for body, target, later, earlier in self._rows(query, (READ * newest, *(routes or ()), newest)):
            f = chain.decode(body, Feedback)
            if revised:  # a revision of what is too old to be read here is too old itself
                if earlier and (f.trace_id, f.voter) not in seen:
                    continue
                seen.add((f.trace_id, f.voter))
            if revised or not later:
                out.append((f, target))
        return out

    def unlearned(self, route: str, *, limit: int = 10_000) -> list[tuple[Trace, Lesson]]:
        """Read the lessons that no version of `route` has learned, oldest first, `limit` at most. Blocks.

        One whose trace cannot be read here (its plan is not installed, say) is left out and logged.
        """
        query = (
            "SELECT t.body, f.body, l.trace_id, l.value, l.weight, l.further FROM lessons l JOIN traces t ON t.id = l.trace_id "
            "JOIN feedback f ON f.seq = l.seq WHERE l.route = ? ORDER BY l.seq LIMIT ?"
        )
        out = []
        rows = self._rows(query, (route, limit + 1))
        for trace, feedback, id, value, weight, further in rows[:limit]:
            try:
                if value is None:  # of a schema that kept no value beside the judgement's
                    value = chain.decode(feedback, Feedback).value
                whole = chain.decode(feedback, Feedback).value if further == FIRST_OF_WEIGHT else None
                lesson = Lesson(value=value, weight=weight, further=bool(further), whole=whole)
                out.append((chain.decode(trace, Trace), lesson))
            except StoreError as e:
                log.error("%s: route %s: the lesson of trace %s waits on: %s", self.name, route, id, e)
        if len(rows) > limit:
            log.warning("%s: route %s: more than %d lessons wait; the rest comes after these", self.name, route, limit)
        return out

    def forget_lessons(self, trace_ids: Sequence[str]) -> None:
        """Take off the lessons of traces, which will never be learned. Blocks."""
        if trace_ids:
            self._blocking("end of lessons", lambda connection, _: _learned(connection, trace_ids))

    # ------------------------------------------------------------------------------------------------ learned state

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
        """Keep a policy as the route's next version, under the digest that `Component.digest` gives it. Blocks.

        The route's newest version is taken again if it has the same digest and note, so that restarts make no versions. The lessons of
        the traces `learned` are taken off in the same transaction. Every 16th version prunes.

        Raises:
            StateError: if the state cannot be packed.
            StoreError: if it cannot be written.
        """
        name = digest(pack([spec, state]))
        body, apart = pack_apart([spec, state])
        # Deflated here and not by the writer, whom others wait for.
        row = deflated_row(name, "policy", body)
        new = {array: deflated_row(array, "array", apart[array]) for array in apart.keys() - self._kept_arrays(apart)}

        def work(connection: Connection, _: Heads) -> Snapshot:
            if connection.execute(_INSERT, row).rowcount:
                connection.execute("INSERT INTO spare VALUES (?) ON CONFLICT DO NOTHING", (name,))
                for array, data in apart.items():
                    # One that was there a moment ago may have been pruned since.
                    kept = connection.execute("SELECT 1 FROM artifacts WHERE digest = ? AND kind = 'array'", (array,))
                    if not kept.fetchone():
                        connection.execute(_INSERT, new.get(array) or deflated_row(array, "array", data))
                    connection.execute("INSERT INTO parts VALUES (?, ?)", (name, array))
            last = connection.execute(
                "SELECT version, digest, at, note, active FROM versions WHERE route = ? ORDER BY version DESC LIMIT 1",
                (route,),
            ).fetchone()
            if last is not None and (last[1], last[3]) == (name, note):
                version, at, active = int(last[0]), float(last[2]), bool(last[4])
            else:
                version, at, active = (1 if last is None else int(last[0]) + 1), time.time(), False
                connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, 0)", (route, version, name, at, note))
                if version % PRUNE_EVERY == 0:
                    _prune(connection, route, KEEP, at - GRACE_SECONDS)
            if activate:
                _activate(connection, route, version)
            _learned(connection, learned)
            return Snapshot(route=route, version=version, digest=name, at=at, note=note, active=activate or active)

        kept: Snapshot = self._blocking(f"version of {route}", work)
        return kept

    def prune(self, route: str, *, keep: int = KEEP, grace_seconds: float = GRACE_SECONDS) -> int:
        """Delete what old versions have learned, where no trace needs it; return how many artifacts went. Blocks.

        What stays: all that a trace names, the active version, the newest `keep`, those that a config began with, those that somebody
        went back to, and those that another took over from less than `grace_seconds` ago. The versions' rows stay, marked as pruned.
        """
        before = time.time() - grace_seconds
        gone: int = self._blocking(f"pruning of {route}", lambda c, _: _prune(c, route, keep, before))
        return gone

    def load_policy(self, digest: str) -> tuple[dict[str, object], State]:
        """Read a policy's spec and state. Raises `StoreError` if it is not there, or was pruned. Blocks."""
        try:
            spec, state = unpack_apart(self._artifact("policy", digest), lambda name: self._artifact("array", name))
        except (StateError, ValueError) as e:
            raise StoreError(f"the policy {digest} in {self.name} cannot be read: {e}") from e
        return spec, state

    def versions(self, route: str) -> list[Snapshot]:
        """List a route's versions, oldest first. Blocks."""
        query = f"SELECT {_VERSION} FROM versions v WHERE route = ? ORDER BY version"
        return [_snapshot(row) for row in self._rows(query, (route,))]

    def routes(self) -> list[str]:
        """List the routes that have versions. Blocks."""
        return [route for (route,) in self._rows("SELECT DISTINCT route FROM versions ORDER BY route")]

    def active(self, route: str) -> Snapshot | None:
        """Return a route's active version. Blocks."""
        rows = self._rows(f"SELECT {_VERSION} FROM versions v WHERE route = ? AND active = 1", (route,))
        return _snapshot(rows[0]) if rows else None

    def activate(self, route: str, version: int) -> Snapshot:
        """Make a version the active one; all versions stay. Raises `StoreError` if there is none, or it was pruned. Blocks."""
        known = {s.version: s for s in self.versions(route)}
        if version not in known:
            have = (
                f"it has {min(known)} to {max(known)}" if known else f"routes with versions: {', '.join(self.routes())}"
            )
            raise StoreError(f"route {route!r} has no version {version}; {have}")
        if known[version].pruned:
            raise StoreError(f"version {version} of route {route!r} was pruned: only its row is kept; name another one")

        def work(connection: Connection, _: Heads) -> None:
            _activate(connection, route, version)
            connection.execute("DELETE FROM spare WHERE digest = ?", (known[version].digest,))

        self._blocking(f"activation of {route}", work)
        return msgspec.structs.replace(known[version], active=True)

    def save_pool(self, digest: str, targets: tuple[Target, ...]) -> None:
        """Keep a pool's targets under its digest, in their order. Blocks."""
        row = deflated_row(digest, "pool", chain.encode(targets))

        def work(connection: Connection, _: Heads) -> None:
            connection.execute(_INSERT, row)

        self._blocking(f"pool {digest}", work)

    def load_pool(self, digest: str) -> tuple[Target, ...]:
        """Read a pool's targets. Raises `StoreError`. Blocks."""
        try:
            return msgspec.json.decode(self._artifact("pool", digest), type=tuple[Target, ...])
        except msgspec.MsgspecError as e:
            raise StoreError(f"the pool {digest} in {self.name} cannot be read: {e}") from e

    def save_guards(self, digest: str, data: dict[str, Any]) -> None:
        """Keep a route's guards under their digest. Blocks."""
        row = deflated_row(digest, "guards", pack(data))

        def work(connection: Connection, _: Heads) -> None:
            connection.execute(_INSERT, row)

        self._blocking(f"guards {digest}", work)

    def load_guards(self, digest: str) -> dict[str, Any]:
        """Read a route's guards. Raises `StoreError`. Blocks."""
        try:
            data: dict[str, Any] = unpack(self._artifact("guards", digest))
        except StateError as e:
            raise StoreError(f"the guards {digest} in {self.name} cannot be read: {e}") from e
        return data

    def _kept_arrays(self, names: Collection[str]) -> set[str]:
        """Say which of these arrays are in the file."""
        query = f"SELECT digest FROM artifacts WHERE kind = 'array' AND digest IN ({', '.join('?' * len(names))})"
        return {name for (name,) in self._rows(query, tuple(names))} if names else set()

    def _artifact(self, kind: str, digest: str) -> bytes:
        rows = self._rows("SELECT deflated, body FROM artifacts WHERE digest = ? AND kind = ?", (digest, kind))
        if not rows:
            known = (
                self._rows("SELECT route, version FROM versions WHERE digest = ?", (digest,))
                if kind == "policy"
                else []
            )
            if known:
                which = f"version {known[0][1]} of {known[0][0]}"
                raise StoreError(f"the policy {digest} ({which}) was pruned from {self.name}; no trace named it")
            raise StoreError(f"{self.name} holds no {kind} {digest or '(no digest)'}")
        try:
            return inflated(*rows[0])
        except zlib.error as e:
            raise StoreError(f"the {kind} {digest} in {self.name} cannot be read: {e}") from e

    # ------------------------------------------------------------------------------------------------ proof

    def verify(self) -> int:
        """Check both chains, that all policies, pools and guards that traces name are there, and that each is what its digest names. Blocks.

        The table of versions (which one is active, when it came, its note) is not chained: only that active ones are there is checked.

        Returns:
            How many traces there are.

        Raises:
            ChainBroken: naming the first row that is wrong.
        """
        with self.database.reading(moment=True) as connection:
            try:
                return verified(connection)
            except (self.database.error, msgspec.MsgspecError) as e:
                raise ChainBroken(f"{self.name} is damaged: {self.database.says(e)}") from e

    def head(self) -> str:
        """Return the hash of the newest trace in hexadecimal. Blocks."""
        return str(self._rows("SELECT hash FROM heads WHERE chain = 'traces'")[0][0].hex())

    def holds(self, hash: str) -> bool:
        """Say whether a trace has this hash (a head noted earlier, say). Blocks.

        Raises:
            StoreError: if it is not hexadecimal.
        """
        try:
            wanted = bytes.fromhex(hash)
        except ValueError:
            raise StoreError(f"{hash!r} is not a hash in hexadecimal") from None
        return bool(self._rows("SELECT 1 FROM traces WHERE hash = ?", (wanted,)))

    # ------------------------------------------------------------------------------------------------ retention

    def forget(self, *, before: float, keep: int = 0) -> Forgotten:
        """Delete the oldest traces and judgements, up to the first that is not older than `before`; see `Store.forget`."""
        gone = {"feedback": 0, "traces": 0}  # judgements first: they come after their traces
        for name in gone:
            while upto := self._older(name, before, keep if name == "traces" else 0):
                gone[name] += self._blocking(f"end of old {name}", partial(_forget, name, upto))
        for sql in self._old:
            self._blocking("end of old rows", partial(_end_old, sql, before))
        if gone["traces"]:
            self._blocking("end of what is remembered", lambda _, __: self._forget_recent())
            self._respare()
        if any(gone.values()):
            log.info("%s: forgot %d traces and %d judgements", self.name, gone["traces"], gone["feedback"])
        return Forgotten(traces=gone["traces"], feedback=gone["feedback"])

    def _forget_recent(self) -> None:
        """Let nothing be found in memory that is gone from the database. In the writer's thread, whose these are."""
        self._recent.clear()
        self._recent_size = 0

    def _older(self, name: str, before: float, keep: int) -> int:
        """Return the number of the row up to which the next rows of a chain go, `FORGET` of them at most; 0: none goes."""
        count = self._rows("SELECT count FROM heads WHERE chain = ?", (name,))[0][0]
        late = time.time() + FUTURE_SECONDS
        upto = 0
        query = f"SELECT seq, at FROM {name} WHERE seq <= ? ORDER BY seq LIMIT {FORGET}"  # ours, not input
        for seq, at in self._rows(query, (count - keep,)):
            if before <= at <= late:
                break
            upto = seq
        return int(upto)

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Return where each chain begins since something was forgotten. Blocks."""
        query = "SELECT chain, seq, hash, at, seal FROM checkpoints"
        return {c: Checkpoint(seq=s, hash=h.hex(), at=at, seal=seal) for c, s, h, at, seal in self._rows(query)}

    def _respare(self) -> None:
        """Let policies be pruned that only forgotten traces named."""
        query = (
            "SELECT DISTINCT v.digest FROM versions v JOIN artifacts a ON a.digest = v.digest AND a.kind = 'policy' "
            "WHERE v.active = 0 AND NOT EXISTS (SELECT 1 FROM spare s WHERE s.digest = v.digest)"
        )
        idle = {name for (name,) in self._rows(query)}
        seq = 0
        page = "SELECT seq, body FROM traces WHERE seq > ? ORDER BY seq LIMIT ?"
        while idle and (rows := self._rows(page, (seq, PAGE))):
            for seq, body in rows:  # noqa: B007 - the last one is where the next page begins
                idle.discard(msgspec.json.decode(body, type=TraceColumns).decision.policy_digest)

        def work(connection: Connection, _: Heads) -> None:
            for name in idle:
                connection.execute(_SPARE, (name, name))

        if idle:
            self._blocking("policies that nothing names", work)
            for route in self.routes():
                self.prune(route)

    # ------------------------------------------------------------------------------------------------ reading

    def info(self) -> dict[str, Any]:
        """Return what `fairlead store info` shows. Blocks."""
        counts = dict(self._rows("SELECT chain, count FROM heads"))
        began = {name: c.seq for name, c in self.checkpoints().items()}
        (first, last) = self._rows("SELECT min(at), max(at) FROM traces")[0]
        return {
            **self.database.describe(),
            "schema": self.database.schema(),
            "traces": counts["traces"] - began.get("traces", 0),
            "feedback": counts["feedback"] - began.get("feedback", 0),
            "forgotten": {"traces": began.get("traces", 0), "feedback": began.get("feedback", 0)},
            "first": first,
            "last": last,
            "routes": [
                route
                for (route,) in self._rows(
                    "SELECT DISTINCT route FROM versions WHERE note <> ? ORDER BY route", (STRAIGHT,)
                )
            ],
            "head": self.head(),
        }

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self.database.reading() as connection:
            try:
                return connection.execute(query, values).fetchall()
            except self.database.error as e:
                raise self._unreadable(e) from e


def kept_at(where: str, **settings: Any) -> SQLStore:
    """Return the store that is kept there, not started.

    Args:
        where: the path of a SQLite file, or the URL of a PostgreSQL database (or one ``${NAME}`` that holds it).
        settings: keywords of `SQLiteStore` or `PostgresStore`.
    """
    if where.startswith(("postgresql://", "postgres://", "${")):
        from fairlead.postgres import PostgresStore

        return PostgresStore(where, **settings)
    from fairlead.sqlite import SQLiteStore

    return SQLiteStore(where, **settings)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chain begins since its oldest rows were forgotten."""

    seq: int
    """The last row that was forgotten: as many were, in all."""
    hash: str
    """Its hash, in hexadecimal: what the first row that is left is chained to."""
    at: float
    """When it was forgotten."""
    seal: str


# ------------------------------------------------------------------------------------------------------- in SQL


_TAUGHT = "INSERT INTO taught VALUES (?, ?, ?) ON CONFLICT (trace_id) DO UPDATE SET weight = excluded.weight, total = excluded.total"
_SPARE = "INSERT INTO spare SELECT ? WHERE NOT EXISTS (SELECT 1 FROM versions WHERE digest = ? AND active = 1) ON CONFLICT DO NOTHING"


def _add_trace(
    connection: Connection,
    heads: Heads,
    columns: tuple[Any, ...],
    policy: str,
    body: bytes,
    also: Sequence[Sum],
) -> None:
    """Chain a trace, and write what belongs to it."""
    heads.add(connection, "traces", columns, body)
    if policy and policy not in heads.named:
        heads.named.add(policy)
        connection.execute("DELETE FROM spare WHERE digest = ?", (policy,))
    for sql, key, amount in also:
        heads.sums[sql, key] = heads.sums.get((sql, key), 0) + amount


def _forget(name: str, upto: int, connection: Connection, _: Heads) -> int:
    """Move a chain's checkpoint, and delete what it covers; return how many rows went."""
    row = connection.execute(f"SELECT hash FROM {name} WHERE seq = ?", (upto,)).fetchone()
    if row is None:  # another process was quicker
        return 0
    at = time.time()
    new = (name, upto, row[0], at, seal(name, upto, row[0], at))
    connection.execute(
        "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?) ON CONFLICT (chain) DO UPDATE SET "
        "seq = excluded.seq, hash = excluded.hash, at = excluded.at, seal = excluded.seal",
        new,
    )
    if name == "traces":  # what was not learned by now never is
        old = "(SELECT id FROM traces WHERE seq <= ?)"
        connection.execute(f"DELETE FROM lessons WHERE trace_id IN {old}", (upto,))
        connection.execute(f"DELETE FROM taught WHERE trace_id IN {old}", (upto,))
    else:
        connection.execute("DELETE FROM lessons WHERE seq <= ?", (upto,))
    return connection.execute(f"DELETE FROM {name} WHERE seq <= ?", (upto,)).rowcount


def _end_old(sql: str, before: float, connection: Connection, _: Heads) -> None:
    connection.execute(sql, (before,))


def _judge(
    connection: Connection, heads: Heads, feedback: Feedback, learning: Collection[str] | None, weight: float
) -> Receipt:
    f = feedback
    ended = connection.execute("SELECT at + seconds, route FROM traces WHERE id = ?", (f.trace_id,)).fetchone()
    if ended is None:
        return Receipt(status="unknown", trace_id=f.trace_id)
    late = max(0.0, f.at - ended[0])
    before = connection.execute(
        "SELECT body FROM feedback WHERE trace_id = ? AND source = ? ORDER BY seq DESC LIMIT 1",
        (f.trace_id, f.voter),
    ).fetchone()
    if before is not None and msgspec.structs.replace(chain.decode(before[0], Feedback), at=f.at) == f:
        return Receipt(status="duplicate", trace_id=f.trace_id, late_seconds=late)
    status: Literal["accepted", "kept", "revised"] = "revised"
    if before is None:
        judged = connection.execute("SELECT 1 FROM feedback WHERE trace_id = ? LIMIT 1", (f.trace_id,)).fetchone()
        status = "accepted" if judged is None else "kept"
    seq = heads.add(connection, "feedback", (f.trace_id, f.voter, f.at), chain.encode(f))
    new = None
    if learning is None or ended[1] in learning:
        new = _teach(connection, f, weight, first=status == "accepted")
    if new is not None:
        further = int(new.further) if new.whole is None else FIRST_OF_WEIGHT
        row = (seq, f.trace_id, ended[1], new.value, new.weight, further)
        connection.execute("INSERT INTO lessons VALUES (?, ?, ?, ?, ?, ?)", row)
    return Receipt(status=status, trace_id=f.trace_id, lesson=new, late_seconds=late)


def _teach(connection: Connection, f: Feedback, weight: float, *, first: bool) -> Lesson | None:
    """Say what a judgement teaches beside those before, and note how much of the answer has been taught."""
    before = (0.0, 0.0)
    if not first:
        row = connection.execute("SELECT weight, total FROM taught WHERE trace_id = ?", (f.trace_id,)).fetchone()
        if row is None:  # a whole judgement has taught it
            return None
        before = row
    new = lesson(f.value, weight, before)
    if new is not None:
        before = (before[0] + new.weight, before[1] + new.weight * new.value)
    if before[0] <= 1.0 - LEAST:
        connection.execute(_TAUGHT, (f.trace_id, *before))
    elif not first:
        connection.execute("DELETE FROM taught WHERE trace_id = ?", (f.trace_id,))
    return new


def _marks(values: Collection[object]) -> str:
    """Return as many question marks as there are values."""
    return ", ".join("?" * len(values))


def _learned(connection: Connection, trace_ids: Sequence[str]) -> None:
    query = "DELETE FROM lessons WHERE seq = (SELECT min(seq) FROM lessons WHERE trace_id = ?)"
    for id in trace_ids:
        connection.execute(query, (id,))


def _prune(connection: Connection, route: str, keep: int, before: float) -> int:
    """Delete artifacts of `route` that no trace and no version to keep needs. Versions of all routes have a say: two may share one."""
    gone = connection.execute(
        """
        SELECT s.digest FROM spare s WHERE EXISTS (SELECT 1 FROM versions v WHERE v.digest = s.digest AND v.route = ?)
        AND NOT EXISTS (
          SELECT 1 FROM versions v WHERE v.digest = s.digest AND (
            v.active = 1 OR substr(v.note, 1, ?) = ?
            OR v.version > (SELECT max(version) FROM versions n WHERE n.route = v.route) - ?
            OR NOT EXISTS (SELECT 1 FROM versions n WHERE n.route = v.route AND n.version = v.version + 1 AND n.at <= ?)))
        """,
        (route, len(BEGIN), BEGIN, keep, before),
    ).fetchall()
    held: set[str] = set()
    for (name,) in gone:
        held |= {array for (array,) in connection.execute('SELECT "array" FROM parts WHERE policy = ?', (name,))}
        connection.execute("DELETE FROM artifacts WHERE digest = ? AND kind = 'policy'", (name,))
        connection.execute("DELETE FROM spare WHERE digest = ?", (name,))
        connection.execute("DELETE FROM parts WHERE policy = ?", (name,))
    for array in held:
        connection.execute(
            "DELETE FROM artifacts WHERE digest = ? AND kind = 'array' AND NOT EXISTS (SELECT 1 FROM parts WHERE \"array\" = ?)",
            (array, array),
        )
    return len(gone)


def _activate(connection: Connection, route: str, version: int) -> None:
    connection.execute(
        "UPDATE versions SET active = CASE WHEN version = ? THEN 1 ELSE 0 END WHERE route = ? AND (active = 1 OR version = ?)",
        (version, route, version),
    )


_VERSION = (
    "route, version, digest, at, note, active, "
    "NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.digest = v.digest AND a.kind = 'policy')"
)


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    route, version, name, at, note, active, pruned = row
    return Snapshot(
        route=route, version=version, digest=name, at=at, note=note, active=bool(active), pruned=bool(pruned)
    )
