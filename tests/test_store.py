"""The store: nothing acknowledged is lost, nothing is changed unseen, and feedback is counted once. The same for both databases."""
# ruff: noqa: F811 - fixtures come from a module of support

import asyncio
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from stores import a_trace, gate, kept, store  # noqa: F401 - fixtures

from fairlead.component import digest, pack
from fairlead.errors import ChainBroken, StoreError
from fairlead.guards import Guards
from fairlead.pool import Pool
from fairlead.rewards import Lesson
from fairlead.sqlstore import PRUNE_EVERY, SQLStore
from fairlead.store import BEGIN, KEEP
from fairlead.types import Feedback, Outcome, Profile, Target, Trace


async def fill(store: SQLStore, n: int, start: int = 0) -> None:
    await asyncio.gather(*(store.append(a_trace(f"t{i}")) for i in range(start, start + n)))


# -------------------------------------------------------------------------------------------------------- traces


async def test_what_is_appended_is_read_back_in_order(store):
    await fill(store, 600)  # more than two pages
    assert store.count() == store.verify() == 600
    assert [t.id for t in store.traces()] == [f"t{i}" for i in range(600)]
    assert [t.id for t in store.traces(newest_first=True, limit=3)] == ["t599", "t598", "t597"]
    assert (
        await store.get("t5")
        == store.read("t5")
        == msgspec.structs.replace(a_trace("t5"), query=store.read("t5").query)
    )
    assert (await store.get("t5")).query.text == "hello"
    assert (await store.get("t5")).query.body == {}
    assert await store.get("nobody") is None


async def test_get_finds_a_trace_that_still_waits_and_one_that_left_memory(kept):
    store = kept.store(recent_bytes=1)
    let_go = gate(store)
    future = store.append(a_trace("t0"))
    assert (await store.get("t0")).id == "t0"
    assert store.read("t0") is None
    assert store.count() == 1
    let_go.set()
    await future
    await fill(store, 20, start=1)
    assert len(store._recent) == 1
    assert not store._pending
    assert (await store.get("t0")).outcome.text == "hi"
    store.stop()


async def test_load_is_committed_in_groups_and_idle_at_once(store):
    before = store.commits
    await store.append(a_trace("alone"))
    assert store.commits == before + 1
    let_go = gate(store)
    futures = [store.append(a_trace(f"t{i}")) for i in range(300)]
    let_go.set()
    await asyncio.gather(*futures)
    assert store.commits <= before + 4  # the gate, and what came behind it together
    assert store.verify() == 301


async def test_one_wake_up_for_a_whole_batch(store, monkeypatch):
    loop = asyncio.get_running_loop()
    woken = []
    real = loop.call_soon_threadsafe
    let_go = gate(store)
    futures = [store.append(a_trace(f"t{i}")) for i in range(50)]
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda f, *a, **k: (woken.append(f), real(f, *a, **k))[1])
    let_go.set()
    await asyncio.gather(*futures)
    assert len(woken) == 1


async def test_relaxed_mode_returns_none_and_writes_all(kept):
    store = kept.store(relaxed=True)
    assert all(store.append(a_trace(f"t{i}")) is None for i in range(50))
    store.flush()
    assert store.verify() == 50
    store.append(a_trace("last"))
    store.stop()
    assert store.count() == 51  # stopping writes what waits


async def test_a_known_id_is_refused_and_the_rest_of_its_batch_is_written(store, caplog):
    let_go = gate(store)
    futures = [store.append(a_trace(id)) for id in ("a", "b", "a", "c")]
    let_go.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(r) for r in results] == [type(None), type(None), StoreError, type(None)]
    assert [t.id for t in store.traces()] == ["a", "b", "c"]
    assert store.failures == 1
    assert "trace a was not written" in caplog.text
    assert store.verify() == 3


