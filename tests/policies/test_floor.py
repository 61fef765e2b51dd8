"""The policy `floor`: the cheapest that is nearly as good as a reference."""

from typing import Any

import numpy as np
import pytest

from fairlead.policies.floor import Floor
from fairlead.types import Forecast, Query, Signals, Target

QUERY = Query(id="q", messages=())
FORECASTS = {
    "big": Forecast(quality=0.90, usd=0.02, seconds=3.0, joules=9.0),
    "mid": Forecast(quality=0.80, quality_sd=0.05, usd=0.004, seconds=1.0, joules=10.0),
    "small": Forecast(quality=0.50, usd=0.0001, seconds=0.2, joules=1.0),
}


class Told:
    """Forecasts as it is told."""

    needs = ("length",)

    def __init__(self, forecasts: dict[str, Forecast]) -> None:
        self.forecasts = forecasts

    def predict(self, signals: Signals, targets: tuple[Target, ...]) -> list[Forecast]:
        return [self.forecasts[t.name] for t in targets]


def order(forecasts: dict[str, Forecast] = FORECASTS, here: tuple[str, ...] = (), **more: Any) -> list[str]:
    predictor: Any = Told(forecasts)
    targets = tuple(Target(name=n) for n in here or forecasts)
    proposal = Floor(predictor=predictor, **more).propose(QUERY, Signals(), targets)
    return [o.plan.targets()[0] for o in proposal.options]


def test_the_cheapest_above_the_floor_then_those_above_then_the_rest_by_quality() -> None:
    assert order(share=0.97) == ["big", "mid", "small"]
    assert order(share=0.88) == ["mid", "big", "small"]
    assert order(share=0.5) == ["small", "mid", "big"]


def test_a_target_that_is_not_known_well_must_be_above_by_more() -> None:
    assert order(share=0.85)[0] == "mid"
    assert order(share=0.85, z=1.0)[0] == "big"


def test_a_named_reference_and_what_stands_in_for_it() -> None:
    assert order(share=1.0, reference="small")[0] == "small"
    assert order(share=0.97, reference="big", here=("mid", "small"))[0] == "mid"
    predictor: Any = Told(FORECASTS)
    proposal = Floor(predictor=predictor, reference="big").propose(QUERY, Signals(), (Target(name="mid"),))
    assert "big is not eligible now" in proposal.reasons[0]
    assert Floor(predictor=predictor, reference="big").names == (("$.reference", "big"),)


def test_time_and_energy_can_be_saved_too_and_what_is_unknown_is_never_cheapest() -> None:
    assert order(share=0.88, minimise="joules")[0] == "big"
    assert order(share=0.5, minimise="seconds")[0] == "small"
    unknown = {**FORECASTS, "small": Forecast(quality=0.5)}
    assert order(unknown, share=0.5) == ["mid", "big", "small"]


@pytest.mark.parametrize("seed", range(5))
def test_it_chooses_what_a_search_over_all_targets_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(40):
        forecasts = {
            f"t{i}": Forecast(quality=float(rng.random()), quality_sd=float(rng.random() / 5), usd=float(rng.random()))
            for i in range(5)
        }
        share, z = float(rng.random()), float(rng.random())
        best = max(forecasts.values(), key=lambda f: f.quality)
        good = {n: f for n, f in forecasts.items() if f is best or f.quality - z * f.quality_sd >= share * best.quality}
        assert order(forecasts, share=share, z=z)[0] == min(good, key=lambda n: good[n].usd or 0.0)


def test_exploration_is_spread_evenly() -> None:
    predictor: Any = Told(FORECASTS)
    targets = tuple(Target(name=n) for n in FORECASTS)
    options = Floor(predictor=predictor, explore=0.3).propose(QUERY, Signals(), targets).options
    assert [o.probability for o in options] == pytest.approx([0.8, 0.1, 0.1])
