"""The benchmark of new targets: its marks can be missed; the figures are left to `benchmarks/new_target.py --check`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "new_target.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("new_target_benchmark", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def cells(bench: ModuleType, table: str, *, gain: float, held: float) -> list[Any]:
    """Nine targets in five folds; chosen probes are better by `gain` on average, and of their intervals a share `held` hold."""
    rng, out = np.random.default_rng(0), []
    for target in map(str, range(9)):
        for fold in range(5):
            for method in (bench.CHOSEN, "irt, random probes", "mean of random probes", "profile, chosen probes"):
                for calls in bench.CALLS:
                    chosen = method == bench.CHOSEN
                    error = 0.08 - gain * chosen + 0.01 * float(rng.normal())
                    cell = bench.Cell(
                        table=table, target=target, fold=fold, method=method, calls=calls, error=error, brier=0.2,
                        covered=bool(rng.random() < held) if chosen else None, points=[],
                    )  # fmt: skip
                    out.append(cell)
    return out


def verdicts(bench: ModuleType, found: list[Any]) -> list[bool]:
    return [good for good, _ in bench.judged(found, bench.differences(found))]


def test_a_choice_that_gains_nothing_and_intervals_that_do_not_hold_are_missed(bench: ModuleType) -> None:
    assert all(verdicts(bench, cells(bench, bench.JUDGED, gain=0.02, held=0.93)))
    assert verdicts(bench, cells(bench, bench.JUDGED, gain=0.0, held=0.93)) == [True, False, False, True]
    assert verdicts(bench, cells(bench, bench.JUDGED, gain=0.02, held=0.7)) == [False, True, True, True]


def test_the_table_it_was_designed_on_does_not_judge_the_choice(bench: ModuleType) -> None:
    design = next(name for name in bench.TABLES if name != bench.JUDGED)
    found = cells(bench, design, gain=0.0, held=0.93)
    assert all(verdicts(bench, found))
    assert "not told apart, not judged" in bench.judged(found, bench.differences(found))[1][1]


def test_intervals_are_students(bench: ModuleType) -> None:
    mean, low, high = bench._over_targets({"a": [0.0, 0.2], "b": [0.3], "c": [0.5]})
    assert mean == pytest.approx(0.3)
    assert high - mean == pytest.approx(mean - low) == pytest.approx(4.303 * 0.2 / 3**0.5, rel=1e-3)
