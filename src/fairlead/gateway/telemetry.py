"""OpenTelemetry: traces and metrics in the GenAI conventions, with what was decided under ``fairlead.*``. An extra (``pip install 'fairlead[otel]'``), loaded
only when it is used.

A request is one server span, ``{operation} {model}``, and each call of its plan a client span below it. Both are made from the trace when the request has
ended, in the thread of the SDK's batch processor, which sends them; what a request itself pays is one append to a bounded queue (3 µs in all). If the collector is down or too
slow, the queue fills and the rest is dropped, counted, and told in the metrics (``fairlead_telemetry_dropped_total``).

A W3C ``traceparent`` of the request is taken up: its trace goes on, and its mark says whether the request is sampled. With `propagate` upstreams get one too,
that of the server span (calls' spans are made later, so they cannot be named yet).

Times of calls are exact among themselves; their common start is the arrival and the time to decide, which leaves out what actions did before the plan.

Not text by default: no prompt, answer, upstream's error message or stop sequence. With `text`, what the trace itself shows: masked where it is masked, nothing
where it is blank.

Cost in that thread: 0.16 ms of CPU for a request with one call, two thirds of it the SDK's encoding; 0.03 ms for one that is not sampled.

The names: ``docs/guides/observability.md``; `SPAN`, `CALL` and `INSTRUMENTS` hold them all. Of the conventions as of semantic-conventions 1.42 (all of GenAI has the
status Development there).
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from random import getrandbits, random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fairlead.errors import ConfigError
from fairlead.gateway.figures import fallbacks
from fairlead.targets import providers
from fairlead.targets.upstream import TRACEPARENT, check_headers, check_url, revealed
from fairlead.types import Outcome, Query, Step, Trace
from fairlead.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from fairlead.config import TelemetryConfig
    from fairlead.targets.base import Driver

log = logging.getLogger(__name__)

ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
WAITING: Final = 2048
"""Requests that wait to be sent, at most …"""
WAITING_BYTES: Final = 64_000_000
"""… and how large their bodies may be together."""
BATCH: Final = 256
CLOSE_SECONDS: Final = 3.0
"""How long the last ones may take to be sent when the gateway ends."""

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

# ------------------------------------------------------------------------------------------------------------- names

SPAN: Final[dict[str, str]] = {
    "gen_ai.operation.name": "`chat`, `text_completion` or `embeddings`",
    "gen_ai.provider.name": "whose target answered",
    "gen_ai.request.model": "the route, or the target asked for by name",
    "gen_ai.request.stream": "whether a stream was asked for",
    "gen_ai.request.temperature": "as the request says",
    "gen_ai.request.top_p": "as the request says",
    "gen_ai.request.top_k": "as the request says",
    "gen_ai.request.max_tokens": "as the request says",
    "gen_ai.request.frequency_penalty": "as the request says",
    "gen_ai.request.presence_penalty": "as the request says",
    "gen_ai.request.seed": "as the request says",
    "gen_ai.request.choice.count": "`n`, unless it is 1",
    "gen_ai.response.model": "what the target says that answered",
    "gen_ai.response.id": "the id of the answer and its trace",
    "gen_ai.response.finish_reasons": "why the answer ended",
    "gen_ai.response.time_to_first_chunk": "seconds, of a stream",
    "gen_ai.usage.input_tokens": "of the answer; a plan's other calls have their own",
    "gen_ai.usage.output_tokens": "of the answer",
    "gen_ai.usage.cache_read.input_tokens": "part of the input",
    "gen_ai.usage.cache_creation.input_tokens": "part of the input",
    "gen_ai.usage.reasoning.output_tokens": "part of the output",
    "gen_ai.conversation.id": "the session",
    "gen_ai.input.messages": "only with `text`",
    "gen_ai.output.messages": "only with `text`",
    "http.request.method": "`POST`; absent where it was another, which is refused",
    "http.response.status_code": "what the client got",
    "url.path": "the API that was used",
    "error.type": "the kind of failure, or the code of a refusal",
    "fairlead.trace_id": "the id under which Fairlead keeps it",
    "fairlead.config": "digest of the config that answered",
    "fairlead.route": "the route",
    "fairlead.policy": "what decided",
    "fairlead.policy.version": "which learned version of it",
    "fairlead.propensity": "with what probability this option was chosen",
    "fairlead.options": "how many options there were",
    "fairlead.reasons": "why, in words; only where the trace keeps its text",
    "fairlead.rule": "the rule that decided",
    "fairlead.guards": "the guards that held",
    "fairlead.actions": "the actions that were ordered",
    "fairlead.target": "who answered",
    "fairlead.fallbacks": "plans that failed first",
    "fairlead.retries": "calls sent again",
    "fairlead.limited": "`budget` or `deadline`, if that kept the plan from more",
    "fairlead.cost_usd": "all calls together; absent if a price is unknown",
    "fairlead.overhead_seconds": "the gateway's own time",
}
"""Attributes of a request's span."""

