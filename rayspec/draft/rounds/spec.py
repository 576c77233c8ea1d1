"""Settings of draft rounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from rayspec.draft.vllm_model.base import DraftModel
from rayspec.errors import ConfigError

__all__ = ["STRIDE", "RoundsSpec"]

# Tokens without KV that a sequence which drafts has at most when a round begins: the target's own,
# and the last draft if that was taken.
STRIDE: Final = 2
# Tokens without KV that a catch-up makes up for: in short sequences, and in others.
_WIDTHS: Final = (8, 32)

# Tokens of a step row and of a round's drafts, as powers of two that kernels are built for.
_LARGEST_K: Final = 62
_LARGEST_TOP: Final = 64
# Slots of a target that every place of a batch looks through at once.
_MOST_SLOTS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsSpec:
    """How many sequences draft, how far, and how their tokens are chosen.

    `rows` sequences have a KV cache at one time and those beyond wait. Up to `targets` targets are
    attached, with `targets` * `max_slots` slots together; every round looks at `max_slots`.
    `k_tiers` are the draft lengths that targets ask for, None if any up to `k_max`. With `top_m`
    the drafts of requests with a temperature are sampled from their `top_m` most likely tokens; 0
    drafts greedily. `kv_gib` None takes what `rows` sequences of `max_len` need, but at most half
    of the device's free memory. A piece of prefill has up to `piece_tokens` tokens, of as many
    sequences as have them.
    """

    rows: int = 16
    max_len: int = 2048
    k_max: int = 16
    max_slots: int = 1024
    targets: int = 4
    k_tiers: tuple[int, ...] | None = None
    top_m: int = 0
    kv_gib: float | None = None
    piece_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError("slots", self.rows, "must be at least 1")
        if not 1 <= self.k_max <= _LARGEST_K:
            raise ConfigError("k_max", self.k_max, f"must be 1 to {_LARGEST_K}")
        if not 1 <= self.max_slots <= _MOST_SLOTS:
            raise ConfigError("max_slots", self.max_slots, f"must be 1 to {_MOST_SLOTS}")
        if self.targets < 1:
            raise ConfigError("targets", self.targets, "must be at least 1")
        if self.max_len < 4:
            raise ConfigError("max_len", self.max_len, "must be at least 4")
        if self.piece_tokens < 1:
            raise ConfigError("piece_tokens", self.piece_tokens, "must be at least 1")
        if self.top_m and (self.top_m & (self.top_m - 1) or not 2 <= self.top_m <= _LARGEST_TOP):
            raise ConfigError("top_m", self.top_m, f"must be a power of two up to {_LARGEST_TOP}")

    def serving(self, *, k_max: int, max_slots: int) -> RoundsSpec:
        """Return the same for all that a server admits; ConfigError if that is too much."""
        return replace(self, k_max=k_max, max_slots=max_slots)

    def widths(self, model: DraftModel) -> tuple[int, ...]:
        """Return how many tokens of a sequence a catch-up may take; none if the model cannot."""
        most = min(model.widest, self.max_len // 2)
        return tuple(width for width in _WIDTHS if width <= most)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes for which a round is built: powers of two, and `rows` itself."""
        powers = [1 << bit for bit in range(self.rows.bit_length()) if 1 << bit < self.rows]
        return (*powers, self.rows)

    @property
    def tiers(self) -> tuple[int, ...]:
        """Draft lengths for which a round is built; one in between takes the next."""
        if self.k_tiers is not None:
            return tuple(sorted({*(k for k in self.k_tiers if 0 < k < self.k_max), self.k_max}))
        fine = range(1, min(self.k_max, 6) + 1)
        coarse = (k for k in (8, 12, 16, 24, 32, 48) if k < self.k_max)
        return tuple(sorted({*fine, *coarse, self.k_max}))
