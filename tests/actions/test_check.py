"""The action `check`: what it says, writes and asks again; alone, through the router, and over a socket."""

import re
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from fairlead.actions.base import Passage
from fairlead.actions.check import Check, Tail, annotated, noted
from fairlead.config import make
from fairlead.detect.support import judged
from fairlead.errors import ConfigError
from fairlead.gateway.app import Gateway
from fairlead.gateway.server import Server
from fairlead.plans.checked import Checked
from fairlead.plans.single import Single
from fairlead.prove import replay_decision
from fairlead.scorers.lexical import Lexical
from fairlead.scorers.nli import NLI
from fairlead.targets import wire
from fairlead.testing import check_action
from fairlead.types import Decision, Failure, Message, Option, Outcome, Query, Signals

SOURCE = "Context: The bridge was opened in 1978 by Mayor Keller. It spans 412 metres."
GOOD, BAD = "It spans 412 metres. The bridge was opened in 1978.", "It spans 412 metres. The bridge was opened in 1999."
ASK = [{"role": "user", "content": SOURCE + "\n\nWhen was it opened?"}]


def query(text: str = ASK[0]["content"]) -> Query:
    return Query(id="q", messages=(Message(role="user", content=text),))


def passage(
    *,
    sink: Any = None,
    eligible: tuple[str, ...] = ("weak", "strong"),
    fallbacks: tuple[Single, ...] | None = None,
    text: str = ASK[0]["content"],
) -> Passage:
    plan = Single(target="weak")
    decision = Decision(
        options=(Option(plan=plan, probability=1.0),), chosen=0, propensity=1.0, eligible=eligible, fallbacks=fallbacks
    )
    return Passage(query=query(text), signals=Signals(), decision=decision, plan=plan, sink=sink)


async def through(check: Check, answer: Outcome, p: Passage, events: tuple[bytes, ...] = ()) -> Outcome:
    async def proceed(passage: Passage) -> Outcome:
        for e in events:
            assert passage.sink is not None
            await passage.sink(e)
        return answer

    return await check.act(p, proceed)


def said(text: str = BAD, **more: Any) -> Outcome:
    return Outcome(text=text, target="weak", model="weak", finish="stop", **more)


# ------------------------------------------------------------------------------------------------------------------ alone


@pytest.mark.parametrize(
    "one", [Check, lambda: Check(then="annotate", always=True), lambda: Check(then="retry", stronger="bee")]
)
def test_contract(one: Any) -> None:
    check_action(one)


def test_arguments_that_do_not_go_together_are_refused() -> None:
    Check(then="retry", stronger="a").check()
    for wrong, message in (
        ({"then": "retry"}, "needs the target"),
        ({"stronger": "a"}, "only then: retry"),
        ({"then": "retry", "stronger": "a", "scorer": NLI.example()}, "plans judge by words"),
    ):
        with pytest.raises(ConfigError, match=message):
            Check(**wrong).check()


async def test_what_needs_no_facts_is_not_judged() -> None:
    p = passage(text="Write a poem about rain.")
    assert await through(Check(then="annotate"), said(), p) == said()
    assert [(a.did, a.detail["why"]) for a in p.acts] == [("skipped", "no facts needed")]
    assert p.tags == {}
    p = passage(text="Write a poem about rain.")
    await through(Check(always=True), said(), p)
    assert p.tags["unsupported"] == "2"


async def test_what_brings_no_texts_cannot_be_checked_and_is_told_so() -> None:
    p = passage(text="When was the bridge opened?")
    assert await through(Check(then="annotate"), said(), p) == said()
    assert p.tags == {"support": "unchecked"}


async def test_tags_say_the_share_and_the_number() -> None:
    for text, tags, did in ((GOOD, ("1.00", "0"), "supported"), (BAD, ("0.50", "1"), "tagged")):
        p = passage()
        assert await through(Check(), said(text), p) == said(text)
        assert (p.tags["support"], p.tags["unsupported"]) == tags
        (act,) = p.acts
        assert (act.name, act.did, act.detail["claims"], act.detail["target"]) == ("check", did, 2, "weak")
        assert "1999" not in repr(act.detail)


async def test_a_note_names_the_claim_the_reason_and_the_passage() -> None:
    reply = wire.completion(said(), id="q", created=1)
    p = passage()
    outcome = await through(Check(then="annotate"), said(reply=reply), p)
    assert outcome.text.startswith(BAD + "\n\n---\nNote: 1 of 2 claims")
    assert "1999" in outcome.text.removeprefix(BAD)
    assert "opened in 1978 by Mayor Keller" in outcome.text.removeprefix(BAD)
    assert msgspec.json.decode(outcome.reply)["choices"][0]["message"]["content"] == outcome.text
    assert p.acts[0].did == "annotated"
    p = passage()
    assert await through(Check(then="annotate"), said(GOOD), p) == said(GOOD)
    assert (await through(Check(then="annotate", above=0.5), said(), passage())).text == BAD


