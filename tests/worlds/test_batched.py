"""Plans run in waves: the same runs as one by one, each target loaded once per wave, nested plans, need, limits, failures."""

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

import pytest

from fairlead import catalog
from fairlead.plans.base import decode
from fairlead.plans.gates import said
from fairlead.plans.hedge import Hedge
from fairlead.plans.merge import Merge
from fairlead.plans.recruit import Recruit
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.testing import comparable
from fairlead.types import Call, Do, Failure, Forecast, Limits, Outcome, Path, Plan, Query, Steps
from fairlead.worlds.batched import run_batch
from fairlead.worlds.replay import LookUp, replay

QUERIES = [Query.ask(f"question {i}", id=f"q{i}") for i in range(30)]
EXPERTS = ("ant", "bee", "cat")
RECRUIT = Recruit(gate="gate", experts=EXPERTS, aggregator="boss")


def reply(call: Call, query: Query, failing: int = 0) -> Outcome:
    """Reply by a hash; `failing` of 256 calls fail."""
    key = json.dumps([call.target, query.id, call.sample, call.purpose, call.prompt])
    digest = blake2b(key.encode(), digest_size=8).digest()
    if digest[0] < failing:
        return Outcome(target=call.target, seconds=1.0, error=Failure(kind="unavailable"))
    text = ("four", "five", "six")[digest[1] % 3]
    if call.purpose == "gate":
        text = said({name: Forecast(quality=digest[2 + i] / 255) for i, name in enumerate(EXPERTS)})
    return Outcome(
        target=call.target, text=text, usd=digest[6] / 1000, seconds=digest[7] / 100, confidence=digest[3] / 255
    )


class Hashed(LookUp):
    def __init__(self, query: Query, failing: int = 0) -> None:
        self.query, self.failing = query, failing

    def outcome(self, call: Call, path: Path) -> Outcome:
        return reply(call, self.query, self.failing)


class Machine:
    """One model at a time: counts what is loaded."""

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing
        self.loads: list[str] = []
        self.calls: Counter[str] = Counter()

    def __call__(self, target: str, calls: Sequence[Call], queries: Sequence[Query]) -> list[Outcome]:
        assert len(calls) == len(queries) > 0
        assert {c.target for c in calls} == {target}
        self.loads.append(target)
        self.calls[target] += len(calls)
        return [reply(c, q, self.failing) for c, q in zip(calls, queries, strict=True)]


def test_batched_run_equals_the_per_question_run_with_one_load_per_distinct_expert() -> None:
    machine = Machine()
    runs = run_batch([(RECRUIT, q) for q in QUERIES], machine)
    alone = [replay(RECRUIT, q, Hashed(q)) for q in QUERIES]
    assert [comparable(r) for r in runs] == [comparable(r) for r in alone]
    assert [r.seconds for r in runs] == pytest.approx([r.seconds for r in alone])
    drawn = {s.call.target for r in alone for s in r.steps if s.call} & {*EXPERTS}
    assert drawn == {*EXPERTS}
    assert machine.loads == ["gate", *sorted(drawn), "boss"]
    assert machine.calls["gate"] == len(QUERIES)
    assert sum(machine.calls[e] for e in EXPERTS) == 3 * len(QUERIES)


@pytest.mark.parametrize("failing", [0, 60, 256])
@pytest.mark.parametrize("kind", catalog.names("plans"))
def test_every_kind_of_plan_says_what_it_says_alone(kind: str, failing: int) -> None:
    plan = catalog.find("plans", kind).example()
    inside = Vote(members=(plan, Single(target="ant"), Merge(members=(plan, Single(target="bee")))))
    pairs = [(p, q) for q in QUERIES[:6] for p in (plan, inside)]
    if kind in ("hedge", "glimpse"):
        pairs = [(p, q) for p, q in pairs if p is plan]
    runs = run_batch(pairs, Machine(failing))
    for (p, q), run in zip(pairs, runs, strict=True):
        alone = replay(p, q, Hashed(q, failing))
        if kind == "hedge":  # the clock decides whether a duplicate starts: there is none here
            assert run.outcome.ok == alone.outcome.ok
            continue
        assert comparable(run) == comparable(alone)


