"""The loop, end to end: observe, decide, run, learn, prove."""

import asyncio
from pathlib import Path

import pytest

from fairlead.config import make
from fairlead.errors import NoEligibleTarget, UnknownName
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.types import Constraints, Feedback, Query


def router(tmp_path: Path, policy: object = "random", **more: object) -> Router:
    data = {
        "targets": {
            "good": {"type": "scripted", "replies": ["right"]},
            "bad": {"type": "scripted", "replies": ["wrong"]},
            "broken": {"type": "scripted", "replies": [{"error": {"kind": "unavailable", "message": "down"}}]},
        },
        "routes": {"auto": {"policy": policy}},
        "store": {"path": str(tmp_path / "traces.sqlite")},
        "learning": {"batch": 4, "seconds": 0.05},
        **more,
    }
    return make(data).router()


async def test_a_query_is_answered_traced_and_replayed(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        for i in range(20):
            outcome, trace = await r.handle(Query.ask(f"question {i}"))
            assert outcome.text in ("right", "wrong")
            assert trace.decision.propensity == pytest.approx(1 / len(trace.decision.eligible))
            kept = await r.store.get(trace.id)
            assert kept == trace
            assert replay_decision(trace, r.store).same
        assert r.store.verify() == 20
        assert r.store.count() == 20


async def test_a_failure_before_the_first_byte_goes_elsewhere_and_the_trace_says_so(tmp_path: Path) -> None:
    async with router(tmp_path, {"type": "fixed", "plan": "broken"}) as r:
        outcome, trace = await r.handle(Query.ask("x"))
        assert outcome.ok
        first, second = trace.steps
        assert first.outcome.error is not None
        assert first.outcome.target == "broken"
        assert second.outcome.target == outcome.target == "good"


async def test_a_target_asked_for_by_name_is_not_replaced(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        query = Query.ask("x")
        named = type(query)(id=query.id, messages=query.messages, body=query.body, route="broken")
        outcome, trace = await r.handle(named)
        assert outcome.error is not None
        assert outcome.error.kind == "unavailable"
        assert len(trace.steps) == 1


async def test_an_unknown_route_is_an_error_with_the_nearest_names(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        query = Query.ask("x")
        with pytest.raises(UnknownName, match="good"):
            await r.handle(type(query)(id="1", messages=query.messages, route="goood"))


async def test_nobody_may_answer(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        with pytest.raises(NoEligibleTarget, match="not among the allowed"):
            await r.handle(Query.ask("x", constraints=Constraints(allow=("nobody",))))


async def test_it_learns_from_feedback_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    policy = {"type": "thompson", "features": {"signals": ["length"], "bias": True}}
    async with router(tmp_path, policy) as r:
        for i in range(60):
            outcome, trace = await r.handle(Query.ask(f"question {i}"))
            receipt = await r.feedback(Feedback(trace_id=trace.id, value=float(outcome.text == "right")))
            assert receipt.status == "accepted"
        assert await asyncio.to_thread(r.learner.wait, 10)
        before = r.serving["auto"]
        assert before.version > 1
        _, decision = r.decide(Query.ask("question"))
        assert decision.plan.targets() == ("good",)
        assert decision.propensity > 0.5
    async with router(tmp_path, policy) as r:
        assert r.serving["auto"].digest == before.digest
        assert r.arrivals == 60
        outcome, trace = await r.handle(Query.ask("question"))
        assert replay_decision(trace, r.store).same
    async with router(tmp_path, {**policy, "sigma": 0.3}) as r:
        _, decision = r.decide(Query.ask("question"))
        assert decision.propensity < 0.5, "a changed config begins anew"


async def test_feedback_twice_revised_and_unknown(tmp_path: Path) -> None:
    async with router(tmp_path, {"type": "lin_ucb"}) as r:
        _, trace = await r.handle(Query.ask("x"))
        say = [Feedback(trace_id=trace.id, value=v) for v in (1.0, 1.0, 0.0)]
        assert [(await r.feedback(f)).status for f in say] == ["accepted", "duplicate", "revised"]
        assert (await r.feedback(Feedback(trace_id="nobody", value=1.0))).status == "unknown"
        assert await asyncio.to_thread(r.learner.wait, 10)
        assert r.learner.learned == 1


async def test_a_client_that_goes_away_leaves_a_trace(tmp_path: Path) -> None:
    targets = {"slow": {"type": "scripted", "replies": [{"text": "late", "delay_seconds": 5.0}]}}
    async with router(tmp_path, "random", targets=targets) as r:
        task = asyncio.ensure_future(r.handle(Query.ask("x", id="gone")))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        trace = await r.store.get("gone")
        assert trace is not None
        assert trace.outcome.cancelled
        assert [s.outcome.cancelled for s in trace.steps] == [True]


async def test_same_seed_same_choices(tmp_path: Path) -> None:
    chosen = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        async with router(tmp_path / run, seed=5) as r:
            chosen.append([r.decide(Query.ask("x", id=f"id-{i}"))[1].chosen for i in range(50)])
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) > 1