def test_long_notes_are_cut() -> None:
    support = judged(" ".join(f"Unicorn {i} danced there." for i in range(9)), [SOURCE])
    assert "and 4 more" in noted(support)
    assert noted(support).count("\n- ") == 6


def test_a_reply_keeps_all_else() -> None:
    reply = b'{"id":"x","odd":{"a":1.50},"choices":[{"index":0,"message":{"role":"assistant","content":"A","refusal":null}}],"usage":{"prompt_tokens":3}}'
    whole = msgspec.json.decode(annotated(Outcome(text="A", reply=reply), " B").reply)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "A B", "refusal": None}
    assert (whole["odd"], whole["usage"]) == ({"a": 1.5}, {"prompt_tokens": 3})


async def test_a_failure_and_an_answer_without_words_pass() -> None:
    failed = Outcome(error=Failure(kind="unavailable", message="down"))
    calling = Outcome(text=BAD, target="weak", finish="tool_calls", tool_calls=msgspec.Raw(b"[{}]"))
    for answer, why in (
        (failed, "no answer"),
        (Outcome(target="weak", finish="stop"), "no answer in words"),
        (calling, "no answer in words"),
        (said('{"opened": 1999}'), "a structured answer"),
    ):
        p = passage()
        assert await through(Check(then="annotate"), answer, p) == answer
        assert p.acts[0].detail["why"] == why
        assert p.tags == ({"support": "unchecked"} if answer.ok else {})


async def test_a_scorers_files_are_missed_before_the_first_answer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*none\.onnx"):
        await Check(scorer=NLI(model=str(tmp_path / "none.onnx"), tokenizer="t")).start()


async def test_retry_wraps_the_plan_and_only_where_it_may() -> None:
    check = Check(then="retry", stronger="strong", above=0.7, scorer=Lexical(bar=0.4))
    p = passage()
    await through(check, said(GOOD), p)
    assert p.plan == Checked(plan=Single(target="weak"), stronger="strong", above=0.7, bar=0.4)
    for forbids in ({"eligible": ("weak",)}, {"fallbacks": ()}):
        p = passage(**forbids)
        outcome = await through(check, said(), p)
        assert p.plan == Single(target="weak")
        assert "Note:" in outcome.text
        assert p.acts[0].detail["instead"] == "strong may not answer this"
    p = passage(fallbacks=(Single(target="strong"),))
    await through(check, said(GOOD), p)
    assert isinstance(p.plan, Checked)
    p = passage(text=ASK[0]["content"] + " padding." * 30_000)
    await through(check, said(), p)
    assert "too long" in str(p.acts[0].detail["instead"])


async def test_a_slow_scorer_judges_in_a_thread() -> None:
    import threading

    class Slow(Lexical):
        where: list[str] = []  # noqa: RUF012

        @property
        def slow(self) -> bool:
            return True

        def judge(self, answer: str, texts: Any) -> Any:
            self.where.append(threading.current_thread().name)
            return super().judge(answer, texts)

    p = passage()
    await through(Check(scorer=Slow()), said(), p)
    assert p.tags["support"] == "0.50"
    assert "MainThread" not in Slow.where


# ---------------------------------------------------------------------------------------------------------------- streams


def events(text: str, *, joined: bool = False) -> tuple[bytes, ...]:
    """Return a stream as a target sends it; `joined`: the last words and the end in one event."""
    c = wire.Chunks(id="q", created=1, model="weak")
    words = re.findall(r"\S+\s*", text)
    head = [c.delta({"content": w}) for w in words[: len(words) - joined]]
    end = c.delta({"content": words[-1]} if joined else {}, finish="stop")
    return (*head, end, c.usage({"total_tokens": 1}))


def read(sent: list[bytes]) -> tuple[str, list[str | None], list[bytes]]:
    """Return the text of a stream, its reasons for ending in order with None for words, and its comments."""
    text, order, comments = "", [], []
    for event in b"".join(sent).split(b"\n\n"):
        if event.startswith(b":"):
            comments.append(event)
        elif event:
            for choice in msgspec.json.decode(event.removeprefix(b"data: "))["choices"]:
                text += choice["delta"].get("content") or ""
                order.append(choice["finish_reason"])
    return text, order, comments


