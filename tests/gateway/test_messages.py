"""Anthropic's Messages over real sockets, with the official client: requests, replies, events, errors, and counting."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import msgspec
import openai
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.faces.base import Read, query_id
from fairlead.gateway.faces.messages import Kept, Messages
from fairlead.gateway.refusal import Refused
from fairlead.gateway.server import Server
from fairlead.targets import anthropic_messages, wire
from fairlead.targets.scripted import Reply
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.types import Failure, Outcome, Query, Tokens

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
PRICED = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
TOOL: Any = {"name": "look", "input_schema": {"type": "object", "properties": {"what": {"type": "string"}}}}
PNG = "iVBORw0KGgo="


def call(n: int = 1, arguments: str = '{"what": "x"}') -> dict[str, Any]:
    return {"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": arguments}}


class Running:
    def __init__(self, gateway: Gateway, server: Server, http: aiohttp.ClientSession) -> None:
        self.gateway, self.server, self.http = gateway, server, http

    def client(self, key: str = "unused", **more: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.server.url, api_key=key, max_retries=0, timeout=10, **more)

    async def post(self, body: Any, path: str = "/v1/messages", **more: Any) -> tuple[int, Any, Any]:
        async with self.http.post(path, json=body, **more) as r:
            read = await r.read()
            return r.status, r.headers, json.loads(read) if "json" in r.content_type else read


def scripted(*replies: Reply | str, **profile: Any) -> dict[str, Any]:
    return {"type": "scripted", "replies": msgspec.to_builtins(list(replies)), "profile": {**PRICED, **profile}}


@contextlib.asynccontextmanager
async def running(tmp_path: Path, target: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Running]:
    config = make(
        {
            "targets": {"small": target or scripted("four")},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "small"}}},
            "store": {"path": str(tmp_path / "store.sqlite")},
            "gateway": {"port": 0, **more.pop("gateway", {})},
            **more,
        }
    )
    async with (
        Gateway.of(config) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        yield Running(app, server, http)


async def streamed(client: anthropic.AsyncAnthropic, **more: Any) -> Message:
    async with client.messages.stream(**{**ASK, **more}) as stream:
        return await stream.get_final_message()


async def read(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request in the chat format, and what was left out."""
    made = await Messages().read({k: msgspec.Raw(msgspec.json.encode(v)) for k, v in {**ASK, **body}.items()})
    return {k: msgspec.json.decode(v) for k, v in made.fields.items()}, made.dropped


# ------------------------------------------------------------------------------------------------------------ answers


async def test_a_whole_answer_with_the_official_client(tmp_path: Path) -> None:
    tokens = Tokens(input=20, cached_input=5, cache_write=3, output=4)
    async with running(tmp_path, scripted(Reply(text="four", tokens=tokens))) as run, run.client() as client:
        raw = await client.messages.with_raw_response.create(**ASK)
        reply = await raw.parse()
        Message.model_validate(json.loads(await raw.read()))
        assert (reply.type, reply.role, reply.model, reply.stop_reason) == ("message", "assistant", "small", "end_turn")
        assert [(b.type, getattr(b, "text", "")) for b in reply.content] == [("text", "four")]
        usage = reply.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens) == (12, 5)
        assert (usage.cache_creation_input_tokens, usage.output_tokens) == (3, 4)
        assert reply.id.startswith("msg_")
        assert query_id(reply.id) == raw.headers["x-fairlead-id"] == query_id(raw.headers["request-id"])
        status, _, receipt = await run.post({"id": reply.id, "value": 1.0}, "/v1/feedback")
        assert (status, receipt["trace_id"]) == (200, query_id(reply.id))


