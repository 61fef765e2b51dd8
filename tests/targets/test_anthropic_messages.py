"""Translation between the chat format and Anthropic's, by hand-written fixtures, and the driver over real sockets.

Whatever is translated or sent here is checked against the SDK's own types and the API's rules (tests/support/anthropic_rules.py), and replies are
first read by the SDK's models.
"""

import base64

import anthropic_rules
import msgspec
import pivot
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from fairlead.errors import TargetError
from fairlead.targets import claude
from fairlead.targets.anthropic_messages import AnthropicMessages, StreamReader, read, translate
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.targets.sse import Framer
from fairlead.types import Call, Profile, Query, Tokens

JSON = {"content-type": "application/json"}
MARK = {"cache_control": {"type": "ephemeral"}}
SIGNER = "anthropic/m"
MODELS = (
    *("some-model", "claude-3-5-sonnet-20241022", "claude-3-7-sonnet-20250219", "claude-opus-4-1-20250805"),
    *("claude-sonnet-4-5", "claude-opus-4-5", "claude-sonnet-4-6", "claude-opus-4-8", "claude-sonnet-5"),
    *("claude-fable-5", "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"),
)


def to(*messages, model="m", max_tokens=99, most=None, bare=False, sampling=True, **fields):
    fields = {"messages": list(messages) or [{"role": "user", "content": "hi"}], **fields}
    limits = {"max_tokens": max_tokens, "most": most}
    got, dropped = translate(fields, model=model, signer=SIGNER, bare=bare, sampling=sampling, **limits)
    rules = claude.traits(model)
    anthropic_rules.check(got, rules if sampling else msgspec.structs.replace(rules, sampling="none"))
    return got, dropped


def user(content, **more):
    return {"role": "user", "content": content, **more}


def calls(*ids, **more):
    made = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def result(id, content="one", **more):
    return {"role": "tool", "tool_call_id": id, "content": content, **more}


TOOLS = [{"type": "function", "function": {"name": "f"}}]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(pivot.requests([SIGNER, "bedrock/x"]), st.sampled_from(MODELS), st.booleans(), st.booleans())
def test_any_conversation_is_one_that_the_api_takes(fields, model, bare, sampling):
    try:
        got, dropped = translate(
            fields, model=model, max_tokens=4096, signer=SIGNER, bare=bare, sampling=sampling, most=8192
        )
    except ValueError as e:
        if "no message with content" not in str(e):
            raise
        return  # nothing was said, and an empty prompt has no counterpart
    rules = claude.traits(model)
    anthropic_rules.check(got, rules if sampling else msgspec.structs.replace(rules, sampling="none"))
    if fields.get("n", 1) > 1:
        assert "n" in dropped
    assert ("seed" in fields) == ("seed" in dropped)
    foreign = any("fl1:bedrock" in str(m.get("thinking_blocks")) for m in fields["messages"])
    assert not foreign or bare or not rules.thinking or "thinking of bedrock/x" in dropped


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
    anthropic_rules.check(got, claude.traits("m"))
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
    wish = {"n": 2, "seed": 1, "logprobs": True, "logit_bias": {"1": 2}, "presence_penalty": 0.5}
    got, dropped = to(**wish, frequency_penalty=1, response_format={"type": "json_object"})
    assert dropped == [*wish, "frequency_penalty", "response_format"]
    assert set(got) == {"model", "max_tokens", "messages"}
    assert to(n=1, logprobs=False, presence_penalty=0.0, logit_bias={}, response_format={"type": "text"})[1] == []


def test_sampling():
    assert to(top_k=5, top_p=0.5, temperature=1)[0]["top_k"] == 5
    got, dropped = to(top_k=5, top_p=0.5, temperature=0.2, model="claude-opus-4-8")
    assert set(got) == {"model", "max_tokens", "messages"}
    assert dropped == ["temperature", "top_p", "top_k"]
    got, dropped = to(top_p=0.5, temperature=0.2, model="claude-sonnet-4-5")
    assert (got["temperature"], dropped) == (0.2, ["top_p"])
    assert to(top_p=0.5, temperature=1, model="claude-sonnet-4-5")[1] == []
    # Refused for every model from that version of the API on.
    assert to(temperature=0.2, sampling=False)[1] == ["temperature"]


