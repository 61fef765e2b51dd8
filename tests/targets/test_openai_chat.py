"""The OpenAI chat driver over real sockets, against a server that misbehaves as told."""

import asyncio
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from msgspec import Raw
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fairlead.component import pack
from fairlead.errors import ConfigError, TargetError
from fairlead.targets import openai_chat
from fairlead.targets.openai_chat import OpenAIChat, StreamReader
from fairlead.targets.scripted import Reply
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.targets.sse import Framer
from fairlead.types import Call, Failure, Profile, Query, Tokens

KEY = "sk-verysecret-0123456789"
CALL = Call(target="t")
PRICED = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)


class Client:
    """A sink that keeps what it is sent."""

    def __init__(self):
        self.writes = []

    async def __call__(self, events):
        self.writes.append(events)

    @property
    def chunks(self):
        return [ChatCompletionChunk.model_validate_json(e.data) for e in Framer().feed(b"".join(self.writes))]

    @property
    def text(self):
        return "".join(c.choices[0].delta.content or "" for c in self.chunks if c.choices)


@pytest.fixture
async def ask(monkeypatch):
    """Ask a driver whose upstream plays the replies given."""
    monkeypatch.setenv("TEST_KEY", KEY)

    async def go(*replies, sink=None, call=CALL, query=None, then=None, **options):
        async with ScriptedServer(replies=replies or ("ok",)) as server:
            options = {"timeout_seconds": 5.0, "profile": PRICED, **options}
            driver = OpenAIChat(name="t", model="real", base_url=server.url, api_key="${TEST_KEY}", **options)
            await driver.start()
            try:
                outcome = await driver.ask(call, query or Query.ask("hello", id="q1"), sink)
            finally:
                await driver.stop()
            go.server = server
            return outcome

    return go


async def test_plain(ask):
    o = await ask(Reply(text="four words of answer", tokens=Tokens(input=10, cached_input=4, output=4)))
    assert o.error is None
    assert (o.text, o.target, o.model, o.finish) == ("four words of answer", "t", "scripted", "stop")
    assert o.tokens == Tokens(input=10, cached_input=4, output=4)
    assert o.usd == pytest.approx(18e-6)
    got = ChatCompletion.model_validate_json(o.reply)
    assert got.id == "q1"
    assert got.choices[0].message.content == o.text
    request = ask.server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json["model"] == "real"


async def test_fields_are_forwarded_as_they_came(ask):
    odd = b'{ "deep" : [1,  2.50, "\\u00e9"],  "n":1e3 }'
    query = Query.ask("hi", id="q1", model="auto", stream=True, stream_options={"include_usage": True}, seed=3)
    query = msgspec.structs.replace(query, body={**query.body, "odd": Raw(odd)})
    await ask(query=query, call=Call(target="t", params={"temperature": 0.25}))
    body = msgspec.json.decode(ask.server.requests[0].body, type=dict[str, Raw])
    assert bytes(body["odd"]) == odd
    assert bytes(body["messages"]) == bytes(query.body["messages"])
    assert bytes(body["seed"]) == b"3"
    assert bytes(body["temperature"]) == b"0.25"
    assert "stream" not in body
    assert "stream_options" not in body


async def test_the_reply_is_forwarded_as_it_came(ask):
    raw = (
        b'{"id":"up","odd":{ "a" : [1,  2] },"choices":[{"index":0,"message":{"role":"assistant","content":"say \\"id\\"",'
        b'"x":1},"finish_reason":"stop"}],"usage":null}'
    )
    o = await ask(Bytes(pieces=(raw,), headers={"content-type": "application/json"}))
    assert o.text == 'say "id"'
    assert o.tokens is None
    assert o.usd is None
    assert o.reply == raw.replace(b'"up"', b'"q1"')