async def test_what_cannot_be_encoded_harms_nobody_else(store):
    bad = msgspec.structs.replace(a_trace("bad"), outcome=Outcome(text="x", seconds=float("nan")))
    results = await asyncio.gather(store.append(bad), store.append(a_trace("good")), return_exceptions=True)
    assert isinstance(results[0], StoreError)
    assert "seconds" in str(results[0])
    assert store.verify() == 1


async def test_a_disk_that_does_not_keep_up_refuses_instead_of_growing(kept):
    store = kept.store(most_waiting=5)
    let_go = gate(store)
    futures = [store.append(a_trace(f"t{i}")) for i in range(8)]
    assert len(store._pending) == 5
    let_go.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(r, StoreError) for r in results] == [False] * 5 + [True] * 3
    assert store.failures == 3
    store.stop()


async def test_after_stop_nothing_is_taken(store):
    store.stop()
    with pytest.raises(StoreError, match="stopped"):
        await store.append(a_trace("late"))
    with pytest.raises(StoreError, match="stopped"):
        store.flush()


async def test_a_cancelled_wait_does_not_stop_the_writing(store):
    let_go = gate(store)
    future = store.append(a_trace("t0"))
    future.cancel()
    let_go.set()
    await store.append(a_trace("t1"))
    assert [t.id for t in store.traces()] == ["t0", "t1"]


# -------------------------------------------------------------------------------------------------------- the chain


SWAPPED = {
    "sqlite": "UPDATE {} SET body = CAST(replace(CAST(body AS TEXT), '{}', '{}') AS BLOB) WHERE seq = {}",
    "postgres": "UPDATE {} SET body = convert_to(replace(convert_from(body, 'UTF8'), '{}', '{}'), 'UTF8') WHERE seq = {}",
}


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (("traces", "hi", "ho", 4), r"trace 4 \(t3\)"),
        ("DELETE FROM traces WHERE seq = 4", "trace 4 missing"),
        ("DELETE FROM traces WHERE seq BETWEEN 3 AND 5", "trace 3 to 5 missing"),
        ("DELETE FROM traces WHERE seq > 7", "the last 3 of 10 trace rows are missing"),
        ("DELETE FROM traces WHERE seq = 1", "trace 1 missing"),
        ("UPDATE traces SET id = 'other' WHERE seq = 4", "columns"),
        ("UPDATE traces SET at = 0 WHERE seq = 10", "columns"),
        (("feedback", "0.25", "0.95", 1), r"feedback 1 \(t1\)"),
        ("DELETE FROM feedback", "the last 1 of 1 feedback rows"),
        ("UPDATE artifacts SET body = x'93' WHERE kind = 'policy'", "the policy .* was changed"),
        ("UPDATE artifacts SET body = x'93', deflated = 1 WHERE kind = 'policy'", "the policy .* was changed"),
        (
            "DELETE FROM artifacts WHERE kind = 'policy'",
            "policy .* version 1 of auto, the active one, names is missing",
        ),
        ("DELETE FROM heads WHERE chain = 'traces'", "heads"),
    ],
)
async def test_tampering_is_found_and_named(kept, store, tamper, message):
    await fill(store, 10)
    await store.add_feedback(Feedback(trace_id="t1", value=0.25))
    store.save_policy("auto", {"type": "fixed"}, {}, note="x")
    store.stop()
    assert store.verify() == 10
    kept.raw(SWAPPED[kept.kind].format(*tamper) if isinstance(tamper, tuple) else tamper)
    with pytest.raises(ChainBroken, match=message):
        store.verify()


async def test_a_cut_tail_stays_visible_after_writing_goes_on(kept, store, caplog):
    await fill(store, 10)
    store.stop()
    kept.raw("DELETE FROM traces WHERE seq > 8")
    store.start()
    assert "somebody changed it" in caplog.text
    await store.append(a_trace("after"))
    with pytest.raises(ChainBroken, match="trace 9 to 10 missing"):
        store.verify()


