"""The plan `verify`: confidence from verdicts, escalation, expected cost, and how good a verifier must be."""

import math
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.bench.planning import Row, compare, measure
from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.verify import Verify, expected_cost
from fairlead.plans.vote import Vote
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Failure, Limits, Outcome, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")
ABC = tuple(Single(target=name) for name in "abc")
PLAN = Verify(steps=ABC)


def failed(kind: Any = "unavailable") -> Outcome:
    return Outcome(error=Failure(kind=kind))


class World(LookUp):
    """Everyone answers with their name, or as dictated; verdicts are dictated by who gives them and which draw it is."""

    def __init__(
        self,
        verdict: Callable[[Call], Outcome | str] | str = "yes",
        *,
        answers: dict[str, Outcome] | None = None,
    ) -> None:
        self.verdict, self.answers = verdict, answers or {}
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        found: Outcome | str
        if call.purpose == "judge":
            found = self.verdict if isinstance(self.verdict, str) else self.verdict(call)
        else:
            found = self.answers.get(call.target, call.target.upper())
        outcome = Outcome(text=found) if isinstance(found, str) else found
        return msgspec.structs.replace(outcome, target=call.target, usd=1.0, seconds=1.0)


def run(world: World, plan: Verify = PLAN, **more: Any) -> Run:
    done = replay(plan, QUERY, world, **more)
    assert comparable(replay(plan, QUERY, Recorded(done.steps))) == comparable(done)
    return done


def of(*yes: int) -> Callable[[Call], str]:
    """The first so many of the draws on the answers of a, b … say yes."""
    return lambda call: "yes" if call.sample < yes["ab".index(call.target)] else "No."


# ------------------------------------------------------------------------------------------------------ the cascade


@pytest.mark.parametrize(
    ("verdict", "text", "confidence", "calls"),
    [
        (of(5, 0), "A", 1.0, 6),
        (of(4, 0), "A", 0.8, 6),
        (of(3, 4), "B", 0.8, 12),
        (of(0, 3), "C", None, 13),
    ],
)
def test_it_escalates_below_tau(verdict: Any, text: str, confidence: float | None, calls: int) -> None:
    world = World(verdict)
    done = run(world)
    assert (done.outcome.text, done.outcome.confidence, done.usd) == (text, confidence, float(calls))


def test_tau_is_inclusive() -> None:
    plan = msgspec.structs.replace(PLAN, tau=0.6)
    assert run(World(of(3, 0)), plan).outcome.text == "A"
    assert run(World(of(2, 0)), plan).outcome.text == "C"


def test_each_step_may_have_its_own_tau() -> None:
    plan = msgspec.structs.replace(PLAN, tau=(0.9, 0.5))
    assert run(World(of(4, 3)), plan).outcome.text == "B"
    assert run(World(of(5, 3)), plan).outcome.text == "A"
    assert run(World(of(0, 0)), msgspec.structs.replace(PLAN, tau=0.0)).outcome.text == "A"
    assert run(World(of(5, 5)), msgspec.structs.replace(PLAN, tau=2.0)).outcome.text == "C"


def test_only_the_last_answer_is_streamed() -> None:
    steps, seen = PLAN.run(QUERY), []
    do = next(steps)
    for reply in ("A", "no", "B", "no", "C"):
        seen.append(do.final)
        try:
            do = steps.send((Outcome(text=reply),) * len(do.branches))
        except StopIteration:
            break
    assert seen == [False, False, False, False, True]


def test_how_it_asks() -> None:
    world = World(of(0, 5))
    run(world)
    judged = [c for c in world.calls if c.purpose == "judge"]
    assert [(c.target, c.sample) for c in judged] == [(t, s) for t in "ab" for s in range(5)], "by itself"
    assert {(c.prompt, c.alone, c.params["temperature"]) for c in judged} == {("verify@1", True, 0.7)}
    assert judged[0].messages is not None
    assert "What is 2 + 2?" in judged[0].messages[-1].text
    assert "<<<\nA\n>>>" in judged[0].messages[-1].text
    world = World("no")
    run(world, msgspec.structs.replace(PLAN, verifier="judge", samples=2))
    assert [c.target for c in world.calls] == ["a", "judge", "judge", "b", "judge", "judge", "c"]


