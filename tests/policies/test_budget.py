"""The policy `budget`: the price of a dollar follows the pace; fifty at once do not spend the same dollar twice."""

import asyncio
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.config import make
from fairlead.errors import NoEligibleTarget
from fairlead.policies.budget import Budget
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.types import Forecast, Outcome, Query, Signals, Spent, Target, Trace

CHEAP, DEAR = Target(name="cheap"), Target(name="dear")


class Told:
    """Forecasts as it is told."""

    needs = ("length",)

    def __init__(self, **forecasts: Forecast) -> None:
        self.forecasts = forecasts

    def predict(self, signals: Signals, targets: tuple[Target, ...]) -> list[Forecast]:
        return [self.forecasts[t.name] for t in targets]


def budget(usd: float = 1.0, told: Told | None = None, **more: Any) -> Budget:
    predictor: Any = told or Told(cheap=Forecast(quality=0.5, usd=0.001), dear=Forecast(quality=0.9, usd=0.02))
    return Budget(predictor=predictor, usd=usd, **more)


def chosen(policy: Budget, spent: Spent | None) -> str:
    query = Query(id="q", messages=(), spent=spent)
    return policy.propose(query, Signals(), (CHEAP, DEAR)).options[0].plan.targets()[0]


def test_the_price_is_the_closed_form_of_the_mirror_descent() -> None:
    policy, rng = budget(usd=2.0, usd_weight=7.0, step=15.0), np.random.default_rng(0)
    price, spent, n = 7.0, 0.0, 200
    for t in range(n):
        assert policy.price(Spent(usd=spent, elapsed=t / n)) == pytest.approx(price)
        cost = float(rng.random() * 0.02)
        spent += cost
        price *= exp(-(15.0 / 2.0) * (2.0 / n - cost))  # eta = step / usd, rho = usd / n
    assert policy.price(Spent(usd=1e9, elapsed=0.0)) < 1e15


def test_ahead_of_the_pace_it_saves_behind_it_spends() -> None:
    policy = budget(usd_weight=20.0)
    assert chosen(policy, Spent(usd=0.5, elapsed=0.5)) == "dear"
    assert chosen(policy, Spent(usd=0.6, elapsed=0.5)) == "cheap"
    assert chosen(policy, None) == "dear"


def test_what_is_left_is_a_hard_stop_with_reasons() -> None:
    policy = budget()
    assert chosen(policy, Spent(usd=0.99, elapsed=0.999)) == "cheap"
    for spent in (1.0, 1.5, 0.9995):
        with pytest.raises(NoEligibleTarget, match="budget") as e:
            chosen(policy, Spent(usd=spent, elapsed=0.5))
        assert set(e.value.excluded) == {"cheap", "dear"}
    unknown = budget(told=Told(cheap=Forecast(quality=0.5), dear=Forecast(quality=0.9, usd=0.02)))
    query = Query(id="q", messages=())
    proposal = unknown.propose(query, Signals(), (CHEAP, DEAR))
    assert [o.plan.targets() for o in proposal.options] == [("dear",)]
    with pytest.raises(NoEligibleTarget, match="not known"):
        unknown.propose(query, Signals(), (CHEAP,))


@pytest.mark.parametrize(("usd_weight", "reached"), [(1.0, 0.75), (10.0, 0.93), (300.0, 0.93)])
def test_a_stream_keeps_its_pace_and_beats_first_come_first_served(usd_weight: float, reached: float) -> None:
    rng, n, usd = np.random.default_rng(1), 3000, 18.0
    gain = rng.random(n) * 0.5
    told = Told()
    policy = budget(usd, told, usd_weight=usd_weight, step=60.0)
    spent = quality = 0.0
    for t in range(n):
        told.forecasts = {
            "cheap": Forecast(quality=0.5, usd=0.001),
            "dear": Forecast(quality=0.5 + float(gain[t]), usd=0.02),
        }
        try:
            name = chosen(policy, Spent(usd=spent, elapsed=t / n))
        except NoEligibleTarget:
            continue
        spent += 0.02 if name == "dear" else 0.001
        quality += 0.5 + float(gain[t]) * (name == "dear")
    # The right price is about 17. First come gets 0.5 and the mean gain until the money is out; hindsight picks the largest gains.
    first_come = (0.5 + 0.25) * usd / 0.02
    assert 0.92 * usd <= spent <= usd
    assert quality > first_come + 0.2 * n
    dear = int((usd - 0.001 * n) / 0.019)
    assert quality > 0.5 * n + reached * float(np.sort(gain)[-dear:].sum())


# ------------------------------------------------------------------------------------------------ with a real router

PRICE = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0, "max_output_tokens": 200}
CALL = 0.2
"""What one call is forecast, estimated and charged: 200 tokens at 1,000 USD a million."""


