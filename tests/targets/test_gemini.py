"""Gemini's own format: requests against its SDK's types, replies and streams from fixtures written by hand, over real sockets."""

import base64
import struct

import msgspec
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fairlead.errors import TargetError
from fairlead.targets import gemini, signed
from fairlead.targets.gemini import NO_SIGNATURE, Gemini, StreamReader, refusal, translate
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.targets.sse import Framer
from fairlead.types import Call, Query, Tokens

genai = pytest.importorskip("google.genai.types", reason="google-genai, Google's SDK, is not installed")

BY = signed.signer("gemini", "gemini-3-pro")
JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}
PDF = "data:application/pdf;base64,JVBERi0="
PNG = "data:image/png;base64,iVBORw0="


def to(model="gemini-3-pro", **fields):
    """Translate, and check the request against the SDK's types."""
    out, dropped = translate(fields, model=model, signer=BY)
    for content in out["contents"]:
        genai.Content.model_validate(content)
    if "generationConfig" in out:
        config = {k: v for k, v in out["generationConfig"].items() if k != "responseJsonSchema"}
        genai.GenerationConfig.model_validate(config)
    for tool in out.get("tools", ()):
        genai.Tool.model_validate(tool)
    if "toolConfig" in out:
        genai.ToolConfig.model_validate(out["toolConfig"])
    return out, dropped


def call(id, name="f", arguments='{"a":1}'):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_whole_conversation():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Really."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
                {"type": "image_url", "image_url": {"url": "https://x/a.jpg?w=1"}},
                {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
                {"type": "file", "file": {"file_url": "https://x/b.pdf"}},
            ],
        },
        {"role": "assistant", "content": "Wait.", "tool_calls": [call("c1"), call("c2", "g", "")]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"sum": 3}'},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "is_error": True,
            "content": [{"type": "text", "text": "no"}, {"type": "image_url", "image_url": {"url": PNG}}],
        },
        {"role": "user", "content": "And?"},
    ]
    out, dropped = to(messages=messages)
    assert out["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Really."}]}
    assert [c["role"] for c in out["contents"]] == ["user", "model", "user", "user"]
    looked, answered, results, asked = (c["parts"] for c in out["contents"])
    assert looked == [
        {"text": "Look"},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}},
        {"fileData": {"fileUri": "https://x/a.jpg?w=1", "mimeType": "image/jpeg"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklG"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        {"fileData": {"fileUri": "https://x/b.pdf", "mimeType": "application/pdf"}},
    ]
    assert answered == [
        {"text": "Wait."},
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c1"}},
        {"functionCall": {"name": "g", "args": {}, "id": "c2"}},
    ]
    assert results == [
        {"functionResponse": {"name": "f", "response": {"sum": 3}, "id": "c1"}},
        {"functionResponse": {"name": "g", "response": {"error": "no"}, "id": "c2"}},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}},
    ]
    assert asked == [{"text": "And?"}]
    assert dropped == ["messages[2].image_url.detail"]


def test_parallel_results_stand_in_the_order_of_their_calls():
    """Where a service knows no ids, that is what they are matched by."""
    calls = [call("c1"), call("c2"), call("c3")]
    results = [{"role": "tool", "tool_call_id": f"c{i}", "content": str(i)} for i in (3, 1, 2)]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    out, _ = translate({"messages": messages}, model="gemini-2.5-pro", signer=BY, call_ids=False)
    assert len(out["contents"]) == 3
    said = [p["functionResponse"]["response"]["output"] for p in out["contents"][2]["parts"]]
    assert said == ["1", "2", "3"]
    assert "id" not in out["contents"][1]["parts"][0]["functionCall"]


