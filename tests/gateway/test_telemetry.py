"""OpenTelemetry against a real OTLP receiver: the conventions' names, the decision's own, no text, and a collector that is not there."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("opentelemetry.sdk")

from aiohttp import web
from aiohttp.test_utils import TestServer
from collector import Collector, attributes
from gateways import Client, serving

from fairlead.config import Config, TelemetryConfig, make
from fairlead.errors import ConfigError
from fairlead.gateway import telemetry
from fairlead.gateway.telemetry import CALL, INSTRUMENTS, SPAN, Telemetry

PATH = "/v1/chat/completions"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET_WORDS = "the merger with Acme is called Bluebird"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


def made(tmp_path: Path, *, plan: str = "cheap", telemetry: Any = None, **file: Any) -> Config:
    """Two targets and a route; no keys."""
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "max_output_tokens": 1}
    return make(
        {
            "targets": {
                name: {"type": "scripted", "replies": ["four"], "profile": price} for name in ("cheap", "dear")
            },
            "routes": {"auto": {"policy": {"type": "fixed", "plan": plan}}},
            "store": {"path": str(tmp_path / "store.sqlite")},
            "gateway": {"port": 0, "telemetry": telemetry},
            **file,
        }
    )


@asynccontextmanager
async def told(tmp_path: Path, collector: Collector, *, more: Any = None, **file: Any) -> AsyncIterator[Client]:
    """A gateway that tells `collector`; when it has ended, all has arrived."""
    settings = {"endpoint": collector.url, "delay_seconds": 0.05, **(more or {})}
    async with serving(made(tmp_path, telemetry=settings, **file)) as client:
        yield client


def of_request(collector: Collector) -> Any:
    (found,) = [s for s in collector.spans if s.kind == s.SPAN_KIND_SERVER]
    return found


def of_calls(collector: Collector) -> list[Any]:
    return sorted((s for s in collector.spans if s.kind == s.SPAN_KIND_CLIENT), key=lambda s: s.start_time_unix_nano)


def test_names_are_those_of_the_conventions() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # they moved to a repository of their own
        from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes
        from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
        from opentelemetry.semconv.attributes import http_attributes, url_attributes
    modules = (gen_ai_attributes, error_attributes, http_attributes, url_attributes)
    known = {v for module in modules for v in vars(module).values() if isinstance(v, str)}
    for name in (*SPAN, *CALL):
        assert name in known or name.startswith("fairlead."), name
    assert set(INSTRUMENTS) <= {v for v in vars(gen_ai_metrics).values() if isinstance(v, str)}


async def test_a_request_is_a_span_with_its_calls_below(tmp_path: Path, collector: Collector) -> None:
    targets = {
        "broken": {"type": "scripted", "replies": [{"error": {"kind": "unavailable", "status": 503}}]},
        "cheap": {
            "type": "scripted",
            "replies": [{"text": "four", "tokens": {"input": 30, "cached_input": 10, "output": 7, "reasoning": 2}}],
            "profile": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "tags": ["x"]},
        },
    }
    before = time.time_ns()
    async with told(tmp_path, collector, targets=targets, plan="broken") as client:
        headers = {"traceparent": PARENT, "x-fairlead-session": "s-1"}
        body: dict[str, Any] = {"temperature": 0.5, "max_tokens": 9, "top_p": True, "seed": 4, "stop": SECRET_WORDS}
        status, answer, _ = await client.ask(headers=headers, **body)
        assert status == 200
    span, calls = of_request(collector), of_calls(collector)
    assert span.trace_id.hex() == PARENT[3:35]
    assert span.parent_span_id.hex() == PARENT[36:52]
    assert span.name == "chat auto"
    found = attributes(span)
    assert set(found) <= set(SPAN), "what is told is documented"
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == found["fairlead.route"] == "auto"
    assert found["gen_ai.response.id"] == found["fairlead.trace_id"] == answer["id"]
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (30, 7)
    assert found["gen_ai.usage.cache_read.input_tokens"] == 10
    assert found["gen_ai.usage.reasoning.output_tokens"] == 2
    assert found["gen_ai.conversation.id"] == "s-1"
    assert (found["gen_ai.request.temperature"], found["gen_ai.request.max_tokens"]) == (0.5, 9)
    assert "gen_ai.request.top_p" not in found, "it is no number"
    assert found["gen_ai.request.stream"] is False
    assert found["fairlead.policy"] == "fixed"
    assert (found["fairlead.propensity"], found["fairlead.options"]) == (1.0, 1)
    assert (found["fairlead.target"], found["fairlead.fallbacks"]) == ("cheap", 1)
    assert found["fairlead.config"] == client.gateway.config_digest
    assert found["fairlead.cost_usd"] > 0.0
    assert 0.0 < found["fairlead.overhead_seconds"] < 5.0
    assert found["fairlead.reasons"]
    assert "error.type" not in found
    assert [attributes(c)["fairlead.target"] for c in calls] == ["broken", "cheap"]
    for call in calls:
        assert set(attributes(call)) <= set(CALL)
        assert call.trace_id == span.trace_id
        assert call.parent_span_id == span.span_id
        assert before <= span.start_time_unix_nano <= call.start_time_unix_nano
        assert call.start_time_unix_nano <= call.end_time_unix_nano <= span.end_time_unix_nano
    failed, good = calls
    assert failed.name == "chat broken"
    assert attributes(failed)["error.type"] == "unavailable"
    assert attributes(failed)["http.response.status_code"] == 503
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert failed.events[0].name == "exception"
    assert attributes(failed.events[0]) == {"exception.type": "unavailable"}
    assert attributes(good)["fairlead.call.purpose"] == "answer"
    assert attributes(good)["fairlead.call.path"] == "1.0.0.0"
    assert collector.resource["service.name"] == "fairlead"
    assert client.gateway.telemetry is not None
    assert client.gateway.telemetry.dropped == client.gateway.telemetry.failed == 0
    assert SECRET_WORDS not in str(collector.spans)


async def test_metrics_of_the_conventions(tmp_path: Path, collector: Collector) -> None:
    async with told(tmp_path, collector) as client:
        assert (await client.ask())[0] == 200
        assert (await client.ask(stream=True))[0] == 200
        assert (await client.ask(model="nope"))[0] == 404
    assert set(collector.metrics) == set(INSTRUMENTS) - {"gen_ai.server.time_per_output_token"}, "one token has no next"
    requests = collector.metrics["gen_ai.server.request.duration"]
    by_error = {attributes(p).get("error.type"): p for p in requests}
    assert by_error[None].count == 2
    assert by_error["model_not_found"].count == 1
    assert list(by_error[None].explicit_bounds) == list(INSTRUMENTS["gen_ai.server.request.duration"][2])
    usage = {attributes(p)["gen_ai.token.type"]: p for p in collector.metrics["gen_ai.client.token.usage"]}
    assert usage["output"].sum == 2.0
    assert attributes(usage["input"]) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "cheap",
        "gen_ai.token.type": "input",
    }
    assert collector.metrics["gen_ai.server.time_to_first_token"][0].count == 1


async def test_no_text_leaves_by_default(tmp_path: Path, collector: Collector) -> None:
    targets = {
        "cheap": {"type": "scripted", "replies": [{"text": "not Bluebird"}]},
        "dear": {
            "type": "scripted",
            "replies": [{"error": {"kind": "bad_request", "message": f"this is wrong: {SECRET_WORDS}"}}],
        },
    }
    async with told(tmp_path, collector, targets=targets) as client:
        messages = [{"role": "user", "content": SECRET_WORDS}]
        assert (await client.ask(messages=messages))[0] == 200
        assert (await client.ask(messages=messages, model="dear"))[0] == 400
    assert len(collector.spans) == 4
    assert "Bluebird" not in str(collector.spans)


@pytest.mark.parametrize("how", ["kept", "masked", "blank"])
async def test_text_is_told_as_the_trace_has_it(tmp_path: Path, collector: Collector, how: str) -> None:
    guards: list[dict[str, Any]] = []
    if how != "kept":
        guards = [{"name": "g", "when": {"length": {"ge": 0}}, "do": ["mask"]}]
    store = {"path": str(tmp_path / "store.sqlite"), "text": how != "blank"}
    async with told(tmp_path, collector, more={"text": True}, guards=guards, store=store) as client:
        messages = [{"role": "user", "content": "write to ann.smith@example.com please"}]
        assert (await client.ask(messages=messages))[0] == 200
    found = attributes(of_request(collector))
    if how == "blank":
        assert "gen_ai.input.messages" not in found
        assert "gen_ai.output.messages" not in found
        return
    said = msgspec.json.decode(found["gen_ai.input.messages"])
    assert said[0]["role"] == "user"
    assert ("ann.smith@example.com" in said[0]["parts"][0]["content"]) == (how == "kept")
    assert "please" in said[0]["parts"][0]["content"]
    wrote = msgspec.json.decode(found["gen_ai.output.messages"])
    assert wrote == [{"role": "assistant", "parts": [{"type": "text", "content": "four"}], "finish_reason": "stop"}]


async def test_refusals_and_unsampled_requests(tmp_path: Path, collector: Collector) -> None:
    async with told(tmp_path, collector) as client:
        assert (await client.ask(model="nope"))[0] == 404
        assert (await client.ask(headers={"traceparent": PARENT[:-1] + "0"}))[0] == 200
    span = of_request(collector)
    found = attributes(span)
    assert (span.name, found["error.type"], found["http.response.status_code"]) == ("chat", "model_not_found", 404)
    assert found["url.path"] == PATH
    points = collector.metrics["gen_ai.server.request.duration"]
    assert sum(p.count for p in points) == 2, "metrics count what is not sampled too"


@pytest.mark.parametrize("propagate", [True, False])
async def test_traceparent_is_passed_on_if_configured(tmp_path: Path, collector: Collector, propagate: bool) -> None:
    seen: list[str | None] = []

    async def complete(request: web.Request) -> web.Response:
        seen.append(request.headers.get("traceparent"))
        choice = {"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        return web.json_response({"id": "x", "model": "m-1", "choices": [choice], "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    async with TestServer(app) as upstream:
        url = str(upstream.make_url("/v1"))
        targets = {"cheap": {"type": "openai_chat", "model": "m", "provider": "mistral", "base_url": url}}
        async with told(tmp_path, collector, targets=targets, more={"propagate": propagate}) as client:
            assert (await client.ask(headers={"traceparent": PARENT}))[0] == 200
            assert (await client.ask())[0] == 200
    spans = [s for s in collector.spans if s.kind == s.SPAN_KIND_SERVER]
    assert spans[0].trace_id.hex() == PARENT[3:35]
    assert spans[1].trace_id != spans[0].trace_id, "one request's trace is not the next one's"
    expected = [f"00-{s.trace_id.hex()}-{s.span_id.hex()}-01" for s in spans] if propagate else [None, None]
    assert seen == expected
    found = attributes(of_calls(collector)[0])
    assert found["gen_ai.provider.name"] == "mistral_ai"
    assert (found["gen_ai.request.model"], found["gen_ai.response.model"]) == ("m", "m-1")


@pytest.mark.parametrize("header", ["", "x", "00-" + "0" * 32 + PARENT[35:], PARENT + "-x", "ff" + PARENT[2:]])
def test_a_wrong_traceparent_begins_a_trace_of_its_own(header: str) -> None:
    telling = Telemetry(TelemetryConfig(sample=0.0), driver=lambda name: None)
    at = telling.begin({b"traceparent": header.encode()})
    assert at.parent_id is None
    assert not at.sampled
    assert telling.begin({b"traceparent": b"01" + PARENT[2:].encode() + b"-later"}).parent_id is not None


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_collector_that_is_down_costs_counted_drops_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(telemetry, "WAITING", 20)
    monkeypatch.setattr(telemetry, "BATCH", 5)
    monkeypatch.setattr(telemetry, "CLOSE_SECONDS", 0.2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if how == "hangs":
            taken.listen()  # and nobody accepts
        where = f"http://127.0.0.1:{taken.getsockname()[1]}"
        settings = {"endpoint": where, "delay_seconds": 0.01, "timeout_seconds": 2.0 if how == "hangs" else 0.3}
        async with serving(made(tmp_path, telemetry=settings)) as client:
            answers = await asyncio.gather(*(client.ask() for _ in range(60)))
            assert {a[0] for a in answers} == {200}
            telling = client.gateway.telemetry
            assert telling is not None
            _, text, _ = await client.ask(path="/metrics", method="GET")
        assert telling.given + telling.dropped == 60
        assert telling.exported == 0
        if how == "refuses":
            assert telling.failed > 0
            return
        assert telling.dropped >= 20, "more did not wait than may"
        shown = float(str(text).split("fairlead_telemetry_dropped_total ")[-1].split("\\n")[0])
        assert 20 <= shown <= 60


async def test_what_waits_is_bounded_in_bytes(tmp_path: Path, collector: Collector) -> None:
    async with told(tmp_path, collector, more={"delay_seconds": 60}) as client:
        telling = client.gateway.telemetry
        assert telling is not None
        telling.given_bytes = telemetry.WAITING_BYTES + 1
        assert (await client.ask())[0] == 200
        assert (telling.dropped, telling.given) == (1, 0)


async def test_the_environment_turns_it_on(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    async with serving(made(tmp_path)) as client:
        assert (await client.ask())[0] == 200
    assert attributes(of_request(collector))["fairlead.target"] == "cheap"
    assert collector.resource["service.name"] == "mine"


async def test_a_header_for_the_collector_is_a_secret(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="must not be written here") as caught:
        async with told(tmp_path, collector, more={"headers": {"x-api-key": "hush-hush"}}):
            pass
    assert "hush-hush" not in str(caught.value)
    assert caught.value.path.startswith("$.gateway.telemetry.headers")
    monkeypatch.setenv("COLLECTOR_KEY", "hush-hush")
    async with told(tmp_path, collector, more={"headers": {"x-api-key": "${COLLECTOR_KEY}"}}) as client:
        await client.ask()
    assert collector.headers[0]["x-api-key"] == "hush-hush"


def test_nothing_is_loaded_when_it_is_off(tmp_path: Path) -> None:
    code = (
        "import sys; from gateways import config; from fairlead.gateway.app import Gateway; from pathlib import Path;"
        f"Gateway.of(config(Path({str(tmp_path)!r}))); print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    here = str(Path(__file__).parents[1] / "support")
    env = {"PYTHONPATH": here, "PATH": ""}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert out.stdout.strip() == "[]"


def test_without_the_extra_the_config_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.exporter"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"fairlead\[otel\]"):
        telemetry.of(TelemetryConfig(), driver=lambda name: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with caplog.at_level(logging.WARNING):
        assert telemetry.of(None, driver=lambda name: None) is None
    assert "fairlead[otel]" in caplog.text


def test_it_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in telemetry.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert telemetry.of(None, driver=lambda name: None) is None


async def test_a_request_that_a_guard_holds_back_tells_of_its_decision(tmp_path: Path, collector: Collector) -> None:
    guards = [{"name": "nobody", "when": {"length": {"ge": 0}}, "never": ["cheap", "dear"]}]
    async with told(tmp_path, collector, guards=guards) as client:
        assert (await client.ask())[0] == 403
    found = attributes(of_request(collector))
    assert (found["error.type"], found["http.response.status_code"]) == ("blocked", 403)
    assert (found["fairlead.guards"], found["fairlead.options"]) == (["nobody"], 0)
    assert set(found) <= set(SPAN)
    assert of_calls(collector) == []


async def test_what_cannot_start_leaves_no_thread(tmp_path: Path, collector: Collector) -> None:
    before = {t.name for t in threading.enumerate()}
    with pytest.raises(ConfigError, match="NOT_SET_HERE"):
        async with told(tmp_path, collector, more={"headers": {"x-api-key": "${NOT_SET_HERE}"}}):
            pass
    targets = {"cheap": {"type": "openai_chat", "model": "m", "base_url": collector.url, "api_key": "${NOT_SET_HERE}"}}
    with pytest.raises(ConfigError, match="NOT_SET_HERE"):
        async with told(tmp_path, collector, targets=targets):
            pass
    assert not [
        t.name for t in threading.enumerate() if t.name.startswith(("Otel", "fairlead")) and t.name not in before
    ]
