"""The plan `mode`: the rule and its knobs, gates that fail, limits, and that it lies above the fixed modes."""

from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.bench.metrics import cost_of_pass
from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.gates import said
from fairlead.plans.mode import Mode, choose
from fairlead.plans.single import Single
from fairlead.testing import check_plan, comparable
from fairlead.types import UNLIMITED, Call, Failure, Forecast, Limits, Outcome, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("How many?", id="q")
PLAN = Mode(
    gate="gate", instant=Single(target="quick"), reasoning=Single(target="thinks"), agentic=Single(target="acts")
)
USD = {"gate": 0.0, "quick": 1.0, "thinks": 3.0, "acts": 9.0}


def failed(kind: Any = "unavailable", **more: Any) -> Outcome:
    return Outcome(error=Failure(kind=kind), **more)


def told(*qualities: float, names: tuple[str, ...] = ("quick", "thinks", "acts"), **usd: float) -> str:
    return said({n: Forecast(quality=q, usd=usd.get(n)) for n, q in zip(names, qualities, strict=False)})


class World(LookUp):
    """A gate, and three targets that say their names."""

    def __init__(self, gate: Outcome | str, **by_target: Outcome | str) -> None:
        self.told = {"gate": gate, **by_target}
        self.asked: list[str] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        if call.purpose != "gate":
            self.asked.append(call.target)
        found = self.told.get(call.target, call.target)
        outcome = Outcome(text=found) if isinstance(found, str) else found
        return msgspec.structs.replace(outcome, target=call.target, usd=USD[call.target], seconds=1.0)


def run(
    gate: Outcome | str, plan: Mode = PLAN, *, limits: Limits | None = None, **by_target: Outcome | str
) -> list[str]:
    world = World(gate, **by_target)
    done: Run = replay(plan, QUERY, world, limits=limits or UNLIMITED)
    assert comparable(replay(plan, QUERY, Recorded(done.steps))) == comparable(done)
    assert done.outcome.text in ("", *world.asked)
    return world.asked


def quality(**by_mode: float) -> dict[Any, Forecast]:
    return {mode: Forecast(quality=q) for mode, q in by_mode.items()}


# ----------------------------------------------------------------------------------------------------------- the rule


def test_it_is_the_expected_reward_of_apo() -> None:
    """Instant earns p, a heavy mode q (1 - p^alpha)."""
    assert run(told(0.8, 1.0, 0.2)) == ["quick"], "0.8 against 1 - 0.64"
    assert run(told(0.5, 0.9, 0.2)) == ["thinks"], "0.5 against 0.9 * 0.75"
    assert run(told(0.1, 0.3, 0.9)) == ["acts"]
    assert run(told(0.8, 1.0, 0.2), msgspec.structs.replace(PLAN, penalty=0.0)) == ["thinks"]


def test_alpha_larger_tolerates_heavy_modes_on_medium_easy_queries() -> None:
    medium = quality(instant=0.65, reasoning=0.95)
    assert choose(medium, alpha=2.0) == "instant"
    assert choose(medium, alpha=4.0) == "reasoning"


def test_costs_count_if_they_are_known_of_all() -> None:
    plan = msgspec.structs.replace(PLAN, penalty=0.0, usd_weight=0.1)
    assert run(told(0.5, 0.9, 0.95), plan) == ["acts"]
    assert run(told(0.5, 0.9, 0.95, quick=1.0, thinks=3.0, acts=9.0), plan) == ["thinks"]
    assert run(told(0.8, 0.9, 0.95, quick=1.0, thinks=3.0, acts=9.0), plan) == ["quick"]
    assert run(told(0.8, 0.9, 0.95, quick=1.0, thinks=3.0), plan) == ["acts"], "what is not known is not zero"


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), st.floats(0.0, 9.0))
def test_if_costs_are_equal_accuracy_alone_decides(qualities: list[float], usd: float) -> None:
    modes = ("instant", "reasoning", "agentic")
    forecasts: dict[Any, Forecast] = {m: Forecast(quality=q) for m, q in zip(modes, qualities, strict=True)}
    priced = {m: msgspec.structs.replace(f, usd=usd) for m, f in forecasts.items()}
    best = choose(forecasts, penalty=0.0)
    assert forecasts[best].quality == max(qualities)
    weighed = choose(priced, penalty=0.0, usd_weight=0.5)
    assert forecasts[weighed].quality == pytest.approx(max(qualities)), "but for rounding"


@given(st.lists(st.tuples(*[st.floats(0.0, 1.0)] * 3), min_size=1, max_size=20))
def test_the_share_of_instant_is_monotone_in_b(queries: list[tuple[float, float, float]]) -> None:
    """First-token rule: b = +inf all instant, b = -inf all reasoning (or agentic), the share monotone in b."""
    shares = []
    for bias in (float("-inf"), -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, float("inf")):
        forecasts = [quality(instant=a, reasoning=b, agentic=c) for a, b, c in queries]
        shares.append(sum(choose(f, bias=bias) == "instant" for f in forecasts))
    assert shares[0] == 0
    assert shares[-1] == len(queries)
    assert all(a <= b for a, b in pairwise(shares))


