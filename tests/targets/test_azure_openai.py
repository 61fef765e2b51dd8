"""Azure's addresses, credentials, filters and errors."""

import msgspec
import pytest
from msgspec import Raw
from openai.types.chat import ChatCompletion

from fairlead.errors import ConfigError
from fairlead.targets.azure_openai import AzureOpenAI
from fairlead.targets.openai_chat import refusal
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.types import Call, Query

JSON = {"content-type": "application/json"}
KEY = "0123456789abcdef0123456789abcdef"
FILTER = {"hate": {"filtered": False, "severity": "safe"}}
REPLY = {
    "id": "chatcmpl-a",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-11-20",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "x"},
            "finish_reason": "stop",
            "content_filter_results": FILTER,
        }
    ],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTER}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
STREAM = (
    b"".join(
        b"data: " + msgspec.json.encode(c) + b"\n\n"
        for c in (
            # Azure begins with what its filter says of the prompt: no choice, no id.
            {"id": "", "choices": [], "prompt_filter_results": REPLY["prompt_filter_results"], "usage": None},
            {
                "id": "a",
                "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
            },
            {
                "id": "a",
                "choices": [
                    {"index": 0, "delta": {"content": "x"}, "content_filter_results": FILTER, "logprobs": None}
                ],
            },
            {"id": "", "choices": [{"index": 0, "content_filter_offsets": {"start_offset": 0}, "finish_reason": None}]},
            {"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"id": "a", "choices": [], "usage": REPLY["usage"]},
        )
    )
    + b"data: [DONE]\n\n"
)


@pytest.fixture
async def ask(monkeypatch):
    monkeypatch.setenv("AZURE_KEY", KEY)

    async def go(reply, sink=None, suffix="", key="api_key", query=None, **options):
        async with ScriptedServer(replies=(reply,)) as server:
            endpoint = server.url.removesuffix("/v1") + suffix
            driver = AzureOpenAI(name="t", model="gpt 4", endpoint=endpoint, **{key: "${AZURE_KEY}"}, **options)
            await driver.start()
            query = query or Query.ask("x", id="q1", max_tokens=5, top_k=2)
            o = await driver.ask(Call(target="t"), query, sink)
            await driver.stop()
            go.request = server.requests[0]
            return o

    return go


@pytest.mark.parametrize(
    ("suffix", "version", "path"),
    [
        ("", None, "/openai/v1/chat/completions"),
        ("/openai/v1/", None, "/openai/v1/chat/completions"),
        ("/", "2024-10-21", "/openai/deployments/gpt%204/chat/completions?api-version=2024-10-21"),
    ],
)
async def test_addresses(ask, suffix, version, path):
    o = await ask(Bytes(pieces=(msgspec.json.encode(REPLY),), headers=JSON), suffix=suffix, api_version=version)
    assert o.error is None
    assert ask.request.path == path
    assert ask.request.headers["api-key"] == KEY
    assert "authorization" not in ask.request.headers
    assert ask.request.json["model"] == "gpt 4"
    assert ask.request.json["max_completion_tokens"] == 5
    assert o.dropped == ("top_k",)


async def test_an_entra_token(ask):
    await ask(Bytes(pieces=(msgspec.json.encode(REPLY),), headers=JSON), key="token")
    assert ask.request.headers["authorization"] == f"Bearer {KEY}"
    assert "api-key" not in ask.request.headers


async def test_filter_results_are_kept(ask):
    o = await ask(Bytes(pieces=(msgspec.json.encode(REPLY),), headers=JSON))
    got = ChatCompletion.model_validate_json(o.reply)
    assert got.prompt_filter_results == REPLY["prompt_filter_results"]
    assert got.choices[0].content_filter_results == FILTER
    writes = []

    async def sink(events):
        writes.append(events)

    o = await ask(Bytes(pieces=(STREAM,), headers={"content-type": "text/event-stream"}), sink=sink)
    assert (o.error, o.text, o.finish, o.tokens.output) == (None, "x", "stop", 1)
    assert b"prompt_filter_results" in b"".join(writes)
    assert b"content_filter_results" in b"".join(writes)


@pytest.mark.parametrize("version", [None, "2024-10-21"])
async def test_vectors(ask, version):
    body = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 2}, "model": "m"}
    query = Query(id="q1", messages=(), task="embeddings", body={"input": Raw(b'"x"')})
    o = await ask(Bytes(pieces=(msgspec.json.encode(body),), headers=JSON), api_version=version, query=query)
    assert (o.error, o.tokens.input) == (None, 2)
    place = (
        "/openai/v1/embeddings" if version is None else "/openai/deployments/gpt%204/embeddings?api-version=2024-10-21"
    )
    assert ask.request.path == place


BLOCKED = {
    "error": {
        "message": "The response was filtered.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {
                "hate": {"filtered": False, "severity": "safe"},
                "violence": {"filtered": True, "severity": "high"},
                "jailbreak": {"filtered": False, "detected": True},
            },
        },
    }
}


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, BLOCKED, "blocked", "The response was filtered. (violence, jailbreak)"),
        (400, {"error": {"code": "content_filter", "message": "no"}}, "blocked", "no"),
        (400, {"error": {"code": "other", "message": "about content_filter"}}, "bad_request", "about content_filter"),
        (400, {"error": {"code": "context_length_exceeded", "message": "long"}}, "context_too_long", "long"),
        (401, {"statusCode": 401, "message": "Unauthorized. Access token is missing."}, "auth", None),
        (404, {"error": {"code": "DeploymentNotFound", "message": "gone"}}, "not_found", "gone"),
        (429, {"error": {"code": "429", "message": "slow down"}}, "rate_limited", "slow down"),
    ],
)
def test_error_bodies(status, body, kind, message):
    failure = refusal(status, {"retry-after": "7"}, msgspec.json.encode(body))
    assert failure.kind == kind
    assert message is None or failure.message == message
    assert failure.retry_after_seconds == 7.0


async def test_no_key_survives_in_an_error(ask):
    body = msgspec.json.encode({"error": {"message": f"bad key {KEY}"}})
    o = await ask(Bytes(pieces=(body,), status=401, headers=JSON))
    assert o.error.kind == "auth"
    assert KEY not in o.error.message


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"api_key": KEY}, "api_key"),
        ({"token": KEY}, "token"),
        ({"api_key": "${A}", "token": "${B}"}, "token"),
        ({"endpoint": "NAME.openai.azure.com"}, "endpoint"),
    ],
)
def test_wrong_arguments(options, path):
    with pytest.raises(ConfigError) as e:
        AzureOpenAI(**{"name": "t", "model": "m", "endpoint": "https://x", **options})
    assert e.value.path == f"$.{path}"
    assert KEY not in str(e.value)
