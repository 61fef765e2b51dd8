"""The loop, end to end: observe, decide, run, learn, prove."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from fairlead import rewards
from fairlead.config import make
from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget, UnknownName
from fairlead.policies.fixed import Fixed
from fairlead.pool import Eligibility
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.types import Constraints, Decision, Failure, Feedback, Query


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


def dry(r: Router, query: Query) -> Decision:
    return r.decide(query, r.observe(query))


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


async def test_a_target_asked_for_by_name_is_not_replaced_while_it_rests(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        r.pool.health.failed("bad", Failure(kind="rate_limited", retry_after_seconds=60.0))
        query = Query.ask("x")
        with pytest.raises(NoEligibleTarget, match="bad"):
            await r.handle(msgspec.structs.replace(query, route="bad"))


PRIVATE = {
    "type": "rules",
    "rules": [{"name": "private", "when": {"length": {"ge": 0}}, "use": "broken", "required": True}],
    "default": "good",
}


async def test_nobody_takes_over_for_a_required_rule(tmp_path: Path) -> None:
    async with router(tmp_path, PRIVATE) as r:
        outcome, trace = await r.handle(Query.ask("secret"))
        assert outcome.error is not None
        assert outcome.error.kind == "unavailable"
        assert [s.outcome.target for s in trace.steps] == ["broken"]
    loose = {**PRIVATE, "rules": [{**PRIVATE["rules"][0], "required": False}]}
    (tmp_path / "loose").mkdir()
    async with router(tmp_path / "loose", loose) as r:
        outcome, trace = await r.handle(Query.ask("open"))
        assert outcome.target == "good"


async def test_a_required_rule_that_leaves_the_choice_to_a_policy_keeps_to_its_options(tmp_path: Path) -> None:
    inner = {"type": "random", "weights": {"broken": 1.0, "bad": 0.0}}
    rules = [{**PRIVATE["rules"][0], "use": {"policy": "inner"}}]
    async with router(tmp_path, {**PRIVATE, "rules": rules, "policies": {"inner": inner}}, fallbacks=9) as r:
        _, trace = await r.handle(Query.ask("secret"))
        proposed = {o.plan.targets()[0] for o in trace.decision.options}
        assert {s.outcome.target for s in trace.steps} <= proposed


async def test_a_refusal_is_traced_and_replayed(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        with pytest.raises(NoEligibleTarget):
            await r.handle(Query.ask("x", id="refused", constraints=Constraints(allow=("nobody",))))
        trace = await r.store.get("refused")
        assert trace is not None
        assert trace.outcome.error is not None
        assert trace.outcome.error.kind == "no_target"
        assert set(trace.decision.excluded) == {"good", "bad", "broken"}
        assert r.store.verify() == 1


async def test_a_refusal_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with router(tmp_path) as r:
        real, refused = r.pool.eligible, list[str]()

        def rests_once(query: Query, **more: float | None) -> Eligibility:
            found = real(query, **more)
            if not refused:
                refused.append(query.id)
                r.publish("auto", Fixed(plan="good"), "swapped meanwhile")
                return Eligibility(targets=(), excluded={t.name: "resting" for t in found.targets})
            return found

        before = r.serving["auto"]
        monkeypatch.setattr(r.pool, "eligible", rests_once)
        with pytest.raises(NoEligibleTarget):
            await r.handle(Query.ask("x", id="q"))
        trace = await r.store.get("q")
        assert trace is not None
        assert trace.decision.eligible == ()
        assert set(trace.decision.excluded) == {"good", "bad", "broken"}
        assert (trace.decision.policy_digest, trace.decision.policy) == (before.digest, "random")
        assert replay_decision(trace, r.store).same


async def test_what_serves_never_changes_as_it_serves(tmp_path: Path) -> None:
    rule = {"name": "long", "when": {"length": {"gt": 1e9}}, "use": "bad"}
    inner = {"type": "lin_ucb", "prior": {"type": "mean"}, "features": {"signals": ["length"]}}
    async with router(
        tmp_path, {"type": "rules", "rules": [rule], "default": {"policy": "in"}, "policies": {"in": inner}}
    ) as r:
        policy = r.serving["auto"].policy
        names = [(path, list(vars(part))) for path, part in policy.walk()]
        await r.handle(Query.ask("x"))
        assert r.serving["auto"].policy is policy
        assert [(path, list(vars(part))) for path, part in policy.walk()] == names


async def test_a_driver_that_cannot_start_leaves_nothing_open(tmp_path: Path) -> None:
    key = {"type": "openai_chat", "model": "m", "base_url": "http://127.0.0.1:9", "api_key": "${NO_SUCH_KEY_HERE}"}
    with pytest.raises(ConfigError, match="NO_SUCH_KEY_HERE"):
        async with router(tmp_path, targets={"a": key}):
            pass
    async with router(tmp_path) as r:
        assert (await r.handle(Query.ask("x")))[0].text


async def test_the_configured_policy_is_never_taught(tmp_path: Path) -> None:
    r = router(tmp_path, {"type": "lin_ucb"})
    for _ in range(2):
        async with r:
            for _ in range(5):
                _, trace = await r.handle(Query.ask("x"))
                await r.feedback(Feedback(trace_id=trace.id, value=1.0))
            assert await asyncio.to_thread(r.learner.wait, 10)
            assert not r.policies["auto"].state()["arms_"]
            version = r.serving["auto"].version
    async with r:
        assert r.serving["auto"].version == version


async def test_a_version_from_before_a_change_of_config_serves_as_it_was(tmp_path: Path) -> None:
    old = {"type": "thompson", "sigma": 0.25, "features": {"signals": ["length"], "bias": True}}
    async with router(tmp_path, old) as r:
        for _ in range(30):
            outcome, trace = await r.handle(Query.ask("x"))
            await r.feedback(Feedback(trace_id=trace.id, value=float(outcome.text == "right")))
        assert await asyncio.to_thread(r.learner.wait, 10)
        learned = r.serving["auto"]
    new = {**old, "sigma": 2.0}
    async with router(tmp_path, new) as r:
        assert r.serving["auto"].policy.params()["sigma"] == 2.0
        r.store.activate("auto", learned.version)
    async with router(tmp_path, new) as r:
        assert r.serving["auto"].digest == learned.digest
        _, trace = await r.handle(Query.ask("x"))
        assert replay_decision(trace, r.store).same


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
        decision = dry(r, Query.ask("question"))
        assert decision.plan.targets() == ("good",)
        assert decision.propensity > 0.5
    async with router(tmp_path, policy) as r:
        assert r.serving["auto"].digest == before.digest
        assert r.arrivals == 60
        outcome, trace = await r.handle(Query.ask("question"))
        assert replay_decision(trace, r.store).same
    async with router(tmp_path, {**policy, "sigma": 0.3}) as r:
        decision = dry(r, Query.ask("question"))
        assert decision.propensity < 0.5, "a changed config begins anew"
    longer = {"length": {"type": "marks"}}
    async with router(tmp_path, {**policy, "sigma": 0.3}, signals=longer) as r:
        assert r.serving["auto"].version > before.version + 1, "a changed signal begins anew"


async def test_feedback_that_was_not_learned_before_a_crash_is_learned_at_the_next_start(tmp_path: Path) -> None:
    r = router(tmp_path, {"type": "lin_ucb"})
    r.learner.submit = lambda *_: None  # type: ignore[method-assign]  # the process ends before the learner gets to it
    async with r:
        for _ in range(5):
            _, trace = await r.handle(Query.ask("x"))
            assert (await r.feedback(Feedback(trace_id=trace.id, value=1.0))).status == "accepted"
        assert len(r.store.unlearned("auto")) == 5
    async with router(tmp_path, {"type": "lin_ucb"}) as r:
        assert await asyncio.to_thread(r.learner.wait, 10)
        assert r.learner.learned == 5
        assert not r.store.unlearned("auto")
    async with router(tmp_path, {"type": "lin_ucb"}) as r:
        assert await asyncio.to_thread(r.learner.wait, 10)
        assert r.learner.learned == 0


async def test_a_config_that_was_left_and_taken_up_again_begins_anew(tmp_path: Path) -> None:
    a = {"type": "lin_ucb", "features": {"signals": ["length"], "bias": True}}
    b = {"type": "thompson", "features": {"signals": ["length", "marks"], "bias": True}}
    kinds = []
    for policy in (a, b, a):
        async with router(tmp_path, policy) as r:
            for _ in range(5):
                _, trace = await r.handle(Query.ask("x"))
                await r.feedback(Feedback(trace_id=trace.id, value=1.0))
            kinds.append(trace.decision.policy)
    assert kinds == ["lin_ucb", "thompson", "lin_ucb"]


async def test_a_judgement_outside_its_range_is_refused(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        _, trace = await r.handle(Query.ask("x"))
        for value in (1000.0, -0.1, float("nan")):
            with pytest.raises(FairleadError, match="value"):
                await r.feedback(Feedback(trace_id=trace.id, value=value))


async def test_a_driver_that_cannot_stop_does_not_leave_the_store_open(tmp_path: Path) -> None:
    r = router(tmp_path)
    await r.start()

    async def broken() -> None:
        raise RuntimeError("no way")

    r.world.drivers["good"].stop = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no way"):
        await r.stop()
    async with router(tmp_path) as again:
        assert (await again.handle(Query.ask("x")))[0].text


async def test_a_policy_that_does_not_learn_makes_no_versions(tmp_path: Path) -> None:
    async with router(tmp_path, "random") as r:
        version = r.serving["auto"].version
        for _ in range(5):
            _, trace = await r.handle(Query.ask("x"))
            await r.feedback(Feedback(trace_id=trace.id, value=1.0))
        assert await asyncio.to_thread(r.learner.wait, 10)
        assert r.serving["auto"].version == version
        assert not r.store.unlearned("auto")


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
            chosen.append([dry(r, Query.ask("x", id=f"id-{i}")).chosen for i in range(50)])
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) > 1


# ------------------------------------------------------------------------------------------------------- whom to believe

BANDIT = {"type": "beta_thompson"}


async def poisoned(r: Router, *, queries: int, liars: int) -> None:
    """Each answer is judged by two of ten sources; the liars say the opposite. `broken` never answers, so two targets count."""
    for i in range(queries):
        outcome, trace = await r.handle(Query.ask(f"question {i}", constraints=Constraints(allow=("good", "bad"))))
        for s in (i % 10, (i * 7 + 3) % 10):
            right = outcome.text == "right"
            await r.feedback(Feedback(trace_id=trace.id, value=float(right != (s < liars)), source=f"s{s}"))
        if i % 20 == 19:
            await asyncio.to_thread(r.learner.wait, 5)


async def test_a_fifth_of_liars_is_found_and_not_learned_from(tmp_path: Path) -> None:
    learning = {"batch": 8, "seconds": 0.01, "trust": {}}
    async with router(tmp_path, BANDIT, learning=learning) as r:
        await poisoned(r, queries=120, liars=2)
        await asyncio.to_thread(r.learner.wait, 5)
        assert r.trust is not None
        r.trust.refresh()
        before = r.trust.standings()
        counts = {s.source: s.weight for s in before}
        assert [counts[f"s{i}"] for i in range(2)] == [0.0, 0.0]
        assert min(counts[f"s{i}"] for i in range(2, 10)) > 0.9
        lie = await r.handle(Query.ask("one more"))
        said = await r.feedback(Feedback(trace_id=lie[1].id, value=0.0, source="s0"))
        assert (said.status, said.lesson) == ("accepted", None)
        said = await r.feedback(Feedback(trace_id=lie[1].id, value=1.0, source="s5"))
        assert said.lesson is not None, "a liar who is first keeps nobody else from being heard"
        assert said.lesson.weight > 0.9
        policy = r.serving["auto"].policy
        assert policy.arms_["good"]["u"] / policy.arms_["good"]["n"] > 0.9  # type: ignore[attr-defined]
    async with router(tmp_path, BANDIT, learning=learning) as again:
        assert again.trust is not None
        kept = {s.source: s.weight for s in again.trust.standings()}
        assert kept == pytest.approx(counts, abs=0.05), "learned again from the store"


async def test_what_no_route_learns_from_says_nothing_of_its_sources(tmp_path: Path) -> None:
    async with router(tmp_path, BANDIT, learning={"trust": {}}) as r:
        assert r.trust is not None
        for route, known in (("good", []), ("auto", ["user"])):
            query = Query.ask("x", constraints=Constraints(allow=("good",)))
            _, trace = await r.handle(msgspec.structs.replace(query, route=route))
            await r.feedback(Feedback(trace_id=trace.id, value=1.0))
            r.trust.refresh()
            assert [s.source for s in r.trust.standings()] == known
    async with router(tmp_path, BANDIT, learning={"trust": {}}) as again:
        assert again.trust is not None
        assert [(s.source, s.votes) for s in again.trust.standings()] == [("user", 1)]


async def test_judgements_count_by_their_confidence(tmp_path: Path) -> None:
    async with router(tmp_path, {**BANDIT, "prior_weight": 1.0}) as r:
        # Not the broken one: of an answer by a fallback no arm learns.
        _, trace = await r.handle(Query.ask("x", constraints=Constraints(allow=("good",))))
        first = await r.feedback(rewards.judgement(trace.id, kind="reask", value=0.0))
        later = await r.feedback(rewards.judgement(trace.id, kind="test", value=1.0, source="tests"))
        assert first.lesson == rewards.Lesson(value=0.0, weight=0.2)
        assert later.lesson == rewards.Lesson(value=1.0, weight=0.8, further=True, whole=1.0)
        assert await asyncio.to_thread(r.learner.wait, 5)
        (arm,) = r.serving["auto"].policy.arms_.values()  # type: ignore[attr-defined]
        assert (arm["n"], arm["q"]) == pytest.approx((1.0, 0.8))
        assert r.store.unlearned("auto") == []