async def test_an_old_head_is_found_again_and_a_foreign_one_is_not(store):
    await fill(store, 3)
    head = store.head()
    await fill(store, 3, start=3)
    assert store.holds(head)
    assert not store.holds("ab" * 32)
    with pytest.raises(StoreError, match="hexadecimal"):
        store.holds("xyz")


async def test_verify_sees_one_moment_while_others_write(store):
    async def write():
        for i in range(20):
            await fill(store, 20, start=20 * i)

    writing = asyncio.create_task(write())
    counts = [await asyncio.to_thread(store.verify) for _ in range(5)]
    await writing
    assert counts == sorted(counts)
    assert store.verify() == 400


# -------------------------------------------------------------------------------------------------------- feedback


async def test_feedback_is_accepted_once_and_revised(store):
    let_go = gate(store)
    written = store.append(a_trace("t0", at=100.0))
    first = asyncio.ensure_future(store.add_feedback(Feedback(trace_id="t0", value=0.2, at=107.5)))
    await asyncio.sleep(0)
    let_go.set()  # the trace itself was still waiting when its feedback came
    receipt = await first
    await written
    assert (receipt.status, receipt.late_seconds) == ("accepted", 7.0)
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.2, at=109.0))).status == "duplicate"
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.9, at=110.0))).status == "revised"
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.9, at=111.0))).status == "duplicate"
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.2, at=112.0))).status == "revised"
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.9, source="judge", at=113.0))).status == "kept"
    label = Feedback(trace_id="t0", value=1.0, kind="label", label="good")
    assert (await store.add_feedback(label)).status == "revised", "a source has one judgement of an answer, of any kind"
    assert [(f.source, f.kind, f.value) for f in store.feedback("t0")] == [
        ("judge", "value", 0.9),
        ("user", "label", 1.0),
    ]
    assert [f.value for f in store.judgements()] == [0.2, 0.9, 0.2, 0.9, 1.0]
    assert store.feedback("t0")[1].at > 1e9  # stamped on arrival
    store.verify()


async def test_feedback_on_nothing_is_unknown_and_not_kept(store):
    receipt = await store.add_feedback(Feedback(trace_id="nobody", value=1.0))
    assert receipt.status == "unknown"
    assert list(store.judgements()) == []


async def test_feedback_days_later_after_a_restart(store):
    await store.append(a_trace("t0", at=100.0))
    store.stop()
    store.start()
    receipt = await store.add_feedback(Feedback(trace_id="t0", value=1.0, at=100.5 + 3 * 86400))
    assert (receipt.status, receipt.late_seconds) == ("accepted", 3 * 86400.0)
    early = await store.add_feedback(Feedback(trace_id="t0", value=1.0, source="fast", at=99.0))
    assert early.late_seconds == 0.0


# -------------------------------------------------------------------------------------------------------- lessons

JUDGES = [("user", 0.1), ("judge", 0.9), ("tests", 0.3), ("judge", 0.8)]


async def test_an_accepted_judgement_is_a_lesson_until_a_version_has_learned_it(store):
    await fill(store, 4)
    for i in (2, 0, 1):
        await store.add_feedback(Feedback(trace_id=f"t{i}", value=0.5, at=200.0))
    await store.add_feedback(Feedback(trace_id="t0", value=0.5, at=201.0))  # a duplicate
    await store.add_feedback(Feedback(trace_id="t1", value=0.9, at=202.0))  # a revision
    assert [(t.id, f.value) for t, f in store.unlearned("auto")] == [("t2", 0.5), ("t0", 0.5), ("t1", 0.5)]
    assert store.unlearned("another") == []
    store.save_policy("auto", {"type": "fixed"}, {}, note="learned", learned=["t2", "t1"])
    assert [t.id for t, _ in store.unlearned("auto")] == ["t0"]
    store.save_policy("auto", {"type": "fixed"}, {}, note="learned", learned=["t0"])  # the same version taken again
    assert store.unlearned("auto") == []
    await store.add_feedback(Feedback(trace_id="t3", value=0.5))
    store.forget_lessons([])
    assert len(store.unlearned("auto")) == 1
    store.forget_lessons(["t3", "t3", "nobody"])
    assert store.unlearned("auto") == []


