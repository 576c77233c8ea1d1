"""Says when streams have decoded together for long enough to tell what a step takes. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rayspec.planning.calibrate_client import Chunk

__all__ = ["Effort", "Watch"]

# How many times as long as wanted the quickest stream is looked at while others lag or never begin.
_PATIENCE: Final = 8


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a cell is looked at: so many steps and so many seconds, whichever is more.

    Every prompt length is measured `prefills` times.
    """

    steps: int = 16
    seconds: float = 1.0
    prefills: int = 3
    answer_tokens: int = 96


class Watch:
    """Looks at streams that grow until they have decoded together for long enough.

    On a machine that cannot keep up with as many, a stream may come to nothing while the others go
    on to their ends, for minutes: no stream is looked at for more than a few times of what is
    wanted. It is asked at every chunk, tens of thousands of times a second on GPUs: no sums over
    chunks.
    """

    def __init__(self, streams: Sequence[Sequence[Chunk]], effort: Effort) -> None:
        self.enough = asyncio.Event()
        self._streams = streams
        self._effort = effort
        self._began: float | None = None
        self._marks: list[int] = []

    def look(self) -> None:
        """Set `enough` if it is."""
        if self._told() or self._exhausted():
            self.enough.set()

    def _told(self) -> bool:
        if self._began is None:
            if all(self._streams):
                self._began = max(chunks[0].at for chunks in self._streams)
                self._marks = [len(chunks) for chunks in self._streams]
            return False
        steps = min(
            len(chunks) - mark for chunks, mark in zip(self._streams, self._marks, strict=True)
        )
        if steps < self._effort.steps:
            return False
        return min(chunks[-1].at for chunks in self._streams) - self._began >= self._effort.seconds

    def _exhausted(self) -> bool:
        quickest = max(self._streams, key=len)
        return (
            len(quickest) > _PATIENCE * self._effort.steps
            and quickest[-1].at - quickest[0].at > _PATIENCE * self._effort.seconds
        )