def test_stop_sequences_of_white_space_are_left_out():
    got, dropped = to(stop=["\n\n", "END", " "])
    assert got["stop_sequences"] == ["END"]
    assert dropped == ["stop[0]", "stop[2]"]
    assert to(stop="\n")[0].keys() == {"model", "max_tokens", "messages"}


def test_users_tiers_and_metadata():
    assert to(user="u")[0]["metadata"] == {"user_id": "u"}
    assert to(safety_identifier="s", user="u")[0]["metadata"] == {"user_id": "s"}
    got, dropped = to(metadata={"user_id": "m", "run": "7"}, user="u")
    assert (got["metadata"], dropped) == ({"user_id": "m"}, ["metadata.run"])
    assert to(service_tier="default")[0]["service_tier"] == "standard_only"
    assert to(service_tier="priority")[0]["service_tier"] == "auto"
    assert to(service_tier="flex")[1] == ["service_tier"]


def test_marks_for_the_cache():
    got, dropped = to(
        {"role": "system", "content": [{"type": "text", "text": "long", **MARK}]},
        user("one", cache_control={"type": "ephemeral", "ttl": "1h"}),
        calls("a"),
        result("a", [{"type": "text", "text": "x", **MARK}]),
        {"role": "assistant", "content": "done"},
        user("two"),
        tools=[{**TOOLS[0], **MARK}],
    )
    assert dropped == []
    assert "cache_control" in got["system"][0]
    assert got["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert "cache_control" in got["messages"][2]["content"][0]["content"][0]
    assert "cache_control" in got["tools"][0]
    assert to(cache_control={"type": "ephemeral"})[0]["cache_control"] == {"type": "ephemeral"}
    # A mark on words that are not sent, and a fifth: the later a mark, the more it covers.
    assert to(user("x"), user("  ", **MARK))[1] == ["messages[1].cache_control"]
    many = [{"type": "text", "text": "x", **MARK} for _ in range(6)]
    got, dropped = to(user(many))
    assert dropped == ["messages[0].content[0].cache_control", "messages[0].content[1].cache_control"]
    assert ["cache_control" in b for b in got["messages"][0]["content"]] == [False] * 2 + [True] * 4
    _, dropped = to(
        user("x", **MARK), calls("a", **MARK), result("a", **MARK), user("y", **MARK), tools=[{**TOOLS[0], **MARK}]
    )
    assert dropped == ["tools[0].cache_control"]


def file(**of):
    return {"type": "file", "file": of}


def test_files():
    text = "data:text/markdown;base64," + base64.b64encode("# Grüße".encode()).decode()
    got, dropped = to(
        user(
            [
                file(file_data=pivot.PDF, filename="a.pdf"),
                file(file_data="JVBERi0="),
                file(file_data=text, filename="b.md"),
                file(file_url="https://host/c.pdf"),
                file(file_id="file_1"),
                file(file_data=pivot.PNG),
            ]
        )
    )
    assert dropped == []
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    assert got["messages"][0]["content"] == [
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": pdf},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "# Grüße"},
            "title": "b.md",
        },
        {"type": "document", "source": {"type": "url", "url": "https://host/c.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    ]


@pytest.mark.parametrize(
    "part",
    [
        file(file_data="data:application/zip;base64,AAAA"),
        file(file_data="data:text/plain;base64,/w=="),
        file(filename="x"),
        {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    ],
)
def test_parts_without_counterpart(part):
    with pytest.raises(ValueError):
        to(user([part]))


def test_results_of_tools():
    got, dropped = to(
        calls("a", "b", "c"),
        result("c", ""),
        user("meanwhile"),
        result("a", [{"type": "image_url", "image_url": {"url": pivot.PNG}}], is_error=True),
        result("b", [file(file_data=pivot.PDF)]),
        tools=TOOLS,
    )
    assert dropped == []
    assert got["messages"][1]["content"] == [
        {"type": "tool_result", "tool_use_id": "c"},
        {
            "type": "tool_result",
            "tool_use_id": "a",
            "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}],
            "is_error": True,
        },
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "content": [
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                }
            ],
        },
        {"type": "text", "text": "meanwhile"},
    ]


def test_calls_and_results_that_miss_each_other_are_refused_with_their_id():
    for messages in (
        [calls("a", "b"), result("a"), user("go on")],
        [calls("b")],
        [calls("b"), user("x"), {"role": "assistant", "content": "y"}],
    ):
        with pytest.raises(ValueError, match="'b' has no result"):
            to(*messages)
    with pytest.raises(ValueError, match=r"messages\[1\] is the result of 'z'"):
        to(user("x"), result("z"))
    with pytest.raises(ValueError, match="side by side have the id 'a'"):
        to(calls("a", "a"), result("a"), result("a"))


def test_ids_of_calls_are_made_such_as_it_takes():
    long = "x" * 80
    got, _ = to(
        calls("functions.f:0", long, "call_1"),
        *(result(i) for i in ("functions.f:0", long, "call_1")),
        calls("call_1"),
        result("call_1"),
        tools=TOOLS,
    )
    ids = [b["id"] for t in got["messages"] for b in t["content"] if b["type"] == "tool_use"]
    assert len(set(ids)) == 4
    assert all(len(i) <= 64 for i in ids)
    assert ids[2] == "call_1"
    # The same conversation gives the same ids: a prompt's cache, and newer models' thinking, hang on that.
    again, _ = to(calls("functions.f:0"), result("functions.f:0"), tools=TOOLS)
    assert again["messages"][0]["content"][0]["id"] == ids[0]


def test_arguments_that_are_no_object_do_not_end_the_conversation():
    broken = calls("a")
    broken["tool_calls"][0]["function"]["arguments"] = '{"x": 1'
    got, dropped = to(broken, result("a"), tools=TOOLS)
    assert got["messages"][0]["content"][0]["input"] == {"arguments": '{"x": 1'}
    assert dropped == ["messages[0].tool_calls[0].function.arguments"]


def test_calls_in_a_conversation_without_tools_get_stubs():
    got, _ = to(calls("a"), result("a"), user("so?"))
    assert got["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
    assert got["tool_choice"] == {"type": "none"}


def test_blank_and_lone_messages():
    got, _ = to(user("a"), {"role": "assistant", "content": " "}, user([{"type": "text", "text": "\n"}]), user("b"))
    assert got["messages"] == [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]
    for nothing in ([{"role": "system", "content": "x"}], [user("")], [user(None)]):
        with pytest.raises(ValueError, match="no message with content"):
            to(*nothing)
    with pytest.raises(ValueError, match="no role"):
        to({"role": "function", "content": "x"})
    with pytest.raises(ValueError, match="use tool_calls"):
        to({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}})


def test_an_answer_begun():
    begun = {"role": "assistant", "content": "It is "}
    got, dropped = to(user("a"), begun)
    assert got["messages"][1]["content"][0]["text"] == "It is"
    assert dropped == []
    got, dropped = to(user("a"), begun, model="claude-opus-4-6")
    assert (len(got["messages"]), dropped) == (1, ["messages[1]"])
    got, dropped = to(user("a"), begun, thinking={"type": "enabled", "budget_tokens": 2000})
    assert "thinking" not in got
    assert dropped == ["thinking"]


def test_parts_of_an_assistant_and_names_are_told():
    got, dropped = to(
        user("a", name="ann"),
        {
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "no"}, {"type": "image_url", "image_url": {"url": pivot.PNG}}],
        },
        {"role": "assistant", "content": None, "refusal": "never", "audio": {"id": "x"}},
        user([{"type": "image_url", "image_url": {"url": pivot.PNG, "detail": "high"}}]),
    )
    assert [b["text"] for b in got["messages"][1]["content"]] == ["no", "never"]
    assert dropped == [
        "messages[0].name",
        "messages[1].content[1]",
        "messages[2].audio",
        "messages[3].content[0].image_url.detail",
    ]