async def test_the_first_judgement_of_an_answer_is_its_only_lesson(store):
    await fill(store, 1)
    said = [(await store.add_feedback(Feedback(trace_id="t0", value=v, source=s))).status for s, v in JUDGES]
    assert said == ["accepted", "kept", "kept", "revised"]
    assert [(f.value, f.weight, f.further) for _, f in store.unlearned("auto")] == [(0.1, 1.0, False)]
    store.save_policy("auto", {"type": "fixed"}, {}, note="learned", learned=["t0"])
    assert store.unlearned("auto") == []
    assert (await store.add_feedback(Feedback(trace_id="t0", value=1.0, source="late"))).status == "kept"
    assert store.unlearned("auto") == []
    assert [(f.source, f.value) for f in store.feedback("t0")] == [
        ("user", 0.1),
        ("tests", 0.3),
        ("judge", 0.8),
        ("late", 1.0),
    ]


async def test_a_weightier_judgement_teaches_what_it_adds(store):
    """A re-ask first, a rating days later: the answer counts as one, and in all as the rating says."""
    await fill(store, 1)
    reask = Feedback(trace_id="t0", value=0.0, kind="reask", source="app", confidence=0.2)
    assert (await store.add_feedback(reask)).lesson == Lesson(value=0.0, weight=0.2)
    store.save_policy("auto", {"type": "fixed"}, {}, note="learned", learned=["t0"])
    store.stop()
    store.start()
    weaker = Feedback(trace_id="t0", value=0.0, kind="abandon", source="web", confidence=0.1)
    assert (await store.add_feedback(weaker)).lesson is None
    rated = await store.add_feedback(Feedback(trace_id="t0", value=0.6, kind="rating", confidence=0.8))
    assert (rated.status, rated.lesson) == (
        "kept",
        Lesson(value=pytest.approx(0.8), weight=pytest.approx(0.6), further=True, whole=0.6),
    )
    assert store.unlearned("auto")[0][1] == rated.lesson
    assert 0.2 * 0.0 + rated.lesson.weight * rated.lesson.value == pytest.approx(0.8 * 0.6)
    sure = await store.add_feedback(Feedback(trace_id="t0", value=1.0, kind="test", source="tests"))
    assert sure.lesson.weight == pytest.approx(0.2)
    assert sure.lesson.value == 1.0  # more than that one judgement cannot say
    assert sure.lesson.whole is None, "the rating is the answer's one piece of evidence"
    assert [lesson.whole for _, lesson in store.unlearned("auto")] == [0.6, None]
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.0, source="late"))).lesson is None
    assert store._rows("SELECT * FROM taught") == [], "nothing is kept of an answer that is wholly taught"
    assert store.verify() == 1


async def test_the_same_source_may_become_surer(store):
    await fill(store, 1)
    await store.add_feedback(Feedback(trace_id="t0", value=0.0, kind="abandon", confidence=0.1))
    receipt = await store.add_feedback(Feedback(trace_id="t0", value=1.0, kind="label", label="up"))
    assert (receipt.status, receipt.lesson.weight, receipt.lesson.further) == ("revised", 0.9, True)
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.0))).lesson is None


async def test_a_judgement_that_counts_nothing_blocks_nobody(store):
    await fill(store, 1)
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.0, source="liar"), weight=0.0)).lesson is None
    receipt = await store.add_feedback(Feedback(trace_id="t0", value=1.0), weight=0.9)
    assert receipt.lesson == Lesson(value=1.0, weight=0.9), "nothing was learned of it before, so it is no further one"


