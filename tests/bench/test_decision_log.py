"""Logs as they are read off a store or a table: who is asked what, what counts as the outcome, and what is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.bench.decision_log import NOBODY, Asked, Shadowed, forecasts, from_store, from_table
from fairlead.bench.off_policy import Log, Rules, evaluate
from fairlead.errors import NoEligibleTarget, TableError, UnknownName
from fairlead.plans.accept import Confidence
from fairlead.plans.cascade import Cascade
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, preferred
from fairlead.policies.fixed import Fixed
from fairlead.policies.random import Random
from fairlead.pool import Eligibility, Pool
from fairlead.sqlite import SQLiteStore
from fairlead.table import OutcomeTable
from fairlead.types import (
    Call,
    Failure,
    Feedback,
    Identity,
    Option,
    Outcome,
    Query,
    Reading,
    Signals,
    Step,
    Target,
    Trace,
)

POOL = Pool(targets=[Target(name=n) for n in ("ant", "bee", "cat")])
CHANCE = {"ant": 0.3, "bee": 0.6, "cat": 0.8}


class ByLength(Policy):
    """Bee for short prompts, cat for long ones; notes what it was asked."""

    def __init__(self) -> None:
        self._asked: list[tuple[Query, tuple[str, ...]]] = []

    @property
    def needs(self) -> tuple[str, ...]:
        return ("length",)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        self._asked.append((query, tuple(t.name for t in targets)))
        best = "bee" if float(signals.get("length") or 0) < 50 else "cat"
        return Proposal(preferred([(t, float(t.name == best), None) for t in targets]))


class Nobody(Policy):
    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        raise NoEligibleTarget({"ant": "over budget"})


def trace_of(i: int, *, policy: Policy | None = None, **changes: Any) -> Trace:
    """A decision by `policy` (any target), answered by what was chosen; `changes` replace fields."""
    query = Query(
        id=f"q{i}",
        messages=(),
        arrival=i,
        route=changes.pop("route", "auto"),
        identity=Identity(session=changes.pop("session", None)),
    )
    signals = Signals(readings={"length": Reading(value=i % 100)})
    eligible = Eligibility(
        targets=tuple(POOL[n] for n in changes.pop("eligible", ("ant", "bee", "cat"))),
        excluded=changes.pop("excluded", {}),
    )
    decision = (policy or Random()).decide(query, signals, POOL, eligible=eligible)
    decision = msgspec.structs.replace(decision, shadow=changes.pop("shadow", ()))
    answer = Outcome(text="x", target=decision.plan.targets()[0], finish="stop", usd=0.1)
    step = Step(path=(0, 0, 0, 0), call=Call(target=answer.target), outcome=answer)
    fields = {
        "id": query.id,
        "at": float(i),
        "query": query,
        "signals": signals,
        "decision": decision,
        "steps": (step,),
        "outcome": answer,
        "usd": 0.1,
        "seconds": 1.0 + i,
    }
    return Trace(**{**fields, **changes})


Make = Callable[..., SQLiteStore]


@pytest.fixture
def kept(tmp_path: Path) -> Make:
    """Return what puts traces and judgements in a store."""

    def make(traces: Iterable[Trace], feedback: Iterable[Feedback] = ()) -> SQLiteStore:
        store = SQLiteStore(tmp_path / "log.db")
        store.start()
        store.save_pool(POOL.digest, POOL.targets)

        async def fill() -> None:
            for t in traces:
                await store.append(t)  # type: ignore[misc]
            for f in feedback:
                await store.add_feedback(f)

        asyncio.run(fill())
        store.stop()
        store = SQLiteStore(tmp_path / "log.db", read_only=True)
        store.start()
        return store

    return make


def column(log: Log, p_QA: Any, name: str) -> list[float]:
    return list(p_QA[:, log.actions.index(name)]) if name in log.actions else [0.0] * len(p_QA)


def test_a_policy_asked_again_says_what_it_said(kept: Make) -> None:
    served = Random(weights={"ant": 1.0, "bee": 3.0})
    store = kept([trace_of(i, policy=served) for i in range(20)])
    log = from_store(store, Asked(served, store))
    assert np.array_equal(log.logged_QA, log.new_QA)
    assert column(log, log.new_QA, "bee") == pytest.approx([0.75] * 20)
    assert [log.actions[a] for a in log.chosen_Q] == [t.decision.plan.targets()[0] for t in store.traces()]
    assert log.outcomes["usd"] == pytest.approx(np.full(20, 0.1))
    assert np.isnan(log.outcomes["quality"]).all()
    assert np.isnan(log.outcomes["joules"]).all()


def test_a_policy_is_asked_on_the_record(kept: Make) -> None:
    store = kept([trace_of(10), trace_of(60, eligible=("ant", "bee"), excluded={"cat": "resting"})])
    policy = ByLength()
    log = from_store(store, Asked(policy, store))
    assert [q.arrival for q, _ in policy._asked] == [10, 60]
    assert [names for _, names in policy._asked] == [("ant", "bee", "cat"), ("ant", "bee")]
    assert column(log, log.new_QA, "bee") == [1.0, 0.5]
    assert column(log, log.new_QA, "cat") == [0.0, 0.0]


def test_targets_of_the_new_config(kept: Make) -> None:
    # `dog` is new and offered; `cat` was resting and is not; `ant` is gone.
    store = kept([trace_of(1), trace_of(2, eligible=("ant", "bee"), excluded={"cat": "resting"})])
    policy = ByLength()
    targets = [Target(name=n) for n in ("bee", "cat", "dog")]
    log = from_store(store, Asked(Random(), store, targets=targets))
    from_store(store, Asked(policy, store, targets=targets))
    assert [names for _, names in policy._asked] == [("bee", "cat", "dog"), ("bee", "dog")]
    found = evaluate(log, rules=Rules(ess=0.0))
    assert found.overlap[0].action == "dog"
    assert found.overlap[0].unsupported == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert "dog" in str(found["usd"].refusal)


def test_a_target_that_nobody_has_is_not_stood_in_for(kept: Make) -> None:
    store = kept([trace_of(i) for i in range(5)])
    log = from_store(store, Asked(Fixed(plan="dog"), store))
    assert column(log, log.new_QA, "dog") == [1.0] * 5
    table = from_table(logged_table(), Fixed(plan="dog"))
    assert column(table, table.new_QA, "dog") == [1.0] * 300
    assert "dog 100%" in str(evaluate(table)["quality"].refusal)


def test_what_is_left_out_is_counted(kept: Make) -> None:
    refused = trace_of(3)
    refused = msgspec.structs.replace(
        refused, decision=msgspec.structs.replace(refused.decision, options=(), propensity=0.0), steps=()
    )
    store = kept([trace_of(1), trace_of(2, route="other"), refused, trace_of(4, signals=Signals())])
    log = from_store(store, Asked(ByLength(), store))
    assert len(log.chosen_Q) == 1
    assert log.left_out == {
        "of other routes": 1,
        "refused, since nobody was eligible": 1,
        "without a signal that the new policy reads": 1,
    }
    with pytest.raises(TableError, match="2 without a shadow proposal"):
        from_store(store, Shadowed())


def test_shadow_is_read_off_the_record(kept: Make) -> None:
    shadow = (
        Option(plan=Single(target="bee"), probability=0.25),
        Option(
            plan=Cascade(steps=(Single(target="ant"), Single(target="cat")), accept=Confidence(above=-1.0)),
            probability=0.75,
        ),
    )
    store = kept([trace_of(1, shadow=shadow), trace_of(2)])
    log = from_store(store, Shadowed())
    assert log.left_out == {"without a shadow proposal": 1}
    assert column(log, log.new_QA, "bee") == [0.25]
    assert column(log, log.new_QA, "cascade ant > cat") == [0.75]


def test_a_policy_that_refuses_goes_where_the_log_never_went(kept: Make) -> None:
    store = kept([trace_of(i) for i in range(5)])
    log = from_store(store, Asked(Nobody(), store))
    assert column(log, log.new_QA, NOBODY) == [1.0] * 5
    assert "(refused) 100%" in str(evaluate(log)["usd"].refusal)


def test_quality_is_what_the_weightiest_that_stand_say_and_failures_are_zero(kept: Make) -> None:
    down = Outcome(target="ant", error=Failure(kind="unavailable"))
    gone = Outcome(cancelled=True, error=Failure(kind="client_gone"))
    traces = [trace_of(0), trace_of(1), trace_of(2, outcome=down), trace_of(3, outcome=gone), trace_of(4, outcome=down)]
    judged = [
        Feedback(trace_id="q0", value=0.0, source="user", at=1.0),
        Feedback(trace_id="q0", value=1.0, source="user", at=2.0),
        Feedback(trace_id="q0", value=0.5, source="tests", at=3.0),
        Feedback(trace_id="q0", value=0.0, source="app", kind="reask", confidence=0.2, at=4.0),
        Feedback(trace_id="q1", value=0.0, source="app", kind="reask", confidence=0.2, at=4.0),
        Feedback(trace_id="q4", value=0.2, source="user", at=3.0),
    ]
    store = kept(traces, judged)
    log = from_store(store, Asked(Random(), store))
    assert log.outcomes["quality"] == pytest.approx([0.75, np.nan, 0.0, np.nan, 0.2], nan_ok=True)
    assert set(log.notes) == {
        "1 decisions failed, quality 0",
        "1 decisions judged by less than half a judgement, left out of quality",
    }


def test_fallbacks_are_credited_to_the_decision_or_left_out(kept: Make) -> None:
    first = trace_of(0)
    others = [n for n in CHANCE if n != first.outcome.target]
    plan = Fallback(plans=(first.decision.plan, Single(target=others[0])))
    down = Outcome(target=first.outcome.target, error=Failure(kind="unavailable"))
    answer = msgspec.structs.replace(first.outcome, target=others[0])
    steps = (
        Step(path=(0, 0, 0, 0), call=Call(target=first.outcome.target), outcome=down),
        Step(path=(1, 0, 0, 0), call=Call(target=others[0]), outcome=answer),
    )
    fell = msgspec.structs.replace(first, plan=plan, steps=steps, outcome=answer)
    whole = trace_of(1)
    whole = msgspec.structs.replace(whole, plan=Fallback(plans=(whole.decision.plan, Single(target="ant"))))
    store = kept([fell, whole], [Feedback(trace_id="q0", value=0.9)])
    log = from_store(store, Asked(Random(), store))
    assert log.actions[log.chosen_Q[0]] == down.target
    assert log.outcomes["quality"][0] == pytest.approx(0.9)
    assert log.notes == ("1 decisions answered by a fallback, credited to the decision",)
    strict = from_store(store, Asked(Random(), store), fallbacks="leave-out")
    assert len(strict.chosen_Q) == 1
    assert strict.left_out == {"answered by a fallback": 1}


def test_sessions_and_equal_prompts_are_groups(kept: Make) -> None:
    same = Query.ask("What is  two?", id="q5"), Query.ask("what is two?", id="q6")
    store = kept(
        [trace_of(0, session="s"), trace_of(1, session="s"), trace_of(2, session="t"), trace_of(3), trace_of(4)]
        + [msgspec.structs.replace(trace_of(5 + i), query=q) for i, q in enumerate(same)]
    )
    g = from_store(store, Asked(Random(), store)).groups_Q
    assert g[0] == g[1]
    assert g[5] == g[6]
    assert len(set(g)) == 5


def test_the_estimate_from_a_store_holds_the_truth(kept: Make) -> None:
    rng = np.random.default_rng(0)
    traces = [trace_of(i) for i in range(600)]
    judged = [
        Feedback(trace_id=t.id, value=float(rng.random() < CHANCE[t.outcome.target]))
        for t in traces
        if rng.random() < 0.8
    ]
    store = kept(traces, judged)
    found = evaluate(from_store(store, Asked(Fixed(plan="cat"), store)))
    assert found["quality"].known == len(judged)
    for method in ("snips", "dr", "switch"):
        e = found["quality"][method]
        assert e.value.low < 0.8 < e.value.high
        assert e.gain.low > 0.0
        assert e.gain.low < 0.8 - 1.7 / 3 < e.gain.high


# ------------------------------------------------------------------------------------------------------ tables


def logged_table(n: int = 300, **columns: Any) -> OutcomeTable:
    """One answer per query, drawn half from cat."""
    rng = np.random.default_rng(0)
    p = {"ant": 0.2, "bee": 0.3, "cat": 0.5}
    model = rng.choice(list(p), p=list(p.values()), size=n)
    return OutcomeTable.from_columns(
        {
            "query_id": [f"q{i}" for i in range(n)],
            "model": model,
            "quality": [float(rng.random() < CHANCE[m]) for m in model],
            "propensity": [p[m] for m in model],
            "prompt": ["x" * (10 + i % 80) + str(i) for i in range(n)],
            **columns,
        }
    )


def test_a_table_with_propensities_is_a_log() -> None:
    log = from_table(logged_table(), Fixed(plan="cat"))
    assert log.actions == ("ant", "bee", "cat")
    assert log.logged_QA.sum(axis=1) == pytest.approx(np.ones(300))
    # What is not told is spread as the models were asked elsewhere.
    assert log.logged_QA[log.chosen_Q == 2][:, 0] == pytest.approx(0.2, abs=0.05)
    e = evaluate(log)["quality"]["snips"].value
    assert e.low < 0.8 < e.high
    assert e.value == pytest.approx(float(log.outcomes["quality"][log.chosen_Q == 2].mean()))


def test_a_table_is_read_by_signals() -> None:
    policy = ByLength()
    log = from_table(logged_table(), policy, targets=[Target(name="dog")])
    assert policy._asked[0][1] == ("ant", "bee", "cat", "dog")
    assert 0.3 < column(log, log.new_QA, "bee").count(1.0) / 300 < 0.7
    assert log.actions == ("ant", "bee", "cat", "dog")


def test_a_table_with_all_probabilities() -> None:
    table = OutcomeTable.from_columns(
        {
            "query_id": ["q", "q", "r", "r", "s"],
            "model": ["ant", "bee", "ant", "bee", "ant"],
            "quality": [1.0, None, None, 0.0, None],
            "p": [0.25, 0.75, 0.5, 0.5, None],
        }
    )
    log = from_table(table, Random(), column="p")
    assert log.logged_QA.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert log.chosen_Q.tolist() == [0, 1]
    assert log.left_out == {"without an answer or its p": 1}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"propensity": [0.0, 1.0]}, "must lie above 0"),
        ({"propensity": [1.2, 1.0]}, "not above 1"),
        ({"query_id": ["q", "q"], "propensity": [0.5, 0.5]}, "fairlead bench"),
        ({"model": ["ant", "ant"], "propensity": [0.5, 1.0]}, "less over all models"),
        ({"query_id": ["q", "q"], "quality": [1.0, None], "propensity": [0.5, None]}, "no answer of another"),
        ({"propensity": [None, None]}, "no query has an answer"),
    ],
)
def test_tables_that_are_no_logs(columns: dict[str, Any], message: str) -> None:
    whole = {"query_id": ["q", "r"], "model": ["ant", "bee"], "quality": [1.0, 0.0], **columns}
    with pytest.raises(TableError, match=message):
        from_table(OutcomeTable.from_columns(whole), Random())


def test_a_table_without_the_column() -> None:
    with pytest.raises(UnknownName, match="propensity"):
        from_table(OutcomeTable.from_columns({"query_id": ["q"], "model": ["ant"], "quality": [1.0]}), Random())


# -------------------------------------------------------------------------------------------------- forecasts


def test_forecasts_do_not_see_the_decision_they_are_for() -> None:
    log = from_table(logged_table(160), ByLength())
    spec = {"type": "knn", "k": 1, "pull": 0.0, "features": {"signals": ["length"]}}
    f = forecasts(log, spec)
    assert set(f) == {"quality"}
    assert f["quality"].shape == (160, 3)
    flipped = log.outcomes["quality"].copy()
    flipped[7] = 1.0 - flipped[7]
    other = forecasts(msgspec.structs.replace(log, outcomes={**log.outcomes, "quality": flipped}), spec)
    assert np.array_equal(other["quality"][7], f["quality"][7])
    assert not np.array_equal(other["quality"], f["quality"])
    lax = Rules(ess=0.0)
    by_mean, by_knn = evaluate(log, rules=lax)["quality"], evaluate(log, forecasts=f, rules=lax)["quality"]
    assert by_knn["dr"].value != by_mean["dr"].value
    assert by_knn["snips"] == by_mean["snips"]
    with pytest.raises(TableError, match="reads the signals"):
        forecasts(log, "knn")