@pytest.mark.parametrize("joined", [False, True])
async def test_a_streams_note_comes_before_its_end(joined: bool) -> None:
    whole = b"".join(events(BAD, joined=joined))
    for cut in [events(BAD, joined=joined), (whole,)]:
        sent: list[bytes] = []

        async def sink(e: bytes, sent: list[bytes] = sent) -> None:
            sent.append(e)

        outcome = await through(Check(then="annotate"), said(streamed=True), passage(sink=sink), cut)
        text, order, comments = read(sent)
        assert text.startswith(BAD + "\n\n---\nNote: 1 of 2")
        assert text == outcome.text
        assert order[-1] == "stop"
        assert order.count("stop") == 1
        assert comments == [b": x-fairlead-tag-support 0.50\n: x-fairlead-tag-unsupported 1"]
        assert b"total_tokens" in b"".join(sent)


async def test_a_stream_that_is_supported_or_only_tagged_keeps_its_bytes() -> None:
    for check, text in ((Check(then="annotate"), GOOD), (Check(), BAD)):
        sent: list[bytes] = []

        async def sink(e: bytes, sent: list[bytes] = sent) -> None:
            sent.append(e)

        await through(check, said(text, streamed=True), passage(sink=sink), events(text))
        plain = b"".join(events(text))
        assert b"".join(sent).startswith(plain)
        assert b"".join(sent)[len(plain) :].startswith(b": x-fairlead-tag-support")


async def test_a_stream_that_breaks_off_keeps_nothing_back() -> None:
    sent: list[bytes] = []

    async def sink(e: bytes) -> None:
        sent.append(e)

    broken = Outcome(text=BAD, error=Failure(kind="broken_stream", message="gone"), streamed=True)
    await through(Check(then="annotate"), broken, passage(sink=sink), events(BAD))
    assert b"".join(sent) == b"".join(events(BAD))


async def test_words_that_look_like_the_end_are_words() -> None:
    sent: list[bytes] = []

    async def sink(e: bytes) -> None:
        sent.append(e)

    tail = Tail(sink, hold=True)
    c = wire.Chunks(id="q", created=1, model="weak")
    words = c.delta({"content": 'he wrote "finish_reason": "stop" there'})
    await tail(words)
    assert sent == [words]
    odd = b'data: {"finish_reason": "stop", broken\n\n'
    await tail(odd)
    assert sent == [words]
    await tail.close(b"")
    assert sent == [words, odd]


async def test_further_answers_of_a_stream_are_passed_on_when_the_first_has_ended() -> None:
    def delta(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return b"data: " + msgspec.json.encode({"id": "q", "choices": [choice]}) + b"\n\n"

    sent: list[bytes] = []

    async def sink(e: bytes) -> None:
        sent.append(e)

    tail, usage, done = Tail(sink, hold=True), b'data: {"choices":[],"usage":{}}\n\n', b"data: [DONE]\n\n"
    early = delta(2, {}, "stop")
    await tail(early)
    assert sent == [early], "the end of another answer"
    first = delta(0, {"content": "one"}), delta(0, {}, "stop")
    other = delta(1, {"content": "two"}), delta(1, {"content": " three"}), delta(1, {}, "stop")
    await tail(b"".join((*first, other[0])))
    assert sent[1:] == [first[0] + other[0]]
    await tail(other[1] + b": here\n\n")
    await tail(other[2] + usage)
    await tail(done)
    assert sent[2:] == list(other[1:])
    await tail.close(b"NOTE")
    assert sent[4:] == [b"NOTE" + first[1] + b": here\n\n" + usage + done]


# ----------------------------------------------------------------------------------------------- through router and gateway


def config(tmp_path: Path, check: dict[str, Any], *, weak: str = BAD) -> Any:
    priced = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    return make(
        {
            "targets": {
                "weak": {"type": "scripted", "replies": [weak], "profile": priced},
                "strong": {"type": "scripted", "replies": [GOOD], "profile": {**priced, "regions": ["eu"]}},
                "house": {"type": "scripted", "replies": [weak], "profile": {**priced, "regions": ["us"]}},
            },
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "weak"}}},
            "signals": {"facts": {}},
            "actions": {"check": check},
            "guards": [{"name": "factual", "when": {"facts": True}, "do": ["check"]}],
            "store": {"path": str(tmp_path / "s.sqlite")},
            "gateway": {"port": 0},
        }
    )


async def test_a_retry_shows_both_calls_is_charged_and_replays(tmp_path: Path) -> None:
    check = {"then": "retry", "stronger": "strong"}
    async with config(tmp_path, check).router() as router:
        outcome, trace = await router.handle(Query.ask(ASK[0]["content"]))
        assert outcome.text == GOOD
        assert [s.call.target for s in trace.steps if s.call] == ["weak", "strong"]
        assert trace.usd == pytest.approx(sum(s.outcome.usd or 0.0 for s in trace.steps))
        assert isinstance(trace.plan, Checked)
        assert [(a.name, a.did) for a in trace.acts] == [("check", "retried")]
        assert trace.decision.plan == Single(target="weak")
        assert replay_decision(trace, router.store).same
        _, trace = await router.handle(Query.ask("Write a poem about rain."))
        assert (trace.acts, len(trace.steps)) == ((), 1)


