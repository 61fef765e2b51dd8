"""The lab as a source of outcomes: what the live drivers say, to the letter, and nothing is worked out twice."""

import pytest

from fairlead.lab.compound import draw_compound
from fairlead.lab.crew import VERIFY
from fairlead.lab.eye import draw_tables
from fairlead.lab.pool import LabTarget
from fairlead.lab.tasks import draw
from fairlead.lab.world import Lab, seconds
from fairlead.plans import prompts
from fairlead.plans.base import decode
from fairlead.plans.single import Single
from fairlead.types import Call, Limits, Message, Outcome, Query
from fairlead.worlds.replay import replay

STEPS = draw_compound(1, 3, split="test")[0]
TASK = draw(1, 3, split="test")[0]
TABLE = draw_tables(1, 1)[0].query("table")
CREW = (
    LabTarget("judge", "lab-judge"),
    LabTarget("step", "lab-step", "working"),
    LabTarget("steps", "lab-steps", "scratch"),
    LabTarget("lab-eye", "lab-eye"),
)
ASKED = Query.ask(TASK.prompt, id="q")
BOUND = Query.ask(TASK.prompt, id="q", max_tokens=3, temperature=0.7, logprobs=True)


def on(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=STEPS.prompt), Message(role="assistant", content=text))


CALLS = {
    "plain": (Call(target="lab-small"), ASKED),
    "scratch": (Call(target="lab-numbers-scratch"), Query.ask("12+34=", id="q")),
    "drawn": (Call(target="lab-nano", sample=3, params={"temperature": 0.8}), ASKED),
    "the client's own fields": (Call(target="lab-nano"), BOUND),
    "alone": (Call(target="lab-nano", alone=True), BOUND),
    "several": (Call(target="lab-nano", params={"n": 3, "temperature": 1.0}), ASKED),
    "a judge": (prompts.ask("judge", VERIFY, ASKED, purpose="judge", question=TASK.prompt, answer=TASK.answer), ASKED),
    "working": (Call(target="step"), Query.ask(STEPS.prompt, id="q")),
    "gone on": (Call(target="step", alone=True, messages=on(f"{STEPS.results[0]};"), params={"stop": [";"]}), ASKED),
    "a look ahead": (
        Call(target="step", messages=on(f"{STEPS.results[0]};"), params={"max_tokens": 1, "temperature": 1.0}),
        ASKED,
    ),
    "reasoning": (Call(target="steps"), Query.ask(STEPS.prompt, id="q")),
    "a picture": (Call(target="lab-eye"), TABLE),
    "too long": (Call(target="lab-nano"), Query.ask("x" * 400, id="q")),
    "too much written": (Call(target="step", messages=on("x" * 400)), ASKED),
    "a bad field": (Call(target="lab-nano", params={"max_tokens": "many"}), ASKED),
    "a bad temperature": (Call(target="lab-nano", params={"temperature": -1}), ASKED),
    "no picture": (Call(target="lab-eye"), ASKED),
}
FIELDS = ("target", "text", "model", "logprobs", "tokens", "first_entropy", "finish", "error")


@pytest.mark.parametrize("name", CALLS)
async def test_the_same_as_the_live_driver(name: str) -> None:
    call, query = CALLS[name]
    lab = Lab(*CREW)
    driver = lab.drivers[call.target]
    await driver.start()
    live = await driver.ask(call, query)
    await driver.stop()
    for found in (lab.answer(call, query), lab.answer(call, query)):
        assert [getattr(found, f) for f in FIELDS] == [getattr(live, f) for f in FIELDS]
        assert found.usd == (None if live.usd is None else pytest.approx(live.usd))
    assert lab.asked == (1 if live.ok and call.target != "lab-eye" else 0)
    estimate = lab.estimate(call, query)
    assert estimate is not None
    assert estimate >= (live.usd or 0.0)


def test_what_is_the_same_is_asked_once() -> None:
    lab = Lab()
    other = Query.ask(TASK.prompt, id="another")
    for query in (ASKED, other):
        for sample in (0, 1):
            lab.answer(Call(target="lab-nano", sample=sample), query)
    assert lab.asked == 1  # greedy: every draw is the same
    hot = {"temperature": 0.8}
    for query in (ASKED, other, ASKED):
        for sample in (0, 1):
            lab.answer(Call(target="lab-nano", sample=sample, params=hot), query)
    assert lab.asked == 5
    lab.answer(Call(target="lab-small"), ASKED)
    assert lab.asked == 6


def test_time_is_worked_out_and_the_same_every_time() -> None:
    first, second = (Lab().answer(Call(target="lab-large"), ASKED) for _ in range(2))
    assert first == second
    assert first.tokens is not None
    lab = Lab()
    driver = lab.drivers["lab-large"]
    from fairlead.lab.pool import describe

    shape = describe(driver.model).shape  # type: ignore[union-attr]
    assert first.seconds == seconds(shape, input_tokens=first.tokens.input, output_tokens=first.tokens.output)
    assert seconds(shape, input_tokens=9, output_tokens=9) > seconds(shape, input_tokens=9, output_tokens=8)


def test_an_estimate_is_near_where_the_answer_is_bounded() -> None:
    lab = Lab()
    call = Call(target="lab-large", params={"max_tokens": 2})
    usd = lab.answer(call, ASKED).usd
    estimate = lab.estimate(call, ASKED)
    assert usd is not None
    assert estimate is not None
    assert usd <= estimate <= 2 * usd


def test_plans_run_on_it_within_their_limits() -> None:
    lab = Lab(*CREW)
    plan = decode(
        {
            "kind": "cascade",
            "steps": ["lab-nano", "lab-large"],
            "accept": {"kind": "mean_logprob", "above": 0.5},
        }
    )
    run = replay(plan, ASKED, lab.of(ASKED), estimate=lab.estimate)
    assert [s.outcome.target for s in run.steps] == ["lab-nano", "lab-large"]
    large = lab.estimate(Call(target="lab-large"), ASKED)
    assert large is not None
    bounded = replay(plan, ASKED, lab.of(ASKED), estimate=lab.estimate, limits=Limits(usd=large * 0.9))
    assert bounded.outcome.target == "lab-nano"
    assert bounded.usd is not None
    assert bounded.usd <= large * 0.9


def test_what_is_no_model_is_given_beside() -> None:
    lab = Lab()
    said = Outcome(text="{}", target="gate", usd=0.0)
    assert replay(Single(target="gate"), ASKED, lab.of(ASKED, {"gate": said})).outcome.text == "{}"
    assert lab.estimate(Call(target="gate"), ASKED) == 0.0
    missing = replay(Single(target="gate"), ASKED, lab.of(ASKED)).outcome
    assert missing.error is not None
    assert missing.error.kind == "not_found"
