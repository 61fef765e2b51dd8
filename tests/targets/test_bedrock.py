"""Bedrock's Converse: requests checked against botocore's model of the service, signatures worked out again, streams framed by hand."""

import asyncio
import datetime
import logging
import sys
import threading

import converse_rules
import msgspec
import pivot
import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ProfileNotFound
from converse_rules import frame
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fairlead.errors import ConfigError, TargetError
from fairlead.targets.bedrock import Bedrock, StreamReader, read, translate
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.targets.sse import Framer
from fairlead.testing import check_target
from fairlead.types import Call, Query, Tokens

JSON = {"content-type": "application/json"}
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"
SIGNER = "bedrock/m"
MARK = {"cache_control": {"type": "ephemeral"}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d"}}]


def to(*messages, model=CLAUDE, bare=False, **fields):
    fields = {"messages": list(messages) or [user("hi")], **fields}
    got, dropped = translate(fields, model=model, max_tokens=99, signer=SIGNER, bare=bare)
    converse_rules.check(got)
    return got, dropped


def user(content, **more):
    return {"role": "user", "content": content, **more}


def calls(*ids, **more):
    made = [{"id": id, "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def result(id, content="one", **more):
    return {"role": "tool", "tool_call_id": id, "content": content, **more}


MODELS = (
    *(CLAUDE, "anthropic.claude-3-5-sonnet-20240620-v1:0", "eu.anthropic.claude-opus-5-5", "amazon.nova-pro-v1:0"),
    *("openai.gpt-oss-120b-1:0", "mistral.mistral-large-2407-v1:0"),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(pivot.requests([SIGNER, "anthropic/x"], urls=False, ids=False), st.sampled_from(MODELS), st.booleans())
def test_any_conversation_is_one_that_the_service_takes(fields, model, bare):
    try:
        got, dropped = translate(fields, model=model, max_tokens=4096, signer=SIGNER, bare=bare)
    except ValueError as e:
        if "no message with content" not in str(e):
            raise
        return  # nothing was said, and an empty prompt has no counterpart
    converse_rules.check(got)
    assert ("seed" in fields) == ("seed" in dropped)


def test_a_whole_conversation():
    got, dropped = to(
        {"role": "system", "content": "be brief", **MARK},
        user(
            [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": pivot.PNG}, **MARK},
                {"type": "file", "file": {"file_data": pivot.PDF, "filename": "my report_v2.pdf"}},
                {"type": "file", "file": {"file_data": pivot.TEXT, "filename": "my report_v2.pdf"}},
            ]
        ),
        calls("a.b"),
        result(
            "a.b", [{"type": "text", "text": "one", "cache_control": {"type": "ephemeral", "ttl": "1h"}}], is_error=True
        ),
        user("go on"),
        stop="END",
        temperature=0.5,
        top_k=7,
        max_tokens=5,
        metadata={"run": "7"},
        service_tier="flex",
        tools=[{**TOOLS[0], **MARK}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        response_format=pivot.SCHEMA,
        stream_options={"include_usage": True},
    )
    id = got["messages"][1]["content"][0]["toolUse"]["toolUseId"]
    point = {"cachePoint": {"type": "default"}}
    schema = got.pop("outputConfig")["textFormat"]["structure"]["jsonSchema"]["schema"]
    assert msgspec.json.decode(schema)["properties"]["what"] == {"type": "string"}
    assert dropped == ["response_format.minLength", "response_format.minimum"]
    assert got == {
        "system": [{"text": "be brief"}, point],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "look"},
                    {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
                    point,
                    {"document": {"format": "pdf", "name": "my report v2 pdf", "source": {"bytes": "JVBERi0="}}},
                    {"document": {"format": "txt", "name": "my report v2 pdf 2", "source": {"text": "a,b\n1,2\n"}}},
                ],
            },
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": id, "name": "f", "input": {"x": 1}}}]},
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": id, "content": [{"text": "one"}], "status": "error"}},
                    {"cachePoint": {"type": "default", "ttl": "1h"}},
                    {"text": "go on"},
                ],
            },
        ],
        "inferenceConfig": {"maxTokens": 5, "temperature": 0.5, "stopSequences": ["END"]},
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "f",
                        "description": "d",
                        "inputSchema": {"json": {"type": "object", "properties": {}}},
                    }
                },
                point,
            ],
            "toolChoice": {"tool": {"name": "f"}},
        },
        "additionalModelRequestFields": {"top_k": 7},
        "requestMetadata": {"run": "7"},
        "serviceTier": {"type": "flex"},
    }


