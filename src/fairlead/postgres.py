"""The store in PostgreSQL (14 or later), for many processes on many machines. Needs the extra ``postgres`` (psycopg 3).

Everything is as in one SQLite file (`sqlstore.py`), with these differences. A transaction locks the heads of the chains, so processes write
one after the other: one database takes as many traces as one writer does. The statements of a transaction are sent in a pipeline, without
a wait for each answer. A lost connection is opened again; a transaction whose commit was not answered is looked up, and not written twice.
A commit is as safe as the server's `synchronous_commit` says; `synchronous="full"` sets it to ``on``.

Give the store a database of its own: its tables have plain names. The server ends the transaction of a client that says nothing for 60 s,
so that a process that was cut off holds nobody up.

Cost (`benchmarks/store.py`, server on the same two cores, without `fsync`): a lone commit 0.3 to 0.4 ms, 13,000 to 17,000 traces a second of one
process or of four together.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote, urlsplit

from fairlead import chain, secret
from fairlead.database import SCHEMA, Database
from fairlead.errors import ConfigError, StoreError
from fairlead.spool import Spools
from fairlead.sqlstore import SQLStore
from fairlead.store import Connection, Cursor, Value

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

READERS = 4
"""Connections for reading that are kept open."""
CONNECT_SECONDS = 5
LOCK_SECONDS = 30
"""How long a transaction waits for those of other processes before it fails."""
SILENT_SECONDS = 60
"""After which the server ends the transaction of a client that says nothing."""
PAUSE_SECONDS = 1.0
"""From one try of readers to connect to the next."""
STALE_SECONDS = 30 * 86400.0
"""After which the note of a writer that has died is deleted."""
MAKING = 0x464C4431
"""Number of the lock that is held while tables are made."""

_TABLES = f"""
CREATE TABLE fairlead(schema BIGINT NOT NULL);
INSERT INTO fairlead VALUES ({SCHEMA});
CREATE TABLE traces(
  seq BIGINT PRIMARY KEY, id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, seconds DOUBLE PRECISION NOT NULL, route TEXT NOT NULL,
  target TEXT NOT NULL, body BYTEA NOT NULL, prev BYTEA NOT NULL, hash BYTEA NOT NULL);
CREATE UNIQUE INDEX traces_id ON traces(id);
CREATE TABLE feedback(
  seq BIGINT PRIMARY KEY, trace_id TEXT NOT NULL, source TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
  body BYTEA NOT NULL, prev BYTEA NOT NULL, hash BYTEA NOT NULL);
CREATE INDEX feedback_of ON feedback(trace_id);
CREATE TABLE lessons(
  seq BIGINT PRIMARY KEY, trace_id TEXT NOT NULL, route TEXT NOT NULL, value DOUBLE PRECISION,
  weight DOUBLE PRECISION NOT NULL DEFAULT 1.0, further BIGINT NOT NULL DEFAULT 0);
CREATE INDEX lessons_of ON lessons(trace_id);
CREATE INDEX lessons_on ON lessons(route);
CREATE TABLE taught(trace_id TEXT PRIMARY KEY, weight DOUBLE PRECISION NOT NULL, total DOUBLE PRECISION NOT NULL);
CREATE TABLE artifacts(digest TEXT NOT NULL, kind TEXT NOT NULL, deflated BIGINT NOT NULL, body BYTEA NOT NULL);
CREATE UNIQUE INDEX artifacts_name ON artifacts(digest, kind);
CREATE TABLE parts(policy TEXT NOT NULL, "array" TEXT NOT NULL, PRIMARY KEY(policy, "array"));
CREATE INDEX parts_of ON parts("array");
CREATE TABLE spare(digest TEXT PRIMARY KEY);
CREATE TABLE versions(
  route TEXT NOT NULL, version BIGINT NOT NULL, digest TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, note TEXT NOT NULL,
  active BIGINT NOT NULL, PRIMARY KEY(route, version));
CREATE INDEX versions_of ON versions(digest);
CREATE TABLE leases(name TEXT PRIMARY KEY, owner TEXT NOT NULL, until DOUBLE PRECISION NOT NULL);
CREATE TABLE checkpoints(
  chain TEXT PRIMARY KEY, seq BIGINT NOT NULL, hash BYTEA NOT NULL, at DOUBLE PRECISION NOT NULL, seal TEXT NOT NULL);
