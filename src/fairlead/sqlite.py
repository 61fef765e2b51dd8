"""The store in one SQLite file: traces and feedback in two hash chains, policies, pools and guards by their digest.

One thread owns the connection that writes (`writer.py`) and takes what waits into one transaction. Traces are encoded and hashed in that
thread, in the order of `append`, so the order of the chain is the order of the queue.

The file is in WAL mode with `synchronous=NORMAL`: a commit has been handed to the operating system, so it survives `kill -9` of the
process, but the last moments may be lost if the machine itself loses power. `synchronous="full"` waits for the disk on every commit.

What cannot be written (a full disk, say) is never lost silently: the future gets a `StoreError`, the error is logged and counted in
`failures`, and later traces chain to the last one that was written.

A judgement is written together with its lesson, and a lesson is taken off together with the version that has learned it. So a lesson is
neither lost nor learned twice, whenever the process dies. What has been taught of an answer by less than a whole judgement is noted in a
small table (`taught`), so that a weightier one, days later, teaches just what it adds.

A policy's large arrays are kept once, under digests of their own, however many versions hold them: a version takes as much as it changed.
The policy's own digest is that of the whole, as `Component.digest` gives it.

Old versions of a policy that no trace names, nobody serves and nothing began with are pruned: their row stays, their artifact goes. Which
artifacts no trace names is kept in a small table (`spare`) that the first trace of a version takes it off; whoever changes that table can
make the store forget an artifact, which `verify` then misses, since it goes by the traces. An array goes with the last policy that holds it.

Two writers would fork the chain, so a store holds an operating-system lock on ``PATH.lock``; readers need none.

Cost of `append` in the event loop: 3 µs. From `append` to the acknowledged commit of a lone trace: 60 µs. Under load 17,000 traces a second
(2 shared virtual cores, 1.3 kB a trace).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import msgspec

from fairlead import chain
from fairlead.component import State, digest, pack, pack_apart, unpack, unpack_apart
from fairlead.errors import ChainBroken, StateError, StoreError
from fairlead.pool import Pool
from fairlead.rewards import LEAST, Lesson, lesson
from fairlead.store import BEGIN, KEEP, Connection, Receipt, Snapshot, Statement, Store, T, Value
from fairlead.types import Feedback, Target, Trace
from fairlead.writer import Answer, Apart, Heads, Job, Task, Work, Writer

try:
    import fcntl
except ImportError:  # pragma: no cover - not a Unix system
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

SCHEMA = 4
OLDEST = 2
"""The oldest schema that is read, and brought up to date by a writer."""
APPLICATION = 0x464C4431  # "FLD1"
PAGE = 256
"""Rows read at a time by `traces`, so that a slow reader does not hold up checkpoints."""
FIRST_OF_WEIGHT = 2
"""How `lessons.further` marks a further lesson that is the first to count for half or more (`Lesson.whole`)."""
READ = 50
"""How many times `newest` rows `judged` looks through at most."""
PRUNE_EVERY = 16
"""Versions of a route from one pruning to the next."""
GRACE_SECONDS = 3600.0
"""How long a version stays after another took its place: requests that it decided may still be running, their traces yet to come."""
USED = 1000
"""Digests remembered as named by a trace."""

# Which arrays a policy holds. Schema 2 had no such table, and kept every policy whole.
_PARTS = """
CREATE TABLE parts(policy TEXT NOT NULL, array TEXT NOT NULL, PRIMARY KEY(policy, array)) WITHOUT ROWID;
CREATE INDEX parts_of ON parts(array);
"""
# What a lesson counts, and what was taught of answers that no whole judgement taught. Up to schema 3 every lesson was whole.
_WEIGHTS = """
ALTER TABLE lessons ADD COLUMN value REAL;
ALTER TABLE lessons ADD COLUMN weight REAL NOT NULL DEFAULT 1.0;
ALTER TABLE lessons ADD COLUMN further INTEGER NOT NULL DEFAULT 0;
CREATE TABLE taught(trace_id TEXT PRIMARY KEY, weight REAL NOT NULL, total REAL NOT NULL) WITHOUT ROWID;
"""
_TABLES = f"""
CREATE TABLE traces(
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL, route TEXT NOT NULL, target TEXT NOT NULL,
  body BLOB NOT NULL, prev BLOB NOT NULL, hash BLOB NOT NULL);
