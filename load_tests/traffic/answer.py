"""Reads a streamed answer, line by line, and tells what a user saw of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "error_text"]

_SHOWN = 200


def error_text(status: int, body: bytes) -> str:
    """Return an OpenAI error as one line: what Locust counts failures by."""
    try:
        error = json.loads(body)["error"]
        told = f"{error['type']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        told = body.decode(errors="replace") or "no body"
    return f"{status} {told}"[:_SHOWN]


@dataclass(slots=True)
class Answer:
    """One streamed answer; times are those of `clock`, in seconds."""

    clock: Callable[[], float] = time.perf_counter
    lane: str = "none"
    recognised: str = "none"
    reason: str = "none"
    sent: float = 0.0
    first: float | None = None
    first_tokens: int = 0
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    text: str = ""
    finish_reason: str | None = None
    done: bool = False
    failure: str | None = None

    def begin(self) -> None:
        """Start the clock."""
        self.sent = self.last = self.clock()

    def headers(self, headers: Mapping[str, str]) -> None:
        """Note what the application says it did with the request."""
        self.lane = headers.get("x-rayspec-lane") or "none"
        self.recognised = headers.get("x-rayspec-class") or "none"
        self.reason = (headers.get("x-rayspec-reason") or "none").partition(" ")[0]

    def line(self, line: bytes) -> int:
        """Read one line of the stream; return how many tokens it brought."""
        if not line.startswith(b"data: "):
            return 0
        data = line[6:].strip()
        if data == b"[DONE]":
            self.done = True
            return 0
        event = json.loads(data)
        if "error" in event:
            self.failure = error_text(200, data)
            return 0
        self._usage(event)
        tokens = 0
        for choice in event["choices"]:
            delta = choice.get("delta", {}).get("content")
            self.text += delta or ""
            # A server without `return_token_ids` is read as one token a chunk.
            ids = choice.get("token_ids")
            tokens += len(ids) if ids is not None else bool(delta)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if tokens:
            self._arrived(tokens)
        return tokens

    def _usage(self, event: Mapping[str, Any]) -> None:
        if usage := event.get("usage"):
            self.prompt_tokens = usage["prompt_tokens"]
            self.output_tokens = usage["completion_tokens"]
        facts = (event.get("metrics") or {}).get("speculative_decoding") or {}
        self.drafted = facts.get("num_draft_tokens", self.drafted)
        self.accepted = facts.get("num_accepted_draft_tokens", self.accepted)

    def _arrived(self, tokens: int) -> None:
        now = self.clock()
        if self.first is None:
            self.first, self.first_tokens = now, tokens
        else:
            self.gaps.append((now - self.last) * 1e3)
        self.last = now
        self.tokens += tokens

    @property
    def error(self) -> str | None:
        """Why the answer is not whole; None when it is."""
        if self.failure is None and not (self.done and self.finish_reason):
            return "the stream ended before the answer"
        return self.failure

    @property
    def ttft_ms(self) -> float | None:
        """Time to the first token."""
        return None if self.first is None else (self.first - self.sent) * 1e3

    @property
    def tpot_ms(self) -> float | None:
        """Time per token after the first chunk; None where nothing followed it."""
        later = self.tokens - self.first_tokens
        return (self.last - self.first) / later * 1e3 if self.first is not None and later else None

    @property
    def e2e_ms(self) -> float:
        """Time to the last token."""
        return (self.last - self.sent) * 1e3

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of the whole time that the user waited."""
        return self.tokens / self.e2e_ms * 1e3 if self.tokens and self.e2e_ms else None

    @property
    def acceptance(self) -> float | None:
        """Share of the draft tokens that were accepted; None without drafts."""
        return self.accepted / self.drafted if self.drafted else None
