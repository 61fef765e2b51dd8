from math import nextafter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead.objective import Objective
from fairlead.plans.single import Single
from fairlead.policies.utility import Utility, tipping_points
from fairlead.predictors.base import Predictor
from fairlead.predictors.features import Features
from fairlead.types import Forecast, Option, Query, Reward, Signals, Target

QUERY = Query(id="q", messages=())


class Told:
    """Forecasts as it is told; `fit` and `predict` of the base class are final, so this stands beside it."""

    needs = ("length",)

    def __init__(self, forecasts: dict[str, Forecast]) -> None:
        self.forecasts = forecasts
        self.updates = 0

    def predict(self, signals: Signals, targets: tuple[Target, ...]) -> list[Forecast]:
        return [self.forecasts[t.name] for t in targets]

    def update(self, trace: Any, reward: Any) -> None:
        self.updates += 1


FORECASTS = {
    "big": Forecast(quality=0.9, usd=0.02, seconds=3.0),
    "mid": Forecast(quality=0.8, usd=0.004, seconds=1.0),
    "small": Forecast(quality=0.5, usd=0.0001, seconds=0.2),
}
TARGETS = tuple(Target(name=n) for n in FORECASTS)


def utility(forecasts: dict[str, Forecast] = FORECASTS, **more: Any) -> Utility:
    predictor: Any = Told(forecasts)
    return Utility(predictor=predictor, **more)


def best(policy: Utility) -> str:
    return policy.propose(QUERY, Signals(), TARGETS).options[0].plan.targets()[0]


def test_the_objective_decides() -> None:
    assert best(utility()) == "big"
    assert best(utility(objective=Objective(usd_weight=20))) == "mid"
    assert best(utility(objective=Objective(usd_weight=1000))) == "small"


def test_exploration_is_spread_evenly() -> None:
    options = utility(explore=0.3).propose(QUERY, Signals(), TARGETS).options
    assert [o.probability for o in options] == pytest.approx([0.8, 0.1, 0.1])


def test_equal_bests_share_alike() -> None:
    same = {"big": Forecast(quality=0.5), "mid": Forecast(quality=0.5), "small": Forecast(quality=0.4)}
    options = utility(same).propose(QUERY, Signals(), TARGETS).options
    assert [(o.plan.targets()[0], o.probability) for o in options] == [("big", 0.5), ("mid", 0.5), ("small", 0.0)]


def test_reasons_give_the_figures_of_the_best_and_the_next() -> None:
    reasons = utility().propose(QUERY, Signals(), TARGETS).reasons
    assert reasons == (
        "best big: quality 0.900, 0.020000 USD, 3.00 s",
        "next mid: quality 0.800, 0.004000 USD, 1.00 s",
    )


def test_what_is_learned_goes_to_the_predictor() -> None:
    policy = utility()
    trace: Any = None
    policy.learn(trace, Reward(quality=1.0))
    predictor: Any = policy.predictor
    assert predictor.updates == 1
    assert policy.needs == ("length",)


def options_of(forecasts: dict[str, Forecast]) -> list[Option]:
    return [Option(plan=Single(target=n), probability=1 / len(forecasts), forecast=f) for n, f in forecasts.items()]


def test_tipping_points_name_the_weight_and_the_rival() -> None:
    tips = {t.what: t for t in tipping_points(options_of(FORECASTS), Objective())}
    # big and mid are equal where 0.9 - 0.02 w = 0.8 - 0.004 w.
    assert tips["usd_weight"].at == pytest.approx(6.25)
    assert tips["usd_weight"].instead == "mid"
    assert tips["seconds_weight"].at == pytest.approx(0.05)
    assert tips["mid's quality"].at == pytest.approx(0.9)
    assert "joules_weight" not in tips
    assert str(tips["usd_weight"]) == "mid would win if usd_weight were 6.25 (now 0)"
    assert tipping_points(options_of(FORECASTS)[:1], Objective()) == ()


numbers = st.floats(0.01, 1.0)


@settings(max_examples=50, deadline=None)
@given(
    forecasts=st.lists(st.builds(Forecast, quality=numbers, usd=numbers, seconds=numbers), min_size=2, max_size=4),
    objective=st.builds(Objective, usd_weight=numbers, seconds_weight=numbers),
)
def test_a_tipping_point_tips_the_choice(forecasts: list[Forecast], objective: Objective) -> None:
    named = {f"t{i}": f for i, f in enumerate(forecasts)}
    for tip in tipping_points(options_of(named), objective):
        if not tip.what.endswith("_weight"):
            continue
        # Just beyond the point the named rival beats the one that was best.
        beyond = nextafter(tip.at, 1e9 if tip.at > tip.now else -1e9) + (tip.at - tip.now) * 1e-6
        there = replace(objective, **{tip.what: beyond})
        first = max(named, key=lambda n: objective.utility(named[n]))
        assert there.utility(named[tip.instead]) >= there.utility(named[first]) - 1e-9


def test_it_takes_a_real_predictor() -> None:
    class Half(Predictor):
        def __init__(self) -> None:
            self.features = Features(signals=("length",))

        def _fit(self, x_QD: Any, quality_QT: Any, table: Any) -> None: ...

        def _quality(self, x_D: Any) -> Any: ...

        online = True

    targets = (Target(name="b"), Target(name="a"))
    options = Utility(predictor=Half()).propose(QUERY, Signals(), targets).options
    assert [o.probability for o in options] == [0.5, 0.5]
