"""Prefill beside the rounds: pieces of some sequences at a time, on a stream of low priority.

Launching a model's eager forward takes the host longer than a round may wait, so on CUDA a thread
of its own does it, and it takes much the same time for one sequence as for many. Nothing waits for
a piece: the step loop asks now and then whether it is done. A piece does not hold up rounds by its
length: the device runs theirs between any two of its kernels.
"""

from __future__ import annotations

import itertools
import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from rayspec.draft.rounds.rows import Row
from rayspec.draft.rounds.staging import Staging
from rayspec.draft.rounds.streams import own_stream
from rayspec.draft.vllm_model.base import Chunks, DraftModel

__all__ = ["Part", "Piece", "Prefiller", "next_piece"]

logger = logging.getLogger(__name__)

# A row whose target wants no drafts for now is this far behind at least before it is prefilled.
_LEAST_UNASKED: Final = 32
_SWITCH_S: Final = 200e-6
# The requests of a target's step are told one after the other, and two pieces for them take twice
# as long as one. Those that keep coming are not waited for.
_GATHER_S: Final = 300e-6
_GATHER_MOST_S: Final = 1e-3


@dataclass(slots=True, eq=False)
class Part:
    """Positions `start` to `end` of a row whose KV is being written."""

    row: Row
    start: int
    end: int
    dropped: bool = False  # the row's sequence left meanwhile

    @property
    def readies(self) -> bool:
        """Whether its row can draft as soon as it is published."""
        return not self.dropped and self.row.length - self.end <= self.row.reach


@dataclass(slots=True, eq=False)
class Piece:
    """What is prefilled in one forward."""

    parts: list[Part]
    failed: bool = False
    launched: threading.Event = field(default_factory=threading.Event)
    after: Any = None  # event on the round stream: tokens and blocks are there
    finish: Any = None

    def part_of(self, row: Row) -> Part | None:
        """Return the part that a row has in it."""
        return next((part for part in self.parts if part.row is row), None)


def next_piece(rows: Sequence[Row], most: int) -> Piece | None:
    """Return what to prefill: of the rows closest to being ready first, at most `most` tokens.

    A target that wants no drafts for now is kept up in larger steps, not token by token.
    """
    parts: list[Part] = []
    for row in sorted(filter(_is_due, rows), key=lambda row: row.gap):
        count = min(row.gap, most)
        if count <= 0:
            break
        parts.append(Part(row, row.filled, row.filled + count))
        most -= count
    return Piece(parts) if parts else None


def _is_due(row: Row) -> bool:
    least = row.reach if row.owner.k_want and row.sequence.k else max(row.reach, _LEAST_UNASKED)
    behind = row.behind and row.gap > least
    return behind and not row.broken and row.length <= min(row.limit, row.owner.max_len)


