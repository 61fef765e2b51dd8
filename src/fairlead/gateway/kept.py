"""Conversations that the Responses API refers to, kept in the store, so that any process can go on with them.

    responses_kept: one row a response: its own input and the whole object that was answered; `previous` leads to the one before.

A conversation is the chain of its rows, read in one recursive query and bounded in turns and bytes. Rows are kept for as long as traces are
(``store.retention_days``): older ones are not found any more, and each write deletes a few of them, so that none is left to collect.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from fairlead.store import Connection, Store

TABLES: Final = """
CREATE TABLE IF NOT EXISTS responses_kept (
    id TEXT PRIMARY KEY, tenant TEXT, key TEXT, at REAL NOT NULL, route TEXT NOT NULL, previous TEXT, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_kept_at ON responses_kept (at);
"""
TURNS: Final = 1000
"""Turns of one conversation at most."""
_SWEEP: Final = 20
"""Rows too old that one write deletes at most: more than it adds, so none stays for long."""
_COLUMNS: Final = "id, tenant, previous, at, body"
_CHAIN: Final = """
WITH RECURSIVE chain (id, tenant, previous, at, body, turn, size) AS (
    SELECT id, tenant, previous, at, body, 1, length(body) FROM responses_kept WHERE id = ?
    UNION ALL
    SELECT r.id, r.tenant, r.previous, r.at, r.body, c.turn + 1, c.size + length(r.body)
    FROM responses_kept r JOIN chain c ON r.id = c.previous WHERE c.turn < ? AND c.size <= ?
)
SELECT id, tenant, previous, at, body FROM chain ORDER BY turn DESC
"""


class Body(Struct, frozen=True, kw_only=True):
    """What a row holds."""

    input: list[dict[str, Any]]
    """The request's own items, each with an id."""
    response: Raw
    """The object as it was answered."""


class Turn(Struct, frozen=True, kw_only=True):
    """One row, read."""

    id: str
    tenant: str | None
    previous: str | None
    body: Body

    @property
    def output(self) -> list[dict[str, Any]]:
        """The items that were answered."""
        return msgspec.json.decode(self.body.response, type=_Answered).output


class _Answered(Struct):
    output: list[dict[str, Any]]


class Kept:
    """The table.

    Args:
        store: not yet started.
        retention_seconds: how long a row is found; None: for ever.
    """

    def __init__(self, store: Store, *, retention_seconds: float | None = None) -> None:
        self.store, self.retention_seconds = store, retention_seconds
        store.tables(TABLES)

    @property
    def _since(self) -> float:
        return 0.0 if self.retention_seconds is None else time.time() - self.retention_seconds

    async def get(self, id: str) -> Turn | None:
        """Read one row. Raises `StoreError`."""
        rows = await self.store.fetch(f"SELECT {_COLUMNS} FROM responses_kept WHERE id = ?", (id,))
        return _turn(rows[0]) if rows and rows[0][3] >= self._since else None

    async def chain(self, id: str, *, size: int) -> list[Turn]:
        """Read a conversation from its first turn to `id`: `TURNS` turns and about `size` bytes at most, and then its first turn has a `previous`.

        Empty if there is no such response. Raises `StoreError`.
        """
        rows = await self.store.fetch(_CHAIN, (id, TURNS, size))
        since = self._since
        while rows and rows[0][3] < since:
            del rows[0]
        return [_turn(row) for row in rows]

    async def put(
        self, id: str, body: Body, *, tenant: str | None, key: str | None, route: str, previous: str | None
    ) -> None:
        """Keep one row. Raises `StoreError`."""
        text, now, since = msgspec.json.encode(body).decode(), time.time(), self._since

        def work(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO responses_kept (id, tenant, key, at, route, previous, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id, tenant, key, now, route, previous, text),
            )
            if since:
                _sweep(connection, since, _SWEEP)

        await self.store.transact(f"response {id}", work)

    async def delete(self, id: str) -> None:
        """Delete one row. Raises `StoreError`."""
        await self.store.transact(
            f"end of response {id}",
            lambda connection: connection.execute("DELETE FROM responses_kept WHERE id = ?", (id,)).rowcount,
        )

    async def forget(self, *, before: float) -> int:
        """Delete what is older than `before` (Unix time); return how many rows went. Raises `StoreError`."""
        return await self.store.transact("end of old responses", lambda connection: _sweep(connection, before, 10**9))


def _sweep(connection: Connection, before: float, most: int) -> int:
    return connection.execute(
        "DELETE FROM responses_kept WHERE id IN (SELECT id FROM responses_kept WHERE at < ? ORDER BY at LIMIT ?)",
        (before, most),
    ).rowcount


def _turn(row: tuple[Any, ...]) -> Turn:
    id, tenant, previous, _, text = row
    return Turn(id=id, tenant=tenant, previous=previous, body=msgspec.json.decode(text, type=Body))
