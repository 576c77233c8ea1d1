"""The host's side of rows: which sequence has which row, and how far its KV is known to reach."""

from __future__ import annotations

from dataclasses import dataclass, field

from rayspec.draft.mirror import DraftSequence
from rayspec.draft.rounds.spec import STRIDE

__all__ = ["Row", "TargetSlots"]


@dataclass(slots=True, eq=False)
class TargetSlots:
    """The part of the slot map that belongs to one target."""

    base: int
    slots: int
    k_max: int
    max_len: int
    vocab_size: int
    epoch: int
    sparse: bool
    k_want: int  # of the newest frame, or what is to be expected


@dataclass(slots=True, eq=False)
class Row:
    """A sequence with a row of the state, and blocks for some of its positions.

    `behind` means that the device lets the sequence sit out the next step until a catch-up or
    prefill has written its KV: nothing but the host changes `filled` then. `since` is the first
    round whose report knows what the host did. `widths` are those of catch-ups, in tokens.
    """

    index: int
    sequence: DraftSequence
    owner: TargetSlots
    blocks: list[int] = field(default_factory=list)
    widths: tuple[int, ...] = ()
    filled: int = 0
    behind: bool = True
    since: int = 0
    limit: int = 0  # positions for which it has blocks

    broken: bool = False  # its prefill failed: not tried again

    @property
    def length(self) -> int:
        """Tokens of the sequence, all of which the device has by now, or soon in its order."""
        return len(self.sequence.tokens)

    @property
    def gap(self) -> int:
        """Tokens without KV, as far as the host knows: no fewer than there are."""
        return self.length - self.filled

    @property
    def reach(self) -> int:
        """Tokens without KV that need no prefill."""
        return max((width for width in self.widths if width <= self.length), default=STRIDE)

    def width_for(self, gap: int) -> int:
        """Return how wide a catch-up that makes up for `gap` tokens is; 0 if none does."""
        fit = (width for width in self.widths if gap <= width <= self.length)
        return min(fit, default=0)
