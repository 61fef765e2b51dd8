"""What differs between providers of the chat format: what is taken out and told, how tokens are counted, where a cost is stated."""

import msgspec
import pytest
from msgspec import Raw
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fairlead.errors import ConfigError, TargetError
from fairlead.targets import providers
from fairlead.targets.openai_chat import OpenAIChat, StreamReader, read, request
from fairlead.targets.providers import PROVIDERS, UNKNOWN
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.targets.sse import Framer
from fairlead.types import Call, Profile, Query, Tokens

CALL = Call(target="t")
MARK = {"type": "ephemeral"}
FULL = {
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "top_k": 5,
    "max_tokens": 9,
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": MARK}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "u"},
                {"type": "file", "file": {"file_url": "https://x/a.pdf", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "hm", "signature": "fl1:anthropic/claude:abc"},
                {"type": "redacted_thinking", "data": "xyz"},
            ],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "no", "is_error": True, "cache_control": MARK},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}, "cache_control": MARK}],
}


def query(**fields):
    return Query(id="q1", messages=(), body={k: Raw(msgspec.json.encode(v)) for k, v in fields.items()})


def sent(name, streaming=False, **fields):
    """What is sent to a provider, and what was left out."""
    provider = PROVIDERS.get(name, UNKNOWN)
    out, dropped = request(CALL, query(**fields), model="m", provider=provider, streaming=streaming)
    return msgspec.json.decode(msgspec.json.encode(out)), list(dropped)


ALL = [
    "thinking",
    "top_k",
    "messages[0].cache_control",
    "messages[1].file_url",
    "reasoning_content",
    "thinking of anthropic/claude",
    "thinking that nobody signed",
    "messages[3].cache_control",
    "messages[3].is_error",
    "tools[0].cache_control",
]


