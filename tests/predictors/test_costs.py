"""Cost models: lines through the origin's right side, and honest ignorance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.component import finite
from fairlead.predictors.costs import OUTPUT_TOKENS, CostModel
from fairlead.table import OutcomeTable
from fairlead.types import Profile


def table(usd: list[Any], sizes: list[int], **more: list[Any]) -> OutcomeTable:
    n = len(usd)
    return OutcomeTable.from_columns(
        {
            "query_id": [str(i) for i in range(n)],
            "prompt": ["x" * s for s in sizes],
            "model": ["m"] * n,
            "quality": [1.0] * n,
            "cost_usd": usd,
            **more,
        }
    )


def lines(found: OutcomeTable, x_QD: Any = None) -> dict[str, list[float]]:
    x_QD = np.zeros((len(found), 1)) if x_QD is None else x_QD
    return CostModel.read(CostModel.fit(found, x_QD), np.zeros(x_QD.shape[1]))


def test_what_a_query_is_about_tilts_the_line() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    long = x[:, 0] > 0
    found = table([0.01 if v else 0.001 for v in long], [100] * 600, latency_s=[2.0] * 600)
    state = CostModel.fit(found, x)
    usd = np.array([CostModel.predict(CostModel.read(state, r)["m"], 100, Profile()).usd for r in x], np.float64)
    assert usd[long].mean() > 3 * usd[~long].mean()
    assert usd.mean() == pytest.approx(np.where(long, 0.01, 0.001).mean(), rel=1e-6)
    seconds = {CostModel.predict(CostModel.read(state, r)["m"], 100, Profile()).seconds for r in x[:5]}
    assert all(s == pytest.approx(2.0) for s in seconds)
    wild = CostModel.predict(CostModel.read(state, 1e6 * np.ones(3))["m"], 100, Profile()).usd
    assert wild is not None
    assert wild <= 8.01 * max(usd)


def test_a_target_that_joins_is_known_beside_the_others() -> None:
    x = np.zeros((3, 2))
    one = CostModel.fit(table([0.02] * 3, [10, 20, 30]), x)
    two = {**CostModel.fit(table([0.05] * 3, [10, 20, 30]), x), "names": ["new"]}
    both = CostModel.read(CostModel.join(one, two), np.zeros(2))
    assert CostModel.predict(both["new"], 20, Profile()).usd == pytest.approx(0.05)
    assert CostModel.predict(both["m"], 20, Profile()).usd == pytest.approx(0.02)
    assert CostModel.join({}, one) is one


def test_a_line_is_found() -> None:
    sizes = list(range(100, 1100, 10))
    rng = np.random.default_rng(0)
    usd = [0.01 + 1e-5 * s + rng.normal(0, 1e-4) for s in sizes]
    params = lines(table(usd, sizes, latency_s=[2.0] * 100, output_tokens=[20 + s // 10 for s in sizes]))
    mean, sd, seconds, _, written = CostModel.predict(params["m"], 500, Profile())
    assert written == pytest.approx(70.0, rel=1e-3)
    assert mean == pytest.approx(0.015, abs=1e-4)
    assert sd == pytest.approx(1e-5, rel=0.3)
    assert seconds == pytest.approx(2.0)


def test_nothing_is_negative() -> None:
    falling = lines(table([0.03, 0.02, 0.01], [10, 20, 30]))["m"]
    assert CostModel.predict(falling, 1e6, Profile())[0] == pytest.approx(0.02)
    steep = lines(table([0.0, 0.0, 0.09], [10, 20, 30]))["m"]
    assert CostModel.predict(steep, 0, Profile())[0] == 0.0
    assert CostModel.predict(steep, 20, Profile())[0] == pytest.approx(0.03, rel=0.01)


def test_what_is_not_known_is_still_finite_state() -> None:
    free = lines(table([None] * 3, [10, 20, 30], latency_s=[2.0] * 3))
    timeless = lines(table([0.02] * 3, [10, 20, 30]))
    assert finite([free, timeless])
    taken = CostModel.predict(free["m"], 20, Profile())
    assert (taken.usd, taken.usd_sd) == (None, 0.0)
    assert taken.seconds == pytest.approx(2.0)
    taken = CostModel.predict(timeless["m"], 20, Profile())
    assert taken.seconds is None
    assert taken.usd == pytest.approx(0.02)


def test_unknown_cells_are_left_out_and_a_bare_target_is_priced_by_its_profile() -> None:
    params = lines(table([0.02, None, 0.02], [10, 20, 30]))
    assert CostModel.predict(params["m"], 20, Profile())[0] == pytest.approx(0.02)
    assert CostModel.fit(table([None, None], [1, 2]), np.zeros((2, 1))) == {}
    assert CostModel.predict(None, 400, Profile()) == (None, 0.0, None, None, None)
    profile = Profile(
        input_usd_per_mtok=1.0,
        output_usd_per_mtok=2.0,
        first_token_seconds=0.5,
        seconds_per_output_token=0.01,
        joules_per_token=3.0,
    )
    usd, _, seconds, joules, _ = CostModel.predict(None, 400, profile)
    assert usd == pytest.approx((100 * 1.0 + OUTPUT_TOKENS * 2.0) / 1e6)
    assert seconds == pytest.approx(0.5 + 0.01 * OUTPUT_TOKENS)
    # As the driver charges them: input and output alike.
    assert joules == pytest.approx(3.0 * (100 + OUTPUT_TOKENS))
    assert CostModel.predict(params["m"], 400, profile).joules == joules
