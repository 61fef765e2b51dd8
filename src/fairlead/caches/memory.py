"""Answers in this process's memory, gone when it ends. Ours, no paper.

Cost: get 7 µs, put 7 µs, a look for what is near 4 µs, 15 µs among 1,000 and 80 µs among 10,000 entries. What is too old goes when it is asked for, or at the latest after as many further puts as there are entries.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from time import monotonic
from typing import Annotated

from msgspec import Meta

from fairlead.caches.base import SECRET, CacheStore, Newer, Row


class Memory(CacheStore):
    """In memory.

    Args:
        max_entries: entries kept at most.
        max_bytes: bytes of answers and vectors kept at most.
        budget_seconds: as every cache has it; never needed here.
    """

    __slots__ = ("_bytes", "_partitions", "_puts", "_rows", "_seq")

    def __init__(
        self,
        *,
        max_entries: Annotated[int, Meta(ge=1)] = 10_000,
        max_bytes: Annotated[int, Meta(ge=1)] = 64_000_000,
        budget_seconds: Annotated[float, Meta(gt=0.0)] = 0.25,
    ) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.budget_seconds = budget_seconds

    async def _open(self) -> bytes:
        self._rows: OrderedDict[bytes, tuple[Row, float]] = OrderedDict()
        self._partitions: dict[bytes, dict[bytes, tuple[int, bytes]]] = {}
        self._bytes = self._seq = self._puts = 0
        return secrets.token_bytes(SECRET)

    async def _close(self) -> None:
        self._rows, self._partitions = OrderedDict(), {}

    async def _get(self, key: bytes) -> bytes | None:
        row, until = self._rows.get(key, (None, 0.0))
        if row is None:
            return None
        if until <= monotonic():
            self._drop(key)
            return None
        self._rows.move_to_end(key)
        return row.value

    async def _put(self, row: Row) -> None:
        self._drop(row.key)
        self._seq += 1
        self._rows[row.key] = (row, monotonic() + row.seconds)
        self._bytes += row.size
        if row.vector:
            self._partitions.setdefault(row.partition, {})[row.key] = (self._seq, row.vector)
        self._puts += 1
        if self._puts > len(self._rows):
            self._puts, now = 0, monotonic()
            for key in [k for k, (_, until) in self._rows.items() if until <= now]:
                self._drop(key)
        while len(self._rows) > self.max_entries or self._bytes > self.max_bytes:
            self._drop(next(iter(self._rows)))

    async def _newer(self, partition: bytes, after: int, most: int) -> Newer:
        out: Newer = []
        for key, (seq, vector) in reversed(self._partitions.get(partition, {}).items()):
            if seq <= after:
                break
            out.append((seq, key, vector))
        return out[::-1][:most]

    async def _delete(self, *, key: bytes | None = None, id: str | None = None, groups: tuple[bytes, ...] = ()) -> int:
        if key is not None:
            return self._drop(key)
        gone = [k for k, (r, _) in self._rows.items() if id in (None, r.id) and set(groups).issubset(r.groups)]
        return sum(map(self._drop, gone))

    async def _count(self) -> tuple[int, int]:
        return len(self._rows), self._bytes

    def _drop(self, key: bytes) -> int:
        row, _ = self._rows.pop(key, (None, 0.0))
        if row is None:
            return 0
        self._bytes -= row.size
        if row.vector:
            partition = self._partitions[row.partition]
            del partition[key]
            if not partition:
                del self._partitions[row.partition]
        return 1