async def test_a_stream_with_the_official_client(tmp_path: Path) -> None:
    reply = Reply(text="one two three", tokens=Tokens(input=9, cached_input=2, output=3))
    async with running(tmp_path, scripted(reply)) as run, run.client() as client:
        async with client.messages.stream(**ASK) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_message()
        assert "".join(e.text for e in events if e.type == "text") == "one two three"
        assert len([e for e in events if e.type == "text"]) == 3
        assert (final.stop_reason, final.model) == ("end_turn", "small")
        assert (final.usage.input_tokens, final.usage.cache_read_input_tokens, final.usage.output_tokens) == (7, 2, 3)
        status, _, _ = await run.post({"id": final.id, "value": 1.0}, "/v1/feedback")
        assert status == 200


async def test_tool_calls_whole_and_streamed_are_the_same(tmp_path: Path) -> None:
    reply = Reply(text="", tool_calls=(call(1), call(2, '{"what": "y"}')), finish="tool_calls")
    async with (
        ScriptedServer(replies=(reply,)) as server,
        running(tmp_path, {"type": "openai_chat", "model": "theirs", "base_url": server.url}) as run,
        run.client() as client,
    ):
        for message in (await client.messages.create(**ASK, tools=[TOOL]), await streamed(client, tools=[TOOL])):
            assert message.stop_reason == "tool_use"
            blocks: list[Any] = list(message.content)
            uses = [(b.type, b.id, b.name, b.input) for b in blocks]
            assert uses == [
                ("tool_use", "call_1", "look", {"what": "x"}),
                ("tool_use", "call_2", "look", {"what": "y"}),
            ]


async def test_an_empty_answer_has_no_blocks(tmp_path: Path) -> None:
    async with running(tmp_path, scripted(Reply(text=""))) as run, run.client() as client:
        assert (await client.messages.create(**ASK)).content == []
        assert (await streamed(client)).content == []


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_tokens"), ("content_filter", "refusal")])
async def test_why_an_answer_stopped(tmp_path: Path, finish: str, reason: str) -> None:
    async with running(tmp_path, scripted(Reply(text="a", finish=finish))) as run, run.client() as client:
        assert (await client.messages.create(**ASK)).stop_reason == reason
        assert (await streamed(client)).stop_reason == reason


async def test_an_answer_that_was_not_streamed_is_sent_as_events(tmp_path: Path) -> None:
    plan = {"kind": "vote", "members": ["small", "small", "small"]}
    routes = {"auto": {"policy": {"type": "fixed", "plan": plan}}}
    async with (
        running(tmp_path, scripted("yes"), routes=routes) as run,
        run.client() as client,
        client.messages.stream(**ASK) as stream,
    ):
        assert await stream.get_final_text() == "yes"


async def test_a_session_of_claude_code_s_kind_with_its_own_headers_and_fields(tmp_path: Path) -> None:
    """Beta endpoints, version headers, and fields that are the provider's alone: answered, and told."""
    async with (
        ScriptedServer(replies=("ok",)) as server,
        running(tmp_path, {"type": "openai_chat", "model": "theirs", "base_url": server.url}) as run,
        run.client() as client,
    ):
        raw = await client.beta.messages.with_raw_response.create(
            **ASK,
            betas=["context-management-2025-06-27"],
            context_management={"edits": []},
            mcp_servers=[{"type": "url", "url": "https://example.org", "name": "m"}],
            container="c",
            system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            metadata={"user_id": "ann"},
            extra_headers={"x-fairlead-session": "s1"},
        )
        told = raw.headers["x-fairlead-dropped"]
        for name in ("context_management", "mcp_servers", "container"):
            assert name in told
        sent = json.loads(server.requests[0].body)
        assert sent["messages"][0]["role"] == "system"
        assert sent["user"] == "ann"
        assert not {"betas", "mcp_servers", "container", "context_management"} & set(sent)
        trace = await run.gateway.router.store.get(raw.headers["x-fairlead-id"])
        assert trace is not None
        assert (trace.query.identity.session, trace.query.identity.user) == ("s1", "ann")
        assert (trace.query.api, trace.query.route) == ("messages", "auto")


