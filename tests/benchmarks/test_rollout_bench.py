"""The rollout benchmark: its marks can be missed; the figures are left to `benchmarks/rollout.py --check`."""

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fairlead.policies import guarded
from fairlead.sequential import e_value

SOURCE = Path(__file__).parents[2] / "benchmarks" / "rollout.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rollout_benchmark", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_guard_that_counts_its_evidence_often_misses_its_mark(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    world = bench.steady(0.7, 0.7, 0.7)
    streams = [bench.stream(0.0, 0.5, 0, 50, 0), bench.stream(0.4, 0.5, 0, 20, 0)]
    whole = bench.without_cause("alike", world, 10)
    assert [good for good, _ in bench.judged(streams, [], [whole], 50)] == [True] * 4
    monkeypatch.setattr(guarded, "e_value", lambda e: 40.0 * e_value(e))
    whole = bench.without_cause("alike", world, 10)
    assert [good for good, _ in bench.judged(streams, [], [whole], 50)] == [True, True, True, False]


def test_the_mix_is_the_nearer_baseline_where_it_should_be(bench: ModuleType) -> None:
    found = bench.guard(bench.USD)
    assert found.objective is not None
    for _ in bench.answered(found, bench.steady(0.95, 0.4, 0.5), 3000, 0, bench.USD):
        pass
    assert "the mix of targets" in found.why_
    missed = {"case": "better than the fixed, not than the mix", "stepped_back": 0.95}
    streams = [bench.stream(0.0, 0.5, 0, 5, 0), bench.stream(0.4, 0.5, 0, 5, 0)]
    assert not bench.judged(streams, [missed], [], 5)[-1][0]
