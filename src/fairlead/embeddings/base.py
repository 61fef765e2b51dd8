"""Embeddings: text -> a vector of fixed size.

An embedder remembers its last few texts, since several signals may ask it about the same query: `share` lets those of equal spec be one
embedder, and a text that two threads ask a slow one about is embedded once. About 1 µs a text beside what the embedder takes.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from concurrent.futures import Future
from typing import ClassVar, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from fairlead.component import Component, pack

Vector: TypeAlias = NDArray[np.float32]

_LONG: Final = 10_000
"""Longer texts are remembered by their hash, so that a few of them do not fill the memory."""
_making: Final = threading.Lock()
"""Held while an embedder's memory is made, so that two threads make one."""


class Embedder(Component, ABC):
    """Turns text into a unit vector of `size` float32 numbers (zeros for text without content). Members implement `_embed`."""

    family: ClassVar[str] = "embeddings"
    __slots__ = ("_memo",)
    _memo: _Memo

    @property
    @abstractmethod
    def size(self) -> int:
        """Length of the vector."""

    @property
    def slow(self) -> bool:
        """Whether a text may take longer than a millisecond or wait for something: signals that ask are then read off the event loop."""
        return False

    @property
    def remembers(self) -> int:
        """How many texts it remembers, the last ones."""
        return 8

    @final
    def embed(self, text: str) -> Vector:
        """Return the vector of `text`, shape (size,), not to be changed. From any thread. Zeros are not remembered."""
        try:
            memo = self._memo
        except AttributeError:  # a slot that is not filled yet
            memo = self._begin()
        key: Hashable = text if len(text) <= _LONG else (len(text), hash(text))
        with memo.lock:
            found = memo.kept.get(key)
            if found is not None:
                memo.kept.move_to_end(key)
                return found
            under_way = memo.under_way.get(key)
            if under_way is None and self.slow:
                mine = memo.under_way[key] = Future()
        if under_way is not None:
            return under_way.result()
        if not self.slow:
            return memo.keep(key, self._embed(text), self.remembers)
        try:
            vector = memo.keep(key, self._embed(text), self.remembers)
        except BaseException as e:
            mine.set_exception(e)
            raise
        else:
            mine.set_result(vector)
        finally:
            with memo.lock:
                memo.under_way.pop(key, None)
        return vector

    def _begin(self) -> _Memo:
        with _making:
            try:
                return self._memo
            except AttributeError:
                self._memo = _Memo()
            return self._memo

    @abstractmethod
    def _embed(self, text: str) -> Vector:
        """Make the vector of `text`, shape (size,)."""


class _Memo:
    """What an embedder remembers, and what it is asked just now."""

    __slots__ = ("kept", "lock", "under_way")

    def __init__(self) -> None:
        self.kept: OrderedDict[Hashable, Vector] = OrderedDict()
        self.under_way: dict[Hashable, Future[Vector]] = {}
        self.lock = threading.Lock()

    def keep(self, key: Hashable, vector: Vector, most: int) -> Vector:
        vector.flags.writeable = False
        if vector.any():
            with self.lock:
                self.kept[key] = vector
                while len(self.kept) > most:
                    self.kept.popitem(last=False)
        return vector


def share(components: Iterable[Component]) -> None:
    """Let embedders of equal spec, in `components` or nested in them, be one: a text is then embedded once for all of them."""
    first: dict[bytes, Embedder] = {}
    for component in components:
        for _, part in component.walk():
            for name, value in part.params().items():
                if isinstance(value, Embedder):
                    setattr(part, name, first.setdefault(pack(value.spec()), value))


class Examples:
    """Vectors of some phrases, made when they are first asked for, and asked for again while one of them is missing.

    Shapes: P phrases, E size.
    """

    __slots__ = ("_embedder", "_phrases", "_vector_PE")

    def __init__(self, embedder: Embedder, phrases: Iterable[str]) -> None:
        self._embedder, self._phrases = embedder, tuple(phrases)
        self._vector_PE: NDArray[np.float32] | None = None

    def cosines(self, vector_E: Vector) -> NDArray[np.float32] | None:
        """Return the cosine of `vector_E` with each phrase, shape (P,); None if a phrase has no vector: nobody embeds just now."""
        if self._vector_PE is None:
            vectors = []
            for phrase in self._phrases:
                vectors.append(self._embedder.embed(phrase))
                if not vectors[-1].any():
                    return None
            self._vector_PE = np.stack(vectors)
        # Rounding may pass 1 by a few units in the last place.
        cosine_P: NDArray[np.float32] = np.clip(self._vector_PE @ vector_E, -1.0, 1.0)
        return cosine_P
