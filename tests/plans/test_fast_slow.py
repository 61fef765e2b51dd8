"""The plan `fast_slow`: paths by difficulty, exact charges, choice by free energy and its fallbacks, limits, failures."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.bench.planning import compare, measure
from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.fast_slow import FastSlow, verified
from fairlead.plans.gates import said
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Failure, Forecast, Limits, Outcome, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("What is 2 + 2?", id="q")
PLAN = FastSlow(gate="gate", fast=Single(target="fast"), slow=Single(target="slow"))
CORRECTION = "No.\n4"


def failed(kind: Any = "unavailable") -> Outcome:
    return Outcome(error=Failure(kind=kind))


class World(LookUp):
    """A gate that knows the difficulty, a fast target, a slow one whose verdicts and draws are dictated."""

    def __init__(
        self,
        difficulty: float | Outcome,
        *,
        fast: Outcome | str = "5",
        verdict: Outcome | str = "yes",
        slow: Callable[[int], Outcome | str] = lambda sample: "4",
    ) -> None:
        self.difficulty, self.fast, self.verdict, self.slow = difficulty, fast, verdict, slow
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        found: Outcome | str
        if call.purpose == "gate":
            d = self.difficulty
            found = d if isinstance(d, Outcome) else said({"fast": Forecast(quality=1.0 - d)})
        elif call.purpose == "judge":
            found = self.verdict
        else:
            found = self.fast if call.target == "fast" else self.slow(call.sample)
        outcome = Outcome(text=found) if isinstance(found, str) else found
        usd = {"gate": 0.0, "fast": 1.0, "slow": 10.0}[call.target]
        return msgspec.structs.replace(outcome, target=call.target, usd=usd, seconds=1.0)

    @property
    def made(self) -> list[tuple[str, str]]:
        return [(c.target, c.purpose) for c in self.calls if c.purpose != "gate"]


def run(world: World, plan: FastSlow = PLAN, **more: Any) -> Run:
    done = replay(plan, QUERY, world, **more)
    assert comparable(replay(plan, QUERY, Recorded(done.steps))) == comparable(done)
    return done


def drawn(text: str, *logprobs: float) -> Outcome:
    return Outcome(text=text, logprobs=logprobs or None)


# --------------------------------------------------------------------------------------------------------- paths


def test_paths() -> None:
    easy, medium, hard = World(0.29), World(0.3), World(0.7)
    assert run(easy).outcome.text == "5"
    assert easy.made == [("fast", "answer")]
    assert run(medium).outcome.text == "5"
    assert medium.made == [("fast", "answer"), ("slow", "judge")]
    assert run(hard).outcome.text == "4", "by majority: there are no log-probabilities"
    assert sorted(hard.made) == [("fast", "answer")] + [("slow", "answer")] * 5
    slow = [c for c in hard.calls if c.target == "slow"]
    assert [c.sample for c in slow] == [0, 1, 2, 3, 4]
    assert [c.params.get("temperature") for c in slow] == [None] + [0.3] * 4
    assert all(c.params["logprobs"] for c in hard.calls if c.purpose != "gate")
    (verdict,) = [c for c in medium.calls if c.purpose == "judge"]
    assert (verdict.prompt, verdict.alone) == ("correct@1", True)
    assert verdict.messages is not None
    assert "What is 2 + 2?" in verdict.messages[-1].text
    assert "<<<\n5\n>>>" in verdict.messages[-1].text


def test_bounds_belong_to_the_side_above() -> None:
    plan = msgspec.structs.replace(PLAN, low=0.25, high=0.75)  # numbers that 1 - (1 - d) gives back
    calls = []
    for d in (0.25 - 2**-20, 0.25, 0.75 - 2**-20, 0.75):
        world = World(d)
        run(world, plan)
        calls.append(len(world.made))
    assert calls == [1, 2, 2, 6]


def test_only_an_answer_that_nobody_judges_is_streamed() -> None:
    """Steps in order: whether the reply is the answer."""

    def final(difficulty: float, fast: Outcome) -> list[bool]:
        steps, seen = PLAN.run(QUERY), []
        do = next(steps)
        replies = [Outcome(text=said({"fast": Forecast(quality=1.0 - difficulty)})), fast, Outcome(text="yes")]
        for reply in replies:
            seen.append(do.final)
            try:
                do = steps.send((reply,) * len(do.branches))
            except StopIteration:
                break
        return seen

    assert final(0.1, drawn("5")) == [False, True]
    assert final(0.5, drawn("5")) == [False, False, False]
    assert final(0.5, failed()) == [False, False, True]
    assert final(0.9, drawn("5")) == [False, False]


def test_cost_accounting_is_exact() -> None:
    rng = np.random.default_rng(0)
    difficulties = rng.random(300)
    queries = [Query.ask(f"question {i}", id=f"q{i}") for i in range(300)]
    found = measure(
        {"plan": PLAN},
        ["fast", "slow"],
        queries,
        look_up=lambda q: World(float(difficulties[q])),
        grade=lambda q, outcome: 1.0,
    )
    share = [float(np.mean(d)) for d in (difficulties < 0.3, (difficulties >= 0.3) & (difficulties < 0.7))]
    share.append(1.0 - sum(share))
    assert found.calls_PQ[2].mean() == pytest.approx(share[0] * 1 + share[1] * 2 + share[2] * 6)
    assert found.usd_PQ[2].mean() == pytest.approx(share[0] * 1 + share[1] * 11 + share[2] * 51)


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=40)
def test_harder_queries_never_get_fewer_calls(difficulties: list[float], one: float, other: float) -> None:
    plan = msgspec.structs.replace(PLAN, low=min(one, other), high=max(one, other))
    calls = []
    for d in sorted(difficulties):
        world = World(d)
        run(world, plan)
        calls.append(len(world.made))
    assert calls == sorted(calls)
    assert set(calls) <= {1, 2, 6}


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 0.999])
def test_thresholds_0_0_are_always_hard_and_1_1_always_fast(difficulty: float) -> None:
    hard, fast = World(difficulty), World(difficulty)
    run(hard, msgspec.structs.replace(PLAN, low=0.0, high=0.0))
    run(fast, msgspec.structs.replace(PLAN, low=1.0, high=1.0))
    assert (len(hard.made), len(fast.made)) == (6, 1)


@pytest.mark.parametrize(
    "gate",
    [failed(), failed("bad_request"), drawn("}{"), drawn(""), drawn(said({"other": Forecast(quality=0.0)}))],
)
def test_a_gate_that_fails_or_says_nothing_of_it_is_medium(gate: Outcome) -> None:
    world = World(gate)
    assert run(world).outcome.ok
    assert world.made == [("fast", "answer"), ("slow", "judge")]


def test_without_a_gate_all_is_medium() -> None:
    world = World(0.0)
    run(world, msgspec.structs.replace(PLAN, gate=None))
    assert [c.purpose for c in world.calls] == ["answer", "judge"]


def test_the_gate_may_name_the_difficulty_otherwise() -> None:
    told = drawn(said({"fast": Forecast(quality=0.0), "people": Forecast(quality=0.9)}))
    world = World(told)
    run(world, msgspec.structs.replace(PLAN, of="people"))
    assert world.made == [("fast", "answer")]


# ---------------------------------------------------------------------------------------------- the verifier's reply


@pytest.mark.parametrize(
    ("reply", "text", "confidence"),
    [
        ("yes", "5", 1.0),
        ("**Yes**, it is.", "5", 1.0),
        ("no\n4", "4", None),
        ("No.\n\n4", "4", None),
        ("**No**\n-4", "-4", None),
        ("no: .5", ".5", None),
        ("No, it is four.", "it is four.", None),
        ("No, it is correct as far as I can tell.", "5", 0.0),
        ("No, it's correct.", "5", 0.0),
        ("No. The answer is right here: 4", "The answer is right here: 4", None),
        ("no", "5", 0.0),
        ("No.", "5", 0.0),
        ("No. \n ", "5", 0.0),
        ("No problem with this one.", "5", 0.0),
        ("none\nfour", "5", 0.5),
        ("4", "5", 0.5),
        ("", "5", 0.5),
    ],
)
def test_verdicts(reply: str, text: str, confidence: float | None) -> None:
    first = Outcome(text="5", target="fast", confidence=0.5, reply=b"five")
    found = verified(first, Outcome(text=reply, target="slow", reply=b"bytes"))
    assert (found.text, found.confidence) == (text, confidence)
    assert (found.target, found.reply) == (("fast", b"five") if text == "5" else ("slow", b""))


def test_two_calls_whatever_the_verdict() -> None:
    for verdict in ("yes", CORRECTION, "no", "hm", failed(), failed("bad_request")):
        world = World(0.5, verdict=verdict)
        done = run(world)
        assert len(world.made) == 2
        assert (done.outcome.text, done.outcome.target) == (("4", "slow") if verdict == CORRECTION else ("5", "fast"))


def test_an_answer_that_calls_tools_is_not_verified() -> None:
    calls = msgspec.Raw(b'[{"id": "1"}]')
    world = World(0.5, fast=Outcome(tool_calls=calls))
    assert run(world).outcome.tool_calls == calls
    assert len(world.made) == 1


def test_another_target_may_verify() -> None:
    plan = FastSlow(fast=Single(target="fast"), slow=Vote(members=(Single(target="slow"),)), best_of=1, verifier="gate")
    world = World(0.5, verdict=CORRECTION)
    assert run(world, plan).outcome.target == "gate"
    assert world.made == [("fast", "answer"), ("gate", "judge")]


# ------------------------------------------------------------------------------------------------------ the choice


def hard(fast: Outcome, *slow: Outcome, **more: Any) -> Outcome:
    plan = msgspec.structs.replace(PLAN, best_of=len(slow), **more)
    return run(World(1.0, fast=fast, slow=lambda s: slow[s]), plan).outcome


def test_the_lowest_free_energy_is_chosen() -> None:
    chosen = hard(drawn("5", -1.0), drawn("6", -0.6), drawn("5", -0.5), drawn("7", -0.9))
    assert (chosen.text, chosen.target, chosen.confidence) == ("5", "slow", 0.5)
    assert hard(drawn("5", -0.1), drawn("6", -0.6), drawn("6", -0.6)).target == "fast"


def test_of_equal_energies_the_slow_one_is_chosen() -> None:
    assert hard(drawn("5", -0.5), drawn("6", -0.5), drawn("7", -0.5)).text == "6"


def test_the_weight_counts() -> None:
    smooth, erratic = drawn("6", -0.6, -0.6), drawn("7", 0.0, -1.0)
    assert hard(drawn("5", -2.0), smooth, erratic, weight=0.0).text == "7"
    assert hard(drawn("5", -2.0), smooth, erratic, weight=1.0).text == "6"


def test_per_character() -> None:
    long, short = drawn("sixty-six", -0.9, -0.9), drawn("7", -0.5)
    assert hard(drawn("5", -2.0), long, short).text == "7"
    assert hard(drawn("5", -2.0), long, short, per="character").text == "sixty-six"


def test_an_answer_that_cannot_be_read_is_no_candidate() -> None:
    assert hard(drawn("5", -1.0), drawn("I do not know", -0.1), drawn("6", -2.0), answers="number").text == "5"
    assert hard(failed(), drawn("no idea", -0.1), drawn("hm", -0.01), answers="number").text == "no idea"


def test_alignment_is_affine() -> None:
    """After calibration a model whose energies are mapped a * F + b leaves the choice as it was."""
    random = Random(3)
    raw_differs = 0
    for _ in range(30):
        fast, slow = random.uniform(0.1, 2.0), [random.uniform(0.1, 2.0) for _ in range(3)]
        a, b = random.uniform(0.2, 4.0), random.uniform(0.0, 2.0)
        plain = hard(
            drawn("f", -fast),
            *(drawn(f"s{i}", -s) for i, s in enumerate(slow)),
            calibration={"fast": (1.0, 0.5), "slow": (0.8, 0.4)},
        )
        mapped = hard(
            drawn("f", -(a * fast + b)),
            *(drawn(f"s{i}", -s) for i, s in enumerate(slow)),
            calibration={"fast": (a * 1.0 + b, a * 0.5), "slow": (0.8, 0.4)},
        )
        assert mapped.text == plain.text
        raw = hard(drawn("f", -(a * fast + b)), *(drawn(f"s{i}", -s) for i, s in enumerate(slow)))
        raw_differs += raw.text != plain.text
    assert raw_differs > 3, "else this test could not fail"


def test_a_calibration_without_spread_is_handled() -> None:
    flat = {"fast": (1.0, 0.0), "slow": (1.0, 0.5)}
    assert hard(drawn("f", -9.0), drawn("s0", -1.2), drawn("s1", -1.1), calibration=flat).text == "f"
    assert hard(drawn("f", -0.1), drawn("s0", -0.9), drawn("s1", -1.1), calibration=flat).text == "s0"


def test_one_target_alone_needs_no_calibration() -> None:
    assert hard(failed(), drawn("6", -0.6), drawn("7", -0.5), calibration={"fast": (1.0, 1.0)}).text == "7"


@pytest.mark.parametrize("missing", [None, (), (float("-inf"),)])
def test_missing_log_probabilities_are_settled_by_majority(missing: Any) -> None:
    lacking = Outcome(text="5", logprobs=missing)
    chosen = hard(drawn("5", -1.0), drawn("6", -0.01), lacking, drawn("7", -0.02))
    assert (chosen.text, chosen.confidence) == ("5", 0.5)


def test_a_target_that_is_not_calibrated_is_settled_by_majority() -> None:
    chosen = hard(drawn("5", -0.1), drawn("6", -0.9), drawn("6", -0.9), calibration={"slow": (1.0, 1.0)})
    assert chosen.text == "6"


# ------------------------------------------------------------------------------------------- limits and failures


def test_if_the_fast_plan_fails_the_slow_one_answers() -> None:
    for difficulty in (0.0, 0.5):
        world = World(difficulty, fast=failed())
        assert run(world).outcome.text == "4"
        assert world.made == [("fast", "answer"), ("slow", "answer")]
    world = World(0.0, fast=failed("timeout"), slow=lambda s: failed())
    error = run(world).outcome.error
    assert error is not None
    assert error.kind == "timeout"


@pytest.mark.parametrize(
    "outcome", [failed("bad_request"), Outcome(streamed=True, error=Failure(kind="broken_stream"))]
)
def test_a_bad_request_and_a_broken_stream_are_not_asked_again(outcome: Outcome) -> None:
    world = World(0.0, fast=outcome)
    assert not run(world).outcome.ok
    assert len(world.made) == 1


def test_the_hard_path_survives_failing_draws() -> None:
    assert hard(failed(), failed(), drawn("6", -0.1), failed()).confidence == 0.25
    assert hard(drawn("5", -3.0), failed(), failed()).text == "5"
    assert hard(failed("timeout"), failed("rate_limited"), failed()).error == Failure(kind="rate_limited")


@pytest.mark.parametrize(("calls", "text"), [(1, "5"), (2, "4")])
def test_a_limit_on_the_medium_path(calls: int, text: str) -> None:
    done = run(World(0.5, verdict=CORRECTION), limits=Limits(calls=calls))
    assert (done.outcome.text, done.outcome.limited) == (text, "budget" if calls == 1 else "")
    assert done.outcome.ok == bool(text)


@pytest.mark.parametrize("calls", range(1, 7))
def test_a_limit_on_the_hard_path_leaves_fewer_draws(calls: int) -> None:
    world = World(0.9, slow=lambda s: drawn("4", -1.0 + s / 10))
    done = run(world, limits=Limits(calls=calls))
    assert sum(s.outcome.ok for s in done.steps) == 1 + calls, "a gate counts as no call"
    assert (done.outcome.text, done.outcome.limited) == ("4", "" if calls == 6 else "budget")


def test_the_budget_is_kept() -> None:
    def estimate(call: Call, query: Query) -> float:
        return {"gate": 0.0, "fast": 1.0, "slow": 10.0}[call.target]

    for usd in (0.5, 1.0, 12.0, 31.0, 51.0):
        done = run(World(0.9), limits=Limits(usd=usd), estimate=estimate)
        assert (done.usd or 0.0) <= usd
        assert done.outcome.ok == (usd >= 1.0)


# ----------------------------------------------------------------------------------------------- what it is worth


class Synthetic(LookUp):
    """The fast target is right unless the query is hard; the slow one nearly always, and its energies say so (correlation about a half)."""

    def __init__(self, q: int, told: float, hardness: float) -> None:
        self.q, self.told, self.hardness = q, told, hardness

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        random = Random(f"{self.q} {call.target} {call.purpose} {call.sample}")
        usd = {"gate": 0.0, "fast": 1.0, "slow": 5.0}[call.target]
        if call.purpose == "gate":
            return Outcome(text=said({"fast": Forecast(quality=1.0 - self.told)}), target="gate", usd=0.0)
        if call.purpose == "judge":
            assert call.messages is not None
            fast_right = "<<<\nright\n>>>" in call.messages[-1].text
            sees = random.random() < 0.9
            return Outcome(text="yes" if fast_right or not sees else "no\nright", target="slow", usd=usd)
        able = 1.0 - self.hardness if call.target == "fast" else 0.95 - 0.4 * self.hardness
        right = random.random() < able
        surprisal = abs(random.gauss(0.6 if right else 1.2, 0.5)) + 0.01
        return Outcome(
            text="right" if right else f"wrong {random.random()}", target=call.target, usd=usd, logprobs=(-surprisal,)
        )


def replayed(told: np.ndarray[Any, Any], hardness: np.ndarray[Any, Any]) -> Any:
    n = len(hardness)
    return measure(
        {"plan": PLAN},
        ["fast", "slow"],
        [Query.ask(f"question {i}", id=f"q{i}") for i in range(n)],
        look_up=lambda q: Synthetic(q, float(told[q]), float(hardness[q])),
        grade=lambda q, outcome: float(outcome.text == "right"),
    )


def test_it_beats_random_routing_with_the_same_call_mix() -> None:
    rng = np.random.default_rng(5)
    hardness = rng.random(1500)
    informed = replayed(hardness, hardness)
    by_chance = replayed(rng.permutation(hardness), hardness)
    assert informed.calls_PQ[2].mean() == by_chance.calls_PQ[2].mean(), "the same mix"
    gain = informed.quality_PQ[2] - by_chance.quality_PQ[2]
    assert gain.mean() > 4.0 * gain.std() / len(gain) ** 0.5
    assert gain.mean() > 0.05
    (_, _, row) = compare(informed, resamples=100)
    assert row.gain.low > 0.0


def test_a_gate_that_knows_nothing_is_random_routing() -> None:
    rng = np.random.default_rng(6)
    hardness = rng.random(1500)
    one, other = (replayed(rng.permutation(hardness), hardness) for _ in range(2))
    gain = one.quality_PQ[2] - other.quality_PQ[2]
    assert abs(gain.mean()) < 3.0 * gain.std() / len(gain) ** 0.5


# ------------------------------------------------------------------------------------------------------------ as data


def test_the_family_check() -> None:
    check_plan(FastSlow.example)
    check_plan(lambda: msgspec.structs.replace(PLAN, calibration={"fast": (1.0, 0.5)}, low=0.0, high=0.0))
    check_plan(lambda: msgspec.structs.replace(PLAN, gate=None))


def test_written_and_read_back() -> None:
    mine = Prompt(name="mine", text="{question} {answer}")
    plan = msgspec.structs.replace(PLAN, calibration={"fast": (1.0, 0.5)}, prompt=mine, of="x")
    assert decode(to_data(plan)) == plan
    assert hash(decode(to_data(plan))) == hash(plan)
    bare = decode({"kind": "fast_slow", "fast": "a", "slow": "b"})
    assert bare == FastSlow(fast=Single(target="a"), slow=Single(target="b"))
    assert bare.targets() == ("a", "b")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"low": 0.8}, "low is at most high"),
        ({"high": 1.2}, r"\[0, 1\]"),
        ({"best_of": 0}, "at least 1"),
        ({"slow": {"kind": "vote", "members": ["b"]}}, "single call"),
        ({"slow": {"kind": "vote", "members": ["b"]}, "best_of": 1}, "single call"),
        ({"calibration": {"a": [1.0, -1.0]}}, "negative"),
        ({"weight": -1.0}, "negative"),
        ({"answers": "runes"}, "runes"),
        ({"prompt": "verdict@9"}, "verdict@9"),
        ({"prompt": {"name": "p", "text": "{answers}"}}, "answers"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "fast_slow", "fast": "a", "slow": "b", **wrong})