def of_claude(*events: dict[str, Any]) -> Bytes:
    lines = [b"event: %b\ndata: %b\n\n" % (e["type"].encode(), msgspec.json.encode(e)) for e in events]
    return Bytes(pieces=tuple(lines), headers={"content-type": "text/event-stream"})


async def test_thinking_goes_out_with_its_driver_s_mark_and_comes_back_without(tmp_path: Path) -> None:
    start = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "claude-x"}
    usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 1, "output_tokens": 1}

    def block(index: int, begun: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"type": "content_block_start", "index": index, "content_block": begun},
            *({"type": "content_block_delta", "index": index, "delta": d} for d in deltas),
            {"type": "content_block_stop", "index": index},
        ]

    reply = of_claude(
        {"type": "message_start", "message": {**start, "usage": usage}},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "so "},
            {"type": "thinking_delta", "thinking": "hm"},
            {"type": "signature_delta", "signature": "c2ln"},
        ),
        *block(1, {"type": "redacted_thinking", "data": "xyz"}),
        *block(2, {"type": "text", "text": ""}, {"type": "text_delta", "text": "I look."}),
        *block(
            3,
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"what": '},
            {"type": "input_json_delta", "partial_json": '"x"}'},
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    async with (
        ScriptedServer(replies=(reply,)) as server,
        running(
            tmp_path, {"type": "anthropic_messages", "model": "claude-x", "base_url": server.url.removesuffix("/v1")}
        ) as run,
        run.client() as client,
    ):
        message = await streamed(client, tools=[TOOL])
        said: list[Any] = [b.model_dump(exclude_unset=True) for b in message.content]
        assert said[0] == {"type": "thinking", "thinking": "so hm", "signature": "fl1:anthropic/claude-x:c2ln"}
        assert said[1] == {"type": "redacted_thinking", "data": "fl1:anthropic/claude-x:xyz"}
        assert said[2] == {"type": "text", "text": "I look."}
        assert (said[3]["id"], said[3]["input"]) == ("toolu_1", {"what": "x"})
        assert (message.model, message.stop_reason) == ("claude-x", "tool_use")
        counted = message.usage
        assert (counted.input_tokens, counted.cache_read_input_tokens, counted.output_tokens) == (5, 7, 9)
        result: Any = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "nothing"}
        turns = [*ASK["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
        await streamed(client, **{"messages": turns, "tools": [TOOL]})
        back = json.loads(server.requests[1].body)["messages"][1]["content"]
        assert back[0] == {"type": "thinking", "thinking": "so hm", "signature": "c2ln"}
        assert back[1] == {"type": "redacted_thinking", "data": "xyz"}
        assert [b["type"] for b in back[2:]] == ["text", "tool_use"]


# ------------------------------------------------------------------------------------------------------------ errors


async def test_errors_have_anthropic_s_types(tmp_path: Path) -> None:
    gateway = {"keys": {"ann": hashed("right")}, "max_body_bytes": 4000}
    async with running(tmp_path, gateway=gateway) as run:
        async with run.client("wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as denied:
                await client.messages.create(**ASK)
            assert denied.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
            with pytest.raises(anthropic.AuthenticationError) as denied:
                await client.messages.count_tokens(model="auto", messages=ASK["messages"])
            assert denied.value.body["type"] == "error"  # type: ignore[index]
        async with run.client("right") as client:
            with pytest.raises(anthropic.NotFoundError) as missing:
                await client.messages.create(**{**ASK, "model": "nobody"})
            assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
            with pytest.raises(anthropic.RequestTooLargeError) as large:
                await client.messages.create(**{**ASK, "messages": [{"role": "user", "content": "x" * 5000}]})
            assert large.value.body["error"]["type"] == "request_too_large"  # type: ignore[index]
            with pytest.raises(anthropic.BadRequestError, match="max_tokens is missing"):
                await client.messages.create(**{**ASK, "max_tokens": anthropic.NOT_GIVEN})
            with pytest.raises(anthropic.NotFoundError) as missing:
                await client.messages.count_tokens(model="nobody", messages=ASK["messages"])
            assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
            assert (await client.messages.create(**ASK)).content


@pytest.mark.parametrize(
    ("kind", "status", "type"),
    [
        ("rate_limited", 429, "rate_limit_error"),
        ("bad_request", 400, "invalid_request_error"),
        ("timeout", 504, "timeout_error"),
        ("busy", 503, "overloaded_error"),
        ("unavailable", 502, "api_error"),
        ("internal", 500, "api_error"),
    ],
)
async def test_failures_of_targets_have_anthropic_s_types(tmp_path: Path, kind: Any, status: int, type: str) -> None:
    async with running(tmp_path, scripted(Reply(error=Failure(kind=kind, message="so it is")))) as run:
        for stream in (False, True):
            got, headers, body = await run.post({**ASK, "stream": stream})
            assert (got, body["type"], body["error"]) == (status, "error", {"type": type, "message": "so it is"})
            assert body["request_id"] == headers["request-id"]
            assert query_id(body["request_id"]) == headers["x-fairlead-id"]


async def test_a_broken_stream_ends_with_an_error_event(tmp_path: Path) -> None:
    async with running(tmp_path, scripted(Reply(text="one two three", cut_after_chunks=2))) as run:
        async with run.client() as client:
            with pytest.raises(anthropic.APIError, match="cut, as scripted"):
                await streamed(client)
        _, _, body = await run.post({**ASK, "stream": True})
        events = [b for b in body.decode().split("\n\n") if b.startswith("event: ")]
        assert events[-1].startswith("event: error\n")
        error = json.loads(events[-1].partition("data: ")[2])
        assert error["error"] == {"type": "api_error", "message": "the stream was cut, as scripted"}
        assert error["request_id"].startswith("req_")
        assert not any("message_stop" in e for e in events)


async def test_limits_are_told_under_anthropic_s_names(tmp_path: Path) -> None:
    keys = {"ann": {"hash": hashed("k"), "limits": {"requests_per_minute": 1}}}
    async with running(tmp_path, gateway={"keys": keys}) as run, run.client("k") as client:
        raw = await client.messages.with_raw_response.create(**ASK)
        assert raw.headers["anthropic-ratelimit-requests-limit"] == "1"
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.messages.create(**ASK)
        assert refused.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


# ------------------------------------------------------------------------------------------------------------ requests


async def test_results_of_tools_become_messages_in_their_order_and_the_rest_follows() -> None:
    fields, dropped = await read(
        {
            "messages": [
                {"role": "user", "content": "look"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "so"},
                        {"type": "tool_use", "id": "a", "name": "look", "input": {"what": "x"}},
                        {"type": "tool_use", "id": "b", "name": "look", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "b", "content": "bee", "is_error": True},
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "content": [
                                {"type": "text", "text": "a"},
                                {
                                    "type": "image",
                                    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                                },
                            ],
                        },
                        {"type": "tool_result", "tool_use_id": "c"},
                        {"type": "text", "text": "and now?"},
                    ],
                },
            ]
        }
    )
    assert dropped == ()
    assert fields["messages"][1:] == [
        {
            "role": "assistant",
            "content": "so",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"what":"x"}'}},
                {"id": "b", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "b", "content": "bee", "is_error": True},
        {
            "role": "tool",
            "tool_call_id": "a",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "user", "content": "and now?"},
    ]


