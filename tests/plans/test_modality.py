"""The way is chosen by a gate, both ways are fused, each sees what it may, and what is risky or unsure goes to the strongest."""

from __future__ import annotations

from random import Random

import msgspec
import numpy as np
import pytest

from fairlead.plans.base import decode, to_data
from fairlead.plans.gates import said
from fairlead.plans.modality import Modality, bar, sureness, worthwhile
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.types import Call, Failure, Forecast, Limits, Message, Outcome, Part, Path, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, replay

PICTURE = Part(type="image_url")
QUERY = msgspec.structs.replace(
    Query.ask("x", id="q"), messages=(Message(role="user", content=(Part(text="how many?"), PICTURE)),)
)
PLAN = Modality(text=Single(target="reader"), image=Single(target="eye"), arbiter="judge", gate="gate")
STRICT = Modality(
    text=Single(target="reader"), image=Single(target="eye"), gate="gate", strongest=Single(target="big"), risk="guard"
)


class World(LookUp):
    def __init__(self, **replies: Outcome | str | None) -> None:
        self.replies = replies
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: Path) -> Outcome:
        self.calls.append(call)
        reply = self.replies.get(call.target)
        if isinstance(reply, str):
            reply = Outcome(text=reply, logprobs=(-0.01,))
        if reply is None:
            reply = Outcome(error=Failure(kind="unavailable"))
        return msgspec.structs.replace(reply, target=call.target, usd=0.01, seconds=0.1)

    @property
    def asked(self) -> list[str]:
        return [c.target for c in self.calls]


def gate(**quality: float) -> str:
    return said({name: Forecast(quality=q) for name, q in quality.items()})


def ran(
    plan: Modality, query: Query = QUERY, limits: Limits | None = None, **replies: Outcome | str | None
) -> tuple[Run, World]:
    world = World(**replies)
    return replay(plan, query, world, limits=limits or Limits(), estimate=lambda c, q: 0.01), world


@pytest.mark.parametrize(("best", "asked"), [("reader", ["gate", "reader"]), ("eye", ["gate", "eye"])])
def test_the_gate_chooses_the_way(best: str, asked: list[str]) -> None:
    run, world = ran(PLAN, gate=gate(**{"reader": 0.2, "eye": 0.3, "both": 0.1, best: 0.9}), reader="4", eye="5")
    assert world.asked == asked
    assert run.outcome.target == best


def test_both_ways_that_agree_need_no_arbiter() -> None:
    run, world = ran(PLAN, gate=gate(both=0.9, eye=0.5), reader="Four.", eye="four")
    assert world.asked == ["gate", "reader", "eye"]
    assert run.outcome.target == "eye"


def test_where_they_differ_the_arbiter_sees_the_question_and_both_answers() -> None:
    run, world = ran(PLAN, gate=gate(both=0.9), reader="4", eye="5", judge="5")
    assert run.outcome.target == "judge"
    call = world.calls[-1]
    assert call.messages is not None
    assert call.messages[0] is QUERY.messages[0]  # with its picture
    assert "4" in call.messages[-1].text
    assert "5" in call.messages[-1].text
    assert call.prompt == "arbitrate@1"
    failed, _ = ran(PLAN, gate=gate(both=0.9, eye=0.8, reader=0.1), reader="4", eye="5")
    assert failed.outcome.text == "5"


def test_the_text_way_is_shown_no_picture_also_inside_a_nest() -> None:
    nest = Modality(text=Vote(members=(Single(target="reader"), Single(target="other"))), image=Single(target="eye"))
    _, world = ran(nest, reader="4", other="4")
    assert world.asked == ["reader", "other"]
    for call in world.calls:
        assert call.messages is not None
        assert [m.content for m in call.messages] == ["how many?"]


def test_a_question_without_pictures_is_answered_as_text() -> None:
    _, world = ran(PLAN, Query.ask("how many?"), reader="4")
    assert world.asked == ["reader"]


@pytest.mark.parametrize("reply", [None, "rubbish", "{}"])
def test_a_gate_that_says_nothing_means_both_ways(reply: str | None) -> None:
    _, world = ran(PLAN, gate=reply, reader="4", eye="4")
    assert world.asked == ["gate", "reader", "eye"]


def test_one_way_that_fails_leaves_the_other() -> None:
    run, world = ran(PLAN, gate=gate(both=0.9), eye="5")
    assert run.outcome.text == "5"
    assert "judge" not in world.asked


def test_sureness_and_bar() -> None:
    sure = [sureness(Outcome(logprobs=(p,)), -2.0) for p in (0.0, -1.0, -2.0, -9.0)]
    assert sure == [1.0, 0.5, 0.0, 0.0]
    assert sureness(Outcome(), -2.0) == 0.0
    bars = [bar(d, 0.8, 0.92) for d in (0.0, 0.3, 0.5, 0.7, 1.0)]
    assert bars == pytest.approx([0.8, 0.8, 0.86, 0.92, 0.92])
    grid = [bar(d, 0.8, 0.92) for d in np.linspace(0, 1, 101)]
    assert max(np.diff(grid)) < 0.01
    assert min(np.diff(grid)) >= 0.0