def test_a_plan_as_a_step_is_verified_by_whoever_answered() -> None:
    vote = Vote(members=ABC[:2], weights=(1.0, 2.0))
    world = World("yes")
    assert run(world, Verify(steps=(vote, ABC[2]), samples=1)).outcome.text == "B"
    assert [c.target for c in world.calls] == ["a", "b", "b"]


def test_the_probability_of_yes_where_it_is_known() -> None:
    def verdict(call: Call) -> Outcome:
        assert call.params["logprobs"]
        return (
            Outcome(text="yes", logprobs=(math.log(0.9),))
            if call.sample
            else Outcome(text="no", logprobs=(math.log(0.6),))
        )

    plan = msgspec.structs.replace(PLAN, samples=2, by="probability", tau=0.65)
    done = run(World(verdict), plan)
    assert done.outcome.text == "A"
    assert done.outcome.confidence == pytest.approx((0.4 + 0.9) / 2)
    sure = run(World("yes"), plan)
    assert sure.outcome.confidence == 1.0, "without log-probabilities a verdict counts whole"


def test_log_probabilities_do_not_count_in_a_share() -> None:
    unsure = World(lambda call: Outcome(text="yes", logprobs=(math.log(0.1),)))
    assert run(unsure).outcome.confidence == 1.0


@pytest.mark.parametrize("verdict", ["", "perhaps", "yesterday", "}{", "4"])
def test_rubbish_is_no_yes(verdict: str) -> None:
    assert run(World(verdict)).outcome.text == "C"


def test_failed_verdicts_are_no_yes() -> None:
    assert run(World(lambda call: failed())).outcome.text == "C"
    assert run(World(lambda call: failed("bad_request"))).outcome.text == "C"
    some = run(World(lambda call: "yes" if call.sample else failed()))
    assert (some.outcome.text, some.outcome.confidence) == ("A", 0.8)


def test_an_answer_that_calls_tools_stands() -> None:
    world = World("no", answers={"a": Outcome(tool_calls=msgspec.Raw(b"[]"))})
    assert run(world).outcome.tool_calls is not None
    assert len(world.calls) == 1


# ----------------------------------------------------------------------------------------------- limits and failures


def test_failures_escalate_and_the_best_answer_stands() -> None:
    world = World("no", answers={"a": failed()})
    assert run(world).outcome.text == "C"
    assert [c.purpose for c in world.calls] == ["answer", "answer", *["judge"] * 5, "answer"]
    rest = run(World(of(2, 1), answers={"c": failed()}))
    assert (rest.outcome.text, rest.outcome.confidence) == ("B", 0.2)
    error = run(World(answers={"a": failed("timeout"), "b": failed(), "c": failed()})).outcome.error
    assert error is not None
    assert error.kind == "timeout"


def test_a_bad_request_is_not_asked_again() -> None:
    world = World(answers={"a": failed("bad_request")})
    assert not run(world).outcome.ok
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    ("calls", "text", "confidence"),
    [(1, "A", None), (3, "A", 0.4), (6, "A", 0.6), (7, "B", None), (12, "B", 0.2), (13, "C", None)],
)
def test_a_limit_leaves_the_best_answer_so_far(calls: int, text: str, confidence: float | None) -> None:
    done = run(World(of(3, 1)), limits=Limits(calls=calls))
    assert (done.outcome.text, done.outcome.confidence) == (text, confidence)
    assert done.outcome.limited == ("" if calls == 13 else "budget")


def test_the_budget_is_kept() -> None:
    for usd in range(1, 14):
        done = run(World("no"), limits=Limits(usd=float(usd)), estimate=lambda call, query: 1.0)
        assert (done.usd or 0.0) <= usd
        assert done.outcome.ok
    assert not run(World("no"), limits=Limits(usd=0.5), estimate=lambda call, query: 1.0).outcome.ok


# ------------------------------------------------------------------------------------------------------ expected cost