def test_fields_have_their_place():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    out, dropped = to(
        messages=[{"role": "user", "content": "x"}],
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        seed=7,
        n=2,
        stop=["a", "b"],
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        stream=True,
        stream_options={"include_usage": True},
        model="auto",
    )
    assert out["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 4,
        "seed": 7,
        "candidateCount": 2,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 3,
        "maxOutputTokens": 5,
        "stopSequences": ["a", "b"],
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert out["tools"] == [
        {"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": schema}]}
    ]
    assert out["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}
    assert dropped == []


def test_what_has_no_counterpart_is_named():
    mark = {"type": "ephemeral"}
    _, dropped = to(
        messages=[
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "x", "cache_control": mark}]},
            {"role": "assistant", "content": "y", "reasoning_content": "hm"},
        ],
        tools=[
            {"type": "function", "cache_control": mark, "function": {"name": "f", "strict": True}},
            {"type": "web_search"},
        ],
        stop=list("abcdef"),
        user="ann",
        logit_bias={"1": 2},
        parallel_tool_calls=False,
        n=1,
        logprobs=False,
        store=False,
    )
    assert dropped == [
        "messages[0].name",
        "messages[0].cache_control",
        "reasoning_content",
        "user",
        "logit_bias",
        "parallel_tool_calls",
        "stop[5]",
        "tools[0].cache_control",
        "tools[0].strict",
        "tools[1] of type web_search",
    ]


@pytest.mark.parametrize(
    ("model", "fields", "config", "dropped"),
    [
        ("gemini-3-pro", {"reasoning_effort": "low"}, {"thinkingLevel": "low", "includeThoughts": True}, []),
        (
            "gemini-3-pro",
            {"reasoning_effort": "medium"},
            {"thinkingLevel": "high", "includeThoughts": True},
            ["reasoning_effort medium"],
        ),
        ("gemini-3.1-pro", {"reasoning_effort": "medium"}, {"thinkingLevel": "medium", "includeThoughts": True}, []),
        ("gemini-3-flash", {"thinking": {"type": "disabled"}}, {"thinkingLevel": "minimal"}, ["thinking disabled"]),
        ("gemini-2.5-flash", {"thinking": {"type": "disabled"}}, {"thinkingBudget": 0}, []),
        ("gemini-2.5-pro", {"reasoning_effort": "none"}, {"thinkingBudget": 128}, ["reasoning_effort none"]),
        ("gemini-2.5-pro", {"reasoning_effort": "high"}, {"thinkingBudget": 24576, "includeThoughts": True}, []),
        (
            "gemini-2.5-pro",
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            {"thinkingBudget": 2048, "includeThoughts": True},
            [],
        ),
        (
            "gemini-2.5-flash",
            {"thinking": {"type": "enabled", "budget_tokens": 31999}},
            {"thinkingBudget": 24576, "includeThoughts": True},
            ["thinking.budget_tokens"],
        ),
        ("gemini-2.5-pro", {"thinking": {"type": "adaptive"}}, {"thinkingBudget": -1, "includeThoughts": True}, []),
        ("gemini-flash-latest", {"thinking": {"type": "adaptive"}}, {"includeThoughts": True}, []),
        ("gemini-2.0-flash", {"reasoning_effort": "low"}, None, ["reasoning_effort"]),
    ],
)
def test_thinking(model, fields, config, dropped):
    out, told = to(model=model, messages=[{"role": "user", "content": "x"}], **fields)
    assert out.get("generationConfig", {}).get("thinkingConfig") == config
    assert told == dropped


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_tool_choice(choice, expected):
    tool = {"type": "function", "function": {"name": "f"}}
    out, _ = to(messages=[{"role": "user", "content": "x"}], tools=[tool], tool_choice=choice)
    assert out["toolConfig"]["functionCallingConfig"] == expected


# ------------------------------------------------------------------------------------------------------------ replies

PARTS = [
    {"text": "I think", "thought": True},
    {"text": "Yes."},
    {"functionCall": {"name": "f", "args": {"a": 1}, "id": "g1"}, "thoughtSignature": "U0lH"},
    {"functionCall": {"name": "g", "args": {}}},
]
USAGE = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 40,
    "candidatesTokenCount": 10,
    "thoughtsTokenCount": 5,
    "toolUsePromptTokenCount": 7,
    "totalTokenCount": 122,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 60},
        {"modality": "IMAGE", "tokenCount": 30},
        {"modality": "AUDIO", "tokenCount": 10},
    ],
    "cacheTokensDetails": [{"modality": "IMAGE", "tokenCount": 25}, {"modality": "TEXT", "tokenCount": 15}],
}
TOKENS = Tokens(input=107, cached_input=40, output=15, reasoning=5, audio_input=10, image_input=5)


def response(parts=PARTS, finish="STOP", **rest):
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    out = {"candidates": [candidate], "modelVersion": "gemini-3-pro-001", "responseId": "r", **rest}
    genai.GenerateContentResponse.model_validate(out)
    return out


