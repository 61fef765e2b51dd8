"""The Responses API over real sockets, with the official client: requests, replies, events, tools, and stored conversations."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from gateways import config as small
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.faces.base import Read, query_id, renamed
from fairlead.gateway.faces.responses import Responses
from fairlead.gateway.kept import TURNS, Body, Kept
from fairlead.gateway.refusal import Refused
from fairlead.gateway.server import Server
from fairlead.targets import wire
from fairlead.targets.openai_chat import StreamReader
from fairlead.targets.scripted import Reply
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.types import Failure, Outcome, Query, Tokens, new_id

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PRICED = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
CALL: dict[str, object] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"what": "x"}'},
}
TOOL: Any = {
    "type": "function",
    "name": "look",
    "strict": True,
    "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
}


class Running:
    def __init__(self, gateway: Gateway, server: Server, http: aiohttp.ClientSession) -> None:
        self.gateway, self.server, self.http = gateway, server, http

    def client(self, key: str = "unused", **more: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.server.url}/v1", api_key=key, max_retries=0, timeout=10, **more)

    async def post(self, body: Any, path: str = "/v1/responses") -> tuple[int, Any, Any]:
        async with self.http.post(path, json=body) as r:
            read = await r.read()
            return r.status, r.headers, json.loads(read) if "json" in r.content_type else read


def scripted(*replies: Reply | str, **more: Any) -> dict[str, Any]:
    return {"type": "scripted", "replies": msgspec.to_builtins(list(replies)), "profile": PRICED, **more}


@contextlib.asynccontextmanager
async def running(tmp_path: Path, target: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Running]:
    config = make(
        {
            "targets": {"small": target or scripted("four")},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "small"}}},
            "store": {"path": str(tmp_path / "store.sqlite"), **more.pop("store", {})},
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


def body_of(server: ScriptedServer, n: int = -1) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(server.requests[n].body)
    return body


def upstream(server: ScriptedServer) -> dict[str, Any]:
    return {"type": "openai_chat", "model": "theirs", "base_url": server.url, "profile": PRICED}


async def sent(tmp_path: Path, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What a target gets of a request, and what was left out of it."""
    async with ScriptedServer(replies=("ok",)) as server, running(tmp_path, upstream(server)) as run:
        status, headers, reply = await run.post({"model": "small", **body})
        assert status == 200, reply
        return body_of(server, 0), headers.get("x-fairlead-dropped", "")


# ------------------------------------------------------------------------------------------------------------ answers


async def test_a_whole_answer_with_the_official_client(tmp_path: Path) -> None:
    async with running(tmp_path) as run, run.client() as client:
        raw = await client.responses.with_raw_response.create(
            model="auto", input="what is 2+2?", metadata={"a": "b"}, temperature=0.5, tools=[TOOL]
        )
        reply = raw.parse()
        Response.model_validate(json.loads(raw.content))
        assert reply.output_text == "four"
        assert (reply.status, reply.model, reply.metadata, reply.temperature) == (
            "completed",
            "small",
            {"a": "b"},
            0.5,
        )
        assert reply.usage is not None
        assert reply.usage.output_tokens == 1
        assert reply.usage.total_tokens == reply.usage.input_tokens + 1
        assert query_id(reply.id) == raw.headers["x-fairlead-id"]
        assert abs(reply.created_at - time.time()) < 60
        # Feedback by either id, and the trace too.
        for id in (reply.id, query_id(reply.id)):
            status, _, receipt = await run.post({"id": id, "value": 1.0}, "/v1/feedback")
            assert (status, receipt["trace_id"]) == (200, query_id(reply.id))
        async with run.http.get(f"/v1/traces/{reply.id}") as r:
            assert r.status == 200


async def events_of(client: openai.AsyncOpenAI, **asked: Any) -> list[Any]:
    stream = await client.responses.create(stream=True, **{"model": "auto", "input": "hi", **asked})
    return [event async for event in stream]


