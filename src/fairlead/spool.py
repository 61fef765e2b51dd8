"""What could not be written to the database yet, in files of this machine: one per process, appended to, written in its order later.

A record is its length and the CRC-32 of its bytes (4 bytes each, big endian), then the bytes. A record that a dying process cut off ends
the file; nobody was told that it was kept. A file is locked for as long as its process lives, so whoever can lock one takes over what a
dead process left. How far a file has been written is kept in the database, in the same transaction as what was written of it.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from fairlead.errors import StoreError

try:
    import fcntl
except ImportError:  # pragma: no cover - not a Unix system
    fcntl = None  # type: ignore[assignment]

_HEAD = struct.Struct(">II")
SUFFIX = ".spool"


class Spool:
    """One file of records, open and locked."""

    def __init__(self, path: Path, file: int) -> None:
        self.path, self._file = path, file
        self.name = path.name
        self.size = os.fstat(file).st_size
        self.done = 0
        """Everything before this byte has been written to the database."""
        self.torn = False
        """Whether the last record that was looked for is cut off or damaged."""
        self._ids: deque[tuple[int, str]] = deque()
        """Where the traces are that were put since it was opened."""

    def put(self, data: bytes) -> None:
        """Append; all or nothing. Raises `OSError`."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.pwrite(self._file, left, self.size + len(data) - len(left)) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def record(self, at: int) -> bytes | None:
        """Read the record that begins at this byte; None if there is none, or it is not whole. Raises `OSError`."""
        head = os.pread(self._file, _HEAD.size, at)
        if len(head) < _HEAD.size:
            return None
        length, crc = _HEAD.unpack(head)
        body = os.pread(self._file, min(length, self.size), at + _HEAD.size)
        return body if len(body) == length and zlib.crc32(body) == crc else None

    def read(self, most: int) -> tuple[list[bytes], int]:
        """Read the next records that are not done, and where the last of them ends. Raises `OSError`."""
        records: list[bytes] = []
        at = self.done
        while len(records) < most and at < self.size:
            body = self.record(at)
            if body is None:
                self.torn = True
                break
            records.append(body)
            at += _HEAD.size + len(body)
        return records, at

    def skip(self, to: int) -> None:
        """Note that everything before this byte is in the database."""
        self.done = max(self.done, to)

    def remove(self) -> None:
        """Delete it. Raises `OSError`."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of it; another process may take it over."""
        os.close(self._file)


class Spools:
    """The spool of this process, and those that it took over.

    Args:
        folder: where they are; made when something has to be kept.
        most_bytes: of this process's own; more is refused.
        sync: wait for the disk, so that a power cut loses nothing either.
    """

    def __init__(self, folder: Path, *, most_bytes: int, sync: bool = False) -> None:
        self.folder, self.most_bytes, self.sync = folder, most_bytes, sync
        self.ids: dict[str, tuple[Spool, int]] = {}
        """Traces that wait in this process's own file, and where."""
        self._own: Spool | None = None
        self._adopted: list[Spool] = []

    @property
    def waiting_bytes(self) -> int:
        """What is not in the database yet."""
        return sum(s.size - s.done for s in (self._own, *self._adopted) if s is not None)

    def put(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Keep records, each with the id of the trace that it holds or ""; all or nothing.

        Raises:
            StoreError: if the spool is full.
            OSError: if the disk does not take them.
        """
        data = b"".join(_framed(body) for _, body in records)
        spool = self._own
        if (0 if spool is None else spool.size) + len(data) > self.most_bytes:
            raise StoreError(f"the database is gone and the spool in {self.folder} is full ({self.most_bytes} bytes)")
        if spool is None:
            spool = self._own = self._new()
        at = spool.size
        spool.put(data)
        if self.sync:
            os.fsync(spool._file)
        for id, body in records:
            if id:
                self.ids[id] = (spool, at)
                spool._ids.append((at, id))
            at += _HEAD.size + len(body)

    def find(self, id: str) -> bytes | None:
        """Return the record of a trace that waits here, or None. Raises `OSError`."""
        found = self.ids.get(id)
        if found is None:
            return None
        try:
            return found[0].record(found[1])
        except OSError:  # written and closed meanwhile
            return None

    def adopt(self) -> None:
        """Take over what dead processes left."""
        if fcntl is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if (spool := _locked(path, os.O_RDWR)) is not None:
                self._adopted.append(spool)

    def next(self) -> Spool | None:
        """Return a spool with something to write, or one that is done with and can go."""
        return self._adopted[0] if self._adopted else self._own

    def skip(self, spool: Spool, to: int) -> None:
        """Note how far a spool has been written."""
        spool.skip(to)
        while spool._ids and spool._ids[0][0] < spool.done:
            self.ids.pop(spool._ids.popleft()[1], None)

    def remove(self, spool: Spool) -> None:
        """Delete a spool that has been written. Raises `OSError`."""
        self.skip(spool, spool.size)
        if spool is self._own:
            self._own = None
        else:
            self._adopted.remove(spool)
        spool.remove()

    def set_aside(self, spool: Spool, record: bytes) -> Path:
        """Keep a record that cannot be written beside the spool that it is of; return where. Raises `OSError`."""
        path = spool.path.with_suffix(".unwritten")
        with path.open("ab") as file:
            file.write(_framed(record))
        return path

    def close(self) -> None:
        """Let go of what is left; the next process that starts takes it over."""
        for spool in (self._own, *self._adopted):
            if spool is not None:
                spool.close()
        self._own, self._adopted = None, []
        self.ids.clear()

    def _new(self) -> Spool:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            path = self.folder / f"{os.getpid()}-{secrets.token_hex(6)}{SUFFIX}"
            spool = _locked(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            if spool is not None:  # else somebody took it over in the moment before it was locked
                return spool


def _framed(body: bytes) -> bytes:
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _locked(path: Path, flags: int) -> Spool | None:
    """Open and lock a file; None if another process has it, or it is gone."""
    try:
        file = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink == 0:  # written and deleted between the two
            os.close(file)
            return None
    except BlockingIOError:
        os.close(file)
        return None
    return Spool(path, file)