def stream(*responses):
    return b"".join(b"data: " + msgspec.json.encode(r) + b"\r\n\r\n" for r in responses)


class Client:
    def __init__(self):
        self.writes = []

    async def __call__(self, events):
        self.writes.append(events)

    @property
    def chunks(self):
        return [ChatCompletionChunk.model_validate_json(e.data) for e in Framer().feed(b"".join(self.writes))]


@pytest.fixture
async def ask(monkeypatch):
    monkeypatch.setenv("GEMINI_KEY", "AIzaVerySecret")

    async def go(reply, sink=None, query=None):
        async with ScriptedServer(replies=(reply,)) as server:
            driver = Gemini(name="t", model="gemini-3-pro", base_url=server.url, api_key="${GEMINI_KEY}")
            await driver.start()
            try:
                outcome = await driver.ask(Call(target="t"), query or Query.ask("hello", id="q1"), sink)
            finally:
                await driver.stop()
            go.request = server.requests[0] if server.requests else None
            return outcome

    return go


async def test_a_reply(ask):
    body = msgspec.json.encode(response(usageMetadata=USAGE))
    o = await ask(Bytes(pieces=(body,), headers=JSON), query=Query.ask("hello", id="q1", user="ann"))
    assert o.error is None
    assert (o.text, o.model, o.finish, o.dropped) == ("Yes.", "gemini-3-pro-001", "tool_calls", ("user",))
    assert o.tokens == TOKENS
    assert sum(o.tokens.kinds().values()) == 122  # nothing is counted twice
    assert ask.request.path == "/v1/models/gemini-3-pro:generateContent"
    assert ask.request.headers["x-goog-api-key"] == "AIzaVerySecret"
    got = ChatCompletion.model_validate_json(o.reply)
    said = got.choices[0].message
    assert (got.id, said.content, got.choices[0].finish_reason) == ("q1", "Yes.", "tool_calls")
    assert [(c.function.name, c.function.arguments) for c in said.tool_calls] == [("f", '{"a":1}'), ("g", "{}")]
    assert said.tool_calls[0].id == "g1"
    assert said.tool_calls[1].id.startswith("call_")
    assert said.reasoning_content == "I think"
    assert said.thinking_blocks == [
        {"type": "thinking", "thinking": "I think", "signature": "fl1:gemini/gemini-3-pro:c0.U0lH"}
    ]


async def test_a_stream(ask):
    pieces = [response([p], finish=None) for p in PARTS]
    end = response([{"text": "", "thoughtSignature": "VEVYVA=="}], usageMetadata=USAGE)
    client = Client()
    query = Query.ask("hello", id="q1", user="ann", stream_options={"include_usage": True})
    o = await ask(Bytes(pieces=(stream(*pieces, end),), headers=SSE), sink=client, query=query)
    assert o.error is None
    assert (o.text, o.finish, o.tokens, o.dropped) == ("Yes.", "tool_calls", TOKENS, ("user",))
    assert ask.request.path == "/v1/models/gemini-3-pro:streamGenerateContent?alt=sse"
    assert b"".join(client.writes).startswith(b": x-fairlead-dropped user\n\n")
    deltas = [c.choices[0].delta.model_dump(exclude_none=True) for c in client.chunks if c.choices]
    assert deltas[0] == {"role": "assistant", "reasoning_content": "I think"}
    assert deltas[1] == {"content": "Yes."}
    assert deltas[2]["thinking_blocks"][0]["signature"].endswith("c0.U0lH")
    assert [d["tool_calls"][0]["index"] for d in deltas if "tool_calls" in d] == [0, 1]
    assert deltas[5]["thinking_blocks"][0]["signature"].endswith("t.VEVYVA==")
    assert client.chunks[-2].choices[0].finish_reason == "tool_calls"
    assert client.chunks[-1].usage.prompt_tokens == 107
    assert {c.id for c in client.chunks} == {"q1"}


