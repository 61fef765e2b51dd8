"""The one thread that writes to a SQLite file: a queue in front of it, transactions of many jobs, and answers to whoever waits.

It commits at once when it is idle, and under load it takes everything that waits into one transaction; then it tells each event loop
once for the whole batch. A batch that fails is tried again job by job, so that one bad job harms no other.

`heads` (count and last hash of each chain) is what the jobs of a transaction hand on to each other; it is kept in the file's table of the
same name, and what a failed transaction made of it is dropped.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from fairlead.errors import FairleadError, StoreError

log = logging.getLogger(__name__)

BATCH = 512
"""Jobs in one transaction at most."""

Heads: TypeAlias = dict[str, tuple[int, bytes]]
"""Count and last hash of each chain."""
Work: TypeAlias = Callable[[sqlite3.Connection, Heads], Any]
Answer: TypeAlias = "asyncio.Future[Any] | concurrent.futures.Future[Any] | None"


class Job(ABC):
    """One piece of work for the writer, and who waits for it."""

    __slots__ = ("answer", "name")

    def __init__(self, name: str, answer: Answer) -> None:
        self.name, self.answer = name, answer

    @abstractmethod
    def do(self, connection: sqlite3.Connection, heads: Heads) -> Any:
        """Write, and return the answer. May be called again if its transaction was rolled back."""

    def ended(self, written: bool) -> None:
        """Note what became of it, before whoever waits is told."""


class Task(Job):
    """A job that is one function."""

    __slots__ = ("work",)

    def __init__(self, name: str, answer: Answer, work: Work) -> None:
        super().__init__(name, answer)
        self.work = work

    def do(self, connection: sqlite3.Connection, heads: Heads) -> Any:
        """Call it."""
        return self.work(connection, heads)


class Apart(Job):
    """A job whose own refusal undoes what it wrote, and nothing of the others in its transaction."""

    __slots__ = ("work",)

    def __init__(self, name: str, answer: Answer, work: Callable[[sqlite3.Connection], Any]) -> None:
        super().__init__(name, answer)
        self.work = work

    def do(self, connection: sqlite3.Connection, heads: Heads) -> Any:
        """Call it behind a savepoint; a refusal is its answer."""
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


class Writer:
    """Writes one job after the other.

    Args:
        name: what is written to, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = False
        self.heads: Heads = {}
        self.failures = 0
        """What could not be written since the start."""
        self.commits = 0
        """Transactions since the start."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._held: list[Job] = []
        """Traces that go to the thread at the end of the event loop's round, so that it is woken once for all of them."""
        self._holder: asyncio.AbstractEventLoop | None = None
        self._gate = threading.Lock()
        """Nothing is queued behind the end."""
        self._thread: threading.Thread | None = None

    def start(self, connection: sqlite3.Connection, heads: Heads) -> None:
        """Begin to write to `connection`, which belongs to the thread from now on."""
        self.heads = heads
        self._thread = threading.Thread(target=self._run, args=(connection,), name="fairlead-store", daemon=True)
        self.open = True
        self._thread.start()

    def stop(self) -> None:
        """Write what is waiting, and close the connection."""
        with self._gate:
            self.open = False
            self._hand_over()
            self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def waiting(self) -> int:
        """How many jobs the thread has not taken yet."""
        return self._jobs.qsize() + len(self._held)

    def put(self, job: Job, loop: asyncio.AbstractEventLoop | None = None, *, most: int | None = None) -> None:
        """Put a job in line; with `loop`, hold it until the end of that loop's round.

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
                loop.call_soon(self._round_ended)
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
        log.error("%s: %s was not written: %s", self.name, job.name, e)
        job.ended(written=False)
        if job.answer is not None:
            error = e if isinstance(e, FairleadError) else StoreError(f"{job.name} was not written: {e}")
            _resolve([(job.answer, None, error)])

    def _round_ended(self) -> None:
        with self._gate:
            self._hand_over()

    def _hand_over(self) -> None:
        for job in self._held:
            self._jobs.put(job)
        self._held.clear()

    def _run(self, connection: sqlite3.Connection) -> None:
        ended = False
        while not ended:
            job = self._jobs.get()
            jobs: list[Job] = []
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

    def _write(self, connection: sqlite3.Connection, jobs: list[Job]) -> None:
        try:
            results = self._transact(connection, jobs)
        except Exception as e:  # noqa: BLE001 - see below; `failed` logs it
            # The wall of the writer: it must outlive whatever one job or one moment of the disk does to it.
            if len(jobs) > 1:  # find out whose fault it is, and try the others again
                for job in jobs:
                    self._write(connection, [job])
            else:
                self.failed(jobs[0], e)
            return
        for job in jobs:
            job.ended(written=True)
        _resolve([_answered(job, result) for job, result in zip(jobs, results, strict=True) if job.answer])

    def _transact(self, connection: sqlite3.Connection, jobs: list[Job]) -> list[Any]:
        heads = dict(self.heads)
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [job.do(connection, heads) for job in jobs]
            for name, (count, head) in heads.items():
                if self.heads[name] != (count, head):
                    connection.execute("UPDATE heads SET count = ?, hash = ? WHERE chain = ?", (count, head, name))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        self.heads = heads
        self.commits += 1
        return results


def _answered(job: Job, result: Any) -> tuple[Any, Any, FairleadError | None]:
    if isinstance(result, Refusal):
        return (job.answer, None, result.error)
    return (job.answer, result, None)


def _resolve(answers: list[tuple[Any, Any, FairleadError | None]]) -> None:
    """Give everybody who waits their result; each event loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, FairleadError | None]]] = {}
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


def _settle(group: list[tuple[asyncio.Future[Any], Any, FairleadError | None]]) -> None:
    for future, result, error in group:
        if future.done():  # whoever waited was cancelled
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