async def test_pictures_and_documents() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    content = [
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "document", "source": pdf, "title": "a.pdf", "citations": {"enabled": False}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/b.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}, "context": "old"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}},
    ]
    fields, dropped = await read({"messages": [{"role": "user", "content": content}]})
    assert dropped == ("messages[0].content[3].context",)
    assert fields["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_url": "https://example.org/b.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,w6k="}},
    ]


async def test_what_a_provider_ran_by_itself_is_left_out_and_told() -> None:
    said = [
        {"type": "text", "text": "I searched."},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
    ]
    fields, dropped = await read({"messages": [*ASK["messages"], {"role": "assistant", "content": said}]})
    assert fields["messages"][1] == {"role": "assistant", "content": "I searched."}
    assert dropped == (
        "messages[1].content[1] (server_tool_use)",
        "messages[1].content[2] (web_search_tool_result)",
    )


async def test_options_and_tools() -> None:
    served = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    schema = {"type": "object", "properties": {}}
    fields, dropped = await read(
        {
            "tools": [{**TOOL, "strict": True, "defer_loading": True, "cache_control": {"type": "ephemeral"}}, served],
            "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
            "stop_sequences": ["END"],
            "top_k": 5,
            "metadata": {"user_id": "ann", "more": 1},
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": schema}},
            "service_tier": "standard_only",
            "stream": True,
            "shiny": 1,
        }
    )
    assert set(dropped) == {"tools[0].defer_loading", "metadata.more", "shiny"}
    function = {"name": "look", "parameters": TOOL["input_schema"], "strict": True}
    assert fields["tools"] == [
        {"type": "function", "function": function, "cache_control": {"type": "ephemeral"}},
        served,
    ]
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert fields["parallel_tool_calls"] is False
    assert (fields["stop"], fields["top_k"], fields["user"]) == (["END"], 5, "ann")
    assert fields["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert (fields["reasoning_effort"], fields["service_tier"]) == ("high", "default")
    assert fields["response_format"]["json_schema"]["schema"] == schema
    assert fields["max_tokens"] == 100
    for kind, chat in (("auto", "auto"), ("any", "required"), ("none", "none")):
        fields, _ = await read({"tools": [TOOL], "tool_choice": {"type": kind}})
        assert fields["tool_choice"] == chat


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
            "messages[0].content[0].type: 'hologram'",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}, "'image' in an answer"),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
            "'thinking' in a question",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, r"content\[0\].text"),
        ({"messages": [{"role": "judge", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: is missing"),
        ({"messages": []}, "at least one"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"system": 4}, "system"),
        ({"system": [{"type": "image"}]}, r"system\[0\]"),
        ({"tools": [{"name": "x"}]}, r"tools\[0\].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"output_format": {"type": "xml"}}, "output_format.type"),
        ({"metadata": {"user_id": 4}}, "metadata.user_id"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]}, "file_id"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(Refused, match=where.replace("[0].content[0].type: ", r"\[0\].content\[0\].type: ")) as refused:
        await read(wrong)
    assert refused.value.status == 400


async def test_a_conversation_comes_out_at_anthropic_s_end_as_it_went_in() -> None:
    """Face, pivot, driver: thinking, signed and redacted, results of tools with pictures, marks for the cache, in their order."""
    mark = {"type": "ephemeral", "ttl": "1h"}
    body: dict[str, Any] = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 4000,
        "system": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind", "cache_control": mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "text", "text": "well"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "xyz"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"what": "x"}},
                    {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}, "cache_control": mark},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "content": [
                            {"type": "text", "text": "no"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                        ],
                        "is_error": True,
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": [{"type": "text", "text": "yes"}],
                        "cache_control": mark,
                    },
                    {"type": "text", "text": "go on"},
                    {
                        "type": "document",
                        "title": "a",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                    },
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "first"},
                    {"type": "thinking", "thinking": "then", "signature": "c2lnMg=="},
                    {"type": "tool_use", "id": "toolu_3", "name": "look", "input": {"what": "z"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_3", "content": [{"type": "text", "text": "done"}]}
                ],
            },
        ],
        "tools": [{**TOOL, "description": "looks"}, {"type": "web_search_20250305", "name": "web_search"}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "metadata": {"user_id": "ann"},
        "service_tier": "standard_only",
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    }
    fields, dropped = await read(body)
    assert dropped == ()
    fields.pop("model")
    out, left = anthropic_messages.translate(fields, model=body["model"], max_tokens=100, signer="anthropic/x")
    assert left == []
    assert out == body