async def test_a_retry_never_asks_who_may_not_act(tmp_path: Path) -> None:
    """The region holds for the stronger target as for any other."""
    check = {"then": "retry", "stronger": "strong"}
    async with config(tmp_path, check).router() as router:
        ask = Query.ask(ASK[0]["content"])
        bound = msgspec.structs.replace(ask, constraints=msgspec.structs.replace(ask.constraints, regions=("us",)))
        outcome, trace = await router.handle(bound)
        assert {s.call.target for s in trace.steps if s.call} == {"house"}
        assert trace.acts[0].detail["instead"] == "strong may not answer this"
        assert "Note:" in outcome.text
        assert "Note:" not in trace.outcome.text
        assert replay_decision(trace, router.store).same


@pytest.mark.parametrize("required", [True, False])
async def test_a_retry_does_not_go_past_a_rule_or_a_client_that_insists(tmp_path: Path, required: bool) -> None:
    whole = msgspec.to_builtins(config(tmp_path, {"then": "retry", "stronger": "strong"}).file)
    rule = {"name": "r", "when": {"facts": True}, "use": "weak", "required": required}
    whole["routes"] = {"auto": {"policy": {"type": "rules", "rules": [rule]}}}
    async with make(whole).router() as router:
        _, trace = await router.handle(Query.ask(ASK[0]["content"]))
        assert [s.call.target for s in trace.steps if s.call] == (["weak"] if required else ["weak", "strong"])
        _, trace = await router.handle(msgspec.structs.replace(Query.ask(ASK[0]["content"]), route="weak"))
        assert [s.call.target for s in trace.steps if s.call] == ["weak"]


def test_the_stronger_target_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strongest"):
        config(tmp_path, {"then": "retry", "stronger": "strongest"})


@pytest.mark.parametrize("then", ["header", "annotate", "retry"])
async def test_over_a_socket(tmp_path: Path, then: str) -> None:
    check = {"then": then, **({"stronger": "strong"} if then == "retry" else {})}
    async with (
        Gateway.of(config(tmp_path, check)) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        async with http.post("/v1/chat/completions", json={"model": "auto", "messages": ASK}) as r:
            assert r.status == 200
            content = (await r.json())["choices"][0]["message"]["content"]
            support = {"header": "0.50", "annotate": "0.50", "retry": "1.00"}[then]
            assert r.headers["x-fairlead-tag-support"] == support
        async with http.post("/v1/chat/completions", json={"model": "auto", "messages": ASK, "stream": True}) as r:
            assert r.status == 200
            raw = await r.read()
        assert raw.endswith(b"data: [DONE]\n\n")
        text, order, comments = read([raw.removesuffix(b"data: [DONE]\n\n")])
        assert text.strip() == content.strip()
        assert order[-1] == "stop"
        assert b": x-fairlead-tag-support " + support.encode() in b"\n".join(comments)
        assert ("Note:" in content) == (then == "annotate")
        assert content.startswith(GOOD if then == "retry" else BAD)


async def test_inside_a_mask_only_placeholders_are_judged_and_the_note_is_restored(tmp_path: Path) -> None:
    """The mask is outermost: what is compared, noted on record and sent to the stronger target holds no address."""
    ask = "Context: Mail ann@example.org, who opened the bridge in 1978.\n\nWhom do I mail?"
    weak = "You can mail [EMAIL_1] who opened the bridge. [EMAIL_1] opened the bridge in 1999."
    whole = config(tmp_path, {"then": "annotate"}, weak=weak)
    made = make({**msgspec.to_builtins(whole.file), "guards": [{"name": "all", "do": ["mask", "check"]}]})
    sent: list[bytes] = []

    async def sink(e: bytes) -> None:
        sent.append(e)

    async with made.router() as router:
        for out in (None, sink):
            outcome, trace = await router.handle(Query.ask(ask), sink=out)
            text = read(sent)[0] if out else outcome.text
            assert text.startswith("You can mail ann@example.org who opened the bridge. ann@example.org opened")
            assert text.count("ann@example.org") == 4, "twice in the answer, in the claim and in the nearest passage"
            assert b"ann@" not in msgspec.json.encode(trace)
            assert ("check", "annotated") in {(a.name, a.did) for a in trace.acts}
            assert "mask" in {a.name for a in trace.acts}
            assert replay_decision(trace, router.store).same
