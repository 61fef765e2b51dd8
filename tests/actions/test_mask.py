"""Mask: nothing personal goes out or into the trace, and the answer says what it would have said; streams are cut at every place."""

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from fairlead.actions.base import Passage, Proceed
from fairlead.actions.mask import Mask, Restorer, Stream, _Masks, masked, masked_later
from fairlead.config import make
from fairlead.detect.presidio import Presidio
from fairlead.errors import ConfigError
from fairlead.plans.single import Single
from fairlead.targets import wire
from fairlead.targets.openai_chat import StreamReader
from fairlead.testing import check_action
from fairlead.types import Decision, Failure, Message, Option, Outcome, Part, Query, Signals, Sink

MAIL, OTHER, CARD, KEY = "ann@example.org", "bo@example.com", "4111 1111 1111 1111", "sk-" + "a1B2c3D4e5F6g7H8i9J0k1L2"
QUOTED = 'pa"ss\\1\tx'
SECRETS = (MAIL, OTHER, CARD, KEY)


def passage(query: Query, sink: Sink | None = None) -> Passage:
    decision = Decision(
        options=(Option(plan=Single(target="a"), probability=1.0),),
        chosen=0,
        propensity=1.0,
        policy="fixed",
        pool_digest="",
        seed=0,
    )
    return Passage(query=query, signals=Signals(), decision=decision, plan=Single(target="a"), sink=sink)


def answering(outcome: Outcome, seen: list[Query] | None = None) -> Proceed:
    async def proceed(passage: Passage) -> Outcome:
        if seen is not None:
            seen.append(passage.query)
        return outcome

    return proceed


def everything(query: Query) -> str:
    """All that leaves: the typed view, and the body as drivers forward it."""
    return msgspec.json.encode([query.messages, query.body]).decode()


def said(outcome: Outcome) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(outcome.reply)["choices"][0]["message"]
    return message


def test_contract() -> None:
    check_action(Mask)
    check_action(lambda: Mask(kinds=["email"], secrets=False, restore=False))
    assert Mask.order == 20


# -------------------------------------------------------------------------------------------------------- on the way out


async def test_values_go_out_as_placeholders_and_come_back() -> None:
    seen: list[Query] = []
    p = passage(Query.ask(f"Mail {MAIL} and {OTHER}, then {MAIL} again. Key: {KEY}"))
    answer = "I wrote to [EMAIL_2] and [EMAIL_1]; [EMAIL_9] and [CARD_1] are unknown to me."
    outcome = await Mask().act(p, answering(Outcome(text=answer), seen))
    assert seen[0].text == "Mail [EMAIL_1] and [EMAIL_2], then [EMAIL_1] again. Key: [KEY_1]"
    assert not any(s in everything(seen[0]) for s in SECRETS)
    assert outcome.text == f"I wrote to {OTHER} and {MAIL}; [EMAIL_9] and [CARD_1] are unknown to me."
    (act,) = p.acts
    assert (act.name, act.did) == ("mask", "masked")
    assert act.detail == {"values": 3, "email": 2, "api_key": 1}


async def test_what_the_trace_keeps_is_masked() -> None:
    p = passage(Query.ask(f"I am {MAIL}"))
    await Mask().act(p, answering(Outcome(text="Hello [EMAIL_1]")))
    assert p.query.text == "I am [EMAIL_1]"
    assert MAIL not in msgspec.json.encode([p.query, p.acts]).decode()


async def test_a_query_without_finds_passes_untouched() -> None:
    query = Query.ask("What is 2 + 2?")
    p = passage(query)
    outcome = Outcome(text="[EMAIL_1]", reply=b'{"choices": [ ]}')
    assert await Mask().act(p, answering(outcome)) is outcome
    assert p.query is query
    assert p.acts[0].did == "passed"