def test_tools_of_every_kind():
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2, **MARK}
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    strict = {"type": "function", "function": {"name": "g", "strict": True, "parameters": schema}}
    got, dropped = to(tools=[search, strict, {"type": "custom", "custom": {"name": "c"}}], model="claude-sonnet-4-5")
    assert got["tools"][0] == search
    assert got["tools"][1]["strict"] is True
    assert got["tools"][1]["input_schema"]["additionalProperties"] is False
    assert dropped == ["tools[1].function.parameters.minimum", "tools[2]"]
    got, dropped = to(tools=[strict], model="claude-3-7-sonnet-20250219")
    assert "strict" not in got["tools"][0]
    assert dropped == ["tools[0].function.strict"]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": TOOLS}}
    got, _ = to(tools=[*TOOLS, strict], tool_choice=allowed)
    assert [t["name"] for t in got["tools"]] == ["f"]
    assert got["tool_choice"] == {"type": "any"}
    with pytest.raises(ValueError, match="none of the tools"):
        to(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "z"}})


def test_parallel_calls():
    assert to(tools=TOOLS, parallel_tool_calls=False)[0]["tool_choice"] == {
        "type": "auto",
        "disable_parallel_tool_use": True,
    }
    assert to(tools=TOOLS, parallel_tool_calls=False, tool_choice="none")[0]["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in to(tools=TOOLS, parallel_tool_calls=True)[0]
    assert "tool_choice" not in to(tool_choice="required")[0]


def test_answers_bound_to_a_schema():
    got, dropped = to(response_format=pivot.SCHEMA, model="claude-sonnet-4-5")
    schema = got["output_config"]["format"]["schema"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["what"] == {"type": "string"}
    assert dropped == ["response_format.minLength", "response_format.minimum"]
    assert to(response_format=pivot.SCHEMA, model="claude-sonnet-4")[1] == ["response_format"]


def test_thinking_there_and_back():
    signed = {"type": "thinking", "thinking": "hm", "signature": f"fl1:{SIGNER}:abc"}
    redacted = {"type": "redacted_thinking", "data": f"fl1:{SIGNER}:xyz"}
    got, dropped = to(
        user("q"),
        calls("a", thinking_blocks=[signed, redacted], reasoning_content="hm"),
        result("a"),
        tools=TOOLS,
        thinking={"type": "enabled", "budget_tokens": 2000},
        max_tokens=4096,
    )
    assert dropped == []
    assert got["messages"][1]["content"][:2] == [
        {"type": "thinking", "thinking": "hm", "signature": "abc"},
        {"type": "redacted_thinking", "data": "xyz"},
    ]
    assert got["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert got["max_tokens"] == 6096


def test_others_thinking_is_left_out_and_told():
    foreign = {"type": "thinking", "thinking": "hm", "signature": "fl1:anthropic/other:abc"}
    bare = {"type": "thinking", "thinking": "hm", "signature": "theirs"}
    unsigned = {"type": "thinking", "thinking": "hm", "signature": ""}
    answer = {"role": "assistant", "content": "x", "thinking_blocks": [foreign, bare, unsigned]}
    got, dropped = to(user("q"), answer, user("go on"))
    assert got["messages"][1]["content"][0]["signature"] == "theirs"
    assert dropped == ["thinking of anthropic/other", "thinking that nobody signed"]
    assert to(user("q"), {"role": "assistant", "content": "x", "reasoning_content": "hm"}, user("y"))[1] == [
        "messages[1].reasoning_content"
    ]


def test_a_tool_loop_whose_thinking_cannot_be_sent_goes_on_without():
    foreign = {"type": "thinking", "thinking": "hm", "signature": "fl1:google/g:abc"}
    loop = (user("q"), calls("a", thinking_blocks=[foreign]), result("a"), calls("b"), result("b"))
    wish = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "tools": TOOLS}
    got, dropped = to(*loop, **wish)
    assert "thinking" not in got
    assert dropped == ["thinking of google/g", "thinking"]
    # A loop that is over, and models that decide for themselves, do not insist on it.
    assert to(*loop, {"role": "assistant", "content": "done"}, user("and?"), **wish)[0]["thinking"]["type"] == "enabled"
    assert to(*loop, tools=TOOLS, thinking={"type": "adaptive"}, model="claude-opus-4-8")[0]["thinking"] == {
        "type": "adaptive"
    }


def test_thinking_and_what_it_does_not_go_with():
    wish = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    got, dropped = to(**wish, temperature=0.5, top_k=3, top_p=0.5)
    assert set(got) == {"model", "max_tokens", "messages", "thinking"}
    assert dropped == ["temperature", "top_k", "top_p"]
    assert to(**wish, temperature=1, top_p=0.97)[1] == []
    # A forced tool is a promise about the answer's form; thinking is not.
    got, dropped = to(**wish, tools=TOOLS, tool_choice="required")
    assert "thinking" not in got
    assert dropped == ["thinking"]
    assert to(tools=TOOLS, tool_choice="required", model="claude-opus-5-5")[1] == ["tool_choice"]


async def ask(*replies, sink=None, query=None, **driver):
    async with ScriptedServer(replies=replies) as server:
        driver = {"name": "c", "model": "m", "base_url": server.url[:-3], "api_key": "${CLAUDE_KEY}", **driver}
        driver = AnthropicMessages(**driver)
        await driver.start()
        o = await driver.ask(Call(target="c"), query or Query.ask("hi", id="q1"), sink)
        await driver.stop()
        for request in server.requests:
            anthropic_rules.check(request.json, claude.traits(driver.like or driver.model))
        return o, server.requests


def whole(message):
    Message.model_validate(message)
    return Bytes(pieces=(msgspec.json.encode(message),), headers=JSON)


def refused(status, kind, message, **more):
    error = {"type": "error", "error": {"type": kind, "message": message}, **more}
    return Bytes(status=status, pieces=(msgspec.json.encode(error),), headers=JSON)


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
        {"type": "redacted_thinking", "data": "r"},
        {"type": "text", "text": "hello"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1]}},
    ],
    "stop_reason": "tool_use",
    "usage": {
        "input_tokens": 10,
        "output_tokens": 4,
        "cache_read_input_tokens": 6,
        "cache_creation_input_tokens": 1,
        "output_tokens_details": {"thinking_tokens": 2},
        "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 0},
    },
}