def test_plans_of_different_length_share_waves() -> None:
    chain = decode({"kind": "verify", "steps": ["ant", "bee"], "verifier": "cat"})
    machine = Machine()
    pairs: list[tuple[Plan, Query]] = [(chain, QUERIES[0]), (Single(target="ant"), QUERIES[1]), (RECRUIT, QUERIES[2])]
    run_batch(pairs, machine)
    assert machine.loads[:2] == ["ant", "gate"]
    assert run_batch([], machine) == []


class Needing(Plan):
    """Answers what came back of some calls."""

    def __init__(self, do: Do) -> None:
        self.do = do

    def run(self, query: Query) -> Steps:
        found = yield self.do
        marks = "".join("-" if o.cancelled else "!" if o.error else o.target for o in found)
        return Outcome(text=marks)


def needing(need: int, after: tuple[float, ...] | None = None, broken: str = "") -> tuple[str, str]:
    asked = []

    def answer(target: str, calls: Sequence[Call], queries: Sequence[Query]) -> list[Outcome]:
        asked.append(target)
        error = Failure(kind="unavailable") if target in broken else None
        return [Outcome(target=target, error=error) for _ in calls]

    do = Do(branches=tuple(Call(target=t) for t in "abc"), need=need, after=after)
    (run,) = run_batch([(Needing(do), QUERIES[0])], answer)
    return run.outcome.text, "".join(asked)


def test_of_branches_that_race_the_first_good_ones_in_order_count() -> None:
    assert needing(1) == ("a--", "abc")
    assert needing(1, broken="a") == ("-b-", "abc")
    assert needing(2, broken="b") == ("a-c", "abc")
    assert needing(3, broken="b") == ("a!c", "abc")


def test_a_branch_that_starts_later_is_not_started_unless_those_before_failed() -> None:
    assert needing(1, (0.0, 1.0, 2.0)) == ("a--", "a")
    assert needing(1, (0.0, 1.0, 2.0), broken="a") == ("-b-", "ab")
    assert needing(1, (2.0, 1.0, 0.0), broken="c") == ("-b-", "cb")
    assert needing(1, (0.0, 1.0, 2.0), broken="abc") == ("!!!", "abc")
    machine = Machine()
    run_batch([(Hedge(first=Single(target="ant"), second=Single(target="bee")), q) for q in QUERIES], machine)
    assert machine.loads == ["ant"]


def test_limits_are_kept() -> None:
    for calls in range(1, 6):
        for run in run_batch([(RECRUIT, q) for q in QUERIES], Machine(40), limits=Limits(calls=calls)):
            made = [
                s
                for s in run.steps
                if s.call and s.call.purpose != "gate" and not (s.outcome.error and s.outcome.error.kind == "budget")
            ]
            assert len(made) <= calls
            assert run.outcome.ok or run.outcome.error is not None
    runs = run_batch([(RECRUIT, q) for q in QUERIES], Machine(), limits=Limits(usd=0.6), estimate=lambda c, q: 0.255)
    assert all((r.usd or 0.0) <= 0.6 for r in runs)


class Broken(Plan):
    def run(self, query: Query) -> Steps:
        yield Do(branches=(Call(target="ant"),))
        raise RuntimeError("bug")


@pytest.mark.filterwarnings("ignore")
def test_a_plan_that_breaks_harms_no_other() -> None:
    broken, good = run_batch([(Broken(), QUERIES[0]), (Single(target="ant"), QUERIES[1])], Machine())
    assert broken.outcome.error is not None
    assert "plan broke: RuntimeError: bug" in broken.outcome.error.message
    assert good.outcome.ok


def test_what_the_caller_gets_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="ant was given 2 calls and gave 0 outcomes"):
        run_batch([(Single(target="ant"), q) for q in QUERIES[:2]], lambda target, calls, queries: [])

    def down(target: str, calls: Sequence[Call], queries: Sequence[Query]) -> list[Outcome]:
        raise OSError("no machine")

    with pytest.raises(OSError, match="no machine"):
        run_batch([(Merge(members=(Single(target="ant"),)), QUERIES[0])], down)