@pytest.mark.parametrize("name", ["openai", "azure", "groq", "mistral", "xai"])
def test_strict_upstreams_get_the_bare_format(name):
    out, dropped = sent(name, **FULL)
    assert sorted(dropped) == sorted(ALL)
    text = msgspec.json.encode(out)
    for field in ("cache_control", "thinking", "thinking_blocks", "reasoning_content", "is_error", "file_url", "top_k"):
        assert f'"{field}"'.encode() not in text
    assert out["messages"][1]["content"] == [{"type": "text", "text": "u"}]
    assert out["messages"][2]["tool_calls"] == FULL["messages"][2]["tool_calls"]
    assert out["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_what_a_provider_takes_is_sent():
    out, dropped = sent("openrouter", **FULL)
    assert dropped == [
        "thinking",
        "thinking of anthropic/claude",
        "thinking that nobody signed",
        "messages[3].is_error",
    ]
    assert out["messages"][0] == FULL["messages"][0]
    assert out["messages"][1]["content"][1]["file"] == {"file_data": "https://x/a.pdf", "filename": "a.pdf"}
    assert out["tools"] == FULL["tools"]
    assert out["top_k"] == 5
    out, dropped = sent("deepseek", **FULL)
    assert out["thinking"] == FULL["thinking"]
    assert out["messages"][2]["reasoning_content"] == "hm"
    assert "top_k" in dropped
    out, dropped = sent("unknown", **FULL)
    assert out["top_k"] == 5
    assert "thinking" in dropped


@pytest.mark.parametrize("name", [*PROVIDERS, "unknown"])
def test_without_extension_fields_nothing_is_decoded(name, monkeypatch):
    monkeypatch.setattr(providers.msgspec.json, "decode", None)
    raw = Raw(b'[ {"role": "user", "content" : "what is cache_control?"} ]')
    fields = {"messages": raw, "seed": Raw(b"3"), "tools": Raw(b"[ ]")}
    before = dict(fields)
    assert providers.fit(fields, PROVIDERS.get(name, UNKNOWN)) == ()
    assert fields == before
    assert fields["messages"] is raw


def test_pictures_in_results_follow_as_the_users():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}}
    text = {"type": "text", "text": "t"}
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ("c1", "c2", "c3")]
    messages = [
        {"role": "user", "content": [text, picture]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": [text, picture]},
        {"role": "tool", "tool_call_id": "c2", "content": [picture]},
        {"role": "tool", "tool_call_id": "c3", "content": "plain"},
        {"role": "assistant", "content": "ok"},
    ]
    out, dropped = sent("openai", messages=messages)
    assert dropped == []
    assert out["messages"] == [
        *messages[:2],
        {"role": "tool", "tool_call_id": "c1", "content": [text]},
        {"role": "tool", "tool_call_id": "c2", "content": "(attached below)"},
        messages[4],
        {"role": "user", "content": [picture, picture]},
        messages[5],
    ]


def test_nulls_ask_for_nothing():
    message = {"role": "assistant", "content": "x", "reasoning_content": None, "thinking_blocks": [], "is_error": False}
    out, dropped = sent("openai", thinking=None, top_k=None, messages=[message])
    assert dropped == []
    assert out["messages"] == [{"role": "assistant", "content": "x"}]
    assert "thinking" not in out


def test_a_message_that_would_be_empty_is_refused():
    part = {"type": "file", "file": {"file_url": "https://x/a.pdf"}}
    with pytest.raises(TargetError) as e:
        sent("openai", messages=[{"role": "user", "content": [part]}])
    assert e.value.failure.kind == "bad_request"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("openai", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("azure", {"max_tokens": 5, "max_completion_tokens": 4}, {"max_completion_tokens": 4}),
        ("mistral", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("groq", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("vllm", {"max_tokens": 5}, {"max_tokens": 5}),
    ],
)
def test_the_limit_has_the_name_that_is_known_there(name, given, expected):
    out, dropped = sent(name, messages=[], **given)
    assert {k: v for k, v in out.items() if k.startswith("max_")} == expected
    assert dropped == []


def test_stream_options():
    out, _ = sent("openai", streaming=True, messages=[], stream_options={"x": 1})
    assert out["stream_options"] == {"x": 1, "include_usage": True}
    out, _ = sent("mistral", streaming=True, messages=[], stream_options={"include_usage": True})
    assert "stream_options" not in out
    assert out["stream"] is True


@pytest.mark.parametrize(
    ("options", "name", "url"),
    [
        ({}, "openai", "https://api.openai.com/v1"),
        ({"base_url": "https://api.mistral.ai/v1"}, "mistral", "https://api.mistral.ai/v1"),
        ({"provider": "groq"}, "groq", "https://api.groq.com/openai/v1"),
        ({"base_url": "http://127.0.0.1:9/v1"}, None, "http://127.0.0.1:9/v1"),
        ({"provider": "openrouter", "base_url": "http://proxy/v1"}, "openrouter", "http://proxy/v1"),
    ],
)
def test_who_is_asked(options, name, url):
    driver = OpenAIChat(name="t", model="m", **options)
    assert driver.base_url == url
    assert driver._provider is PROVIDERS.get(name, UNKNOWN)


def test_a_provider_needs_an_address():
    with pytest.raises(ConfigError, match="base_url"):
        OpenAIChat(name="t", model="m", provider="azure")
    with pytest.raises(ConfigError, match="mistral"):
        OpenAIChat(name="t", model="m", provider="mistrel")


# -------------------------------------------------------------------------------------------------------------- usage

MESSAGE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}


def both(usage, cost=None, *, groq=False):
    """Read a usage off a reply and off a stream; both must say the same."""
    whole = read(msgspec.json.encode({**MESSAGE, "usage": usage}), id="q", cost=cost)
    reader = StreamReader(id="q", pass_usage=False, cost=cost)
    chunk = {"id": "a", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
    last = {**chunk, "x_groq": {"usage": usage}} if groq else {"id": "a", "choices": [], "usage": usage}
    for each in (chunk, {**chunk, "usage": usage} if not groq else chunk, last):
        reader.feed(b"data: " + msgspec.json.encode(each) + b"\n\n")
    reader.close()
    streamed = reader.outcome()
    assert streamed.tokens == whole.tokens
    assert streamed.usd == whole.usd
    return whole


def test_every_kind_of_token_is_counted_once():
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {
            "cached_tokens": 40,
            "audio_tokens": 10,
            "image_tokens": 20,
            "cache_creation_tokens": 5,
        },
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 8},
    }
    tokens = both(usage).tokens
    assert tokens.kinds() == {
        "cached_input": 40,
        "cache_write": 5,
        "audio_input": 10,
        "image_input": 20,
        "input": 25,
        "reasoning": 30,
        "audio_output": 8,
        "output": 12,
    }
    assert sum(tokens.kinds().values()) == 150


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # DeepSeek
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 9,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
            },
            Tokens(input=100, cached_input=64, output=9),
        ),
        # xAI: reasoning stands beside the completion, and the total says so
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Tokens(input=32, output=103, reasoning=94),
        ),
        # OpenAI: it is part of it
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 103,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Tokens(input=32, output=103, reasoning=94),
        ),
        # OpenRouter
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
            },
            Tokens(input=10, output=1, cached_input=2, cache_write=3),
        ),
        ({"prompt_tokens": 10, "completion_tokens": None}, None),
    ],
)
def test_each_way_of_counting(usage, expected):
    assert both(usage).tokens == expected