async def test_reply():
    o, requests = await ask(whole(MESSAGE))
    assert requests[0].path == "/v1/messages"
    assert requests[0].headers["x-api-key"] == "very-hush-hush"
    assert requests[0].headers["anthropic-version"] == "2023-06-01"
    assert (o.text, o.model, o.finish) == ("hello", "claude-x", "tool_calls")
    assert o.tokens == Tokens(input=17, cached_input=6, cache_write=1, output=4, reasoning=2, extras=3)
    got = ChatCompletion.model_validate_json(o.reply)
    assert got.id == "q1"
    assert got.choices[0].message.tool_calls[0].function.arguments == '{"a":[1]}'
    assert got.choices[0].message.reasoning_content == "hm"
    assert got.choices[0].message.thinking_blocks == [
        {"type": "thinking", "thinking": "hm", "signature": f"fl1:{SIGNER}:s"},
        {"type": "redacted_thinking", "data": f"fl1:{SIGNER}:r"},
    ]
    assert got.usage.prompt_tokens_details.cache_creation_tokens == 1


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "length"),
        ("model_context_window_exceeded", "length"),
    ],
)
async def test_stop_reasons(reason, finish):
    o, _ = await ask(whole({**MESSAGE, "stop_reason": reason}))
    assert o.finish == finish


