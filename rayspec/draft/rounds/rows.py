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

    `late` means that a usual round does not make up for what has no KV, but one with a wide first
    pass may. `behind` means that none does, and the device lets the sequence sit out until its KV
    is prefilled: nothing but the host changes `filled` then. `since` is the first round whose
    report knows what the host did. `widest` is how many tokens the widest first pass takes.
    """

    index: int
    sequence: DraftSequence
    owner: TargetSlots
    blocks: list[int] = field(default_factory=list)
    widest: int = STRIDE
    filled: int = 0
    late: bool = True
    behind: bool = True
    since: int = 0
    limit: int = 0  # positions for which it has blocks

    broken: bool = False  # its prefill failed: not tried again

    @property
    def length(self) -> int:
        """Tokens of the sequence, all of which the device has by now, or soon in its order."""
        return len(self.sequence.tokens)

    @property
    def reach(self) -> int:
        """Tokens without KV that some round makes up for; a wide first pass needs as many."""
        return self.widest if self.length >= self.widest else STRIDE

    @property
    def waits(self) -> bool:
        """Whether a round with a wide first pass, and no other, lets it draft."""
        owner, length = self.owner, self.length
        return (
            self.late
            and not self.behind
            and self.sequence.k > 0
            and self.widest <= length < owner.max_len
            and length <= self.limit
        )