def test_groq_counts_in_a_field_of_its_own():
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "queue_time": 0.1}
    assert both(usage, groq=True).tokens == Tokens(input=3, output=2)


@pytest.mark.parametrize(
    ("field", "usage", "usd"),
    [
        ("cost", {"cost": 0.0125}, 0.0125),
        ("cost", {"cost": 0}, 0.0),
        ("cost", {}, None),
        ("cost", {"cost": {"total": 1}}, None),
        ("cost", {"cost": -1}, None),
        ("cost", {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, 0.021),
        ("cost", {"cost": 0.001, "is_byok": True}, None),
        ("cost_in_usd_ticks", {"cost_in_usd_ticks": 232856000}, 0.0232856),
        (None, {"cost": 0.0125}, None),
    ],
)
def test_the_cost_that_a_provider_states(field, usage, usd):
    o = both({"prompt_tokens": 1, "completion_tokens": 1, **usage}, cost=field)
    assert o.usd == pytest.approx(usd) if usd is not None else o.usd is None


# ----------------------------------------------------------------------------------------------------------- thinking


@pytest.mark.parametrize(
    "said",
    [
        {"content": "answer", "reasoning": "thought"},
        {"content": "answer", "reasoning_content": "thought"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "thought"}]},
                {"type": "text", "text": "answer"},
            ]
        },
    ],
)
def test_thinking_comes_back_under_one_name(said):
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": "stop"}
    o = read(
        msgspec.json.encode({"choices": [choice], "object": "chat.completion", "created": 1, "model": "m"}), id="q"
    )
    got = ChatCompletion.model_validate_json(o.reply).choices[0].message
    assert (o.text, got.content, got.reasoning_content) == ("answer", "answer", "thought")
    reader = StreamReader(id="q", pass_usage=False)
    chunk = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    out = reader.feed(
        b"data: " + msgspec.json.encode({**chunk, "choices": [{"index": 0, "delta": said}]}) + b"\n\ndata: [DONE]\n\n"
    )
    delta = ChatCompletionChunk.model_validate_json(Framer().feed(out)[0].data).choices[0].delta
    assert (delta.content, delta.reasoning_content) == ("answer", "thought")
    assert reader.outcome().text == "answer"


# ------------------------------------------------------------------------------------------------------ over a socket


class Client:
    def __init__(self):
        self.writes = []

    async def __call__(self, events):
        self.writes.append(events)