def test_what_has_no_counterpart_is_named():
    wish = {"n": 2, "seed": 1, "logit_bias": {"1": 2}}
    got, dropped = to(**wish, user="u", safety_identifier="s", cache_control={"type": "ephemeral"})
    assert dropped == ["user", "safety_identifier", "cache_control", *wish]
    assert set(got) == {"messages", "inferenceConfig"}
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert to(tools=[search, *TOOLS], parallel_tool_calls=False)[1] == ["tools[0]", "parallel_tool_calls"]
    assert to(service_tier="lowest", metadata={"a": "ü"})[1] == ["service_tier", "metadata"]


def test_models_of_other_makers():
    nova, oss, mistral = "amazon.nova-2-lite-v1:0", "openai.gpt-oss-20b-1:0", "mistral.mistral-large"
    got, dropped = to(model=nova, reasoning_effort="xhigh", top_k=3)
    assert got["additionalModelRequestFields"] == {
        "reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"},
        "inferenceConfig": {"topK": 3},
    }
    assert dropped == ["reasoning_effort xhigh"]
    assert to(model=oss, reasoning_effort="low")[0]["additionalModelRequestFields"] == {"reasoning_effort": "low"}
    wish = {"reasoning_effort": "low", "top_k": 3, "thinking": {"type": "enabled", "budget_tokens": 2000}}
    got, dropped = to(user("x", **MARK), model=mistral, **wish, temperature=1.5)
    assert "additionalModelRequestFields" not in got
    assert got["inferenceConfig"]["temperature"] == 1.0
    assert sorted(dropped) == ["cache_control", "reasoning_effort", "temperature above 1", "thinking", "top_k"]


def test_tool_choices():
    assert to(tools=TOOLS, tool_choice="required")[0]["toolConfig"]["toolChoice"] == {"any": {}}
    assert to(tools=TOOLS, tool_choice="auto")[0]["toolConfig"]["toolChoice"] == {"auto": {}}
    assert "toolConfig" not in to(tools=TOOLS, tool_choice="none")[0]
    got, dropped = to(user("x"), calls("a"), result("a"), tools=TOOLS, tool_choice="none")
    assert (list(got["toolConfig"]), dropped) == (["tools"], ["tool_choice"])
    # A conversation with calls whose tools are gone.
    assert to(user("x"), calls("a"), result("a", ""))[0]["toolConfig"]["tools"][0]["toolSpec"]["name"] == "f"


def test_turns_that_converse_insists_on():
    got, dropped = to({"role": "assistant", "content": "Welcome!"}, user("hi"))
    assert [t["role"] for t in got["messages"]] == ["user", "assistant", "user"]
    assert dropped == ["messages (a turn of the user's was put first)"]
    got, _ = to(user([{"type": "file", "file": {"file_data": pivot.PDF}}]))
    assert got["messages"][0]["content"][1] == {"text": "document"}
    word = "data:application/vnd.openxmlformats-officedocument.wordprocessingml.document;base64,AAAA"
    got, _ = to(user([{"type": "file", "file": {"file_data": word}}, {"type": "text", "text": "x"}]))
    assert got["messages"][0]["content"][0]["document"]["format"] == "docx"
    for part in (
        {"type": "image_url", "image_url": {"url": "https://host/x.png"}},
        {"type": "file", "file": {"file_url": "https://host/x.pdf"}},
    ):
        with pytest.raises(ValueError, match="in the request itself"):
            to(user([part]))


