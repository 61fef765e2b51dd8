"""The plan `merge`: the items of its paper's list that can be checked without models, both ways to merge, and what failures do to them."""

import itertools
import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from msgspec import Raw
from msgspec.structs import replace

from fairlead.bench.metrics import mcnemar
from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.merge import Merge, weight_of
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.targets.scripted import Reply, Scripted
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Failure, Limits, Outcome, Path, Plan, Profile, Query
from fairlead.worlds.base import Run
from fairlead.worlds.live import Live
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("Which is it: A, B or C?", id="q")


def singles(names: str) -> tuple[Single, ...]:
    return tuple(Single(target=n) for n in names)


class Told(LookUp):
    """Replies by name: a text, (a text, its confidence), an outcome, None for a failure, or what works it out from the call."""

    def __init__(self, **replies: Any) -> None:
        self.replies = replies
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: Path) -> Outcome:
        self.calls.append(call)
        said = self.replies[call.target]
        if isinstance(said, Callable):  # type: ignore[arg-type]
            said = said(call)
        if said is None:
            said = Outcome(error=Failure(kind="unavailable"))
        if isinstance(said, str):
            said = said, None
        if not isinstance(said, Outcome):
            said = Outcome(text=said[0], confidence=said[1], usd=1.0, seconds=1.0)
        return replace(said, target=call.target)

    @property
    def asked(self) -> str:
        return "".join(c.target for c in self.calls)


def run(plan: Plan, table: Told, **more: Any) -> Run:
    found = replay(plan, QUERY, table, **more)
    assert comparable(replay(plan, QUERY, Recorded(found.steps))) == comparable(found)
    return found


def why(found: Run) -> str:
    assert found.outcome.error is not None
    return found.outcome.error.message


# -------------------------------------------------------------------------------------- the paper's list of checks without models

ACCURACY = {"a": 0.85, "b": 0.6, "c": 0.58, "d": 0.55, "e": 0.52}


def table_of(questions: int, seed: int, accuracy: dict[str, float]) -> list[dict[str, str]]:
    """A replay table, question by agent: each right with its own probability, independently; wrong answers are one."""
    random = Random(seed)
    return [{n: "A" if random.random() < p else "B" for n, p in accuracy.items()} for _ in range(questions)]


def learned(accuracy: dict[str, float]) -> tuple[float, ...]:
    """Reliabilities off other questions."""
    seen = table_of(400, 1, accuracy)
    return tuple(weight_of(sum(row[n] == "A" for row in seen), len(seen)) for n in accuracy)


def right(plan: Plan, rows: list[dict[str, str]]) -> np.ndarray[Any, Any]:
    return np.array([run(plan, Told(**row)).outcome.text == "A" for row in rows])


def test_weighted_by_reliability_it_beats_the_majority_where_accuracy_is_unequal() -> None:
    members, rows = singles("abcde"), table_of(800, 2, ACCURACY)
    weighted = right(Merge(members=members, weights=learned(ACCURACY), answers="choice"), rows)
    majority = right(Vote(members=members, answers="choice"), rows)
    test = mcnemar(weighted, majority)
    assert test.only_first > test.only_second
    assert test.p_value < 0.01  # expected: 0.85 against 0.75


def test_with_equal_reliabilities_it_equals_the_majority() -> None:
    members, rows = singles("abcde"), table_of(300, 3, dict.fromkeys("abcde", 0.6))
    majority = [run(Vote(members=members, answers="choice"), Told(**row)).outcome.text for row in rows]
    for weights in (None, (0.7,) * 5):
        plan = Merge(members=members, weights=weights, answers="choice")
        assert [run(plan, Told(**row)).outcome.text for row in rows] == majority


@pytest.mark.parametrize("merger", [None, "m"])
def test_the_order_of_members_and_of_arrival_never_changes_the_decision(merger: str | None) -> None:
    random = Random(0)
    for case in range(16):
        weights = {n: random.choice((1.0, 0.1, 0.2, 0.3)) for n in "abcd"}
        said: dict[str, Any] = {
            n: random.choice((("A", 0.3), ("B", 0.9), ("A.", 0.5), ("?", 0.5), None)) for n in "abcd"
        }
        # A merger that shows in what order it reads: it repeats all of its prompt.
        said["m"] = (lambda call: call.messages[-1].text) if case % 2 else None
        results = set()
        for order in itertools.permutations("abcd"):
            plan = Merge(
                members=singles("".join(order)),
                weights=tuple(weights[n] for n in order),
                merger=merger,
                answers="choice",
                on_tie=Single(target="t"),
            )
            # Who comes back when, in virtual time.
            late = {n: timed(said[n], float(i)) for i, n in enumerate(order)}
            found = run(plan, Told(**late, m=said["m"], t="C")).outcome
            results.add((found.text, found.target, found.confidence, found.error))
        assert len(results) == 1, results


