"""Caches: where whole answers are kept under keys, for the action `cache`.

A key is a keyed hash (BLAKE2b with the cache's own random secret) of everything that an answer depends on, so no key says anything of a
prompt; the value holds the answer's text. The secret lies with the entries: it keeps caches apart, and does not stop whoever reads the
cache from guessing prompts. What is read back must carry its own keyed digest over key and value, or it counts as not there: a page that
rotted, or a value that was put under another key, is never an answer.

An entry may have a vector, and belongs to one *partition*: the entries among which a like one may answer. To look for it, `near` compares
with the whole partition by brute force: the vectors stand in memory, brought up to date by asking the members only for what is newer. At most
`PAGE` entries are taken over by one look, so after a start the first looks see only the oldest part of a large partition.

A cache that cannot be asked raises `CacheError` and nothing else, within `budget_seconds`; whoever asks goes on without it.

Members that several processes share also keep claims: a key that one process is answering just now (`shared`).

Shapes: N entries of a partition, E size of a vector.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable
from hmac import compare_digest
from typing import ClassVar, Final, Self, TypeAlias, TypeVar, final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.component import Component
from fairlead.errors import CacheError

log = logging.getLogger(__name__)

T = TypeVar("T")
Newer: TypeAlias = list[tuple[int, bytes, bytes]]
"""Sequence number, key and vector of entries, in rising order."""

SECRET: Final = 32
"""Bytes of a cache's secret."""
OPEN_SECONDS: Final = 2.0
"""How long opening may take at least."""
PAGE: Final = 1000
_KEY: Final = 16
_CANDIDATES: Final = 4


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer, as it is kept."""

    id: str
    """Of the trace that it was made for."""
    at: float
    """Unix time at which it was made."""
    target: str
    model: str = ""
    text: str = ""
    finish: str = ""
    tool_calls: bytes | None = None
    tags: dict[str, str] = {}
    """What the checks around the plan told the client of it."""
    bag: bytes = b""
    """Keyed hash of the words of its question, sorted …"""
    order: bytes = b""
    """… and of them as they come: the same words in another order are another question."""


class Row(Struct, frozen=True, kw_only=True):
    """What a member keeps: bytes under a key."""

    key: bytes
    value: bytes
    id: str
    groups: tuple[bytes, ...]
    """Hashes as `key` makes them, one for each thing that says whose it is: what `delete` can remove together."""
    seconds: float
    """How long it may be given."""
    partition: bytes = b""
    vector: bytes = b""

    @property
    def size(self) -> int:
        """What it counts for, in bytes: a hundred for keys and indexes."""
        return len(self.value) + len(self.vector) + len(self.id) + 100


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


class CacheStore(Component, ABC):
    """Keeps at most `max_entries` entries of at most `max_bytes` together; those that were not used for longest go first.

    Members set the three attributes in their constructors and implement the methods that begin with an underscore; those raise
    `CacheError` where they cannot do what they should.
    """

    family: ClassVar[str] = "caches"
    shared: ClassVar[bool] = False
    """Whether other processes may use the same entries."""
    __slots__ = ("_index", "_secret")

    max_entries: int
    max_bytes: int
    budget_seconds: float
    """How long one question may take."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        # Connections cannot be copied, and nothing here was learned.
        return type(self)(**self.params())

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return getattr(self, "_secret", None) is not None

    @final
    async def start(self) -> None:
        """Open it; once more where it could not be opened before.

        Raises:
            CacheError: if it cannot be opened now.
            ConfigError: if it never can as it is configured.
        """
        self._index = Index(2 * self.max_entries)
        self._secret: bytes | None = await self._within(self._open(), max(self.budget_seconds, OPEN_SECONDS))

    @final
    async def stop(self) -> None:
        """Close it. What a shared one holds stays."""
        self._secret = None
        await self._close()

    @final
    def key(self, *parts: bytes) -> bytes:
        """Return a keyed hash of `parts`: other parts, or parts divided otherwise, give other keys. Raises `CacheError` if not open."""
        if (secret := getattr(self, "_secret", None)) is None:
            raise CacheError("the cache is not open")
        h = hashlib.blake2b(key=secret, digest_size=_KEY)
        for part in parts:
            h.update(len(part).to_bytes(8, "big"))
            h.update(part)
        return h.digest()

    @final
    async def get(self, key: bytes) -> Entry | None:
        """Return the answer under `key`, if there is one that is not too old."""
        body = await self._within(self._get(key))
        if body is None:
            return None
        if compare_digest(body[:_KEY], self.key(b"value", key, body[_KEY:])):
            try:
                return _decoder.decode(body[_KEY:])
            except msgspec.DecodeError:
                pass  # written by another version
        log.warning("%r: an entry was changed after it was written, or is of another version; it is dropped", self)
        await self._within(self._delete(key=key))
        return None

    @final
    async def put(
        self,
        key: bytes,
        entry: Entry,
        *,
        seconds: float,
        groups: tuple[bytes, ...] = (),
        partition: bytes = b"",
        vector: bytes = b"",
    ) -> bool:
        """Keep `entry` for `seconds`, in place of what was there. False if it is larger than all that may be kept."""
        body = _encoder.encode(entry)
        value = self.key(b"value", key, body) + body
        row = Row(key=key, value=value, id=entry.id, groups=groups, seconds=seconds, partition=partition, vector=vector)
        if row.size > self.max_bytes:
            return False
        await self._within(self._put(row))
        return True

    @final
    async def near(self, partition: bytes, vector_E: NDArray[np.float32], at_least: float) -> list[tuple[bytes, float]]:
        """Return the keys in `partition` whose vectors have a cosine of `at_least` with `vector_E`, and that cosine, the likest first.

        A few at most. An entry may be gone when it is asked for.
        """
        index = self._index
        index.add(partition, await self._within(self._newer(partition, index.last(partition), PAGE)))
        return index.near(partition, vector_E, at_least)

    @final
    def lost(self, partition: bytes, key: bytes) -> None:
        """Take an entry that is gone from what `near` finds."""
        self._index.drop(partition, key)

    @final
    async def claim(self, key: bytes, owner: str, seconds: float) -> bool:
        """Say whether `owner` may answer `key`: True unless another does, and claimed it no longer ago than its `seconds`."""
        return await self._within(self._claim(key, owner, seconds))

    @final
    async def release(self, key: bytes, owner: str) -> None:
        """Give a claim back."""
        await self._within(self._release(key, owner))

    @final
    async def delete(self, *, id: str | None = None, groups: tuple[bytes, ...] = ()) -> int:
        """Remove the answers made for the trace `id`, or those that are in each of `groups`, or all; return how many. They are gone for all
        processes."""
        return await self._within(self._delete(id=id, groups=groups))

    @final
    async def count(self) -> tuple[int, int]:
        """Return how many entries there are, and their bytes, those not yet removed for their age included."""
        return await self._within(self._count())

    async def _within(self, work: Awaitable[T], seconds: float | None = None) -> T:
        seconds = self.budget_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError as e:
            raise CacheError(f"the cache {self.type_name()} said nothing within {seconds} s") from e

    @abstractmethod
    async def _open(self) -> bytes:
        """Open it and return its secret, `SECRET` random bytes that were made with it."""

    @abstractmethod
    async def _close(self) -> None:
        """Close it, also where it is not open."""

    @abstractmethod
    async def _get(self, key: bytes) -> bytes | None:
        """Return a value that is not too old, and note that it was used."""

    @abstractmethod
    async def _put(self, row: Row) -> None:
        """Keep `row` as the newest, drop the claim on its key, and remove what is too old or too much."""

    @abstractmethod
    async def _newer(self, partition: bytes, after: int, most: int) -> Newer:
        """Return the first `most` entries of `partition` with a sequence number above `after`, of those with a vector.

        An entry that is put again gets a new number.
        """

    @abstractmethod
    async def _delete(self, *, key: bytes | None = None, id: str | None = None, groups: tuple[bytes, ...] = ()) -> int:
        """Remove by the one that is given, or everything."""

    @abstractmethod
    async def _count(self) -> tuple[int, int]:
        """Count entries and bytes."""

    async def _claim(self, key: bytes, owner: str, seconds: float) -> bool:
        return True

    async def _release(self, key: bytes, owner: str) -> None:
        return


