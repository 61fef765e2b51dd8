import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.objective import Objective, energy_weight
from fairlead.types import Forecast, Reward

amounts = st.floats(0, 100)


def test_quality_alone_by_default() -> None:
    assert Objective().utility(Forecast(quality=0.7, usd=9.0, seconds=9.0, joules=9.0)) == 0.7


def test_each_weight_takes_off_its_amount() -> None:
    what = Reward(quality=0.9, usd=0.01, seconds=2.0, joules=30.0)
    assert Objective(usd_weight=10).utility(what) == pytest.approx(0.8)
    assert Objective(seconds_weight=0.1).utility(what) == pytest.approx(0.7)
    assert Objective(joules_weight=0.01).utility(what) == pytest.approx(0.6)


def test_what_is_not_known_costs_what_unknown_says_and_only_if_weighed() -> None:
    what = Forecast(quality=0.9, seconds=1.0)
    assert Objective(unknown=0.2).utility(what) == 0.9
    assert Objective(usd_weight=10, unknown=0.2).utility(what) == pytest.approx(0.7)
    assert Objective(usd_weight=10, joules_weight=1, unknown=0.2).utility(what) == pytest.approx(0.5)


@given(quality=st.floats(0, 1), usd=amounts, seconds=amounts, weight=amounts)
def test_forecast_and_reward_are_weighed_alike(quality: float, usd: float, seconds: float, weight: float) -> None:
    objective = Objective(usd_weight=weight, seconds_weight=1.0)
    fields = {"quality": quality, "usd": usd, "seconds": seconds}
    assert objective.utility(Forecast(**fields)) == objective.utility(Reward(**fields)) <= 1.0


def test_unknown_fields_are_errors() -> None:
    with pytest.raises(msgspec.ValidationError, match="cost_weight"):
        msgspec.convert({"cost_weight": 1}, Objective)


@given(quality=st.floats(0, 1), joules=st.floats(1, 9), share=st.floats(0, 0.9))
def test_an_energy_weight_says_what_greenservs_reward_says(quality: float, joules: float, share: float) -> None:
    low, high = 1.0, 9.0
    reward = (1 - share) * quality + share * (1 - (joules - low) / (high - low))
    utility = Objective(joules_weight=energy_weight(share, low, high)).utility(Reward(quality=quality, joules=joules))
    assert reward == pytest.approx((1 - share) * utility + share * (1 + low / (high - low)))


def test_an_energy_weight_needs_bounds_and_some_quality() -> None:
    assert energy_weight(0.0, 1.0, 2.0) == 0.0
    for share, low, high in ((1.0, 0.0, 1.0), (-0.1, 0.0, 1.0), (0.5, 1.0, 1.0)):
        with pytest.raises(ValueError, match="share"):
            energy_weight(share, low, high)
