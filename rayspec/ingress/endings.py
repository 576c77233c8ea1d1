"""How an answer ends early: the word for what cut it off, and what a stream's client is told."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rayspec.errors import RequestError, to_openai
from rayspec.ingress.deadline import RequestTimeout
from rayspec.ingress.lanes import LaneDown, LaneFull
from rayspec.telemetry.cancelled import CANCELLED, DISCONNECTED

__all__ = ["cause_of", "error_event"]


_CAUSES: Mapping[type[BaseException], str] = {
    LaneFull: "full",
    LaneDown: "down",
    RequestTimeout: "timeout",
    # A stream that its client leaves is closed, another answer cancelled.
    **dict.fromkeys(CANCELLED, DISCONNECTED),
}


def cause_of(error: BaseException) -> str:
    """Return one word for what cut an answer off; safe as a label."""
    # Ray raises what crossed from another process as an error that is also one of its own.
    return next((word for kind, word in _CAUSES.items() if isinstance(error, kind)), "error")


def error_event(error: RequestError) -> bytes:
    """Return the end of a stream that failed in its middle."""
    return b"data: " + json.dumps(to_openai(error)).encode() + b"\n\ndata: [DONE]\n\n"