def checked(events: list[Any]) -> Any:
    """Each event passes the official types; numbers rise by one; what the events add up to is the last one's response. Return that."""
    raw = [e if isinstance(e, dict) else e.model_dump(exclude_unset=True) for e in events]
    for event in raw:
        EVENT.validate_python(event, strict=False)
    assert [e["sequence_number"] for e in raw] == list(range(len(raw)))
    assert [e["type"] for e in raw[:2]] == ["response.created", "response.in_progress"]
    items: list[Any] = []
    done = set()
    for event in raw[2:-1]:
        kind = event["type"].removeprefix("response.")
        at: Any = event.get("output_index")
        known = at is not None and at < len(items)
        item: Any = items[at] if known else None
        if known:
            assert at not in done, f"{kind} after its item was done"
            assert event.get("item_id", item["id"]) == item["id"]
        match kind:
            case "output_item.added":
                assert at == len(items)
                items.append(json.loads(json.dumps(event["item"])))
            case "output_item.done":
                grown = {k: v for k, v in item.items() if k not in ("status", "encrypted_content")}
                assert grown == {k: v for k, v in event["item"].items() if k not in ("status", "encrypted_content")}
                items[at] = event["item"]
                done.add(at)
            case "content_part.added":
                assert event["content_index"] == len(item["content"])
                item["content"].append(json.loads(json.dumps(event["part"])))
            case "output_text.delta":
                item["content"][event["content_index"]]["text"] += event["delta"]
                item["content"][event["content_index"]]["logprobs"] += event["logprobs"]
            case "refusal.delta":
                item["content"][event["content_index"]]["refusal"] += event["delta"]
            case "output_text.annotation.added":
                item["content"][event["content_index"]]["annotations"].append(event["annotation"])
            case "output_text.done":
                assert event["text"] == item["content"][event["content_index"]]["text"]
            case "refusal.done":
                assert event["refusal"] == item["content"][event["content_index"]]["refusal"]
            case "content_part.done":
                assert event["part"] == item["content"][event["content_index"]]
            case "reasoning_summary_part.added":
                item["summary"].append(dict(event["part"]))
            case "reasoning_summary_text.delta":
                item["summary"][event["summary_index"]]["text"] += event["delta"]
            case "reasoning_summary_text.done":
                assert event["text"] == item["summary"][event["summary_index"]]["text"]
            case "reasoning_summary_part.done":
                assert event["part"] == item["summary"][event["summary_index"]]
            case "function_call_arguments.delta":
                item["arguments"] += event["delta"]
            case "function_call_arguments.done":
                assert event["arguments"] == item["arguments"]
            case "custom_tool_call_input.delta":
                item["input"] += event["delta"]
            case "custom_tool_call_input.done":
                assert event["input"] == item["input"]
            case other:
                raise AssertionError(other)
    assert done == set(range(len(items)))
    last = raw[-1]
    assert last["type"] == f"response.{last['response']['status']}"
    assert items == last["response"]["output"]
    return last["response"]


async def test_a_stream_with_the_official_client(tmp_path: Path) -> None:
    reply = Reply(text="one two three", tool_calls=(CALL,), finish="tool_calls")
    async with (
        ScriptedServer(replies=(reply,)) as server,
        running(tmp_path, upstream(server)) as run,
        run.client() as client,
    ):
        whole = checked(await events_of(client, tools=[TOOL]))
        message, call = whole["output"]
        assert message["content"][0]["text"] == "one two three"
        assert (call["call_id"], call["name"], call["arguments"]) == ("call_1", "look", '{"what": "x"}')
        assert whole["usage"]["output_tokens"] == 3
        async with client.responses.stream(model="auto", input="hi") as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
        assert final.output_text == "one two three"


async def test_an_answer_that_was_not_streamed_is_sent_as_events(tmp_path: Path) -> None:
    plan = {"kind": "vote", "members": ["small", "small", "small"]}
    routes = {"auto": {"policy": {"type": "fixed", "plan": plan}}}
    async with running(tmp_path, scripted("yes"), routes=routes) as run, run.client() as client:
        whole = checked(await events_of(client))
        assert whole["output"][0]["content"][0]["text"] == "yes"
        assert (await client.responses.retrieve(whole["id"])).output_text == "yes"


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_an_answer_that_is_not_whole(tmp_path: Path, finish: str, reason: str) -> None:
    async with running(tmp_path, scripted(Reply(text="one", finish=finish))) as run, run.client() as client:
        for made in (
            checked(await events_of(client)),
            (await client.responses.create(model="auto", input="hi")).model_dump(),
        ):
            assert (made["status"], made["incomplete_details"]["reason"]) == ("incomplete", reason)
            assert made["output"][0]["status"] == "incomplete"


