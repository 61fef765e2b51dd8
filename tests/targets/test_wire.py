"""The OpenAI chat format, against the official client's types."""

import math

import msgspec
import pytest
from msgspec import Raw
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fairlead.errors import TargetError
from fairlead.targets import wire
from fairlead.targets.sse import Framer
from fairlead.types import Call, Message, Outcome, Part, Query, Tokens

TOOLS = Raw(b'[{"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}}]')
OUTCOME = Outcome(
    text='say "hi"', model="m", tokens=Tokens(input=7, cached_input=2, output=3, reasoning=1), finish="stop"
)


def events(data):
    return [ChatCompletionChunk.model_validate_json(e.data) for e in Framer().feed(data)]


def test_completion():
    got = ChatCompletion.model_validate_json(wire.completion(OUTCOME, id="q1", created=5))
    assert (got.id, got.model, got.created) == ("q1", "m", 5)
    assert got.choices[0].message.content == 'say "hi"'
    assert got.choices[0].finish_reason == "stop"
    assert got.usage.total_tokens == 10
    assert got.usage.prompt_tokens_details.cached_tokens == 2
    assert got.usage.completion_tokens_details.reasoning_tokens == 1


def test_unknown_tokens_are_not_written():
    got = ChatCompletion.model_validate_json(wire.completion(Outcome(text="x"), id="q", created=0))
    assert got.usage is None


def test_tool_calls():
    outcome = Outcome(tool_calls=TOOLS, finish="tool_calls", model="m")
    got = ChatCompletion.model_validate_json(wire.completion(outcome, id="q", created=0))
    assert got.choices[0].message.content is None
    assert got.choices[0].message.tool_calls[0].function.name == "f"
    chunks = events(wire.chunks(outcome, id="q", created=0))
    assert chunks[0].choices[0].delta.tool_calls[0].index == 0
    assert chunks[0].choices[0].delta.tool_calls[0].id == "t1"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("include_usage", [False, True])
def test_chunks(include_usage):
    data = wire.chunks(OUTCOME, id="q1", created=5, include_usage=include_usage)
    assert b"[DONE]" not in data
    got = events(data)
    assert {c.id for c in got} == {"q1"}
    assert "".join(c.choices[0].delta.content or "" for c in got if c.choices) == OUTCOME.text
    assert [c.choices[0].finish_reason for c in got if c.choices] == [None, "stop"]
    assert [c.usage.total_tokens for c in got if c.usage] == ([10] if include_usage else [])


def test_chunks_keep_what_the_reply_holds():
    choices = [
        wire.Choice(text="a", logprobs=(wire.token_logprob("a", -0.1, [("a", -0.1), ("b", -2.5)]),)),
        wire.Choice(text="b", reasoning="hm", finish="length"),
    ]
    reply = wire.completions(choices, id="q", created=1, model="m", tokens=Tokens(input=1, output=2))
    got = events(wire.chunks(Outcome(text="a", reply=reply), id="q", created=1, include_usage=True))
    assert [c.choices[0].index for c in got if c.choices] == [0, 0, 1, 1]
    assert got[0].choices[0].logprobs.content[0].top_logprobs[1].logprob == -2.5
    assert got[2].choices[0].delta.reasoning_content == "hm"
    assert got[3].choices[0].finish_reason == "length"
    assert got[4].usage.completion_tokens == 2


def test_fields_are_the_clients_own_bytes():
    odd = Raw(b'{ "a" : [1,  2.50, "\\u00e9"] }')
    query = Query(id="q", messages=(Message(role="user", content="x"),), body={"odd": odd, "messages": Raw(b"[ ]")})
    got = wire.fields(Call(target="t", params={"temperature": 0.5}), query)
    assert bytes(got["odd"]) == bytes(odd)
    assert bytes(got["messages"]) == b"[ ]"
    assert bytes(got["temperature"]) == b"0.5"
    assert "temperature" not in query.body


def test_messages_taken_over_keep_their_images():
    own = b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}],"x":1}'
    message = Message(role="user", content=(Part(type="image_url"),))
    query = Query(id="q", messages=(message,), body={"messages": Raw(b"[" + own + b"]")})
    call = Call(target="t", messages=(Message(role="system", content=(Part(text="s"),)), message))
    got = msgspec.json.decode(wire.fields(call, query)["messages"], type=list[Raw])
    assert bytes(got[1]) == own
    assert msgspec.json.decode(got[0]) == {"role": "system", "content": [{"type": "text", "text": "s"}]}
    with pytest.raises(TargetError, match="image_url"):
        wire.fields(Call(target="t", messages=(Message(role="user", content=(Part(type="image_url"),)),)), query)


def test_entropy():
    assert wire.entropy([math.log(0.5)] * 2) == pytest.approx(math.log(2))
    assert wire.entropy([0.0]) == 0.0
    # The mass that is not reported counts as one bucket.
    assert wire.entropy([math.log(0.5), math.log(0.25)]) == pytest.approx(1.5 * math.log(2))
    assert wire.entropy([-9999.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (None, False),
        (b"null", False),
        (b'{"include_usage":true}', True),
        (b'{"include_usage":false}', False),
        (b"3", False),
    ],
)
def test_wants_usage(options, asked):
    assert wire.wants_usage({} if options is None else {"stream_options": Raw(options)}) is asked
