"""What the draft knows about one target's sequences; the token lists here are the truth."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rayspec.errors import LinkError
from rayspec.link.protocol import (
    ALL_SLOTS,
    T2D,
    Add,
    Delete,
    Hello,
    MirrorMessage,
    Nack,
    Reset,
    SetK,
    TokenHash,
    sequence_checksum,
)

__all__ = ["DraftSequence", "Mirror"]

logger = logging.getLogger(__name__)

_uids = itertools.count(1)


@dataclass(slots=True, eq=False)
class DraftSequence:
    """One live request. `tokens` only ever grows, so caches may remember how far they looked."""

    slot: int
    gen: int
    k: int
    temperature: float
    seed: int | None
    tokens: list[int]
    uid: int = field(default_factory=lambda: next(_uids))
    hash: TokenHash = field(init=False)

    def __post_init__(self) -> None:
        self.hash = TokenHash(self.tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append what the target produced."""
        self.tokens.extend(tokens)
        self.hash.extend(tokens)


class Mirror:
    """Slots of one target. Tells `on_add` and `on_drop`, so that a drafter can follow.

    `on_change` is told of a sequence whose draft length changed.
    """

    def __init__(
        self,
        hello: Hello,
        *,
        on_add: Callable[[DraftSequence], None],
        on_drop: Callable[[DraftSequence], None],
        on_change: Callable[[DraftSequence], None] | None = None,
    ) -> None:
        self._hello = hello
        self._on_change = on_change
        self._on_add = on_add
        self._on_drop = on_drop
        self._slots: dict[int, DraftSequence] = {}
        # Rejections are told once, until the target sends the slot, or everything, again.
        self._rejected: set[tuple[int, int]] = set()
        self._awaits_reset = False

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, slot: int, gen: int) -> DraftSequence | None:
        """Return the sequence of this generation in a slot."""
        sequence = self._slots.get(slot)
        return sequence if sequence is not None and sequence.gen == gen else None

    def checksum(self) -> int:
        """Return the checksum over all live sequences."""
        return sequence_checksum((s.slot, s.gen, s.hash) for s in self._slots.values())

    def apply(self, message: MirrorMessage) -> None:
        """Apply one control message; raises LinkError when it cannot be meant."""
        match message:
            case Reset():
                self.clear()
                self._awaits_reset = False
            case Add():
                self._add(message)
            case Delete(slot=slot, gen=gen):
                if self.get(slot, gen) is not None:
                    self._drop(slot)
            case SetK(slot=slot, gen=gen, k=k):
                sequence = self.get(slot, gen)
                if sequence is not None:
                    sequence.k = k
                    if self._on_change is not None:
                        self._on_change(sequence)

    def apply_step(self, step: T2D) -> list[Nack]:
        """Append the step's outcomes; return what does not fit to this mirror."""
        if self._awaits_reset:
            return []
        nacks = []
        for row in step.rows:
            sequence = self.get(row.slot, row.gen)
            if sequence is None:
                nacks += self._reject(row.slot, row.gen, "unknown slot or generation")
            elif not self._in_vocabulary(row.tokens):
                self._drop(row.slot)
                nacks += self._reject(row.slot, row.gen, "token outside of the vocabulary")
            else:
                sequence.extend(row.tokens)
        if not nacks and step.checksum is not None and step.checksum != self.checksum():
            self._awaits_reset = True
            nacks.append(Nack(ALL_SLOTS, 0, f"checksum differs at step {step.step}"))
        return nacks

    def wanted(self, step: T2D) -> list[tuple[DraftSequence, int]]:
        """Return the sequences of a step with the number of drafts each may get, if any."""
        if self._awaits_reset:
            return []
        hello = self._hello
        wanted = []
        for row in step.rows:
            sequence = self.get(row.slot, row.gen)
            if sequence is None:
                continue
            room = hello.max_len - len(sequence.tokens)
            k = min(step.k_want, sequence.k, hello.k_max, room)
            if k > 0 and sequence.tokens:
                wanted.append((sequence, k))
        return wanted

    def clear(self) -> None:
        """Drop every sequence."""
        for slot in list(self._slots):
            self._drop(slot)
        self._rejected.clear()

    def _add(self, message: Add) -> None:
        if not 0 <= message.slot < self._hello.slots:
            raise LinkError(f"slot {message.slot} of a target with {self._hello.slots} slots")
        if len(message.tokens) > self._hello.max_len:
            raise LinkError(
                f"{len(message.tokens)} tokens, at most {self._hello.max_len} are allowed"
            )
        if not self._in_vocabulary(message.tokens):
            raise LinkError(f"slot {message.slot} has a token outside of the vocabulary")
        if message.slot in self._slots:
            self._drop(message.slot)
        self._rejected = {key for key in self._rejected if key[0] != message.slot}
        sequence = DraftSequence(
            message.slot,
            message.gen,
            message.k,
            message.temperature,
            message.seed,
            list(message.tokens),
        )
        self._slots[message.slot] = sequence
        self._on_add(sequence)

    def _drop(self, slot: int) -> None:
        self._on_drop(self._slots.pop(slot))

    def _reject(self, slot: int, gen: int, why: str) -> list[Nack]:
        if (slot, gen) in self._rejected:
            return []
        self._rejected.add((slot, gen))
        return [Nack(slot, gen, why)]

    def _in_vocabulary(self, tokens: Sequence[int]) -> bool:
        return not tokens or (min(tokens) >= 0 and max(tokens) < self._hello.vocab_size)
