"""A decision is made again from its record alone, and any difference is named."""

import contextlib

import msgspec
import pytest

from fairlead.component import pack, unpack
from fairlead.config import make
from fairlead.errors import FairleadError, NoEligibleTarget, StoreError
from fairlead.guards import Guard, Guards
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.fixed import Fixed
from fairlead.policies.random import Random
from fairlead.policies.rules import Rules
from fairlead.pool import Pool
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.sqlite import SQLiteStore
from fairlead.types import Call, Decision, Failure, Outcome, Query, Signals, Step, Target, Trace

POOL = Pool(targets=(Target(name="a"), Target(name="b"), Target(name="c")))


def a_trace(store: SQLiteStore, policy=None, *, id: str = "t0") -> Trace:
    """Decide with `policy`, and record that its first target was down and the fallback answered."""
    policy = policy or Random(weights={"a": 1.0, "b": 2.0})
    query = Query.ask("hello", id=id)
    decision = policy.decide(query, Signals(), POOL, seed=7)
    kept = store.save_policy("auto", policy.spec(), policy.state(), note="x")
    store.save_pool(POOL.digest, POOL.targets)
    decision = msgspec.structs.replace(decision, version=kept.version, policy_digest=kept.digest)
    down = Outcome(target="a", error=Failure(kind="unavailable", message="down"))
    answer = Outcome(target="c", text="hi", finish="stop", reply=b"the bytes")
    return Trace(
        id=id,
        at=100.0,
        query=query,
        signals=Signals(),
        decision=decision,
        plan=Fallback(plans=(decision.plan, Single(target="c"))),
        steps=(
            Step(path=(0, 0, 0, 0), call=Call(target=decision.plan.target), outcome=down),
            Step(path=(1, 0, 0, 0), call=Call(target="c"), outcome=answer),
        ),
        outcome=answer,
    )


@pytest.fixture
def store(tmp_path):
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    yield store
    store.stop()


@pytest.mark.parametrize("policy", [Random(), Random(weights={"a": 0.3, "b": 0.7}), Fixed(plan="b")])
async def test_a_stored_trace_replays_to_the_last_bit(store, policy):
    for i in range(10):
        await store.append(a_trace(store, policy, id=f"t{i}"))
    for trace in store.traces():
        replayed = replay_decision(trace, store)
        assert replayed.same, replayed.differences
        assert replayed.outcome.text == "hi"
        assert replayed.decision.propensity == trace.decision.propensity


async def test_a_forged_record_does_not_replay(store):
    trace = a_trace(store)
    change = msgspec.structs.replace
    d = trace.decision
    forged = {
        "chosen": change(trace, decision=change(d, chosen=1 - d.chosen)),
        "propensity": change(trace, decision=change(d, propensity=0.5)),
        "option 1": change(trace, decision=change(d, options=(change(d.options[0], probability=0.9), *d.options[1:]))),
        "option 3": change(trace, decision=change(d, options=d.options[:2])),
        "answer.text": change(trace, outcome=change(trace.outcome, text="another")),
        "answer.target": change(trace, steps=trace.steps[:1]),
        "steps": change(trace, plan=Single(target="a")),
    }
    for what, fake in forged.items():
        replayed = replay_decision(fake, store)
        assert any(x.startswith(what) for x in replayed.differences), (what, replayed.differences)
        assert not replayed.same


async def test_another_seed_or_eligibility_gives_another_decision(store):
    trace = a_trace(store)
    d = trace.decision
    without = msgspec.structs.replace(trace, decision=msgspec.structs.replace(d, eligible=("a", "c")))
    assert not replay_decision(without, store).same
    seeds = [msgspec.structs.replace(trace, decision=msgspec.structs.replace(d, seed=s)) for s in range(20)]
    assert {replay_decision(t, store).decision.chosen for t in seeds} == {0, 1}


async def test_what_the_store_lacks_is_said(store):
    trace = a_trace(store)
    lost = msgspec.structs.replace(trace, decision=msgspec.structs.replace(trace.decision, policy_digest="beef"))
    with pytest.raises(StoreError, match="no policy beef"):
        replay_decision(lost, store)
    unknown = store.save_policy("auto", {"type": "uninstalled"}, {}, note="y").digest
    lost = msgspec.structs.replace(trace, decision=msgspec.structs.replace(trace.decision, policy_digest=unknown))
    with pytest.raises(StoreError, match="cannot be built here"):
        replay_decision(lost, store)


