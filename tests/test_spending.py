"""Budgets of routes: what is held, what is settled, and what is remembered."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead.config import make
from fairlead.errors import ConfigError
from fairlead.objective import Objective
from fairlead.policies.budget import Budget
from fairlead.policies.canary import Canary
from fairlead.policies.fixed import Fixed
from fairlead.policies.rules import Rules
from fairlead.policies.shadow import Shadow
from fairlead.predictors.knn import KNN
from fairlead.router import Router
from fairlead.spending import CLOCK_SLACK_SECONDS, Limit, Spending, held_for, limit_of
from fairlead.types import Call, Decision, Outcome, Query, Signals, Spent, Step, Tokens, Trace

DAY = 86400.0
NOON = 20_000 * DAY + DAY / 2


def spending(usd: float = 1.0) -> Spending:
    return Spending(limits={"auto": Limit(usd=usd, seconds=DAY)})


def test_held_and_settled_add_up() -> None:
    s = spending()
    assert s.spent("auto", NOON) == Spent(usd=0.0, elapsed=0.5)
    a, b = s.take("auto", NOON, 0.4), s.take("auto", NOON, 0.4)
    assert a is not None
    assert b is not None
    c = s.take("auto", NOON, 0.4)
    assert c is not None
    assert c.held == pytest.approx(0.2)
    assert not a.cover(0.5)
    b.settle(0.1)
    b.settle(0.1)
    assert a.cover(0.5)
    assert not a.cover(0.9)
    a.settle(0.7)
    c.settle(0.0)
    assert s.periods["auto"].gone == pytest.approx(0.8)
    assert s.take("other", NOON, 1.0) is None
    assert s.spent("other", NOON) is None


def test_a_period_ends_and_late_calls_belong_to_the_one_they_came_in() -> None:
    s = spending()
    late = s.take("auto", NOON, 0.9)
    assert late is not None
    assert s.spent("auto", NOON + DAY) == Spent(usd=0.0, elapsed=0.5)
    assert late.cover(1.0)
    assert not late.cover(1.1)
    late.settle(0.9)
    assert s.spent("auto", NOON + DAY) == Spent(usd=0.0, elapsed=0.5)
    # A clock that is set back does not begin the old period anew.
    purse = s.take("auto", NOON + DAY, 0.3)
    assert purse is not None
    set_back = s.spent("auto", NOON)
    assert set_back is not None
    assert set_back.usd == pytest.approx(0.3)
    assert 0.0 <= set_back.elapsed < 1.0


def test_looking_changes_nothing() -> None:
    """Metrics look from another thread: they neither begin a period nor read what the loop is changing."""
    s = spending()
    assert s.gone("auto", NOON) == 0.0
    assert s.gone("other", NOON) == 0.0
    assert not s.periods
    purses = [s.take("auto", NOON, 0.1) for _ in range(3)]
    assert s.gone("auto", NOON) == pytest.approx(0.3)
    assert s.gone("auto", NOON + DAY) == 0.0
    assert s.periods["auto"].purses == 3
    for purse in purses:
        assert purse is not None
        purse.settle(0.0)
        assert purse.cover(0.1), "of no use any more, and held of nothing"
    assert s.gone("auto", NOON) == 0.0, "and no rounding is left behind"


def test_what_is_left_needs_a_stamp() -> None:
    s = spending()
    query = Query(id="q", messages=())
    assert s.left(query) is None
    assert s.left(msgspec.structs.replace(query, spent=Spent(usd=0.3, elapsed=0.1))) == pytest.approx(0.7)
    estimate = {"a": 0.1, "b": 0.2, "c": None}
    assert held_for(("a", "b", "c"), query, lambda c, q: estimate[c.target]) == pytest.approx(0.3)


def trace(at: float, usd: float | None, *, route: str = "auto", seconds: float = 1.0) -> Trace:
    outcome = Outcome(text="x", target="a", usd=usd, tokens=Tokens(output=1))
    return Trace(
        id=f"{at}",
        at=at,
        query=Query(id=f"{at}", messages=(), route=route),
        signals=Signals(),
        decision=Decision(options=(), chosen=0, propensity=0.0),
        steps=(Step(path=(0, 0), call=Call(target="a"), outcome=outcome),),
        outcome=outcome,
        usd=usd,
        seconds=seconds,
    )


def test_the_period_is_summed_up_again_from_the_store() -> None:
    begins = 20_000 * DAY
    older = trace(begins - CLOCK_SLACK_SECONDS - 10.0, 100.0)
    kept = [
        older,
        trace(begins - 5.0, 10.0, seconds=60.0),  # came before the period, ended in it
        trace(begins + 1.0, 0.1),
        trace(begins + 2.0, None),  # did not tell: the estimate
        trace(begins + 3.0, 5.0, route="other"),
        trace(begins + 4.0, 0.2),
    ]
    read = []

    def newest_first() -> list[Trace]:
        read.extend(kept[::-1])
        return kept[::-1]

    s = spending()
    s.rebuild(newest_first, NOON, lambda call, query: 0.05)
    assert s.periods["auto"].gone == pytest.approx(0.35)
    none = Spending(limits={})
    read.clear()
    none.rebuild(newest_first, NOON, lambda call, query: 0.05)
    assert not read


def test_what_was_charged_counts_before_what_would_be_estimated_now() -> None:
    told, charged = trace(NOON, 0.3), trace(NOON, None)
    charged = msgspec.structs.replace(
        charged, steps=tuple(msgspec.structs.replace(s, charged_usd=8.0) for s in charged.steps)
    )
    s = spending()
    s.rebuild(lambda: [charged, told], NOON, lambda call, query: 1.0)
    assert s.periods["auto"].gone == pytest.approx(8.3)


@pytest.mark.parametrize("text", [True, False])
async def test_a_budget_is_the_same_after_a_restart(tmp_path: Path, text: bool) -> None:
    def opened() -> Router:
        prices = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0}
        knn = {"type": "knn", "features": {"signals": ["length"]}}
        policy = {"type": "budget", "predictor": knn, "usd": 100.0, "period_seconds": 1e9}
        router = make(
            {
                "targets": {"p": {"type": "scripted", "replies": ["right"], "profile": prices}},
                "routes": {"auto": {"policy": policy}},
                "store": {"path": str(tmp_path / "t.sqlite"), "text": text},
            }
        ).router()
        driver = router.world.drivers["p"]
        ask = driver._ask

        async def quiet(*args: Any) -> Outcome:
            return msgspec.structs.replace(await ask(*args), tokens=None)  # an upstream that reports no usage

        driver._ask = quiet  # type: ignore[assignment,method-assign]
        return router

    async with opened() as router:
        _, told = await router.handle(Query.ask("hello", max_tokens=8000))
        assert told.usd is None
        assert router.spending.periods["auto"].gone == pytest.approx(8.0)
    async with opened() as router:
        assert router.spending.periods["auto"].gone == pytest.approx(8.0)


def kept(usd: float) -> Budget:
    return Budget(predictor=KNN(), usd=usd, period_seconds=60.0)


def test_a_nested_budget_is_found_and_two_that_differ_are_refused() -> None:
    assert limit_of(Fixed(plan="a")) is None
    assert limit_of(kept(2.0)) == Limit(usd=2.0, seconds=60.0)
    assert limit_of(Rules(default="a", policies={"in": kept(2.0)})) == Limit(usd=2.0, seconds=60.0)
    assert limit_of(Rules(default="a", policies={"in": kept(2.0), "on": kept(2.0)})) is not None
    with pytest.raises(ConfigError, match="two budgets") as e:
        limit_of(Rules(default="a", policies={"in": kept(2.0), "on": kept(3.0)}), path="$.routes.auto.policy")
    assert e.value.path == "$.routes.auto.policy.policies.on"


def test_a_candidate_keeps_no_budget_of_the_route() -> None:
    aside = Shadow(serve=Fixed(plan="a"), candidate=Rules(default="a", policies={"in": kept(2.0)}))
    assert limit_of(aside) is None
    assert limit_of(Rules(default="a", policies={"in": aside})) is None
    assert limit_of(Shadow(serve=kept(2.0), candidate=kept(3.0))) == Limit(usd=2.0, seconds=60.0)
    assert limit_of(Canary(current=kept(2.0), candidate=kept(2.0))) == Limit(usd=2.0, seconds=60.0)
    with pytest.raises(ConfigError, match="one purse") as e:
        Canary(current=Fixed(plan="a"), candidate=Rules(default="a", policies={"in": kept(2.0)})).check()
    assert e.value.path == "$.candidate.policies.in"
    with pytest.raises(ConfigError, match="one purse"):
        Canary(current=kept(1.0), candidate=kept(2.0)).check()
    Canary(current=kept(2.0), candidate=kept(2.0), objective=Objective(usd_weight=1.0)).check()


def test_a_budget_that_is_changed_goes_on_with_what_is_spent_and_held() -> None:
    """A reload: as much is gone of the new amount as was of the old; another length of period is another account."""
    old = Spending(limits={"a": Limit(usd=1.0, seconds=60.0), "b": Limit(usd=1.0, seconds=60.0)})
    for route in ("a", "b"):
        purse = old.take(route, NOON, 0.25)
        assert purse is not None
    new = Spending(limits={"a": Limit(usd=2.0, seconds=60.0), "b": Limit(usd=1.0, seconds=3600.0)})
    new.take_over(old)
    period = new.period("a", NOON)
    assert period is not None
    assert (period.gone, period.usd) == (0.25, 2.0)
    read: list[int] = []

    def traces() -> list[Trace]:
        read.append(1)
        return []

    new.rebuild(traces, NOON, lambda call, query: 1.0)
    assert read, "for b alone"
    assert set(new.periods) == {"a", "b"}
    assert period.gone == 0.25
    assert purse is not None
    again = Spending(limits={"a": Limit(usd=2.0, seconds=60.0)})
    again.take_over(new)
    again.rebuild(lambda: pytest.fail("nothing is left to sum up"), NOON, lambda call, query: 1.0)
