"""Runs Locust as a user does, and a server of answers that it can be run against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_locust(
    host: str, result: Path, *options: str, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the load test headless; its output is in the returned process."""
    environment = {k: v for k, v in os.environ.items() if k != "LOCUST_SKIP_MONKEY_PATCH"}
    file = ROOT / "load_tests" / "locustfile.py"
    command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--only-summary"]
    return subprocess.run(
        [*command, "--host", host, "--result", str(result), *options],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=result.parent,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class FakeServer(ThreadingHTTPServer):
    """Streams three tokens; texts differ and requests or streams fail as often as it is told."""

    daemon_threads = True

    def __init__(
        self, *, wrong_every: int = 0, refuse_every: int = 0, break_every: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wrong_every = wrong_every
        self.refuse_every = refuse_every
        self.break_every = break_every
        self.seen = 0
        self.counts: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_server(**how: int) -> Iterator[FakeServer]:
    server = FakeServer(**how)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stream_lines(
    tokens: Sequence[str], *, drafted: int = 4, accepted: int = 1, end: bool = True
) -> list[bytes]:
    """Return the lines of an answer as vLLM streams it."""
    first = {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    events: list[dict[str, Any]] = [{"choices": [first]}]
    for number, token in enumerate(tokens):
        last = number + 1 == len(tokens)
        choice = {
            "delta": {"content": token},
            "token_ids": [number] * (1 + last),
            "finish_reason": "stop" if last and end else None,
        }
        events.append({"choices": [choice]})
    events.append(
        {
            "choices": [],
            "usage": {"prompt_tokens": 10, "completion_tokens": len(tokens) + 1},
            "metrics": {
                "speculative_decoding": {
                    "num_draft_tokens": drafted,
                    "num_accepted_draft_tokens": accepted,
                }
            },
        }
    )
    lines = [b"data: " + json.dumps(event).encode() + b"\n" for event in events]
    return [*lines, b"\n", b"data: [DONE]\n"] if end else lines


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._whole(200, {"data": [{"id": "fake", "max_model_len": 512}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.seen += 1
            number = server.seen
            server.bodies.append(body)
            refused = server.refuse_every and number % server.refuse_every == 0
            broken = server.break_every and number % server.break_every == 0
            fate = "refused" if refused else "broken" if broken else "answered"
            server.counts[fate] += 1
        if refused:
            self._whole(429, {"error": {"type": "Overloaded", "message": "full", "code": 429}})
            return
        wrong = server.wrong_every and number % server.wrong_every == 0
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("x-rayspec-lane", "plain" if number % 2 else "speculative")
        self.send_header("x-rayspec-class", "chat")
        self.send_header("x-rayspec-reason", "faster 10 < 12")
        self.end_headers()
        for line in stream_lines(["a", "b", "other" if wrong else "c"]):
            threading.Event().wait(0.005)
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            if broken:
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def _whole(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