async def test_only_the_last_call_s_mark_for_the_cache_is_kept() -> None:
    mark = {"type": "ephemeral"}
    uses = [{"type": "tool_use", "id": str(i), "name": "look", "input": {}, "cache_control": mark} for i in range(2)]
    fields, dropped = await read({"messages": [*ASK["messages"], {"role": "assistant", "content": uses}]})
    assert fields["messages"][1]["cache_control"] == mark
    assert dropped == ("messages[1].content[0].cache_control",)


async def test_thinking_without_a_signature_is_text_alone() -> None:
    thought = [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "a"}]
    fields, _ = await read({"messages": [*ASK["messages"], {"role": "assistant", "content": thought}]})
    assert fields["messages"][1] == {"role": "assistant", "content": "a", "reasoning_content": "hm"}


# ------------------------------------------------------------------------------------------------------------ events


QUERY = Query(id="chatcmpl-" + "0" * 28, messages=(), route="auto")
NOTHING = Read(fields={}, kept=Kept())


def accumulated(stream: bytes) -> Message:
    """What the official client makes of a stream; each event passes its types, and blocks open and close in turn."""
    events = []
    for event in stream.decode().split("\n\n"):
        if event.startswith("event: "):
            name, _, data = event.removeprefix("event: ").partition("\ndata: ")
            events.append(json.loads(data))
            assert events[-1]["type"] == name
            EVENT.validate_python(events[-1])
    kinds = [e["type"] for e in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    here, n = None, -1
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert here is None
                n += 1
                here = event["content_block"]["type"]
            case "content_block_delta":
                of = {"text_delta": "text", "input_json_delta": "tool_use"}
                assert here == of.get(event["delta"]["type"], "thinking")
            case "content_block_stop":
                assert here is not None
                here = None
            case other:
                raise AssertionError(other)
        assert event["index"] == n
    assert here is None

    grown: Any = None
    inputs: dict[int, bytes] = {}
    for event in events:
        grown = accumulate_event(
            event=EVENT.validate_python(event),
            current_snapshot=grown,
            json_bufs=inputs,
            output_format=anthropic.NOT_GIVEN,
        )
    assert isinstance(grown, Message)
    return grown


def written(deltas: list[dict[str, Any]], *, finish: str = "stop", end: dict[str, Any] | None = None) -> bytes:
    chunks = wire.Chunks(id=QUERY.id, created=0, model="m")
    writer = Messages().writer(QUERY, NOTHING)
    out = [writer.feed(chunks.delta(delta)) for delta in deltas]
    out.append(writer.feed(chunks.delta({}, finish=finish)))
    return b"".join(out) + writer.close(Outcome(text="", model="m", tokens=Tokens(input=1, output=2)))


def whole(message: dict[str, Any], *, finish: str = "stop") -> dict[str, Any]:
    reply = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    outcome = Outcome(text="", model="m", tokens=Tokens(input=1, output=2), reply=msgspec.json.encode(reply))
    made: dict[str, Any] = json.loads(Messages().whole(outcome, QUERY, NOTHING))
    Message.model_validate(made)
    return made


def comparable(message: Any) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(message.model_dump_json() if isinstance(message, Message) else json.dumps(message))
    keep = ("type", "text", "thinking", "signature", "data", "id", "name", "input")
    out["content"] = [{k: b[k] for k in keep if k in b} for b in out["content"]]
    return {k: out[k] for k in ("id", "model", "role", "content", "stop_reason", "stop_sequence")}


pieces = st.lists(st.text(min_size=1, max_size=5), max_size=3)
values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4), st.lists, max_leaves=3)
inputs = st.dictionaries(st.text(max_size=4), values, max_size=2)
thoughts = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("thinking"),
            "thinking": st.text(max_size=6),
            "signature": st.text("ab", min_size=1, max_size=3),
        }
    )
    | st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": st.text("ab", min_size=1, max_size=3)}),
    max_size=2,
)