def test_an_answer_that_is_not_sure_goes_to_the_strongest() -> None:
    calm = gate(risky=0.0)
    for logprob, expected in ((-0.01, "eye"), (-0.5, "big")):
        run, _ = ran(STRICT, guard=calm, gate=gate(eye=0.9), eye=Outcome(text="5", logprobs=(logprob,)), big="6")
        assert run.outcome.target == expected
    silent, _ = ran(STRICT, guard=calm, gate=gate(eye=0.9), eye=Outcome(text="5"), big="6")
    assert silent.outcome.target == "big"
    # The same answer is sure enough for an easy question and not for a hard one.
    between = Outcome(text="5", logprobs=(-0.15,))
    for quality, expected in ((0.9, "eye"), (0.1, "big")):
        run, _ = ran(STRICT, guard=calm, gate=gate(eye=quality), eye=between, big="6")
        assert run.outcome.target == expected


@pytest.mark.parametrize("reply", [gate(risky=0.5), gate(other=0.1), None, "rubbish"])
def test_what_may_be_risky_never_reaches_the_small_ones(reply: str | None) -> None:
    run, world = ran(STRICT, guard=reply, gate=gate(eye=0.9), eye="5", big="6")
    assert world.asked == ["guard", "big"]
    assert run.outcome.text == "6"


def test_raising_the_bar_never_sends_less_on() -> None:
    random = Random(0)
    answers = [(random.random(), -random.random()) for _ in range(300)]
    shares = []
    for easy in (0.2, 0.5, 0.8, 0.92):
        sent = 0
        for d, logprob in answers:
            sent += sureness(Outcome(logprobs=(logprob,)), -1.0) < bar(d, easy, 0.92)
        shares.append(sent)
    assert shares == sorted(shares)


def test_cost_of_sending_on() -> None:
    """E[c] = (1 - alpha) c_S + alpha (c_S + c_L): as simulated, and worth it only below alpha = 1 - c_S / c_L."""
    random = Random(1)
    alpha, small, strong = 0.35, 1.0, 4.0
    paid = [small + strong * (random.random() < alpha) for _ in range(20_000)]
    assert np.mean(paid) == pytest.approx((1 - alpha) * small + alpha * (small + strong), abs=0.05)
    assert worthwhile(0.7, small, strong)
    assert not worthwhile(0.8, small, strong)


def test_the_table_of_the_paper_adds_up() -> None:
    for usd, saved in ((0.13, 52), (0.08, 70), (0.06, 78)):
        assert round(100 * (1 - usd / 0.27)) == saved


def test_a_bar_that_knows_the_difficulty_is_no_worse_than_the_best_fixed_one() -> None:
    """Where answers to hard questions are surer than they should be; with calibrated ones there is nothing to gain."""
    rng = np.random.default_rng(2)
    d = rng.random(40_000)
    right = rng.random(40_000) < 1.0 - 0.8 * d

    def quality(confidence: np.ndarray, bars: np.ndarray) -> tuple[float, float]:
        kept = confidence >= bars
        return float(kept.mean()), float(np.where(kept, right, 1.0).mean())

    for bias, gains in ((0.5, True), (0.0, False)):
        confidence = np.clip(1.0 - 0.8 * d + bias * d + rng.normal(0.0, 0.02, d.size), 0.0, 1.0)
        fixed = [quality(confidence, np.full(d.size, b)) for b in np.linspace(0.2, 1.0, 81)]
        slope = [quality(confidence, b + (bias + 1e-9) * d) for b in np.linspace(0.0, 1.0, 101)]
        at = 0.5
        best_fixed = np.interp(at, *zip(*sorted(fixed), strict=True))
        aware = np.interp(at, *zip(*sorted(slope), strict=True))
        assert aware >= best_fixed - 0.005
        assert (abs(aware - best_fixed) < 0.005) or gains


@pytest.mark.parametrize("calls", range(1, 6))
def test_limits_leave_the_best_answer(calls: int) -> None:
    run, _ = ran(
        STRICT, limits=Limits(calls=calls), guard=gate(risky=0.0), gate=gate(eye=0.9), eye=Outcome(text="5"), big="6"
    )
    assert run.outcome.ok, "gates count as no calls"
    assert bool(run.outcome.limited) == (calls == 1)
    assert run.outcome.text == ("5" if calls == 1 else "6")


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor": 0.0},
        {"floor": float("nan")},
        {"risky_from": 7.0},
        {"risky_from": float("nan")},
        {"bar_easy": 0.95},
        {"risk": "g"},
        {"answers": "nope"},
        {"prompt": "nope@1"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    from fairlead.errors import ConfigError

    data = {**to_data(PLAN), **wrong}
    with pytest.raises(ConfigError):
        decode(data)


def test_both_ways_ask_for_the_log_probabilities_that_the_bar_needs() -> None:
    plan = msgspec.structs.replace(PLAN, strongest=Single(target="big"))
    _, world = ran(plan, gate=gate(both=0.9), reader="4", eye="5", judge="5", big="6")
    assert [bool(c.params.get("logprobs")) for c in world.calls if c.target in ("reader", "eye", "judge")] == [True] * 3


def test_sound_and_files_are_not_taken_away() -> None:
    for kind, way in (("input_audio", "eye"), ("file", "eye")):
        parts = (Part(text="transcribe"), Part(type=kind))
        query = msgspec.structs.replace(QUERY, messages=(Message(role="user", content=parts),))
        _, world = ran(PLAN, query, gate=gate(reader=0.9), reader="4", eye="5")
        assert world.asked == [way]
        assert world.calls[0].messages is None


def test_ways_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="must differ"):
        Modality(text=Single(target="v"), image=Single(target="v"))