HEAD = {**MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
EVENTS = [
    {"type": "message_start", "message": HEAD},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "r"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "hel"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "content_block_start",
        "index": 4,
        "content_block": {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
    },
    {"type": "content_block_delta", "index": 4, "delta": {"type": "input_json_delta", "partial_json": '{"q":1}'}},
    {"type": "content_block_stop", "index": 4},
    # A call without arguments, and one whose input comes at once.
    {
        "type": "content_block_start",
        "index": 5,
        "content_block": {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
    },
    {"type": "content_block_stop", "index": 5},
    {
        "type": "content_block_start",
        "index": 6,
        "content_block": {"type": "tool_use", "id": "t3", "name": "h", "input": {"b": 2}},
    },
    {"type": "content_block_stop", "index": 6},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 5, "input_tokens": 9, "cache_read_input_tokens": 3},
    },
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 12, "output_tokens_details": {"thinking_tokens": 4}},
    },
    {"type": "message_stop"},
]
STREAM = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), msgspec.json.encode(e)) for e in EVENTS)
ARGUMENTS = ['{"a":1}', "{}", '{"b":2}']


def test_the_fixture_is_what_the_sdk_reads():
    adapter = TypeAdapter(RawMessageStreamEvent)
    for event in EVENTS:
        if event["type"] != "ping":
            adapter.validate_python(event)