async def test_a_broken_stream_ends_in_an_error_and_a_failed_response(tmp_path: Path) -> None:
    reply = Reply(text="one two three", cut_after_chunks=2)
    async with running(tmp_path, scripted(reply)) as run, run.client() as client:
        events = await events_of(client)
        assert [e.type for e in events[-2:]] == ["error", "response.failed"]
        for event in events:
            EVENT.validate_python(event.model_dump(exclude_unset=True))
        failed = events[-1].response
        assert failed.status == "failed"
        assert failed.error.code == "server_error"
        assert failed.output[0].content[0].text == "one two"
        assert [e.sequence_number for e in events] == list(range(len(events)))
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(failed.id)


async def test_a_failure_before_the_first_byte_has_its_status(tmp_path: Path) -> None:
    reply = Reply(error=Failure(kind="context_too_long", message="too long"))
    async with running(tmp_path, scripted(reply)) as run, run.client() as client:
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as e:
                await client.responses.create(model="small", input="hi", stream=stream)
            assert (e.value.status_code, e.value.code) == (400, "context_length_exceeded")


# ----------------------------------------------------------------------------------------------------------- requests


async def test_every_kind_of_item_becomes_a_message(tmp_path: Path) -> None:
    png = "data:image/png;base64,AAAA"
    body = {
        "instructions": "be brief",
        "input": [
            {"role": "developer", "content": "d"},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": png, "detail": "high"},
                    {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
                ],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "thinking:fl1:anthropic/m:sig",
            },
            {"role": "assistant", "content": [{"type": "output_text", "text": "I", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "free", "input": "go"},
            {"type": "function_call_output", "call_id": "c1", "output": "found"},
            {
                "type": "custom_tool_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": png}],
            },
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": "go on"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAA"},
        ],
    }
    face = Responses(kept=None, most_bytes=10**6)
    read = await face.read({k: msgspec.Raw(msgspec.json.encode(v)) for k, v in {"model": "m", **body}.items()})
    image = {"type": "image_url", "image_url": {"url": png}}
    assert msgspec.json.decode(read.fields["messages"]) == [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": "d"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": png, "detail": "high"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I",
            "reasoning_content": "hm",
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "fl1:anthropic/m:sig"}],
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                {"id": "c2", "type": "custom", "custom": {"name": "free", "input": "go"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "a"}, image]},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "go on"},
    ]
    assert read.dropped == ("input[10] (web_search_call)", "input[11].encrypted_content")


async def test_every_option_is_translated_or_told(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {}}
    body, dropped = await sent(
        tmp_path,
        {
            "input": "hi",
            "tools": [
                {**TOOL, "defer_loading": True},
                {
                    "type": "custom",
                    "name": "free",
                    "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"},
                },
                {"type": "web_search"},
                {"type": "mcp", "server_label": "x"},
            ],
            "tool_choice": {"type": "function", "name": "look"},
            "parallel_tool_calls": False,
            "text": {
                "format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True},
                "verbosity": "low",
            },
            "reasoning": {"effort": "low", "summary": "detailed"},
            "max_output_tokens": 99,
            "temperature": 0.1,
            "top_p": 0.9,
            "top_logprobs": 2,
            "include": ["reasoning.encrypted_content", "file_search_call.results"],
            "metadata": {"k": "v"},
            "truncation": "auto",
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "p",
            "service_tier": "flex",
            "max_tool_calls": 3,
            "seed": 4,
            "background": False,
        },
    )
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": schema, "strict": True},
    }
    function = {k: TOOL[k] for k in ("name", "parameters", "strict")}
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: A"}}
    assert body["tools"] == [
        {"type": "function", "function": function},
        {"type": "custom", "custom": {"name": "free", "format": grammar}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    wanted = {
        "reasoning_effort": "low",
        "verbosity": "low",
        "max_completion_tokens": 99,
        "temperature": 0.1,
        "top_p": 0.9,
        "logprobs": True,
        "top_logprobs": 2,
        "parallel_tool_calls": False,
    }
    assert {k: body.get(k) for k in wanted} == wanted
    assert not {"input", "instructions", "text", "reasoning", "store", "metadata", "include"} & set(body)
    assert dropped.split(", ")[:7] == [
        "max_tool_calls",
        "seed",
        "truncation",
        "tools[0].defer_loading",
        "tools[3] (mcp)",
        "reasoning.summary",
        "include[1] (file_search_call.results)",
    ]
    assert dropped.endswith("tools (web_search)")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_that_the_provider_would_run_is_left_out_and_told(tmp_path: Path, stream: bool) -> None:
    """With the choice that asks for it: a chat server that validates would refuse the request for either."""
    search = {"type": "web_search", "search_context_size": "low"}
    asked: dict[str, Any] = {"input": "hi", "tools": [search], "stream": stream}
    for choice, told in (
        ("auto", "tools (web_search), tool_choice"),
        ("required", "tools (web_search), tool_choice"),
        ({"type": "web_search"}, "tool_choice, tools (web_search)"),
    ):
        async with ScriptedServer(replies=("ok",)) as server, running(tmp_path, upstream(server)) as run:
            sent = {"model": "small", **asked, "tool_choice": choice}
            async with run.http.post("/v1/responses", json=sent) as reply:
                assert (reply.status, reply.headers["x-fairlead-dropped"]) == (200, told)
                await reply.read()
            assert not {"tools", "tool_choice"} & set(body_of(server, 0)), choice
    body, dropped = await sent_tools(tmp_path, [search, TOOL, {"type": "web_search_preview_2025_03_11"}])
    assert [tool["type"] for tool in body["tools"]] == ["function"]
    assert dropped == "tools (web_search), tools (web_search_preview_2025_03_11)"


async def sent_tools(tmp_path: Path, tools: list[Any]) -> tuple[dict[str, Any], str]:
    return await sent(tmp_path, {"input": "hi", "tools": tools})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"content": "x"}]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "x", "arguments": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0].id"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": "x", "max_output_tokens": "many"}, "max_output_tokens"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "x", "previous_response_id": "resp_nobody"}, "previous_response_id"),
        ({"input": "x", "store": "yes"}, "store"),
    ],
)
async def test_what_is_wrong_is_named(tmp_path: Path, body: dict[str, Any], param: str) -> None:
    async with running(tmp_path) as run:
        status, _, reply = await run.post({"model": "auto", **body})
        assert status in (400, 404), reply
        assert reply["error"]["param"] == param


