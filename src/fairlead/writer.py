"""The one thread of a process that writes to the database: a queue in front of it, transactions of many jobs, answers to whoever waits.

It commits at once when it is idle, and under load it takes everything that waits into one transaction; then it tells each event loop
once for the whole batch. A batch that fails is tried again job by job, so that one bad job harms no other.

Other processes may write to the same database: `Heads` (count and last hash of each chain) is read at the beginning of each transaction,
which runs alone, and is what its jobs hand on to each other.

When the database is gone (connection lost, disk full, locked for too long) the thread does not wait for it: another one tries to open it
again (after 50 ms, then ever later, every 5 s at last), and until it has, what can be kept in a file is (`spool.py`), if there is one,
and everything else is refused at once. What was kept is written, in its order, between other jobs when the database is back.

A commit whose answer is lost with the connection may have gone through. So where that can happen every transaction notes its number,
which tells after the connection is open again; nothing is written twice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypeAlias

from msgspec import MsgspecError

from fairlead.chain import link
from fairlead.database import Database
from fairlead.errors import ChainBroken, FairleadError, StoreError
from fairlead.spool import Spool, Spools
from fairlead.store import Connection

log = logging.getLogger(__name__)

BATCH = 512
"""Jobs in one transaction at most."""
FIRST_PAUSE_SECONDS = 0.05
"""From the moment the database is gone until it is tried again; doubled each time."""
LAST_PAUSE_SECONDS = 5.0

Chain: TypeAlias = Literal["traces", "feedback"]
Became: TypeAlias = Literal["written", "spooled", "lost"]
"""What became of a job: it is in the database, it is in a file until the database is back, or neither."""
Answer: TypeAlias = "asyncio.Future[Any] | concurrent.futures.Future[Any] | None"


class Heads:
    """The ends of the chains, as the jobs of one transaction hand them on."""

    __slots__ = ("named", "now", "read", "sums")

    def __init__(self, connection: Connection, for_update: str = "") -> None:
        """Read them. Raises `ChainBroken` if they are not there."""
        rows = connection.execute(f"SELECT chain, count, hash FROM heads ORDER BY chain{for_update}")
        self.read: dict[str, tuple[int, bytes]] = {chain: (count, hash) for chain, count, hash in rows}
        if set(self.read) != {"traces", "feedback"}:
            raise ChainBroken("the heads of the chains are missing")
        self.now = dict(self.read)
        self.named: set[str] = set()
        """Policies that traces of this transaction name."""
        self.sums: dict[tuple[str, tuple[Any, ...]], int] = {}
        """What traces of this transaction add to, and how much, that is not written yet (see `store.Sum`)."""

    def add(self, connection: Connection, chain: Chain, columns: tuple[Any, ...], body: bytes) -> int:
        """Chain one more row to `chain`; return its number."""
        count, prev = self.now[chain]
        row = (count + 1, *columns, body, prev, link(prev, body))
        connection.execute(_INSERTS[chain], row)
        self.now[chain] = (count + 1, row[-1])
        return count + 1

    def settle(self, connection: Connection) -> None:
        """Write the sums: at the end, and before anybody reads what they add to."""
        for (sql, key), amount in self.sums.items():
            connection.execute(sql, (*key, amount))
        self.sums.clear()

    def write(self, connection: Connection) -> None:
        """Keep those that have moved, and the sums."""
        self.settle(connection)
        for chain, (count, hash) in self.now.items():
            if self.read[chain][0] != count:
                connection.execute("UPDATE heads SET count = ?, hash = ? WHERE chain = ?", (count, hash, chain))


_INSERTS = {
    "traces": "INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "feedback": "INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?)",
}

Work: TypeAlias = Callable[[Connection, Heads], Any]


class Job(ABC):
    """One piece of work for the writer, and who waits for it."""

    __slots__ = ("answer", "name")

    id = ""
    """Of the trace it adds."""
    behind = ""
    """Id of the trace that must be written before."""

    def __init__(self, name: str, answer: Answer) -> None:
        self.name, self.answer = name, answer

    @abstractmethod
    def do(self, connection: Connection, heads: Heads) -> Any:
        """Write, and return the answer. May be called again if its transaction was rolled back."""

    def record(self) -> bytes | None:
        """Return what is kept in a file while the database is gone; None: it cannot wait. Raises `StoreError`."""
        return None

    def promise(self) -> Any:
        """Return the answer to whoever waits for what was kept in a file."""

    def why(self, database: Database, e: Exception) -> Exception:
        """Say what an error means to whoever waits."""
        return e

    def ended(self, became: Became) -> None:
        """Note what became of it, before whoever waits is told. In the writer's thread, or where it was refused at once."""


