"""A strategy is one target to everybody and asks another: prompts, fields, prices, names, streams, faults, and its place in a config."""

from typing import Any

import pytest

from fairlead import config
from fairlead.errors import ConfigError
from fairlead.plans.prompts import Prompt, ask
from fairlead.targets.scripted import Reply, Scripted
from fairlead.targets.strategy import Strategy, bind
from fairlead.types import Call, Failure, Message, Outcome, Profile, Query, Tokens

PRICED = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0, tags=frozenset({"local"}), answers=False)


def strategy(inner: Scripted, **more: Any) -> Strategy:
    made = Strategy(name="few", of=inner.name, **more)
    made.over(inner)
    return made


async def test_it_asks_the_inner_target_in_its_own_way() -> None:
    inner = Scripted(name="coder", replies=(Reply(text="done", tokens=Tokens(input=1000, output=500)),), profile=PRICED)
    fields = {"temperature": 0.8, "top_p": 0.95, "max_tokens": 300}
    few = strategy(inner, fields=fields)
    query = Query.ask("Add {two} numbers.", id="q", temperature=0.1)
    outcome = await few.ask(Call(target="few", sample=3, params={"top_p": 0.5}), query)
    (call,) = inner.asked
    assert (call.target, call.sample) == ("coder", 3)
    assert call.params == {"temperature": 0.8, "top_p": 0.5, "max_tokens": 300}, "a plan's own fields hold"
    assert call.messages is not None
    assert call.messages[-1].text.endswith("Task: Add {two} numbers.\nSolution:")
    assert (outcome.text, outcome.target, outcome.model) == ("done", "few", "coder")
    assert outcome.usd == pytest.approx(2e-3), "priced as the inner target"


async def test_messages() -> None:
    inner = Scripted(name="coder")
    brief = strategy(inner, prompt=Prompt(name="p", text="Do: {question}", system="Be brief."))
    before = (Message(role="user", content="one"), Message(role="assistant", content="two"))
    query = Query(id="q", messages=(*before, Message(role="user", content="three")))
    await brief.ask(Call(target="few"), query)
    messages = inner.asked[-1].messages
    assert messages is not None
    assert [(m.role, m.text) for m in messages] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "Do: three"),
    ]
    assert messages[1] is query.messages[0], "kept as they came, with whatever the typed view leaves out"
    written = ask("few", "judge@1", query, purpose="judge", answers="[1]")
    await brief.ask(written, query)
    assert inner.asked[-1].messages == written.messages, "what a plan wrote is passed on"
    after_a_tool = Query(id="q", messages=(*before, Message(role="tool", content="3", tool_call_id="1")))
    await brief.ask(Call(target="few"), after_a_tool)
    assert inner.asked[-1].messages is None
    await strategy(inner, prompt=None).ask(Call(target="few"), query)
    assert inner.asked[-1].messages is None


async def test_it_streams_and_fails_as_the_inner_target_does() -> None:
    sent: list[bytes] = []

    async def sink(events: bytes) -> None:
        sent.append(events)

    query = Query.ask("hi", id="q")
    outcome = await strategy(Scripted(name="coder", replies=("a b c",))).ask(Call(target="few"), query, sink)
    assert (outcome.ok, outcome.streamed, len(sent)) == (True, True, 4)
    limited = Failure(kind="rate_limited", message="slow down", status=429, retry_after_seconds=2.0)
    outcome = await strategy(Scripted(name="coder", replies=(Reply(error=limited),))).ask(Call(target="few"), query)
    assert (outcome.error, outcome.target) == (limited, "few")
    cut = Scripted(name="coder", replies=(Reply(text="a b c", cut_after_chunks=1),))
    outcome = await strategy(cut).ask(Call(target="few"), query, sink)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.streamed) == ("broken_stream", True)
    hangs = strategy(Scripted(name="coder", replies=(Reply(hang=True),)), timeout_seconds=0.01)
    outcome = await hangs.ask(Call(target="few"), query)
    assert outcome.error is not None
    assert outcome.error.kind == "timeout"


async def test_a_strategy_that_nobody_bound_says_so() -> None:
    outcome = await Strategy(name="few", of="coder").ask(Call(target="few"), Query.ask("hi"))
    assert outcome.error is not None
    assert "over(driver)" in outcome.error.message


def test_its_profile() -> None:
    inner = Scripted(
        name="coder", profile=Profile(output_usd_per_mtok=2.0, modalities=frozenset({"text", "image"}), answers=False)
    )
    few = strategy(inner)
    assert (few.target.kind, few.profile) == ("strategy", Profile(output_usd_per_mtok=2.0))
    own = strategy(inner, profile=Profile(quality=0.7))
    assert own.profile == Profile(quality=0.7)


def test_what_cannot_be_undone_stays_so() -> None:
    inner = Scripted(name="coder", profile=Profile(side_effects=True))
    assert strategy(inner).target.side_effects
    assert strategy(inner, profile=Profile(quality=0.7)).target.side_effects
    assert not strategy(Scripted(name="coder")).target.side_effects


# ---------------------------------------------------------------------------------------------------------- in a config


def made(**targets: Any) -> config.Config:
    return config.make({"targets": {"coder": {"type": "scripted", "replies": ["done"]}, **targets}, "routes": {}})


async def test_in_a_config_it_finds_the_target_that_it_asks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = made(few={"type": "strategy", "of": "coder"}, twice={"type": "strategy", "of": "few", "prompt": None})
    for name in ("few", "twice"):
        outcome: Outcome = await found.drivers[name].ask(Call(target=name), Query.ask("hi"))
        assert (outcome.text, outcome.target) == ("done", name)
    own = made(few={"type": "strategy", "of": "coder", "prompt": {"name": "p", "text": "{question}!"}})
    assert await own.drivers["few"].ask(Call(target="few"), Query.ask("hi"))
    inner = own.drivers["coder"]
    assert isinstance(inner, Scripted)
    assert inner.asked[-1].messages == (Message(role="user", content="hi!"),)


@pytest.mark.parametrize(
    ("targets", "path", "message"),
    [
        ({"few": {"type": "strategy", "of": "code"}}, "$.targets.few.of", "did you mean 'coder'"),
        ({"few": {"type": "strategy", "of": "few"}}, "$.targets.few.of", "circle: few -> few"),
        (
            {"a": {"type": "strategy", "of": "b"}, "b": {"type": "strategy", "of": "a"}},
            "$.targets.b.of",
            "circle: a -> b -> a",
        ),
        ({"few": {"type": "strategy", "of": "coder", "prompt": "x@1"}}, "$.targets.few.prompt", "x@1"),
        (
            {"few": {"type": "strategy", "of": "coder", "prompt": {"name": "p", "text": "{answers}"}}},
            "$.targets.few.prompt",
            "answers",
        ),
        ({"few": {"type": "strategy"}}, "$.targets.few", "of"),
    ],
)
def test_what_is_wrong_is_said_and_circles_are_refused(targets: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as e:
        made(**targets)
    assert e.value.path == path


def test_profiles_pass_through_strategies_of_strategies() -> None:
    drivers = {
        "twice": Strategy(name="twice", of="few"),
        "few": Strategy(name="few", of="coder"),
        "coder": Scripted(name="coder", profile=PRICED),
    }
    bind(drivers)
    assert drivers["twice"].profile.output_usd_per_mtok == 2.0
    assert drivers["twice"].profile.tags == {"local"}
