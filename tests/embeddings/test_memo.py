"""What every embedder does beside embedding: it remembers its last texts, and equal ones are one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fairlead.embeddings.base import Embedder, Vector, share
from fairlead.embeddings.hashing import Hashing
from fairlead.signals.complexity import Complexity
from fairlead.signals.embedding import Embedding
from fairlead.signals.length import Length
from fairlead.signals.similarity import Similarity


class Counted(Embedder):
    """Notes what it is asked; a slow one waits at the gate."""

    def __init__(self, *, slow: bool = False, remembers: int = 2) -> None:
        self._slow = slow
        self._remembers = remembers
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.breaks = False

    @property
    def size(self) -> int:
        return 1

    @property
    def slow(self) -> bool:
        return self._slow

    @property
    def remembers(self) -> int:
        return self._remembers

    def _embed(self, text: str) -> Vector:
        self.asked.append(text)
        self.begun.set()
        if self._slow:
            assert self.gate.wait(10.0)
        if self.breaks:
            raise OSError("no")
        return np.asarray([0.0 if text == "zero" else 1.0], np.float32)


def test_the_last_texts_are_remembered_and_zeros_are_not() -> None:
    embedder = Counted()
    for text in ("a", "a", "b", "a", "c", "a", "b", "zero", "zero", "b"):
        embedder.embed(text)
    assert embedder.asked == ["a", "b", "c", "b", "zero", "zero"]


def test_what_is_handed_out_cannot_be_changed() -> None:
    vector = Hashing().embed("a")
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1.0


def test_long_texts_are_told_apart() -> None:
    embedder = Counted(remembers=4)
    for text in ("a" * 50_000, "a" * 50_001, "b" * 50_000, "a" * 50_000):
        embedder.embed(text)
    assert len(embedder.asked) == 3


def test_a_text_that_two_threads_want_is_embedded_once() -> None:
    embedder = Counted(slow=True)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(embedder.embed, "a")
        assert embedder.begun.wait(10.0)
        second = threads.submit(embedder.embed, "a")
        embedder.gate.set()
        assert first.result(10.0).tolist() == second.result(10.0).tolist() == [1.0]
    assert embedder.asked == ["a"]


def test_a_failure_reaches_all_who_wait_and_is_tried_again() -> None:
    embedder = Counted(slow=True)
    embedder.breaks = True
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(embedder.embed, "a")
        assert embedder.begun.wait(10.0)
        second = threads.submit(embedder.embed, "a")
        embedder.gate.set()
        for each in (first, second):
            with pytest.raises(OSError, match="no"):
                each.result(10.0)
    embedder.breaks = False
    assert embedder.embed("a").any()


def test_a_copy_remembers_for_itself() -> None:
    embedder = Hashing()
    kept = embedder.embed("a")
    assert embedder.embed("a") is kept
    assert embedder.copy().embed("a") is not kept


def test_embedders_of_equal_spec_become_one() -> None:
    signals: dict[str, Any] = {
        "a": Embedding(embedder=Hashing(size=64)),
        "b": Similarity(groups={"g": ["x"]}, embedder=Hashing(size=64)),
        "c": Complexity(embedder=Hashing(size=128)),
        "d": Length(),
    }
    share(signals.values())
    assert signals["a"].embedder is signals["b"].embedder
    assert signals["a"].embedder is not signals["c"].embedder
    assert [s.params()["embedder"].size for n, s in signals.items() if n != "d"] == [64, 64, 128]
