"""Rounds under way: their orders, reports and times, in memory that is taken once."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from rayspec.draft.rounds.layout import REPORT_WORDS, Order
from rayspec.draft.rounds.rows import TargetSlots

__all__ = ["Round", "RoundRing"]

# Rounds whose report was not taken up yet; each target has two at most.
_RING: Final = 32


@dataclass(slots=True, eq=False)
class Round:
    """A round that was started; `done` once its report arrived.

    One that waits on the device for its frame has no time `at` which it began, yet.
    """

    number: int
    owner: TargetSlots
    place: int  # in the rings
    told: int  # rows in its frame, or more while that has not arrived
    k: int
    at: float | None = field(default_factory=time.monotonic)
    done: bool = False
    drafted: int = 0  # tokens
    took_us: float = 0.0


class RoundRing:
    """Places for rounds: pinned memory and events of each, which a round has until it is done."""

    def __init__(self, max_slots: int, cuda: bool) -> None:
        self.orders = torch.zeros(_RING, Order.WORDS, dtype=torch.int64, pin_memory=cuda)
        self.reports = torch.zeros(
            _RING, max_slots, REPORT_WORDS, dtype=torch.int32, pin_memory=cuda
        )
        self.order_words = self.orders.numpy()
        self.report_words = self.reports.numpy()
        self.began = [_timer(cuda) for _ in range(_RING)]
        self.packed = [_timer(cuda) for _ in range(_RING)]
        self.ended = [_timer(cuda) for _ in range(_RING)]
        self._places = deque(range(_RING))

    @property
    def free(self) -> bool:
        """Whether there is a place."""
        return bool(self._places)

    def take(self) -> int:
        """Return a free place."""
        return self._places.popleft()

    def give_back(self, place: int) -> None:
        """Free the place of a round that is done."""
        self._places.append(place)

    def took_us(self, place: int) -> float:
        """Return the device's time from a round's order to its reply; it must have ended."""
        took_ms: float = self.began[place].elapsed_time(self.packed[place])
        return took_ms * 1e3


class _HostTimer:
    """What a CUDA event is on a CPU, where everything has run when its call returns."""

    def record(self) -> None:
        self._at = time.perf_counter()

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: _HostTimer) -> float:
        return (end._at - self._at) * 1e3


def _timer(cuda: bool) -> Any:
    return torch.cuda.Event(enable_timing=True) if cuda else _HostTimer()