class Index:
    """Vectors by partition, in memory: at most `most` in all, and one partition more. Forgets the partitions not used for longest."""

    __slots__ = ("_most", "_parts", "_rows")

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: OrderedDict[bytes, _Part] = OrderedDict()
        self._rows = 0

    def last(self, partition: bytes) -> int:
        """The sequence number up to which `partition` is known; -1: not at all."""
        part = self._parts.get(partition)
        return -1 if part is None else part.last

    def add(self, partition: bytes, newer: Newer) -> None:
        """Take over newer entries of `partition`."""
        if not newer:
            return
        part = self._parts.get(partition)
        if part is not None and len(part.keys) + len(newer) > self._most:
            # It holds more that is gone than that is there: read it anew the next time.
            self._rows -= len(self._parts.pop(partition).keys)
            return
        if part is None:
            part = self._parts[partition] = _Part(len(newer[0][2]) // 4)
        self._parts.move_to_end(partition)
        before = len(part.keys)
        for seq, key, vector in newer:
            part.put(seq, key, vector)
        self._rows += len(part.keys) - before
        while self._rows > self._most and len(self._parts) > 1:
            self._rows -= len(self._parts.popitem(last=False)[1].keys)

    def near(self, partition: bytes, vector_E: NDArray[np.float32], at_least: float) -> list[tuple[bytes, float]]:
        """As `CacheStore.near`, of what is known."""
        part = self._parts.get(partition)
        if part is None or not part.keys or part.vector_NE.shape[1] != len(vector_E):
            return []
        self._parts.move_to_end(partition)
        cosine_N = part.vector_NE[: len(part.keys)] @ vector_E
        found_C = np.flatnonzero(cosine_N >= at_least)
        best = found_C[np.argsort(-cosine_N[found_C], kind="stable")][:_CANDIDATES]
        return [(part.keys[i], min(1.0, float(cosine_N[i]))) for i in best.tolist()]

    def drop(self, partition: bytes, key: bytes) -> None:
        """Forget one entry."""
        if (part := self._parts.get(partition)) is not None and part.drop(key):
            self._rows -= 1


class _Part:
    """The entries of one partition."""

    __slots__ = ("keys", "last", "places", "vector_NE")

    def __init__(self, size: int) -> None:
        self.last = -1
        self.keys: list[bytes] = []
        self.places: dict[bytes, int] = {}
        self.vector_NE = np.zeros((4, size), np.float32)

    def put(self, seq: int, key: bytes, vector: bytes) -> None:
        self.last = max(self.last, seq)
        vector_E = np.frombuffer(vector, "<f4")
        if len(vector_E) != self.vector_NE.shape[1]:
            return
        place = self.places.setdefault(key, len(self.keys))
        if place == len(self.keys):
            self.keys.append(key)
            if place == len(self.vector_NE):
                self.vector_NE = np.concatenate([self.vector_NE, np.zeros_like(self.vector_NE)])
        self.vector_NE[place] = vector_E

    def drop(self, key: bytes) -> bool:
        place = self.places.pop(key, None)
        if place is None:
            return False
        last = self.keys.pop()
        if last != key:
            self.keys[place], self.places[last] = last, place
            self.vector_NE[place] = self.vector_NE[len(self.keys)]
        return True
