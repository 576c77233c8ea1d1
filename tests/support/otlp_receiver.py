"""A process that receives spans as an OTLP collector does, over HTTP and gRPC, into a file.

The OpenTelemetry collector itself is a Go program that no package registry we use has. This speaks
the same protocol, by OpenTelemetry's own message and service definitions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.common.v1 import common_pb2 as common


class Spans:
    """Appends what comes in to a file, one span a line; whole lines only."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def add(self, request: service.ExportTraceServiceRequest, protocol: str) -> None:
        lines = [
            {
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "parent_id": span.parent_span_id.hex(),
                "name": span.name,
                "kind": span.kind,
                "scope": scope.scope.name,
                "resource": _attributes(resource.resource.attributes),
                "attributes": _attributes(span.attributes),
                "start_ns": span.start_time_unix_nano,
                "end_ns": span.end_time_unix_nano,
                "status": span.status.code,
                "message": span.status.message,
                "protocol": protocol,
            }
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._file.write("".join(json.dumps(line) + "\n" for line in lines))


def _attributes(pairs: Iterable[common.KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return None if kind is None else getattr(value, kind)


class TraceService(rpc.TraceServiceServicer):
    """OTLP over gRPC."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def Export(
        self, request: service.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> service.ExportTraceServiceResponse:
        self._spans.add(request, "grpc")
        return service.ExportTraceServiceResponse()


def http_server(spans: Spans) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found = self.path == "/v1/traces"
            if found:
                spans.add(service.ExportTraceServiceRequest.FromString(body), "http")
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=Path, required=True)
    parser.add_argument("--ports", type=Path, required=True)
    options = parser.parse_args()
    spans = Spans(options.spans)
    over_grpc = grpc.server(ThreadPoolExecutor(2))
    rpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
        TraceService(spans), over_grpc
    )
    grpc_port = over_grpc.add_insecure_port("127.0.0.1:0")
    over_grpc.start()
    over_http = http_server(spans)
    threading.Thread(target=over_http.serve_forever, daemon=True).start()
    written = options.ports.with_suffix(".part")
    written.write_text(json.dumps({"grpc": grpc_port, "http/protobuf": over_http.server_port}))
    written.rename(options.ports)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