CREATE TABLE spools(name TEXT PRIMARY KEY, done BIGINT NOT NULL);
CREATE TABLE writers(name TEXT PRIMARY KEY, batch BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL);
CREATE TABLE heads(chain TEXT PRIMARY KEY, count BIGINT NOT NULL, hash BYTEA NOT NULL);
INSERT INTO heads VALUES ('traces', 0, '\\x{chain.TRACES_BEGIN.hex()}'), ('feedback', 0, '\\x{chain.FEEDBACK_BEGIN.hex()}');
CREATE FUNCTION fairlead_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.seq <= coalesce((SELECT c.seq FROM checkpoints c WHERE c.chain = TG_TABLE_NAME), 0) THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION '% are append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER traces_stay BEFORE UPDATE OR DELETE ON traces FOR EACH ROW EXECUTE FUNCTION fairlead_append_only();
CREATE TRIGGER feedback_stays BEFORE UPDATE OR DELETE ON feedback FOR EACH ROW EXECUTE FUNCTION fairlead_append_only();
CREATE TRIGGER traces_keep BEFORE TRUNCATE ON traces EXECUTE FUNCTION fairlead_append_only();
CREATE TRIGGER feedback_keeps BEFORE TRUNCATE ON feedback EXECUTE FUNCTION fairlead_append_only();
"""

_TYPES = (
    (
        re.compile(r"\bINTEGER\s+PRIMARY\s+KEY\s+AUTOINCREMENT\b", re.I),
        "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    ),
    (re.compile(r"\bINTEGER\b", re.I), "BIGINT"),
    (re.compile(r"\bREAL\b", re.I), "DOUBLE PRECISION"),
    (re.compile(r"\bBLOB\b", re.I), "BYTEA"),
    (re.compile(r"\bWITHOUT\s+ROWID\b", re.I), ""),
)
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def translated(ddl: str) -> str:
    """Return the DDL of `Store.tables` with PostgreSQL's types."""
    for pattern, word in _TYPES:
        ddl = pattern.sub(word, ddl)
    return ddl


@lru_cache(maxsize=512)
def marked(sql: str) -> str:
    """Return `sql` with psycopg's marks for parameters, outside of quoted strings."""
    parts = sql.replace("%", "%%").split("'")
    parts[::2] = [part.replace("?", "%s") for part in parts[::2]]
    return "'".join(parts)


class PostgresStore(SQLStore):
    """Keeps everything in a PostgreSQL database.

    Args:
        url: ``postgresql://user:${PASSWORD}@host:port/database``; ``${NAME}`` is read from the environment when a connection is opened.
        relaxed: `append` returns None and nobody waits; a crash may lose the traces that were still queued.
        text: keep messages, answers and corrections; if not, they are blanked before they are written.
        synchronous: ``normal`` leaves it to the server when a commit counts as done, ``full`` waits for its disk.
        most_waiting: `append` refuses (with a `StoreError`, logged and counted) while so many wait for a database that does not keep up.
        recent_bytes: how much of the newest traces is kept in memory, so that feedback soon after the answer reads nothing.
        read_only: open for reading beside live writers.
        outage: while the database is gone: ``spool`` what is written in a file of this machine, or ``refuse``.
        spool: folder of such files.
        spool_bytes: how much of them at most, for each process.
        retention_days: `forget` what is older, every hour; None: keep everything.

    Raises:
        ConfigError: if `url` is none, or holds a password itself.
    """

    def __init__(
        self,
        url: str,
        *,
        relaxed: bool = False,
        text: bool = True,
        synchronous: Literal["normal", "full"] = "normal",
        most_waiting: int = 8192,
        recent_bytes: int = 8_000_000,
        read_only: bool = False,
        outage: Literal["refuse", "spool"] = "spool",
        spool: str | Path = "fairlead.spool",
        spool_bytes: int = 256_000_000,
        retention_days: float | None = None,
    ) -> None:
        self.url, self.synchronous = url, synchronous
        full = synchronous == "full"
        super().__init__(
            Postgres(url, full=full),
            relaxed=relaxed,
            text=text,
            most_waiting=most_waiting,
            recent_bytes=recent_bytes,
            read_only=read_only,
            spools=Spools(Path(spool), most_bytes=spool_bytes, sync=full)
            if outage == "spool" and not read_only
            else None,
            retention_days=retention_days,
        )


def _named(url: str) -> str:
    """Return what messages call the database: no user, no password, no parameters. Raises `ConfigError`."""
    if _REFERENCE.fullmatch(url):
        return f"PostgreSQL at {url}"
    parts = urlsplit(_REFERENCE.sub("x", url))
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError("write postgresql://user:${PASSWORD}@host:port/database, or one ${NAME} for all of it")
    user, _, _ = urlsplit(url).netloc.rpartition("@")
    password = user.partition(":")[2]
    if (password and not _REFERENCE.fullmatch(password)) or re.search(r"[?&]password=(?!\$\{)", url):
        raise ConfigError(
            "a password must not be written here; put it in an environment variable and write ${NAME_OF_THE_VARIABLE}"
        )
    return f"PostgreSQL at {urlsplit(url).netloc.rpartition('@')[2] or 'the local socket'}{parts.path}"


