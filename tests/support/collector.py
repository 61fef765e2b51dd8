"""A collector of OpenTelemetry: OTLP over HTTP, decoded with the protocol's own types."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Listens on loopback and keeps what comes."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, list[Any]] = {}
        self.resource: dict[str, Any] = {}
        self.headers: list[Any] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.status == 200:
                    collector.take(self.path, body)
                    collector.headers.append(self.headers)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def take(self, path: str, body: bytes) -> None:
        """Decode what came."""
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resource = attributes(resource.resource)
                for scope in resource.scope_spans:
                    assert scope.scope.name == "fairlead"
                    self.spans.extend(scope.spans)
        elif path == "/v1/metrics":
            for shown in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope_ in shown.scope_metrics:
                    for metric in scope_.metrics:
                        assert metric.WhichOneof("data") == "histogram"
                        self.metrics[metric.name] = list(metric.histogram.data_points)
        else:
            raise AssertionError(path)

    def __enter__(self) -> "Collector":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def attributes(holder: Any) -> dict[str, Any]:
    """Read attributes as Python values."""
    return {a.key: value(a.value) for a in holder.attributes}


def value(any_value: Any) -> Any:
    """Read one."""
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(v) for v in any_value.array_value.values]
    return getattr(any_value, kind)
