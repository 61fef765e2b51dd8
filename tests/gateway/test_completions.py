"""Completions of text over real sockets, with the official client."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from gateways import Client, config, serving
from openai.types import Completion

from fairlead.gateway.faces.base import Read, query_id
from fairlead.gateway.faces.completions import Completions
from fairlead.gateway.refusal import Refused
from fairlead.targets import wire
from fairlead.targets.scripted import Reply
from fairlead.targets.scripted_server import ScriptedServer
from fairlead.types import Outcome, Query, Tokens

QUERY = Query(id="chatcmpl-" + "0" * 28, messages=(), route="auto")


@contextlib.asynccontextmanager
async def asking(tmp_path: Path, *replies: Reply | str) -> AsyncIterator[tuple[Client, openai.AsyncOpenAI]]:
    target = {"type": "scripted", "replies": msgspec.to_builtins(list(replies))}
    async with (
        serving(config(tmp_path, targets={"cheap": target}, admin_keys={})) as client,
        openai.AsyncOpenAI(base_url=f"{client.http._base_url}/v1", api_key="x", max_retries=0, timeout=10) as theirs,
    ):
        yield client, theirs


async def read(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request in the chat format, and what was left out."""
    fields = {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in {"model": "auto", "prompt": "hi", **body}.items()}
    made = await Completions().read(fields)
    return {k: msgspec.json.decode(v) for k, v in made.fields.items()}, made.dropped


async def test_a_whole_answer_with_the_official_client(tmp_path: Path) -> None:
    async with asking(tmp_path, Reply(text="four", tokens=Tokens(input=3, output=1))) as (client, theirs):
        raw = await theirs.completions.with_raw_response.create(model="auto", prompt="2+2=", echo=True)
        reply = raw.parse()
        Completion.model_validate(json.loads(raw.content))
        assert (reply.object, reply.model) == ("text_completion", "cheap")
        assert [(c.text, c.index, c.finish_reason) for c in reply.choices] == [("four", 0, "stop")]
        assert reply.usage is not None
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 1)
        assert raw.headers["x-fairlead-dropped"] == "echo"
        assert query_id(reply.id) == raw.headers["x-fairlead-id"]
        status, receipt, _ = await client.ask(None, "/v1/feedback", json={"id": reply.id, "value": 1.0})
        assert (status, receipt["trace_id"]) == (200, query_id(reply.id))


async def test_a_stream_with_the_official_client(tmp_path: Path) -> None:
    async with asking(tmp_path, "one two three") as (_, theirs):
        options: Any = {"include_usage": True}
        stream = await theirs.completions.create(model="auto", prompt=["count"], stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        assert {c.object for c in chunks} == {"text_completion"}
        assert "".join(c.choices[0].text for c in chunks if c.choices) == "one two three"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        assert len({c.id for c in chunks}) == 1
        stream = await theirs.completions.create(model="auto", prompt="count", stream=True)
        assert all([c.usage is None async for c in stream])


async def test_a_broken_stream_and_a_failure(tmp_path: Path) -> None:
    async with asking(tmp_path, Reply(text="one two", cut_after_chunks=1)) as (_, theirs):
        with pytest.raises(openai.APIError, match="cut, as scripted"):
            [c async for c in await theirs.completions.create(model="auto", prompt="x", stream=True)]
        with pytest.raises(openai.APIStatusError, match="broke off"):
            await theirs.completions.create(model="auto", prompt="x")


async def test_what_a_target_gets(tmp_path: Path) -> None:
    async with ScriptedServer(replies=("ok",)) as server:
        target = {"type": "openai_chat", "model": "theirs", "base_url": server.url}
        async with serving(config(tmp_path, targets={"cheap": target}, admin_keys={})) as client:
            body = {"model": "auto", "prompt": "go on", "max_tokens": 5, "seed": 1, "logprobs": 2, "n": 1, "best_of": 1}
            status, _, headers = await client.ask(None, "/v1/completions", json=body)
            assert status == 200
            assert "x-fairlead-dropped" not in headers
            sent = json.loads(server.requests[0].body)
            assert sent["messages"] == [{"role": "user", "content": "go on"}]
            assert (sent["max_tokens"], sent["seed"], sent["logprobs"], sent["top_logprobs"]) == (5, 1, True, 2)
            assert not {"prompt", "best_of"} & set(sent)


async def test_what_chat_has_no_place_for_is_told() -> None:
    fields, dropped = await read(
        {"suffix": "end", "echo": True, "best_of": 3, "messages": [], "tools": [], "logprobs": None, "user": "ann"}
    )
    assert set(dropped) == {"suffix", "echo", "best_of", "messages", "tools"}
    assert fields == {"model": "auto", "user": "ann", "messages": [{"role": "user", "content": "hi"}]}
    assert (await read({"suffix": None, "echo": False, "best_of": 2, "n": 2}))[1] == ()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"prompt": ["a", "b"]}, "2 texts; send one"),
        ({"prompt": []}, "0 texts"),
        ({"prompt": [1, 2]}, "token numbers"),
        ({"prompt": [[1], [2]]}, "token numbers"),
        ({"prompt": 5}, "prompt: expected"),
        ({"logprobs": "many"}, "logprobs: expected"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(body: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        await read(body)
    assert refused.value.status == 400


async def test_a_prompt_is_needed(tmp_path: Path) -> None:
    async with asking(tmp_path, "x") as (client, _):
        status, body, _ = await client.ask(None, "/v1/completions", json={"model": "auto"})
        assert (status, body["error"]["param"]) == (400, "prompt")


def test_log_probabilities_have_the_old_shape_whole_and_streamed() -> None:
    tokens = [wire.token_logprob("he", -0.1, [("he", -0.1), ("x", -3.0)]), wire.token_logprob("llo", -0.2)]
    choice = wire.Choice(text="hello", logprobs=tuple(tokens))
    reply = wire.completions([choice], id=QUERY.id, created=1, model="m", tokens=None)
    outcome = Outcome(text="hello", model="m", reply=reply)
    made = json.loads(Completions().whole(outcome, QUERY, Read(fields={})))
    Completion.model_validate(made)
    assert made["choices"][0]["logprobs"] == {
        "tokens": ["he", "llo"],
        "token_logprobs": [-0.1, -0.2],
        "top_logprobs": [{"he": -0.1, "x": -3.0}, {}],
        "text_offset": [0, 2],
    }
    writer, chunks = Completions().writer(QUERY, Read(fields={})), wire.Chunks(id=QUERY.id, created=1, model="m")
    offsets, text = [], ""
    for token in tokens:
        event = writer.feed(chunks.delta({"content": token["token"]}, logprobs={"content": [token]}))
        piece = json.loads(event.removeprefix(b"data: "))["choices"][0]
        offsets += piece["logprobs"]["text_offset"]
        text += piece["text"]
    assert (offsets, text) == ([0, 2], "hello")


def test_thinking_and_roles_are_no_text() -> None:
    writer, chunks = Completions().writer(QUERY, Read(fields={})), wire.Chunks(id=QUERY.id, created=1, model="m")
    assert writer.feed(chunks.delta({"role": "assistant", "content": ""})) == b""
    assert writer.feed(chunks.delta({"reasoning_content": "hm"})) == b""
    assert writer.feed(b": a comment\n\n") == b": a comment\n\n"