@pytest.mark.parametrize("streaming", [False, True])
async def test_what_was_left_out_is_told(streaming):
    client = Client() if streaming else None
    async with ScriptedServer(replies=("one two",)) as server:
        driver = OpenAIChat(name="t", model="m", base_url=server.url, provider="openai")
        await driver.start()
        o = await driver.ask(CALL, Query.ask("x", id="q1", top_k=3), client)
        await driver.stop()
        assert "top_k" not in server.requests[0].json
    assert o.dropped == ("top_k",)
    if client is not None:
        assert client.writes[0].startswith(b": x-fairlead-dropped top_k\n\ndata: ")
        assert b"".join(client.writes).count(b"x-fairlead-dropped") == 1


async def test_a_greeting_alone_tells_nothing():
    """A stream that dies before it says anything can still be replaced, so the comment must wait too."""
    greeting = b'data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    client = Client()
    async with ScriptedServer(replies=(Bytes(pieces=(greeting,), headers={"content-type": "text/event-stream"}),)) as s:
        driver = OpenAIChat(name="t", model="m", base_url=s.url, provider="openai")
        await driver.start()
        o = await driver.ask(CALL, Query.ask("x", id="q1", top_k=3), client)
        await driver.stop()
    assert o.error.kind == "broken_stream"
    assert not o.streamed
    assert client.writes == []


async def test_a_stated_cost_goes_before_the_profile():
    body = {**MESSAGE, "usage": {"prompt_tokens": 10, "completion_tokens": 10, "cost": 0.5}}
    priced = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    reply = Bytes(pieces=(msgspec.json.encode(body),), headers={"content-type": "application/json"})
    async with ScriptedServer(replies=(reply, reply)) as server:
        costs = []
        for name in ("openrouter", "vllm"):
            driver = OpenAIChat(name="t", model="m", base_url=server.url, provider=name, profile=priced)
            await driver.start()
            costs.append((await driver.ask(CALL, Query.ask("x", id="q1"))).usd)
            await driver.stop()
    assert costs == [0.5, pytest.approx(20e-6)]


def test_tools_that_another_provider_would_run_are_left_out_and_told() -> None:
    mine = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    theirs = {"type": "web_search_20250305", "name": "web_search", "cache_control": MARK}

    def fitted(**body: object) -> tuple[dict[str, object], tuple[str, ...]]:
        fields = {k: Raw(msgspec.json.encode(v)) for k, v in body.items()}
        dropped = providers.fit(fields, PROVIDERS["openai"])
        return {k: msgspec.json.decode(v) for k, v in fields.items()}, dropped

    assert fitted(tools=[theirs, mine], tool_choice="auto") == (
        {"tools": [mine], "tool_choice": "auto"},
        ("tools[0]",),
    )
    alone = fitted(tools=[theirs], tool_choice="required", parallel_tool_calls=False)
    assert alone == ({}, ("tools[0]", "tool_choice"))
    named = {"type": "function", "function": {"name": "web_search"}}
    assert fitted(tools=[mine, theirs], tool_choice=named) == ({"tools": [mine]}, ("tools[1]", "tool_choice"))
    own = {"type": "builtin_function", "function": {"name": "$web_search"}}
    assert fitted(tools=[own, mine]) == ({"tools": [own, mine]}, ())


def test_tools_that_openai_would_run_are_left_out_of_a_request_in_its_newer_format() -> None:
    """One that came by chat is in its target's own format, which may have them; some providers run them in chat, too."""

    def fitted(tools: list[object], name: str = "openai", api: str = "responses") -> tuple[object, tuple[str, ...]]:
        fields = {"tools": Raw(msgspec.json.encode(tools))}
        dropped = providers.fit(fields, PROVIDERS[name], api)
        return msgspec.json.decode(fields.get("tools", b"null")), dropped

    search, code = {"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}
    mine = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"type": search}}}}
    nested = {"type": "web_search", "web_search": {"enable": True}}
    assert fitted([search, mine, code]) == ([mine], ("tools (web_search)", "tools (code_interpreter)"))
    assert fitted([code, search], "groq") == ([code], ("tools (web_search)",))
    assert fitted([nested, mine]) == ([nested, mine], ())
    assert fitted([mine]) == ([mine], ())
    assert fitted([search, mine], api="chat") == ([search, mine], ())