async def test_logprobs(ask):
    call = Call(target="t", params={"logprobs": True, "top_logprobs": 1})
    for sink in (None, Client()):
        o = await ask(Reply(text="a b", logprobs=(math.log(0.5), -0.25)), call=call, sink=sink)
        assert o.logprobs == pytest.approx((math.log(0.5), -0.25))
        assert o.first_entropy == pytest.approx(math.log(2))  # the other half is one bucket
        o = await ask(Reply(text="a b", logprobs=(-1.0, -2.0)), sink=sink)
        assert o.logprobs is None
        assert o.first_entropy is None


@pytest.mark.parametrize("asked", [False, True])
async def test_stream(ask, asked):
    client = Client()
    fields = {"stream_options": {"include_usage": True, "x": 1}} if asked else {}
    query = Query.ask("hello", id="q1", **fields)
    o = await ask(Reply(text='the "id": stays', word_seconds=0.001), sink=client, query=query)
    assert o.error is None
    assert o.streamed
    assert o.text == client.text == 'the "id": stays'
    assert o.tokens is not None
    assert o.finish == "stop"
    assert 0 < o.first_token_seconds <= o.seconds
    assert {c.id for c in client.chunks} == {"q1"}
    assert len([c for c in client.chunks if c.usage]) == asked
    sent = ask.server.requests[0].json
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True, **({"x": 1} if asked else {})}
    assert b"[DONE]" not in b"".join(client.writes)


async def test_stream_of_tool_calls(ask):
    tool = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    o = await ask(Reply(text="", tool_calls=(tool,), finish="tool_calls"), sink=Client())
    assert msgspec.json.decode(o.tool_calls) == [tool]
    assert o.finish == "tool_calls"
    o = await ask(Reply(text="", tool_calls=(tool,), finish="tool_calls"))
    assert msgspec.json.decode(o.tool_calls) == [tool]


@pytest.mark.parametrize("sink", [None, Client()])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "bad_request"),
        (422, "bad_request"),
        (401, "auth"),
        (403, "auth"),
        (404, "not_found"),
        (408, "timeout"),
        (413, "context_too_long"),
        (429, "rate_limited"),
        (500, "unavailable"),
        (503, "unavailable"),
        (504, "timeout"),
        (307, "not_found"),
    ],
)
async def test_statuses(ask, status, kind, sink):
    o = await ask(Reply(error=Failure(kind="internal", status=status, message="because")), sink=sink)
    assert (o.error.kind, o.error.status) == (kind, status)
    assert "because" in o.error.message or status == 307
    assert not o.streamed


async def test_context_too_long(ask):
    o = await ask(Reply(error=Failure(kind="context_too_long", message="too many tokens")))
    assert o.error.kind == "context_too_long"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({}, None),
    ],
)
async def test_retry_after(ask, headers, seconds):
    o = await ask(Bytes(status=429, headers=headers, pieces=(b"slow down",)))
    assert o.error == Failure(kind="rate_limited", message="slow down", status=429, retry_after_seconds=seconds)


async def test_retry_after_date(ask):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    o = await ask(Bytes(status=429, headers={"retry-after": date}, pieces=(b"",)))
    assert 30 < o.error.retry_after_seconds <= 60


async def test_no_key_survives_in_an_error(ask):
    long = "x" * 490 + f" your key {KEY} is wrong, as is sk-proj-abcd****wxyz, " + "y" * 500
    for sink in (None, Client()):
        o = await ask(Reply(error=Failure(kind="auth", status=401, message=long)), sink=sink)
        assert len(o.error.message) <= 500
        assert "verysecret" not in o.error.message
        assert "sk-" not in o.error.message


async def test_no_key_of_a_header_survives_in_an_error(ask, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "AIza-hush-hush")
    headers = {"X-Goog-Api-Key": " ${OTHER_KEY} "}
    o = await ask(Reply(error=Failure(kind="auth", status=401, message="no AIza-hush-hush here")), headers=headers)
    assert o.error.message == "no [secret] here"
    assert ask.server.requests[0].headers["x-goog-api-key"] == "AIza-hush-hush"


