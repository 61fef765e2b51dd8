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


def test_a_line_is_found() -> None:
    sizes = list(range(100, 1100, 10))
    rng = np.random.default_rng(0)
    usd = [0.01 + 1e-5 * s + rng.normal(0, 1e-4) for s in sizes]
    params = CostModel.fit(table(usd, sizes, latency_s=[2.0] * 100, output_tokens=[20 + s // 10 for s in sizes]))
    mean, sd, seconds, _, written = CostModel.predict(params["m"], 500, Profile())
    assert written == pytest.approx(70.0, rel=1e-3)
    assert mean == pytest.approx(0.015, abs=1e-4)
    assert sd == pytest.approx(1e-5, rel=0.3)
    assert seconds == pytest.approx(2.0)


def test_nothing_is_negative() -> None:
    falling = CostModel.fit(table([0.03, 0.02, 0.01], [10, 20, 30]))["m"]
    assert CostModel.predict(falling, 1e6, Profile())[0] == pytest.approx(0.02)
    steep = CostModel.fit(table([0.0, 0.0, 0.09], [10, 20, 30]))["m"]
    assert CostModel.predict(steep, 0, Profile())[0] == 0.0
    assert CostModel.predict(steep, 20, Profile())[0] == pytest.approx(0.03, rel=0.01)


def test_what_is_not_known_is_still_finite_state() -> None:
    free = CostModel.fit(table([None] * 3, [10, 20, 30], latency_s=[2.0] * 3))
    timeless = CostModel.fit(table([0.02] * 3, [10, 20, 30]))
    assert finite([free, timeless])
    taken = CostModel.predict(free["m"], 20, Profile())
    assert (taken.usd, taken.usd_sd) == (None, 0.0)
    assert taken.seconds == pytest.approx(2.0)
    taken = CostModel.predict(timeless["m"], 20, Profile())
    assert taken.seconds is None
    assert taken.usd == pytest.approx(0.02)


def test_unknown_cells_are_left_out_and_a_bare_target_is_priced_by_its_profile() -> None:
    params = CostModel.fit(table([0.02, None, 0.02], [10, 20, 30]))
    assert CostModel.predict(params["m"], 20, Profile())[0] == pytest.approx(0.02)
    assert CostModel.fit(table([None, None], [1, 2])) == {}
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