async def test_two_lessons_of_one_answer_are_taken_off_one_by_one(store):
    await fill(store, 1)
    await store.add_feedback(Feedback(trace_id="t0", value=0.0, source="a", confidence=0.25))
    await store.add_feedback(Feedback(trace_id="t0", value=1.0, source="b", confidence=0.5))
    assert [lesson.weight for _, lesson in store.unlearned("auto")] == [0.25, 0.25]
    store.save_policy("auto", {"type": "fixed"}, {}, note="learned", learned=["t0"])
    assert [lesson.further for _, lesson in store.unlearned("auto")] == [True]
    store.save_policy("auto", {"type": "fixed"}, {}, note="learned again", learned=["t0"])
    assert store.unlearned("auto") == []


async def test_a_source_is_one_of_its_key(store):
    """Nobody revises what another key's source of the same name has said."""
    await fill(store, 1)
    said = [Feedback(trace_id="t0", value=v, by=by) for v, by in ((1.0, "shop"), (0.0, "rival"), (0.5, "shop"))]
    assert [(await store.add_feedback(f)).status for f in said] == ["accepted", "kept", "revised"]
    assert [(f.voter, f.value) for f in store.feedback("t0")] == [("rival/user", 0.0), ("shop/user", 0.5)]
    assert [(f.voter, f.value, target) for f, target in store.judged(newest=9)] == [
        ("rival/user", 0.0, "a"),
        ("shop/user", 0.5, "a"),
    ]
    assert [f.value for f, _ in store.judged(newest=9, revised=True)] == [1.0, 0.0, 0.5]
    assert store.judged(newest=9, routes=["another"]) == []
    assert [f.voter for f, _ in store.judged(newest=1)] == ["rival/user", "shop/user"], "each key's newest"
    assert [f.voter for f, _ in store.judged(newest=1, revised=True)] == ["rival/user"], "no revision without its first"
    assert store.verify() == 1


async def test_only_routes_that_learn_leave_lessons(store):
    await fill(store, 2)
    await store.add_feedback(Feedback(trace_id="t0", value=0.1), learning={"chat"})
    await store.add_feedback(Feedback(trace_id="t1", value=0.1), learning={"auto": 1})
    assert [t.id for t, _ in store.unlearned("auto")] == ["t1"]


async def test_many_lessons_are_handed_out_in_parts(store, caplog):
    await fill(store, 3)
    for i in range(3):
        await store.add_feedback(Feedback(trace_id=f"t{i}", value=0.1))
    assert [t.id for t, _ in store.unlearned("auto", limit=2)] == ["t0", "t1"]
    assert "more than 2 lessons wait" in caplog.text


async def test_a_lesson_that_cannot_be_read_does_not_hold_up_the_others(kept, store, caplog):
    await fill(store, 2)
    for i in range(2):
        await store.add_feedback(Feedback(trace_id=f"t{i}", value=0.1))
    kept.raw("UPDATE traces SET body = x'7b7d' WHERE id = 't0'")
    assert [t.id for t, _ in store.unlearned("auto")] == ["t1"]
    assert "the lesson of trace t0 waits on" in caplog.text


DYING = """
import asyncio, os, sys
sys.path[:0] = {path!r}
from fairlead.types import Feedback

async def main():
    store = {code}
    store.start()
    for i in range(5):
        assert (await store.add_feedback(Feedback(trace_id=f"t{{i}}", value=0.5))).status == "accepted"
    os._exit(1)

asyncio.run(main())
"""


async def test_what_was_accepted_before_a_crash_is_learned_after_it(kept, store):
    await fill(store, 5)
    store.stop()
    code = DYING.format(path=sys.path, code=kept.code)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    store.start()
    assert [t.id for t, _ in store.unlearned("auto")] == [f"t{i}" for i in range(5)]
    assert (await store.add_feedback(Feedback(trace_id="t0", value=0.5))).status == "duplicate"