@given(st.data())
def test_any_chunks_make_events_that_add_up_to_the_whole_reply(data: st.DataObject) -> None:
    """Thinking, text, and tool calls whose pieces come in any order among themselves."""
    blocks, text, arguments = data.draw(thoughts), data.draw(pieces), data.draw(st.lists(inputs, max_size=3))
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for block in blocks:
        thought = block.get("thinking", "")
        cut = data.draw(st.integers(0, len(thought)))
        # Drivers hand a block's text out as it comes, or with the block.
        if data.draw(st.booleans()):
            deltas += [{"reasoning_content": part} for part in (thought[:cut], thought[cut:]) if part]
        deltas.append({"thinking_blocks": [block]})
    deltas += [{"content": piece} for piece in text]
    queues = []
    for i, input in enumerate(arguments):
        said = json.dumps(input)
        cut = data.draw(st.integers(0, len(said)))
        head = {"index": i, "id": f"call_{i}", "type": "function", "function": {"name": "look", "arguments": ""}}
        parts = [{"index": i, "function": {"arguments": part}} for part in (said[:cut], said[cut:])]
        queues.append([head, *parts])
    order = data.draw(st.permutations([i for i, q in enumerate(queues) for _ in q]))
    if data.draw(st.booleans()):
        order = sorted(order)
    first: dict[int, int] = {}
    for i in order:
        first.setdefault(i, len(first))
        deltas.append({"tool_calls": [queues[i].pop(0)]})
    calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": "look", "arguments": json.dumps(arguments[i])}}
        for i in sorted(first, key=lambda i: first[i])
    ]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text) or None}
    if blocks:
        message |= {"thinking_blocks": blocks, "reasoning_content": "".join(b.get("thinking", "") for b in blocks)}
    if calls:
        message["tool_calls"] = calls
    finish = "tool_calls" if calls else "stop"
    assert comparable(accumulated(written(deltas, finish=finish))) == comparable(whole(message, finish=finish))