def test_thinking_there_and_back():
    own = [
        {"type": "thinking", "thinking": "hm", "signature": f"fl1:{SIGNER}:abc"},
        {"type": "redacted_thinking", "data": f"fl1:{SIGNER}:xyz"},
        {"type": "thinking", "thinking": "hm", "signature": "fl1:anthropic/m:abc"},
    ]
    wish = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    got, dropped = to(user("q"), calls("a", thinking_blocks=own), result("a"), tools=TOOLS, **wish)
    assert got["messages"][1]["content"][:2] == [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "abc"}}},
        {"reasoningContent": {"redactedContent": "eHl6"}},
    ]
    assert got["additionalModelRequestFields"] == wish
    assert got["inferenceConfig"]["maxTokens"] == 2099
    assert dropped == ["thinking of anthropic/m"]
    unmarked = {"role": "assistant", "content": "x", "thinking_blocks": [{"type": "redacted_thinking", "data": "xyz"}]}
    assert to(user("q"), unmarked, user("y"))[1] == []
    got, dropped = to(user("q"), unmarked, user("y"), model="amazon.nova-pro-v1:0")
    assert (len(got["messages"][1]["content"]), dropped) == (1, ["thinking that nobody signed"])
    got, _ = to(model="anthropic.claude-opus-4-8", reasoning_effort="high")
    assert got["outputConfig"] == {"effort": "high"}
    assert got["additionalModelRequestFields"] == {"thinking": {"type": "adaptive"}}


# ------------------------------------------------------------------------------------------------------------ replies

REPLY = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                {"reasoningContent": {"redactedContent": "eHl6"}},
                {"text": "hel"},
                {"citationsContent": {"content": [{"text": "lo"}], "citations": []}},
                {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": [1]}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": {
        "inputTokens": 10,
        "outputTokens": 4,
        "totalTokens": 21,
        "cacheReadInputTokens": 6,
        "cacheWriteInputTokens": 1,
    },
    "metrics": {"latencyMs": 12},
}
BLOCKS = [
    {"type": "thinking", "thinking": "hm", "signature": f"fl1:{SIGNER}:s"},
    {"type": "redacted_thinking", "data": f"fl1:{SIGNER}:xyz"},
]
COUNTED = Tokens(input=17, cached_input=6, cache_write=1, output=4)


def whole(reply=REPLY):
    converse_rules.parsed({"serviceTier": {"type": "default"}, **reply})
    return Bytes(pieces=(msgspec.json.encode(reply),), headers=JSON)


def test_reply():
    whole()
    o = read(msgspec.json.encode(REPLY), id="q1", model="m", signer=SIGNER)
    assert (o.text, o.model, o.finish, o.tokens) == ("hello", "m", "tool_calls", COUNTED)
    got = ChatCompletion.model_validate_json(o.reply)
    assert got.id == "q1"
    assert got.choices[0].message.tool_calls[0].function.arguments == '{"a":[1]}'
    assert got.choices[0].message.reasoning_content == "hm"
    assert got.choices[0].message.thinking_blocks == BLOCKS
    assert got.usage.prompt_tokens_details.cache_creation_tokens == 1


FINISHES = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("guardrail_intervened", "content_filter"),
    ("content_filtered", "content_filter"),
]


@pytest.mark.parametrize(("reason", "finish"), FINISHES)
def test_stop_reasons(reason, finish):
    reply = {**REPLY, "stopReason": reason}
    whole(reply)
    assert read(msgspec.json.encode(reply), id="q", model="m").finish == finish


def test_every_stop_reason_of_the_service_is_known():
    known = converse_rules.service().shape_for("StopReason").enum
    assert set(known) == {r for r, _ in FINISHES} | {"malformed_model_output", "malformed_tool_use"}