@pytest.mark.parametrize("asked", [False, True])
async def test_stream(asked):
    writes = []

    async def sink(events):
        writes.append(events)

    query = Query.ask("hi", id="q1", stream_options={"include_usage": asked})
    o, requests = await ask(Bytes(pieces=(STREAM[:300], STREAM[300:])), sink=sink, query=query)
    assert requests[0].json["stream"] is True
    assert (o.text, o.finish, o.model, o.streamed) == ("hello", "tool_calls", "claude-x", True)
    # Counts are of all so far: none is added up.
    assert o.tokens == Tokens(input=12, cached_input=3, output=12, reasoning=4)
    assert [c["function"]["arguments"] for c in msgspec.json.decode(o.tool_calls)] == ARGUMENTS
    chunks = [ChatCompletionChunk.model_validate_json(e.data) for e in Framer().feed(b"".join(writes))]
    assert {c.id for c in chunks} == {"q1"}
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert "".join(d.content or "" for d in deltas) == "hello"
    assert deltas[0].role == "assistant"
    assert "".join(getattr(d, "reasoning_content", "") for d in deltas) == "hm"
    assert [b for d in deltas for b in getattr(d, "thinking_blocks", ())] == [
        {"type": "thinking", "thinking": "hm", "signature": f"fl1:{SIGNER}:s"},
        {"type": "redacted_thinking", "data": f"fl1:{SIGNER}:r"},
    ]
    got = {}
    for piece in (p for d in deltas for p in d.tool_calls or ()):
        got.setdefault(piece.index, []).append(piece)
    assert [got[i][0].id for i in range(3)] == ["t1", "t2", "t3"]
    assert ["".join(p.function.arguments for p in got[i]) for i in range(3)] == ARGUMENTS
    assert len([c for c in chunks if c.usage]) == asked


async def test_what_is_left_out_is_told_before_a_stream():
    writes = []

    async def sink(events):
        writes.append(events)

    query = Query.ask("hi", id="q1", seed=3, n=2)
    o, requests = await ask(Bytes(pieces=(STREAM[:700], STREAM[700:]), gap_seconds=0.05), sink=sink, query=query)
    assert o.dropped == ("seed", "n")
    assert len(writes) > 1
    assert writes[0].startswith(b": x-fairlead-dropped seed, n\n\ndata: ")
    assert b"".join(writes).count(b"x-fairlead-dropped") == 1
    assert "seed" not in requests[0].json
    o, _ = await ask(whole(MESSAGE), query=query)
    assert o.dropped == ("seed", "n")


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


def test_error_event_keeps_its_id():
    event = b'data: {"type":"error","error":{"type":"overloaded_error","message":"busy"},"request_id":"req_7"}\n\n'
    with pytest.raises(TargetError, match=r"busy \(request req_7\)"):
        StreamReader(id="q", created=1, pass_usage=False).feed(event)


async def test_refusals():
    o, _ = await ask(refused(400, "invalid_request_error", "prompt is too long: very-hush-hush", request_id="req_1"))
    assert o.error.kind == "context_too_long"
    assert "hush" not in o.error.message
    assert o.error.message.endswith("(request req_1)")
    headers = {**JSON, "retry-after": "2", "request-id": "req_2"}
    o, _ = await ask(Bytes(status=529, pieces=(b"",), headers=headers))
    assert (o.error.kind, o.error.retry_after_seconds) == ("unavailable", 2.0)
    assert "req_2" in o.error.message
    o, _ = await ask(Bytes(pieces=(b"{}",), headers=JSON))
    assert o.error.kind == "malformed"


def asking(*messages, **fields):
    return Query.ask("x", id="q", **{"messages": list(messages), **fields})


async def test_untranslatable_requests_are_not_sent():
    for messages in ([user([{"type": "input_audio", "input_audio": {}}])], [calls("call_9")]):
        o, requests = await ask(whole(MESSAGE), query=asking(*messages))
        assert o.error.kind == "bad_request"
        assert requests == []
    assert "'call_9' has no result" in o.error.message