async def test_signatures_go_back_where_they_stood(ask):
    o = await ask(
        Bytes(
            pieces=(msgspec.json.encode(response([*PARTS, {"text": " Done.", "thoughtSignature": "VA=="}])),),
            headers=JSON,
        )
    )
    said = msgspec.json.decode(o.reply)["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "3"} for c in said["tool_calls"]]
    out, dropped = to(messages=[{"role": "user", "content": "x"}, said, *results])
    assert dropped == []
    text, first, second = out["contents"][1]["parts"]
    assert text == {"text": "Yes. Done.", "thoughtSignature": "VA=="}
    assert first["thoughtSignature"] == "U0lH"
    assert "thoughtSignature" not in second


def test_thinking_of_others_is_left_out_and_a_tool_loop_goes_on():
    foreign = {"type": "thinking", "thinking": "x", "signature": "fl1:anthropic/claude:abc"}
    plain = {"type": "thinking", "thinking": "x", "signature": "abc"}
    turn = {"role": "assistant", "content": None, "tool_calls": [call("c1")], "thinking_blocks": [foreign, plain]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    messages = [{"role": "user", "content": "x"}, turn, result]
    out, dropped = to(messages=messages)
    assert dropped == ["thinking of anthropic/claude", "thinking that nobody signed"]
    assert out["contents"][1]["parts"][0]["thoughtSignature"] == NO_SIGNATURE
    # Past turns are not validated, nor is the generation before.
    out, _ = to(messages=[*messages, {"role": "user", "content": "y"}])
    assert "thoughtSignature" not in out["contents"][1]["parts"][0]
    out, _ = to(model="gemini-2.5-pro", messages=messages)
    assert "thoughtSignature" not in out["contents"][1]["parts"][0]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("OTHER", "stop"),
    ],
)
async def test_finish_reasons(ask, reason, finish):
    body = msgspec.json.encode(response([{"text": "x"}], finish=reason))
    o = await ask(Bytes(pieces=(body,), headers=JSON))
    assert o.finish == finish


async def test_no_answer_is_a_failure(ask):
    body = msgspec.json.encode(response([], finish="MALFORMED_FUNCTION_CALL"))
    o = await ask(Bytes(pieces=(body,), headers=JSON))
    assert o.error.kind == "malformed"
    assert "MALFORMED_FUNCTION_CALL" in o.error.message


@pytest.mark.parametrize("sink", [None, Client()])
async def test_a_blocked_prompt(ask, sink):
    body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}}
    genai.GenerateContentResponse.model_validate(body)
    reply = Bytes(pieces=(stream(body) if sink else msgspec.json.encode(body),), headers=SSE if sink else JSON)
    o = await ask(reply, sink=sink)
    assert o.error.kind == "blocked"
    assert "PROHIBITED_CONTENT" in o.error.message


async def test_several_candidates_and_logprobs(ask):
    result = {
        "chosenCandidates": [{"token": "a", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "a", "logProbability": -0.5}]}],
    }
    body = response([{"text": "a"}])
    body["candidates"][0]["logprobsResult"] = result
    body["candidates"].append({"content": {"parts": [{"text": "b"}]}, "index": 1, "finishReason": "MAX_TOKENS"})
    o = await ask(Bytes(pieces=(msgspec.json.encode(body),), headers=JSON))
    assert o.logprobs == (-0.5,)
    assert o.first_entropy > 0
    got = ChatCompletion.model_validate_json(o.reply)
    assert [(c.message.content, c.finish_reason) for c in got.choices] == [("a", "stop"), ("b", "length")]
    assert got.choices[0].logprobs.content[0].token == "a"