def timed(said: tuple[str, float] | None, seconds: float) -> Outcome:
    if said is None:
        return Outcome(error=Failure(kind="unavailable"), seconds=seconds)
    return Outcome(text=said[0], confidence=said[1], seconds=seconds)


async def test_arrival_does_not_matter_live_either() -> None:
    plan = Merge(members=singles("abc"), answers="choice")
    results = set()
    for seconds in itertools.permutations((0.0, 0.002, 0.004)):
        replies = {n: Reply(text=t, delay_seconds=d) for n, t, d in zip("abc", "BAA", seconds, strict=True)}
        drivers = {n: Scripted(name=n, replies=(r,)) for n, r in replies.items()}
        found = await Live(drivers=drivers).run(plan, QUERY)
        results.add((found.outcome.text, found.outcome.target))
    assert results == {("A", "b")}


@pytest.mark.parametrize("merger", [None, "m"])
def test_if_all_members_fail_the_failure_says_incomplete(merger: str | None) -> None:
    late = Outcome(error=Failure(kind="timeout"))
    table = Told(a=None, b=late, c=None, m="A", t="A")
    found = run(Merge(members=singles("abc"), merger=merger, on_tie=Single(target="t")), table)
    assert why(found) == "incomplete: none of the members answered (members: 3; failures: timeout, unavailable)"
    assert table.asked == "abc", "with nothing to merge, neither the merger nor who breaks ties is asked"


def test_more_members_cost_more_and_quality_per_cost_is_told() -> None:
    """Accuracy of the best single agent, and of the top k merged, for each k: with these agents four more buy nothing that one does not have."""
    rows = table_of(600, 4, ACCURACY)
    weights = learned(ACCURACY)
    found = []
    for k in range(1, 6):
        plan = Merge(members=singles("abcde"[:k]), weights=weights[:k], answers="choice")
        runs = [run(plan, Told(**row)) for row in rows]
        assert {r.usd for r in runs} == {float(k)}
        found.append(sum(r.outcome.text == "A" for r in runs) / len(rows))
    best = right(Single(target="a"), rows).mean()
    assert found[0] == best
    assert found[4] >= best - 0.02
    per_usd = [accuracy / k for k, accuracy in enumerate(found, 1)]
    assert per_usd == sorted(per_usd, reverse=True)


# ------------------------------------------------------------------------------------------------------ without a merger


def test_weights_win_over_numbers_and_failures_cast_no_vote() -> None:
    plan = Merge(members=singles("abc"), weights=(3.0, 1.0, 1.5))
    assert run(plan, Told(a="x", b="y", c="y")).outcome.target == "a"
    assert run(plan, Told(a=None, b="y", c="z")).outcome.target == "c"
    assert run(plan, Told(a=None, b="y", c=None)).outcome.text == "y"


def test_confidence_is_the_mean_of_the_winning_side_and_not_its_share() -> None:
    plan = Merge(members=singles("abc"), weights=(1.0, 1.0, 1.0))
    assert run(plan, Told(a=("x", 0.2), b=("x", 0.4), c=("y", 0.9))).outcome.confidence == pytest.approx(0.3)
    assert run(plan, Told(a=("x", 0.2), b="x", c=("y", 0.9))).outcome.confidence == pytest.approx(0.2)
    assert run(plan, Told(a="x", b="x", c=("y", 0.9))).outcome.confidence is None, (
        "not known, and no share in its place"
    )


def test_the_heaviest_of_the_winning_side_answers_and_names_break_ties() -> None:
    table = Told(a="x.", b="X", c="x", d="y")
    assert run(Merge(members=singles("cbad"), weights=(1.0, 2.0, 1.0, 0.5)), table).outcome.text == "X"
    assert run(Merge(members=singles("cbad")), table).outcome.target == "a"


def test_a_tie_is_incomplete_and_never_guessed() -> None:
    plan = Merge(members=singles("ab"))
    assert why(run(plan, Told(a="x", b="y"))).startswith("incomplete: no answer has more weight")
    number = Merge(members=singles("ab"), answers="number")
    assert why(run(number, Told(a="x", b="y"))).startswith("incomplete"), "what cannot be read is no vote"
    rounded = Merge(members=singles("abc"), weights=(0.1, 0.2, 0.3))
    assert why(run(rounded, Told(a="x", b="x", c="y"))).startswith("incomplete"), "rounding breaks no tie"
    idle = Merge(members=singles("abc"), weights=(1.0, 0.0, 1.0))
    assert why(run(idle, Told(a="x", b="x", c="y"))).startswith("incomplete")
    assert why(run(idle, Told(a=None, b="x", c=None))).startswith("incomplete"), "without weight there is no vote"


