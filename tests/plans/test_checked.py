"""The plan `checked`: judged by words, retried on a stronger target, the same in a replay."""

import msgspec
import pytest

from fairlead.plans.base import decode, to_data
from fairlead.plans.checked import LONGEST, Checked
from fairlead.plans.single import Single
from fairlead.targets.scripted import Reply, Scripted
from fairlead.testing import check_plan, comparable
from fairlead.types import Failure, Limits, Message, Outcome, Plan, Profile, Query
from fairlead.worlds.base import Run
from fairlead.worlds.live import Live
from fairlead.worlds.replay import Recorded, replay

SOURCE = "Context: The bridge was opened in 1978 by Mayor Keller. It spans 412 metres."
GOOD, BAD = "It spans 412 metres. The bridge was opened in 1978.", "It spans 412 metres. The bridge was opened in 1999."
QUERY = Query(id="q", messages=(Message(role="user", content=SOURCE + "\n\nWhen was it opened?"),))
PRICED = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
DOWN = Reply(error=Failure(kind="unavailable", message="down"))


async def run(
    weak: str | Reply, strong: str | Reply = GOOD, *, plan: Plan | None = None, limits: Limits | None = None
) -> tuple[Run, list[bytes]]:
    sent: list[bytes] = []

    async def sink(events: bytes) -> None:
        sent.append(events)

    drivers = {
        name: Scripted(name=name, replies=(reply,), profile=PRICED)
        for name, reply in (("weak", weak), ("strong", strong))
    }
    world = Live(drivers=drivers)
    plan = plan or Checked(plan=Single(target="weak"), stronger="strong")
    found = await world.run(plan, QUERY, sink=sink, limits=limits or Limits())
    again = replay(plan, QUERY, Recorded(found.steps))
    assert comparable(again) == comparable(found)
    return found, sent


def called(found: Run) -> list[str]:
    return [s.call.target for s in found.steps if s.call is not None]


async def test_a_supported_answer_stands_and_is_not_streamed() -> None:
    found, sent = await run(GOOD)
    assert (found.outcome.text, called(found), sent) == (GOOD, ["weak"], [])
    assert not found.outcome.streamed


async def test_an_unsupported_answer_is_asked_again_streamed_and_charged() -> None:
    found, sent = await run(BAD)
    assert (found.outcome.text, called(found)) == (GOOD, ["weak", "strong"])
    assert found.outcome.streamed
    assert b"1999" not in b"".join(sent)
    assert found.usd == pytest.approx(sum(s.outcome.usd or 0.0 for s in found.steps))
    assert len([s for s in found.steps if s.outcome.usd]) == 2


async def test_above_says_how_much_must_be_supported() -> None:
    for above, names in ((0.5, ["weak"]), (0.51, ["weak", "strong"]), (0.0, ["weak"])):
        found, _ = await run(BAD, plan=Checked(plan=Single(target="weak"), stronger="strong", above=above))
        assert called(found) == names


async def test_what_claims_nothing_or_is_the_stronger_targets_needs_no_test() -> None:
    found, _ = await run("I don't know.")
    assert called(found) == ["weak"]
    found, _ = await run(GOOD, BAD, plan=Checked(plan=Single(target="strong"), stronger="strong"))
    assert (called(found), found.outcome.text) == (["strong"], BAD)


async def test_the_first_answer_stands_where_the_second_fails() -> None:
    found, _ = await run(BAD, DOWN)
    assert (found.outcome.text, called(found)) == (BAD, ["weak", "strong"])
    found, _ = await run(BAD, limits=Limits(calls=1))
    assert (found.outcome.text, called(found)) == (BAD, ["weak"])
    found, _ = await run(DOWN)
    assert found.outcome.error is not None
    assert called(found) == ["weak"], "a failure is for the fallback around it"


def test_it_is_data() -> None:
    plan = Checked(plan=Single(target="a"), stronger="b", above=0.8)
    assert decode(to_data(plan)) == plan
    assert plan.targets() == ("a", "b")
    assert len({plan, Checked(plan=Single(target="a"), stronger="b", above=0.8)}) == 1
    for wrong in ({"above": 1.5}, {"bar": -0.1}):
        with pytest.raises(ValueError, match="shares"):
            Checked(plan=Single(target="a"), stronger="b", **wrong)


def test_it_judges_by_the_messages_alone() -> None:
    """A record keeps no body: the same verdict must come from the messages."""
    plan = Checked.example()
    blank = msgspec.structs.replace(QUERY, body={"documents": msgspec.Raw(b'["1999"]')})
    assert plan.accepts(QUERY, Outcome(text=BAD, target="a", tool_calls=msgspec.Raw(b"[{}]")))
    assert plan.accepts(QUERY, Outcome(text='{"opened": 1999}', target="a"))
    for text in (GOOD, BAD):
        outcome = Outcome(text=text, target="a")
        assert plan.accepts(QUERY, outcome) == plan.accepts(blank, outcome) == (text == GOOD)


def test_what_is_too_long_to_be_judged_on_the_loop_is_accepted() -> None:
    plan = Checked.example()
    for fill, accepted in ((LONGEST - 1000, False), (LONGEST, True)):
        query = msgspec.structs.replace(
            QUERY, messages=(*QUERY.messages, Message(role="user", content="pad. " * (fill // 5)))
        )
        assert plan.accepts(query, Outcome(text=BAD, target="a")) == accepted


def test_contract() -> None:
    check_plan(lambda: Checked(plan=Single(target="a"), stronger="b", above=1.0))
