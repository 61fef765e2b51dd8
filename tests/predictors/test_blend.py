"""The blend: greedy weights by the error of differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairlead.bench.evaluate import catalogued
from fairlead.bench.training import save, train
from fairlead.build import build, trained
from fairlead.errors import ConfigError
from fairlead.predictors.blend import Blend, greedy
from fairlead.predictors.knn import KNN
from fairlead.predictors.mean import Mean
from fairlead.table import OutcomeTable
from fairlead.types import Query, Target


def test_the_better_member_gets_the_weight() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((500, 3))
    y = (rng.random(truth.shape) < truth).astype(float)
    weights = greedy(np.stack([rng.random(truth.shape), truth]), y, rounds=20)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[1] >= 0.8


def test_two_noisy_members_are_better_together() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((2000, 3))
    y = (rng.random(truth.shape) < truth).astype(float)
    members = np.stack([truth + rng.normal(0, 0.3, truth.shape) for _ in range(2)])
    weights = greedy(members, y, rounds=20)
    assert min(weights) >= 0.35


def test_what_is_common_to_all_targets_does_not_count() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random((1000, 3))
    y = (rng.random(truth.shape) < truth).astype(float)
    # The first member knows the differences and is off by a large error per query, the second knows nothing.
    shifted = truth + rng.normal(0, 3.0, (1000, 1))
    assert greedy(np.stack([shifted, np.full_like(truth, 0.5)]), y, rounds=10)[0] == 1.0


def test_unscored_answers_do_not_count() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((400, 3))
    y = (rng.random(truth.shape) < truth).astype(float)
    members = np.stack([truth, rng.random(truth.shape)])
    y[:, 2] = np.nan
    spoiled = members.copy()
    spoiled[:, :, 2] = 1e6
    assert np.array_equal(greedy(members, y, rounds=5), greedy(spoiled, y, rounds=5))


def test_it_needs_members_and_is_built_from_a_config() -> None:
    with pytest.raises(ConfigError, match="at least one member"):
        Blend(members=()).check()
    blend = build("predictors", {"type": "blend", "members": ["knn", {"type": "mean"}]})
    assert [type(m) for m in blend.members] == [KNN, Mean]
    assert Blend().members[0] is not Blend().members[0]
    with pytest.raises(ConfigError, match="not to its members"):
        Blend(members=(KNN(calibration="platt"),)).check()


def test_what_was_not_picked_is_dropped_and_the_rest_can_be_served(tmp_path: Path) -> None:
    rows: dict[str, list[object]] = {k: [] for k in ("query_id", "prompt", "model", "quality")}
    for i in range(120):
        for model in ("a", "b"):
            rows["query_id"].append(str(i))
            rows["prompt"].append(f"{'sail the sea' if i % 2 else 'play the violin'} {i}")
            rows["model"].append(model)
            rows["quality"].append(float((model == "a") == bool(i % 2)))
    table = OutcomeTable.from_columns(rows)
    predictor, manifest, seen = train(table, {"type": "blend", "members": ["knn", "mean"]})
    assert isinstance(predictor, Blend)
    assert [m.type_name() for m in predictor.members] == ["knn"]
    save(tmp_path, predictor, manifest, seen)
    again = trained(tmp_path)
    for _, part in again.walk():
        part.check()
    signals = catalogued(again.needs).read(Query.ask("sail the sea 7"), again.needs)
    targets = [Target(name="a"), Target(name="b")]
    assert again.predict(signals, targets) == predictor.predict(signals, targets)