def conversation() -> Query:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {
            "name": "send",
            "arguments": json.dumps({"to": MAIL, "card": 4111111111111111, "note": f"a\n{OTHER}"}),
        },
    }
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": f"You serve {OTHER}."},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": f"my card {CARD}"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": json.dumps({"password": QUOTED, "sent": [MAIL]})},
        {"role": "user", "content": "thanks", "x_unknown": f"see {MAIL}"},
    ]
    tools = [
        {
            "type": "function",
            "function": {
                "name": "send",
                "description": f"as {OTHER} does",
                "parameters": {
                    "type": "object",
                    "properties": {"name": {"type": "string", "description": f"like {MAIL}"}},
                },
            },
        }
    ]
    body = {
        "messages": messages,
        "user": MAIL,
        "tools": tools,
        "metadata": {"who": OTHER},
        "stop": [MAIL],
        "temperature": 0.5,
        "seed": 4111111111111111,
        "model": "auto",
    }
    raw = {k: Raw(msgspec.json.encode(v)) for k, v in body.items()}
    return Query(id="q", messages=msgspec.json.decode(raw["messages"], type=tuple[Message, ...]), body=raw)


def test_every_text_of_the_request_is_masked() -> None:
    query = conversation()
    new, values, counts = masked(query, Mask().finder)
    written = everything(new)
    assert not any(s in written for s in SECRETS if s != CARD)
    assert CARD not in written
    assert "4111111111111111" not in written.replace('"seed":4111111111111111', "")
    assert 'pa\\"ss' not in written.replace("\\\\", "\\")
    assert counts == {"email": 2, "card": 2, "password": 1}
    body = {k: json.loads(bytes(v)) for k, v in new.body.items()}
    mail = next(p for p, v in values.items() if v == MAIL)
    assert body["user"] == mail
    assert body["stop"] == [mail]
    assert body["messages"][4]["x_unknown"] == f"see {mail}"
    assert body["tools"][0]["function"]["parameters"]["properties"]["name"]["description"] == f"like {mail}"
    assert (body["temperature"], body["seed"], body["model"]) == (0.5, 4111111111111111, "auto")
    arguments = json.loads(body["messages"][2]["tool_calls"][0]["function"]["arguments"])
    assert arguments["to"] == mail
    assert re.fullmatch(r"\[CARD_\d\]", arguments["card"])
    # What makes the format work, and media, are as they were.
    old = json.loads(bytes(query.body["messages"]))
    for before, after in zip(old, body["messages"], strict=True):
        assert [before.get(k) for k in ("role", "tool_call_id", "name")] == [
            after.get(k) for k in ("role", "tool_call_id", "name")
        ]
    assert body["messages"][1]["content"][1] == old[1]["content"][1]
    assert body["messages"][2]["tool_calls"][0]["id"] == "call_1"


def test_the_typed_view_and_the_body_say_the_same() -> None:
    new, _, _ = masked(conversation(), Mask().finder)
    assert new.messages == msgspec.json.decode(new.body["messages"], type=tuple[Message, ...])


def test_masking_twice_finds_nothing_more() -> None:
    new, _, _ = masked(conversation(), Mask().finder)
    assert masked(new, Mask().finder)[0] is new


def test_unmasked_messages_stay_the_same_objects() -> None:
    # Plans forward messages of the query whole by their identity.
    query = Query(
        id="q", messages=(Message(role="user", content="hi"), Message(role="user", content=(Part(text=MAIL),)))
    )
    new, _, _ = masked(query, Mask().finder)
    assert new.messages[0] is query.messages[0]
    assert new.messages[1] == Message(role="user", content=(Part(text="[EMAIL_1]"),))


def test_a_value_is_masked_where_nothing_beside_it_gives_it_away() -> None:
    messages = (
        Message(role="user", content="my SSN is 078051120, and the password: tiger99x"),
        Message(role="assistant", content="Noted 078051120. Is tiger99x the password?"),
        Message(role="user", content="Yes. 078051120 it is; xtiger99xy is another word"),
    )
    new, _, _ = masked(Query(id="q", messages=messages), Mask().finder)
    assert [m.text for m in new.messages[1:]] == [
        "Noted [ID_1]. Is [PASSWORD_1] the password?",
        "Yes. [ID_1] it is; xtiger99xy is another word",
    ]