CREATE UNIQUE INDEX traces_id ON traces(id);
CREATE TABLE feedback(
  seq INTEGER PRIMARY KEY, trace_id TEXT NOT NULL, source TEXT NOT NULL, at REAL NOT NULL,
  body BLOB NOT NULL, prev BLOB NOT NULL, hash BLOB NOT NULL);
CREATE INDEX feedback_of ON feedback(trace_id);
CREATE TRIGGER traces_stay BEFORE UPDATE ON traces BEGIN SELECT RAISE(ABORT, 'traces are append-only'); END;
CREATE TRIGGER traces_keep BEFORE DELETE ON traces BEGIN SELECT RAISE(ABORT, 'traces are append-only'); END;
CREATE TRIGGER feedback_stays BEFORE UPDATE ON feedback BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END;
CREATE TRIGGER feedback_keeps BEFORE DELETE ON feedback BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END;
CREATE TABLE lessons(seq INTEGER PRIMARY KEY, trace_id TEXT NOT NULL, route TEXT NOT NULL);
CREATE INDEX lessons_of ON lessons(trace_id);
CREATE INDEX lessons_on ON lessons(route);
CREATE TABLE artifacts(digest TEXT NOT NULL, kind TEXT NOT NULL, deflated INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX artifacts_name ON artifacts(digest, kind);
{_WEIGHTS}
{_PARTS}
CREATE TABLE spare(digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE versions(
  route TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL, note TEXT NOT NULL, active INTEGER NOT NULL,
  PRIMARY KEY(route, version)) WITHOUT ROWID;
CREATE INDEX versions_of ON versions(digest);
CREATE TABLE heads(chain TEXT PRIMARY KEY, count INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO heads VALUES ('traces', 0, x'{chain.TRACES_BEGIN.hex()}'), ('feedback', 0, x'{chain.FEEDBACK_BEGIN.hex()}');
PRAGMA application_id={APPLICATION};
PRAGMA user_version={SCHEMA};
"""

_INSERT = "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?, ?)"

Chain: TypeAlias = Literal["traces", "feedback"]


class _Append(Job):
    """One trace for the writer."""

    __slots__ = ("also", "body", "store", "trace")

    def __init__(self, store: SQLiteStore, trace: Trace, answer: Answer, also: Sequence[Statement]) -> None:
        super().__init__(f"trace {trace.id}", answer)
        self.store, self.trace, self.body, self.also = store, trace, b"", also

    def do(self, connection: sqlite3.Connection, heads: Heads) -> None:
        """Encode and chain it."""
        t, policy = self.trace, self.trace.decision.policy_digest
        self.body = chain.encode(t)
        try:
            _add(connection, heads, "traces", (t.id, t.at, t.seconds, t.query.route, t.outcome.target), self.body)
        except sqlite3.IntegrityError as e:
            raise StoreError(f"a trace with the id {t.id} is there already") from e
        if policy and policy not in self.store._used:
            connection.execute("DELETE FROM spare WHERE digest = ?", (policy,))
        for sql, params in self.also:
            connection.execute(sql, params)

    def ended(self, written: bool) -> None:
        """Let the store find it in memory, or forget it."""
        self.store._appended(self.trace, self.body if written else None)


class SQLiteStore(Store):
    """Keeps everything in one file.

    Args:
        path: the file; it and its folder are made if they are missing (readable by their owner only).
        relaxed: `append` returns None and nobody waits; a crash may lose the traces that were still queued.
        text: keep messages, answers and corrections; if not, they are blanked before they are written.
        synchronous: ``normal`` survives the death of the process, ``full`` also a power cut, at the price of a disk flush a commit.
        most_waiting: `append` refuses (with a `StoreError`, logged and counted) while so many wait for a disk that does not keep up.
        recent_bytes: how much of the newest traces is kept in memory, so that feedback soon after the answer reads no disk.
        read_only: open for reading beside a live writer.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        relaxed: bool = False,
        text: bool = True,
        synchronous: Literal["normal", "full"] = "normal",
        most_waiting: int = 8192,
        recent_bytes: int = 8_000_000,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self.relaxed, self.text, self.synchronous = relaxed, text, synchronous
        self.most_waiting, self.recent_bytes, self.read_only = most_waiting, recent_bytes, read_only
        self._writer = Writer(f"the store {self.path}")
        self._lock: IO[str] | None = None
        self._pending: dict[str, Trace] = {}
        self._recent: dict[str, bytes] = {}
        self._recent_size = 0
        self._ddl: list[str] = []
        self._used: set[str] = set()
        """Policies that a trace names, as far as this process knows. Only the writer's thread looks."""

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r}, relaxed={self.relaxed}, text={self.text})"

    @property
    def failures(self) -> int:
        """What could not be written since the start."""
        return self._writer.failures

    @property
    def commits(self) -> int:
        """Transactions since the start."""
        return self._writer.commits

    # ------------------------------------------------------------------------------------------------ its life

    def start(self) -> None:
        """Open the file and begin to write.

        Raises:
            StoreError: if it cannot be opened, is no store, is of another version, or belongs to another live process.
        """
        if self.read_only:
            with closing(self._reader()):
                return
        if self._writer.open:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as e:
            self._release_lock()
            raise StoreError(f"the store {self.path} cannot be written ({e.strerror}); name another path") from e
        connection: sqlite3.Connection | None = None
        try:
            connection = self._open_writer()
            heads = _heads(connection)
            for name, (count, _) in heads.items():
                (last,) = connection.execute(f"SELECT coalesce(max(seq), 0) FROM {name}").fetchone()  # ours, not input
                if last != count:
                    log.error(
                        "%s: %d %s rows were written, but the last one is row %d: somebody changed the file. "
                        "Writing goes on behind the gap; `fairlead trace verify` tells more",
                        *(self.path, count, name, last),
                    )
        except (sqlite3.Error, StoreError) as e:
            if connection is not None:
                connection.close()
            self._release_lock()
            raise e if isinstance(e, StoreError) else _unreadable(self.path, e) from e
        self._writer.start(connection, heads)

    def stop(self) -> None:
        """Write what is waiting and close."""
        if self._writer.open:
            self._writer.stop()
            self._release_lock()

    def flush(self) -> None:
        """Block until everything handed over so far is written (or has failed)."""
        self._blocking("flush", lambda _, __: None)

    def _blocking(self, name: str, work: Work) -> Any:
        """Let the writer do something, and wait for it."""
        if self.read_only:
            raise StoreError(f"the store {self.path} is open for reading only")
        return self._writer.blocking(name, work)

    def _open_writer(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            schema = _recognise(connection, self.path)
            connection.execute("PRAGMA journal_mode=WAL")
            if schema < SCHEMA:
                new = f"{_PARTS if schema < 3 else ''} {_WEIGHTS}"
                connection.executescript(f"BEGIN IMMEDIATE; {new} PRAGMA user_version={SCHEMA}; COMMIT;")
                log.info("%s: brought from schema %d to %d", self.path, schema, SCHEMA)
            connection.execute(
                "CREATE TABLE IF NOT EXISTS leases(name TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL)"
            )
            for statement in self._ddl:
                connection.execute(statement)
            connection.execute(f"PRAGMA synchronous={'FULL' if self.synchronous == 'full' else 'NORMAL'}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _reader(self) -> sqlite3.Connection:
        """Open a connection that cannot write."""
        if not self.path.exists():
            raise StoreError(f"there is no store at {self.path}; name the one your config writes")
        try:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10.0
            )
        except sqlite3.Error as e:
            raise _unreadable(self.path, e) from e
        try:
            _recognise(connection, self.path)
        except sqlite3.Error as e:
            connection.close()
            raise _unreadable(self.path, e) from e
        except StoreError:
            connection.close()
            raise
        return connection

    def _take_lock(self) -> IO[str]:
        lock = open(f"{self.path}.lock", "a+", opener=lambda p, flags: os.open(p, flags, 0o600))  # noqa: SIM115 - held
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                lock.close()
                raise StoreError(
                    f"the store {self.path} is being written by another process (pid {holder}); "
                    "stop that one, or give this one a store of its own"
                ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # ------------------------------------------------------------------------------------------------ tables of others

    def tables(self, ddl: str) -> None:
        """Have tables of others made by `start`. Raises `StoreError` if it is started."""
        if self._writer.open:
            raise StoreError(f"the store {self.path} is started; name tables before")
        self._ddl += [
            statement for part in ddl.split(";") if (statement := part.strip()) and statement not in self._ddl
        ]

    def transact(self, name: str, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run `work` in the next transaction of the writer; see `Store.transact`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if self.read_only:
            raise StoreError(f"the store {self.path} is open for reading only")
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

        def work(connection: sqlite3.Connection, _: Heads) -> bool:
            now = time.time()
            connection.execute("DELETE FROM leases WHERE until <= ? OR (name = ? AND owner = ?)", (now, name, owner))
            if seconds <= 0.0:
                return False
            new = (name, owner, now + seconds)
            return connection.execute("INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT DO NOTHING", new).rowcount == 1

        taken: bool = self._blocking(f"lease {name}", work)
        return taken

    # ------------------------------------------------------------------------------------------------ traces

    def append(self, trace: Trace, also: Sequence[Statement] = ()) -> asyncio.Future[None] | None:
        """Hand over a trace. For the event loop; returns at once.

        Returns:
            A future that is done when the operating system has the trace, or holds a `StoreError`: the disk failed, the id is
            there already, or too many wait. None in relaxed mode, where such errors are only logged and counted.
        """
        loop = None if self.relaxed else asyncio.get_running_loop()
        answer = None if loop is None else loop.create_future()
        trace = chain.lean(trace) if self.text else chain.blank(chain.lean(trace))
        job = _Append(self, trace, answer, also)
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
        if len(self._used) >= USED:
            self._used.clear()
        self._used.add(trace.decision.policy_digest)
        self._recent[trace.id] = body
        self._recent_size += len(body)
        self._pending.pop(trace.id, None)
        while self._recent_size > self.recent_bytes and len(self._recent) > 1:
            oldest = next(iter(self._recent))
            self._recent_size -= len(self._recent.pop(oldest))

    async def get(self, id: str) -> Trace | None:
        """Read one trace: from memory while it is recent, else from the file in a thread."""
        trace = self._pending.get(id)
        if trace is not None:
            return trace
        body = self._recent.get(id)
        if body is not None:
            return chain.decode(body, Trace)
        return await asyncio.to_thread(self.read, id)

    def read(self, id: str) -> Trace | None:
        """Read one trace from the file. Blocks: not for the event loop."""
        rows = self._rows("SELECT body FROM traces WHERE id = ?", (id,))
        return chain.decode(rows[0][0], Trace) if rows else None

    def like(self, part: str, *, limit: int = 2) -> list[str]:
        """Return up to `limit` ids that have `part` in them, newest first. Blocks: not for the event loop."""
        rows = self._rows("SELECT id FROM traces WHERE instr(id, ?) ORDER BY seq DESC LIMIT ?", (part, limit))
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
        """Return how many traces are kept, those still waiting included."""
        if self._writer.open:
            return self._writer.heads["traces"][0] + len(self._pending)
        return int(self._rows("SELECT count FROM heads WHERE chain = 'traces'")[0][0])

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
        if not self.text:
            feedback = chain.blank_feedback(feedback)
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def work(connection: sqlite3.Connection, heads: Heads) -> Receipt:
            return _judge(connection, heads, feedback, learning, feedback.confidence if weight is None else weight)

        if self.read_only:
            raise StoreError(f"the store {self.path} is open for reading only")
        self._writer.put(Task(f"feedback on {feedback.trace_id}", answer, work))
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
            " row_number() OVER (PARTITION BY substr(f.source, 1, instr(f.source, '/')) ORDER BY f.seq DESC) AS n"
            " FROM feedback f JOIN traces t ON t.id = f.trace_id WHERE t.target != '' AND f.seq > (SELECT coalesce(max(seq), 0) FROM feedback) - ?"
            f"{'' if routes is None else f' AND t.route IN ({_marks(routes)})'}) WHERE n <= ? ORDER BY seq"
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
                log.error("%s: route %s: the lesson of trace %s waits on: %s", self.path, route, id, e)
        if len(rows) > limit:
            log.warning("%s: route %s: more than %d lessons wait; the rest comes after these", self.path, route, limit)
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
        row = _deflated(name, "policy", body)
        new = {array: _deflated(array, "array", apart[array]) for array in apart.keys() - self._kept_arrays(apart)}

        def work(connection: sqlite3.Connection, _: Heads) -> Snapshot:
            if connection.execute(_INSERT, row).rowcount:
                connection.execute("INSERT OR IGNORE INTO spare VALUES (?)", (name,))
                for array, data in apart.items():
                    # One that was there a moment ago may have been pruned since.
                    kept = connection.execute("SELECT 1 FROM artifacts WHERE digest = ? AND kind = 'array'", (array,))
                    if not kept.fetchone():
                        connection.execute(_INSERT, new.get(array) or _deflated(array, "array", data))
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
            raise StoreError(f"the policy {digest} in {self.path} cannot be read: {e}") from e
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

        def work(connection: sqlite3.Connection, _: Heads) -> None:
            _activate(connection, route, version)
            connection.execute("DELETE FROM spare WHERE digest = ?", (known[version].digest,))

        self._blocking(f"activation of {route}", work)
        return msgspec.structs.replace(known[version], active=True)

    def save_pool(self, digest: str, targets: tuple[Target, ...]) -> None:
        """Keep a pool's targets under its digest, in their order. Blocks."""
        row = _deflated(digest, "pool", chain.encode(targets))

        def work(connection: sqlite3.Connection, _: Heads) -> None:
            connection.execute(_INSERT, row)

        self._blocking(f"pool {digest}", work)

    def load_pool(self, digest: str) -> tuple[Target, ...]:
        """Read a pool's targets. Raises `StoreError`. Blocks."""
        try:
            return msgspec.json.decode(self._artifact("pool", digest), type=tuple[Target, ...])
        except msgspec.MsgspecError as e:
            raise StoreError(f"the pool {digest} in {self.path} cannot be read: {e}") from e

    def save_guards(self, digest: str, data: dict[str, Any]) -> None:
        """Keep a route's guards under their digest. Blocks."""
        row = _deflated(digest, "guards", pack(data))

        def work(connection: sqlite3.Connection, _: Heads) -> None:
            connection.execute(_INSERT, row)

        self._blocking(f"guards {digest}", work)

    def load_guards(self, digest: str) -> dict[str, Any]:
        """Read a route's guards. Raises `StoreError`. Blocks."""
        try:
            data: dict[str, Any] = unpack(self._artifact("guards", digest))
        except StateError as e:
            raise StoreError(f"the guards {digest} in {self.path} cannot be read: {e}") from e
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
                raise StoreError(f"the policy {digest} ({which}) was pruned from {self.path}; no trace named it")
            raise StoreError(f"{self.path} holds no {kind} {digest or '(no digest)'}")
        try:
            return _inflated(*rows[0])
        except zlib.error as e:
            raise StoreError(f"the {kind} {digest} in {self.path} cannot be read: {e}") from e

    # ------------------------------------------------------------------------------------------------ proof

    def verify(self) -> int:
        """Check both chains, that all policies, pools and guards that traces name are there, and that each is what its digest names. Blocks.

        The table of versions (which one is active, when it came, its note) is not chained: only that active ones are there is checked.

        Returns:
            How many traces there are.

        Raises:
            ChainBroken: naming the first row that is wrong.
        """
        with closing(self._reader()) as connection:
            try:
                connection.execute("BEGIN")  # one moment of the file, whatever is written meanwhile
                heads = _heads(connection)
                count, head = heads["traces"]
                named: dict[tuple[str, str], str] = {}
                n = chain.check(_trace_rows(connection, named), begin=chain.TRACES_BEGIN, count=count, head=head)
                count, head = heads["feedback"]
                rows = _feedback_rows(connection)
                chain.check(rows, begin=chain.FEEDBACK_BEGIN, count=count, head=head, what="feedback")
                for name, route, version in connection.execute(
                    "SELECT digest, route, version FROM versions WHERE active"
                ):
                    named.setdefault(("policy", name), f"version {version} of {route}, the active one,")
                find = _finder(connection)
                for which in ("=", "!="):  # arrays first: policies are made of them
                    for name, kind, deflated, body in connection.execute(
                        f"SELECT * FROM artifacts WHERE kind {which} 'array'"
                    ):
                        if not _is(name, kind, deflated, body, find):
                            raise ChainBroken(f"the {kind} {name} was changed after it was written")
                        named.pop((kind, name), None)
                for (kind, name), who in named.items():
                    raise ChainBroken(f"the {kind} {name} that {who} names is missing")
            except (sqlite3.Error, msgspec.MsgspecError) as e:
                raise ChainBroken(f"{self.path} is damaged: {e}") from e
        return n

    def head(self) -> str:
        """Return the hash of the newest trace in hexadecimal. Blocks."""
        return str(self._rows("SELECT hex(hash) FROM heads WHERE chain = 'traces'")[0][0]).lower()

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

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with closing(self._reader()) as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.Error as e:
                raise _unreadable(self.path, e) from e


# ------------------------------------------------------------------------------------------------------- in SQL


def _add(connection: sqlite3.Connection, heads: Heads, name: Chain, columns: tuple[Any, ...], body: bytes) -> None:
    """Chain one more row to `name`."""
    count, prev = heads[name]
    row = (count + 1, *columns, body, prev, chain.link(prev, body))
    connection.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
    heads[name] = (count + 1, row[-1])


def _judge(
    connection: sqlite3.Connection, heads: Heads, feedback: Feedback, learning: Collection[str] | None, weight: float
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
    _add(connection, heads, "feedback", (f.trace_id, f.voter, f.at), chain.encode(f))
    new = None
    if learning is None or ended[1] in learning:
        new = _teach(connection, f, weight, first=status == "accepted")
    if new is not None:
        further = int(new.further) if new.whole is None else FIRST_OF_WEIGHT
        row = (heads["feedback"][0], f.trace_id, ended[1], new.value, new.weight, further)
        connection.execute("INSERT INTO lessons VALUES (?, ?, ?, ?, ?, ?)", row)
    return Receipt(status=status, trace_id=f.trace_id, lesson=new, late_seconds=late)


def _teach(connection: sqlite3.Connection, f: Feedback, weight: float, *, first: bool) -> Lesson | None:
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
        connection.execute("INSERT OR REPLACE INTO taught VALUES (?, ?, ?)", (f.trace_id, *before))
    elif not first:
        connection.execute("DELETE FROM taught WHERE trace_id = ?", (f.trace_id,))
    return new


def _marks(values: Collection[object]) -> str:
    """Return as many question marks as there are values."""
    return ", ".join("?" * len(values))


def _learned(connection: sqlite3.Connection, trace_ids: Sequence[str]) -> None:
    query = "DELETE FROM lessons WHERE seq = (SELECT min(seq) FROM lessons WHERE trace_id = ?)"
    connection.executemany(query, [(id,) for id in trace_ids])


def _prune(connection: sqlite3.Connection, route: str, keep: int, before: float) -> int:
    """Delete artifacts of `route` that no trace and no version to keep needs. Versions of all routes have a say: two may share one."""
    gone = connection.execute(
        """
        SELECT s.digest FROM spare s WHERE EXISTS (SELECT 1 FROM versions v WHERE v.digest = s.digest AND v.route = :route)
        AND NOT EXISTS (
          SELECT 1 FROM versions v WHERE v.digest = s.digest AND (
            v.active OR substr(v.note, 1, length(:begin)) = :begin
            OR v.version > (SELECT max(version) FROM versions n WHERE n.route = v.route) - :keep
            OR NOT EXISTS (SELECT 1 FROM versions n WHERE n.route = v.route AND n.version = v.version + 1 AND n.at <= :before)))
        """,
        {"route": route, "begin": BEGIN, "keep": keep, "before": before},
    ).fetchall()
    connection.executemany("DELETE FROM artifacts WHERE digest = ? AND kind = 'policy'", gone)
    connection.executemany("DELETE FROM spare WHERE digest = ?", gone)
    held = {array for name in gone for array in connection.execute("SELECT array FROM parts WHERE policy = ?", name)}
    connection.executemany("DELETE FROM parts WHERE policy = ?", gone)
    connection.executemany(
        "DELETE FROM artifacts WHERE digest = ?1 AND kind = 'array' AND NOT EXISTS (SELECT 1 FROM parts WHERE array = ?1)",
        held,
    )
    return len(gone)


def _activate(connection: sqlite3.Connection, route: str, version: int) -> None:
    connection.execute(
        "UPDATE versions SET active = (version = ?) WHERE route = ? AND active != (version = ?)",
        (version, route, version),
    )


def _heads(connection: sqlite3.Connection) -> Heads:
    found = {str(n): (int(c), bytes(h)) for n, c, h in connection.execute("SELECT chain, count, hash FROM heads")}
    if set(found) != {"traces", "feedback"}:
        raise ChainBroken("the heads of the chains are missing")
    return found


def _trace_rows(connection: sqlite3.Connection, named: dict[tuple[str, str], str]) -> Iterator[chain.Row]:
    """Read the chain of traces, check that the columns say what the bodies say, and note in `named` what they name."""
    query = "SELECT seq, id, at, seconds, route, target, body, prev, hash FROM traces ORDER BY seq"
    for seq, id, at, seconds, route, target, body, prev, hash in connection.execute(query):
        yield chain.Row(seq, id, _bytes(body), _bytes(prev), _bytes(hash))
        # Only reached once `check` found the bytes as they were written.
        t = msgspec.json.decode(body, type=_TraceColumns)
        if (id, at, seconds, route, target) != (t.id, t.at, t.seconds, t.query.route, t.outcome.target):
            raise ChainBroken(f"trace {seq} ({id}) was changed after it was written: its columns do not match its body")
        d = t.decision
        for kind, name in (("policy", d.policy_digest), ("pool", d.pool_digest), ("guards", d.guards_digest)):
            if name and (kind, name) not in named:
                named[kind, name] = f"trace {seq} ({id})"


def _feedback_rows(connection: sqlite3.Connection) -> Iterator[chain.Row]:
    query = "SELECT seq, trace_id, source, at, body, prev, hash FROM feedback ORDER BY seq"
    for seq, trace_id, source, at, body, prev, hash in connection.execute(query):
        yield chain.Row(seq, trace_id, _bytes(body), _bytes(prev), _bytes(hash))
        f = chain.decode(body, Feedback)
        if (trace_id, source, at) != (f.trace_id, f.voter, f.at):
            raise ChainBroken(f"feedback {seq} on {trace_id} was changed: its columns do not match its body")


def _bytes(value: Any) -> bytes:
    """A blob as it is; what somebody put in its place as bytes that match no hash."""
    return value if isinstance(value, bytes) else repr(value).encode()


class _RouteColumn(msgspec.Struct):
    route: str = "auto"


class _TargetColumn(msgspec.Struct):
    target: str = ""


class _Names(msgspec.Struct):
    policy_digest: str = ""
    pool_digest: str = ""
    guards_digest: str = ""


class _TraceColumns(msgspec.Struct):
    """The part of a trace's body that the columns repeat, and what it names."""

    id: str
    at: float
    query: _RouteColumn
    outcome: _TargetColumn
    decision: _Names
    seconds: float = 0.0


def _finder(connection: sqlite3.Connection) -> Callable[[str], bytes]:
    """Return what reads an array by its digest; many policies in a row hold the same."""

    @lru_cache(maxsize=16)
    def find(name: str) -> bytes:
        row = connection.execute(
            "SELECT deflated, body FROM artifacts WHERE digest = ? AND kind = 'array'", (name,)
        ).fetchone()
        if row is None:
            raise ChainBroken(f"the array {name} that a policy is made of is missing")
        return _inflated(*row)

    return find


def _deflated(name: str, kind: str, body: bytes) -> tuple[str, str, int, bytes]:
    """Return the row of an artifact, deflated if that saves a fifth. Its digest is that of the plain bytes."""
    small = zlib.compress(body, 1)
    return (name, kind, 1, small) if len(small) < 0.8 * len(body) else (name, kind, 0, body)


def _inflated(deflated: int, body: bytes) -> bytes:
    return zlib.decompress(body) if deflated else bytes(body)


def _is(name: str, kind: str, deflated: int, body: Any, find: Callable[[str], bytes]) -> bool:
    """Whether `body` is what the digest `name` names; `find` gives the arrays that a policy is made of."""
    try:
        body = _inflated(deflated, _bytes(body))
        if kind in ("array", "guards"):
            return digest(body) == name
        if kind == "policy":
            return digest(body) == name or digest(pack(unpack_apart(body, find))) == name
        return Pool(targets=msgspec.json.decode(body, type=tuple[Target, ...])).digest == name
    except (zlib.error, msgspec.MsgspecError, StateError):
        return False


_VERSION = (
    "route, version, digest, at, note, active, "
    "NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.digest = v.digest AND a.kind = 'policy')"
)


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    route, version, name, at, note, active, pruned = row
    return Snapshot(
        route=route, version=version, digest=name, at=at, note=note, active=bool(active), pruned=bool(pruned)
    )


def _recognise(connection: sqlite3.Connection, path: Path) -> int:
    """Make sure that the file is a store that this version understands; return its schema."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise StoreError(f"{path} is a SQLite file, but not a Fairlead store; name another path")
    if schema > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer Fairlead (schema {schema}, this one knows {SCHEMA}); upgrade fairlead"
        )
    if schema < OLDEST:
        raise StoreError(
            f"{path} was written by an earlier Fairlead (schema {schema}, this one knows {OLDEST} to {SCHEMA}); "
            "name another path to begin a new store, and read this one with the version that wrote it"
        )
    return int(schema)


def _unreadable(path: Path, e: sqlite3.Error) -> StoreError:
    return StoreError(f"{path} cannot be read as a store ({e}); name another path, or restore the file from a backup")