def router(tmp_path: Path, *, usd: float, tokens: int = 200, delay: float = 0.01, **more: Any) -> Router:
    reply = {"text": "right", "tokens": {"input": 10, "output": tokens}, "delay_seconds": delay}
    policy = {
        "type": "budget",
        "predictor": {"type": "knn", "features": {"signals": ["length"]}},
        "usd": usd,
        "period_seconds": 1e9,
    }
    data = {
        "targets": {
            "paid": {"type": "scripted", "replies": [reply], "profile": PRICE},
            "unpriced": {"type": "scripted", "replies": ["wrong"]},
        },
        "routes": {"auto": {"policy": policy}},
        "store": {"path": str(tmp_path / "traces.sqlite")},
        **more,
    }
    return make(data).router()


async def ask(r: Router, n: int) -> list[tuple[Outcome, Trace] | BaseException]:
    return await asyncio.gather(*(r.handle(Query.ask("x", max_tokens=200)) for _ in range(n)), return_exceptions=True)


async def test_fifty_at_once_do_not_overspend_and_a_restart_remembers(tmp_path: Path) -> None:
    async with router(tmp_path, usd=20 * CALL + 0.1) as r:
        came = await ask(r, 50)
        served = [c for c in came if not isinstance(c, BaseException)]
        refused = [c for c in came if isinstance(c, NoEligibleTarget)]
        assert len(served) == 20
        assert len(refused) == 30
        assert all(why.startswith("budget") for e in refused for why in e.excluded.values())
        assert r.spending.periods["auto"].gone == pytest.approx(20 * CALL)
        assert not r.spending.periods["auto"].purses
        traces = list(r.store.traces())
        assert len(traces) == 50
        assert all(replay_decision(t, r.store).same for t in traces)
        assert sorted(t.query.spent.usd for t in traces if t.query.spent)[-1] == pytest.approx(20 * CALL)
    async with router(tmp_path, usd=20 * CALL + 0.1) as r:
        assert r.spending.periods["auto"].gone == pytest.approx(20 * CALL)
        (came_again,) = await ask(r, 1)
        with pytest.raises(NoEligibleTarget, match="budget"):
            r.decide(dry := Query.ask("x", max_tokens=200), r.observe(dry))
        assert isinstance(came_again, NoEligibleTarget)
    async with router(tmp_path, usd=21 * CALL + 0.1) as r:
        (again,) = await ask(r, 1)
        assert not isinstance(again, BaseException)


async def test_one_after_the_other_a_wrong_estimate_costs_one_call_at_most(tmp_path: Path) -> None:
    async with router(tmp_path, usd=1.2, tokens=900, delay=0.0) as r:
        spent = 0.0
        for _ in range(5):
            (came,) = await ask(r, 1)
            if not isinstance(came, BaseException):
                spent += came[1].usd or 0.0
        # Calls cost 0.9 where 0.2 was estimated: 0.3 of 1.2 were left before the second, and nothing after it.
        assert spent == pytest.approx(1.8)
        assert spent <= 1.2 + 0.9


async def test_what_a_cancelled_call_may_have_cost_is_charged_and_its_purse_closed(tmp_path: Path) -> None:
    async with router(tmp_path, usd=1.0, delay=60.0) as r:
        task = asyncio.create_task(r.handle(Query.ask("x", max_tokens=200)))
        while not r.spending.periods or not r.spending.periods["auto"].purses:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert r.spending.periods["auto"].gone == pytest.approx(CALL)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not r.spending.periods["auto"].purses
        assert r.spending.periods["auto"].settled == pytest.approx(CALL)


async def test_a_fallback_must_be_covered_too(tmp_path: Path) -> None:
    down = {"error": {"kind": "timeout", "message": "too late"}, "delay_seconds": 0.0}
    targets = {
        "a": {"type": "scripted", "replies": [down], "profile": PRICE},
        "b": {"type": "scripted", "replies": [{"text": "b", "tokens": {"output": 200}}], "profile": PRICE},
    }
    policy = {"type": "fixed", "plan": "a"}
    rules = {
        "type": "rules",
        "rules": [{"when": {"length": {"lt": 0}}, "use": {"policy": "kept"}}],
        "default": {"policy": "first"},
        "policies": {
            "first": policy,
            "kept": {"type": "budget", "predictor": "knn", "usd": 0.3, "period_seconds": 1e9},
        },
    }
    async with router(tmp_path, usd=1.0, targets=targets, routes={"auto": {"policy": rules}}) as r:
        outcome, trace = await r.handle(Query.ask("x", max_tokens=200))
        # The first call timed out and is charged 0.2 of 0.3: the second does not fit, and is not made.
        assert trace.usd == pytest.approx(CALL)
        assert [s.outcome.error.kind for s in trace.steps if s.outcome.error] == ["timeout", "budget"]
        assert not outcome.ok
        assert r.spending.periods["auto"].gone == pytest.approx(CALL)
