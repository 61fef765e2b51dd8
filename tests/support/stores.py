"""The store in both databases, for tests that hold for either."""

import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fairlead.plans.single import Single
from fairlead.postgres import PostgresStore
from fairlead.sqlite import SQLiteStore
from fairlead.sqlstore import SQLStore
from fairlead.types import Call, Decision, Option, Outcome, Query, Signals, Step, Trace

TRIGGERS = {
    "traces_stay": "traces",
    "traces_keep": "traces",
    "feedback_stays": "feedback",
    "feedback_keeps": "feedback",
}


def a_trace(id: str, *, text: str = "hello", answer: str = "hi", at: float = 100.0) -> Trace:
    plan = Single(target="a")
    outcome = Outcome(text=answer, target="a", seconds=0.5)
    return Trace(
        id=id,
        at=at,
        query=Query.ask(text, id=id),
        signals=Signals(),
        decision=Decision(options=(Option(plan=plan, probability=1.0),), chosen=0, propensity=1.0),
        steps=(Step(path=(0, 0), call=Call(target="a"), outcome=outcome),),
        outcome=outcome,
        seconds=0.5,
    )


def gate(store: SQLStore) -> threading.Event:
    """Hold the writer up until the event is set."""
    let_go = threading.Event()
    threading.Thread(target=store._blocking, args=("gate", lambda *_: let_go.wait(10)), daemon=True).start()
    while store._writer._jobs.qsize():  # until the writer has taken it
        pass
    return let_go


class Kept:
    """Where a test's store is kept."""

    kind = ""

    def __init__(self) -> None:
        self.made: list[SQLStore] = []

    def store(self, **more) -> SQLStore:
        """Make a store there, started; it is stopped at the end of the test."""
        store = self.make(**more)
        self.made.append(store)
        store.start()
        return store

    def make(self, **more) -> SQLStore:
        raise NotImplementedError

    def raw(self, *statements: str) -> None:
        """Do to it what somebody else might, past the guards."""
        raise NotImplementedError


class File(Kept):
    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.code = f"__import__('fairlead.sqlite').sqlite.SQLiteStore({str(path)!r})"

    def make(self, **more) -> SQLiteStore:
        return SQLiteStore(self.path, **more)

    def raw(self, *statements: str) -> None:
        raw(self.path, *statements)


class Server(Kept):
    kind = "postgres"

    def __init__(self, url: str, server, spool: Path) -> None:
        super().__init__()
        self.url, self.server, self.spool = url, server, spool
        self.code = f"__import__('fairlead.postgres').postgres.PostgresStore({url!r}, spool={str(spool)!r})"

    def make(self, **more) -> PostgresStore:
        return PostgresStore(self.url, **{"spool": self.spool, **more})

    def raw(self, *statements: str) -> None:
        schema = self.url.rpartition("%3D")[2]
        drops = [f"DROP TRIGGER IF EXISTS {name} ON {table}" for name, table in TRIGGERS.items()]
        for statement in (*drops, *statements):
            self.server.run(f"SET search_path TO {schema}; {re.sub(r'x(?=.[0-9a-f]+.)', '', statement)}")


def raw(path: Path, *statements: str) -> None:
    """Do to a file what somebody else might, past the guards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name in TRIGGERS:
            connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request, tmp_path):
    """Where a store is kept: each test runs once with either database."""
    if request.param == "sqlite":
        kept = File(tmp_path / "s.db")
    else:
        url = request.getfixturevalue("postgres_url")
        kept = Server(url, request.getfixturevalue("postgres_server"), tmp_path / "spool")
    yield kept
    for store in kept.made:
        store.stop()


@pytest.fixture
def store(kept):
    """A started store that is kept there."""
    return kept.store()