# -------------------------------------------------------------------------------------------------------- privacy


# -------------------------------------------------------------------------------------------------------- state


def test_policies_get_versions_and_roll_back(store):
    spec = {"type": "lin_ucb", "alpha": 0.5}
    one = store.save_policy("auto", spec, {"a_": np.eye(2)}, note="as configured")
    two = store.save_policy("auto", spec, {"a_": np.eye(2) * 2}, note="learned")
    other = store.save_policy("chat", spec, {"a_": np.eye(2)}, note="as configured")
    assert (one.version, two.version, other.version) == (1, 2, 1)
    assert one.digest == other.digest == digest(pack([spec, {"a_": np.eye(2)}]))
    assert [s.active for s in store.versions("auto")] == [False, True]
    back = store.activate("auto", 1)
    assert (back.version, back.active) == (1, True)
    assert [s.active for s in store.versions("auto")] == [True, False]
    assert [s.active for s in store.versions("chat")] == [True]
    three = store.save_policy("auto", spec, {"a_": np.zeros(1)}, note="trial", activate=False)
    assert (three.version, three.active) == (3, False)
    read_spec, state = store.load_policy(two.digest)
    assert read_spec == spec
    np.testing.assert_array_equal(state["a_"], np.eye(2) * 2)
    assert store.routes() == ["auto", "chat"]
    with pytest.raises(StoreError, match="has no version 9; it has 1 to 3"):
        store.activate("auto", 9)
    with pytest.raises(StoreError, match="routes with versions: auto, chat"):
        store.activate("nobody", 1)
    with pytest.raises(StoreError, match="holds no policy"):
        store.load_policy("feedfacefeedface")


def test_the_same_policy_kept_again_makes_no_version(store):
    for _ in range(3):
        assert store.save_policy("auto", {"type": "fixed"}, {}, note="as configured").version == 1
    assert store.save_policy("auto", {"type": "fixed"}, {}, note="learned").version == 2


def decided_by(id: str, digest: str) -> Trace:
    trace = a_trace(id)
    return msgspec.structs.replace(trace, decision=msgspec.structs.replace(trace.decision, policy_digest=digest))


async def test_a_policy_or_pool_that_a_trace_names_is_missed(kept, store):
    saved = store.save_policy("auto", {"type": "fixed"}, {}, note="x")
    pool = Pool(targets=(Target(name="a"),))
    store.save_pool(pool.digest, pool.targets)
    trace = decided_by("t0", saved.digest)
    guards = Guards(orders={"mask": 20})
    store.save_guards(guards.digest, guards.data)
    assert store.load_guards(guards.digest) == guards.data
    decision = msgspec.structs.replace(trace.decision, pool_digest=pool.digest, guards_digest=guards.digest)
    await store.append(msgspec.structs.replace(trace, decision=decision))
    store.stop()
    assert store.verify() == 1
    kept.raw("DELETE FROM versions", "DELETE FROM artifacts WHERE kind = 'policy'")
    with pytest.raises(ChainBroken, match=rf"the policy {saved.digest} that trace 1 \(t0\) names is missing"):
        store.verify()
    kept.raw("DELETE FROM artifacts")
    store.start()
    store.save_policy("auto", {"type": "fixed"}, {}, note="x")
    with pytest.raises(ChainBroken, match=rf"the pool {pool.digest} that trace 1 \(t0\) names is missing"):
        store.verify()
    store.save_pool(pool.digest, pool.targets)
    with pytest.raises(ChainBroken, match=rf"the guards {guards.digest} that trace 1 \(t0\) names is missing"):
        store.verify()
    store.save_guards(guards.digest, {"guards": [], "orders": {}})
    with pytest.raises(ChainBroken, match=rf"the guards {guards.digest} was changed"):
        store.verify()
    kept.raw("DELETE FROM artifacts WHERE kind = 'guards'")
    store.save_guards(guards.digest, guards.data)
    assert store.verify() == 1