def test_a_tie_is_broken_by_asking_somebody() -> None:
    plan = Merge(members=singles("ab"), on_tie=Single(target="t"))
    table = Told(a="x", b="y", t="z")
    assert (run(plan, table).outcome.text, table.asked) == ("z", "abt")
    agreed = Told(a="x", b="x", t="z")
    assert (run(plan, agreed).outcome.text, agreed.asked) == ("x", "ab")
    assert not run(plan, Told(a="x", b="y", t=None)).outcome.ok


def test_members_without_a_merger_are_asked_as_the_client_asked() -> None:
    table = Told(a="x", b="x")
    run(Merge(members=singles("ab")), table)
    assert [(c.messages, c.prompt, c.alone) for c in table.calls] == [(None, "", False)] * 2


def test_a_request_that_is_at_fault_is_reported_as_such() -> None:
    bad = Outcome(error=Failure(kind="bad_request", message="no"))
    found = run(Merge(members=singles("ab"), merger="m"), Told(a=None, b=bad, m="x"))
    assert found.outcome.error is not None
    assert found.outcome.error.kind == "bad_request"


def test_weights_are_log_odds_above_chance() -> None:
    assert weight_of(9, 10) == pytest.approx(math.log(10 / 2))
    assert weight_of(0, 0) == 0.0
    assert weight_of(3, 10) == 0.0
    assert weight_of(3, 10, choices=5) == pytest.approx(math.log(4 / 12 * 4 / (8 / 12)))
    assert math.isfinite(weight_of(1e9, 1e9))
    for wrong in ((-1, 2), (3, 2)):
        with pytest.raises(ValueError, match="between 0 and asked"):
            weight_of(*wrong)


# --------------------------------------------------------------------------------------------------------- with a merger


def analysis(answer: Any, confidence: Any = 0.5) -> str:
    return f'So:\n```json\n{{"reasoning": "as {{}} goes", "answer": "{answer}", "confidence": {confidence}}}\n```'


def test_single_calls_are_asked_for_analyses_and_the_merger_reads_all() -> None:
    panel = Vote(members=singles("bc"))
    plan = Merge(members=(Single(target="a"), panel), merger="m", answers="choice")
    table = Told(a=analysis("A"), b="B", c="B", m="It is B.")
    found = run(plan, table)
    assert (found.outcome.text, found.outcome.target, table.asked) == ("It is B.", "m", "abcm")
    asked = {c.target: c for c in table.calls}
    assert (asked["a"].prompt, asked["a"].alone, asked["a"].purpose) == ("analyse@1", True, "answer")
    assert (asked["b"].prompt, asked["b"].messages) == ("", None)
    assert (asked["m"].prompt, asked["m"].alone, asked["m"].purpose) == ("merge@1", False, "merge")
    (message,) = asked["m"].messages or ()
    assert '"reasoning": "as {} goes"' in message.text
    assert QUERY.text in message.text
    assert "[2]" in message.text


def test_a_merged_answer_has_the_mean_confidence_of_those_who_said_the_same() -> None:
    plan = Merge(members=singles("abc"), merger="m", answers="choice")
    said = {"a": analysis("A", 0.8), "b": analysis("B", 0.9), "c": analysis("A", 0.4)}
    assert run(plan, Told(**said, m="A")).outcome.confidence == pytest.approx(0.6)
    assert run(plan, Told(**said, m="C")).outcome.confidence is None


@pytest.mark.parametrize("merger", [None, "", "  ", Outcome(error=Failure(kind="bad_request"))])
def test_if_the_merger_fails_the_deterministic_merge_stands_in(merger: Any) -> None:
    plan = Merge(members=singles("abc"), merger="m")
    table = Told(a=analysis("x", 0.8), b=analysis("y"), c=analysis("X.", 0.6), m=merger)
    found = run(plan, table)
    assert (found.outcome.text, found.outcome.target) == ("x", "a")
    assert found.outcome.confidence == pytest.approx(0.7)
    tied = run(plan, Told(a=analysis("x"), b=analysis("y"), c=None, m=merger))
    assert why(tied).startswith("incomplete")


@pytest.mark.parametrize(
    ("text", "answer", "confidence"),
    [
        ('{"answer": 4, "confidence": 1}', "4", 1.0),
        ('{"answer": 4.0}', "4", None),
        ('{"answer": "four", "confidence": 7}', "four", None),
        ('{"answer": "four", "confidence": true}', "four", None),
        ('{"answer": "four", "confidence": "high"}', "four", None),
        ('{"answer": {"deep": 1}}', '{"answer": {"deep": 1}}', None),
        ('{"answer": true}', '{"answer": true}', None),
        ("[1, 2]", "[1, 2]", None),
        ("just four", "just four", None),
    ],
)
def test_analyses_are_read_and_what_is_none_is_taken_as_it_is(text: str, answer: str, confidence: float | None) -> None:
    found = run(Merge(members=singles("a"), merger="m"), Told(a=text, m=None))
    assert (found.outcome.text, found.outcome.confidence) == (answer, confidence)