UNMARKED = {
    "role": "assistant",
    "content": "x",
    "thinking_blocks": [{"type": "thinking", "thinking": "h", "signature": "z"}],
}
SIGNATURE = "messages.1.content.0: Invalid `signature` in `thinking` block"


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_refused_signature_is_tried_once_more_without_thinking(streaming):
    writes = []

    async def sink(events):
        writes.append(events)

    good = Bytes(pieces=(STREAM,)) if streaming else whole(MESSAGE)
    o, requests = await ask(
        refused(400, "invalid_request_error", SIGNATURE),
        good,
        query=asking(user("a"), UNMARKED, user("b")),
        sink=sink if streaming else None,
    )
    assert (o.ok, o.text, o.retries) == (True, "hello", 1)
    assert [len(r.json["messages"][1]["content"]) for r in requests] == [2, 1]
    assert o.dropped == ("messages[1].thinking_blocks",)
    assert b"".join(writes).startswith(b": x-fairlead-dropped messages[1].thinking_blocks") == streaming


def test_a_model_that_never_thinks_is_sent_no_thinking():
    got, dropped = to(user("a"), UNMARKED, user("b"), model="claude-3-5-sonnet-20241022")
    assert got["messages"][1]["content"] == [{"type": "text", "text": "x"}]
    assert dropped == ["messages[1].thinking_blocks"]


async def test_a_refused_loop_is_tried_once_more_with_thinking_off():
    message = "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`"
    looped = calls("a", thinking_blocks=UNMARKED["thinking_blocks"])
    wish = {"tools": TOOLS, "thinking": {"type": "enabled", "budget_tokens": 2000}}
    o, requests = await ask(
        refused(400, "invalid_request_error", message),
        whole(MESSAGE),
        query=asking(user("q"), looped, result("a"), **wish),
    )
    assert o.ok
    assert ["thinking" in r.json for r in requests] == [True, False]
    assert o.dropped == ("messages[1].thinking_blocks", "thinking")


async def test_no_second_try_where_thinking_is_not_the_matter():
    o, requests = await ask(refused(400, "invalid_request_error", SIGNATURE), query=asking(user("a")))
    assert (o.error.kind, len(requests)) == ("bad_request", 1)
    o, requests = await ask(refused(400, "invalid_request_error", "no"), query=asking(user("a"), UNMARKED, user("b")))
    assert (o.error.kind, len(requests)) == ("bad_request", 1)
    o, requests = await ask(refused(500, "api_error", SIGNATURE), query=asking(user("a"), UNMARKED, user("b")))
    assert (o.error.kind, len(requests)) == ("unavailable", 1)
    # Twice refused is refused.
    o, requests = await ask(refused(400, "x", SIGNATURE), query=asking(user("a"), UNMARKED, user("b")))
    assert (o.error.kind, len(requests)) == ("bad_request", 2)


async def test_a_models_rules_and_limits_come_from_its_name_and_profile():
    query = asking(user("a"), reasoning_effort="high", temperature=0.3)
    o, requests = await ask(whole(MESSAGE), query=query, model="my-claude", like="claude-opus-4-8")
    assert requests[0].json["thinking"] == {"type": "adaptive"}
    assert requests[0].json["output_config"] == {"effort": "high"}
    assert o.dropped == ("temperature",)
    profile = Profile(max_output_tokens=6000)
    _, requests = await ask(whole(MESSAGE), query=query, profile=profile)
    assert requests[0].json["max_tokens"] == 6000
    assert requests[0].json["thinking"]["budget_tokens"] < 6000
    o, _ = await ask(whole(MESSAGE), query=asking(user("a"), temperature=0.3), version="2026-10-21")
    assert o.dropped == ("temperature",)


def test_what_no_price_covers_makes_the_cost_unknown():
    """A cache write for an hour, a search of the web: told by the provider beside the tokens."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {"type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "a"}]}

    def tokens(**more):
        return read(msgspec.json.encode({**message, "usage": {**usage, **more}}), id="x").tokens

    five = {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0}
    assert tokens(cache_creation_input_tokens=7, cache_creation=five, server_tool_use=None).extras == 0
    assert tokens(cache_creation_input_tokens=7, cache_creation={"ephemeral_1h_input_tokens": 7}).extras == 7
    assert tokens(server_tool_use={"web_search_requests": 2}).extras == 2
    prices = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    assert prices.usd(tokens()) is not None
    assert prices.usd(tokens(server_tool_use={"web_search_requests": 2})) is None
