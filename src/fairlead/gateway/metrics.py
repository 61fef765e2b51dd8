"""Prometheus metrics. Labels are bounded: routes and targets of the config, classes of status, kinds of failure.

Children are bound once and kept, so a request costs about 15 µs here. Values that others keep (what was learned, what the store
could not write) are read when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fairlead.types import Trace

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_OVERHEAD: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)


class Metrics:
    """The metrics of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        both = ("route", "target")
        self.requests = Counter("fairlead_requests", "Chat requests.", (*both, "status"), registry=registry)
        self.tokens = Counter("fairlead_tokens", "Tokens of answers.", (*both, "kind"), registry=registry)
        self.usd = Counter("fairlead_usd", "Spend, all calls of a request together.", both, registry=registry)
        self.fallbacks = Counter(
            "fairlead_fallbacks", "Plans that failed and were replaced.", ("route",), registry=registry
        )
        self.failures = Counter("fairlead_failures", "Failed calls.", ("target", "kind"), registry=registry)
        self.refused = Counter(
            "fairlead_refused", "Requests that no target was asked for.", ("status",), registry=registry
        )
        self.guards = Counter("fairlead_guards", "Requests for which a guard held.", ("guard",), registry=registry)
        self.acts = Counter("fairlead_acts", "What actions did.", ("action", "did"), registry=registry)
        self.feedback = Counter("fairlead_feedback", "Judgements.", ("status",), registry=registry)
        overhead = "Time of a request that was not spent in calls, from its last byte in to its last byte out."
        self.overhead = Histogram("fairlead_overhead_seconds", overhead, registry=registry, buckets=_OVERHEAD)
        self.seconds = Histogram(
            "fairlead_request_seconds", "Time of a request.", ("route",), registry=registry, buckets=_SECONDS
        )
        first = "Time to the first byte of a streamed answer."
        self.first_byte = Histogram(
            "fairlead_first_byte_seconds", first, ("route",), registry=registry, buckets=_SECONDS
        )
        # A method's cache would keep the gateway alive; these live and die with it.
        self._request = cache(lambda route, target, status: self.requests.labels(route, target, status))
        self._tokens = cache(lambda route, target, kind: self.tokens.labels(route, target, kind))
        self._usd = cache(lambda route, target: self.usd.labels(route, target))
        self._route = cache(lambda route: (self.seconds.labels(route), self.first_byte.labels(route)))

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that somebody else keeps."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def note(
        self, trace: Trace, *, status: int, seconds: float, overhead: float, first_byte: float | None, fallbacks: int
    ) -> None:
        """Count one request."""
        route, outcome = trace.query.route, trace.outcome
        target = outcome.target or "none"
        self._request(route, target, _CLASSES[status // 100]).inc()
        if (tokens := outcome.tokens) is not None:
            self._tokens(route, target, "input").inc(tokens.input)
            self._tokens(route, target, "output").inc(tokens.output)
        if trace.usd:
            self._usd(route, target).inc(trace.usd)
        if fallbacks:
            self.fallbacks.labels(route).inc(fallbacks)
        self.held(trace)
        for act in trace.acts:
            self.acts.labels(act.name, act.did).inc()
        for step in trace.steps:
            if step.call is not None and step.outcome.error is not None:
                self.failures.labels(step.call.target, step.outcome.error.kind).inc()
        self.overhead.observe(overhead)
        whole, first = self._route(route)
        whole.observe(seconds)
        if first_byte is not None:
            first.observe(first_byte)

    def held(self, trace: Trace) -> None:
        """Count the guards that held."""
        for guard in trace.decision.guards:
            self.guards.labels(guard).inc()

    def text(self) -> bytes:
        """Write them all in the Prometheus text format."""
        return generate_latest(self.registry)


_CLASSES: Final = ("0xx", "1xx", "2xx", "3xx", "4xx", "5xx")
