"""Prefill beside the rounds: pieces of one sequence at a time, on a stream of low priority.

Launching a model's eager forward takes the host longer than a round may wait, so on CUDA a thread
of its own does it. Nothing waits for a piece: the step loop asks now and then whether it is done.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from rayspec.draft.rounds.rows import Row
from rayspec.draft.rounds.streams import own_stream
from rayspec.draft.vllm_model.base import DraftModel

__all__ = ["Piece", "Prefiller", "next_piece"]

logger = logging.getLogger(__name__)

_SMALLEST: Final = 32
_LARGEST: Final = 1024
_SWITCH_S: Final = 200e-6


@dataclass(slots=True, eq=False)
class Piece:
    """Positions `start` to `end` of a row whose KV is being written."""

    row: Row
    start: int
    end: int
    dropped: bool = False  # the row's sequence left meanwhile
    failed: bool = False
    launched: threading.Event = field(default_factory=threading.Event)
    after: Any = None  # event on the round stream: tokens and blocks are there
    begin: Any = None
    finish: Any = None
    took_us: float | None = None


def next_piece(rows: list[Row], most: int) -> Piece | None:
    """Return what to prefill: of the row closest to being ready, at most `most` tokens.

    A target that wants no drafts for now is kept up in larger steps, not token by token.
    """
    best: Row | None = None
    for row in rows:
        missing = row.length - row.filled
        least = 2 if row.owner.k_want and row.sequence.k else _SMALLEST  # tokens
        if (
            row.broken
            or not row.behind
            or missing <= least
            or row.length > min(row.limit, row.owner.max_len)
        ):
            continue
        if best is None or missing < best.length - best.filled:
            best = row
    if best is None:
        return None
    return Piece(best, best.filled, min(best.length, best.filled + most))


class Prefiller:
    """Runs pieces one after the other, and sizes them by how long they took."""

    def __init__(
        self,
        model: DraftModel,
        tokens: torch.Tensor,
        tables: torch.Tensor,
        piece_us: float,
    ) -> None:
        self._model = model
        self._tokens = tokens
        self._tables = tables
        self._piece_us = piece_us
        self._cuda = model.device.type == "cuda"
        self._jobs: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stream: Any = None
        self.size = _SMALLEST
        self.current: Piece | None = None

    def start(self) -> None:
        """Run the largest piece once, so that its memory and kernels are there; start the thread.

        Its blocks are those of the spare row: the content of block 0 counts for nothing.
        """
        if self._cuda:
            self._stream = own_stream(self._model.device)
            # The allocator keeps memory by stream: the pieces' own has to have it.
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

    def submit(self, piece: Piece, after: Any) -> None:
        """Begin a piece once the event `after` is reached; there is one at a time."""
        self.current = piece
        piece.after = after
        if self._cuda:
            self._jobs.put(piece)
        else:
            self._write(piece)

    def take_done(self) -> Piece | None:
        """Return the piece if its KV is written, once."""
        piece = self.current
        if piece is None or not piece.launched.is_set():
            return None
        if self._cuda and not piece.failed:
            if not piece.finish.query():
                return None
            piece.took_us = piece.begin.elapsed_time(piece.finish) * 1e3
        self.current = None
        self._resize(piece)
        return piece

    def stop(self) -> None:
        """End the thread; idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _warm_up(self) -> None:
        spare = len(self._tables) - 1
        longest = min(self._tokens.shape[1], self._tables.shape[1] * self._model.block_size)
        for size in sorted({min(size, longest) for size in (_SMALLEST, _LARGEST)}):
            self._model.prefill(self._tokens[spare, :size], 0, self._tables[spare])

    def _run(self) -> None:
        torch.cuda.set_device(self._model.device)
        with torch.cuda.stream(self._stream):
            while (piece := self._jobs.get()) is not None:
                self._stream.wait_event(piece.after)
                piece.begin = torch.cuda.Event(enable_timing=True)
                piece.finish = torch.cuda.Event(enable_timing=True)
                piece.begin.record()
                self._write(piece)
                piece.finish.record()
                piece.launched.set()

    def _write(self, piece: Piece) -> None:
        index = piece.row.index
        began = time.perf_counter()
        try:
            self._model.prefill(
                self._tokens[index, piece.start : piece.end], piece.start, self._tables[index]
            )
        except Exception:
            logger.exception("prefill failed")
            piece.failed = True
        if not self._cuda:
            piece.took_us = (time.perf_counter() - began) * 1e6
            piece.launched.set()

    def _resize(self, piece: Piece) -> None:
        """Move the size towards the largest power of two that stays below the aim."""
        took = piece.took_us
        if took is None or piece.end - piece.start < self.size:
            return
        if took > self._piece_us:
            self.size = max(_SMALLEST, self.size // 2)
        elif took < self._piece_us / 2.5:
            self.size = min(_LARGEST, self.size * 2)
