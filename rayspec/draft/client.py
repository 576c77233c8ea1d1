"""Talks to a draft that runs as a plain process."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from typing import Any, Final

from rayspec.errors import LinkClosed, LinkError, LinkRefused
from rayspec.link.protocol import Hello
from rayspec.link.ticket import Ticket

__all__ = ["admit", "stats"]

_TIMEOUT_S: Final = 30.0


def admit(address: tuple[str, int], hello: Hello) -> Ticket:
    """Ask for a ticket; raises LinkRefused naming what does not fit, LinkClosed without a draft."""
    answer = _ask(address, {"admit": asdict(hello)})
    if "refused" in answer:
        raise LinkRefused(answer["refused"])
    return Ticket(**answer["ticket"])


def stats(address: tuple[str, int]) -> dict[str, Any]:
    """Return the counters of the draft server as a dict."""
    counters: dict[str, Any] = _ask(address, {"stats": True})["stats"]
    return counters


def _ask(address: tuple[str, int], request: dict[str, Any]) -> dict[str, Any]:
    try:
        with socket.create_connection(address, timeout=_TIMEOUT_S) as sock:
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline() or b"{}")
    except (OSError, ValueError) as error:
        raise LinkClosed(f"no draft at {address[0]}:{address[1]}: {error}") from None
    if "error" in answer or not answer:
        raise LinkError(answer.get("error", "draft closed the connection"))
    return answer