async def test_turns_that_hold_restored_values_are_masked_as_before() -> None:
    mask, history = Mask(), [Message(role="user", content=f"write to {MAIL} and {OTHER}")]
    texts = []
    for turn in range(3):
        seen: list[Query] = []
        p = passage(Query(id=str(turn), messages=tuple(history)))
        outcome = await mask.act(p, answering(Outcome(text="I wrote to [EMAIL_2], [EMAIL_1] is next"), seen))
        assert outcome.text == f"I wrote to {OTHER}, {MAIL} is next"
        texts.append([m.text for m in seen[0].messages])
        history += [Message(role="assistant", content=outcome.text), Message(role="user", content="go on")]
    assert texts[2][: len(texts[1])] == texts[1]
    assert texts[1][1] == "I wrote to [EMAIL_2], [EMAIL_1] is next"


@pytest.mark.parametrize("where", ["content", "user", "escaped", "tool"])
async def test_placeholders_that_the_asker_wrote_are_not_taken(where: str) -> None:
    query = Query.ask(f"{MAIL}" + (" what is [EMAIL_1]?" if where == "content" else ""))
    extra = {"user": b'"[EMAIL_1]"', "escaped": b'"\\u005bEMAIL_1]"', "tool": b'[{"name": "[EMAIL_1]"}]'}
    if where in extra:
        query = msgspec.structs.replace(query, body={**query.body, where: Raw(extra[where])})
    outcome = await Mask().act(passage(query), answering(Outcome(text="[EMAIL_1] is yours, [EMAIL_2] is not")))
    assert outcome.text == f"[EMAIL_1] is yours, {MAIL} is not"


async def test_kinds_and_secrets_choose() -> None:
    text = f"{MAIL} {CARD} {KEY}"
    for args, wanted in (
        ({"kinds": ["email"]}, f"[EMAIL_1] {CARD} [KEY_1]"),
        ({"kinds": ["card"], "secrets": False}, f"{MAIL} [CARD_1] {KEY}"),
        ({"kinds": []}, f"{MAIL} {CARD} [KEY_1]"),
        ({}, "[EMAIL_1] [CARD_1] [KEY_1]"),
    ):
        new, _, _ = masked(Query.ask(text), Mask(**args).finder)
        assert new.text == wanted


async def test_without_restoring_placeholders_stay() -> None:
    got: list[bytes] = []
    p = passage(Query.ask(MAIL), keep(got))
    outcome = await Mask(restore=False).act(p, answering(Outcome(text="to [EMAIL_1]")))
    assert outcome.text == "to [EMAIL_1]"


async def test_a_failure_is_passed_on() -> None:
    outcome = Outcome(error=Failure(kind="timeout", message="x"))
    assert (await Mask().act(passage(Query.ask(MAIL)), answering(outcome))).error == outcome.error


async def test_large_requests_are_masked_too() -> None:
    seen: list[Query] = []
    await Mask().act(passage(Query.ask(f"{'word ' * 20_000}{MAIL}")), answering(Outcome(), seen))
    assert seen[0].text.endswith("[EMAIL_1]")


async def test_wrong_kinds_and_missing_presidio_are_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="email"):
        await Mask(kinds=["emial"]).start()
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match="fairlead"):
        await Mask(presidio="xx_missing_model_too").start()


