"""Admission over TCP for a draft that runs as a plain process: one JSON line each way."""

from __future__ import annotations

import json
import logging
import socketserver
import threading
from dataclasses import asdict
from typing import Any, Final

from rayspec.draft.server import DraftServer
from rayspec.errors import LinkRefused
from rayspec.link.protocol import Hello

__all__ = ["AdminServer"]

logger = logging.getLogger(__name__)

_MAX_LINE: Final = 1 << 16


class AdminServer:
    """Answers {"admit": hello} with a ticket or a refusal, and {"stats": true} with counters."""

    def __init__(self, server: DraftServer, host: str) -> None:
        class Handler(socketserver.StreamRequestHandler):
            timeout = 5.0

            def handle(self) -> None:
                try:
                    answer = _answer(server, json.loads(self.rfile.readline(_MAX_LINE)))
                except LinkRefused as error:
                    answer = {"refused": error.reason}
                except (ValueError, TypeError, OSError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

        self._tcp = socketserver.ThreadingTCPServer((host, 0), Handler)
        self._tcp.daemon_threads = True
        self.port = int(self._tcp.server_address[1])
        self._thread = threading.Thread(target=self._tcp.serve_forever, daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._tcp.shutdown()
        self._tcp.server_close()
        self._thread.join()


def _answer(server: DraftServer, request: Any) -> dict[str, Any]:
    match request:
        case {"admit": dict(fields)}:
            return {"ticket": asdict(server.admit(Hello(**fields)))}
        case {"stats": True}:
            return {"stats": asdict(server.stats())}
        case _:
            raise ValueError("expected admit or stats")