async def test_the_mergers_answer_streams_and_nothing_else_does() -> None:
    sent: list[bytes] = []

    async def sink(events: bytes) -> None:
        sent.append(events)

    drivers = {n: Scripted(name=n, replies=(t,)) for n, t in {"a": "x", "b": "y", "m": "merged"}.items()}
    found = await Live(drivers=drivers).run(Merge(members=singles("ab"), merger="m"), QUERY, sink=sink)
    assert found.outcome.streamed
    assert b"merged" in b"".join(sent)
    drivers["m"] = Scripted(name="m", replies=(Reply(text="half of it", cut_after_chunks=1),))
    sent.clear()
    found = await Live(drivers=drivers).run(Merge(members=singles("ab"), merger="m"), QUERY, sink=sink)
    assert b"half" in b"".join(sent)
    assert found.outcome.error is not None, "what has gone to the client cannot be taken back"


# -------------------------------------------------------------------------------------------------------- limits, failures


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("said", ["xxx", "xyz"])
async def test_under_a_limit_the_best_so_far_stands_and_says_so(calls: int, said: str) -> None:
    plan = Merge(members=singles("abc"), merger="m", on_tie=Single(target="t"))
    profile = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    down = Reply(error=Failure(kind="internal", message="down"))
    for merger in ("merged", down):
        replies = {**dict(zip("abc", said, strict=True)), "m": merger, "t": "told"}
        drivers = {n: Scripted(name=n, replies=(r,), profile=profile) for n, r in replies.items()}
        found = await Live(drivers=drivers).run(plan, QUERY, limits=Limits(calls=calls))
        assert comparable(replay(plan, QUERY, Recorded(found.steps))) == comparable(found)
        assert sum(1 for s in found.steps if s.call and s.outcome.error is None) <= calls
        agreed = said == "xxx" or calls == 1
        assert found.outcome.ok == (agreed or (merger == "merged" and calls > 3) or calls == 5)
    for usd in (0.0, 1.0, 3.0, 4.0):
        within = run(plan, Told(a="x", b="y", c="z", m="m", t="t"), limits=Limits(usd=usd), estimate=lambda c, q: 1.0)
        assert (within.usd or 0.0) <= usd


def test_it_is_data() -> None:
    plan = decode(
        {"kind": "merge", "members": ["a", {"kind": "vote", "members": ["b", "c"]}], "merger": "m", "on_tie": "t"}
    )
    assert isinstance(plan, Merge)
    assert plan.on_tie == Single(target="t")
    assert decode(to_data(plan)) == plan
    assert plan.targets() == ("a", "b", "c", "m", "t")
    assert Merge(members=singles("ab")).targets() == ("a", "b")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"members": []}, "at least one member"),
        ({"weights": [1.0]}, "as many weights"),
        ({"weights": [0.0, 0.0]}, "not all zero"),
        ({"weights": [1.0, -1.0]}, ">= 0.0"),
        ({"answers": "words"}, "words"),
        ({"prompt": "merge@99"}, "merge@99"),
        ({"analyse": {"name": "own", "text": "{answers}"}}, "answers"),
        ({"mergers": "m"}, "mergers"),
    ],
)
def test_wrong_plans_are_config_errors(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        decode({"kind": "merge", "members": ["a", "b"], **wrong})


@pytest.mark.parametrize(
    "plan",
    [
        Merge.example(),
        Merge(members=singles("abc"), weights=(1.0, 2.0, 4.0)),
        Merge(members=singles("abc"), on_tie=Single(target="d")),
        Merge(members=(Vote(members=singles("ab")), Single(target="c")), merger="d", on_tie=Single(target="e")),
    ],
)
def test_contract(plan: Merge) -> None:
    check_plan(lambda: plan)


# ------------------------------------------------------------------------------------------------------------ tool calls


@pytest.mark.parametrize("merger", [None, "m"])
def test_a_members_tool_call_stands_the_heaviest_ones_first(merger: str | None) -> None:
    called = {n: Outcome(text="{}", tool_calls=Raw(f'[{{"id": "{n}"}}]'.encode())) for n in "ab"}
    plan = Merge(members=singles("abc"), merger=merger, weights=(1.0, 2.0, 9.0))
    table = Told(**called, c="C", m="merged")
    found = run(plan, table)
    assert (found.outcome.target, found.outcome.tool_calls, table.asked) == ("b", called["b"].tool_calls, "abc")


def test_an_analysis_with_half_a_surrogate_pair_breaks_nothing() -> None:
    said = '{"answer": "\\ud800"}'
    table = Told(a=said, b="B", m="merged")
    assert run(Merge(members=singles("ab"), merger="m"), table).outcome.text == "merged"
