"""The store in one SQLite file, for one process or several on one machine.

The file is in WAL mode with `synchronous=NORMAL`: a commit has been handed to the operating system, so it survives `kill -9` of the
process, but the last moments may be lost if the machine itself loses power. `synchronous="full"` waits for the disk on every commit.

Several processes may write: each transaction takes the file's lock, reads where the chains end, and gives the lock back with its commit; a
process that dies gives it back too. Only while the file is opened does a process hold ``PATH.lock``, so that two do not make the
tables at once. Not for a file on a network.

Cost of `append` in the event loop: 4 µs. From `append` to the acknowledged commit of a lone trace: 60 to 120 µs. Under load 20,000 to 40,000
traces a second (2 shared virtual cores, 1.3 kB a trace). Processes with 16 clients each that wait for every commit,
on the same 2 cores (`benchmarks/store.py`):

    processes        1       2       4
    traces/s    24,000  26,000  28,000
    p50 / p99   0.5 / 7  1.0 / 4  2.1 / 8 ms
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from fairlead import chain
from fairlead.database import OLDEST, SCHEMA, Database
from fairlead.errors import StoreError
from fairlead.spool import Spools
from fairlead.sqlstore import SQLStore
from fairlead.store import Connection

try:
    import fcntl
except ImportError:  # pragma: no cover - not a Unix system
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

APPLICATION = 0x464C4431  # "FLD1"
BUSY_SECONDS = 30.0
"""How long a transaction waits for those of other processes before it fails."""
BUSY_SPOOL_SECONDS = 3.0
"""The same where a spool can take it instead."""
PAUSE_SECONDS = (0.0002, 0.001)
"""From one try to take the lock to the next; drawn anew each time."""
GONE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)

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
# Who does what only one process should, where the chains begin since something was forgotten, and how far spools have been written.
# Up to schema 4 one process had the file to itself, and nothing was ever deleted.
_SHARED = """
CREATE TABLE leases(name TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoints(
  chain TEXT PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL, at REAL NOT NULL, seal TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE spools(name TEXT PRIMARY KEY, done INTEGER NOT NULL) WITHOUT ROWID;
DROP TRIGGER IF EXISTS traces_keep;
DROP TRIGGER IF EXISTS feedback_keeps;
CREATE TRIGGER traces_keep BEFORE DELETE ON traces WHEN old.seq > coalesce((SELECT seq FROM checkpoints WHERE chain = 'traces'), 0)
  BEGIN SELECT RAISE(ABORT, 'traces are append-only'); END;
CREATE TRIGGER feedback_keeps BEFORE DELETE ON feedback WHEN old.seq > coalesce((SELECT seq FROM checkpoints WHERE chain = 'feedback'), 0)
  BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END;
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
CREATE TRIGGER feedback_stays BEFORE UPDATE ON feedback BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END;
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
{_SHARED}
PRAGMA application_id={APPLICATION};
PRAGMA user_version={SCHEMA};
"""


class SQLiteStore(SQLStore):
    """Keeps everything in one file.

    Args:
        path: the file; it and its folder are made if they are missing (readable by their owner only).
        relaxed: `append` returns None and nobody waits; a crash may lose the traces that were still queued.
        text: keep messages, answers and corrections; if not, they are blanked before they are written.
        synchronous: ``normal`` survives the death of the process, ``full`` also a power cut, at the price of a disk flush a commit.
        most_waiting: `append` refuses (with a `StoreError`, logged and counted) while so many wait for a disk that does not keep up.
        recent_bytes: how much of the newest traces is kept in memory, so that feedback soon after the answer reads no disk.
        read_only: open for reading beside live writers.
        outage: while nothing can be written (the disk is full, somebody else holds the lock): ``refuse``, or ``spool`` in a file.
        spool: folder of such files (default: ``PATH.spool``); it helps most on another disk.
        spool_bytes: how much of them at most.
        retention_days: `forget` what is older, every hour; None: keep everything.
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
        outage: Literal["refuse", "spool"] = "refuse",
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int = 256_000_000,
        retention_days: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.synchronous = synchronous
        full = synchronous == "full"
        folder = Path(f"{self.path}.spool") if spool is None else Path(spool)
        super().__init__(
            SQLiteFile(self.path, full=full, busy_seconds=BUSY_SECONDS if outage == "refuse" else BUSY_SPOOL_SECONDS),
            relaxed=relaxed,
            text=text,
            most_waiting=most_waiting,
            recent_bytes=recent_bytes,
            read_only=read_only,
            spools=Spools(folder, most_bytes=spool_bytes, sync=full) if outage == "spool" and not read_only else None,
            retention_days=retention_days,
        )


class SQLiteFile(Database):
    """One SQLite file.

    Args:
        path: where it is.
        full: wait for the disk on every commit.
        busy_seconds: how long a transaction waits for those of other processes.
    """

    error = sqlite3.Error
    now = "(julianday('now') - 2440587.5) * 86400.0"

    def __init__(self, path: Path, *, full: bool = False, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path, self.full, self.busy_seconds = path, full, busy_seconds
        self.name = str(path)

    def prepare(self, ddl: Sequence[str]) -> None:
        """Make the file and its tables, or bring them up to date."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                connection = self.open()
                try:
                    self._make(connection, ddl)
                finally:
                    connection.close()
        except OSError as e:
            raise StoreError(f"the store {self.path} cannot be written ({e.strerror}); name another path") from e
        except sqlite3.Error as e:
            raise self._unreadable(e) from e

    def _make(self, connection: sqlite3.Connection, ddl: Sequence[str]) -> None:
        connection.execute(f"PRAGMA busy_timeout={int(1000 * self.busy_seconds)}")
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        schema = self._recognise(connection)
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")
        if schema < SCHEMA:
            new = f"{_PARTS if schema < 3 else ''} {_WEIGHTS if schema < 4 else ''} {_SHARED}"
            connection.executescript(f"BEGIN IMMEDIATE; {new} PRAGMA user_version={SCHEMA}; COMMIT;")
            log.info("%s: brought from schema %d to %d", self.path, schema, SCHEMA)
        with self.transaction(connection):
            for statement in ddl:
                connection.execute(statement)

    def append_only(self, table: str) -> Sequence[str]:
        """Return the triggers that keep a table's rows as they are."""
        end = f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
        return (
            f"CREATE TRIGGER IF NOT EXISTS {table}_stay BEFORE UPDATE ON {table} {end}",
            f"CREATE TRIGGER IF NOT EXISTS {table}_keep BEFORE DELETE ON {table} {end}",
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock for opening. Raises `OSError`, or `StoreError` if somebody else holds it for too long."""
        with open(f"{self.path}.lock", "a+", opener=lambda p, flags: os.open(p, flags, 0o600)) as lock:
            last = time.monotonic() + self.busy_seconds
            while fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= last:
                        raise StoreError(
                            f"the store {self.path} is being opened by another process, or written by one of a Fairlead "
                            "that did not share it yet; stop that one"
                        ) from None
                    time.sleep(PAUSE_SECONDS[1])
            yield

    def open(self) -> sqlite3.Connection:
        """Open a connection that writes."""
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=self.busy_seconds
        )
        try:
            connection.execute(f"PRAGMA synchronous={'FULL' if self.full else 'NORMAL'}")
            connection.execute("PRAGMA secure_delete=ON").fetchall()  # what is forgotten is overwritten too
            connection.execute("PRAGMA busy_timeout=0")  # from here on `_begin` waits
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self, connection: Connection) -> None:
        """Close it. The last one that closes the file folds the write-ahead log into it."""
        assert isinstance(connection, sqlite3.Connection)
        with suppress(sqlite3.Error):
            connection.close()

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """Take the file's lock, and commit or roll back."""
        assert isinstance(connection, sqlite3.Connection)
        self._begin(connection)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Take the file's lock. SQLite's own waiting sleeps ever longer, up to 100 ms: too long between processes that each hold it for 1 ms."""
        last = time.monotonic() + self.busy_seconds
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as e:
                if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= last:
                    raise
                time.sleep(random.uniform(*PAUSE_SECONDS))
            else:
                return

    @contextmanager
    def reading(self, *, moment: bool = False) -> Iterator[sqlite3.Connection]:
        """Open a connection that cannot write."""
        if not self.path.exists():
            raise StoreError(f"there is no store at {self.path}; name the one your config writes")
        try:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10.0
            )
        except sqlite3.Error as e:
            raise self._unreadable(e) from e
        try:
            try:
                if self._recognise(connection) < 5:  # nothing was ever forgotten, and the file is not ours to change
                    connection.execute("CREATE TEMP TABLE checkpoints(chain, seq, hash, at, seal)")
                if moment:
                    connection.execute("BEGIN")
            except sqlite3.Error as e:
                raise self._unreadable(e) from e
            yield connection
        finally:
            connection.close()

    def stop(self) -> None:
        """Nothing stays open."""

    def gone(self, e: Exception) -> bool:
        """Whether the file is locked, cannot be reached, or its disk is full."""
        return isinstance(e, sqlite3.Error) and getattr(e, "sqlite_errorcode", 0) & 0xFF in GONE

    def known(self, e: Exception) -> bool:
        """Whether the index of ids refused it."""
        return isinstance(e, sqlite3.IntegrityError) and "traces.id" in str(e)

    def says(self, e: Exception) -> str:
        """Return its message."""
        return str(e)

    def schema(self) -> int:
        """Return the schema of the file."""
        with self.reading() as connection:
            return self._recognise(connection)

    def describe(self) -> dict[str, Any]:
        """Say what it is, and how large."""
        size = sum(p.stat().st_size for p in (self.path, Path(f"{self.path}-wal")) if p.exists())
        return {"kind": "sqlite", "at": self.name, "version": sqlite3.sqlite_version, "bytes": size}

    def _recognise(self, connection: sqlite3.Connection) -> int:
        """Make sure that the file is a store that this version understands; return its schema."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise StoreError(f"{self.path} is a SQLite file, but not a Fairlead store; name another path")
        if schema > SCHEMA:
            raise StoreError(
                f"{self.path} was written by a newer Fairlead (schema {schema}, this one knows {SCHEMA}); upgrade fairlead"
            )
        if schema < OLDEST:
            raise StoreError(
                f"{self.path} was written by an earlier Fairlead (schema {schema}, this one knows {OLDEST} to {SCHEMA}); "
                "name another path to begin a new store, and read this one with the version that wrote it"
            )
        return int(schema)

    def _unreadable(self, e: sqlite3.Error) -> StoreError:
        return StoreError(
            f"{self.path} cannot be read as a store ({e}); name another path, or restore the file from a backup"
        )
