"""Files that clients upload, and files that batches write: kept in the store, in pieces, seen by their tenant alone.

``POST /v1/files`` (a form with ``file`` and ``purpose``), ``GET /v1/files``, ``GET /v1/files/{id}``, ``GET /v1/files/{id}/content``, ``DELETE
/v1/files/{id}``, all in OpenAI's shapes. A file is there once its last piece is: an upload that breaks off leaves nothing.

A file keeps text, so where the store is told to keep none (``store.text: false``) it is kept all the same, until it is deleted or
`gateway.files.days` are over: whoever uploads a file asks for it to be kept.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from math import inf
from secrets import token_hex
from typing import Any, Final

import msgspec
from msgspec import Struct
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from fairlead.gateway.read import PAUSE_SECONDS
from fairlead.gateway.refusal import Refused
from fairlead.store import Connection, Store

PIECE: Final = 256 * 1024
"""Bytes of one row: a large file is many small transactions, so that traces need not wait for it."""
FIELDS: Final = 20
"""Fields of an upload's form at most."""
PURPOSE: Final = re.compile(r"[a-z_-]{1,40}")
PAGE: Final = 1000

TABLES: Final = """
CREATE TABLE IF NOT EXISTS files(
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL, at REAL NOT NULL, bytes INTEGER NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL,
  whole INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS files_of ON files(tenant, at);
CREATE TABLE IF NOT EXISTS files_pieces(file TEXT NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(file, n));
"""


