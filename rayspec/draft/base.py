"""What every kind of draft does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rayspec.draft.counters import DraftCounters
from rayspec.draft.mirror import DraftSequence

if TYPE_CHECKING:
    from rayspec.draft.loop import Loop

__all__ = ["DeviceDrafter", "DraftRequest", "Drafter"]


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Up to `k` tokens are wanted after `sequence.tokens`."""

    sequence: DraftSequence
    k: int


class Drafter(Protocol):
    """Proposes continuations; owned by one thread.

    A sequence is announced by `add` and let go by `drop`; between the two its token list grows.
    """

    def start(self) -> None:
        """Get ready to draft; may take long."""

    def add(self, sequence: DraftSequence) -> None:
        """A sequence begins; nothing expensive happens here."""

    def drop(self, sequence: DraftSequence) -> None:
        """A sequence ended."""

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Return up to `k` tokens for each request; none where it is not ready yet."""

    def work(self) -> bool:
        """Do one short piece of preparation (prefill, indexing); False when there is none left."""

    def close(self) -> None:
        """Release everything; idempotent."""


@runtime_checkable
class DeviceDrafter(Protocol):
    """Drafts for frames in device memory, so it brings a step loop of its own."""

    def loop(self, counters: DraftCounters, *, k_max: int, max_slots: int) -> Loop[Any]:
        """Return the loop, for targets of up to so many drafts and slots."""