# ------------------------------------------------------------------------------------------------------ conversations


async def test_a_loop_of_tools_over_three_turns(tmp_path: Path) -> None:
    """Each turn sends what is new only; the target gets all, in chat's order."""
    second: dict[str, object] = {"id": "call_2", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    replies = (
        Reply(text="let me see", tool_calls=(CALL,), finish="tool_calls"),
        Reply(text="", tool_calls=(second,), finish="tool_calls"),
        "done",
    )
    async with (
        ScriptedServer(replies=replies) as server,
        running(tmp_path, upstream(server)) as run,
        run.client() as client,
    ):
        first = await client.responses.create(model="auto", input="find x", instructions="be brief", tools=[TOOL])
        last = checked(
            await events_of(
                client,
                previous_response_id=first.id,
                tools=[TOOL],
                input=[{"type": "function_call_output", "call_id": "call_1", "output": "nothing"}],
            )
        )
        assert last["previous_response_id"] == first.id
        end = await client.responses.create(
            model="auto",
            previous_response_id=last["id"],
            input=[{"type": "function_call_output", "call_id": "call_2", "output": "x"}],
        )
        assert end.output_text == "done"
        messages = body_of(server)["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant", "tool"]
        assert messages[1]["content"] == "let me see"
        assert [m["tool_calls"][0]["id"] for m in messages if m.get("tool_calls")] == ["call_1", "call_2"]
        assert messages[2] == {"role": "tool", "tool_call_id": "call_1", "content": "nothing"}
        # A reference to an item of before stands for it.
        item = first.output[0].id
        assert item is not None
        made = await client.responses.create(model="auto", input=[{"type": "item_reference", "id": item}])
        referred = [{"role": "assistant", "content": "let me see"}]
        assert body_of(server)["messages"] == referred
        await client.responses.create(model="auto", input="go on", previous_response_id=made.id)
        assert body_of(server)["messages"][:1] == referred


async def test_kept_responses_are_read_listed_and_deleted(tmp_path: Path) -> None:
    async with running(tmp_path) as run, run.client() as client:
        made = await client.responses.create(
            model="auto", input=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        )
        assert (await client.responses.retrieve(made.id)).model_dump() == made.model_dump()
        page = await client.responses.input_items.list(made.id, order="asc", limit=1)
        (item,) = page.data
        assert item.content[0].text == "a"  # type: ignore[union-attr, index]
        assert page.has_more
        texts = [i.content[0].text async for i in client.responses.input_items.list(made.id)]  # type: ignore[union-attr, index]
        assert texts == ["b", "a"]
        await client.responses.delete(made.id)
        for ask in (
            client.responses.retrieve(made.id),
            client.responses.delete(made.id),
            client.responses.create(model="auto", input="x", previous_response_id=made.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await ask


async def test_tenants_do_not_see_each_others(tmp_path: Path) -> None:
    keys = {
        "ann": {"hash": hashed("key-a"), "tenant": "a"},
        "bob": {"hash": hashed("key-b"), "tenant": "b"},
        "op": {"hash": hashed("key-op")},
    }
    async with (
        running(tmp_path, gateway={"keys": keys}) as run,
        run.client("key-a") as ann,
        run.client("key-b") as bob,
        run.client("key-op") as op,
        run.client("key-op", default_headers={"x-fairlead-tenant": "b"}) as for_bob,
    ):
        made = await ann.responses.create(model="auto", input="secret")
        await ann.responses.create(model="auto", input="x", previous_response_id=made.id)
        await op.responses.create(model="auto", input="x", previous_response_id=made.id)
        item: Any = [{"type": "item_reference", "id": made.output[0].id}]
        for client in (bob, for_bob):
            for ask in (
                client.responses.create(model="auto", input="x", previous_response_id=made.id),
                client.responses.create(model="auto", input=item),
                client.responses.retrieve(made.id),
                client.responses.delete(made.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await ask
        assert (await ann.responses.retrieve(made.id)).id == made.id


async def test_a_restart_keeps_conversations(tmp_path: Path) -> None:
    async with running(tmp_path) as run, run.client() as client:
        made = await client.responses.create(model="auto", input="my name is Ann")
    async with (
        ScriptedServer(replies=("Ann",)) as server,
        running(tmp_path, upstream(server)) as run,
        run.client() as client,
    ):
        await client.responses.create(model="auto", input="what is it?", previous_response_id=made.id)
        texts = [m["content"] for m in body_of(server, 0)["messages"]]
        assert texts == ["my name is Ann", "four", "what is it?"]


async def test_what_is_not_to_be_kept_is_not(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        _, _, made = await run.post({"model": "auto", "input": "x", "store": False})
        assert made["store"] is False
        assert (await run.post({"model": "auto", "input": "x", "previous_response_id": made["id"]}))[0] == 404


async def test_a_store_without_text_keeps_no_conversation_and_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, store={"text": False}) as run:
        _, headers, made = await run.post({"model": "auto", "input": "x", "store": True})
        assert made["store"] is False
        assert "store" in headers["x-fairlead-dropped"].split(", ")
        status, _, reply = await run.post({"model": "auto", "input": "x", "previous_response_id": made["id"]})
        assert (status, reply["error"]["code"]) == (400, "store_keeps_no_text")
        async with run.http.get(f"/v1/responses/{made['id']}") as r:
            assert r.status == 404


async def test_what_was_masked_is_not_kept(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "actions": {"mask": {"type": "mask"}},
        "guards": [{"name": "all", "do": ["mask"]}],
    }
    async with running(tmp_path, **more) as run:
        for stream in (False, True):
            _, _, plain = await run.post({"model": "auto", "input": "hello"})
            assert plain["store"] is True
            _, _, made = await run.post({"model": "auto", "input": "mail bo@example.org", "stream": stream})
            if stream:
                made = json.loads(made.split(b"data: ")[-1])["response"]
            assert made["store"] is False
            rows = await run.gateway.router.store.fetch("SELECT id, body FROM responses_kept")
            assert made["id"] not in {id for id, _ in rows}
            assert not any("example.org" in body for _, body in rows)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_old_ones_go_and_long_ones_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, request: pytest.FixtureRequest
) -> None:
    import fairlead.gateway.kept as module

    where = {"path": str(tmp_path / "store.sqlite")}
    if database == "postgres":
        where = {"url": request.getfixturevalue("postgres_url"), "spool": str(tmp_path / "spool")}
    route = {"policy": {"type": "fixed", "plan": "small"}}
    gateway = Gateway.of(make({"targets": {"small": scripted("four")}, "routes": {"auto": route}, "store": where}))
    async with gateway:
        kept = gateway.responses.kept
        assert kept is not None

        async def put(id: str, previous: str | None = None) -> None:
            response = msgspec.Raw(msgspec.json.encode({"output": [{"id": f"o{id}"}]}))
            body = Body(input=[{"id": f"i{id}"}], response=response)
            await kept.put(id, body, tenant=None, key=None, route="auto", previous=previous)

        for n in range(5):
            await put(f"r{n}", f"r{n - 1}" if n else None)
        assert [t.id for t in await kept.chain("r4", size=10**6)] == ["r0", "r1", "r2", "r3", "r4"]
        assert len(await kept.chain("r4", size=1)) == 1
        monkeypatch.setattr(module, "TURNS", 3)
        assert [t.id for t in await kept.chain("r4", size=10**6)] == ["r2", "r3", "r4"]
        await kept.store.transact("age", lambda c: c.execute("UPDATE responses_kept SET at = 1.0 WHERE id < 'r2'"))
        kept.retention_seconds = 3600.0
        assert await kept.get("r1") is None
        await put("r5")
        rows = await kept.store.fetch("SELECT id FROM responses_kept ORDER BY id")
        assert [id for (id,) in rows] == ["r2", "r3", "r4", "r5"]
        assert await kept.forget(before=1e12) == 4
        assert TURNS > 3


async def test_a_conversation_with_a_part_deleted_is_not_gone_on_with(tmp_path: Path) -> None:
    async with running(tmp_path) as run, run.client() as client:
        first = await client.responses.create(model="auto", input="a")
        second = await client.responses.create(model="auto", input="b", previous_response_id=first.id)
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="auto", input="c", previous_response_id=second.id)


# ------------------------------------------------------------------------------------- whatever a driver may stream

words = st.text(max_size=4)
pieces = st.fixed_dictionaries(
    {"index": st.integers(0, 2)},
    optional={
        "id": st.sampled_from(["c1", "c2", ""]),
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["look", "", None]), "arguments": words}
        ),
    },
)
custom = st.fixed_dictionaries(
    {"index": st.just(7), "custom": st.fixed_dictionaries({"input": words}, optional={"name": st.just("free")})},
    optional={"id": st.just("c7"), "type": st.just("custom")},
)
blocks = st.one_of(
    st.tuples(words, words).map(lambda t: {"type": "thinking", "thinking": t[0], "signature": t[1]}),
    words.map(lambda w: {"type": "redacted_thinking", "data": w}),
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | words,
        "refusal": st.none() | words,
        "reasoning_content": words,
        "thinking_blocks": st.lists(blocks, max_size=2),
        "tool_calls": st.lists(pieces | custom, max_size=2),
        "annotations": st.just(
            [
                {
                    "type": "url_citation",
                    "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1},
                }
            ]
        ),
    },
)
tokens = st.lists(
    st.fixed_dictionaries({"token": words, "logprob": st.just(-0.5)}, optional={"bytes": st.none()}), max_size=2
)
choices = st.fixed_dictionaries(
    {"index": st.sampled_from([0, 0, 0, 1]), "delta": deltas},
    optional={
        "finish_reason": st.sampled_from([None, "stop", "length", "tool_calls", "content_filter"]),
        "logprobs": st.none() | st.fixed_dictionaries({"content": st.none() | tokens}),
    },
)
FACE = Responses(kept=None, most_bytes=10**6)


