"""The plan `sigma`: every item of its paper's list that can be checked without models, its votes, its judge, and what failures do to it."""

import itertools
from collections.abc import Callable
from math import fsum
from random import Random
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from fairlead.chain import TRACES_BEGIN, Row, check, decode, encode, link
from fairlead.errors import ChainBroken, ConfigError
from fairlead.plans.accept import Confidence
from fairlead.plans.base import decode as plan_of
from fairlead.plans.base import to_data
from fairlead.plans.cascade import Cascade
from fairlead.plans.prompts import find
from fairlead.plans.sigma import Sigma, sigma
from fairlead.plans.single import Single
from fairlead.sqlite import SQLiteStore
from fairlead.targets.scripted import Reply, Scripted
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Decision, Failure, Limits, Option, Outcome, Path, Profile, Query, Signals, Trace
from fairlead.worlds.base import Run
from fairlead.worlds.live import Live
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")
PLAN = Sigma(
    probe="p",
    checks=(Single(target="a"), Single(target="b")),
    panel=(Single(target="a"), Single(target="b"), Single(target="c")),
    judge="j",
    answers="number",
)
OWN = {"a": "7", "b": "8", "c": "9"}
"""What the others say, if a test does not say."""


class Told(LookUp):
    """Draws and replies by name; a reply may be worked out from its call, and None is a failure."""

    def __init__(self, draws: str | list[Any], judge: Any = "1", **replies: Any) -> None:
        self.draws, self.replies = [*draws], {**OWN, "j": judge, **replies}
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: Path) -> Outcome:
        self.calls.append(call)
        said = self.draws[call.sample] if call.target == "p" else self.replies[call.target]
        if isinstance(said, Callable):  # type: ignore[arg-type]
            said = said(call)
        if isinstance(said, Outcome):
            return replace(said, target=call.target)
        if said is None:
            return Outcome(target=call.target, error=Failure(kind="unavailable"))
        return Outcome(target=call.target, text=said, usd=1.0, seconds=1.0)

    @property
    def asked(self) -> str:
        return "".join(c.target for c in self.calls)


def run(table: Told, plan: Sigma = PLAN, **more: Any) -> Run:
    found = replay(plan, QUERY, table, **more)
    assert comparable(replay(plan, QUERY, Recorded(found.steps))) == comparable(found)
    return found


# ---------------------------------------------------------------------------------- the paper's list of checks without models


def test_sigma_takes_its_three_values_alone_and_the_order_of_draws_does_not_matter() -> None:
    for groups in itertools.product((0, 1, 2, None), repeat=3):
        found = sigma(groups)
        assert found in (0.0, 0.5, 1.0)
        assert {sigma(order) for order in itertools.permutations(groups)} == {found}
    assert [sigma((0, 0, 0)), sigma((0, 1, 0)), sigma((2, 1, 0))] == [0.0, 0.5, 1.0]
    assert sigma((0, 0, 0, 1, 2)) == 0.5
    for draws in itertools.permutations("445"):
        table = Told([*draws])
        assert PLAN.mode_of(run(table).steps) == (0.5, "arena_lite")


@pytest.mark.parametrize("draws", [["1/2", "0.5", "it is .50"], ["4", "4.0", "four: 4"]])
def test_equivalent_answers_count_once(draws: list[str]) -> None:
    table = Told(draws)
    found = run(table)
    assert (table.asked, PLAN.mode_of(found.steps)) == ("ppp", (0.0, "single_agent"))
    assert (found.outcome.text, found.outcome.confidence) == (draws[0], 1.0)


@pytest.mark.parametrize("nothing", [None, "no idea", ""])
def test_no_answer_is_a_kind_of_its_own_and_never_agreement(nothing: str | None) -> None:
    table = Told([nothing] * 3)
    assert PLAN.mode_of(run(table).steps) == (1.0, "full_arena")
    assert table.asked == "pppabcj"
    assert PLAN.mode_of(run(Told(["4", nothing, "4"])).steps) == (0.5, "arena_lite")
    assert PLAN.mode_of(run(Told(["4", nothing, nothing])).steps) == (1.0, "full_arena")


