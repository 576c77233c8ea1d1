"""What crosses between the ingress and a target replica.

A call is answered by a stream of one `Begin`, any number of body chunks (`bytes`), and one `End`.
Passive data: no Ray, no vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass

from rayspec.routing.types import EngineSnapshot

__all__ = ["Begin", "Call", "End", "Generation", "Headers"]

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to vLLM's own application inside a target replica.

    `trace` is the W3C context of the span at the ingress under which the replica goes on.
    """

    method: str
    path: str
    headers: Headers = ()
    body: bytes = b""
    trace: Headers = ()


@dataclass(frozen=True, slots=True)
class Begin:
    """Status and headers of the answer, sent once vLLM has accepted or refused the request."""

    status: int
    headers: Headers
    snapshot: EngineSnapshot

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of events."""
        kind = next((v for k, v in self.headers if k.lower() == "content-type"), "")
        return kind.startswith("text/event-stream")


@dataclass(frozen=True, slots=True)
class Generation:
    """What one call generated, summed over its choices.

    `drafted` and `accepted` count draft tokens, `steps` the target steps that verified some, and
    `by_accepted[j]` those of them that accepted j tokens. `finish_reasons` has one for each choice
    that ended, `first_token_s` is the time from the call to the first token, and `draft_step_s` how
    long the draft took for a step lately; None where there is no such thing.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    by_accepted: tuple[int, ...] = ()
    finish_reasons: tuple[str, ...] = ()
    first_token_s: float | None = None
    draft_step_s: float | None = None

    @property
    def acceptance(self) -> float | None:
        """The share of draft tokens that were accepted; None where nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_step(self) -> float | None:
        """Tokens that a step with drafts gave a sequence; None without such steps."""
        return 1 + self.accepted / self.steps if self.steps else None


@dataclass(frozen=True, slots=True)
class End:
    """Last item of every answer that was not cut off."""

    generation: Generation
    snapshot: EngineSnapshot
