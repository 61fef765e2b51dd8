"""The promise benchmark: its marks can be missed; the figures are left to `benchmarks/promise.py --check`."""

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "promise.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("promise_benchmark", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def world(bench: ModuleType, n: int = 1500) -> Any:
    """Make outcomes of a dear and a cheap target that are alike, and forecasts that know so."""
    rng = np.random.default_rng(0)
    usd = np.tile([0.01, 0.001], (n, 1))
    quality = np.repeat((rng.random((n, 1)) < 0.8).astype(float), 2, axis=1)
    return bench.World(quality=quality, usd=usd, forecast=np.full((n, 2), 0.8), forecast_usd=usd)


def test_a_watch_that_sleeps_misses_its_mark(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    caplog.set_level(logging.ERROR)
    for name, value in (("SEEDS", 2), ("STREAM", 200), ("AFTER", 2500), ("LOST", 0.6)):
        monkeypatch.setattr(bench, name, value)
    worlds = [world(bench)]
    awake = bench.shift("toy", "worse", worlds, worlds, 0)
    assert awake.below == awake.plain == awake.below_noticed == 2
    assert (awake.quiet, awake.kept, awake.claimed) == (True, True, True)
    assert awake.watched > awake.alone + 0.2
    assert awake.usd_before == pytest.approx(0.145, abs=0.03), "a tenth, and 5% of the reference"
    quiet = bench.shift("toy", "none", worlds, worlds, 0)
    assert (quiet.kept, quiet.claimed) == (None, None), "what breaks nothing tests nothing"
    monkeypatch.setattr(bench.Promise, "_bet", lambda *_: -np.inf)
    asleep = bench.shift("toy", "worse", worlds, worlds, 0)
    assert (asleep.kept, asleep.claimed) == (False, False)


def test_the_time_to_see_is_that_of_the_watch(bench: ModuleType) -> None:
    one, same = world(bench), world(bench)
    assert one.seen_after(0, 1e3, 0.95, 5000.0) == np.inf, "nothing is broken"
    same.quality[:, 1] = 0.0
    # Each answer of the choice loses 0.8 at once, however rarely the reference is asked: bets of at most 0.8 on a scale of 20.
    assert 300 < same.seen_after(0, 1e3, 0.95, 5000.0) < 600


def test_prompts_asked_often_break_promises_if_they_are_taken_for_draws(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "REPEATS", 20)
    rng = np.random.default_rng(1)
    worlds = [world(bench, 2000) for _ in range(6)]
    for one in worlds:  # the cheap target lies just below what is promised
        one.quality[:, 0] = rng.random(2000) < 0.8
        one.quality[:, 1] = rng.random(2000) < 0.7
        one.forecast[:, 1] = 0.78
    found = bench.redraw("toy", worlds, [bench.Family.of(one) for one in worlds], 0.95, 0)
    assert found.repeated_broken <= bench.allowed(found.calibrations)
    assert found.naive_broken > found.repeated_broken
