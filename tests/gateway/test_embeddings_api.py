"""Vectors over real sockets, with the official client: a local target, an upstream, fallbacks, guards."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest

from fairlead.config import make
from fairlead.embeddings.hashing import Hashing
from fairlead.gateway.app import Gateway
from fairlead.gateway.server import Server
from fairlead.targets.scripted_server import Bytes, ScriptedServer

VECTORS = {"tasks": ["embeddings"], "input_usd_per_mtok": 2.0}


class Running:
    def __init__(self, gateway: Gateway, client: openai.AsyncOpenAI, http: aiohttp.ClientSession) -> None:
        self.gateway, self.client, self.http = gateway, client, http

    async def post(self, body: Any) -> tuple[int, Any, Any]:
        async with self.http.post("/v1/embeddings", json=body) as r:
            return r.status, r.headers, await r.json()


@contextlib.asynccontextmanager
async def running(tmp_path: Path, targets: dict[str, Any], **more: Any) -> AsyncIterator[Running]:
    config = make(
        {
            "targets": targets,
            "routes": {"auto": {"policy": {"type": "fixed", "plan": next(iter(targets))}}},
            "store": {"path": str(tmp_path / "store.sqlite")},
            "gateway": {"port": 0},
            **more,
        }
    )
    async with (
        Gateway.of(config) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=10) as client,
        aiohttp.ClientSession(server.url) as http,
    ):
        yield Running(app, client, http)


LOCAL: dict[str, Any] = {"vectors": {"type": "embedder"}}


def reply(*vectors: list[float], tokens: int = 7) -> Bytes:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = json.dumps({"object": "list", "data": data, "model": "theirs", "usage": usage}).encode()
    return Bytes(pieces=(body,), headers={"Content-Type": "application/json"})


def upstream(server: ScriptedServer, **profile: Any) -> dict[str, Any]:
    return {
        "type": "openai_chat",
        "model": "theirs",
        "base_url": server.url,
        "profile": {**VECTORS, **profile},
    }


async def test_vectors_with_no_key_and_no_server(tmp_path: Path) -> None:
    """The official client asks for base64 unless told otherwise: the numbers are the same."""
    async with running(tmp_path, LOCAL) as run:
        texts = ["hello there", "something else", ""]
        made = await run.client.embeddings.create(model="auto", input=texts)
        plain = await run.client.embeddings.create(model="vectors", input=texts, encoding_format="float")
        for i, text in enumerate(texts):
            wanted = Hashing().embed(text)
            np.testing.assert_array_equal(np.asarray(made.data[i].embedding, np.float32), wanted)
            np.testing.assert_array_equal(np.asarray(plain.data[i].embedding, np.float32), wanted)
        assert [v.index for v in made.data] == [0, 1, 2]
        assert (made.object, made.model) == ("list", "vectors")
        assert made.usage.prompt_tokens == made.usage.total_tokens > 0
        trace = next(iter(run.gateway.router.store.traces(newest_first=True)))
        assert (trace.query.task, trace.query.api, trace.usd) == ("embeddings", "embeddings", 0.0)
        assert trace.outcome.reply == b""
        models = [m.id async for m in await run.client.models.list()]
        assert models == ["auto", "vectors"]


async def test_an_upstream_gets_the_request_as_it_came(tmp_path: Path) -> None:
    raw = base64.b64encode(np.asarray([0.5, 0.25], "<f4").tobytes()).decode()
    answer = reply(raw)  # type: ignore[arg-type]
    async with ScriptedServer(replies=(answer,)) as server, running(tmp_path, {"far": upstream(server)}) as run:
        made = await run.client.embeddings.create(model="auto", input="hi", dimensions=2, user="ann")
        assert made.data[0].embedding == [0.5, 0.25]
        (sent,) = server.requests
        assert sent.path.endswith("/embeddings")
        assert sent.json == {
            "model": "theirs",
            "input": "hi",
            "dimensions": 2,
            "user": "ann",
            "encoding_format": "base64",
        }
        (trace,) = run.gateway.router.store.traces()
        assert trace.outcome.tokens is not None
        assert (trace.outcome.tokens.input, trace.outcome.tokens.output) == (7, 0)
        assert trace.usd == pytest.approx(14e-6)
        assert trace.query.identity.user == "ann"


@pytest.mark.parametrize("numbers", [[1, 2, 3], [[1, 2], [3]]])
async def test_token_numbers_are_forwarded_and_not_read(tmp_path: Path, numbers: Any) -> None:
    count = 1 if isinstance(numbers[0], int) else len(numbers)
    async with (
        ScriptedServer(replies=(reply(*[[1.0]] * count),)) as server,
        running(tmp_path, {"far": upstream(server), **LOCAL}) as run,
    ):
        await run.client.embeddings.create(model="far", input=numbers, encoding_format="float")
        assert server.requests[0].json["input"] == numbers
        (trace,) = run.gateway.router.store.traces()
        assert trace.query.text == ""
        with pytest.raises(openai.BadRequestError, match="token numbers"):
            await run.client.embeddings.create(model="vectors", input=numbers)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": "2"}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_what_is_wrong_is_named(tmp_path: Path, body: dict[str, Any], param: str) -> None:
    async with running(tmp_path, LOCAL) as run:
        status, _, error = await run.post({"model": "auto", **body})
        assert (status, error["error"]["param"]) == (400, param)


async def test_other_dimensions_than_it_has_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL) as run:
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            await run.client.embeddings.create(model="auto", input="a", dimensions=3)


async def test_who_gives_no_vectors_is_not_asked_and_who_gives_them_does_not_chat(tmp_path: Path) -> None:
    chat = {"type": "scripted", "replies": ["text"]}
    async with running(tmp_path, {"chat": chat, **LOCAL}) as run:
        status, _, error = await run.post({"model": "chat", "input": "a"})
        assert (status, error["error"]["code"]) == (503, "no_eligible_target")
        assert "does no embeddings" in error["error"]["message"]
        with pytest.raises(openai.APIStatusError, match="does no chat"):
            await run.client.chat.completions.create(model="vectors", messages=[{"role": "user", "content": "a"}])


async def test_text_in_place_of_vectors_is_an_error(tmp_path: Path) -> None:
    """A target whose profile says what it cannot do."""
    async with running(tmp_path, {"liar": {"type": "scripted", "profile": VECTORS}}) as run:
        status, _, error = await run.post({"model": "liar", "input": "a"})
        assert (status, error["error"]["code"]) == (500, "no_vectors")


@pytest.mark.parametrize("space", [None, "s"])
async def test_nobody_takes_over_but_from_the_same_space(tmp_path: Path, space: str | None) -> None:
    down = Bytes(pieces=(b"{}",), status=503)
    said = {} if space is None else {"space": space}
    async with (
        ScriptedServer(replies=(down,)) as first,
        ScriptedServer(replies=(reply([1.0]),)) as same,
        ScriptedServer(replies=(reply([9.0]),)) as other,
    ):
        targets = {
            "first": upstream(first, **said),
            "other": upstream(other, space="t"),
            "same": upstream(same, **said),
        }
        async with running(tmp_path, targets) as run:
            status, headers, body = await run.post({"model": "auto", "input": "a"})
            assert not other.requests
            if space is None:
                assert status == 503
                assert not same.requests
            else:
                assert (status, headers["x-fairlead-target"]) == (200, "same")
                assert body["data"][0]["embedding"] == [1.0]


@pytest.mark.parametrize("body", [b"{}", b'{"data": []}', b"no json", b'{"data": [{"x": 1}]}'])
async def test_a_reply_without_the_vectors_is_malformed(tmp_path: Path, body: bytes) -> None:
    answer = Bytes(pieces=(body,), headers={"Content-Type": "application/json"})
    async with ScriptedServer(replies=(answer,)) as server, running(tmp_path, {"far": upstream(server)}) as run:
        status, _, error = await run.post({"model": "auto", "input": "a"})
        assert (status, error["error"]["code"]) == (502, "malformed_reply")


async def test_texts_are_masked_before_they_leave(tmp_path: Path) -> None:
    more: dict[str, Any] = {"actions": {"mask": {"type": "mask"}}, "guards": [{"name": "all", "do": ["mask"]}]}
    async with (
        ScriptedServer(replies=(reply([1.0], [2.0]),)) as server,
        running(tmp_path, {"far": upstream(server)}, **more) as run,
    ):
        status, _, _ = await run.post({"model": "auto", "input": ["mail bo@example.org", "nothing"]})
        assert status == 200
        assert server.requests[0].json["input"] == ["mail [EMAIL_1]", "nothing"]
        (trace,) = run.gateway.router.store.traces()
        assert trace.query.messages[0].text == "mail [EMAIL_1]"


async def test_many_texts_are_not_one_long_one(tmp_path: Path) -> None:
    """A context is of one text; a budget of all."""
    async with (
        ScriptedServer(replies=(reply(*[[1.0]] * 100),)) as server,
        running(tmp_path, {"far": upstream(server, context_tokens=50)}) as run,
    ):
        texts = ["some words of a text"] * 100
        assert (await run.post({"model": "auto", "input": texts}))[0] == 200
        wishes = {"max_usd": 1e-6}
        assert (await run.post({"model": "auto", "input": texts, "fairlead": wishes}))[0] == 402


async def test_a_stream_of_vectors_is_told_and_given_whole(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL) as run:
        status, headers, body = await run.post({"model": "auto", "input": "a", "stream": True})
        assert status == 200
        assert headers["x-fairlead-dropped"] == "stream"
        assert len(body["data"]) == 1