class Task(Job):
    """A job that is one function."""

    __slots__ = ("work",)

    def __init__(self, name: str, answer: Answer, work: Work) -> None:
        super().__init__(name, answer)
        self.work = work

    def do(self, connection: Connection, heads: Heads) -> Any:
        """Call it."""
        heads.settle(connection)
        return self.work(connection, heads)


class Apart(Job):
    """A job whose own refusal undoes what it wrote, and nothing of the others in its transaction."""

    __slots__ = ("work",)

    def __init__(self, name: str, answer: Answer, work: Callable[[Connection], Any]) -> None:
        super().__init__(name, answer)
        self.work = work

    def do(self, connection: Connection, heads: Heads) -> Any:
        """Call it behind a savepoint; a refusal is its answer."""
        heads.settle(connection)
        connection.execute("SAVEPOINT apart")
        try:
            result = self.work(connection)
        except FairleadError as e:
            connection.execute("ROLLBACK TO SAVEPOINT apart")
            result = Refusal(e)
        connection.execute("RELEASE SAVEPOINT apart")
        return result


class Refusal:
    """The answer of a job that was run, and refused."""

    __slots__ = ("error",)

    def __init__(self, error: FairleadError) -> None:
        self.error = error


class _Sign(Job):
    """Something that the thread is told: the database is back, or a spool waits."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection | None = None) -> None:
        super().__init__("sign", None)
        self.connection = connection

    def do(self, connection: Connection, heads: Heads) -> None:
        """Write nothing."""


class Writer:
    """Writes one job after the other.

    Args:
        database: what is written to.
        spools: where what cannot be written is kept meanwhile; None: it is refused.
        kept: makes a job of what a spool kept.
    """

    def __init__(
        self, database: Database, *, spools: Spools | None = None, kept: Callable[[bytes], Job] | None = None
    ) -> None:
        self.database, self.spools, self.kept = database, spools, kept
        self.name = f"the store {database.name}"
        self.open = False
        self.failures = 0
        """What could not be written since the start."""
        self.commits = 0
        """Transactions since the start."""
        self.spooled = 0
        """Jobs kept in a file since the start."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._held: list[Job] = []
        """Traces that go to the thread at the end of the event loop's next round, so that it is woken once for all of them."""
        self._holder: asyncio.AbstractEventLoop | None = None
        self._gate = threading.Lock()
        """Nothing is queued behind the end."""
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._ending = threading.Event()
        self._mark = ""
        self._number = 0
        self._unsure: list[Any] | None = None
        """Results of a transaction whose commit was asked for, and not answered yet."""

    def start(self, connection: Connection) -> None:
        """Begin to write to `connection`, which belongs to the thread from now on."""
        self._connection = connection
        self._mark = secrets.token_hex(8)
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name="fairlead-store", daemon=True)
        self.open = True
        self._thread.start()
        self.look()

    def stop(self) -> None:
        """Write what is waiting, and close the connection."""
        with self._gate:
            self.open = False
            self._hand_over()
            self._jobs.put(None)
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def up(self) -> bool:
        """Whether the database was there when it was last needed."""
        return self._connection is not None

    @property
    def waiting(self) -> int:
        """How many jobs the thread has not taken yet."""
        return self._jobs.qsize() + len(self._held)

    def look(self) -> None:
        """Have the thread look for spools: its own, and those that processes left that have died."""
        if self.spools is not None:
            with suppress(StoreError):
                self.put(_Sign())

    def put(self, job: Job, loop: asyncio.AbstractEventLoop | None = None, *, most: int | None = None) -> None:
        """Put a job in line; with `loop`, hold it until the end of that loop's next round.

        Raises:
            StoreError: if the writer is not open, or `most` wait already.
        """
        with self._gate:
            if not self.open:
                raise StoreError(f"{self.name} is not started, or was stopped")
            if most is not None and self.waiting >= most:
                raise StoreError(f"{most} wait already: the disk does not keep up")
            self._held.append(job)
            if loop is not None and len(self._held) == 1:
                self._holder = loop
                # The round after this one: under load twice as many then share a transaction, which is 5% of what a request costs; else it comes at once.
                loop.call_soon(loop.call_soon, self._round_ended)
            elif loop is None or loop is not self._holder:
                self._hand_over()

    def blocking(self, name: str, work: Work) -> Any:
        """Do something in the thread, and wait for it."""
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.put(Task(name, answer, work))
        return answer.result()

    def failed(self, job: Job, e: Exception) -> None:
        """Log, count and tell that a job was not written."""
        self.failures += 1
        e = job.why(self.database, e)
        said = self.database.says(e)
        log.error("%s: %s was not written: %s", self.name, job.name, said)
        self._note([job], "lost")
        if job.answer is not None:
            error = e if isinstance(e, FairleadError) else StoreError(f"{job.name} was not written: {said}")
            _resolve([(job.answer, None, error)])

    def _note(self, jobs: list[Job], became: Became) -> None:
        """Have each job note what became of it; one that cannot must neither end the thread nor keep the others waiting."""
        for job in jobs:
            try:
                job.ended(became)
            except Exception:  # a wall: see above
                log.exception("%s: %s was %s, which could not be noted", self.name, job.name, became)

    def _round_ended(self) -> None:
        with self._gate:
            self._hand_over()

    def _hand_over(self) -> None:
        for job in self._held:
            self._jobs.put(job)
        self._held.clear()

    # ------------------------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        ended = False
        while not ended:
            job = self._jobs.get()
            jobs: list[Job] = []
            signs = False
            while True:
                if job is None:
                    ended = True
                    break
                if isinstance(job, _Sign):
                    signs = True
                    self._back(job)
                else:
                    jobs.append(job)
                if len(jobs) >= BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if jobs:
                try:
                    self._write(self._without_spooled(jobs))
                except Exception as e:
                    # The last wall: whatever this was, those who wait are told, and those behind them are served.
                    log.exception("%s: a batch broke", self.name)
                    self.failures += len(jobs)
                    error = StoreError(f"the writer broke ({type(e).__name__}); whether this was written is not known")
                    _resolve([(job.answer, None, error) for job in jobs if job.answer])
            if signs and self._connection is not None:
                self._drain()
        if self._connection is not None:
            self._drain(to_the_end=True)
        if self._connection is not None:
            if self.database.marks:
                with suppress(self.database.error):
                    self._connection.execute("DELETE FROM writers WHERE name = ?", (self._mark,))
            self.database.close(self._connection)
            self._connection = None
        if self.spools is not None:
            self.spools.close()

    def _write(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        if self._connection is None:
            self._keep(jobs, StoreError("the database is gone; it is tried again"))
            return
        try:
            results = self._transact(self._connection, jobs)
        except Exception as e:  # noqa: BLE001 - see below; `failed` logs it
            # The wall of the writer: it must outlive whatever one job or one moment of the disk does to it.
            if not self.database.gone(e):
                self._one_by_one(jobs, e)
                return
            sure = self._unsure
            if not self._reopened(e):
                self._keep(jobs, e)
                return
            try:
                if sure is None or not self._committed():
                    self._write_again(jobs)
                    return
            except self.database.error as again:
                self._lost(again)
                self._keep(jobs, StoreError("the database is gone; whether this was written before is not known"))
                return
            results = sure
        self._tell(jobs, results)

    def _one_by_one(self, jobs: list[Job], e: Exception) -> None:
        if len(jobs) == 1:
            self.failed(jobs[0], e)
            return
        for job in jobs:  # find out whose fault it is, and try the others again
            self._write([job])

    def _write_again(self, jobs: list[Job]) -> None:
        """Write after the connection was lost and is open again; a second loss is an outage."""
        assert self._connection is not None
        try:
            results = self._transact(self._connection, jobs)
        except Exception as e:  # noqa: BLE001 - as in `_write`
            if self.database.gone(e):
                self._lost(e)
                self._keep(jobs, e)
            else:
                self._one_by_one(jobs, e)
            return
        self._tell(jobs, results)

    def _tell(self, jobs: list[Job], results: list[Any]) -> None:
        self._note(jobs, "written")
        _resolve([_answered(job, result) for job, result in zip(jobs, results, strict=True) if job.answer])

    def _transact(self, connection: Connection, jobs: list[Job]) -> list[Any]:
        self._unsure = None
        with self.database.transaction(connection):
            heads = Heads(connection, self.database.for_update)
            results = [job.do(connection, heads) for job in jobs]
            heads.write(connection)
            if self.database.marks:
                self._number += 1
                row = (self._mark, self._number, time.time())
                connection.execute(_NOTE, row)
                self._unsure = results
        self._unsure = None
        self.commits += 1
        return results

    # ------------------------------------------------------------------------------------------------ when it is gone

    def _reopened(self, e: Exception) -> bool:
        """Open a lost connection again at once, or else leave that to a thread of its own."""
        if self.database.marks and self._connection is not None:
            self.database.close(self._connection)
            try:
                self._connection = self.database.open()
            except (self.database.error, FairleadError, OSError) as again:
                e = again
            else:
                return True
        self._lost(e)
        return False

    def _committed(self) -> bool:
        """Say whether the last transaction went through before the connection was lost. Raises the database's errors."""
        assert self._connection is not None
        query = "SELECT 1 FROM writers WHERE name = ? AND batch = ?"
        with self.database.transaction(self._connection):
            Heads(self._connection, self.database.for_update)  # waits until the server has done with the lost one
            return self._connection.execute(query, (self._mark, self._number)).fetchone() is not None

    def _lost(self, e: Exception) -> None:
        if self._connection is None:
            return
        log.error("%s is gone: %s", self.name, self.database.says(e))
        self.database.close(self._connection)
        self._connection = None
        threading.Thread(target=self._recover, name="fairlead-store-recovery", daemon=True).start()

    def _recover(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.wait(pause):
            try:
                connection = self.database.open()
                try:
                    with self.database.transaction(connection):  # a full disk shows only when something is written
                        connection.execute("UPDATE heads SET count = count WHERE chain = 'traces'")
                except BaseException:
                    self.database.close(connection)
                    raise
            except (self.database.error, FairleadError, OSError) as e:
                log.info("%s is still gone: %s", self.name, self.database.says(e))
                pause = min(LAST_PAUSE_SECONDS, 2.0 * pause)
                continue
            try:
                self.put(_Sign(connection))
            except StoreError:  # stopped meanwhile
                self.database.close(connection)
            return

    def _back(self, sign: _Sign) -> None:
        if sign.connection is not None:
            log.warning("%s is back", self.name)
            self._connection = sign.connection
        if self.spools is not None:
            try:
                self.spools.adopt()
            except OSError as e:
                log.error("%s: the spools in %s cannot be read: %s", self.name, self.spools.folder, e)

    # ------------------------------------------------------------------------------------------------ spools

    def _keep(self, jobs: list[Job], e: Exception) -> None:
        """Keep in the spool what can wait there, and refuse the others."""
        kept: list[tuple[Job, bytes]] = []
        for job in jobs:
            try:
                record = None if self.spools is None else job.record()
            except (StoreError, TypeError, ValueError) as own:
                self.failed(job, own)
                continue
            if record is None:
                self.failed(job, e)
            else:
                kept.append((job, record))
        if not kept or self.spools is None:
            return
        try:
            self.spools.put([(job.id, record) for job, record in kept])
        except (OSError, StoreError) as full:
            for job, _ in kept:
                self.failed(job, full if isinstance(full, StoreError) else StoreError(f"{e}; no spool either: {full}"))
            return
        self.spooled += len(kept)
        self._note([job for job, _ in kept], "spooled")
        _resolve([(job.answer, job.promise(), None) for job, _ in kept if job.answer])

    def _without_spooled(self, jobs: list[Job]) -> list[Job]:
        """Put behind its trace what belongs to one that is in the spool; return the others."""
        if self.spools is None or not self.spools.ids:
            return jobs
        ids = self.spools.ids
        behind = [job for job in jobs if job.behind in ids]
        if behind:
            self._keep(behind, StoreError("its trace waits for the database"))
        return [job for job in jobs if job.behind not in ids]

    def _drain(self, *, to_the_end: bool = False) -> None:
        """Write the next records of the spools; come again for more, so that other jobs need not wait for all of them."""
        while self.spools is not None and (spool := self.spools.next()) is not None:
            if not self._drained(spool):
                return
            if not to_the_end:
                self._jobs.put(_Sign())
                return

    def _drained(self, spool: Spool) -> bool:
        """Write a batch of a spool; say whether the database took it."""
        assert self._connection is not None
        assert self.kept is not None
        assert self.spools is not None
        try:
            row = self._connection.execute("SELECT done FROM spools WHERE name = ?", (spool.name,)).fetchone()
            if row is not None:
                self.spools.skip(spool, int(row[0]))
            records, end = spool.read(BATCH)
            if not records:
                if spool.torn:
                    log.error(
                        "%s: %s ends in the middle of a record, which nobody was told was kept", self.name, spool.path
                    )
                self.spools.remove(spool)
                self._connection.execute("DELETE FROM spools WHERE name = ?", (spool.name,))
                return True
            jobs: list[tuple[Job, bytes]] = []
            for record in records:
                try:
                    jobs.append((self.kept(record), record))
                except (StoreError, MsgspecError, ValueError, TypeError) as own:  # of another version, say
                    self._set_aside(spool, record, own)
            done = Task("spool", None, lambda c, _: c.execute(_DONE, (spool.name, end)))
            try:
                self._transact(self._connection, [*(job for job, _ in jobs), done])
            except Exception as e:
                if self.database.gone(e):
                    raise
                for job, record in jobs:
                    try:
                        self._transact(self._connection, [job])
                    except Exception as own:
                        if self.database.gone(own):
                            raise
                        if not self.database.known(own):
                            self._set_aside(spool, record, own)
                self._transact(self._connection, [done])
            self.spools.skip(spool, end)
        except Exception as e:  # noqa: BLE001 - as above
            if isinstance(e, OSError):
                log.error("%s: the spool %s cannot be read: %s", self.name, spool.path, e)
                return False
            self._lost(e)
            return False
        return True

    def _set_aside(self, spool: Spool, record: bytes, e: Exception) -> None:
        """Keep what was acknowledged, and cannot be written, in a file that nobody deletes."""
        assert self.spools is not None
        self.failures += 1
        path = self.spools.set_aside(spool, record)
        log.error(
            "%s: a record of a spool cannot be written (%s); it is kept in %s", self.name, self.database.says(e), path
        )


_NOTE = "INSERT INTO writers VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET batch = excluded.batch, at = excluded.at"
_DONE = "INSERT INTO spools VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET done = excluded.done"


def _answered(job: Job, result: Any) -> tuple[Any, Any, FairleadError | None]:
    if isinstance(result, Refusal):
        return (job.answer, None, result.error)
    return (job.answer, result, None)


def _resolve(answers: list[tuple[Any, Any, FairleadError | None]]) -> None:
    """Give everybody who waits their result; each event loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, FairleadError | None]]] = {}
    for answer, result, error in answers:
        if isinstance(answer, concurrent.futures.Future):
            if answer.done():  # it was told before its batch broke
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)
        else:
            by_loop.setdefault(answer.get_loop(), []).append((answer, result, error))
    for loop, group in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell, and the rows are written
            loop.call_soon_threadsafe(_settle, group)


def _settle(group: list[tuple[asyncio.Future[Any], Any, FairleadError | None]]) -> None:
    for future, result, error in group:
        if future.done():  # whoever waited was cancelled
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
