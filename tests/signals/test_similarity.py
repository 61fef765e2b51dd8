"""Nearness to examples: groups of phrases, and hard against easy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.embeddings.base import Embedder, Examples, Vector
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import ConfigError
from fairlead.signals.complexity import EASY, HARD, Complexity
from fairlead.signals.similarity import Similarity
from fairlead.testing import check_signal
from fairlead.types import Message, Query

ANGLES = {"east": 0.0, "north": 90.0, "north-east": 45.0, "west": 180.0, "nearly east": 10.0, "north by east": 78.75}


class Compass(Embedder):
    """A text is a direction; while it is down nobody gets a vector."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[str] = []

    @property
    def size(self) -> int:
        return 2

    def _embed(self, text: str) -> Vector:
        self.asked.append(text)
        if text in self.down or text not in ANGLES:
            return np.zeros(2, np.float32)
        a = np.deg2rad(ANGLES[text])
        return np.asarray([np.cos(a), np.sin(a)], np.float32)


def query(text: str) -> Query:
    return Query(id="q", messages=(Message(role="user", content=text),))


GROUPS = {"right": ["east", "north-east"], "up": ["north"]}


@pytest.mark.parametrize(
    ("text", "value", "right", "up"),
    [
        ("east", "right", 0.0, 90.0),
        ("nearly east", "right", 10.0, 80.0),
        ("north by east", "up", 33.75, 11.25),
        ("west", None, 135.0, 90.0),
    ],
)
def test_the_largest_cosine_of_a_group_and_the_best_group(
    text: str, value: str | None, right: float, up: float
) -> None:
    reading = Similarity(groups=GROUPS, threshold=0.8, embedder=Compass()).read(query(text))
    assert reading.value == value
    assert reading.parts == pytest.approx({"right": np.cos(np.deg2rad(right)), "up": np.cos(np.deg2rad(up))}, abs=1e-6)


@pytest.mark.parametrize(("text", "near"), [("east", 0.0), ("nearly east", 10.0), ("north by east", 11.25)])
def test_a_match_is_as_sure_as_it_is_near(text: str, near: float) -> None:
    cosine = np.cos(np.deg2rad(near))
    found = Similarity(groups=GROUPS, threshold=0.8, embedder=Compass()).read(query(text))
    assert found.confidence == pytest.approx(cosine, abs=1e-6)
    none = Similarity(groups=GROUPS, threshold=1.0, embedder=Compass()).read(query("nearly east"))
    assert (none.value, none.confidence) == (None, pytest.approx(1.0 - np.cos(np.deg2rad(10.0)), abs=1e-6))
    far = Similarity(groups={"up": ["north"]}, embedder=Compass()).read(query("west"))
    assert (far.value, far.confidence) == (None, pytest.approx(1.0, abs=1e-6))


def test_the_threshold_itself_is_a_match_and_ties_go_to_the_first() -> None:
    groups = {"b": ["east"], "a": ["east"]}
    assert Similarity(groups=groups, threshold=1.0, embedder=Compass()).read(query("east")).value == "b"


def test_nobody_embeds() -> None:
    embedder = Compass()
    signal = Similarity(groups=GROUPS, embedder=embedder)
    embedder.down = {"north"}
    for text in ("east", ""):
        reading = signal.read(query(text))
        assert (reading.value, reading.parts, reading.confidence) == (None, {}, 0.0)
    embedder.down = set()
    # What failed is tried again, and what did not fail is not.
    assert signal.read(query("east")).value == "right"
    asked = len(embedder.asked)
    signal.read(query("nearly east"))
    assert embedder.asked[asked:] == ["nearly east"]


def test_examples_are_embedded_once() -> None:
    embedder = Compass()
    examples = Examples(embedder, ["east", "north"])
    for _ in range(3):
        found = examples.cosines(np.asarray([1.0, 0.0], np.float32))
        assert found is not None
        np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-6)
    assert embedder.asked == ["east", "north"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"groups": {}}, "$.groups"),
        ({"groups": {"a": []}}, "$.groups.a"),
        ({"groups": {"a": ["x", " "]}}, "$.groups.a"),
        ({"groups": {"value": ["x"]}}, "$.groups.value"),
        ({"groups": {"a": ["x"]}, "threshold": 1.5}, "$.threshold"),
        ({"groups": {"a": ["x"]}, "threshold": -1.0}, "$.threshold"),
    ],
)
def test_groups_that_cannot_be(given: dict[str, Any], path: str) -> None:
    for act in (Similarity(**given).check, lambda: Similarity(**given).read(query("x"))):
        with pytest.raises(ConfigError) as e:
            act()
        assert e.value.path == path


def test_similarity_with_hashing_keeps_its_laws() -> None:
    check_signal(lambda: Similarity(groups={"sum": ["What is 2 + 2?"], "word": ["word word"]}, threshold=0.3))


# ---------------------------------------------------------------------------------------------------------- complexity


@pytest.mark.parametrize(
    ("text", "theta", "value"),
    [
        ("east", 0.1, "hard"),
        ("north", 0.1, "easy"),
        ("north-east", 0.1, "medium"),
        ("nearly east", 0.9, "medium"),
        ("nearly east", 0.8, "hard"),
    ],
)
def test_complexity_is_the_contrast(text: str, theta: float, value: str) -> None:
    signal = Complexity(hard=["east"], easy=["north", "west"], theta=theta, embedder=Compass())
    reading = signal.read(query(text))
    assert reading.value == value
    a = np.deg2rad(ANGLES[text])
    assert reading.parts["delta"] == pytest.approx(np.cos(a) - max(np.sin(a), -np.cos(a)), abs=1e-6)


@pytest.mark.parametrize(("text", "near"), [("east", 0.0), ("nearly east", 10.0), ("north-east", 45.0)])
def test_complexity_is_as_sure_as_its_nearest_example(text: str, near: float) -> None:
    reading = Complexity(hard=["east"], easy=["north"], embedder=Compass()).read(query(text))
    assert reading.confidence == pytest.approx(np.cos(np.deg2rad(near)), abs=1e-6)


def test_the_built_in_examples_are_on_their_own_side() -> None:
    signal = Complexity(embedder=Hashing())
    assert {signal.read(query(text)).value for text in HARD} == {"hard"}
    assert {signal.read(query(text)).value for text in EASY} == {"easy"}
    assert len(set(HARD) | set(EASY)) == len(HARD) + len(EASY)


def test_complexity_without_text_or_embedder_says_nothing() -> None:
    embedder = Compass()
    embedder.down = {"east"}
    signal = Complexity(hard=["east"], easy=["north"], embedder=embedder)
    for text in ("", "north"):
        reading = signal.read(query(text))
        assert (reading.value, reading.parts, reading.confidence) == (None, {}, 0.0)


@pytest.mark.parametrize(
    ("given", "path"), [({"hard": ["x", ""]}, "$.hard[1]"), ({"easy": [" "]}, "$.easy[0]"), ({"theta": 2.0}, "$.theta")]
)
def test_examples_that_cannot_be(given: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as e:
        Complexity(**given).check()
    assert e.value.path == path