def asked() -> tuple[Query, Read]:
    fields = {"model": msgspec.Raw(b'"m"'), "input": msgspec.Raw(b'"hi"')}
    query = Query(id=new_id(), messages=(), route="m")
    return query, asyncio.run(FACE.read(fields))


def parsed(stream: bytes) -> list[dict[str, Any]]:
    out = []
    for event in stream.split(b"\n\n"):
        if event and not event.startswith(b":"):
            name, data = event.split(b"\n", 1)
            out.append(json.loads(data.removeprefix(b"data: ")))
            assert name == b"event: " + out[-1]["type"].encode()
    return out


@given(st.lists(choices, max_size=8))
def test_any_chunks_give_events_that_add_up_to_the_whole(made: list[dict[str, Any]]) -> None:
    query, read = asked()
    writer = FACE.writer(query, read)
    stream = b""
    for choice in made:
        chunk = {"id": query.id, "model": "m", "choices": [choice]}
        stream += writer.feed(b": a comment\n\ndata: " + json.dumps(chunk).encode() + b"\n\n")
    outcome = Outcome(model="m", tokens=Tokens(input=3, output=2))
    stream += writer.close(outcome)
    whole = checked(parsed(stream))
    # What is kept before the last bytes go out is what goes out.
    kept = json.loads(FACE.whole(outcome, query, read))
    assert {**kept, "completed_at": 0} == {**whole, "completed_at": 0}
    Response.model_validate(whole)