def test_output_that_bedrock_could_not_read_is_a_failure():
    reply = {**REPLY, "stopReason": "malformed_tool_use"}
    whole(reply)
    with pytest.raises(TargetError) as caught:
        read(msgspec.json.encode(reply), id="q", model="m")
    assert caught.value.failure.kind == "malformed"
    with pytest.raises(TargetError, match="not one of Converse"):
        read(b"{}", id="q", model="m")


FRAMES = [
    frame("messageStart", {"role": "assistant"}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "h"}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "m"}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}),
    frame("contentBlockStop", {"contentBlockIndex": 0}),
    frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"reasoningContent": {"redactedContent": "eA=="}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"reasoningContent": {"redactedContent": "eXo="}}}),
    frame("contentBlockStop", {"contentBlockIndex": 1}),
    frame("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"text": "hel"}}),
    frame("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"text": "lo"}, "p": "abcd"}),
    frame("contentBlockStop", {"contentBlockIndex": 2}),
    frame("contentBlockStart", {"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "t1", "name": "f"}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 3, "delta": {"toolUse": {"input": '{"a":'}}}),
    frame("contentBlockDelta", {"contentBlockIndex": 3, "delta": {"toolUse": {"input": '"\\u00fc"}'}}}),
    frame("contentBlockStop", {"contentBlockIndex": 3}),
    frame("contentBlockStart", {"contentBlockIndex": 4, "start": {"toolUse": {"toolUseId": "t2", "name": "g"}}}),
    frame("contentBlockStop", {"contentBlockIndex": 4}),
    frame("messageStop", {"stopReason": "tool_use"}),
    frame("metadata", {"usage": REPLY["usage"], "metrics": {"latencyMs": 3}}),
]
STREAM = b"".join(FRAMES)
ARGUMENTS = ['{"a":"\\u00fc"}', "{}"]


def test_the_fixture_is_what_botocore_reads():
    got = converse_rules.events(STREAM)
    assert len(got) == len(FRAMES)
    assert "".join(e["contentBlockDelta"]["delta"].get("text", "") for e in got if "contentBlockDelta" in e) == "hello"
    assert got[-1]["metadata"]["usage"]["cacheWriteInputTokens"] == 1


def reader(**more):
    return StreamReader(id="q1", created=1, model="m", pass_usage=True, signer=SIGNER, **more)


def test_stream_cut_into_any_two_reads():
    def play(*reads):
        r = reader()
        out = b"".join(r.feed(piece) for piece in reads)
        r.close()
        return out, r.outcome()

    events, o = play(STREAM)
    assert (o.text, o.finish, o.model, o.tokens) == ("hello", "tool_calls", "m", COUNTED)
    assert [c["function"]["arguments"] for c in msgspec.json.decode(o.tool_calls)] == ARGUMENTS
    chunks = [ChatCompletionChunk.model_validate_json(e.data) for e in Framer().feed(events)]
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert "".join(d.content or "" for d in deltas) == "hello"
    assert [d.role for d in deltas].count("assistant") == 1
    assert "".join(getattr(d, "reasoning_content", "") for d in deltas) == "hm"
    assert [b for d in deltas for b in getattr(d, "thinking_blocks", ())] == BLOCKS
    pieces = [p for d in deltas for p in d.tool_calls or ()]
    assert ["".join(p.function.arguments for p in pieces if p.index == i) for i in range(2)] == ARGUMENTS
    assert chunks[-1].usage.total_tokens == 21
    stop = len(STREAM) - len(FRAMES[-1])
    for i in range(0, len(STREAM) + 1, 3):
        assert play(STREAM[:i], STREAM[i:])[0] == events
        if i < stop:
            with pytest.raises(TargetError) as caught:
                play(STREAM[:i])
            assert caught.value.failure.kind == "broken_stream"
    # Counts come last; an answer without them is an answer.
    assert play(STREAM[:stop])[1].tokens is None


def test_a_flipped_bit_is_found():
    for at in (9, 40, len(FRAMES[0]) - 2):
        flipped = bytearray(STREAM)
        flipped[at] ^= 1
        with pytest.raises(TargetError) as caught:
            reader().feed(bytes(flipped))
        assert caught.value.failure.kind == "malformed"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", "rate_limited"),
        ("validationException", "bad_request"),
        ("modelStreamErrorException", "unavailable"),
        ("internalServerException", "unavailable"),
        ("serviceUnavailableException", "unavailable"),
        ("modelTimeoutException", "timeout"),
    ],
)
def test_exceptions_in_a_stream(name, kind):
    with pytest.raises(TargetError, match="because") as caught:
        reader().feed(frame(name, {"message": "because"}, message="exception"))
    assert caught.value.failure.kind == kind
    said = {":message-type": "error", ":error-code": "InternalServerException", ":error-message": "because"}
    with pytest.raises(TargetError, match="because"):
        reader().feed(converse_rules.raw(said, b""))


# ------------------------------------------------------------------------------------------------- over real sockets

KEYS = Credentials("AKIDEXAMPLE", "very-hush-hush", "hush-token")
REFERENCES = {"access_key": "${T_ID}", "secret_key": "${T_SECRET}", "session_token": "${T_TOKEN}"}


@pytest.fixture(autouse=True)
def _aws(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name, value in zip(
        ("T_ID", "T_SECRET", "T_TOKEN"), (KEYS.access_key, KEYS.secret_key, KEYS.token), strict=True
    ):
        monkeypatch.setenv(name, value)


async def ask(*replies, sink=None, query=None, **driver):
    async with ScriptedServer(replies=replies) as server:
        base = server.url[:-3]
        driver = {"model": CLAUDE, "region": "eu-central-1", **REFERENCES, **driver}
        driver = Bedrock(name="c", base_url=base, **driver)
        await driver.start()
        o = await driver.ask(Call(target="c"), query or Query.ask("hi", id="q1"), sink)
        await driver.stop()
        for request in server.requests:
            operation = "ConverseStream" if request.path.endswith("/converse-stream") else "Converse"
            converse_rules.check(request.json, operation=operation, model=driver.model)
            if request.headers["authorization"].startswith("AWS4"):
                converse_rules.check_signature(request, base.removeprefix("http://"), KEYS, "eu-central-1")
        return o, server.requests


async def test_no_secret_in_a_log(caplog):
    caplog.set_level(logging.DEBUG)
    await ask(refused(403, "AccessDeniedException", "very-hush-hush"))
    assert "hush" not in caplog.text


@pytest.mark.parametrize("model", [CLAUDE, ARN, "amazon.nova-pro-v1:0"])
async def test_signature_and_path(model):
    o, requests = await ask(whole(), model=model)
    assert o.ok
    path = requests[0].path
    assert path == f"/model/{model.replace(':', '%3A').replace('/', '%2F')}/converse"
    assert requests[0].headers["x-amz-security-token"] == "hush-token"


async def test_stream_over_a_socket():
    writes = []

    async def sink(events):
        writes.append(events)

    query = Query.ask("hi", id="q1", seed=3)
    o, requests = await ask(Bytes(pieces=(STREAM[:300], STREAM[300:])), sink=sink, query=query)
    assert (o.text, o.streamed, o.tokens, o.dropped) == ("hello", True, COUNTED, ("seed",))
    assert requests[0].path.endswith("/converse-stream")
    assert writes[0].startswith(b": x-fairlead-dropped seed\n\ndata: ")
    assert b"".join(writes).count(b"x-fairlead-dropped") == 1


async def test_a_stream_that_throttles_half_way_is_broken():
    async def sink(events):
        pass

    slow = frame("throttlingException", {"message": "slow"}, message="exception")
    o, _ = await ask(Bytes(pieces=(b"".join(FRAMES[:9]), slow), gap_seconds=0.05), sink=sink)
    assert (o.error.kind, o.streamed) == ("broken_stream", True)


def refused(status, name, message):
    headers = {**JSON, "x-amzn-ErrorType": f"{name}:http://internal.amazon.com/", "x-amzn-RequestId": "r-1"}
    return Bytes(status=status, pieces=(msgspec.json.encode({"message": message}),), headers=headers)


@pytest.mark.parametrize(
    ("status", "name", "message", "kind"),
    [
        (429, "ThrottlingException", "Too many requests", "rate_limited"),
        (400, "ServiceQuotaExceededException", "quota", "rate_limited"),
        (400, "ValidationException", "bad", "bad_request"),
        (400, "ValidationException", "Input is too long for requested model.", "context_too_long"),
        (400, "ValidationException", "The provided model identifier is invalid.", "not_found"),
        (403, "AccessDeniedException", "no", "auth"),
        (403, "UnrecognizedClientException", "The security token is invalid", "auth"),
        (404, "ResourceNotFoundException", "no", "not_found"),
        (408, "ModelTimeoutException", "late", "timeout"),
        (424, "ModelErrorException", "broke", "unavailable"),
        (429, "ModelNotReadyException", "wait", "unavailable"),
        (500, "InternalServerException", "oops", "unavailable"),
        (503, "ServiceUnavailableException", "later", "unavailable"),
    ],
)
async def test_refusals(status, name, message, kind):
    o, _ = await ask(refused(status, name, message + " very-hush-hush"))
    assert (o.error.kind, o.error.status) == (kind, status)
    assert o.error.message.startswith(name)
    assert o.error.message.endswith("(request r-1)")
    assert "hush" not in o.error.message


def test_every_error_of_the_service_has_its_own_case():
    marks = next(m for m in test_refusals.pytestmark if m.name == "parametrize")
    cases = {case[1] for case in marks.args[1]}
    assert {e.name for e in converse_rules.service().operation_model("Converse").error_shapes} <= cases


async def test_a_refused_signature_is_tried_once_more_without_thinking():
    block = {"type": "thinking", "thinking": "h", "signature": "z"}
    answer = {"role": "assistant", "content": "x", "thinking_blocks": [block]}
    message = "The model returned the following errors: messages.1.content.0: Invalid `signature` in `thinking` block"
    query = Query.ask("x", id="q", messages=[user("a"), answer, user("b")])
    o, requests = await ask(refused(400, "ValidationException", message), whole(), query=query)
    assert (o.ok, o.retries, o.dropped) == (True, 1, ("messages[1].thinking_blocks",))
    assert [len(r.json["messages"][1]["content"]) for r in requests] == [2, 1]


async def test_keys_of_bedrocks_own(monkeypatch):
    monkeypatch.setenv("T_KEY", "bedrock-hush")
    none = dict.fromkeys(REFERENCES)
    o, requests = await ask(whole(), api_key="${T_KEY}", **none)
    assert requests[0].headers["authorization"] == "Bearer bedrock-hush"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "env-hush")
    o, requests = await ask(refused(403, "AccessDeniedException", "env-hush"), **none)
    assert requests[0].headers["authorization"] == "Bearer env-hush"
    assert "hush" not in o.error.message
    # Keys that are named win over one that is lying about.
    _, requests = await ask(whole())
    assert requests[0].headers["authorization"].startswith("AWS4")


async def test_guardrails():
    o, requests = await ask(whole({**REPLY, "stopReason": "guardrail_intervened"}), guardrail="abc123:DRAFT")
    assert requests[0].json["guardrailConfig"] == {"guardrailIdentifier": "abc123", "guardrailVersion": "DRAFT"}
    assert o.finish == "content_filter"


async def test_credentials_are_renewed_off_the_loop_and_once(monkeypatch):
    threads = []

    def renew():
        threads.append(threading.current_thread())
        late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        return {
            "access_key": "AKIDEXAMPLE",
            "secret_key": "very-hush-hush",
            "token": "t",
            "expiry_time": late.isoformat(),
        }

    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    stale = RefreshableCredentials("old", "old", "old", soon, renew, "test")
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda self: stale)
    async with ScriptedServer(replies=(whole(),)) as server:
        driver = Bedrock(name="c", model="m", region="eu-central-1", base_url=server.url[:-3])
        await driver.start()
        query = Query.ask("hi", id="q1")
        done = await asyncio.gather(*(driver.ask(Call(target="c"), query) for _ in range(5)))
        await driver.stop()
    assert all(o.ok for o in done)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    assert all("AKIDEXAMPLE" in r.headers["authorization"] for r in server.requests)


