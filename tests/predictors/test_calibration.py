"""Calibration maps: closer to the truth where there is enough of it, and the identity where there is not."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.bench.metrics import ece
from fairlead.predictors import calibration


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_an_overconfident_forecast_is_pulled_in(method: calibration.Method) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(4000)
    odds = np.log(truth / (1 - truth))
    forecast = 1 / (1 + np.exp(-2.5 * odds))
    right = (rng.random(4000) < truth).astype(float)
    found = calibration.learn(method, forecast[:2000, None], right[:2000, None])
    mapped = np.asarray([calibration.apply(found, np.asarray([p]))[0] for p in forecast[2000:]])
    assert (np.diff(found[0]) >= 0).all()
    assert ece(mapped, right[2000:]) < 0.5 * ece(forecast[2000:], right[2000:])


def test_too_little_data_changes_nothing() -> None:
    for method in ("isotonic", "platt", "none"):
        found = calibration.learn(method, np.full((10, 1), 0.9), np.zeros((10, 1)))
        assert calibration.apply(found, np.asarray([0.37]))[0] == pytest.approx(0.37)


def test_out_of_fold_never_forecasts_what_it_was_given() -> None:
    groups = np.repeat(np.arange(30), 2)

    def fit_predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        assert not set(groups[train]) & set(groups[test])
        return test[:, None].astype(float)

    out = calibration.out_of_fold(fit_predict, groups, 1)
    assert out[:, 0].tolist() == list(range(60))
    sizes = np.bincount(calibration.folds(groups))
    assert sizes.tolist() == [12] * 5