async def test_names_by_presidio(monkeypatch: pytest.MonkeyPatch) -> None:
    class Analyzer:
        def analyze(self, *, text: str, **_: object) -> list[object]:
            found = msgspec.defstruct("Found", [("entity_type", str), ("start", int), ("end", int), ("score", float)])
            return [found("PERSON", m.start(), m.end(), 0.85) for m in re.finditer("Ann Lee", text)]

    monkeypatch.setattr("fairlead.detect.presidio.load", lambda model, path: Presidio(analyzer=Analyzer()))
    seen: list[Query] = []
    outcome = await Mask(presidio="en_core_web_sm").act(
        passage(Query.ask("Ann Lee here")), answering(Outcome(text="Hi [NAME_1]"), seen)
    )
    assert seen[0].text == "[NAME_1] here"
    assert outcome.text == "Hi Ann Lee"


# ----------------------------------------------------------------------------------------------------- on the way back


def whole(content: str | None, arguments: str | None = None) -> Outcome:
    calls = (
        None
        if arguments is None
        else Raw(
            msgspec.json.encode([{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}])
        )
    )
    reply = wire.completions(
        [wire.Choice(text=content or "", tool_calls=calls, reasoning="for [EMAIL_1]"), wire.Choice(text="b [EMAIL_1]")],
        id="q",
        created=1,
        model="m",
        tokens=None,
    )
    return Outcome(text=content or "", tool_calls=calls, reply=reply)


async def test_the_replys_own_bytes_are_restored() -> None:
    outcome = await Mask().act(passage(Query.ask(MAIL)), answering(whole("to [EMAIL_1]")))
    choices = json.loads(outcome.reply)["choices"]
    assert [c["message"]["content"] for c in choices] == [f"to {MAIL}", f"b {MAIL}"]
    assert choices[0]["message"]["reasoning_content"] == f"for {MAIL}"


async def test_a_reply_without_placeholders_keeps_its_bytes() -> None:
    reply = b'{ "choices": [ {"message": {"role": "assistant", "content": "hi", "x": 1.50}} ] }'
    outcome = await Mask().act(passage(Query.ask(MAIL)), answering(Outcome(text="hi", reply=reply)))
    assert outcome.reply == reply


async def test_arguments_of_tool_calls_are_escaped_twice() -> None:
    arguments = json.dumps({"pw": "[PASSWORD_1]", "text": 'say "[PASSWORD_1]"'})
    outcome = await Mask().act(passage(Query.ask(f"password='{QUOTED}'")), answering(whole(None, arguments)))
    for calls in (msgspec.json.decode(bytes(outcome.tool_calls or b"")), said(outcome)["tool_calls"]):
        assert json.loads(calls[0]["function"]["arguments"]) == {"pw": QUOTED, "text": f'say "{QUOTED}"'}


async def test_an_answer_asked_for_as_json_stays_json() -> None:
    query = Query.ask(f"password='{QUOTED}'", response_format={"type": "json_object"})
    outcome = await Mask().act(passage(query), answering(whole('{"pw": "[PASSWORD_1]"}')))
    assert json.loads(outcome.text) == {"pw": QUOTED}
    assert json.loads(said(outcome)["content"]) == {"pw": QUOTED}


# -------------------------------------------------------------------------------------------------------------- streams


def keep(got: list[bytes]) -> Callable[[bytes], Awaitable[None]]:
    async def sink(events: bytes) -> None:
        assert events.endswith(b"\n\n")
        got.append(events)

    return sink


def events(stream: bytes) -> Iterator[dict[str, Any]]:
    for block in stream.split(b"\n\n"):
        if block.startswith(b"data: "):
            yield json.loads(block[6:])


def grown(stream: bytes) -> dict[tuple[int, str], str]:
    """Put the pieces of each text together."""
    texts: dict[tuple[int, str], str] = {}
    for event in events(stream):
        for choice in event["choices"]:
            for field, value in choice["delta"].items():
                if isinstance(value, str):
                    at = (choice["index"], field)
                    texts[at] = texts.get(at, "") + value
                else:
                    for part in value:
                        at = (choice["index"], f"call {part['index']}")
                        texts[at] = texts.get(at, "") + part["function"].get("arguments", "")
    return texts


