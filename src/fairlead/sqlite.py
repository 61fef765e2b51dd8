"""The store in one SQLite file: traces and feedback in two hash chains, policies and pools by their digest.

One thread owns the connection that writes. It commits at once when it is idle, and under load it takes everything that waits into one
transaction; then it tells each event loop once for the whole batch. Traces are encoded and hashed in that thread, in the order of
`append`, so the order of the chain is the order of the queue.

The file is in WAL mode with `synchronous=NORMAL`: a commit has been handed to the operating system, so it survives `kill -9` of the
process, but the last moments may be lost if the machine itself loses power. `synchronous="full"` waits for the disk on every commit.

What cannot be written (a full disk, say) is never lost silently: the future gets a `StoreError`, the error is logged and counted in
`failures`, and later traces chain to the last one that was written.

Two writers would fork the chain, so a store holds an operating-system lock on ``PATH.lock``; readers need none.

Cost of `append` in the event loop: 3 µs. From `append` to the acknowledged commit of a lone trace: 60 µs. Under load 17,000 traces a second
(2 shared virtual cores, 1.3 kB a trace).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import msgspec

from fairlead import chain
from fairlead.component import State, digest, pack, unpack
from fairlead.errors import ChainBroken, StateError, StoreError
from fairlead.pool import Pool
from fairlead.store import Receipt, Snapshot, Store
from fairlead.types import Feedback, Target, Trace

try:
    import fcntl
except ImportError:  # pragma: no cover - not a Unix system
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

SCHEMA = 1
APPLICATION = 0x464C4431  # "FLD1"
BATCH = 512
"""Rows in one transaction at most."""
PAGE = 256
"""Rows read at a time by `traces`, so that a slow reader does not hold up checkpoints."""

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
CREATE TABLE artifacts(digest TEXT PRIMARY KEY, kind TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE versions(
  route TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL, note TEXT NOT NULL, active INTEGER NOT NULL,
  PRIMARY KEY(route, version)) WITHOUT ROWID;
CREATE TABLE heads(chain TEXT PRIMARY KEY, count INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO heads VALUES ('traces', 0, x'{chain.TRACES_BEGIN.hex()}'), ('feedback', 0, x'{chain.FEEDBACK_BEGIN.hex()}');
PRAGMA application_id={APPLICATION};
PRAGMA user_version={SCHEMA};
"""

Chain: TypeAlias = Literal["traces", "feedback"]
Heads: TypeAlias = dict[str, tuple[int, bytes]]
"""Count and last hash of each chain."""
Work: TypeAlias = Callable[[sqlite3.Connection, Heads], Any]
Answer: TypeAlias = "asyncio.Future[Any] | concurrent.futures.Future[Any] | None"