async def test_no_key_in_any_form_of_the_driver(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_HEADER", "other-secret")
    driver = OpenAIChat(name="t", model="m", api_key="os.environ/TEST_KEY", headers={"x-org": "${TEST_HEADER}"})
    await driver.start()
    shown = repr(driver) + str(driver.spec()) + str(pack([driver.spec(), driver.state()]))
    assert "verysecret" not in shown
    assert "other-secret" not in shown
    assert "${TEST_KEY}" in shown
    await driver.stop()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"api_key": KEY}, "$.api_key"),
        ({"headers": {"Authorization": f"Bearer {KEY}"}}, "$.headers.Authorization"),
        ({"headers": {"x-org": "us", "X-Goog-Api-Key": KEY}}, "$.headers.X-Goog-Api-Key"),
        ({"headers": {"Ocp-Apim-Subscription-Key": KEY}}, "$.headers.Ocp-Apim-Subscription-Key"),
        ({"headers": {"X-Session-TOKEN": KEY}}, "$.headers.X-Session-TOKEN"),
        ({"headers": {"x-client-secret": KEY}}, "$.headers.x-client-secret"),
        ({"headers": {"X-Password": KEY}}, "$.headers.X-Password"),
        ({"headers": {"Cookie": KEY}}, "$.headers.Cookie"),
        ({"base_url": "localhost:8000"}, "$.base_url"),
        ({"base_url": "http://me:pw@host/v1"}, "$.base_url"),
    ],
)
def test_literals_are_refused(options, path):
    with pytest.raises(ConfigError) as caught:
        OpenAIChat(name="t", model="m", **options)
    assert caught.value.path == path
    assert KEY not in str(caught.value)


async def test_unset_key_is_told_at_start(monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="TEST_KEY"):
        await OpenAIChat(name="t", model="m", api_key="${TEST_KEY}").start()


async def test_unreachable():
    async with ScriptedServer() as server:
        url = server.url
    driver = OpenAIChat(name="t", model="m", base_url=url)
    assert (await driver.ask(CALL, Query.ask("x"))).error.kind == "internal"
    await driver.start()
    assert (await driver.ask(CALL, Query.ask("x"))).error.kind == "unavailable"
    await driver.stop()


@pytest.mark.parametrize("sink", [None, Client()])
async def test_timeout_closes_the_connection(ask, sink):
    async with ScriptedServer(replies=(Reply(hang=True),)) as server:
        driver = OpenAIChat(name="t", model="m", base_url=server.url, timeout_seconds=0.05)
        await driver.start()
        o = await driver.ask(CALL, Query.ask("x"), sink)
        assert o.error.kind == "timeout"
        await asyncio.wait_for(server.hung_up.wait(), 5)
        await driver.stop()


@pytest.mark.parametrize("reply", [Reply(hang=True), Reply(text="a b c d", word_seconds=30)])
async def test_cancelling_closes_the_connection(reply):
    async with ScriptedServer(replies=(reply,)) as server:
        driver = OpenAIChat(name="t", model="m", base_url=server.url)
        await driver.start()
        task = asyncio.create_task(driver.ask(CALL, Query.ask("x"), Client()))
        while not server.requests:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.hung_up.wait(), 5)
        await driver.stop()


async def test_a_client_that_cannot_be_written_to_closes_the_connection():
    async def gone(events):
        raise ConnectionResetError

    async with ScriptedServer(replies=(Reply(text="a b c d", word_seconds=30),)) as server:
        driver = OpenAIChat(name="t", model="m", base_url=server.url)
        await driver.start()
        o = await driver.ask(CALL, Query.ask("x"), gone)
        assert o.error.kind == "client_gone"
        assert o.streamed
        await asyncio.wait_for(server.hung_up.wait(), 5)
        await driver.stop()