def learn(store: SQLStore, n: int, route: str = "auto", start: int = 0) -> list[str]:
    """Keep `n` versions; return their digests."""
    kept = [store.save_policy(route, {"type": "x"}, {"n_": i}, note="learned") for i in range(start, start + n)]
    return [s.digest for s in kept]


async def test_pruning_keeps_what_somebody_may_still_need(store):
    begin = store.save_policy("auto", {"type": "x"}, {"n_": -1}, note=f"{BEGIN}, signals y").digest
    digests = learn(store, 10)
    shared = learn(store, 1, "chat", start=5)[0]
    await store.append(decided_by("t0", digests[1]))
    store.activate("auto", 5)
    store.activate("auto", 9)  # the one left is kept as well
    assert store.prune("auto", keep=2) == 0, "all are younger than the requests that may still run"
    assert store.prune("auto", keep=2, grace_seconds=0) == 4
    stay = {begin, digests[1], shared, digests[3], digests[7], *digests[-2:]}
    assert {s.digest for s in store.versions("auto") if not s.pruned} == stay
    for name in [begin, *digests]:
        if name in stay:
            assert store.load_policy(name)[0] == {"type": "x"}
        else:
            with pytest.raises(StoreError, match=r"version \d+ of auto\) was pruned"):
                store.load_policy(name)
    assert [s.version for s in store.versions("auto")] == list(range(1, 12))
    with pytest.raises(StoreError, match="version 2 of route 'auto' was pruned"):
        store.activate("auto", 2)
    assert store.prune("auto", keep=2, grace_seconds=0) == 0
    assert store.verify() == 1
    again = learn(store, 1)[0]  # what was pruned may come again
    assert again == digests[0]
    assert store.load_policy(again)[1] == {"n_": 0}
    assert not next(s for s in store.versions("auto") if s.version == 2).pruned


async def test_a_trace_protects_its_policy_after_a_restart_and_after_a_failed_write(store):
    digests = learn(store, 4)
    await store.append(decided_by("t0", digests[0]))
    let_go = gate(store)
    futures = [store.append(decided_by("t0", digests[1])), store.append(decided_by("t1", digests[1]))]
    let_go.set()
    await asyncio.gather(*futures, return_exceptions=True)
    store.stop()
    store.start()
    await store.append(decided_by("t2", digests[0]))
    assert store.prune("auto", keep=1, grace_seconds=0) == 1
    assert [s.pruned for s in store.versions("auto")] == [False, False, True, False]
    assert store.verify() == 3


def test_saving_prunes_now_and_then(store, monkeypatch):
    monkeypatch.setattr("fairlead.sqlstore.GRACE_SECONDS", 0.0)
    learn(store, 100)
    (kept,) = store._rows("SELECT count(*) FROM artifacts")[0]
    assert kept <= KEEP + PRUNE_EVERY
    assert len(store.versions("auto")) == 100
    assert not any(s.pruned for s in store.versions("auto")[-KEEP:])


def test_saving_reads_no_earlier_versions(store, monkeypatch):
    monkeypatch.setattr(store, "versions", lambda route: pytest.fail("all versions were read"))
    kept = store.save_policy("auto", {"type": "x"}, {}, note="n")
    assert (kept.version, kept.active, kept.pruned, kept.note) == (1, True, False, "n")
    assert store.save_policy("auto", {"type": "x"}, {}, note="n", activate=False) == kept


def test_what_shrinks_is_deflated_and_what_does_not_is_not(store):
    plain = {"a_": np.zeros(2000)}
    noise = {"a_": np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8)}
    for state in (plain, noise):
        kept = store.save_policy("auto", {"type": "x"}, state, note="n")
        assert kept.digest == digest(pack([{"type": "x"}, state]))
        np.testing.assert_array_equal(store.load_policy(kept.digest)[1]["a_"], state["a_"])
    sizes = dict(store._rows("SELECT deflated, length(body) FROM artifacts"))
    assert sizes[1] < 1000
    assert sizes[0] > 10_000
    assert store.verify() == 0


