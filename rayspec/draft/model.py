"""Drafts with any transformers causal LM, many sequences in one forward.

Prefill runs in the pauses between rounds, in pieces sized so that a round that arrives meanwhile
waits for `piece_s` at most.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from rayspec.draft.base import DraftRequest
from rayspec.draft.forward import Forward, Row, load_model
from rayspec.draft.kv import Cell, CellPool
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.vocabulary import read_token_ids

__all__ = ["ModelDrafter", "ModelDrafterSpec"]

logger = logging.getLogger(__name__)

# On a CPU a forward of 32 tokens takes little longer than one of a single token.
_SMALLEST_PIECE: Final = 32
_LARGEST_PIECE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDrafterSpec:
    """Which model drafts, for how many sequences, and with how much of the machine.

    A sequence that misses more than `catch_up` tokens is prefilled in the background and drafts
    nothing until then. `threads` limits torch in this process; None takes half of the cores on a
    CPU, because the target computes there too and two pools on the same cores wait for each other.
    `vocab_trim` is a file of the token ids that may be drafted.
    """

    path: str
    slots: int = 16
    max_len: int = 2048
    device: str = "cpu"
    dtype: str = "auto"
    threads: int | None = None
    catch_up: int = 16
    piece_s: float = 0.05
    vocab_trim: str | None = None


class ModelDrafter:
    """Greedy drafts of a model; its KV cache follows the mirror."""

    def __init__(
        self, spec: ModelDrafterSpec, load: Callable[[ModelDrafterSpec], Any] | None = None
    ) -> None:
        self._spec = spec
        self._load = load or _load
        self._forward: Forward | None = None
        self._pool = CellPool(spec.slots)
        self._piece = _SMALLEST_PIECE

    def start(self) -> None:
        """Load the model and run it once, so that the first round is as fast as the others."""
        spec = self._spec
        if spec.device == "cpu":
            torch.set_num_threads(spec.threads or max(1, len(os.sched_getaffinity(0)) // 2))
        model, ids = self._load(spec), None
        if spec.vocab_trim is not None:
            ids = read_token_ids(spec.vocab_trim, model.config.get_text_config().vocab_size)
        forward = Forward(model, cells=spec.slots, max_len=spec.max_len, token_ids=ids)
        with torch.inference_mode():
            forward.fill(Row(0, 0, [0] * _SMALLEST_PIECE))
            forward.greedy([Row(0, 0, [0])], [2])
        self._forward = forward

    def add(self, sequence: DraftSequence) -> None:
        """Find a cell; what it shares with the sequence needs no prefill."""
        self._pool.add(sequence)

    def drop(self, sequence: DraftSequence) -> None:
        """Free the cell."""
        self._pool.drop(sequence)

    @torch.inference_mode()
    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Draft all requests that are caught up, in forwards over all of them."""
        drafts: list[list[int]] = [[] for _ in requests]
        ready: list[tuple[int, int, Cell]] = []  # drafts wanted, place, cell
        for place, request in enumerate(requests):
            cell = self._pool.get(request.sequence)
            k = min(request.k, self._spec.max_len - len(request.sequence.tokens))
            if cell is not None and k > 0 and cell.settle() <= self._spec.catch_up:
                ready.append((k, place, cell))
        if not ready:
            return drafts
        # Most drafts first, so that rows leave from the end; then by cell, to be neighbours.
        ready.sort(key=lambda entry: (-entry[0], entry[2].index))
        rows = [Row(cell.index, cell.filled, cell.tokens[cell.filled :]) for _, _, cell in ready]
        results = self._engine.greedy(rows, [k for k, _, _ in ready])
        for (_, place, cell), row, result in zip(ready, rows, results, strict=True):
            cell.advance(len(row.tokens))
            cell.drafted(result[:-1])
            drafts[place] = result
        return drafts

    @torch.inference_mode()
    def work(self) -> bool:
        """Prefill a piece of the sequence that is closest to being ready."""
        behind = [(missing, cell) for cell in self._pool.used if (missing := self._backlog(cell))]
        if not behind:
            return False
        missing, cell = min(behind, key=lambda entry: entry[0])
        count = min(missing, self._piece)
        began = time.perf_counter()
        tokens = cell.tokens[cell.filled : cell.filled + count]
        self._engine.fill(Row(cell.index, cell.filled, tokens))
        cell.advance(count)
        if count == self._piece:
            self._resize(time.perf_counter() - began)
        return len(behind) > 1 or count < missing

    def close(self) -> None:
        """Let go of model and cache."""
        self._forward = None

    @property
    def _engine(self) -> Forward:
        if self._forward is None:
            raise RuntimeError("the drafter was not started")
        return self._forward

    def _backlog(self, cell: Cell) -> int:
        """Tokens to prefill: all but those that the next round computes anyway."""
        length = len(cell.tokens)
        if length - cell.filled <= self._spec.catch_up or length > self._spec.max_len:
            return 0
        missing = cell.settle()
        return missing - 1 if missing > self._spec.catch_up else 0

    def _resize(self, took_s: float) -> None:
        """Move the piece towards the largest power of two that stays below `piece_s`."""
        if took_s > self._spec.piece_s:
            self._piece = max(_SMALLEST_PIECE, self._piece // 2)
        elif took_s < self._spec.piece_s / 3:
            self._piece = min(_LARGEST_PIECE, self._piece * 2)


def _load(spec: ModelDrafterSpec) -> Any:
    return load_model(spec.path, device=spec.device, dtype=spec.dtype)
