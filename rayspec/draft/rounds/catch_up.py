"""Catches up with what sequences missed: KV of their newest tokens, as one launch between rounds.

A sequence falls behind by the tokens of the steps that it sat out, most of them while its prompt
was prefilled. Another piece of prefill would take the host so long that it fell behind again; this
is a CUDA graph, and runs while the target computes its next step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import torch

from rayspec.draft.rounds.kernels import begin_catch_up
from rayspec.draft.rounds.rows import Row
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.rounds.staging import Staging
from rayspec.draft.rounds.state import SlotState
from rayspec.draft.vllm_model.base import DecodePlan, DraftModel

__all__ = ["CatchUps", "choose"]

logger = logging.getLogger(__name__)

# Sequences of one launch: more would keep the next round waiting for longer than a step.
_MOST: Final = 16
_BUCKETS: Final = (1, 4, _MOST)
_TABLE_CHUNK: Final = 256


def choose(rows: Iterable[Row], under_way: int) -> tuple[list[Row], int]:
    """Return which rows to catch up with in one launch, the nearest first, and how wide it is.

    `under_way` is how many tokens a row may have got that nobody has told the host of. The width
    is 0 if there are no such rows.
    """
    due = [(row, row.width_for(row.gap + under_way)) for row in rows if _is_due(row)]
    nearest = sorted((pair for pair in due if pair[1]), key=lambda pair: pair[0].gap)[:_MOST]
    width = max((width for _, width in nearest), default=0)
    # Those too short for the widest of them have the next launch.
    return [row for row, _ in nearest if row.length >= width], width


def _is_due(row: Row) -> bool:
    # Without a wish for drafts a row is kept within reach, not up to date.
    asked = row.owner.k_want and row.sequence.k
    fits = row.length <= min(row.limit, row.owner.max_len)
    return row.behind and fits and bool(asked or row.gap >= row.reach // 2)


class CatchUps:
    """The launches, for some numbers of sequences and every width that the rounds know."""

    def __init__(self, spec: RoundsSpec, model: DraftModel, state: SlotState) -> None:
        self._spec = spec
        self._model = model
        self._state = state
        self._widths = spec.widths(model)
        self._buckets = sorted({min(size, spec.rows) for size in _BUCKETS})
        most = self._buckets[-1]
        self._rows = torch.full((most,), -1, dtype=torch.int32, device=model.device)
        self._staging = Staging(8 * most, model.device)
        # A graph holds none of the buffers that it was captured over.
        self._plans: dict[tuple[int, int], DecodePlan] = {}
        self._launches: dict[tuple[int, int], Callable[[], None]] = {}

    def prepare(self, stream: torch.cuda.Stream | None, pool: Any) -> None:
        """Make every launch; graphs take their memory from `pool`, as all on this stream may."""
        began = time.perf_counter()
        for width in reversed(self._widths):
            for bucket in reversed(self._buckets):
                plan = self._plans[bucket, width] = self._model.plan(bucket, width)
                self._launches[bucket, width] = self._launch(plan, stream, pool)
        logger.info("%d catch-ups in %.1f s", len(self._launches), time.perf_counter() - began)

    def run(self, rows: Sequence[Row], width: int) -> None:
        """Write the KV of the newest `width` tokens of the rows, on the current stream.

        A row that turns out to lack more is left as it is.
        """
        bucket = next(size for size in self._buckets if size >= len(rows))
        indices = [row.index for row in rows] + [-1] * (bucket - len(rows))
        self._staging.upload(indices, self._rows)
        self._launches[bucket, width]()

    def _launch(
        self, plan: DecodePlan, stream: torch.cuda.Stream | None, pool: Any
    ) -> Callable[[], None]:
        body = partial(self._body, plan)
        if stream is None:
            return body
        with torch.cuda.stream(stream):
            for _ in range(2):  # some libraries settle for an algorithm at their second call
                body()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            body()
        replay: Callable[[], None] = graph.replay
        return replay

    def _body(self, plan: DecodePlan) -> None:
        state = self._state
        begin_catch_up[(plan.rows,)](
            self._rows,
            state.gen,
            state.length,
            state.kv_len,
            state.limit,
            state.tokens,
            state.tables,
            plan.input_ids,
            plan.positions,
            plan.seq_lens,
            plan.block_table,
            plan.slot_mapping,
            state.tokens.stride(0),
            state.tables.stride(0),
            plan.block_table.stride(0),
            self._spec.rows,
            BLOCK_SIZE=self._model.block_size,
            MAX_BLOCKS=state.tables.shape[1],
            CHUNK=_TABLE_CHUNK,
            WIDTH=plan.width,
        )
        plan.run()  # its logits are nobody's