async def streamed(query: Query, pieces: list[bytes]) -> tuple[bytes, Outcome]:
    """Send `pieces` as the plan's stream."""
    got: list[bytes] = []
    sink = keep(got)
    p = passage(query, sink)

    async def proceed(passage: Passage) -> Outcome:
        for piece in pieces:
            assert passage.sink is not None
            await passage.sink(piece)
        return Outcome(text="x", streamed=True)

    outcome = await Mask().act(p, proceed)
    assert p.sink is sink
    return b"".join(got), outcome


CHUNKS = wire.Chunks(id="q", created=1, model="m")
ANSWER = "[x] to [EMAIL_1][EMAIL_2], [[EMAIL_1]] [EMAIL_ [EMAIL_10] é日 [EMAIL_1"
RESTORED = f"[x] to {MAIL}{OTHER}, [{MAIL}] [EMAIL_ [EMAIL_10] é日 [EMAIL_1"
ASK = Query.ask(f"{MAIL} {OTHER}")


@pytest.mark.parametrize("cut", range(len(ANSWER) + 1))
async def test_a_text_cut_in_two_anywhere(cut: int) -> None:
    pieces = [
        CHUNKS.delta({"content": ANSWER[:cut]}),
        CHUNKS.delta({"content": ANSWER[cut:]}),
        CHUNKS.delta({}, finish="stop"),
    ]
    stream, _ = await streamed(ASK, pieces)
    assert grown(stream)[0, "content"] == RESTORED


@settings(deadline=None, max_examples=60)
@given(data=st.data())
async def test_several_texts_cut_anywhere_and_mixed(data: st.DataObject) -> None:
    arguments = json.dumps({"to": "[EMAIL_1]", "pw": "[PASSWORD_1]", "x": "[[EMAIL_2]"})
    texts = {
        (0, "content"): ANSWER,
        (1, "content"): "b [EMAIL_2]",
        (0, "reasoning_content"): "[EMAIL_1]?",
        (0, "call 0"): arguments,
        (0, "call 1"): arguments[::-1] + "[EMAIL_1]",
    }
    left = dict(texts)
    pieces = []
    while left:
        place = data.draw(st.sampled_from(sorted(left)))
        n = data.draw(st.integers(1, len(left[place])))
        piece, rest = left[place][:n], left[place][n:]
        if place[1].startswith("call"):
            delta: dict[str, Any] = {"tool_calls": [{"index": int(place[1][-1]), "function": {"arguments": piece}}]}
        else:
            delta = {place[1]: piece}
        pieces.append(CHUNKS.delta(delta, index=place[0]))
        left = {**left, place: rest} if rest else {k: v for k, v in left.items() if k != place}
    if data.draw(st.booleans()):
        pieces += [CHUNKS.delta({}, index=i, finish="stop") for i in (0, 1)]
    together = data.draw(st.integers(1, 4))
    pieces = [b"".join(pieces[i : i + together]) for i in range(0, len(pieces), together)]
    stream, _ = await streamed(Query.ask(f"{MAIL} {OTHER} password='{QUOTED}'"), pieces)
    got = grown(stream)
    assert got[0, "content"] == RESTORED
    assert got[1, "content"] == f"b {OTHER}"
    assert got[0, "reasoning_content"] == f"{MAIL}?"
    assert json.loads(got[0, "call 0"]) == {"to": MAIL, "pw": QUOTED, "x": f"[{OTHER}"}
    assert got[0, "call 1"] == arguments[::-1] + MAIL


