"""Settings and statistics of a draft server."""

from __future__ import annotations

from dataclasses import dataclass

from rayspec.errors import LinkRefused
from rayspec.link.protocol import WIRE_VERSION, Hello

__all__ = ["DraftServerSpec", "DraftStats", "RoundStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftServerSpec:
    """What a draft serves. None for vocabulary or tokenizer means that any will do.

    `transports` and `q_top` are what the drafter is able to do: how frames may reach it, and of how
    many tokens it tells the weights with each sampled draft, 0 for none. The server sets them.
    """

    host: str = "127.0.0.1"
    vocab_size: int | None = None
    tokenizer_hash: str | None = None
    k_max: int = 16
    max_slots: int = 1024
    join_timeout_s: float = 30.0
    target_timeout_s: float = 60.0
    stall_timeout_s: float = 60.0
    transports: tuple[str, ...] = ("gloo",)
    q_top: int = 0

    def check(self, hello: Hello) -> None:
        """Raise LinkRefused, naming the difference, when a target does not fit to this draft."""
        if hello.version != WIRE_VERSION:
            raise LinkRefused(f"wire versions differ: target {hello.version}, draft {WIRE_VERSION}")
        if self.vocab_size is not None and hello.vocab_size != self.vocab_size:
            raise LinkRefused(
                f"vocabulary sizes differ: target {hello.vocab_size}, draft {self.vocab_size}"
            )
        if self.tokenizer_hash is not None and hello.tokenizer_hash != self.tokenizer_hash:
            raise LinkRefused(
                f"tokenizers differ: target {hello.tokenizer_hash or 'unknown'}, "
                f"draft {self.tokenizer_hash}"
            )
        if hello.transport not in self.transports:
            raise LinkRefused(
                f"transport {hello.transport!r} is not supported, only "
                + " and ".join(map(repr, self.transports))
            )
        if hello.q_mode not in ("none", "sparse") or (hello.q_mode == "sparse" and not self.q_top):
            raise LinkRefused(f"q_mode {hello.q_mode!r} is not supported, only 'none'")
        if hello.q_mode == "sparse" and hello.q_top != self.q_top:
            raise LinkRefused(
                f"target wants weights of {hello.q_top} tokens, draft gives {self.q_top}"
            )
        if not 0 < hello.k_max <= self.k_max:
            raise LinkRefused(f"target wants up to {hello.k_max} drafts, draft gives {self.k_max}")
        if not 0 < hello.slots <= self.max_slots:
            raise LinkRefused(f"target has {hello.slots} slots, draft serves {self.max_slots}")
        if hello.vocab_size < 1 or hello.max_len < 1 or not 0 <= hello.epoch < 2**31:
            raise LinkRefused(
                f"vocab_size {hello.vocab_size}, max_len {hello.max_len} or epoch {hello.epoch} "
                "is out of range"
            )


@dataclass(frozen=True, slots=True)
class RoundStats:
    """What rounds on a device counted; all zeros for drafts that are made on the host.

    `round` and `step` are device time, of a whole round and by draft, of the `rounds_drafted` that
    drafted at all; `launch` is host time from seeing a frame to having started its round, of all
    but the `rounds_ahead` that were launched before their frame was there. `rows_not_ready` counts
    rows of steps that got no drafts, `catch_ups` launches between rounds that wrote the KV of
    steps which sequences had sat out, `prefill_pieces` pieces of prefill, `rows_waiting` sequences
    without a KV cache.
    """

    round_ewma_us: float = 0.0
    round_p50_us: float = 0.0
    round_p99_us: float = 0.0
    round_sum_us: float = 0.0
    rounds_drafted: int = 0
    step_ewma_us: float = 0.0
    step_p50_us: float = 0.0
    launch_p50_us: float = 0.0
    launch_p99_us: float = 0.0
    rounds_ahead: int = 0
    rows_not_ready: int = 0
    catch_ups: int = 0
    prefill_pieces: int = 0
    prefill_failures: int = 0
    rows_used: int = 0
    rows_waiting: int = 0
    blocks_used: int = 0
    blocks_total: int = 0


@dataclass(frozen=True, slots=True)
class DraftStats:
    """Counters since the start, over all targets, and what is live now.

    `frames` counts steps told by targets and `rounds` the calls of the drafter; frames beyond
    `answered` were applied only, because newer ones were waiting. `mismatches` are checksums.
    """

    links: int
    sequences: int
    admitted: int
    refused: int
    frames: int
    answered: int
    rounds: int
    drafted_tokens: int
    nacks: int
    mismatches: int
    errors: int
    draft_ewma_us: float
    draft_p50_us: float
    draft_p99_us: float
    on_device: RoundStats = RoundStats()