async def test_connections_are_kept_and_shared():
    async with ScriptedServer() as server:
        drivers = [OpenAIChat(name=f"t{i}", model="m", base_url=server.url) for i in range(2)]
        for driver in drivers:
            await driver.start()
        for sink in (None, Client(), None):
            for driver in drivers:
                assert (await driver.ask(CALL, Query.ask("x"), sink)).ok
        assert server.connections == 1
        await drivers[0].stop()
        assert (await drivers[1].ask(CALL, Query.ask("x"))).ok
        await drivers[1].stop()


@pytest.mark.parametrize("after", [1, 2])
async def test_cut_stream(ask, after):
    client = Client()
    o = await ask(Reply(text="one two three", cut_after_chunks=after, word_seconds=0.01), sink=client)
    assert o.error.kind == "broken_stream"
    assert o.streamed
    assert client.text == "".join(Reply(text="one two three").words[:after])


async def test_a_stream_that_dies_after_its_greeting_can_be_replaced(ask):
    client = Client()
    o = await ask(Reply(text="one two", cut_after_chunks=0), sink=client)
    assert o.error.kind == "broken_stream"
    assert o.error.elsewhere
    assert not o.streamed
    assert client.writes == []


@pytest.mark.parametrize(("index", "kind"), [(0, "malformed"), (1, "broken_stream")])
async def test_malformed_chunk(ask, index, kind):
    o = await ask(Reply(text="one two", malformed_chunk=index, word_seconds=0.01), sink=Client())
    assert o.error.kind == kind
    assert "malformed" in o.error.message


@pytest.mark.parametrize(
    "reply", [Reply(malformed_chunk=0), Bytes(pieces=(b"<html>",)), Bytes(pieces=(b'{"choices":[]}',))]
)
async def test_malformed_reply(ask, reply):
    assert (await ask(reply)).error.kind == "malformed"


async def test_a_reply_that_breaks_off(ask):
    assert (await ask(Reply(text="long enough", cut_after_chunks=1))).error.kind == "unavailable"


@pytest.mark.parametrize("sink", [None, Client()])
async def test_missing_usage_is_unknown(ask, sink):
    o = await ask(Reply(usage=False), sink=sink)
    assert o.ok
    assert o.tokens is None
    assert o.usd is None


async def test_an_error_with_status_200(ask):
    json = {"content-type": "application/json"}
    body = b'{"error":{"code":429,"message":"slow"}}'
    for sink in (None, Client()):
        assert (await ask(Bytes(pieces=(body,), headers=json), sink=sink)).error.kind == "rate_limited"


async def test_a_server_that_cannot_stream(ask):
    body = (
        b'{"id":"u","created":3,"choices":[{"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}]}'
    )
    client = Client()
    o = await ask(Bytes(pieces=(body,), headers={"content-type": "application/json"}), sink=client)
    assert o.ok
    assert client.text == o.text == "whole"


async def test_a_refusal_ends_as_one(ask):
    body = (
        b'{"id":"u","choices":[{"message":{"role":"assistant","content":null,"refusal":"No."},"finish_reason":"stop"}]}'
    )
    o = await ask(Bytes(pieces=(body,), headers={"content-type": "application/json"}))
    assert (o.text, o.finish) == ("No.", "content_filter")
    assert msgspec.json.decode(o.reply)["choices"][0]["finish_reason"] == "stop", "the reply is as it came"


# ------------------------------------------------------------------------------------------------ the reader by itself

CHUNK = '{{"id":"{id}","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{end}}}]}}'
STREAM = (
    "".join(
        f"data: {CHUNK.format(id=id, delta=delta, end=end)}{eol}{eol}"
        for id, delta, end, eol in [
            ("up-1", '{"role":"assistant","content":""}', "null", "\n"),
            ("up-1", '{"content":"say \\"id\\":\\"up-1\\" "}', "null", "\r\n"),
            ("up-2", '{"content":"größe"}', "null", "\n"),
            ("", '{"content":"!"}', "null", "\n"),
            ("up-2", "{}", '"stop"', "\n"),
        ]
    )
    + ": ping\n\n"
    + 'data: {"id": "up-2", "choices": [],\ndata: "usage":{"prompt_tokens":2,"completion_tokens":3}}\n\ndata: [DONE]\n\n'
).encode()