def upstream_bytes() -> bytes:
    """A stream as a server sends it: odd spacing, escapes, a comment, several choices, a usage event."""
    out = [
        b'data: {"id":"up","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
        b": keep alive\n\n",
        b'data: {"id":"up","choices":[{"index":0,"delta":{"content":"to \\u005bEM"}},{"index":1,"delta":{"content":"[EMAIL"}}]}\r\n\r\n',
        b'data: {"id": "up", "choices": [{"index": 0, "delta": {"content": "AIL_1], \\u00e9"}}]}\n\n',
        'data: {"id":"up","choices":[{"index":1,"delta":{"content":"_2] 日"}},{"index":0,"delta":{"content":" \\"q\\" ["}}]}\n\n'.encode(),
        b'data: {"id":"up","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\\"a\\":\\"[EMAIL"}}]}}]}\n\n',
        b'data: {"id":"up","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"_2]\\"}"}}]}}]}\n\n',
        b'data: {"id":"up","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"},{"index":1,"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"id":"up","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
    ]
    return b"".join(out)


async def test_a_stream_of_bytes_cut_at_every_byte() -> None:
    stream = upstream_bytes()
    restorer = Restorer({"[EMAIL_1]": MAIL, "[EMAIL_2]": OTHER})
    for cut in range(len(stream) + 1):
        got: list[bytes] = []
        reader, restoring = StreamReader(id="q", pass_usage=True), Stream(restorer, keep(got))
        for piece in (reader.feed(stream[:cut]), reader.feed(stream[cut:]), reader.close()):
            if piece:
                await restoring.send(piece)
        await restoring.close()
        out = b"".join(got)
        assert grown(out) == {
            (0, "role"): "assistant",
            (0, "content"): f'to {MAIL}, é "q" [',
            (1, "content"): f"{OTHER} 日",
            (0, "call 0"): json.dumps({"a": OTHER}, separators=(",", ":")),
        }
        finishes = [c["finish_reason"] for e in events(out) for c in e["choices"] if c.get("finish_reason")]
        assert finishes == ["tool_calls", "stop"]
        assert [e["usage"]["completion_tokens"] for e in events(out) if e.get("usage")] == [2]
        assert all(e["id"] == "q" for e in events(out))


async def test_only_what_may_be_a_placeholder_is_held_back() -> None:
    got: list[bytes] = []
    stream = Stream(Restorer({"[EMAIL_1]": MAIL}), keep(got))
    for piece, out in (
        ("see [", "see "),
        ("1] and [EM", "[1] and "),
        ("AIL_", None),
        ("1", None),
        ("]!", f"{MAIL}!"),
        ("[EMAIL_2", "[EMAIL_2"),
    ):
        got.clear()
        await stream.send(CHUNKS.delta({"content": piece}))
        assert grown(b"".join(got)).get((0, "content")) == out, piece


async def test_events_that_hold_nothing_of_ours_pass_as_they_are() -> None:
    got: list[bytes] = []
    stream = Stream(Restorer({"[EMAIL_1]": MAIL}), keep(got))
    odd = [
        b'data: {"id":"q", "choices": [{"index":0,"delta":{"content":"hi"},"logprobs":null}]}\n\n',
        b": comment\n\n",
        b'data: {"error":{"message":"x"}}\n\n',
        b"data: [1]\n\n",
    ]
    for event in odd:
        await stream.send(event)
    assert got == odd


async def test_a_stream_that_breaks_gives_what_it_held() -> None:
    stream, _ = await streamed(ASK, [CHUNKS.delta({"content": "to [EMAIL"}, index=1)])
    assert grown(stream)[1, "content"] == "to [EMAIL"


async def test_json_in_a_stream_is_escaped() -> None:
    query = Query.ask(f"password='{QUOTED}'", response_format={"type": "json_schema", "json_schema": {}})
    stream, _ = await streamed(query, [CHUNKS.delta({"content": c}) for c in '{"pw": "[PASSWORD_1]"}'])
    assert json.loads(grown(stream)[0, "content"]) == {"pw": QUOTED}