def test_expected_cost_is_the_formula() -> None:
    assert expected_cost([1.0, 10.0, 100.0], [0.5, 0.8]) == pytest.approx(1.0 + 0.5 * 10.0 + 0.5 * 0.2 * 100.0)
    assert expected_cost([3.0], []) == 3.0
    assert expected_cost([1.0, 10.0], [1.0]) == 1.0
    assert expected_cost([1.0, 10.0], [0.0]) == 11.0
    with pytest.raises(ValueError, match="2 steps need 1"):
        expected_cost([1.0, 10.0], [])


def test_expected_cost_is_what_replays_cost() -> None:
    rng = np.random.default_rng(0)
    yes = rng.integers(0, 6, size=(400, 2))
    runs = [run(World(of(int(a), int(b)))) for a, b in yes]
    reached = yes[yes[:, 0] < 4]
    kept = [np.mean(yes[:, 0] >= 4), np.mean(reached[:, 1] >= 4)]
    spent = np.mean([r.usd or 0.0 for r in runs])
    assert spent == pytest.approx(expected_cost([6.0, 6.0, 1.0], [float(k) for k in kept]))


# ------------------------------------------------------------------------------------- how good a verifier must be

RIGHT = {"m1": 0.5, "m2": 0.6, "m3": 0.7, "m4": 0.75, "m5": 0.8, "m6": 0.82}
"""Share of queries that each of six models gets right, each twice as dear as the one before."""


class Judged(LookUp):
    """Models that err on the same hard queries, mostly, and a free verifier that errs by chance."""

    def __init__(self, q: int, error: float) -> None:
        self.q, self.error = q, error

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        random = Random(f"{self.q} {call.target} {call.messages}")
        if call.purpose == "judge":
            assert call.messages is not None
            right = "<<<\nright\n>>>" in call.messages[-1].text
            return Outcome(text="yes" if right != (random.random() < self.error) else "no", target="judge", usd=0.0)
        hardness = 0.8 * Random(self.q).random() + 0.2 * random.random()
        # The quantiles of this sum, in its straight part: P(sum < x) = (x - 0.1) / 0.8.
        right = hardness < 0.1 + 0.8 * RIGHT[call.target]
        return Outcome(text="right" if right else "wrong", target=call.target, usd=2.0 ** [*RIGHT].index(call.target))


def cascade(error: float) -> Row:
    plan = Verify(steps=tuple(Single(target=m) for m in RIGHT), verifier="judge", samples=1, tau=0.5)
    queries = [Query.ask("?", id=f"q{i}") for i in range(1500)]
    found = measure(
        {"verify": plan},
        list(RIGHT),
        queries,
        look_up=lambda q: Judged(q, error),
        grade=lambda q, outcome: float(outcome.text == "right"),
    )
    return compare(found, resamples=200)[-1]


@pytest.mark.parametrize("error", [0.0, 0.05])
def test_judge_error_under_a_tenth_helps(error: float) -> None:
    assert cascade(error).gain.low > 0.0


@pytest.mark.parametrize("error", [0.2, 0.3])
def test_judge_error_from_a_fifth_hurts(error: float) -> None:
    assert cascade(error).gain.high < 0.0


# ------------------------------------------------------------------------------------------------------------ as data


def test_the_family_check() -> None:
    check_plan(Verify.example)
    check_plan(lambda: PLAN)
    check_plan(lambda: msgspec.structs.replace(PLAN, verifier="judge", by="probability", tau=(0.5, 0.9)))


def test_written_and_read_back() -> None:
    for plan in (PLAN, msgspec.structs.replace(PLAN, tau=(0.5, 0.9), prompt=Prompt(name="mine", text="{answer}?"))):
        assert decode(to_data(plan)) == plan
    assert decode({"kind": "verify", "steps": ["a", "b", "c"]}) == PLAN


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": []}, "at least one step"),
        ({"samples": 0}, "samples"),
        ({"tau": [0.5, 0.5]}, "need 1 thresholds"),
        ({"tau": -0.1}, "tau"),
        ({"by": "luck"}, "luck"),
        ({"prompt": "proof@1"}, "proof@1"),
        ({"prompt": {"name": "p", "text": "{answers}"}}, "answers"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "verify", "steps": ["a", "b"], **wrong})
