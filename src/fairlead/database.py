"""What the store asks of a database: opening, transactions, and the few words in which SQLite and PostgreSQL differ.

Everything else is SQL that both understand, written once in `sqlstore.py`. Transactions that write run one after the other over all
processes: SQLite has one lock for the file, in PostgreSQL the heads of the chains are locked first (`SELECT ... FOR UPDATE`), so no two
writers can wait for each other, and no chain can fork.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from fairlead.store import Connection

SCHEMA = 5
OLDEST = 2
"""The oldest schema that is read, and brought up to date by a writer (SQLite; PostgreSQL begins with 5)."""


class Database(ABC):
    """One database, however many connections are open to it. Safe to use from several threads."""

    name: str
    """For messages; holds no secret."""
    error: type[Exception]
    """What all its own errors are."""
    instr: str = "instr"
    """The function that says where a string begins in another, from 1; 0 if it does not."""
    now: str
    """SQL for the time, in seconds since 1970."""
    for_update: str = ""
    """Ends the query that reads the heads of the chains inside a writing transaction."""
    marks: bool = False
    """Whether a commit may go through although its answer is lost, so that each transaction notes its number."""

    @abstractmethod
    def prepare(self, ddl: Sequence[str]) -> None:
        """Make the tables that are missing, bring older ones up to date, and run `ddl`. Raises `StoreError`."""

    @abstractmethod
    def append_only(self, table: str) -> Sequence[str]:
        """Return what to run, again and again, so that rows of a table can neither be changed nor deleted."""

    @abstractmethod
    def open(self) -> Connection:
        """Open a connection that writes; to be closed by `close`. Raises `error` or `StoreError`."""

    @abstractmethod
    def close(self, connection: Connection) -> None:
        """Close a connection that writes; never raises."""

    @abstractmethod
    def transaction(self, connection: Connection) -> AbstractContextManager[None]:
        """Begin a transaction that writes, alone among all processes; commit at the end, roll back when something is raised."""

    @abstractmethod
    def reading(self, *, moment: bool = False) -> AbstractContextManager[Connection]:
        """Lend a connection that only reads; with `moment`, all its reads see one moment of the database. Raises `StoreError`."""

    @abstractmethod
    def stop(self) -> None:
        """Close what `reading` keeps open."""

    @abstractmethod
    def gone(self, e: Exception) -> bool:
        """Say whether `e` means that nothing can be written now, whatever it is: connection lost, disk full, locked for too long."""

    @abstractmethod
    def known(self, e: Exception) -> bool:
        """Say whether `e` means that a trace with this id is there already."""

    @abstractmethod
    def says(self, e: Exception) -> str:
        """Return the message of an error, without secrets."""

    @abstractmethod
    def schema(self) -> int:
        """Return the schema of the tables that are there. Raises `StoreError`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what `fairlead store info` shows of it: kind, version, size in bytes."""
