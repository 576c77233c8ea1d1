"""Small uploads that never make the host wait: a ring of pinned memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["Staging"]


class Staging:
    """Copies host values to the device on the current stream, in the order of the calls.

    The ring is two halves; one is written again only when the copies out of it have run. It is all
    the pinned memory there is: taking more can wait for the device, and so for a silent peer.
    """

    def __init__(self, words: int, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._half = words
        self._words = torch.empty(2 * words, dtype=torch.int32, pin_memory=self._pinned)
        self._view = self._words.numpy()
        self._used = 0
        self._turn = 0
        self._done = [torch.cuda.Event(), torch.cuda.Event()] if self._pinned else []

    @property
    def most(self) -> int:
        """Words that one upload may have."""
        return self._half

    def upload(self, values: Sequence[int] | np.ndarray, into: torch.Tensor) -> None:
        """Copy int32 values into a contiguous tensor of as many words or more."""
        count = len(values)
        if self._used + count > self._half:
            self._turn_over()
        start = self._turn * self._half + self._used
        self._view[start : start + count] = values
        self._used += count
        into[:count].copy_(self._words[start : start + count], non_blocking=True)

    def _turn_over(self) -> None:
        if self._pinned:
            self._done[self._turn].record()
        self._turn = 1 - self._turn
        self._used = 0
        if self._pinned:
            self._done[self._turn].synchronize()