@given(
    st.lists(words, max_size=3),
    st.lists(words, max_size=3),
    st.lists(st.tuples(st.sampled_from(["look", "see"]), st.lists(words, max_size=3)), max_size=3),
    st.sampled_from(["stop", "length", "content_filter"]),
)
def test_a_streamed_answer_is_the_whole_one(
    thought: list[str], said: list[str], calls: list[tuple[str, list[str]]], finish: str
) -> None:
    """One answer, streamed in pieces and whole: the same items, as the driver's own reader sums them up too."""
    query, read = asked()
    chunk = wire.Chunks(id=query.id, created=0, model="m")
    events = [chunk.delta({"reasoning_content": piece}) for piece in thought]
    events += [chunk.delta({"content": piece}) for piece in said]
    for i, (name, pieces) in enumerate(calls):
        head = {"index": i, "id": f"c{i}", "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(chunk.delta({"tool_calls": [head]}))
        events += [chunk.delta({"tool_calls": [{"index": i, "function": {"arguments": p}}]}) for p in pieces]
    events.append(chunk.delta({}, finish=finish))
    reader = StreamReader(id=query.id, pass_usage=False)
    writer = FACE.writer(query, read)
    stream = b"".join(writer.feed(passed) for e in [*events, b"data: [DONE]\n\n"] if (passed := reader.feed(e)))
    outcome = reader.outcome()
    streamed = checked(parsed(stream + writer.close(outcome)))
    message = {
        "role": "assistant",
        "content": outcome.text,
        "reasoning_content": "".join(thought),
        "tool_calls": None if outcome.tool_calls is None else json.loads(bytes(outcome.tool_calls)),
    }
    reply = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "model": "m"}
    again = asked()[1]
    outcome = Outcome(model=outcome.model, reply=json.dumps(reply).encode())
    whole = json.loads(FACE.whole(outcome, query, again))
    assert whole["output"] == streamed["output"]
    assert whole["status"] == streamed["status"]