def test_interleaved_tool_calls_are_written_one_after_the_other() -> None:
    def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **more, "function": {"arguments": arguments, **more}}]}

    deltas = [
        piece(0, "", id="a", name="one"),
        piece(1, "", id="b", name="two"),
        piece(0, '{"x": '),
        piece(1, '{"y"'),
        {"content": "meanwhile"},
        piece(0, "1}"),
        piece(1, ": 2}"),
    ]
    content = accumulated(written(deltas)).content
    assert [(b.type, getattr(b, "input", getattr(b, "text", None))) for b in content] == [
        ("tool_use", {"x": 1}),
        ("tool_use", {"y": 2}),
        ("text", "meanwhile"),
    ]


def test_calls_that_come_one_after_the_other_are_not_held_back() -> None:
    writer, chunks = Messages().writer(QUERY, NOTHING), wire.Chunks(id="q", created=0, model="m")
    for i in range(2):
        said = writer.feed(chunks.delta({"tool_calls": [{"index": i, **call(i, '{"a"')}]}))
        assert b"input_json_delta" in said
        said = writer.feed(chunks.delta({"tool_calls": [{"index": i, "function": {"arguments": ": 1}"}}]}))
        assert b"input_json_delta" in said


def test_arguments_that_are_no_object_become_one() -> None:
    for arguments, input in (("", {}), ("null", {}), ("7", {"arguments": "7"}), ("no", {"arguments": "no"})):
        calls = [{"index": 0, **call(1, arguments)}]
        streamed = accumulated(written([{"tool_calls": calls}])).content[0]
        assert getattr(streamed, "input", None) == input
        assert whole({"tool_calls": [call(1, arguments)]})["content"][0]["input"] == input