def test_the_threshold_rule_needs_p_alone() -> None:
    plan = msgspec.structs.replace(PLAN, threshold=0.7)
    assert run(told(0.7), plan) == ["quick"]
    assert run(told(0.69), plan) == ["thinks"]
    assert run(told(0.69, 0.2, 0.9), plan) == ["acts"]
    assert run(told(0.6), msgspec.structs.replace(plan, bias=0.1)) == ["quick"]


@pytest.mark.parametrize(
    "gate",
    [
        failed(),
        failed("bad_request"),
        "",
        "}{",
        "{}",
        told(0.9, names=("stranger",)),
        told(0.1, 0.9, names=("thinks", "acts")),
    ],
)
def test_a_gate_that_fails_means_reasoning_and_never_agentic(gate: Outcome | str) -> None:
    for plan in (PLAN, msgspec.structs.replace(PLAN, threshold=0.0, bias=1000.0)):
        assert run(gate, plan) == ["thinks"]


def test_what_is_not_known_of_agentic_is_not_chosen() -> None:
    assert run(told(0.1, 0.0)) == ["quick"]
    assert run(told(0.1)) == ["thinks"], "reasoning counts as sure"
    alone = msgspec.structs.replace(PLAN, agentic=None)
    assert run(told(0.1, 0.5, 1.0), alone) == ["thinks"]


def test_modes_go_by_their_own_names_first() -> None:
    same = Mode(gate="gate", instant=Single(target="quick"), reasoning=Single(target="quick"))
    assert run(told(0.9, 0.1, names=("instant", "reasoning")), same) == ["quick"]
    world = World(told(0.9))
    replay(msgspec.structs.replace(same, agentic=Single(target="acts")), QUERY, world)
    assert world.asked == ["quick"], (
        "one name for two modes says nothing of either: reasoning, which begins with quick too"
    )


# -------------------------------------------------------------------------------------------------- failures and limits


def test_who_takes_over() -> None:
    assert run(told(0.9, 0.5, 0.5), quick=failed()) == ["quick", "thinks"]
    assert run(told(0.1, 0.9, 0.5), thinks=failed()) == ["thinks", "quick"]
    assert run(told(0.1, 0.5, 0.9), acts=failed()) == ["acts", "thinks"]
    assert run(failed(), thinks=failed(), quick=failed()) == ["thinks", "quick"], "never the one that may do things"
    for fault in (
        failed("bad_request"),
        failed("blocked"),
        failed("client_gone"),
        failed("broken_stream", streamed=True),
    ):
        assert run(told(0.9, 0.5, 0.5), quick=fault) == ["quick"]


def test_limits() -> None:
    """The gate generates nothing, and is no call."""
    assert run(told(0.9, 0.5, 0.5), limits=Limits(calls=1)) == ["quick"]
    assert run(told(0.9, 0.5, 0.5), limits=Limits(calls=1), quick=failed()) == ["quick"]
    done = replay(PLAN, QUERY, World(told(0.9, 0.5, 0.5), quick=failed()), limits=Limits(calls=1))
    assert done.outcome.error == Failure(kind="unavailable")
    assert run(told(0.9, 0.5, 0.5), limits=Limits(calls=0)) == []


# ------------------------------------------------------------------------------------------------------- what it is worth


def test_with_a_calibrated_p_it_is_above_the_line_of_fixed_modes() -> None:
    """Gateway use without training: cheaper per pass than each fixed mode, and above mixing them at the same mean cost."""
    random = Random(2)
    queries = [random.betavariate(0.5, 0.5) for _ in range(600)]
    plan = msgspec.structs.replace(PLAN, agentic=None, threshold=0.6)

    def measured(which: Any) -> tuple[float, float, float]:
        success, usd = [], []
        for p in queries:
            mode = which(p)
            success.append(p if mode == "quick" else 0.95)
            usd.append(USD[mode])
        return float(np.mean(success)), float(np.mean(usd)), cost_of_pass(usd, success)

    adaptive, cost, per_pass = measured(lambda p: run(told(p), plan)[0])
    instant, reasoning = measured(lambda p: "quick"), measured(lambda p: "thinks")
    share = (cost - USD["quick"]) / (USD["thinks"] - USD["quick"])
    assert adaptive > (1.0 - share) * instant[0] + share * reasoning[0] + 0.1
    assert per_pass < reasoning[2]
    assert adaptive > reasoning[0] - 0.1


# ------------------------------------------------------------------------------------------------------------ as data


def test_the_family_check() -> None:
    check_plan(lambda: msgspec.structs.replace(PLAN, agentic=None, threshold=0.5))


def test_written_and_read_back() -> None:
    plan = msgspec.structs.replace(PLAN, bias=-3.0, threshold=0.2, usd_weight=4.0)
    assert decode(to_data(plan)) == plan
    assert plan.targets() == ("gate", "quick", "thinks", "acts")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.0}, "> 0"),
        ({"penalty": 2.0}, "<= 1"),
        ({"usd_weight": -1.0}, ">= 0"),
        ({"threshold": 1.5}, "<= 1"),
        ({"bias": float("inf")}, "1000"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "mode", "gate": "g", "instant": "a", "reasoning": "b", **wrong})
