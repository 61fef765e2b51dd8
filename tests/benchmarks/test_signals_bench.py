"""The benchmark of the signals: its arithmetic; the figures are left to `benchmarks/signals.py --check`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fairlead.signals.length import Length

SOURCE = Path(__file__).parents[2] / "benchmarks" / "signals.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("signals_benchmark", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks annotations up there
    spec.loader.exec_module(module)
    return module


def test_the_area_is_the_share_of_pairs_in_order(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    score_N = rng.integers(0, 6, 60).astype(float)
    hard_N = rng.random(60) < 0.4
    weight_N = rng.integers(0, 3, 60)
    chosen = np.repeat(np.arange(60), weight_N)
    pairs = [
        1.0 if score_N[i] > score_N[j] else 0.5 if score_N[i] == score_N[j] else 0.0
        for i in chosen[hard_N[chosen]]
        for j in chosen[~hard_N[chosen]]
    ]
    assert bench.auc(score_N, hard_N, weight_N.astype(float)) == pytest.approx(np.mean(pairs))
    assert bench.auc(score_N, hard_N) + bench.auc(-score_N, hard_N) == pytest.approx(1.0)
    assert bench.auc(hard_N.astype(float), hard_N) == 1.0


def test_what_only_tells_tasks_apart_is_worth_nothing_within(bench: ModuleType) -> None:
    rng = np.random.default_rng(1)
    task_N = np.repeat([0, 1], 200)
    quality_N = rng.random(400) + task_N
    within_N = np.concatenate([quality_N[task_N == t] < np.median(quality_N[task_N == t]) for t in (0, 1)])
    overall, within = bench.area(
        -task_N.astype(float), quality_N < np.median(quality_N), task_N, within_N, resamples=50, seed=0
    )
    assert overall[0] == 1.0
    assert within[0] == 0.5


def test_texts_are_as_long_as_they_say_and_new_in_each_round(bench: ModuleType) -> None:
    first, second = bench.texts(0), bench.texts(1)
    assert {len(q.text) for q in first["300"]} <= {298, 299, 300}
    assert [len(q.messages) for q in first["five turns"]] == [9] * 64
    assert not {q.text for q in first["300"]} & {q.text for q in second["300"]}
    cost = bench.cost("length", Length(), [first, second, second])
    assert all(low <= mid <= high for mid, low, high in cost.us.values())