class Postgres(Database):
    """One PostgreSQL database.

    Args:
        url: where it is, with ``${NAME}`` for what is secret.
        full: have the server wait for its disk on every commit.

    Raises:
        ConfigError: if `url` is none, or holds a password itself.
    """

    instr = "strpos"
    now = "extract(epoch FROM clock_timestamp())::float8"
    for_update = " FOR UPDATE"
    marks = True

    def __init__(self, url: str, *, full: bool = False) -> None:
        self.url, self.full = url, full
        self.name = _named(url)
        self._idle: list[psycopg.Connection[Any]] = []
        self._gate = threading.Lock()
        self._recognised = False
        self._refused_until = 0.0
        """Until when (monotonic) readers do not try to connect: whoever waits for a server that is gone holds up a thread."""

    def __repr__(self) -> str:
        return f"Postgres({self.name!r})"

    @property
    def error(self) -> type[Exception]:  # type: ignore[override]
        """The base of psycopg's errors."""
        found: type[Exception] = _driver().Error
        return found

    def prepare(self, ddl: Sequence[str]) -> None:
        """Make the tables. Raises `StoreError`."""
        connection: _Connection | None = None
        try:
            connection = self.open()
            with connection.raw.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(?)", (MAKING,))
                if self._schema(connection) is None:
                    connection.raw.execute(_TABLES.encode())
                self._recognise(connection)
                connection.execute("DELETE FROM writers WHERE at < ?", (time.time() - STALE_SECONDS,))
                for statement in ddl:
                    connection.raw.execute(translated(statement).encode())
        except self.error as e:
            raise StoreError(f"{self.name} cannot be opened as a store ({self.says(e)})") from None
        finally:
            if connection is not None:
                self.close(connection)

    def append_only(self, table: str) -> Sequence[str]:
        """Return the triggers that keep a table's rows as they are."""
        do = "EXECUTE FUNCTION fairlead_append_only()"
        return (
            f"CREATE OR REPLACE TRIGGER {table}_stays BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {do}",
            f"CREATE OR REPLACE TRIGGER {table}_keeps BEFORE TRUNCATE ON {table} {do}",
        )

    def open(self) -> _Connection:
        """Open a connection that writes."""
        return _Connection(self._connect())

    def _connect(self, *, read_only: bool = False) -> psycopg.Connection[Any]:
        driver = _driver()
        settings = {
            "idle_in_transaction_session_timeout": f"{SILENT_SECONDS}s",
            "lock_timeout": f"{LOCK_SECONDS}s",
            "default_transaction_read_only": "on" if read_only else "off",
            **({"synchronous_commit": "on"} if self.full else {}),
        }
        connection: psycopg.Connection[Any] = driver.connect(
            self._revealed(),
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="fairlead",
            client_encoding="UTF8",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
        )
        try:
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            _adapt(connection)
        except BaseException:
            connection.close()
            raise
        self._refused_until = 0.0
        return connection

    def _revealed(self) -> str:
        if _REFERENCE.fullmatch(self.url):
            return secret.reveal(self.url)
        return _REFERENCE.sub(lambda m: quote(secret.reveal(m[0]), safe=""), self.url)

    def close(self, connection: Connection) -> None:
        """Close it."""
        assert isinstance(connection, _Connection)
        with suppress(self.error):
            connection.raw.close()

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """Send what is run inside in a pipeline, and commit or roll back."""
        assert isinstance(connection, _Connection)
        try:
            with connection.raw.pipeline() as pipeline:
                connection.pipeline = pipeline
                connection.execute("BEGIN")
                yield
                connection.execute("COMMIT")
        except BaseException:
            with suppress(self.error):
                connection.raw.rollback()
            raise
        finally:
            connection.pipeline = None

    @contextmanager
    def reading(self, *, moment: bool = False) -> Iterator[_Connection]:
        """Lend a connection that only reads; a lost one is replaced."""
        with self._gate:
            raw = self._idle.pop() if self._idle else None
        try:
            if raw is not None:
                try:
                    raw.execute("SELECT 1")
                except self.error:
                    raw.close()
                    raw = None
            if raw is None:
                if time.monotonic() < self._refused_until:
                    raise StoreError(f"{self.name} is gone; it is tried again in a moment")
                raw = self._connect(read_only=True)
            connection = _Connection(raw)
            if moment:
                raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            elif not self._recognised:
                self._recognise(connection)
                self._recognised = True
        except self.error as e:
            if raw is not None:
                raw.close()
            self._refused_until = time.monotonic() + PAUSE_SECONDS
            raise StoreError(f"{self.name} cannot be read ({self.says(e)})") from None
        except StoreError:
            if raw is not None:
                raw.close()
            raise
        try:
            yield connection
        finally:
            with suppress(self.error):
                if moment:
                    raw.rollback()
            with self._gate:
                keep = len(self._idle) < READERS and not raw.closed and not raw.broken
                if keep:
                    self._idle.append(raw)
            if not keep:
                raw.close()

    def stop(self) -> None:
        """Close the connections that read."""
        with self._gate:
            idle, self._idle = self._idle, []
        for raw in idle:
            raw.close()

    def gone(self, e: Exception) -> bool:
        """Whether the connection is lost, the server goes down or is full, or somebody holds the lock for too long."""
        driver = _driver()
        if isinstance(e, StoreError | ConfigError) or not isinstance(e, driver.Error):
            return False
        state: str | None = e.sqlstate  # type: ignore[attr-defined] # of psycopg.Error
        if state is None:  # the driver's own: the connection is lost or cannot be opened
            return isinstance(e, driver.OperationalError | driver.InterfaceError)
        return state[:2] in ("08", "53", "58") or state in ("57P01", "57P02", "57P03", "55P03", "25006", "25P03")

    def known(self, e: Exception) -> bool:
        """Whether the index of ids refused it."""
        driver = _driver()
        return isinstance(e, driver.errors.UniqueViolation) and e.diag.constraint_name == "traces_id"

    def says(self, e: Exception) -> str:
        """Return its first line, without the password."""
        text = str(e).strip().partition("\n")[0] or type(e).__name__
        try:
            revealed = self._revealed()
        except ConfigError:
            return secret.redact(text)
        raw = urlsplit(revealed).password or ""
        return secret.redact(text, revealed, unquote(raw), raw)

    def schema(self) -> int:
        """Return the schema of the tables."""
        with self.reading() as connection:
            return self._recognise(connection)

    def describe(self) -> dict[str, Any]:
        """Say what it is, and how large."""
        with self.reading() as connection:
            query = "SELECT current_setting('server_version'), pg_database_size(current_database())"
            version, size = connection.execute(query).fetchone()
        return {"kind": "postgresql", "at": self.name, "version": version, "bytes": size}

    def _recognise(self, connection: _Connection) -> int:
        """Make sure that this version understands the tables; return their schema."""
        schema = self._schema(connection)
        if schema is None:
            raise StoreError(
                f"there is no store in {self.name}; name the one your config writes, or start the gateway with it"
            )
        if schema != SCHEMA:
            other = "newer" if schema > SCHEMA else "earlier"
            raise StoreError(
                f"{self.name} was written by a{'n' * (other == 'earlier')} {other} Fairlead (schema {schema}, this one knows {SCHEMA})"
            )
        return schema

    def _schema(self, connection: _Connection) -> int | None:
        if connection.execute("SELECT to_regclass('fairlead')::text").fetchone()[0] is None:
            return None
        return int(connection.execute("SELECT schema FROM fairlead").fetchone()[0])


