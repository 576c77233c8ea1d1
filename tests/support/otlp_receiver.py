"""A process that keeps in a file the spans that a collector exports to it by OTLP over HTTP."""

from __future__ import annotations

import argparse
import gzip
import json
import signal
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.common.v1 import common_pb2 as common


class Spans:
    """Appends what comes in to a file, one span a line; whole lines only."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def add(self, request: service.ExportTraceServiceRequest) -> None:
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


def http_server(spans: Spans) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found = self.path == "/v1/traces"
            if found:
                spans.add(service.ExportTraceServiceRequest.FromString(body))
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
    parser.add_argument("--port", type=Path, required=True, help="gets the port, once it listens")
    options = parser.parse_args()
    server = http_server(Spans(options.spans))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    written = options.port.with_suffix(".part")
    written.write_text(str(server.server_port))
    written.rename(options.port)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