class File(Struct, frozen=True, kw_only=True):
    """A file as it is told of: OpenAI's shape."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    object: str = "file"
    status: str = "processed"
    expires_at: int | None = None


class FileList(Struct, frozen=True, kw_only=True):
    """Files, newest first."""

    data: list[File]
    object: str = "list"
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class Deleted(Struct, frozen=True, kw_only=True):
    """What a deletion says."""

    id: str
    object: str = "file"
    deleted: bool = True


class Files:
    """The files of a store.

    Args:
        store: not yet started.
        most_bytes: says how many one that is uploaded may have.
        days: how long one is kept.
    """

    def __init__(self, store: Store, *, most_bytes: Callable[[], int], days: Callable[[], float]) -> None:
        self.store, self.most_bytes, self.days = store, most_bytes, days
        store.tables(TABLES)

    async def put(
        self, pieces: AsyncIterator[bytes], *, tenant: str, filename: str, purpose: str, most_bytes: float | None = None
    ) -> File:
        """Keep a file. Raises `Refused` (413) if it has more than `most_bytes` (None: than may be uploaded), and whatever `pieces` raises;
        nothing is kept then."""
        most = self.most_bytes() if most_bytes is None else most_bytes
        id, at, size, n = f"file-{token_hex(12)}", time.time(), 0, 0
        row = (id, tenant, at, 0, filename, purpose, 0)
        await self.store.transact(
            "file", lambda c: c.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount
        )
        try:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    text = f"the file has more than {most} bytes (gateway.files.max_bytes)"
                    raise Refused(413, text, code="file_too_large", param="file")
                await self.store.transact("file", partial(_piece, file=id, n=n, body=piece))
                n += 1
            await self.store.transact(
                "file", lambda c: c.execute("UPDATE files SET whole = 1, bytes = ? WHERE id = ?", (size, id)).rowcount
            )
        except BaseException:
            await self.store.transact("file", lambda c: _remove(c, [id]))
            raise
        return self._file((id, at, size, filename, purpose))

    async def get(self, id: str, tenant: str | None) -> File:
        """Return what is known of a file. Raises `Refused` (404) if it is not there, or another tenant's (`tenant` None: any)."""
        rows = await self.store.fetch(
            "SELECT id, at, bytes, filename, purpose, tenant FROM files WHERE id = ? AND whole = 1", (id,)
        )
        if not rows or tenant not in (None, rows[0][5]):
            raise Refused(404, f"no file has the id {id[:100]!r}", code="file_not_found", param="file_id")
        return self._file(rows[0][:5])

    async def listed(self, tenant: str | None, *, purpose: str | None, after: str | None, limit: int) -> FileList:
        """List files, newest first."""
        where, values = ["whole = 1"], []
        for column, value in (("tenant", tenant), ("purpose", purpose)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if after is not None:
            where.append("(at, id) < (SELECT at, id FROM files WHERE id = ?)")
            values.append(after)
        rows = await self.store.fetch(
            f"SELECT id, at, bytes, filename, purpose FROM files WHERE {' AND '.join(where)} ORDER BY at DESC, id DESC LIMIT ?",
            (*values, limit + 1),
        )
        found = [self._file(row) for row in rows[:limit]]
        first, last = (found[0].id, found[-1].id) if found else (None, None)
        return FileList(data=found, has_more=len(rows) > limit, first_id=first, last_id=last)

    async def pieces(self, id: str) -> AsyncIterator[bytes]:
        """Read a file's bytes. Raises `Refused` (404) if it is not there, or is deleted meanwhile."""
        left, n = (await self.get(id, None)).bytes, 0
        while rows := await self.store.fetch("SELECT body FROM files_pieces WHERE file = ? AND n = ?", (id, n)):
            yield bytes(rows[0][0])
            left -= len(rows[0][0])
            n += 1
        if left > 0:
            raise Refused(404, f"the file {id[:100]!r} was deleted", code="file_not_found", param="file_id")

    async def lines(self, id: str, most_bytes: float = inf) -> AsyncIterator[bytes]:
        """Read a file's lines, without their ends and without empty ones. Of a line that is longer than `most_bytes` only one byte more comes."""
        parts: list[bytes] = []
        size: float = 0

        def keep(part: bytes) -> None:
            nonlocal size
            if size <= most_bytes:  # joined once, when it is whole: a line may have come in a thousand pieces
                parts.append(part if size + len(part) <= most_bytes else part[: int(most_bytes - size) + 1])
                size += len(part)

        def whole() -> bytes:
            nonlocal size
            line = b"".join(parts).strip()
            parts.clear()
            size = 0
            return line

        async for piece in self.pieces(id):
            *ended, rest = piece.split(b"\n")
            for part in ended:
                keep(part)
                if line := whole():
                    yield line
            keep(rest)
        if line := whole():
            yield line

    async def delete(self, id: str, tenant: str | None) -> Deleted:
        """Delete a file. Raises `Refused` (404)."""
        await self.get(id, tenant)
        await self.store.transact("file", lambda c: _remove(c, [id]))
        return Deleted(id=id)

    async def expire(self, now: float) -> int:
        """Delete files that are too old, and those whose upload broke off with its process; return how many."""
        rows = await self.store.fetch(
            "SELECT id FROM files WHERE at < ? OR (whole = 0 AND at < ?) LIMIT ?",
            (now - 86400.0 * self.days(), now - 86400.0, PAGE),
        )
        ids = [str(id) for (id,) in rows]
        if ids:
            await self.store.transact("old files", lambda c: _remove(c, ids))
        return len(ids)

    def _file(self, row: Iterable[Any]) -> File:
        id, at, size, filename, purpose = row
        return File(
            id=id,
            bytes=int(size),
            created_at=int(at),
            filename=filename,
            purpose=purpose,
            expires_at=int(at + 86400.0 * self.days()),
        )


def _piece(connection: Connection, file: str, n: int, body: bytes) -> None:
    connection.execute("INSERT INTO files_pieces VALUES (?, ?, ?)", (file, n, body))


def _remove(connection: Connection, ids: Iterable[str]) -> None:
    for id in ids:
        connection.execute("DELETE FROM files_pieces WHERE file = ?", (id,))
        connection.execute("DELETE FROM files WHERE id = ?", (id,))


def bounded(receive: Any, most: int) -> Any:
    """Count what a request's body brings. Raises `Refused`: 413 where it is more than `most`, 408 where nothing comes for `PAUSE_SECONDS`."""
    size = 0

    async def counted() -> Any:
        nonlocal size
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                message = await receive()
        except TimeoutError as e:
            text = f"nothing of the upload came for {PAUSE_SECONDS:g} s"
            raise Refused(408, text, code="request_timeout", headers=[(b"connection", b"close")]) from e
        size += len(message.get("body", b""))
        if size > most:
            raise Refused(413, f"the upload has more than {most} bytes", code="body_too_large")
        return message

    return counted


async def upload(request: Request, files: Files, tenant: str) -> File:
    """Read a form and keep its file. Raises `Refused`."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(415, "send a form (multipart/form-data) with `file` and `purpose`", code="not_a_form")
    request = Request(request.scope, bounded(request.receive, files.most_bytes() + 64 * 1024))
    try:
        form = await request.form(max_files=1, max_fields=FIELDS, max_part_size=64 * 1024)
    except MultiPartException as e:
        raise Refused(400, f"the form cannot be read: {e.message}", code="invalid_form") from e
    except Exception as e:
        if type(e).__name__ != "HTTPException":
            raise
        raise Refused(400, f"the form cannot be read: {getattr(e, 'detail', e)}", code="invalid_form") from e
    try:
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise Refused(400, "file is missing: a part of the form with a file name", param="file")
        if not isinstance(purpose, str) or not PURPOSE.fullmatch(purpose):
            raise Refused(400, "purpose is missing: `batch`, say", param="purpose")
        name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", file.filename or "file")[:200]

        async def pieces() -> AsyncIterator[bytes]:
            while piece := await file.read(PIECE):
                yield piece

        return await files.put(pieces(), tenant=tenant, filename=name, purpose=purpose)
    finally:
        await form.close()


class Jsonl:
    """Writes objects as lines, in pieces of about `PIECE` bytes: for `Files.put`."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0

    def add(self, line: bytes) -> Iterator[bytes]:
        """Take a line; yield what is enough for a piece."""
        self._lines.append(line + b"\n")
        self._size += len(line) + 1
        if self._size >= PIECE:
            yield self.rest()

    def rest(self) -> bytes:
        """Return what is left."""
        out = b"".join(self._lines)
        self._lines, self._size = [], 0
        return out


encode = msgspec.json.Encoder().encode