async def test_calls_do_not_wait_for_a_renewal_that_is_not_urgent(monkeypatch):
    ends = [datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)]
    fetching, fetched = threading.Event(), threading.Event()

    def renew():
        fetching.set()
        assert fetched.wait(10)
        return {"access_key": "new", "secret_key": "b", "token": "c", "expiry_time": ends[0].isoformat()}

    keys = RefreshableCredentials("AKIDOLD", "b", "c", ends[0], renew, "test")
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda self: keys)
    async with ScriptedServer(replies=(whole(),)) as server:
        driver = Bedrock(name="c", model="m", region="eu-central-1", base_url=server.url[:-3])
        await driver.start()
        ask = lambda: driver.ask(Call(target="c"), Query.ask("hi", id="q1"))  # noqa: E731
        assert (await ask()).ok
        keys._expiry_time = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=12)
        first = asyncio.ensure_future(ask())
        await asyncio.to_thread(fetching.wait, 10)
        assert (await ask()).ok
        assert not first.done()
        fetched.set()
        assert (await first).ok
        await driver.stop()
    used = ["AKIDOLD" in r.headers["authorization"] for r in server.requests]
    assert used == [True, True, False]


async def test_credentials_that_cannot_be_renewed(monkeypatch):
    def renew():
        raise ProfileNotFound(profile="hush")

    stale = RefreshableCredentials("a", "b", "c", datetime.datetime.now(datetime.UTC), renew, "test")
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda self: stale)
    o, requests = await ask(whole(), **dict.fromkeys(REFERENCES))
    assert (o.error.kind, requests) == ("auth", [])
    assert "hush" not in o.error.message