class Prefiller:
    """Runs pieces one after the other, each of at most `most` tokens."""

    def __init__(
        self, model: DraftModel, tokens: torch.Tensor, tables: torch.Tensor, most: int
    ) -> None:
        self.most = most
        self.current: Piece | None = None
        self._model = model
        self._tokens = tokens
        self._tables = tables
        self._cuda = model.device.type == "cuda"
        self._jobs: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stream: Any = None
        # When the newest sequence did, and the first of those that came with it.
        self._came = self._first = -_GATHER_MOST_S
        # A token is in two lists of a piece, and a sequence in three.
        words = 5 * most + 1
        self._staging = Staging(2 * words, model.device)
        self._words = torch.zeros(words, dtype=torch.int32, device=model.device)

    def start(self) -> None:
        """Run the largest pieces once, so that memory and kernels are there; start the thread."""
        if self._cuda:
            self._stream = own_stream(self._model.device)
            # The allocator keeps memory by stream: the pieces' own has to have it.
            self._stream.wait_stream(torch.cuda.current_stream(self._model.device))
            with torch.cuda.stream(self._stream):
                self._warm_up()
            # The step loop must get its turn between two calls of this thread, not after 5 ms.
            sys.setswitchinterval(_SWITCH_S)
            self._thread = threading.Thread(
                target=self._run, name="rayspec-draft-prefill", daemon=True
            )
            self._thread.start()
        else:
            self._warm_up()

    def came(self) -> None:
        """A sequence begins, and more may follow at once."""
        now = time.perf_counter()
        if now - self._came >= _GATHER_S:
            self._first = now
        self._came = now

    @property
    def gathering(self) -> bool:
        """Whether the next piece had better wait a moment for more sequences."""
        now = time.perf_counter()
        return now - self._came < _GATHER_S and now - self._first < _GATHER_MOST_S

    @property
    def readies(self) -> bool:
        """Whether the end of the piece under way, or of the one to come, lets sequences draft."""
        if self.current is None:
            return self.gathering
        return any(part.readies for part in self.current.parts)

    def submit(self, piece: Piece, after: Any) -> None:
        """Begin a piece once the event `after`, if any, is reached; there is one at a time."""
        self.current = piece
        piece.after = after
        if self._cuda:
            self._jobs.put(piece)
        else:
            self._write(piece)
            piece.launched.set()

    def take_done(self) -> Piece | None:
        """Return the piece if its KV is written, once."""
        piece = self.current
        if piece is None or not piece.launched.is_set():
            return None
        if self._cuda and not piece.failed and not piece.finish.query():
            return None
        self.current = None
        return piece

    def stop(self) -> None:
        """End the thread; idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _warm_up(self) -> None:
        """Prefill the spare row, whose blocks are block 0: its content counts for nothing."""
        spare = len(self._tables) - 1
        longest = min(self._tokens.shape[1], self._tables.shape[1] * self._model.block_size)
        for spans in _largest(self.most, longest):
            self._model.prefill(self._chunks([spare] * len(spans), spans))

    def _run(self) -> None:
        torch.cuda.set_device(self._model.device)
        with torch.cuda.stream(self._stream):
            while (piece := self._jobs.get()) is not None:
                if piece.after is not None:
                    self._stream.wait_event(piece.after)
                piece.finish = torch.cuda.Event()
                self._write(piece)
                piece.finish.record()
                piece.launched.set()

    def _write(self, piece: Piece) -> None:
        rows = [part.row.index for part in piece.parts]
        spans = [(part.start, part.end) for part in piece.parts]
        try:
            self._model.prefill(self._chunks(rows, spans))
        except Exception:
            logger.exception("prefill failed")
            piece.failed = True

    def _chunks(self, rows: Sequence[int], spans: Sequence[tuple[int, int]]) -> Chunks:
        """Bring what a piece consists of to the device, on the current stream."""
        counts = [end - start for start, end in spans]
        lists = (
            np.repeat(np.arange(len(rows)), counts),
            np.concatenate([np.arange(*span) for span in spans]),
            [0, *itertools.accumulate(counts)],
            [end for _, end in spans],
            rows,
        )
        words = np.concatenate(lists).astype(np.int32)
        self._staging.upload(words, self._words)
        owner, positions, starts, seq_lens, indices = self._words[: len(words)].split(
            [len(part) for part in lists]
        )
        owner, positions, indices = owner.long(), positions.long(), indices.long()
        return Chunks(
            spans=tuple(spans),
            ids=self._tokens[indices[owner], positions],
            positions=positions,
            owner=owner,
            starts=starts,
            seq_lens=seq_lens,
            block_table=self._tables[indices],
        )


def _largest(most: int, longest: int) -> Iterator[list[tuple[int, int]]]:
    """Yield spans that take all the memory a piece can: few long ones, and many short ones."""
    for length in (min(most, longest), min(_LEAST_UNASKED, most, longest)):
        yield [(0, length)]
        yield [(0, length)] * (most // length)