CALL: Final[dict[str, str]] = {
    "gen_ai.operation.name": "also `invoke_agent`, `execute_tool`, `retrieval`",
    "gen_ai.provider.name": "whose target it is",
    "gen_ai.request.model": "what the upstream calls it",
    "gen_ai.response.model": "what it says that it is",
    "gen_ai.response.finish_reasons": "why it ended",
    "gen_ai.response.time_to_first_chunk": "seconds",
    "gen_ai.usage.input_tokens": "of this call",
    "gen_ai.usage.output_tokens": "of this call",
    "gen_ai.usage.cache_read.input_tokens": "part of the input",
    "gen_ai.usage.cache_creation.input_tokens": "part of the input",
    "gen_ai.usage.reasoning.output_tokens": "part of the output",
    "http.response.status_code": "of a failure",
    "error.type": "the kind of failure, or `cancelled`",
    "fairlead.target": "the target's name",
    "fairlead.call.purpose": "`answer`, `judge`, `probe`, …",
    "fairlead.call.path": "where in the plan: step, branch, step, branch …",
    "fairlead.call.waited_seconds": "for its turn, or to be sent again",
    "fairlead.retries": "how often it was sent again",
    "fairlead.cost_usd": "what it cost",
}
"""Attributes of a call's span."""

_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS: Final = tuple(4.0**i for i in range(14))
INSTRUMENTS: Final[dict[str, tuple[str, str, tuple[float, ...]]]] = {
    "gen_ai.client.token.usage": ("{token}", "Tokens of each call, by `gen_ai.token.type`.", _TOKENS),
    "gen_ai.client.operation.duration": ("s", "Time of each call.", _SECONDS),
    "gen_ai.client.operation.time_to_first_chunk": ("s", "Time to a streamed call's first event.", _FIRST),
    "gen_ai.server.request.duration": ("s", "Time of each request.", _SECONDS),
    "gen_ai.server.time_to_first_token": ("s", "Time to the first byte of a streamed answer.", _FIRST),
    "gen_ai.server.time_per_output_token": ("s", "Time of each further token of a streamed answer.", _EACH),
}
"""Histograms: unit, what it is, and the bounds that the conventions name."""