def read(*reads, **options):
    reader = StreamReader(id="q1", **{"pass_usage": True, **options})
    out = b"".join([*(reader.feed(r) for r in reads), reader.close()])
    return out, msgspec.structs.replace(reader.outcome(), first_token_seconds=None)


def test_split_reads_at_every_byte_give_the_same():
    out, outcome = whole = read(STREAM)
    assert outcome.text == 'say "id":"up-1" größe!'
    assert outcome.tokens == Tokens(input=2, output=3)
    chunks = [msgspec.json.decode(e.data) for e in Framer().feed(out)]
    assert [c["id"] for c in chunks] == ["q1"] * 6
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == outcome.text
    for i in range(len(STREAM) + 1):
        assert read(STREAM[:i], STREAM[i:]) == whole, i
    assert read(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == whole


def test_a_streamed_refusal_ends_as_one():
    parts = (('{"refusal":"N"}', "null"), ('{"refusal":"o."}', "null"), ("{}", '"stop"'))
    events = [f"data: {CHUNK.format(id='u', delta=delta, end=end)}\n\n".encode() for delta, end in parts]
    out, outcome = read(*events)
    assert (outcome.text, outcome.finish) == ("No.", "content_filter")
    assert b'"stop"' in out


def test_a_stream_cut_at_any_byte_says_so():
    end = STREAM.index(b'"stop"')
    closed = STREAM.index(b"\n\n", end)
    for i in range(end):
        with pytest.raises(TargetError) as caught:
            read(STREAM[:i])
        assert caught.value.failure.kind == "broken_stream"
    # Once the ending is there, a missing [DONE] is no loss.
    assert read(STREAM[: closed + 2])[1].finish == "stop"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n', "unavailable"),
        (b'event: error\ndata: {"error":{"message":"x","type":"rate_limit_error"}}\n\n', "rate_limited"),
        (b'data: {"error":"plain words"}\n\n', "unavailable"),
        (b"data: {nope}\n\n", "malformed"),
        (b'data: {"choices":[{"delta":{"content":5}}]}\n\n', "malformed"),
    ],
)
def test_errors_within_a_stream(event, kind):
    with pytest.raises(TargetError) as caught:
        read(event)
    assert caught.value.failure.kind == kind


CHOICES = b'"choices":[{"message":{"content":"hi"}}]'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id": "a", ' + CHOICES + b', "x": 1}', b'{"id": "new", ' + CHOICES + b', "x": 1}'),
        (b'{\r\n  "id": "a",\n ' + CHOICES + b', "x": [\n1]\n}\n', b'{"id":"new",' + CHOICES + b',"x":[1]}'),
        (b'{"id":"hi",' + CHOICES + b"}", b'{"id":"new",' + CHOICES + b"}"),
        (b"{" + CHOICES + b"}", b"{" + CHOICES + b',"id":"new"}'),
        (b'{"id":null,' + CHOICES + b"}", b'{"id":"new",' + CHOICES + b"}"),
        (b'{"id":"a",' + CHOICES + b',"id":"a"}', b'{"id":"new",' + CHOICES + b"}"),
        (b'{"id":"a","choices":[{"message":{"content":"no"}}],' + CHOICES + b"}", b'{"id":"new",' + CHOICES + b"}"),
    ],
)
def test_a_reply_goes_on_as_it_came_but_for_its_id(body: bytes, expected: bytes) -> None:
    outcome = openai_chat.read(body, id="new")
    assert outcome.text == "hi"
    assert outcome.reply == expected


@pytest.mark.parametrize("id", [b'"id":"a",', b'"id":"hi",', b""])
def test_a_reply_whose_names_are_no_text_is_malformed(id: bytes) -> None:
    with pytest.raises(TargetError) as e:
        openai_chat.read(b"{" + id + CHOICES + b',"\xff":1}', id="new")
    assert e.value.failure.kind == "malformed"