def test_signed_thinking_comes_back_as_it_went_out() -> None:
    query, read = asked()
    signed = [
        {"type": "thinking", "thinking": "one", "signature": "fl1:anthropic/m:s1"},
        {"type": "redacted_thinking", "data": "fl1:anthropic/m:d"},
        {"type": "thinking", "thinking": "", "signature": "fl1:anthropic/m:s2"},
    ]
    message = {"role": "assistant", "content": "hi", "reasoning_content": "one", "thinking_blocks": signed}
    reply = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    whole = json.loads(FACE.whole(Outcome(model="m", reply=reply), query, read))
    assert [i["type"] for i in whole["output"]] == ["reasoning", "reasoning", "reasoning", "message"]
    fields = {"model": msgspec.Raw(b'"m"'), "input": msgspec.Raw(json.dumps(whole["output"]).encode())}
    (back,) = msgspec.json.decode(asyncio.run(FACE.read(fields)).fields["messages"])
    assert back == message


def test_ids_lead_back() -> None:
    id = new_id()
    assert query_id(renamed(id, "resp_")) == query_id(id) == id
    assert query_id("anything") == "anything"


async def test_a_face_without_a_store_says_why() -> None:
    fields = {"input": msgspec.Raw(b'"x"'), "previous_response_id": msgspec.Raw(b'"resp_1"')}
    with pytest.raises(Refused, match=r"store\.text"):
        await FACE.read(fields)


async def test_upstream_bytes_that_break_off_in_the_middle(tmp_path: Path) -> None:
    """A real upstream that dies inside an event: what came stands, then the error."""
    head = (
        b'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"he"}}]}\n\n'
        b'data: {"id":"x","model":"m","choices":[{"index":0,"del'
    )
    async with (
        ScriptedServer(
            replies=(Bytes(pieces=(head,), headers={"Content-Type": "text/event-stream"}, cut=True),)
        ) as server,
        running(tmp_path, upstream(server)) as run,
        run.client() as client,
    ):
        events = await events_of(client)
        assert [e.type for e in events[-2:]] == ["error", "response.failed"]


def test_the_table_is_made_once(tmp_path: Path) -> None:
    gateway = Gateway.of(small(tmp_path))
    assert isinstance(gateway.responses.kept, Kept)