_PARAMETERS: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}
_OPERATIONS: Final = {"agent": "invoke_agent", "tool": "execute_tool", "retriever": "retrieval"}
_PROVIDERS: Final = {
    "anthropic_messages": "anthropic",
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "claude": "anthropic",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    # Of those who speak OpenAI's format:
    "azure": "azure.ai.openai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}


class Context(NamedTuple):
    """Where a request's span stands: its trace, its own number, whose child it is."""

    trace_id: int
    span_id: int
    parent_id: int | None
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header for those below it."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


class Noted(NamedTuple):
    """A request that has ended."""

    at: Context
    operation: str
    path: str
    status: int
    code: str
    """Of a refusal, if there is no trace."""
    ended: float
    seconds: float
    overhead: float
    first_byte: float | None
    size: int
    config: str
    query: Query | None
    trace: Trace | None
    stream: bool


class Telemetry:
    """Sends what requests were to a collector over OTLP/HTTP.

    Args:
        settings: where to, and what.
        driver: finds a target's driver.
        text: whether prompts and answers may be sent at all.
        worker: number of this process among several.

    Raises:
        ConfigError: if the extra is not installed, or the address or headers are wrong.
    """

    def __init__(
        self,
        settings: TelemetryConfig,
        *,
        driver: Callable[[str], Driver | None],
        text: bool = True,
        worker: int | None = None,
    ) -> None:
        self.settings, self.driver, self.text, self.worker = settings, driver, settings.text and text, worker
        self.given = self.dropped = self.given_bytes = 0
        """Counted by the event loop alone."""
        self.taken = self.taken_bytes = self.exported = self.failed = 0
        """Counted by the batch processor's thread alone."""
        self._open = False
        try:
            import opentelemetry.exporter.otlp.proto.http.metric_exporter
            import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
        except ImportError as e:
            raise ConfigError("install it first: pip install 'fairlead[otel]'", path="$.gateway.telemetry") from e
        try:
            if settings.endpoint is not None:
                check_url(settings.endpoint)
            check_headers(settings.headers)
        except ConfigError as e:
            raise ConfigError(e.message, path=f"$.gateway.telemetry{e.path.removeprefix('$')}") from e

    # ------------------------------------------------------------------------------------------------ its life

    def start(self) -> None:
        """Open the exporters; nothing is sent yet. Raises `ConfigError` if a header's variable is not set."""
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        s = self.settings
        headers = revealed(s.headers)[0] or None
        base = None if s.endpoint is None else s.endpoint.rstrip("/")
        given: dict[str, Any] = {"headers": headers, "timeout": s.timeout_seconds}
        spans = OTLPSpanExporter(endpoint=base and f"{base}/v1/traces", **given)
        measures = OTLPMetricExporter(endpoint=base and f"{base}/v1/metrics", **given)
        instance = f"{os.uname().nodename}:{os.getpid()}" if hasattr(os, "uname") else str(os.getpid())
        about = {"service.version": VERSION, "service.instance.id": instance}
        if self.worker is not None:
            about["fairlead.worker"] = str(self.worker)
        if "OTEL_SERVICE_NAME" not in os.environ:
            about["service.name"] = s.service
        self._resource = Resource.create(about)
        self._scope = InstrumentationScope("fairlead", VERSION)
        self._spans: Any = spans  # whose `shutdown` has no types
        reader = PeriodicExportingMetricReader(measures, export_interval_millis=1e3 * s.metrics_seconds)
        self._provider = MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("fairlead", VERSION)
        self._instruments = {
            name: meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)
            for name, (unit, text, bounds) in INSTRUMENTS.items()
        }
        # What waits in the SDK's queue are requests, which `_Sender` turns into spans in the SDK's thread.
        self._processor: Any = BatchSpanProcessor(
            _Sender(self),
            max_queue_size=2 * WAITING,
            max_export_batch_size=BATCH,
            schedule_delay_millis=1e3 * s.delay_seconds,
        )
        self._open = True

    def stop(self) -> None:
        """Send what waits, within `CLOSE_SECONDS`, and close. Blocks."""
        if not self._open:
            return
        self._open = False

        def flush() -> None:
            self._processor.force_flush()
            self._provider.force_flush(int(1e3 * CLOSE_SECONDS))

        last = threading.Thread(target=flush, name="fairlead-telemetry-last", daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)
        if last.is_alive():
            log.warning("the collector did not take the last requests in %g s; they are lost", CLOSE_SECONDS)
            # Ends the exporter's own waiting, so that the threads end too.
            self._spans.shutdown()
            threading.Thread(target=self._provider.shutdown, daemon=True).start()
            return
        self._processor.shutdown()
        self._provider.shutdown(1e3 * CLOSE_SECONDS)

    # ------------------------------------------------------------------------------------------------ a request

    def begin(self, headers: Mapping[bytes, bytes]) -> Context:
        """Take up the trace that a request belongs to, or begin one."""
        found = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
        if found is not None and found[1] != b"ff" and (found[5] is None or found[1] != b"00"):
            trace_id, parent = int(found[2], 16), int(found[3], 16)
            if trace_id and parent:
                at = Context(trace_id, getrandbits(64) or 1, parent, bool(int(found[4], 16) & 1))
                return self._told(at)
        sampled = self.settings.sample >= 1.0 or random() < self.settings.sample
        return self._told(Context(getrandbits(128) or 1, getrandbits(64) or 1, None, sampled))

    def _told(self, at: Context) -> Context:
        if self.settings.propagate:
            TRACEPARENT.set(at.traceparent)
        return at

    def note(
        self,
        at: Context,
        *,
        query: Query | None,
        trace: Trace | None,
        status: int,
        start: float,
        overhead: float = 0.0,
        first_byte: float | None = None,
        size: int = 0,
        config: str = "",
        path: str = "",
        operation: str = "chat",
        code: str = "",
        stream: bool = False,
    ) -> None:
        """Take a request that has ended. Returns at once; drops it, counted, if too many wait.

        Args:
            at: what `begin` gave.
            query: as it came; None if it could not be read.
            trace: None for a request that was refused before anything was decided.
            status: that the client got.
            start: when it began, by `perf_counter`.
            overhead: seconds of the gateway's own.
            first_byte: seconds until the first byte of a stream.
            size: bytes of its body.
            config: digest of the config that answered.
            path: of the API.
            operation: ``chat``, ``text_completion`` or ``embeddings``.
            code: of a refusal.
            stream: whether a stream was asked for.
        """
        if not self._open:
            return
        if self.given - self.taken >= WAITING or self.given_bytes - self.taken_bytes > WAITING_BYTES:
            self.dropped += 1
            return
        seconds = perf_counter() - start
        ended = time.time()
        size += 0 if trace is None else len(trace.outcome.text)
        noted = Noted(
            at, operation, path, status, code, ended, seconds, overhead, first_byte, size, config, query, trace, stream
        )
        self.given += 1
        self.given_bytes += size
        self._processor.on_end(_Waiting(noted))

    # ------------------------------------------------------------------------------------ in the processor's thread

    def export(self, batch: Iterable[_Waiting]) -> None:
        """Turn requests into spans and send those that are sampled; count them all in the metrics."""
        spans: list[ReadableSpan] = []
        n = 0
        for waiting in batch:
            n += 1
            noted = waiting.noted
            self.taken += 1
            self.taken_bytes += noted.size
            try:
                self._measure(noted)
                if noted.at.sampled:
                    spans += self._made(noted)
            except Exception:  # the wall around what is only told: no request may suffer from it
                self.failed += 1
                log.exception("a request could not be told to the collector")
        if not spans:
            self.exported += n
            return
        from opentelemetry.sdk.trace.export import SpanExportResult

        if self._spans.export(spans) is SpanExportResult.SUCCESS:
            self.exported += n
        else:
            self.failed += n

    def provider(self, target: str) -> str:
        """Name whose target it is, as the conventions do where they know it."""
        driver = self.driver(target)
        if driver is None:
            return "fairlead"
        name = driver.type_name()
        if name == "openai_chat":
            said, base_url = getattr(driver, "provider", None), getattr(driver, "base_url", "")
            name = said or providers.known(None, base_url)[0] or name
        return _PROVIDERS.get(name, name)

    def _model(self, target: str) -> str:
        return str(getattr(self.driver(target), "model", None) or target)

    def _operation(self, noted: Noted, target: str) -> str:
        driver = self.driver(target)
        return noted.operation if driver is None else _OPERATIONS.get(driver.target.kind, noted.operation)

    def _measure(self, noted: Noted) -> None:
        record, trace = self._instruments, noted.trace
        shared: dict[str, Any] = {"gen_ai.operation.name": noted.operation}
        error = _error(noted)
        if error:
            shared["error.type"] = error
        if trace is not None:
            shared["gen_ai.request.model"] = trace.query.route
            if trace.outcome.target:
                shared["gen_ai.provider.name"] = self.provider(trace.outcome.target)
        record["gen_ai.server.request.duration"].record(noted.seconds, shared)
        if trace is None:
            return
        if noted.first_byte is not None and not error:
            record["gen_ai.server.time_to_first_token"].record(noted.first_byte, shared)
            tokens = trace.outcome.tokens
            if tokens is not None and tokens.output > 1:
                each = max(0.0, noted.seconds - noted.first_byte) / (tokens.output - 1)
                record["gen_ai.server.time_per_output_token"].record(each, shared)
        for step in trace.steps:
            if step.call is None:
                continue
            outcome, target = step.outcome, step.call.target
            own: dict[str, Any] = {
                "gen_ai.operation.name": self._operation(noted, target),
                "gen_ai.provider.name": self.provider(target),
                "gen_ai.request.model": self._model(target),
            }
            if outcome.tokens is not None:
                usage = record["gen_ai.client.token.usage"]
                usage.record(outcome.tokens.input, {**own, "gen_ai.token.type": "input"})
                usage.record(outcome.tokens.output, {**own, "gen_ai.token.type": "output"})
            if outcome.first_token_seconds is not None:
                record["gen_ai.client.operation.time_to_first_chunk"].record(outcome.first_token_seconds, own)
            if kind := _kind(outcome):
                own["error.type"] = kind
            record["gen_ai.client.operation.duration"].record(outcome.seconds, own)

    def _made(self, noted: Noted) -> list[ReadableSpan]:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        at, trace = noted.at, noted.trace
        flags = TraceFlags(TraceFlags.SAMPLED)
        end = int(1e9 * noted.ended)
        start = end - int(1e9 * noted.seconds)
        own = SpanContext(at.trace_id, at.span_id, is_remote=False, trace_flags=flags)
        parent = (
            None if at.parent_id is None else SpanContext(at.trace_id, at.parent_id, is_remote=True, trace_flags=flags)
        )

        def span(
            name: str,
            context: Any,
            above: Any,
            kind: Any,
            attributes: dict[str, Any],
            begin: int,
            until: int,
            broke: bool,
        ) -> ReadableSpan:
            error = attributes.get("error.type")
            events = []
            if error:
                said = attributes.pop("exception.message", "")
                told = {"exception.type": error} | ({"exception.message": said} if said else {})
                events.append(Event("exception", told, until))
            return ReadableSpan(
                name=name,
                context=context,
                parent=above,
                resource=self._resource,
                attributes={k: v for k, v in attributes.items() if v is not None},
                events=events,
                kind=kind,
                instrumentation_scope=self._scope,
                status=Status(StatusCode.ERROR, error) if broke else Status(),
                start_time=begin,
                end_time=until,
            )

        attributes = self._of_request(noted)
        name = noted.operation + (f" {trace.query.route}" if trace is not None else "")
        made = [span(name, own, parent, SpanKind.SERVER, attributes, start, end, noted.status >= 500)]
        if trace is None:
            return made
        began = max(start, int(1e9 * (trace.at + trace.decision.seconds)))
        for step in trace.steps:
            if step.call is None:
                continue
            outcome = step.outcome
            first = min(end, began + int(1e9 * step.start_seconds))
            last = min(end, first + int(1e9 * (step.waited_seconds + outcome.seconds)))
            context = SpanContext(at.trace_id, getrandbits(64) or 1, is_remote=False, trace_flags=flags)
            attributes = self._of_call(noted, step)
            called = f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}"
            made.append(span(called, context, own, SpanKind.CLIENT, attributes, first, last, outcome.error is not None))
        return made

    def _of_request(self, noted: Noted) -> dict[str, Any]:
        query, trace = noted.query, noted.trace
        out: dict[str, Any] = {
            "gen_ai.operation.name": noted.operation,
            "http.request.method": None if noted.code == "method_not_allowed" else "POST",
            "http.response.status_code": noted.status,
            "url.path": noted.path or None,
            "error.type": _error(noted) or None,
            "fairlead.config": noted.config or None,
        }
        if query is not None:
            out |= _parameters(query)
            out["gen_ai.request.stream"] = noted.stream
        if trace is None:
            return out
        outcome, decision = trace.outcome, trace.decision
        target = outcome.target
        out |= {
            "gen_ai.provider.name": self.provider(target) if target else "fairlead",
            "gen_ai.request.model": trace.query.route,
            "gen_ai.response.id": trace.id,
            "gen_ai.response.time_to_first_chunk": noted.first_byte,
            "gen_ai.conversation.id": trace.query.identity.session,
            "fairlead.trace_id": trace.id,
            "fairlead.route": trace.query.route,
            "fairlead.policy": decision.policy,
            "fairlead.policy.version": decision.version,
            "fairlead.propensity": decision.propensity,
            "fairlead.options": len(decision.options),
            "fairlead.reasons": decision.reasons if decision.reasons and trace.text_kept else None,
            "fairlead.rule": decision.rule or None,
            "fairlead.guards": decision.guards or None,
            "fairlead.actions": decision.actions or None,
            "fairlead.target": target or None,
            "fairlead.fallbacks": fallbacks(trace),
            "fairlead.retries": sum(s.outcome.retries for s in trace.steps),
            "fairlead.limited": outcome.limited or None,
            "fairlead.cost_usd": trace.usd,
            "fairlead.overhead_seconds": noted.overhead,
            **_answer(outcome, self._model(target) if target else None),
        }
        if self.text and trace.text_kept:
            out["gen_ai.input.messages"] = _messages((m.role, m.text) for m in trace.query.messages)
            if outcome.text:
                out["gen_ai.output.messages"] = _messages([("assistant", outcome.text)], finish=outcome.finish)
            if outcome.error is not None:
                out["exception.message"] = outcome.error.message
        return out

    def _of_call(self, noted: Noted, step: Step) -> dict[str, Any]:
        call, outcome, trace = step.call, step.outcome, noted.trace
        assert call is not None
        assert trace is not None
        out: dict[str, Any] = {
            "gen_ai.operation.name": self._operation(noted, call.target),
            "gen_ai.provider.name": self.provider(call.target),
            "gen_ai.request.model": self._model(call.target),
            "gen_ai.response.time_to_first_chunk": outcome.first_token_seconds,
            "http.response.status_code": None if outcome.error is None else outcome.error.status,
            "error.type": _kind(outcome) or None,
            "fairlead.target": call.target,
            "fairlead.call.purpose": call.purpose,
            "fairlead.call.path": ".".join(map(str, step.path)),
            "fairlead.call.waited_seconds": step.waited_seconds or None,
            "fairlead.retries": outcome.retries,
            "fairlead.cost_usd": outcome.usd,
            **_answer(outcome, None),
        }
        if self.text and trace.text_kept and outcome.error is not None:
            out["exception.message"] = outcome.error.message
        return out