async def test_a_picture_in_the_answer(ask):
    body = response([{"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}}])
    o = await ask(Bytes(pieces=(msgspec.json.encode(body),), headers=JSON))
    assert msgspec.json.decode(o.reply)["choices"][0]["message"]["images"][0]["image_url"]["url"] == PNG


def test_a_stream_cut_anywhere_says_so():
    data = stream(response([{"text": "a"}], finish=None), response([{"text": "b"}], usageMetadata=USAGE))
    whole = StreamReader(id="q", created=0, pass_usage=False)
    whole.feed(data)
    whole.close()
    assert whole.outcome().text == "ab"
    last = data.rfind(b"data: ")
    for end in (0, 1, 40, last - 1, last, last + 10, len(data) - 20):
        reader = StreamReader(id="q", created=0, pass_usage=False)
        reader.feed(data[:end])
        with pytest.raises(TargetError) as e:
            reader.close()
        assert e.value.failure.kind == "broken_stream"


def error(code, status, message="no", *details):
    return msgspec.json.encode({"error": {"code": code, "status": status, "message": message, "details": details}})


@pytest.mark.parametrize(
    ("status", "body", "kind", "retry"),
    [
        (
            429,
            error(
                429,
                "RESOURCE_EXHAUSTED",
                "quota",
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"},
            ),
            "rate_limited",
            34.5,
        ),
        (
            400,
            error(
                400,
                "INVALID_ARGUMENT",
                "API key not valid",
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
            ),
            "auth",
            None,
        ),
        (
            400,
            error(
                400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."
            ),
            "context_too_long",
            None,
        ),
        (403, error(403, "PERMISSION_DENIED"), "auth", None),
        (404, error(404, "NOT_FOUND"), "not_found", None),
        (500, error(500, "INTERNAL"), "unavailable", None),
        (503, b"[" + error(503, "UNAVAILABLE", "overloaded") + b"]", "unavailable", None),
        (504, error(504, "DEADLINE_EXCEEDED"), "timeout", None),
        (502, b"<html>bad gateway</html>", "unavailable", None),
    ],
)
def test_errors(status, body, kind, retry):
    failure = refusal(status, {}, body)
    assert (failure.kind, failure.retry_after_seconds, failure.status) == (kind, retry, status)


def test_an_error_within_a_stream():
    reader = StreamReader(id="q", created=0, pass_usage=False)
    with pytest.raises(TargetError) as e:
        reader.feed(b"data: " + error(503, "UNAVAILABLE", "overloaded") + b"\n\n")
    assert (e.value.failure.kind, e.value.failure.message) == ("unavailable", "overloaded")


async def test_no_key_survives_in_an_error(ask):
    o = await ask(Bytes(pieces=(error(400, "X", "bad key AIzaVerySecret"),), status=400, headers=JSON))
    assert "AIza" not in o.error.message


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "tool", "tool_call_id": "c9", "content": "x"}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
        [{"role": "user", "content": [{"type": "hologram"}]}],
        [{"role": "oracle", "content": "x"}],
    ],
)
async def test_untranslatable_requests(ask, messages):
    query = Query.ask("x", id="q1")
    query = msgspec.structs.replace(query, body={"messages": msgspec.Raw(msgspec.json.encode(messages))})
    o = await ask(Bytes(pieces=(b"{}",), headers=JSON), query=query)
    assert o.error.kind == "bad_request"
    assert ask.request is None


def test_generations():
    names = ("gemini-2.5-pro", "models/gemini-3-flash-preview", "gemini-flash-latest", "gemma-3-27b-it")
    assert [gemini.generation(n) for n in names] == [(2, 5), (3, 0), (99, 0), (0, 0)]


def embed(**fields):
    body = {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in fields.items()}
    return Query(id="q1", messages=(), task="embeddings", body=body)


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_vectors(ask, encoding):
    body = {"embeddings": [{"values": [0.5, -1.0]}, {"values": [0.25, 2.0]}], "usageMetadata": {"promptTokenCount": 6}}
    genai.EmbedContentResponse.model_validate({"embeddings": body["embeddings"]})
    query = embed(input=["a", "b"], dimensions=2, encoding_format=encoding, user="ann")
    o = await ask(Bytes(pieces=(msgspec.json.encode(body),), headers=JSON), query=query)
    assert (o.error, o.tokens, o.dropped) == (None, Tokens(input=6), ("user",))
    assert ask.request.path == "/v1/models/gemini-3-pro:batchEmbedContents"
    assert ask.request.json["requests"][1] == {
        "model": "models/gemini-3-pro",
        "content": {"parts": [{"text": "b"}]},
        "outputDimensionality": 2,
    }
    got = msgspec.json.decode(o.reply)
    assert [e["index"] for e in got["data"]] == [0, 1]
    first = got["data"][0]["embedding"]
    assert first == [0.5, -1.0] if encoding == "float" else base64.b64decode(first) == struct.pack("<2f", 0.5, -1.0)
    if encoding == "float":
        CreateEmbeddingResponse.model_validate(got)


async def test_vectors_that_are_none(ask):
    o = await ask(Bytes(pieces=(b'{"embeddings": []}',), headers=JSON), query=embed(input="a"))
    assert o.error.kind == "malformed"
    o = await ask(Bytes(pieces=(b"{}",), headers=JSON), query=embed(input=[[1, 2]]))
    assert (o.error.kind, ask.request) == ("bad_request", None)
