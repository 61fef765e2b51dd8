"""Slow signals are read off the event loop: within a budget, side by side, only when something reads them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from fairlead import config
from fairlead.embeddings.base import Embedder, Vector
from fairlead.errors import UnknownName
from fairlead.signals.base import Observer, Signal
from fairlead.signals.complexity import Complexity
from fairlead.signals.embedding import Embedding
from fairlead.signals.length import Length
from fairlead.signals.similarity import Similarity
from fairlead.types import Query, Reading


class Gated(Embedder):
    """Embeds once the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.texts: list[str] = []
        self.threads: set[str] = set()

    @property
    def size(self) -> int:
        return 2

    @property
    def slow(self) -> bool:
        return True

    def _embed(self, text: str) -> Vector:
        self.texts.append(text)
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        assert self.gate.wait(10.0)
        return np.asarray([1.0, 0.0], np.float32)


class Ready(Gated):
    def __init__(self) -> None:
        super().__init__()
        self.gate.set()


class Untouchable(Signal):
    @property
    def slow(self) -> bool:
        return True

    def _read(self, query: Query) -> Reading:
        raise AssertionError("nobody asked for this")


def observer(embedder: Embedder, **given: Any) -> Observer:
    signals: dict[str, Signal] = {
        "embedding": Embedding(embedder=embedder),
        "similarity": Similarity(groups={"g": ["x"]}, embedder=embedder),
        "complexity": Complexity(hard=["h"], easy=["e"], embedder=embedder),
        "length": Length(),
        "untouchable": Untouchable(),
    }
    return Observer(signals=signals, **given)


def test_signals_are_as_slow_as_their_embedder() -> None:
    slow, quick = observer(Gated()), observer(config.build("embeddings", "hashing"))
    assert [n for n, s in slow.signals.items() if s.slow] == ["embedding", "similarity", "complexity", "untouchable"]
    assert [n for n, s in quick.signals.items() if s.slow] == ["untouchable"]


async def test_what_is_late_says_nothing_and_others_go_on() -> None:
    embedder = Gated()
    watched = observer(embedder, budget_seconds=0.05)
    try:
        slow = asyncio.ensure_future(watched.observe(Query.ask("slow"), ("similarity", "length")))
        # While it waits, the loop is free for other queries.
        assert await asyncio.to_thread(embedder.begun.wait, 10.0)
        other = await watched.observe(Query.ask("other"), ("length",))
        assert not slow.done()
        assert other.readings["length"].value == 5
        found = (await slow).readings
        assert (found["similarity"].late, found["similarity"].confidence) == (True, 0.0)
        assert (found["length"].late, found["length"].value) == (False, 4)
        assert watched.signals["similarity"].ranges()["value"].null
    finally:
        embedder.gate.set()
        watched.stop()


async def test_a_text_is_embedded_once_for_all_that_ask_and_nothing_else_runs() -> None:
    embedder = Gated()
    embedder.gate.set()
    watched = observer(embedder, budget_seconds=10.0)
    try:
        found = await watched.observe(Query.ask("hello"), ("embedding", "similarity", "complexity"))
        assert embedder.texts.count("hello") == 1
        assert sorted(embedder.texts) == ["e", "h", "hello", "x"]
        assert all(name.startswith("fairlead-signal") for name in embedder.threads)
        assert found.get("similarity") == "g"
        assert found.get("complexity") == "medium"
        assert found.readings["embedding"].confidence == 1.0
    finally:
        watched.stop()


async def test_one_that_hangs_makes_no_other_late() -> None:
    embedder = Gated()
    watched = Observer(
        signals={"embedding": Embedding(embedder=embedder), "quick": Similarity(groups={"g": ["x"]}, embedder=Ready())},
        budget_seconds=0.02,
        threads=1,
    )
    try:
        for text in ("a", "b", "c"):
            await watched.observe(Query.ask(text), ("embedding",))
        watched.budget_seconds = 10.0
        assert not (await watched.observe(Query.ask("d"), ("quick",))).readings["quick"].late
    finally:
        embedder.gate.set()
        watched.stop()


async def test_a_slow_one_that_breaks_is_late(caplog: pytest.LogCaptureFixture) -> None:
    watched = observer(Gated(), budget_seconds=10.0)
    try:
        found = (await watched.observe(Query.ask("hi"), ("untouchable",))).readings["untouchable"]
        assert found.late
        assert "untouchable broke: AssertionError" in caplog.text
    finally:
        watched.stop()


def test_embedders_of_a_config_are_shared() -> None:
    made = config.make(
        {
            "targets": {"a": {"type": "scripted"}},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
            "signals": {
                "one": {"type": "similarity", "groups": {"g": ["x"]}, "embedder": {"type": "hashing", "size": 256}},
                "two": {"type": "complexity", "embedder": {"type": "hashing", "size": 256}},
                "three": {"type": "complexity"},
            },
        }
    )
    embedders = [made.signals[n].params()["embedder"] for n in ("one", "two", "three", "embedding")]
    assert embedders[0] is embedders[1]
    assert embedders[2] is embedders[3]
    assert embedders[0] is not embedders[2]


class Broken(Signal):
    def _read(self, query: Query) -> Reading:
        raise KeyError("tenant_name")


def test_a_key_error_within_a_signal_is_not_an_unknown_signal() -> None:
    watched = Observer(signals={"mine": Broken()})
    with pytest.raises(KeyError) as e:
        watched.read(Query.ask("hi"), ("mine",))
    assert not isinstance(e.value, UnknownName)
    with pytest.raises(UnknownName, match="yours"):
        watched.read(Query.ask("hi"), ("mine", "yours"))