async def test_without_text_the_decision_still_replays(tmp_path):
    store = SQLiteStore(tmp_path / "s.db", text=False)
    store.start()
    await store.append(a_trace(store))
    trace = store.read("t0")
    assert trace.query.text == " " * 5
    assert replay_decision(trace, store).same
    other = msgspec.structs.replace(trace, outcome=msgspec.structs.replace(trace.outcome, text="   "))
    replayed = replay_decision(other, store)
    assert replayed.same
    assert "text was not kept" in replayed.notes[0]
    store.stop()


def a_refusal(store: SQLiteStore, **changed) -> Trace:
    policy = Random()
    kept = store.save_policy("auto", policy.spec(), policy.state(), note="x")
    store.save_pool(POOL.digest, POOL.targets)
    decision = Decision(
        options=(),
        chosen=0,
        propensity=0.0,
        policy="random",
        policy_digest=kept.digest,
        pool_digest=POOL.digest,
        excluded={t.name: "not allowed" for t in POOL},
    )
    outcome = Outcome(error=Failure(kind="no_target", message="no target may answer"))
    trace = Trace(
        id="t0", at=1.0, query=Query.ask("hello", id="t0"), signals=Signals(), decision=decision, outcome=outcome
    )
    return msgspec.structs.replace(trace, **changed)


async def test_a_refusal_is_reproduced(store):
    await store.append(a_refusal(store))
    replayed = replay_decision(store.read("t0"), store)
    assert replayed.same, replayed.differences
    assert replayed.outcome.error.kind == "no_target"


async def test_a_forged_refusal_does_not_replay(store):
    change = msgspec.structs.replace
    refused = a_refusal(store)
    somebody = change(refused, decision=change(refused.decision, eligible=("a",)))
    assert replay_decision(somebody, store).differences[0].startswith("refusal: ")
    answered = change(refused, outcome=Outcome(text="hi", target="a"))
    assert "where nobody may answer" in replay_decision(answered, store).differences[0]
    decided = a_trace(store)
    nobody = change(decided, decision=change(decided.decision, eligible=()))
    assert [d.split(":")[0] for d in replay_decision(nobody, store).differences] == ["eligible"]
    rested = {t.name: "resting for 9.0 s after failures" for t in POOL}
    nobody = change(decided, decision=change(decided.decision, eligible=(), excluded=rested))
    assert "no target may answer" in replay_decision(nobody, store).differences[0]


async def test_who_takes_over_and_what_was_weighed_is_compared(store):
    trace = a_trace(store)
    for name, fake in (
        ("fallbacks", (Single(target="b"),)),
        ("forecast_of", "utility"),
        ("objective", {"usd_weight": 9.0}),
    ):
        forged = msgspec.structs.replace(trace, decision=msgspec.structs.replace(trace.decision, **{name: fake}))
        assert [d.split(":")[0] for d in replay_decision(forged, store).differences] == [name]


GUARDED = {
    "targets": {
        "near": {"type": "scripted", "replies": ["n"], "profile": {"tags": ["local"]}},
        "far": {"type": "scripted", "replies": ["f"]},
        "away": {"type": "scripted", "replies": ["a"]},
    },
    "routes": {
        "auto": {"policy": "random", "guards": [{"name": "own", "when": "long", "never": ["away"], "do": ["tag"]}]},
        "ruled": {
            "policy": {
                "type": "rules",
                "rules": [{"name": "long", "when": "long", "use": "far", "required": True, "do": ["prompt"]}],
                "default": "near",
            }
        },
    },
    "conditions": {"long": {"any": [{"length": {"gt": 50}}, {"not": {"language": {"in": ["latin", None]}}}]}},
    "guards": [{"name": "private", "when": "long", "only": ["tag:local", "away"], "do": ["tag", "mask"]}],
    "actions": {"prompt": {"system": "be brief"}},
}


@pytest.fixture
async def router(tmp_path):
    async with make({**GUARDED, "store": {"path": str(tmp_path / "guarded.db")}}).router() as router:
        yield router


async def ask(router: Router, text: str, route: str = "auto") -> Trace:
    with contextlib.suppress(NoEligibleTarget):
        await router.handle(msgspec.structs.replace(Query.ask(text), route=route))
    return next(router.store.traces(newest_first=True))


