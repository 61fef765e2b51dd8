"""Translation between the OpenAI chat format and Anthropic's, by hand-written fixtures, and the driver over real sockets."""

import logging

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fairlead.errors import TargetError
from fairlead.targets.anthropic_messages import AnthropicMessages, StreamReader, translate
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.targets.sse import Framer
from fairlead.types import Call, Query, Tokens

JSON = {"content-type": "application/json"}


def to(**fields):
    return translate({"messages": [{"role": "user", "content": "hi"}], **fields}, model="m", max_tokens=99)


def test_a_whole_conversation():
    fields = {
        "model": "auto",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "one"},
            {"role": "tool", "tool_call_id": "b", "content": "two"},
            {"role": "developer", "content": "and kind"},
            {"role": "user", "content": "go on"},
        ],
        "stop": "END",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 5,
        "user": "u",
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 1,
        "logprobs": None,
    }
    got, dropped = translate(fields, model="m", max_tokens=99)
    assert dropped == []
    assert got == {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "b", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "one"}]},
                    {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "two"}]},
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "metadata": {"user_id": "u"},
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_tool_choice(choice, expected):
    got, _ = to(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice=choice)
    assert got["tool_choice"] == expected


def test_limits():
    assert to()[0]["max_tokens"] == 99
    assert to(max_completion_tokens=7, max_tokens=8)[0]["max_tokens"] == 7
    got, dropped = to(temperature=1.7)
    assert got["temperature"] == 1.0
    assert dropped == ["temperature above 1"]


def test_what_has_no_counterpart_is_named():
    assert to(n=2, seed=1, logprobs=True, response_format={"type": "json_object"})[1] == [
        "n",
        "seed",
        "logprobs",
        "response_format",
    ]
    assert to(n=1, logprobs=False, presence_penalty=0.0)[1] == []


async def ask(reply, sink=None, query=None, times=1):
    async with ScriptedServer(replies=(reply,)) as server:
        driver = AnthropicMessages(name="c", model="m", base_url=server.url[:-3], api_key="${CLAUDE_KEY}")
        await driver.start()
        for _ in range(times):
            o = await driver.ask(Call(target="c"), query or Query.ask("hi", id="q1"), sink)
        await driver.stop()
        return o, server.requests


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("CLAUDE_KEY", "very-hush-hush")


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "hello"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1]}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 10, "output_tokens": 4, "cache_read_input_tokens": 6, "cache_creation_input_tokens": 1},
}


async def test_reply():
    o, requests = await ask(Bytes(pieces=(msgspec.json.encode(MESSAGE),), headers=JSON))
    assert requests[0].path == "/v1/messages"
    assert requests[0].headers["x-api-key"] == "very-hush-hush"
    assert requests[0].headers["anthropic-version"] == "2023-06-01"
    assert (o.text, o.model, o.finish) == ("hello", "claude-x", "tool_calls")
    assert o.tokens == Tokens(input=17, cached_input=6, output=4)
    got = ChatCompletion.model_validate_json(o.reply)
    assert got.id == "q1"
    assert got.choices[0].message.tool_calls[0].function.arguments == '{"a":[1]}'
    assert got.choices[0].message.reasoning_content == "hm"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("stop_sequence", "stop"), ("refusal", "content_filter")],
)
async def test_stop_reasons(reason, finish):
    o, _ = await ask(Bytes(pieces=(msgspec.json.encode({**MESSAGE, "stop_reason": reason}),), headers=JSON))
    assert o.finish == finish


EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 12}},
    {"type": "message_stop"},
]
STREAM = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), msgspec.json.encode(e)) for e in EVENTS)


@pytest.mark.parametrize("asked", [False, True])
async def test_stream(asked):
    writes = []

    async def sink(events):
        writes.append(events)

    query = Query.ask("hi", id="q1", stream_options={"include_usage": asked})
    o, requests = await ask(Bytes(pieces=(STREAM[:300], STREAM[300:])), sink, query)
    assert requests[0].json["stream"] is True
    assert (o.text, o.finish, o.model, o.streamed) == ("hello", "tool_calls", "claude-x", True)
    assert o.tokens == Tokens(input=9, output=12)
    assert msgspec.json.decode(o.tool_calls)[0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    chunks = [ChatCompletionChunk.model_validate_json(e.data) for e in Framer().feed(b"".join(writes))]
    assert {c.id for c in chunks} == {"q1"}
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert "".join(d.content or "" for d in deltas) == "hello"
    assert deltas[0].role == "assistant"
    pieces = [d.tool_calls[0] for d in deltas if d.tool_calls]
    assert (pieces[0].id, pieces[0].index, "".join(p.function.arguments for p in pieces)) == ("t1", 0, '{"a":1}')
    assert len([c for c in chunks if c.usage]) == asked


def test_split_reads_and_cuts():
    def read(*reads):
        reader = StreamReader(id="q", created=1, pass_usage=True)
        out = b"".join(reader.feed(r) for r in reads)
        reader.close()
        return out

    whole = read(STREAM)
    stop = STREAM.index(b'{"type":"message_stop"') + len(b'{"type":"message_stop"}\n')
    for i in range(len(STREAM) + 1):
        assert read(STREAM[:i], STREAM[i:]) == whole
        if i < stop:
            with pytest.raises(TargetError) as caught:
                read(STREAM[:i])
            assert caught.value.failure.kind == "broken_stream"


@pytest.mark.parametrize(
    ("kind", "failure"), [("overloaded_error", "unavailable"), ("rate_limit_error", "rate_limited")]
)
def test_error_event(kind, failure):
    event = b'event: error\ndata: {"type":"error","error":{"type":"%b","message":"because"}}\n\n' % kind.encode()
    with pytest.raises(TargetError, match="because") as caught:
        StreamReader(id="q", created=1, pass_usage=False).feed(event)
    assert caught.value.failure.kind == failure


async def test_refusals():
    error = b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: very-hush-hush"}}'
    o, _ = await ask(Bytes(status=400, pieces=(error,), headers=JSON))
    assert o.error.kind == "context_too_long"
    assert "hush" not in o.error.message
    o, _ = await ask(Bytes(status=529, pieces=(b"",), headers={**JSON, "retry-after": "2"}))
    assert (o.error.kind, o.error.retry_after_seconds) == ("unavailable", 2.0)
    o, _ = await ask(Bytes(pieces=(b"{}",), headers=JSON))
    assert o.error.kind == "malformed"


async def test_untranslatable_requests_and_fields(caplog):
    parts = [{"type": "input_audio", "input_audio": {}}]
    query = Query.ask("x", id="q")
    query = msgspec.structs.replace(
        query, body={"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": parts}]))}
    )
    o, requests = await ask(Bytes(pieces=()), query=query)
    assert o.error.kind == "bad_request"
    assert requests == []
    caplog.set_level(logging.WARNING)
    await ask(Bytes(pieces=(msgspec.json.encode(MESSAGE),), headers=JSON), query=Query.ask("x", seed=3), times=3)
    assert len([r for r in caplog.records if "'seed'" in r.getMessage()]) == 1