async def test_what_a_value_holds_is_no_placeholder() -> None:
    """A password that looks like the beginning of a placeholder, or like one, is given back as it is, in one piece or many."""
    query = Query.ask("password='a[EMAIL_1' and password='b[CARD_7]'; pay by 4111 1111 1111 1111, " + MAIL)
    new, values, _ = masked(query, Mask().finder)
    back = {v: p for p, v in values.items()}
    text = f"{back['a[EMAIL_1']}] {back['b[CARD_7]']}"
    stream, _ = await streamed(query, [CHUNKS.delta({"content": c}) for c in text])
    assert grown(stream)[0, "content"] == "a[EMAIL_1] b[CARD_7]"
    assert Restorer(values).text(text, json=False) == "a[EMAIL_1] b[CARD_7]"
    assert "[EMAIL_1" not in new.text.replace(back[MAIL], "")


@settings(deadline=None, max_examples=100)
@given(
    words=st.lists(
        st.sampled_from([MAIL, OTHER, CARD, KEY, "[EMAIL_1]", "[CARD_2]", "word", "[", "]", "EMAIL_1", "é"]),
        max_size=12,
    )
)
async def test_an_echo_gives_back_what_was_asked(words: list[str]) -> None:
    text = " ".join(words)
    p = passage(Query.ask(text))
    counter = count()

    async def echo(passage: Passage) -> Outcome:
        next(counter)
        return Outcome(text=passage.query.text)

    outcome = await Mask().act(p, echo)
    assert outcome.text == text
    assert not any(s in everything(p.query) for s in SECRETS)
    assert next(counter) == 1


LEAVES = st.sampled_from([MAIL, CARD, f'say "{OTHER}"\n', "word", "[EMAIL_1]", "sk", KEY, 5, True, None, 1.5])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "password", MAIL, "note"]), inner, max_size=3),
        inner.map(lambda v: json.dumps(v, ensure_ascii=False)),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(value=VALUES, spaced=st.booleans())
def test_json_in_texts_is_masked_and_comes_back_whole(value: Any, spaced: bool) -> None:
    content = json.dumps(value, ensure_ascii=False, separators=None if spaced else (",", ":"))
    query = Query(id="q", messages=(Message(role="tool", content=content), Message(role="user", content=MAIL)))
    new, values, _ = masked(query, Mask().finder)
    assert not any(s in everything(new) for s in SECRETS)
    back = json.loads(Restorer(values).text(new.messages[0].text, json=True))
    assert nested(back) == nested(value)


def nested(value: Any) -> Any:
    """Decode JSON in strings too, since escapes of a value inside may be written in several ways."""
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            return value
        return nested(inner)
    if isinstance(value, list):
        return [nested(v) for v in value]
    return {k: nested(v) for k, v in value.items()} if isinstance(value, dict) else value


# --------------------------------------------------------------------------------------------------- through the router


