"""The chat endpoint over real sockets: the official client, raw streams, failures, disconnects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.edge import clean, usd
from fairlead.gateway.figures import busy
from fairlead.gateway.server import Server
from fairlead.targets.scripted import Reply
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.types import Call, Decision, Failure, Identity, Outcome, Query, Signals, Step, Trace

SECRET = "very-secret-upstream-key-93751"
PRICED = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
ASK: Any = [{"role": "user", "content": "what is 2+2?"}]


class Running:
    """A gateway on a socket, and its official client."""

    def __init__(
        self, gateway: Gateway, server: Server, client: openai.AsyncOpenAI, http: aiohttp.ClientSession
    ) -> None:
        self.gateway, self.server, self.client, self.http = gateway, server, client, http

    async def post(self, body: Any, path: str = "/v1/chat/completions", **kw: Any) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with self.http.post(path, data=data, **kw) as r:
            read = await r.read()
            return r.status, r.headers, msgspec.json.decode(read) if "json" in r.content_type else read

    async def traces(self) -> list[Trace]:
        return await asyncio.to_thread(lambda: list(self.gateway.router.store.traces()))


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @contextlib.asynccontextmanager
    async def run(targets: dict[str, Any], *, key: str = "unused", **more: Any) -> AsyncIterator[Running]:
        gateway = {"port": 0, **more.pop("gateway", {})}
        policy = more.pop("policy", {"type": "fixed", "plan": next(iter(targets))})
        config = make(
            {
                "targets": targets,
                "routes": {"auto": {"policy": policy}},
                "store": {"path": str(tmp_path / "store.sqlite")},
                "gateway": gateway,
                **more,
            }
        )
        async with (
            Gateway.of(config) as app,
            Server(app, host="127.0.0.1", port=0) as server,
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=10) as client,
            aiohttp.ClientSession(server.url) as http,
        ):
            yield Running(app, server, client, http)

    return run


def scripted(*replies: Reply | str, **more: Any) -> dict[str, Any]:
    return {"type": "scripted", "replies": msgspec.to_builtins(list(replies)), "profile": PRICED, **more}


def upstream(server: ScriptedServer, **more: Any) -> dict[str, Any]:
    return {"type": "openai_chat", "model": "theirs", "base_url": server.url, "profile": PRICED, **more}


# ------------------------------------------------------------------------------------------------------------ answers


async def test_chat_with_the_official_client(start: Start) -> None:
    async with start({"small": scripted("four")}) as run:
        raw = await run.client.chat.completions.with_raw_response.create(model="auto", messages=ASK)
        reply = raw.parse()
        assert reply.choices[0].message.content == "four"
        assert reply.model == "small"
        (trace,) = await run.traces()
        assert raw.headers["x-fairlead-id"] == reply.id == trace.id
        assert raw.headers["x-fairlead-target"] == "small"
        assert raw.headers["x-fairlead-policy"] == "fixed"
        assert float(raw.headers["x-fairlead-propensity"]) == 1.0
        assert float(raw.headers["x-fairlead-cost-usd"]) == pytest.approx(trace.usd)
        assert float(raw.headers["x-fairlead-overhead-ms"]) > 0.0
        assert "x-fairlead-fallbacks" not in raw.headers


async def test_stream_with_usage(start: Start) -> None:
    async with start({"small": scripted("one two three")}) as run:
        stream = await run.client.chat.completions.create(
            model="fairlead/auto", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [c async for c in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3
        (trace,) = await run.traces()
        assert trace.outcome.streamed
        assert {c.id for c in chunks} == {trace.id}


async def test_stream_bytes(start: Start) -> None:
    """Headers of the decision come with the first byte, the spend before [DONE], and [DONE] when the trace is kept."""
    async with start({"small": scripted("one two")}) as run:
        body = {"model": "small", "messages": ASK, "stream": True}
        async with run.http.post("/v1/chat/completions", json=body) as r:
            assert r.status == 200
            assert r.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert r.headers["x-fairlead-target"] == "small"
            assert "x-fairlead-cost-usd" not in r.headers
            text = await r.read()
            assert await run.gateway.router.store.get(r.headers["x-fairlead-id"]) is not None
        assert text.endswith(b"data: [DONE]\n\n")
        assert text.count(b"\n: x-fairlead-cost-usd 0.0000") == 1


async def test_an_answer_that_was_not_streamed_is_sent_as_a_stream(start: Start) -> None:
    plan = {"kind": "vote", "members": ["a", "b", "c"]}
    targets = {"a": scripted("yes"), "b": scripted("no"), "c": scripted("no")}
    async with start(targets, policy={"type": "fixed", "plan": plan}) as run:
        stream = await run.client.chat.completions.create(model="auto", messages=ASK, stream=True)
        chunks = [c async for c in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "no"
        _, headers, _ = await run.post({"model": "auto", "messages": ASK})
        assert headers["x-fairlead-target"] == "b"


async def test_unknown_fields_reach_the_upstream_untouched(start: Start) -> None:
    async with ScriptedServer(replies=("ok",)) as theirs, start({"t": upstream(theirs)}) as run:
        odd = b'{"deep": [1.50, 1e3, "\\u00e9", {"a":null}],   "kept" : true}'
        body = (
            b'{"model": "auto", "messages": [{"role": "user", "content": "hi", "odd": '
            + odd
            + b'}], "new_field": '
            + odd
        )
        status, _, reply = await run.post(body + b', "fairlead": {"max_usd": 1, "session": "s1"}}')
        assert status == 200
        assert reply["choices"][0]["message"]["content"] == "ok"
        sent = msgspec.json.decode(theirs.requests[0].body, type=dict[str, msgspec.Raw])
        assert bytes(sent["new_field"]) == odd
        assert odd in bytes(sent["messages"])
        assert "fairlead" not in sent
        assert bytes(sent["model"]) == b'"theirs"'
        (trace,) = await run.traces()
        assert trace.query.identity.session == "s1"
        assert trace.query.constraints.max_usd == 1.0


async def test_wishes_in_headers(start: Start) -> None:
    async with start({"a": scripted("A"), "b": scripted("B")}, policy={"type": "random"}) as run:
        headers = {
            "x-fairlead-allow": "b",
            "x-fairlead-tenant": "acme",
            "x-fairlead-step": "3",
            "x-fairlead-deadline-seconds": "5",
        }
        for _ in range(4):
            status, got, _ = await run.post({"model": "auto", "messages": ASK, "user": "u"}, headers=headers)
            assert (status, got["x-fairlead-target"]) == (200, "b")
        trace = (await run.traces())[0]
        assert (trace.query.identity.tenant, trace.query.identity.user, trace.query.identity.step) == ("acme", "u", 3)
        assert trace.query.constraints.deadline_seconds == 5.0
        assert trace.decision.excluded == {"a": "not among the allowed targets"}


async def test_fallback_before_the_first_byte(start: Start) -> None:
    down = scripted(Reply(error=Failure(kind="unavailable", message="down")))
    async with start({"down": down, "up": scripted("here")}) as run:
        for stream in (False, True):
            body = {"model": "auto", "messages": ASK, "stream": stream}
            async with run.http.post("/v1/chat/completions", json=body) as r:
                assert r.status == 200
                assert r.headers["x-fairlead-target"] == "up"
                assert r.headers["x-fairlead-fallbacks"] == "1"
                assert b"here" in await r.read()
        assert [s.outcome.target for s in (await run.traces())[0].steps] == ["down", "up"]


# ------------------------------------------------------------------------------------------------------------ headers


def test_header_values() -> None:
    assert clean("a\r\nset-cookie: x=1") == b"a%0D%0Aset-cookie: x=1"
    assert clean("模型").isascii()
    assert [usd(x) for x in (0.0, 1e-7, 0.0000123, 2.5, 100.0)] == [b"0", b"0.0000001", b"0.0000123", b"2.5", b"100"]


def test_busy_time_counts_side_by_side_calls_once() -> None:
    def step(start: float, seconds: float) -> Step:
        return Step(path=(0, 0), call=Call(target="t"), outcome=Outcome(seconds=seconds), start_seconds=start)

    def took(*steps: Step) -> float:
        trace = Trace(
            id="x",
            at=0.0,
            query=Query(id="x", messages=()),
            signals=Signals(),
            decision=Decision(options=(), chosen=0, propensity=1.0),
            steps=steps,
            outcome=Outcome(),
        )
        return busy(trace)

    assert took() == 0.0
    assert took(step(0.0, 2.0)) == 2.0
    assert took(step(0.0, 2.0), step(1.0, 2.0), step(5.0, 1.0)) == 4.0


async def test_an_asgi_server_may_open_and_close_it(tmp_path: Path) -> None:
    """The lifespan events do what ``async with`` does."""
    config = make({"targets": {"t": scripted("x")}, "routes": {}, "store": {"path": str(tmp_path / "s.sqlite")}})
    gateway = Gateway.of(config)
    waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task = asyncio.ensure_future(gateway({"type": "lifespan", "state": {}}, waiting.get, sent.put))
    await waiting.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    assert gateway.opened
    await waiting.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await task
    assert not gateway.opened


# ------------------------------------------------------------------------------------------------------------ failures


KINDS: dict[str, tuple[type[openai.APIStatusError], int, str]] = {
    "rate_limited": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "bad_request": (openai.BadRequestError, 400, "bad_request"),
    "context_too_long": (openai.BadRequestError, 400, "context_length_exceeded"),
    "auth": (openai.InternalServerError, 502, "upstream_auth"),
    "not_found": (openai.InternalServerError, 502, "upstream_not_found"),
    "unavailable": (openai.InternalServerError, 503, "upstream_unavailable"),
    "malformed": (openai.InternalServerError, 502, "malformed_reply"),
    "internal": (openai.InternalServerError, 500, "internal_error"),
    "timeout": (openai.InternalServerError, 504, "upstream_timeout"),
}


@pytest.mark.parametrize("stream", [False, True])
async def test_failures_have_their_class_and_status(start: Start, stream: bool) -> None:
    failing: Any = {
        kind: scripted(Reply(error=Failure(kind=kind, message="as scripted", retry_after_seconds=0.2)))  # type: ignore[arg-type]
        for kind in KINDS
    }
    async with start(failing) as run:
        for kind, (error, status, code) in KINDS.items():
            with pytest.raises(error) as caught:
                await run.client.chat.completions.create(model=kind, messages=ASK, stream=stream)
            assert caught.value.status_code == status
            assert caught.value.code == code
            assert caught.value.response.headers["retry-after"] == "1"
            assert "x-fairlead-id" in caught.value.response.headers
        assert [t.outcome.error and t.outcome.error.kind for t in await run.traces()] == list(KINDS)


async def test_unavailable_is_503_only_if_the_target_says_so(start: Start) -> None:
    replies = [Reply(error=Failure(kind="unavailable")), Reply(error=Failure(kind="unavailable", status=503))]
    async with start({"t": scripted(*replies)}) as run:
        assert [(await run.post({"model": "t", "messages": ASK}))[0] for _ in replies] == [502, 503]


async def test_timeouts(start: Start) -> None:
    async with start({"slow": scripted(Reply(hang=True), timeout_seconds=0.05)}) as run:
        status, _, reply = await run.post({"model": "slow", "messages": ASK})
        assert (status, reply["error"]["code"]) == (504, "upstream_timeout")
        status, _, reply = await run.post({"model": "slow", "messages": ASK, "fairlead": {"deadline_seconds": 0.01}})
        assert (status, reply["error"]["code"]) == (504, "deadline_exceeded")


async def test_a_client_that_runs_out_of_patience(start: Start) -> None:
    async with start({"slow": scripted(Reply(hang=True), timeout_seconds=30.0)}) as run:
        with pytest.raises(openai.APITimeoutError):
            await run.client.with_options(timeout=0.2).chat.completions.create(model="slow", messages=ASK)
        async with asyncio.timeout(5):
            while not (traces := await run.traces()):
                await asyncio.sleep(0.01)
        assert traces[0].outcome.cancelled
        assert traces[0].steps[0].outcome.cancelled


async def test_budget(start: Start) -> None:
    async with start({"t": scripted("x")}) as run:
        status, headers, reply = await run.post({"model": "t", "messages": ASK, "fairlead": {"max_usd": 1e-9}})
        assert (status, reply["error"]["code"]) == (402, "budget_exceeded")
        assert headers["x-should-retry"] == "false"


async def test_nobody_is_eligible(start: Start) -> None:
    target = scripted("x")
    target["profile"] = {**PRICED, "context_tokens": 10}
    async with start({"t": target}) as run:
        long = [{"role": "user", "content": "word " * 100}]
        status, headers, reply = await run.post({"model": "auto", "messages": long})
        assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
        assert "do not fit its context" in reply["error"]["message"]
        assert "retry-after" not in headers


async def test_a_resting_target_says_when_to_come_back(start: Start) -> None:
    failing = scripted(Reply(error=Failure(kind="rate_limited", retry_after_seconds=30)))
    async with start({"t": failing}) as run:
        assert (await run.post({"model": "auto", "messages": ASK}))[0] == 429
        status, headers, reply = await run.post({"model": "auto", "messages": ASK})
        assert (status, reply["error"]["code"]) == (503, "no_eligible_target")
        assert 28 <= int(headers["retry-after"]) <= 30
        async with run.http.get("/readyz") as r:
            assert r.status == 503


async def test_a_broken_stream_ends_with_an_error_event_and_without_done(start: Start) -> None:
    async with start({"t": scripted(Reply(text="one two three four", cut_after_chunks=2)), "u": scripted("no")}) as run:
        async with run.http.post("/v1/chat/completions", json={"model": "auto", "messages": ASK, "stream": True}) as r:
            assert r.status == 200
            text = await r.read()
        last = text.rstrip().rpartition(b"\n\n")[2]
        assert msgspec.json.decode(last.removeprefix(b"data: "))["error"]["code"] == "broken_stream"
        assert b"[DONE]" not in text
        with pytest.raises(openai.APIError):
            async for _ in await run.client.chat.completions.create(model="auto", messages=ASK, stream=True):
                pass
        for trace in await run.traces():
            assert trace.outcome.error is not None
            assert trace.outcome.error.kind == "broken_stream"


async def test_an_upstream_that_cuts_its_stream(start: Start) -> None:
    pieces = (b'data: {"choices":[{"index":0,"delta":{"content":"hal"}}]}\n\n',)
    async with (
        ScriptedServer(replies=(Bytes(pieces=pieces, cut=True),)) as theirs,
        start({"t": upstream(theirs)}) as run,
    ):
        async with run.http.post("/v1/chat/completions", json={"model": "auto", "messages": ASK, "stream": True}) as r:
            text = await r.read()
        assert b'"hal"' in text
        assert b"[DONE]" not in text
        assert b'"error"' in text


# ------------------------------------------------------------------------------------------------------- who goes away


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_upstream(start: Start, stream: bool) -> None:
    slow = Reply(text="one two three " * 100, word_seconds=0.02, delay_seconds=0.0 if stream else 30.0)
    async with ScriptedServer(replies=(slow,)) as theirs, start({"t": upstream(theirs)}) as run:
        asked = run.http.post("/v1/chat/completions", json={"model": "auto", "messages": ASK, "stream": stream})
        if stream:
            async with asked as r:
                await r.content.readany()
                r.close()
        else:
            task = asyncio.ensure_future(asked.__aenter__())
            while not theirs.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(theirs.hung_up.wait(), 5)
        async with asyncio.timeout(5):
            while not (traces := await run.traces()):
                await asyncio.sleep(0.01)
        assert traces[0].outcome.error is not None
        assert traces[0].outcome.error.kind == "client_gone"
        assert traces[0].steps[0].outcome.cancelled
        async with asyncio.timeout(5):
            while not (recent := run.gateway.stats.show()["recent"]):
                await asyncio.sleep(0.01)
        assert (recent[0]["status"], recent[0]["error"]) == (499, "client_gone")
        # The gateway goes on.
        assert (await run.http.get("/healthz")).status == 200


async def test_a_stop_lets_streams_end(start: Start) -> None:
    async with (
        start({"t": scripted(Reply(text="one two three four", word_seconds=0.05))}) as run,
        run.http.post("/v1/chat/completions", json={"model": "t", "messages": ASK, "stream": True}) as r,
    ):
        await r.content.readany()
        run.server.should_exit = True
        assert (await r.read()).endswith(b"data: [DONE]\n\n")


# --------------------------------------------------------------------------------------------------------- bad requests


BAD: list[tuple[bytes, str | None]] = [
    (b"{", None),
    (b"[]", None),
    (b'"x"', None),
    (b"", None),
    (b"\xff\xfe", None),
    (b'{"model": "auto"}', "messages"),
    (b'{"messages": [{"role": "user", "content": "x"}]}', "model"),
    (b'{"model": "auto", "messages": []}', "messages"),
    (b'{"model": "auto", "messages": "hi"}', "messages"),
    (b'{"model": "auto", "messages": [{"role": "user", "content": 5}]}', "messages[0].content"),
    (b'{"model": "auto", "messages": [{"content": "x"}]}', "messages[0]"),
    (b'{"model": 5, "messages": [{"role": "user", "content": "x"}]}', "model"),
    (b'{"model": "auto", "stream": "yes", "messages": [{"role": "user", "content": "x"}]}', "stream"),
    (b'{"model": "auto", "tools": {}, "messages": [{"role": "user", "content": "x"}]}', "tools"),
    (b'{"model": "auto", "user": 1, "messages": [{"role": "user", "content": "x"}]}', "user"),
    (b'{"model": "auto", "fairlead": {"max_us": 1}, "messages": [{"role": "user", "content": "x"}]}', "fairlead"),
    (
        b'{"model": "auto", "fairlead": {"max_usd": -1}, "messages": [{"role": "user", "content": "x"}]}',
        "fairlead.max_usd",
    ),
    (b'{"model": "auto", "fairlead": {"allow": ["nope"]}, "messages": [{"role": "user", "content": "x"}]}', "allow"),
    (b'{"model": "auto", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
]


async def test_bad_requests_name_what_is_wrong(start: Start) -> None:
    async with start({"t": scripted("x")}) as run:
        for body, param in BAD:
            status, _, reply = await run.post(body)
            assert status == 400, body[:100]
            assert reply["error"]["type"] == "invalid_request_error"
            assert reply["error"]["param"] == param, reply
        assert await run.traces() == []


async def test_bad_headers(start: Start) -> None:
    async with start({"t": scripted("x")}) as run:
        for header, value in (
            ("x-fairlead-max-usd", "lots"),
            ("x-fairlead-max-usd", "nan"),
            ("x-fairlead-max-usd", "-1"),
            ("x-fairlead-maxusd", "1"),
            ("x-fairlead-step", "1.5"),
        ):
            status, _, reply = await run.post({"model": "auto", "messages": ASK}, headers={header: value})
            assert status == 400, (header, value)
            assert header in reply["error"]["message"] or reply["error"]["param"] == "max_usd"
        assert (await run.post({"model": "auto", "messages": ASK}, headers={"x-big": "x" * 70_000}))[0] == 431


async def test_unknown_models_and_paths(start: Start) -> None:
    async with start({"small": scripted("x")}) as run:
        with pytest.raises(openai.NotFoundError, match="did you mean 'small'"):
            await run.client.chat.completions.create(model="smal", messages=ASK)
        async with run.http.get("/nowhere") as r:
            assert (r.status, (await r.json())["error"]["code"]) == (404, "not_found")
        for method, path in (("GET", "/v1/chat/completions"), ("PUT", "/v1/feedback"), ("DELETE", "/v1/traces")):
            async with run.http.request(method, path) as r:
                assert (r.status, (await r.json())["error"]["code"]) == (405, "method_not_allowed")
                assert r.headers["allow"]
        async with run.http.head("/healthz") as r:
            assert r.status == 200
        assert {m.id async for m in run.client.models.list()} == {"auto", "small"}


async def test_a_model_whose_name_has_a_slash(start: Start) -> None:
    async with start({"azure/gpt-4o": scripted("x")}) as run:
        for path in ("azure/gpt-4o", "azure%2Fgpt-4o"):
            async with run.http.get(f"/v1/models/{path}") as r:
                assert (r.status, (await r.json())["id"]) == (200, "azure/gpt-4o")
        async with run.http.get("/v1/models/azure/gpt") as r:
            assert (r.status, (await r.json())["error"]["code"]) == (404, "model_not_found")


async def test_body_limit(start: Start) -> None:
    async with start({"t": scripted("x")}, gateway={"max_body_bytes": 1000}) as run:
        big = msgspec.json.encode({"model": "t", "messages": [{"role": "user", "content": "x" * 2000}]})

        async def pieces() -> AsyncIterator[bytes]:
            for i in range(0, len(big), 100):
                yield big[i : i + 100]

        for data in (big, pieces()):
            async with run.http.post("/v1/chat/completions", data=data) as r:
                assert (r.status, (await r.json())["error"]["code"]) == (413, "body_too_large")
        async with run.http.post("/v1/feedback", data=big) as r:
            assert r.status == 413

        async def small() -> AsyncIterator[bytes]:
            body = msgspec.json.encode({"model": "t", "messages": ASK})
            yield body[:20]
            yield body[20:]

        async with run.http.post("/v1/chat/completions", data=small()) as r:
            assert r.status == 200


# ------------------------------------------------------------------------------------------------------- keys, secrets


async def test_keys(start: Start) -> None:
    keys = {"keys": {"one": hashed("fl-one"), "two": hashed("fl-two")}}
    async with start({"t": scripted("x")}, gateway=keys, key="fl-two") as run:
        assert (await run.client.chat.completions.create(model="t", messages=ASK)).choices[0].message.content == "x"
        assert (await run.post({"model": "t", "messages": ASK}, headers={"x-api-key": "fl-one"}))[0] == 200
        with pytest.raises(openai.AuthenticationError):
            await run.client.with_options(api_key="fl-three").chat.completions.create(model="t", messages=ASK)
        for path in ("/v1/models", "/v1/stats", "/v1/traces", "/metrics", "/v1/traces/x", "/nowhere"):
            async with run.http.get(path) as r:
                assert (r.status, (await r.json())["error"]["code"]) == (401, "invalid_api_key"), path
            async with run.http.get(path, headers={"authorization": "bearer fl-one"}) as r:
                assert r.status != 401, path
        for path in ("/", "/healthz", "/readyz"):
            async with run.http.get(path) as r:
                assert r.status == 200, path


async def test_an_empty_name_is_no_name(start: Start) -> None:
    async with start({"t": scripted("x")}) as run:
        empty = {f"x-fairlead-{name}": "" for name in ("tenant", "user", "session", "episode")}
        assert (await run.post({"model": "auto", "messages": ASK}, headers=empty))[0] == 200
        body = {"model": "auto", "messages": ASK, "user": "", "fairlead": {"session": "", "user": ""}}
        assert (await run.post(body))[0] == 200
        assert [t.query.identity for t in run.gateway.router.store.traces()] == [Identity(), Identity()]


async def test_foreign_pages_are_kept_out_without_keys(start: Start) -> None:
    async with start({"t": scripted("x")}) as run:
        body = {"model": "t", "messages": ASK}
        assert (await run.post(body, headers={"host": "evil.example"}))[0] == 403
        assert (await run.post(body, headers={"origin": "https://evil.example"}))[0] == 403
        assert (await run.post(body, headers={"origin": "null"}))[0] == 403
        assert (await run.post(body, headers={"origin": run.server.url}))[0] == 200
        assert (await run.post(body, headers={"host": f"localhost:{run.server.port}"}))[0] == 200


async def test_the_upstream_key_is_never_shown(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)
    refusal = b'{"error": {"message": "Incorrect API key provided: ' + SECRET.encode() + b'"}}'
    replies = (Bytes(pieces=(refusal,), status=401, headers={"content-type": "application/json"}), "fine")
    async with ScriptedServer(replies=replies) as theirs:
        async with start({"t": upstream(theirs, api_key="${UPSTREAM_KEY}")}) as run:
            seen = []
            for _ in range(2):
                for stream in (False, True):
                    async with run.http.post(
                        "/v1/chat/completions", json={"model": "t", "messages": ASK, "stream": stream}
                    ) as r:
                        seen += [await r.read(), str(r.headers).encode()]
            for path in ("/v1/traces", "/v1/stats", "/v1/models", "/metrics", "/readyz", "/"):
                async with run.http.get(path) as r:
                    seen += [await r.read(), str(r.headers).encode()]
            assert theirs.requests[0].headers["authorization"] == f"Bearer {SECRET}"
            assert any(b"upstream_auth" in s for s in seen)
            assert all(SECRET.encode() not in s for s in seen)
        assert SECRET not in caplog.text
        assert all(SECRET.encode() not in f.read_bytes() for f in tmp_path.iterdir() if f.is_file())


# ------------------------------------------------------------------------------------------- guards, actions, identity


async def test_a_guard_refuses_and_says_which(start: Start) -> None:
    guards = [{"name": "long", "when": {"length": {"gt": 50}}, "do": ["block"]}]
    async with start({"t": scripted("x", "y")}, guards=guards) as run:
        long: Any = [{"role": "user", "content": "word " * 20}]
        for stream in (False, True):
            with pytest.raises(openai.PermissionDeniedError) as e:
                await run.client.chat.completions.create(model="auto", messages=long, stream=stream)
            assert e.value.code == "blocked"
            assert e.value.response.headers["x-fairlead-guards"] == "long"
        status, headers, _ = await run.post({"model": "auto", "messages": ASK})
        assert (status, headers.get("x-fairlead-guards")) == (200, None)
        blocked = [t for t in await run.traces() if t.acts]
        assert [t.text_kept for t in blocked] == [False, False]
        async with run.http.get("/v1/stats") as r:
            assert (await r.json())["failures"] >= 0


async def test_a_refusal_can_be_an_answer(start: Start) -> None:
    guards = [{"name": "long", "when": {"length": {"gt": 50}}, "do": ["no", "tag"]}]
    actions = {"no": {"type": "block", "reply": True, "message": "Not here."}, "tag": {"tags": {"why": "long"}}}
    async with start({"t": scripted("x")}, guards=guards, actions=actions) as run:
        long: Any = [{"role": "user", "content": "word " * 20}]
        whole = await run.client.chat.completions.create(model="auto", messages=long)
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Not here.", "content_filter")
        stream = await run.client.chat.completions.create(model="auto", messages=long, stream=True)
        chunks = [c async for c in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Not here."
        assert chunks[-1].choices[0].finish_reason == "content_filter"


async def test_a_dry_run_tells_of_guards(start: Start) -> None:
    guards = [{"name": "long", "when": {"length": {"gt": 50}}, "never": ["u"], "do": ["tag"]}]
    async with start({"t": scripted("x"), "u": scripted("y")}, guards=guards, policy="random") as run:
        body = {"model": "auto", "messages": [{"role": "user", "content": "word " * 20}]}
        _, _, shown = await run.post(body, "/v1/route")
        assert (shown["guards"], shown["actions"], shown["eligible"]) == (["long"], ["tag"], ["t"])
        assert shown["excluded"] == {"u": "guard 'long' holds"}
        _, headers, _ = await run.post(body)
        assert headers["x-fairlead-tag-guards"] == "long"


async def test_who_asks_is_what_the_key_says(start: Start) -> None:
    keys = {
        "plain": hashed("fl-plain"),
        "team": {"hash": hashed("fl-team"), "tenant": "red", "roles": ["reader"]},
        "front": {"hash": hashed("fl-front"), "vouches": True},
    }
    async with start({"t": scripted("x")}, gateway={"keys": keys}) as run:

        async def ask(key: str, **headers: str) -> int:
            sent = {"authorization": f"Bearer {key}", **{f"x-fairlead-{k}": v for k, v in headers.items()}}
            status, _, body = await run.post({"model": "t", "messages": ASK, "user": "u"}, headers=sent)
            assert status == 200 or body["error"]["code"] == "roles_not_vouched"
            return status

        assert await ask("fl-plain", tenant="blue") == 200
        assert await ask("fl-team", tenant="blue") == 200
        assert await ask("fl-team", roles="admin") == 403
        assert await ask("fl-plain", roles="admin") == 403
        assert await ask("fl-front", roles="admin, reader", tenant="green", user="ann") == 200
        who = [t.query.identity for t in await run.traces()]
        assert [(i.key, i.tenant, i.user, i.roles) for i in who] == [
            ("plain", "blue", "u", ()),
            ("team", "red", "u", ("reader",)),
            ("front", "green", "ann", ("admin", "reader")),
        ]


async def test_a_refusal_by_guards_is_counted_and_told(start: Start) -> None:
    guards = [{"name": "over-budget-data", "when": {"length": {"gt": 50}}, "never": ["t"]}]
    async with start({"t": scripted("x")}, guards=guards) as run:
        body = {"model": "auto", "messages": [{"role": "user", "content": "word " * 20}]}
        for path in ("/v1/chat/completions", "/v1/route"):
            status, headers, shown = await run.post(body, path)
            assert (status, shown["error"]["code"]) == (403, "blocked"), path
        _, headers, _ = await run.post(body)
        assert headers["x-fairlead-guards"] == "over-budget-data"
        assert (await run.traces())[-1].id == headers["x-fairlead-id"]
        async with run.http.get("/metrics") as r:
            assert 'fairlead_guards_total{guard="over-budget-data"} 2.0' in await r.text()
        async with run.http.get("/v1/stats") as r:
            assert (await r.json())["guards"] == {"over-budget-data": 2}


async def test_a_dry_run_knows_who_asks_and_when(start: Start) -> None:
    keys = {"team": {"hash": hashed("fl-team"), "roles": ["auditor"]}}
    guards = [
        {"name": "auditors", "when": {"identity.auditor": True}, "never": ["u"]},
        {"name": "today", "when": {"clock": {"ge": 0}}, "do": ["tag"]},
    ]
    signals = {"identity": {"roles": ["auditor"]}}
    async with start(
        {"t": scripted("x"), "u": scripted("y")}, guards=guards, signals=signals, gateway={"keys": keys}
    ) as run:
        body = {"model": "auto", "messages": ASK}
        _, _, shown = await run.post(body, "/v1/route", headers={"x-api-key": "fl-team"})
        assert (shown["guards"], shown["eligible"]) == (["auditors", "today"], ["t"])


async def test_a_rule_that_refuses_says_its_own_words_and_no_more(start: Start) -> None:
    policy = {
        "type": "rules",
        "rules": [{"name": "ships", "when": {"length": {"gt": 50}}, "use": {"refuse": "Only ships."}}],
        "default": "t",
    }
    async with start({"t": scripted("x"), "u": scripted("y")}, policy=policy) as run:
        body = {"model": "auto", "messages": [{"role": "user", "content": "word " * 20}]}
        status, headers, shown = await run.post(body)
        assert (status, shown["error"]["code"], shown["error"]["message"]) == (403, "blocked", "Only ships.")
        assert headers["x-fairlead-rule"] == "ships"
        (kept,) = await run.traces()
        assert kept.decision.rule == "ships"
        async with run.http.get("/v1/stats") as r:
            stats = await r.json()
        assert (stats["failures"], stats["refused"]) == (0, 1)


async def test_a_judgement_of_a_cached_answer_teaches_nothing(start: Start) -> None:
    guards = [{"name": "repeats", "do": ["cache"]}]
    async with start(
        {"t": scripted("x")}, guards=guards, actions={"cache": {"sampled": True}}, policy="thompson"
    ) as run:
        ids = [(await run.post({"model": "auto", "messages": ASK}))[2]["id"] for _ in range(2)]
        weights = [(await run.post({"id": i, "value": 1}, "/v1/feedback"))[2]["weight"] for i in ids]
        assert weights == [1.0, 0.0]