def versions_of(store: SQLStore, n: int, *, seed: int = 0) -> list[str]:
    """Keep `n` versions that hold the same large array and differ in a small one; return their digests."""
    large = np.random.default_rng(seed).normal(size=(100, 100))
    return [store.save_policy("auto", {"type": "x"}, {"x_": large, "n_": i}, note="learned").digest for i in range(n)]


def arrays(store: SQLStore) -> list[str]:
    return [name for (name,) in store._rows("SELECT digest FROM artifacts WHERE kind = 'array'")]


def test_a_large_array_is_kept_once_and_a_version_takes_what_it_changed(store):
    digests = versions_of(store, 5)
    large = np.random.default_rng(0).normal(size=(100, 100))
    (size,) = store._rows("SELECT sum(length(body)) FROM artifacts")[0]
    assert size < 1.1 * large.nbytes
    for i, name in enumerate(digests):
        whole = {"x_": large, "n_": i}
        assert name == digest(pack([{"type": "x"}, whole]))
        assert pack(store.load_policy(name)) == pack([{"type": "x"}, whole])
    assert store.verify() == 0
    store.stop()
    store.start()
    assert versions_of(store, 5) == digests
    assert len(arrays(store)) == 1


def test_an_array_goes_with_the_last_policy_that_holds_it(store):
    first, second = versions_of(store, 2), versions_of(store, 2, seed=1)
    learn(store, 3)
    assert len(arrays(store)) == 2
    store.activate("auto", 2)
    store.activate("auto", 7)
    assert store.prune("auto", keep=1, grace_seconds=0) == 5
    assert next(s.digest for s in store.versions("auto") if not s.pruned) == first[1]
    assert len(arrays(store)) == 1
    assert store._rows("SELECT policy FROM parts") == [(first[1],)]
    assert store.load_policy(first[1])[1]["n_"] == 1
    assert store.verify() == 0
    assert versions_of(store, 2, seed=1) == second
    assert store.verify() == 0


def test_an_array_that_is_pruned_while_a_policy_waits_to_be_written_is_written_again(kept, store, monkeypatch):
    (name,) = versions_of(store, 1)
    monkeypatch.setattr(store, "_kept_arrays", lambda names: set(names))
    kept.raw("DELETE FROM artifacts", "DELETE FROM parts")
    assert versions_of(store, 1) == [name]
    assert store.verify() == 0


def test_an_array_that_was_changed_or_removed_is_found(kept, store):
    (name,) = versions_of(store, 1)
    store.stop()
    kept.raw("UPDATE artifacts SET body = x'93', deflated = 0 WHERE kind = 'array'")
    with pytest.raises(ChainBroken, match=r"the array \w{32} was changed"):
        store.verify()
    kept.raw("DELETE FROM artifacts WHERE kind = 'array'")
    with pytest.raises(ChainBroken, match=r"the array \w{32} that a policy is made of is missing"):
        store.verify()
    with pytest.raises(StoreError, match="holds no array"):
        store.load_policy(name)


def test_pools_keep_their_order_and_digest(store):
    targets = (
        Target(name="b", profile=Profile(modalities=frozenset({"text", "image", "audio"}), skills={"math": 0.5})),
        Target(name="a"),
    )
    pool = Pool(targets=targets)
    store.save_pool(pool.digest, pool.targets)
    store.save_pool(pool.digest, pool.targets)
    assert store.load_pool(pool.digest) == targets
    assert store.verify() == 0
    store.save_pool("0123456789abcdef", targets)
    with pytest.raises(ChainBroken, match="the pool 0123456789abcdef"):
        store.verify()