class _Waiting:
    """A request in the SDK's queue, which takes spans and looks at their context."""

    __slots__ = ("noted",)

    def __init__(self, noted: Noted) -> None:
        self.noted = noted

    @property
    def context(self) -> Any:
        """Of a sampled span: what is not sampled is left out later, for the metrics count it."""
        return _SAMPLED


class _Flags:
    sampled = True


class _Sampled:
    trace_flags = _Flags()


_SAMPLED: Final = _Sampled()


class _Sender:
    """What the SDK's batch processor takes for its exporter."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry

    def export(self, batch: Iterable[_Waiting]) -> None:
        """Send some requests."""
        self.telemetry.export(batch)

    def shutdown(self) -> None:
        """Close the real exporter."""
        self.telemetry._spans.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
        return True


def of(
    settings: TelemetryConfig | None,
    *,
    driver: Callable[[str], Driver | None],
    text: bool = True,
    worker: int | None = None,
) -> Telemetry | None:
    """Make it if it is configured, or one of the environment's `ENDPOINTS` is set; None: nothing is told.

    Raises:
        ConfigError: if it is configured and cannot be. What only the environment asks for is then told in the log.
    """
    if settings is not None:
        return Telemetry(settings, driver=driver, text=text, worker=worker)
    asked = [name for name in ENDPOINTS if os.environ.get(name)]
    if not asked or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    from fairlead.config import TelemetryConfig

    try:
        return Telemetry(TelemetryConfig(), driver=driver, text=text, worker=worker)
    except ConfigError as e:
        log.warning("%s is set, but nothing is sent there: %s", asked[0], e.message)
        return None


def operation(query: Query) -> str:
    """Name what was asked for, as the conventions do."""
    return "embeddings" if query.task == "embeddings" else "text_completion" if query.api == "completions" else "chat"


def _kind(outcome: Outcome) -> str:
    if outcome.error is not None:
        return outcome.error.kind
    return "cancelled" if outcome.cancelled else ""


def _error(noted: Noted) -> str:
    return noted.code or ("" if noted.trace is None else _kind(noted.trace.outcome))


def _answer(outcome: Outcome, model: str | None) -> dict[str, Any]:
    out: dict[str, Any] = {
        "gen_ai.response.model": outcome.model or model,
        "gen_ai.response.finish_reasons": (outcome.finish,) if outcome.finish else None,
    }
    if (tokens := outcome.tokens) is not None:
        out["gen_ai.usage.input_tokens"] = tokens.input
        out["gen_ai.usage.output_tokens"] = tokens.output
        out["gen_ai.usage.cache_read.input_tokens"] = tokens.cached_input or None
        out["gen_ai.usage.cache_creation.input_tokens"] = tokens.cache_write or None
        out["gen_ai.usage.reasoning.output_tokens"] = tokens.reasoning or None
    return out


def _parameters(query: Query) -> dict[str, Any]:
    """Read a request's numbers. What is no number is left out: whoever reads the field for good says what is wrong with it."""
    out: dict[str, Any] = {}
    for field, name in _PARAMETERS.items():
        raw = query.body.get(field)
        if raw is None or name in out:
            continue
        try:
            value = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool) and not (field == "n" and value == 1):
            out[name] = value if abs(value) < 2**63 else float(value)
    return out


def _messages(said: Iterable[tuple[str, str]], finish: str = "") -> str:
    """Write messages as the conventions do: JSON."""
    more = {"finish_reason": finish} if finish else {}
    shown = [{"role": role, "parts": [{"type": "text", "content": text}], **more} for role, text in said]
    return msgspec.json.encode(shown).decode()