def test_a_refusal_and_thinking_that_nobody_signed() -> None:
    message = {"content": None, "refusal": "no", "reasoning_content": "hm"}
    deltas = [{"reasoning_content": "h"}, {"reasoning_content": "m"}, {"refusal": "n"}, {"refusal": "o"}]
    expected = comparable(whole(message))
    assert expected["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "no"},
    ]
    assert expected["stop_reason"] == "refusal"
    assert comparable(accumulated(written(deltas))) == expected


def test_a_stop_sequence_that_a_server_names() -> None:
    reply = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "END"}]}
    outcome = Outcome(text="a", model="m", reply=msgspec.json.encode(reply))
    for stops, expected in ((("END",), ("stop_sequence", "END")), ((), ("end_turn", None))):
        made = json.loads(Messages().whole(outcome, QUERY, Read(fields={}, kept=Kept(stops=stops))))
        assert (made["stop_reason"], made["stop_sequence"]) == expected


# ------------------------------------------------------------------------------------------------------------ counting


async def test_tokens_are_counted_or_estimated_and_it_is_said_which(tmp_path: Path) -> None:
    async with running(tmp_path) as run, run.client() as client:
        raw = await client.messages.with_raw_response.count_tokens(model="auto", messages=ASK["messages"])
        assert raw.headers["x-fairlead-tokens"] == "estimated"
        plain = (await raw.parse()).input_tokens
        assert plain == 4
        more = await client.messages.count_tokens(
            model="small", system="be brief", messages=ASK["messages"], tools=[TOOL]
        )
        assert more.input_tokens > plain + 4
        assert (await run.post({}, "/v1/messages/count_tokens"))[2]["error"]["type"] == "invalid_request_error"
        assert list(run.gateway.router.store.traces(limit=5)) == [], "counting asks nobody and keeps nothing"


async def test_tokens_are_counted_by_the_target_s_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = tmp_path / "tokenizer.json"
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "hi": 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.save(str(file))
    target = scripted("four", tokenizer=str(file), context_tokens=1000)
    async with running(tmp_path, target) as run, run.client() as client:
        for model in ("small", "auto"):
            raw = await client.messages.with_raw_response.count_tokens(
                model=model, messages=[{"role": "user", "content": "hi hi hi"}]
            )
            assert raw.headers["x-fairlead-tokens"] == "counted"
            assert (await raw.parse()).input_tokens == 3 + 4


async def test_models_are_listed_in_the_shape_of_who_asks(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        async with run.client() as client:
            listed = [model async for model in client.models.list()]
            assert [m.id for m in listed] == ["auto", "small"]
            assert {m.type for m in listed} == {"model"}
            page = await client.models.list(limit=1)
            assert [m.id async for m in page] == ["auto", "small"], "page after page"
            with pytest.raises(anthropic.BadRequestError, match="after_id"):
                await client.models.list(after_id="nobody")
        async with openai.AsyncOpenAI(base_url=f"{run.server.url}/v1", api_key="x") as theirs:
            assert [m.id async for m in theirs.models.list()] == ["auto", "small"]


async def test_a_client_that_leaves_stops_the_run(tmp_path: Path) -> None:
    reply = Reply(text="one two three four", word_seconds=0.05)
    async with running(tmp_path, scripted(reply)) as run, run.client() as client:
        async with client.messages.stream(**ASK) as stream:
            async for event in stream:
                if event.type == "text":
                    break
        for _ in range(100):
            traces = list(run.gateway.router.store.traces(limit=1))
            if traces:
                break
            await asyncio.sleep(0.02)
        assert traces[0].outcome.error is not None
        assert traces[0].outcome.error.kind == "client_gone"
