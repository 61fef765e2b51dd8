"""Block, tag and prompt, alone and through the router; and what the router makes of an action that breaks."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead.actions.base import Action, Passage, Proceed
from fairlead.actions.block import Block
from fairlead.actions.prompt import Prompt
from fairlead.actions.tag import Tag
from fairlead.config import make
from fairlead.errors import ConfigError
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.testing import check_action
from fairlead.types import Feedback, Message, Outcome, Query

LONG = {"name": "long", "when": {"length": {"gt": 50}}}


def router(tmp_path: Path, *guards: dict[str, Any], **more: Any) -> Router:
    return make(
        {
            "targets": {
                "near": {"type": "scripted", "replies": ["near"], "profile": {"tags": ["local"]}},
                "far": {"type": "scripted", "replies": ["far"]},
            },
            "routes": {"auto": {"policy": more.pop("policy", {"type": "fixed", "plan": "far"})}},
            "guards": list(guards),
            "store": {"path": str(tmp_path / "traces.sqlite")},
            **more,
        }
    ).router()


@pytest.mark.parametrize(
    "make_one", [Block, lambda: Block(reply=True), Tag, Prompt.example], ids=["block", "reply", "tag", "prompt"]
)
def test_contract(make_one: Any) -> None:
    check_action(make_one)


async def test_block_refuses_and_the_trace_does_not_keep_the_text(tmp_path: Path) -> None:
    async with router(tmp_path, {**LONG, "do": ["block"]}) as r:
        outcome, trace = await r.handle(Query.ask("secret " * 20))
        assert outcome.error is not None
        assert outcome.error.kind == "blocked"
        assert (trace.steps, trace.usd, trace.text_kept) == ((), 0.0, False)
        assert "secret" not in repr(trace)
        assert [(a.name, a.did) for a in trace.acts] == [("block", "blocked")]
        assert replay_decision(trace, r.store).same
        outcome, trace = await r.handle(Query.ask("short"))
        assert outcome.text == "far"
        assert trace.acts == ()


async def test_block_can_answer_and_nobody_learns_from_it(tmp_path: Path) -> None:
    actions = {"no": {"type": "block", "reply": True, "message": "I may not."}}
    async with router(tmp_path, {**LONG, "do": ["no"]}, actions=actions, policy="thompson") as r:
        outcome, trace = await r.handle(Query.ask("secret " * 20))
        assert (outcome.text, outcome.finish) == ("I may not.", "content_filter")
        before = r.serving["auto"].digest
        receipt = await r.feedback(Feedback(trace_id=trace.id, value=0.0))
        assert receipt.status == "accepted"
        r.learner.wait(5)
        assert r.serving["auto"].digest == before
        assert r.store.unlearned("auto") == []


async def test_prompt_puts_a_message_first_and_leaves_the_others_as_they_came() -> None:
    raw = b'[{"role":"system","content":"old"},{"role":"user","content":"hi","name":"x"}]'
    query = msgspec.structs.replace(Query.ask("hi"), body={"messages": msgspec.Raw(raw)})
    query = msgspec.structs.replace(query, messages=msgspec.json.decode(raw, type=tuple[Message, ...]))
    inserted = Prompt(system="new").prompted(query)
    assert bytes(inserted.body["messages"]) == b'[{"role":"system","content":"new"},' + raw[1:]
    assert [m.text for m in inserted.messages] == ["new", "old", "hi"]
    replaced = Prompt(system="new", mode="replace").prompted(query)
    assert [m.text for m in replaced.messages] == ["new", "hi"]
    assert b"old" not in bytes(replaced.body["messages"])
    assert b'"name":"x"' in bytes(replaced.body["messages"])


async def test_tags_are_recorded(tmp_path: Path) -> None:
    async with router(tmp_path, {**LONG, "do": ["tag"]}) as r:
        _, trace = await r.handle(Query.ask("word " * 20))
        assert trace.acts[0].detail == {"guards": "long"}


def test_a_bad_tag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$\.actions\.tag\.tags"):
        router(tmp_path, {**LONG, "do": ["tag"]}, actions={"tag": {"tags": {"A b": "x"}}})


class Breaks(Action):
    """Breaks with the text in its hand."""

    order = 20

    def __init__(self, *, after: bool = False) -> None:
        self.after = after

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        if self.after:
            await proceed(passage)
        raise KeyError(passage.query.text)


class Twice(Action):
    """Proceeds twice."""

    order = 20

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        await proceed(passage)
        return await proceed(passage)


@pytest.mark.parametrize(("action", "calls"), [(Breaks(), 0), (Breaks(after=True), 1), (Twice(), 1)])
async def test_an_action_that_breaks_ends_the_request_and_tells_nobody_the_text(
    tmp_path: Path, action: Action, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with router(tmp_path, {**LONG, "do": ["block"]}) as r:
        r.actions["block"] = action
        outcome, trace = await r.handle(Query.ask("secret " * 20))
        assert outcome.error is not None
        assert outcome.error.kind == "internal"
        assert "secret" not in repr(outcome) + repr(trace) + caplog.text
        assert len(trace.steps) == calls
        assert trace.acts[-1].did == "broke"
        assert r.store.verify() == 1


async def test_an_answer_that_was_judged_bad_is_not_given_again(tmp_path: Path) -> None:
    actions = {"cache": {"sampled": True}}
    async with router(tmp_path, {"name": "always", "do": ["cache"]}, actions=actions) as r:
        asked = [(await r.handle(Query.ask("same")))[1] for _ in range(2)]
        assert [len(t.steps) for t in asked] == [1, 0]
        await r.feedback(Feedback(trace_id=asked[1].id, value=0.9))
        assert len((await r.handle(Query.ask("same")))[1].steps) == 0
        await r.feedback(Feedback(trace_id=asked[1].id, value=0.0, source="unsure", confidence=0.4))
        assert len((await r.handle(Query.ask("same")))[1].steps) == 0, "what counts for less than half forgets nothing"
        await r.feedback(Feedback(trace_id=asked[1].id, value=0.1, source="another"))
        assert len((await r.handle(Query.ask("same")))[1].steps) == 1