@pytest.mark.parametrize(("draws", "mode"), [("444", "single_agent"), ("445", "arena_lite"), ("456", "full_arena")])
async def test_replay_from_the_trace_alone_reproduces_mode_and_answer(draws: str, mode: str, tmp_path: Any) -> None:
    """Live, written to the store, read back; the record alone gives mode and answer."""
    drivers = {n: Scripted(name=n, replies=(t,)) for n, t in {**OWN, "j": "2"}.items()}
    drivers["p"] = Scripted(name="p", replies=tuple(draws))
    found = await Live(drivers=drivers).run(PLAN, QUERY)
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    await store.append(traced(found, "t1"))
    trace = store.read("t1")
    assert isinstance(trace.plan, Sigma)
    again = replay(trace.plan, trace.query, Recorded(trace.steps))
    assert trace.plan.mode_of(trace.steps)[1] == mode
    assert (again.outcome.text, again.outcome.confidence) == (trace.outcome.text, trace.outcome.confidence)
    store.verify()
    store.stop()


def traced(found: Run, id: str) -> Trace:
    option = Option(plan=PLAN, probability=1.0)
    return Trace(
        id=id,
        at=1.0,
        query=replace(QUERY, id=id),
        signals=Signals(),
        decision=Decision(options=(option,), chosen=0, propensity=1.0),
        plan=PLAN,
        steps=found.steps,
        outcome=found.outcome,
    )


def chained(*bodies: bytes) -> list[Row]:
    rows, prev = [], TRACES_BEGIN
    for seq, body in enumerate(bodies, 1):
        rows.append(Row(seq, f"t{seq}", body, prev, link(prev, body)))
        prev = rows[-1].hash
    return rows