GUARDED = {
    "targets": {
        "near": {"type": "scripted", "replies": ["I wrote to [EMAIL_1]."], "profile": {"tags": ["local"]}},
        "far": {"type": "scripted", "replies": ["I know no [EMAIL_1]."]},
    },
    "routes": {"auto": {"policy": {"type": "fixed", "plan": "far"}}},
    "guards": [{"name": "private", "when": {"pii.found": True}, "only": ["tag:local"], "do": ["mask"]}],
}


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_guard_keeps_personal_data_near_and_masked(tmp_path: Path, streaming: bool) -> None:
    got: list[bytes] = []
    data = {**GUARDED, "store": {"path": str(tmp_path / "traces.sqlite")}}
    async with make(data).router() as router:
        outcome, trace = await router.handle(Query.ask(f"write to {MAIL}"), sink=keep(got) if streaming else None)
        assert outcome.text == f"I wrote to {MAIL}."
        assert trace.outcome.target == "near"
        assert trace.query.text == "write to [EMAIL_1]"
        assert trace.outcome.text == "I wrote to [EMAIL_1]."
        kept = await router.store.get(trace.id)
        assert kept is not None
        assert MAIL not in repr(kept)
        if streaming:
            assert grown(b"".join(got))[0, "content"] == f"I wrote to {MAIL}."
        outcome, trace = await router.handle(Query.ask("write to nobody"))
        assert (outcome.text, trace.outcome.target, trace.acts) == ("I know no [EMAIL_1].", "far", ())
    assert MAIL.encode() not in b"".join(f.read_bytes() for f in tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------ the trace


def test_it_hides_what_it_masks() -> None:
    assert Mask().hides


async def test_a_client_that_leaves_while_it_works_leaves_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    p = passage(Query.ask(f"{MAIL} " + "words here " * 5000))
    began, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(query: Query, finder: Any) -> Any:
        loop.call_soon_threadsafe(began.set)
        ended.wait(10)
        return masked(query, finder)

    monkeypatch.setattr("fairlead.actions.mask.masked", slow)
    task = asyncio.create_task(Mask().act(p, answering(Outcome(text="x"))))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ended.set()
    assert not p.keep_text
    p = passage(Query.ask(f"{MAIL} " + "words here " * 5000))
    await Mask().act(p, answering(Outcome(text="x")))
    assert p.keep_text
    assert MAIL not in p.query.text


@pytest.mark.parametrize(
    ("said", "answer", "masked_as"),
    [
        (f"I wrote to {MAIL}.", "I wrote to [EMAIL_1].", "I wrote to [EMAIL_1]."),
        (f"I wrote to {MAIL}.", "I wrote to [EMAIL_2].", "I wrote to [EMAIL_2]."),
        (f"{OTHER}, then {MAIL}", "[EMAIL_3], then [EMAIL_1]", "[EMAIL_3], then [EMAIL_1]"),
        (f"{OTHER}, then {MAIL}", "[EMAIL_1]", "[EMAIL_1], then [EMAIL_2]"),
        (f"[EMAIL_1] and {MAIL}", "[EMAIL_1]", "[EMAIL_1] and [EMAIL_2]"),
        (f'{{"to": "{MAIL}"}}', "", '{"to":"[EMAIL_1]"}'),
        (f"{CARD}", "[EMAIL_1]", "[CARD_1]"),
        ("nothing here", "[EMAIL_1]", "nothing here"),
    ],
)
def test_what_is_said_of_a_masked_answer_later_is_masked_like_it(said: str, answer: str, masked_as: str) -> None:
    assert masked_later(said, Mask().finder, answer) == masked_as


# -------------------------------------------------------------------------------------------------------- many values


def test_many_values_are_found_again_in_as_many_steps_as_the_text_has_words() -> None:
    class Counting(dict[str, str]):
        looked = 0

        def get(self, *args: Any) -> Any:
            Counting.looked += 1
            return super().get(*args)

    values = [f"user{i}@example{i % 7}.org" for i in range(2000)]
    masks = _Masks(Mask().finder)
    masks.learn("\n".join(values), "")
    masks.number()
    masks.placeholders = Counting(masks.placeholders)
    text = " ".join(f"<{v}>" for v in reversed(values)) + " userx " * 1000
    hidden = masks._repeats(text)
    assert "@" not in hidden
    assert Counting.looked <= 3 * len(text)
    assert hidden.startswith("<[EMAIL_2000]>")


@given(
    values=st.lists(st.text(alphabet="ab+. 1", min_size=6, max_size=9), unique=True, max_size=6),
    text=st.text(alphabet="ab+. 1", max_size=60),
)
def test_repeats_are_those_that_a_search_for_each_finds(values: list[str], text: str) -> None:
    values = [v for v in values if v[0] not in " "]
    masks = _Masks(Mask().finder)
    masks.kinds = dict.fromkeys(values, "email")
    masks.number()
    longest = sorted(values, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)" if values else "(?!)"
    assert masks._repeats(text) == re.sub(pattern, lambda m: masks.placeholders[m[0]], text)