class _Job:
    """One piece of work for the writer, and who waits for it."""

    __slots__ = ("answer", "body", "name", "trace", "work")

    def __init__(self, name: str, work: Work | None, answer: Answer, trace: Trace | None = None) -> None:
        self.name, self.work, self.answer, self.trace = name, work, answer, trace
        self.body = b""


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
        self.failures = 0
        """What could not be written since the start."""
        self.commits = 0
        """Transactions since the start."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._held: list[_Job] = []
        """Traces that go to the writer at the end of the event loop's round, so that it is woken once for all of them."""
        self._holder: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._open = False
        self._gate = threading.Lock()
        """Nothing is queued behind the end."""
        self._lock: IO[str] | None = None
        self._heads: Heads = {}
        self._pending: dict[str, Trace] = {}
        self._recent: dict[str, bytes] = {}
        self._recent_size = 0

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r}, relaxed={self.relaxed}, text={self.text})"

    # ------------------------------------------------------------------------------------------------ its life

    def start(self) -> None:
        """Open the file and begin to write.

        Raises:
            StoreError: if it cannot be opened, is no store, is of a newer version, or belongs to another live process.
        """
        if self.read_only:
            with closing(self._reader()):
                return
        if self._thread is not None:
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
            self._heads = _heads(connection)
            for name, (count, _) in self._heads.items():
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
        self._thread = threading.Thread(target=self._run, args=(connection,), name="fairlead-store", daemon=True)
        self._open = True
        self._thread.start()

    def stop(self) -> None:
        """Write what is waiting and close."""
        if self._thread is not None:
            with self._gate:
                self._open = False
                self._hand_over()
                self._jobs.put(None)
            self._thread.join()
            self._thread = None
            self._release_lock()

    def flush(self) -> None:
        """Block until everything handed over so far is written (or has failed)."""
        self._blocking("flush", lambda _, __: None)

    def _open_writer(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            _recognise(connection, self.path)
            connection.execute("PRAGMA journal_mode=WAL")
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

    # ------------------------------------------------------------------------------------------------ the writer

    def _run(self, connection: sqlite3.Connection) -> None:
        ended = False
        while not ended:
            job = self._jobs.get()
            jobs: list[_Job] = []
            while True:
                if job is None:
                    ended = True
                    break
                jobs.append(job)
                if len(jobs) >= BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if jobs:
                self._write(connection, jobs)
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _write(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        try:
            results = self._transact(connection, jobs)
        except Exception as e:  # noqa: BLE001 - see below; `_failed` logs it
            # The wall of the writer: it must outlive whatever one trace or one moment of the disk does to it.
            if len(jobs) > 1:  # find out whose fault it is, and try the others again
                for job in jobs:
                    self._write(connection, [job])
            else:
                self._failed(jobs[0], e)
            return
        for job in jobs:
            if job.trace is not None:
                self._remember(job.trace.id, job.body)
        _resolve([(job.answer, result, None) for job, result in zip(jobs, results, strict=True) if job.answer])

    def _transact(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[Any]:
        heads = dict(self._heads)
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [self._do(job, connection, heads) for job in jobs]
            for name, (count, head) in heads.items():
                if self._heads[name] != (count, head):
                    connection.execute("UPDATE heads SET count = ?, hash = ? WHERE chain = ?", (count, head, name))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        self._heads = heads
        self.commits += 1
        return results

    def _do(self, job: _Job, connection: sqlite3.Connection, heads: Heads) -> Any:
        if job.work is not None:
            return job.work(connection, heads)
        trace = job.trace
        assert trace is not None
        job.body = chain.encode(trace)
        columns = (trace.id, trace.at, trace.seconds, trace.query.route, trace.outcome.target)
        try:
            _add(connection, heads, "traces", columns, job.body)
        except sqlite3.IntegrityError as e:
            raise StoreError(f"a trace with the id {trace.id} is there already") from e
        return None

    def _failed(self, job: _Job, e: Exception) -> None:
        self.failures += 1
        log.error("%s: %s was not written: %s", self.path, job.name, e)
        if job.trace is not None and self._pending.get(job.trace.id) is job.trace:
            del self._pending[job.trace.id]
        if job.answer is not None:
            error = e if isinstance(e, StoreError) else StoreError(f"{job.name} was not written: {e}")
            _resolve([(job.answer, None, error)])

    def _remember(self, id: str, body: bytes) -> None:
        self._recent[id] = body
        self._recent_size += len(body)
        self._pending.pop(id, None)
        while self._recent_size > self.recent_bytes and len(self._recent) > 1:
            oldest = next(iter(self._recent))
            self._recent_size -= len(self._recent.pop(oldest))

    def _blocking(self, name: str, work: Work) -> Any:
        """Let the writer do something, and wait for it."""
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._queue(_Job(name, work, answer))
        return answer.result()

    def _queue(self, job: _Job, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Put a job in line; with `loop`, hold it until the end of that loop's round."""
        with self._gate:
            if not self._open:
                why = "is open for reading only" if self.read_only else "is not started, or was stopped"
                raise StoreError(f"the store {self.path} {why}")
            if job.trace is not None:
                if self._jobs.qsize() + len(self._held) >= self.most_waiting:
                    raise StoreError(f"{self.most_waiting} wait already: the disk does not keep up")
                self._pending.setdefault(job.trace.id, job.trace)
            self._held.append(job)
            if loop is not None and len(self._held) == 1:
                self._holder = loop
                loop.call_soon(self._round_ended)
            elif loop is None or loop is not self._holder:
                self._hand_over()

    def _round_ended(self) -> None:
        with self._gate:
            self._hand_over()

    def _hand_over(self) -> None:
        for job in self._held:
            self._jobs.put(job)
        self._held.clear()

    # ------------------------------------------------------------------------------------------------ traces

    def append(self, trace: Trace) -> asyncio.Future[None] | None:
        """Hand over a trace. For the event loop; returns at once.

        Returns:
            A future that is done when the operating system has the trace, or holds a `StoreError`: the disk failed, the id is
            there already, or too many wait. None in relaxed mode, where such errors are only logged and counted.
        """
        loop = None if self.relaxed else asyncio.get_running_loop()
        answer = None if loop is None else loop.create_future()
        trace = chain.lean(trace) if self.text else chain.blank(chain.lean(trace))
        job = _Job(f"trace {trace.id}", None, answer, trace)
        try:
            self._queue(job, loop)
        except StoreError as e:
            self._failed(job, e)
        return answer

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
        if self._open:
            return self._heads["traces"][0] + len(self._pending)
        return int(self._rows("SELECT count FROM heads WHERE chain = 'traces'")[0][0])

    # ------------------------------------------------------------------------------------------------ feedback

    async def add_feedback(self, feedback: Feedback) -> Receipt:
        """Keep a judgement. Sources are told apart by name; a further one by the same source revises its first, whatever its kind.

        Raises:
            StoreError: if it could not be written.
        """
        if not feedback.at:
            feedback = msgspec.structs.replace(feedback, at=time.time())
        if not self.text:
            feedback = chain.blank_feedback(feedback)
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        name = f"feedback on {feedback.trace_id}"
        self._queue(_Job(name, lambda connection, heads: _judge(connection, heads, feedback), answer))
        return await answer

    def feedback(self, trace_id: str) -> list[Feedback]:
        """Read the judgements of one answer that stand (the latest of each source), oldest first. Blocks."""
        standing: dict[str, Feedback] = {}
        for (body,) in self._rows("SELECT body FROM feedback WHERE trace_id = ? ORDER BY seq", (trace_id,)):
            f = chain.decode(body, Feedback)
            standing.pop(f.source, None)
            standing[f.source] = f
        return list(standing.values())

    def judgements(self) -> Iterator[Feedback]:
        """Read all feedback in order of writing, revised ones included (a later one stands over an earlier). Blocks."""
        seq = 0
        while rows := self._rows("SELECT seq, body FROM feedback WHERE seq > ? ORDER BY seq LIMIT ?", (seq, PAGE)):
            for seq, body in rows:  # noqa: B007 - the last one is where the next page begins
                yield chain.decode(body, Feedback)

    # ------------------------------------------------------------------------------------------------ learned state

    def save_policy(
        self, route: str, spec: dict[str, object], state: State, *, note: str, activate: bool = True
    ) -> Snapshot:
        """Keep a policy as the route's next version, under the digest that `Component.digest` gives it. Blocks.

        The route's newest version is taken again if it has the same digest and note, so that restarts make no versions.

        Raises:
            StateError: if the state cannot be packed.
            StoreError: if it cannot be written.
        """
        body = pack([spec, state])
        name = digest(body)

        def work(connection: sqlite3.Connection, _: Heads) -> int:
            connection.execute("INSERT OR IGNORE INTO artifacts VALUES (?, 'policy', ?)", (name, body))
            last = connection.execute(
                "SELECT version, digest, note FROM versions WHERE route = ? ORDER BY version DESC LIMIT 1", (route,)
            ).fetchone()
            if last is not None and (last[1], last[2]) == (name, note):
                version = int(last[0])
            else:
                version = 1 if last is None else int(last[0]) + 1
                row = (route, version, name, time.time(), note)
                connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, 0)", row)
            if activate:
                _activate(connection, route, version)
            return version

        version = self._blocking(f"version of {route}", work)
        return next(s for s in self.versions(route) if s.version == version)

    def load_policy(self, digest: str) -> tuple[dict[str, object], State]:
        """Read a policy's spec and state. Raises `StoreError`. Blocks."""
        try:
            spec, state = unpack(self._artifact("policy", digest))
        except (StateError, ValueError) as e:
            raise StoreError(f"the policy {digest} in {self.path} cannot be read: {e}") from e
        return spec, state

    def versions(self, route: str) -> list[Snapshot]:
        """List a route's versions, oldest first. Blocks."""
        columns = "SELECT route, version, digest, at, note, active FROM versions WHERE route = ? ORDER BY version"
        return [_snapshot(row) for row in self._rows(columns, (route,))]

    def routes(self) -> list[str]:
        """List the routes that have versions. Blocks."""
        return [route for (route,) in self._rows("SELECT DISTINCT route FROM versions ORDER BY route")]

    def activate(self, route: str, version: int) -> Snapshot:
        """Make a version the active one; all versions stay. Raises `StoreError` if there is none. Blocks."""
        known = [s.version for s in self.versions(route)]
        if version not in known:
            have = f"it has {known[0]} to {known[-1]}" if known else f"routes with versions: {', '.join(self.routes())}"
            raise StoreError(f"route {route!r} has no version {version}; {have}")
        self._blocking(f"activation of {route}", lambda connection, _: _activate(connection, route, version))
        return next(s for s in self.versions(route) if s.version == version)

    def save_pool(self, digest: str, targets: tuple[Target, ...]) -> None:
        """Keep a pool's targets under its digest, in their order. Blocks."""
        row = (digest, chain.encode(targets))

        def work(connection: sqlite3.Connection, _: Heads) -> None:
            connection.execute("INSERT OR IGNORE INTO artifacts VALUES (?, 'pool', ?)", row)

        self._blocking(f"pool {digest}", work)

    def load_pool(self, digest: str) -> tuple[Target, ...]:
        """Read a pool's targets. Raises `StoreError`. Blocks."""
        try:
            return msgspec.json.decode(self._artifact("pool", digest), type=tuple[Target, ...])
        except msgspec.MsgspecError as e:
            raise StoreError(f"the pool {digest} in {self.path} cannot be read: {e}") from e

    def _artifact(self, kind: str, digest: str) -> bytes:
        rows = self._rows("SELECT body FROM artifacts WHERE digest = ? AND kind = ?", (digest, kind))
        if not rows:
            raise StoreError(f"{self.path} holds no {kind} {digest or '(no digest)'}")
        return bytes(rows[0][0])

    # ------------------------------------------------------------------------------------------------ proof

    def verify(self) -> int:
        """Check both chains, and that every policy and pool is what its digest names; return how many traces there are. Blocks.

        Raises:
            ChainBroken: naming the first row that is wrong.
        """
        with closing(self._reader()) as connection:
            try:
                connection.execute("BEGIN")  # one moment of the file, whatever is written meanwhile
                heads = _heads(connection)
                count, head = heads["traces"]
                n = chain.check(_trace_rows(connection), begin=chain.TRACES_BEGIN, count=count, head=head)
                count, head = heads["feedback"]
                rows = _feedback_rows(connection)
                chain.check(rows, begin=chain.FEEDBACK_BEGIN, count=count, head=head, what="feedback")
                for name, kind, body in connection.execute("SELECT digest, kind, body FROM artifacts"):
                    if not _is(name, kind, body):
                        raise ChainBroken(f"the {kind} {name} was changed after it was written")
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


def _judge(connection: sqlite3.Connection, heads: Heads, feedback: Feedback) -> Receipt:
    f = feedback
    ended = connection.execute("SELECT at + seconds FROM traces WHERE id = ?", (f.trace_id,)).fetchone()
    if ended is None:
        return Receipt(status="unknown", trace_id=f.trace_id)
    late = max(0.0, f.at - ended[0])
    before = connection.execute(
        "SELECT body FROM feedback WHERE trace_id = ? AND source = ? ORDER BY seq DESC LIMIT 1",
        (f.trace_id, f.source),
    ).fetchone()
    if before is not None and msgspec.structs.replace(chain.decode(before[0], Feedback), at=f.at) == f:
        return Receipt(status="duplicate", trace_id=f.trace_id, late_seconds=late)
    _add(connection, heads, "feedback", (f.trace_id, f.source, f.at), chain.encode(f))
    return Receipt(status="accepted" if before is None else "revised", trace_id=f.trace_id, late_seconds=late)


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


def _trace_rows(connection: sqlite3.Connection) -> Iterator[chain.Row]:
    """Read the chain of traces, and check that the columns say what the bodies say."""
    query = "SELECT seq, id, at, seconds, route, target, body, prev, hash FROM traces ORDER BY seq"
    for seq, id, at, seconds, route, target, body, prev, hash in connection.execute(query):
        yield chain.Row(seq, id, _bytes(body), _bytes(prev), _bytes(hash))
        # Only reached once `check` found the bytes as they were written.
        t = msgspec.json.decode(body, type=_TraceColumns)
        if (id, at, seconds, route, target) != (t.id, t.at, t.seconds, t.query.route, t.outcome.target):
            raise ChainBroken(f"trace {seq} ({id}) was changed after it was written: its columns do not match its body")


def _feedback_rows(connection: sqlite3.Connection) -> Iterator[chain.Row]:
    query = "SELECT seq, trace_id, source, at, body, prev, hash FROM feedback ORDER BY seq"
    for seq, trace_id, source, at, body, prev, hash in connection.execute(query):
        yield chain.Row(seq, trace_id, _bytes(body), _bytes(prev), _bytes(hash))
        f = chain.decode(body, Feedback)
        if (trace_id, source, at) != (f.trace_id, f.source, f.at):
            raise ChainBroken(f"feedback {seq} on {trace_id} was changed: its columns do not match its body")


def _bytes(value: Any) -> bytes:
    """A blob as it is; what somebody put in its place as bytes that match no hash."""
    return value if isinstance(value, bytes) else repr(value).encode()


class _RouteColumn(msgspec.Struct):
    route: str = "auto"


class _TargetColumn(msgspec.Struct):
    target: str = ""


class _TraceColumns(msgspec.Struct):
    """The part of a trace's body that the columns repeat."""

    id: str
    at: float
    query: _RouteColumn
    outcome: _TargetColumn
    seconds: float = 0.0


def _is(name: str, kind: str, body: bytes) -> bool:
    """Whether `body` is what the digest `name` names."""
    if kind == "policy":
        return digest(body) == name
    try:
        return Pool(targets=msgspec.json.decode(body, type=tuple[Target, ...])).digest == name
    except msgspec.MsgspecError:
        return False


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    route, version, name, at, note, active = row
    return Snapshot(route=route, version=version, digest=name, at=at, note=note, active=bool(active))


def _recognise(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that the file is a store that this version understands."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise StoreError(f"{path} is a SQLite file, but not a Fairlead store; name another path")
    if schema > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer Fairlead (schema {schema}, this one knows {SCHEMA}); upgrade fairlead"
        )


def _unreadable(path: Path, e: sqlite3.Error) -> StoreError:
    return StoreError(f"{path} cannot be read as a store ({e}); name another path, or restore the file from a backup")


def _resolve(answers: list[tuple[Any, Any, StoreError | None]]) -> None:
    """Give everybody who waits their result; each event loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, StoreError | None]]] = {}
    for answer, result, error in answers:
        if isinstance(answer, concurrent.futures.Future):
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)
        else:
            by_loop.setdefault(answer.get_loop(), []).append((answer, result, error))
    for loop, group in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell, and the rows are written
            loop.call_soon_threadsafe(_settle, group)


def _settle(group: list[tuple[asyncio.Future[Any], Any, StoreError | None]]) -> None:
    for future, result, error in group:
        if future.done():  # whoever waited was cancelled
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