def test_a_changed_byte_is_found_by_the_chain() -> None:
    body = encode(traced(run(Told("456")), "t1"))
    rows = chained(body, encode(traced(run(Told("444")), "t2")))
    head = rows[-1].hash
    assert check(rows, begin=TRACES_BEGIN, count=2, head=head) == 2
    for at in (0, len(body) // 2, len(body) - 1):
        forged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        with pytest.raises(ChainBroken, match="changed"):
            check([Row(1, "t1", forged, TRACES_BEGIN, rows[0].hash), rows[1]], begin=TRACES_BEGIN, count=2, head=head)
    assert decode(body, Trace).steps == traced(run(Told("456")), "t1").steps


def test_the_record_goes_forward_only() -> None:
    """In place of the paper's state machine: a trace is written once, at its end, and what was appended can be neither undone nor moved."""
    rows = chained(*(encode(traced(run(Told(d)), f"t{i}")) for i, d in enumerate(("444", "445", "456"))))
    head = rows[-1].hash
    for backwards in (rows[:2], [rows[0], rows[2]], [rows[1], rows[0], rows[2]], [*rows, rows[0]]):
        with pytest.raises(ChainBroken):
            check(backwards, begin=TRACES_BEGIN, count=3, head=head)


@pytest.mark.parametrize(("draws", "calls"), [("444", 3), ("445", 5), ("456", 7)])
def test_cost_in_the_trace_is_the_sum_over_calls_the_draws_included(draws: str, calls: int) -> None:
    found = run(Told(draws))
    assert found.usd == fsum(s.outcome.usd or 0.0 for s in found.steps) == calls


class Exam(LookUp):
    """A probe right with probability `p`, whose wrong draws are one of nine; with probability `shared` all draws of a question are one. The
    others, the judge included, know no better than the probe: they say what one more draw would."""

    def __init__(self, id: int, p: float, shared: float) -> None:
        self.random, self.p = Random(f"{id} {p} {shared}"), p
        self.one = self.draw() if self.random.random() < shared else None

    def draw(self) -> str:
        return "0" if self.random.random() < self.p else str(self.random.randint(1, 9))

    def outcome(self, call: Call, path: Path) -> Outcome:
        if call.target == "j":
            return Outcome(target="j", text="none of them")
        return Outcome(target=call.target, text=self.one or self.draw(), usd=1.0)


def exam(p: float, shared: float, questions: int = 1500) -> tuple[float, float, float]:
    """Return accuracy of the plan, of its first draw, and of the plan where sigma is 0."""
    right = single = 0
    agreed: list[bool] = []
    for i in range(questions):
        found = replay(PLAN, QUERY, Exam(i, p, shared))
        good = found.outcome.text == "0"
        right, single = right + good, single + (found.steps[0].outcome.text == "0")
        if PLAN.mode_of(found.steps)[1] == "single_agent":
            agreed.append(good)
    return right / questions, single / questions, sum(agreed) / len(agreed)


def test_with_fully_correlated_errors_sigma_gains_nothing() -> None:
    for p in (0.3, 0.6, 0.8):
        plan, single, agreed = exam(p, shared=1.0)
        assert plan == single == agreed


def test_with_independent_errors_agreement_is_right_more_often_than_the_probe() -> None:
    for p in (0.5, 0.7):
        plan, single, agreed = exam(p, shared=0.0)
        # A share of 1,500 has a standard error of 0.013 at most; of those that agree p^3 / (p^3 + (1 - p)^3 / 81) are right, 0.99 at least.
        assert single == pytest.approx(p, abs=0.05)
        assert agreed > 0.95
        assert plan > single + 0.05


def test_nothing_is_injected_into_any_prompt() -> None:
    """The retrieval floor: experience below a floor of similarity must not be put into prompts; here none is."""
    table = Told("456")
    run(table)
    assert [c.messages for c in table.calls[:-1]] == [None] * 6
    fields = {"question": QUERY.text, "answers": [*OWN.values()]}
    assert table.calls[-1].messages == find("judge@1").messages(fields)


# ---------------------------------------------------------------------------------------------------------------- the modes


@pytest.mark.parametrize(
    ("draws", "a", "b", "text", "share"),
    [
        ("445", "5", "5", "5", 3 / 5),
        ("544", "4", "4", "4", 4 / 5),
        ("445", "5", "6", "4", 2 / 5),
        ("454", "6", "6", "4", 2 / 5),
        ("544", "5", "6", "4", 2 / 5),
        ("445", None, None, "4", 2 / 5),
        ("445", "no idea", "5", "4", 2 / 5),
        (["no idea", "5", "5"], "6", "6", "5", 2 / 5),
    ],
)
def test_in_the_small_arena_the_majority_of_all_wins_and_ties_go_to_the_draws(
    draws: Any, a: str | None, b: str | None, text: str, share: float
) -> None:
    table = Told(draws, a=a, b=b)
    found = run(table)
    assert (found.outcome.text, found.outcome.confidence) == (text, pytest.approx(share))
    assert table.asked == "pppab"


def test_a_check_may_show_that_two_draws_said_the_same() -> None:
    """Answers in free text are one if a third links them: the draws' majority is then counted anew."""
    one, link = "alpha beta gamma delta epsilon zeta", "beta gamma delta epsilon zeta eta"
    other = "gamma delta epsilon zeta eta theta"
    plan = replace(PLAN, samples=5, answers="free")
    tie = run(Told([one, other, "kappa", "kappa", "kappa"], a=link, b=None), plan)
    assert (tie.outcome.text, tie.outcome.confidence) == ("kappa", pytest.approx(3 / 7))
    table = Told([one, other, "kappa", "kappa", "kappa"], a=link, b=link)
    assert (run(table, plan).outcome.text, table.asked) == (one, "pppppab")


def test_in_the_full_arena_the_judge_picks() -> None:
    for number, text in (("1", "7"), ("I say 2.", "8"), ("[3]", "9")):
        found = run(Told("456", number))
        assert (found.outcome.text, found.outcome.confidence) == (text, pytest.approx(1 / 3))
    found = run(Told("456", "1", a="5", b="6"))
    assert (found.outcome.text, found.outcome.target) == ("5", "a")


@pytest.mark.parametrize("judge", [None, "", "none of them", "0", "4", "99999999999999", "both"])
def test_without_a_verdict_the_panel_votes(judge: str | None) -> None:
    table = Told("456", judge, a="7", b="8", c="8.0")
    found = run(table)
    assert (found.outcome.text, found.outcome.target) == ("8", "b")
    assert found.outcome.confidence == pytest.approx(2 / 3)
    assert run(Told("456", judge)).outcome.target == "a", "ties go to the earlier member"


def test_the_judge_sees_each_answer_once_and_is_not_asked_where_all_agree() -> None:
    seen: list[str] = []
    table = Told("456", lambda call: seen.append(call.messages[-1].text) or "2", a="8", b="7", c="8.0")
    found = run(table)
    assert "[2]" in seen[0]
    assert "[3]" not in seen[0]
    assert (found.outcome.target, found.outcome.text) == ("b", "7")
    judged = table.calls[-1]
    assert (judged.purpose, judged.prompt, judged.alone) == ("judge", "judge@1", True)
    agreed = Told("456", a="7", b="7.0", c="7")
    assert (run(agreed).outcome.confidence, agreed.asked) == (1.0, "pppabc")
    alone = Told("456", a=None, b="7", c=None)
    assert (run(alone).outcome.confidence, alone.asked) == (pytest.approx(1 / 3), "pppabc")


def test_two_draws_know_no_middle_and_five_do() -> None:
    two, five = replace(PLAN, samples=2), replace(PLAN, samples=5)
    for draws, mode in (("44", "single_agent"), ("45", "full_arena")):
        assert two.mode_of(run(Told(draws), two).steps)[1] == mode
    for draws, found in (("44444", 0.0), ("44445", 0.25), ("44567", 0.75), ("34567", 1.0)):
        assert five.mode_of(run(Told(draws), five).steps)[0] == found


def test_draws_but_the_first_are_asked_with_the_temperature() -> None:
    table = Told("444")
    run(table, replace(PLAN, temperature=0.5))
    assert [(c.sample, c.params) for c in table.calls] == [
        (0, {}),
        (1, {"temperature": 0.5}),
        (2, {"temperature": 0.5}),
    ]


def test_mode_is_read_inside_another_plan() -> None:
    plan = Cascade(steps=(PLAN, Single(target="c")), accept=Confidence(above=0.5))
    found = replay(plan, QUERY, Told("445", a="6"))
    assert found.outcome.target == "c"
    assert PLAN.mode_of(found.steps, path=(0, 0)) == (0.5, "arena_lite")


# -------------------------------------------------------------------------------------------------------- failures and limits


def test_if_the_panel_fails_the_draws_own_best_stands() -> None:
    found = run(Told([None, "5", "6"], a=None, b=None, c=None))
    assert (found.outcome.text, found.outcome.confidence) == ("5", pytest.approx(1 / 3))
    found = run(Told(["no idea", None, None], a=None, b=None, c=None))
    assert (found.outcome.text, found.outcome.confidence) == ("no idea", 0.0)
    dead = run(Told([None] * 3, a=None, b=None, c=None))
    assert dead.outcome.error is not None


def test_a_request_that_is_at_fault_is_not_tried_on_others() -> None:
    bad = Outcome(error=Failure(kind="bad_request", message="no"))
    table = Told([None, bad, None])
    found = run(table)
    assert found.outcome.error is not None
    assert (found.outcome.error.kind, table.asked) == ("bad_request", "ppp")
    table = Told([bad, "4", "5"])
    assert (run(table).outcome.ok, table.asked) == (True, "pppabcj")


@pytest.mark.parametrize("draws", ["444", "445", "456"])
@pytest.mark.parametrize("calls", range(1, 8))
async def test_under_a_limit_the_best_so_far_stands_and_says_so(draws: str, calls: int) -> None:
    profile = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    drivers = {n: Scripted(name=n, replies=(t,), profile=profile) for n, t in {**OWN, "j": "3"}.items()}
    drivers["p"] = Scripted(name="p", replies=tuple(draws), profile=profile)
    wanted = {"444": 3, "445": 5, "456": 7}[draws]
    found = await Live(drivers=drivers).run(PLAN, QUERY, limits=Limits(calls=calls))
    assert comparable(replay(PLAN, QUERY, Recorded(found.steps))) == comparable(found)
    assert found.outcome.ok
    assert sum(1 for s in found.steps if s.call and s.outcome.ok) <= calls
    assert bool(found.outcome.limited) == (calls < wanted)
    if draws == "456":
        assert found.outcome.target == ("p" if calls < 4 else "c" if calls == 7 else "a")
    table = run(Told(draws), limits=Limits(calls=calls))
    assert table.outcome.ok
    assert bool(table.outcome.limited) == (calls < wanted)


async def test_a_budget_in_dollars_is_kept() -> None:
    for usd in (0.0, 1.0, 2.5, 4.0, 6.0):
        found = run(Told("456"), limits=Limits(usd=usd), estimate=lambda call, query: 1.0)
        assert (found.usd or 0.0) <= usd
        assert found.outcome.ok == (usd >= 1.0)


async def test_every_helper_may_fail_or_answer_rubbish() -> None:
    down = Reply(error=Failure(kind="internal", message="down"))
    for a, b, c, j in itertools.product(("7", down, "}{"), repeat=4):
        drivers = {n: Scripted(name=n, replies=(r,)) for n, r in zip("abcj", (a, b, c, j), strict=True)}
        for draws in ("445", "456"):
            world = Live(drivers={**drivers, "p": Scripted(name="p", replies=tuple(draws))})
            found = await world.run(PLAN, QUERY)
            assert found.outcome.ok
            assert 0.0 <= (found.outcome.confidence or 0.0) <= 1.0


# ------------------------------------------------------------------------------------------------------------------- as data


def test_it_is_data() -> None:
    plan = plan_of({"kind": "sigma", "probe": "p", "checks": ["a", "b"], "panel": ["a", "b", "c"], "judge": "j"})
    assert plan == replace(PLAN, answers="text")
    assert plan_of(to_data(plan)) == plan
    assert plan.targets() == ("p", "a", "b", "c", "j")
    assert len({plan, replace(PLAN, answers="text")}) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"samples": 1}, "at least 2"),
        ({"temperature": 0}, "above 0"),
        ({"checks": []}, "at least one"),
        ({"panel": []}, "at least one"),
        ({"answers": "words"}, "words"),
        ({"prompt": "judge@99"}, "judge@99"),
        ({"prompt": {"name": "own", "text": "{riddle}"}}, "riddle"),
        ({"probes": 3}, "probes"),
    ],
)
def test_wrong_plans_are_config_errors(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plan_of({**to_data(PLAN), **wrong})


def test_a_prompt_of_ones_own_goes_to_the_judge() -> None:
    plan = plan_of({**to_data(PLAN), "prompt": {"name": "own", "version": 3, "text": "{question}? {answers}!"}})
    table = Told("456")
    replay(plan, QUERY, table)
    assert table.calls[-1].prompt == "own@3"


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_contract(samples: int) -> None:
    check_plan(lambda: replace(Sigma.example(), samples=samples))


def test_the_first_draw_that_calls_tools_is_the_answer() -> None:
    called = [Outcome(tool_calls=Raw(f'[{{"id": "{n}"}}]'.encode())) for n in range(2)]
    table = Told([None, *called])
    found = run(table)
    assert (table.asked, found.outcome.tool_calls) == ("ppp", called[0].tool_calls)
    assert PLAN.mode_of(found.steps) == (0.0, "single_agent")