async def start(**driver):
    driver = Bedrock(name="c", base_url="http://127.0.0.1:1", **{"model": "m", "region": "r", **driver})
    await driver.start()
    await driver.stop()


async def test_where_region_and_credentials_come_from(monkeypatch):
    await start(**REFERENCES)
    await start(region=None, model=ARN, **REFERENCES)
    with pytest.raises(ConfigError, match="name a region"):
        await start(region=None, **REFERENCES)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    await start(region=None, **REFERENCES)
    with pytest.raises(ConfigError, match="no AWS credentials found"):
        await start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    await start()
    with pytest.raises(ConfigError, match="AWS's settings"):
        await start(profile_name="nobody")
    monkeypatch.delenv("T_SECRET")
    with pytest.raises(ConfigError, match="T_SECRET is not set"):
        await start(**REFERENCES)


async def test_without_botocore(monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "botocore"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'fairlead\[bedrock\]'"):
        await start(**REFERENCES)


@pytest.mark.parametrize(
    "wrong",
    [{"access_key": "AKID"}, {"access_key": "${A}"}, {"api_key": "abc"}, {"guardrail": "abc"}, {"base_url": "ftp://x"}],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ConfigError):
        Bedrock(name="c", model="m", **wrong)


async def test_not_started():
    o = await Bedrock.example().ask(Call(target="a"), Query.ask("x"))
    assert o.error.kind == "internal"


async def test_check_target():
    words = {
        **REPLY,
        "output": {"message": {"role": "assistant", "content": [{"text": "4"}]}},
        "stopReason": "end_turn",
    }
    text = frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "4"}})
    stream = Bytes(pieces=(FRAMES[0] + text + frame("messageStop", {"stopReason": "end_turn"}) + FRAMES[-1],))
    async with ScriptedServer(replies=(whole(words), stream, *[whole(words)] * 5)) as server:
        await check_target(
            lambda: Bedrock(name="t", model="m", region="eu-central-1", base_url=server.url[:-3], **REFERENCES)
        )
