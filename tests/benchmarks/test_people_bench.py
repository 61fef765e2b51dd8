"""The benchmark of people: its streams and marks, small; the figures are left to `benchmarks/people.py --check`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "people.py"


@pytest.fixture(scope="module")
def people() -> ModuleType:
    spec = importlib.util.spec_from_file_location("people_benchmark", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks annotations up there
    spec.loader.exec_module(module)
    return module


def test_streams_are_the_same_again_and_start_alike(people: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "ANSWERS", 60)
    crowd = "two fifths lie"
    assert people.stream(1, crowd, "on") == people.stream(1, crowd, "on")
    assert people.stream(1, "all honest", "off").regret == people.stream(1, "all honest", "known").regret
    assert people.stream(1, crowd, "off").regret != people.stream(1, crowd, "known").regret


def test_opinions(people: ModuleType) -> None:
    rng = np.random.default_rng(0)
    right = {k: np.mean([people.opinion(k, good, rng) == good for good in (True, False) for _ in range(500)]) for k in
             ("honest", "careless", "lie", "loud", "up", "guess")}  # fmt: skip
    expected = {"honest": 0.9, "careless": 0.65, "lie": 0.1, "loud": 0.1, "up": 0.5, "guess": 0.5}
    assert right == pytest.approx(expected, abs=0.06)  # four standard errors


def test_a_mark_can_be_missed(people: ModuleType) -> None:
    def row(crowd: str, saved: float, liars: float) -> object:
        return people.Row(crowd=crowd, regret={"off": (50.0, 5.0)}, saved=(saved, 5.0), honest=0.9, liars=liars)

    assert all(people.marks([row("a fifth lie", 6.0, 0.0), row("all honest", -4.0, 0.0)], []).values())
    assert list(people.marks([row("a fifth lie", 4.0, 0.1)], []).values()) == [False, False]
    assert list(people.marks([row("all honest", -6.0, 0.0)], []).values()) == [False]
    assert people.marks([row(people.LOST, -60.0, 1.0)], []) == {}, "where most lie, nothing is promised"
    best = people.first(np.random.default_rng(0), 200, 40, loud=True)
    assert best[people.WAYS[3]]
    assert not best[people.WAYS[0]]