async def test_what_guards_did_is_done_again_from_the_record(router):
    router.pool.health.failed("away", Failure(kind="rate_limited", retry_after_seconds=60.0))
    long = "mail bo@example.org " * 5
    traces = [await ask(router, text, route) for text in ("hi", long) for route in ("auto", "ruled", "near", "far")]
    for trace in traces:
        assert trace.decision.guards_digest
        replayed = replay_decision(trace, router.store)
        assert replayed.same, replayed.differences
    assert [t.decision.guards for t in traces[4:]] == [("private", "own"), ("private",), ("private",), ("private",)]
    assert [t.decision.actions for t in traces[3:6]] == [(), ("tag", "mask"), ("tag", "mask")]
    # `near` is left, but the rule is required and `far` is gone: a refusal by guard and rule together.
    assert traces[5].decision.eligible == ("near",)
    assert set(traces[5].decision.excluded) == {"far", "away"}
    assert not traces[5].decision.options
    assert router.store.verify() == len(traces)


async def test_a_record_that_is_silent_of_its_guards_does_not_replay(router):
    change = msgspec.structs.replace
    digests = {"auto": router.house_guards.digest, "far": router.guards["auto"].digest}
    for trace in (await ask(router, "word " * 20), await ask(router, "word " * 20, "far")):
        d = trace.decision
        kept = {n: why for n, why in d.excluded.items() if n != "far"}
        for fake in (
            {"guards": ()},
            {"actions": ()},
            {"actions": (*d.actions, "prompt")},
            {"excluded": {}},
            {"excluded": kept, "eligible": ("near", "far", *d.eligible[1:])},
            {"guards": (), "actions": (), "excluded": {}},
            {"guards": (), "actions": (), "excluded": {}, "guards_digest": ""},
            {"guards_digest": digests[trace.query.route]},
        ):
            replayed = replay_decision(change(trace, decision=change(d, **fake)), router.store)
            assert not replayed.same, fake
            assert len(replayed.differences) >= len(fake.keys() - {"guards_digest"}), (fake, replayed.differences)


async def test_guards_that_the_store_lacks_are_said(router, store):
    trace = await ask(router, "hi")
    d = trace.decision
    lost = msgspec.structs.replace(trace, decision=msgspec.structs.replace(d, guards_digest="beef"))
    with pytest.raises(StoreError, match="no guards beef"):
        replay_decision(lost, router.store)
    router.store.save_guards("beef", {"guards": [{"name": "x"}], "orders": {}})
    with pytest.raises(StoreError, match="beef cannot be read"):
        replay_decision(lost, router.store)
    others = router.house_guards
    router.store.save_guards("cafe", others.data)
    renamed = msgspec.structs.replace(trace, decision=msgspec.structs.replace(d, guards_digest="cafe"))
    assert [x.split(":")[0] for x in replay_decision(renamed, router.store).differences] == ["guards"]


@pytest.mark.parametrize(
    "policy",
    [Random(), Rules(rules=[{"when": {"length": {"gt": 1}}, "use": "near", "do": ["mask"]}], default="near")],
)
async def test_a_router_does_not_start_without_what_is_ordered(tmp_path, policy):
    config = make({**GUARDED, "store": {"path": str(tmp_path / "s.db")}})
    made = config.router()
    guards = config.guards if policy.type_name() == "random" else ()
    lacking = Router(
        pool=made.pool,
        world=made.world,
        observer=made.observer,
        policies={"auto": policy},
        store=made.store,
        guards=guards,
        actions={"tag": config.actions["tag"]},
    )
    with pytest.raises(FairleadError, match="orders mask"):
        await lacking.start()


def test_guards_are_kept_whole():
    config = make(GUARDED)
    orders = {name: action.order for name, action in config.actions.items()}
    guards = Guards((*config.guards, *config.route_guards["auto"]), orders=orders)
    again = Guards.of(unpack(pack(guards.data)))
    assert (again.guards, again.orders, again.digest) == (guards.guards, guards.orders, guards.digest)
    closed = Guards([Guard(name="closed", only=())])
    assert Guards.of(closed.data).guards == closed.guards
    assert (Guards().digest, Guards(orders={"tag": 5}).digest == "") == ("", False)


async def test_nothing_is_kept_of_guards_where_there_are_none(tmp_path):
    plain = {"targets": GUARDED["targets"], "routes": {"auto": {"policy": "random"}}}
    async with make({**plain, "store": {"path": str(tmp_path / "plain.db")}}).router() as router:
        trace = await ask(router, "hi")
        assert trace.decision.guards_digest == ""
        assert replay_decision(trace, router.store).same