class _Connection:
    """A connection of psycopg that takes ``?`` for a parameter."""

    __slots__ = ("pipeline", "raw")

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw
        self.pipeline: psycopg.Pipeline | None = None

    def execute(self, sql: str, params: Sequence[Value] = (), /) -> Cursor:
        """Run one statement; in a pipeline, send it."""
        cursor = self.raw.execute(marked(sql), params)
        return cursor if self.pipeline is None else _Sent(cursor, self.pipeline)


class _Sent:
    """A cursor whose answer may not be here yet."""

    __slots__ = ("_cursor", "_pipeline")

    def __init__(self, cursor: psycopg.Cursor[Any], pipeline: psycopg.Pipeline) -> None:
        self._cursor, self._pipeline = cursor, pipeline

    @property
    def rowcount(self) -> int:
        if self._cursor.pgresult is None:
            self._pipeline.sync()
        return self._cursor.rowcount

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


def _driver() -> Any:
    """Return psycopg. Raises `StoreError` if it is not installed."""
    try:
        import psycopg
    except ImportError:
        raise StoreError("a store in PostgreSQL needs psycopg: pip install 'fairlead[postgres]'") from None
    return psycopg


def _adapt(connection: psycopg.Connection[Any]) -> None:
    """Send truth values as integers, and read sums of integers as integers: as SQLite does."""
    from psycopg.adapt import Loader
    from psycopg.types.numeric import IntDumper

    class Number(Loader):
        def load(self, data: Any) -> int | float:
            text = bytes(data).decode()
            return float(text) if "." in text or text == "NaN" else int(text)

    connection.adapters.register_dumper(bool, IntDumper)
    connection.adapters.register_loader("numeric", Number)
