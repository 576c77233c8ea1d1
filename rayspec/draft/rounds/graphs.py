"""One round as one launch: a CUDA graph for each batch size and draft length.

On a CPU, where Triton's interpreter runs the kernels, the same calls are made directly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
import triton

from rayspec.draft.rounds.kernels import apply_frame, begin_batch, pack_reply
from rayspec.draft.rounds.layout import REPORT_WORDS, Order
from rayspec.draft.rounds.sampling import (
    choose_greedy,
    choose_sparse,
    partial_largest,
    partial_top,
)
from rayspec.draft.rounds.spec import STRIDE, RoundsSpec
from rayspec.draft.rounds.state import SlotState
from rayspec.draft.vllm_model.base import DecodePlan, DraftModel

__all__ = ["RoundGraphs"]

logger = logging.getLogger(__name__)

# Logits that one program reduces: 128 k of them keep 32 processors busy even for one sequence.
_CHUNK: Final = 4096
_TABLE_CHUNK: Final = 256


class RoundGraphs:
    """Everything a round touches has its place here or in the state, for good."""

    def __init__(self, spec: RoundsSpec, model: DraftModel, state: SlotState) -> None:
        self._spec = spec
        self._model = model
        self._state = state
        self._cuda = model.device.type == "cuda"
        device = model.device
        ids = model.token_ids
        self._columns = model.vocab_size if ids is None else len(ids)
        self._chunk = min(_CHUNK, max(triton.next_power_of_2(self._columns), spec.top_m))
        self._parts = triton.cdiv(self._columns, self._chunk)
        rows, top = spec.buckets[-1], spec.top_m

        def ints(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        self.order = torch.zeros(Order.WORDS, dtype=torch.int64, device=device)
        self.report = ints(spec.max_slots, REPORT_WORDS)
        self._want, self._given = ints(spec.max_slots), ints(spec.max_slots)
        self._batch_row, self._batch_slot = ints(rows), ints(rows)
        self._batch_k, self._batch_len = ints(rows), ints(rows)
        self._values = torch.zeros(rows, self._parts, device=device)
        self._places = ints(rows, self._parts)
        self._keys = torch.zeros(rows, self._parts, max(top, 1), dtype=torch.int64, device=device)
        self._token_ids = self._places if ids is None else ids
        self._plans: dict[int, tuple[DecodePlan, DecodePlan]] = {}
        self._launches: dict[tuple[int, int], Callable[[], None]] = {}

    def prepare(self, stream: torch.cuda.Stream | None, pool: Any) -> None:
        """Make the launch of every batch size and draft length; graphs take memory from `pool`.

        The largest comes first: the others then find their memory in the pool.
        """
        began = time.perf_counter()
        idle = torch.zeros(8, dtype=torch.int32, device=self._model.device)
        self.order[Order.FRAME], self.order[Order.WIDTH] = idle.data_ptr(), len(idle)
        for bucket in reversed(self._spec.buckets):
            self._plans[bucket] = self._model.plan(bucket, STRIDE), self._model.plan(bucket, 1)
            self._warm_up(bucket, stream)
            for k in reversed(self._spec.tiers):
                self._launches[bucket, k] = self._launch(bucket, k, pool, stream)
        self._warm_up(0, stream)
        self._launches[0, 0] = self._launch(0, 0, pool, stream)
        logger.info("%d rounds in %.1f s", len(self._launches), time.perf_counter() - began)

    def fit(self, rows: int, k: int) -> tuple[int, int]:
        """Return the batch size and draft length that a round for `rows` and `k` uses."""
        if not rows or not k:
            return 0, 0
        spec = self._spec
        bucket = next((size for size in spec.buckets if size >= rows), spec.buckets[-1])
        return bucket, next((tier for tier in spec.tiers if tier >= k), spec.tiers[-1])

    def launch(self, rows: int, k: int) -> None:
        """Start a round for up to `rows` sequences and `k` drafts, on the current stream.

        The order must have been written before, on the same stream. With nothing to draft the
        frame is taken up and the reply, if there is to be one, says that there are no drafts.
        """
        self._launches[self.fit(rows, k)]()

    def _warm_up(self, bucket: int, stream: torch.cuda.Stream | None) -> None:
        """Compile and load every kernel, which cannot happen during a capture."""
        if stream is not None:
            with torch.cuda.stream(stream):
                for _ in range(2):  # some libraries settle for an algorithm at their second call
                    self._body(bucket, min(2, self._spec.k_max))
            stream.synchronize()

    def _launch(
        self, bucket: int, k: int, pool: Any, stream: torch.cuda.Stream | None
    ) -> Callable[[], None]:
        if stream is None:
            return partial(self._body, bucket, k)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, for other things than this model.
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            self._body(bucket, k)
        replay: Callable[[], None] = graph.replay
        return replay

    def _body(self, bucket: int, k: int) -> None:
        spec, state = self._spec, self._state
        apply_frame[(spec.max_slots,)](
            self.order,
            state.slot_map,
            state.gen,
            state.length,
            state.kv_len,
            state.k_cap,
            state.limit,
            state.n_drafted,
            state.drafted,
            state.tokens,
            self._want,
            self._given,
            state.tokens.stride(0),
            K=spec.k_max,
            KP=triton.next_power_of_2(spec.k_max + 2),
            num_warps=1,
        )
        if bucket:
            wide, narrow = self._plans[bucket]
            self._begin(wide, narrow, k)
            self._choose(wide.run(), narrow, 0)
            for step in range(1, k):
                self._choose(narrow.run(), narrow, step)
        pack_reply[(spec.max_slots + 1,)](
            self.order,
            state.slot_map,
            state.gen,
            state.length,
            state.kv_len,
            state.drafted,
            self._given,
            self.report,
            K=spec.k_max,
            WP=triton.next_power_of_2(max(8, spec.k_max + 3)),
            num_warps=1,
        )

    def _begin(self, wide: DecodePlan, narrow: DecodePlan, k: int) -> None:
        spec, state = self._spec, self._state
        begin_batch[(wide.rows,)](
            self.order,
            state.slot_map,
            state.length,
            state.kv_len,
            state.n_drafted,
            state.tokens,
            state.tables,
            self._want,
            self._given,
            self._batch_row,
            self._batch_slot,
            self._batch_k,
            self._batch_len,
            wide.input_ids,
            wide.positions,
            wide.seq_lens,
            wide.block_table,
            wide.slot_mapping,
            narrow.block_table,
            state.tokens.stride(0),
            state.tables.stride(0),
            wide.block_table.stride(0),
            narrow.block_table.stride(0),
            spec.rows,
            k,
            SLOTS=spec.max_slots,
            SLOTS_P=triton.next_power_of_2(spec.max_slots),
            BLOCK_SIZE=self._model.block_size,
            MAX_BLOCKS=state.tables.shape[1],
            CHUNK=_TABLE_CHUNK,
        )

    def _choose(self, logits: torch.Tensor, narrow: DecodePlan, step: int) -> None:
        spec, state = self._spec, self._state
        grid = (narrow.rows, self._parts)
        following = (
            state.drafted,
            narrow.input_ids,
            narrow.positions,
            narrow.seq_lens,
            narrow.block_table,
            narrow.slot_mapping,
            step,
            self._parts,
        )
        static = {
            "HAS_IDS": self._model.token_ids is not None,
            "PARTS_P": triton.next_power_of_2(self._parts),
            "K": spec.k_max,
            "BLOCK_SIZE": self._model.block_size,
        }
        if not spec.top_m:
            partial_largest[grid](
                logits,
                self._values,
                self._places,
                logits.stride(0),
                self._columns,
                CHUNK=self._chunk,
            )
            choose_greedy[grid[:1]](
                self.order,
                self._values,
                self._places,
                self._token_ids,
                self._batch_row,
                self._batch_k,
                self._batch_len,
                *following,
                narrow.block_table.stride(0),
                **static,
                num_warps=1,
            )
            return
        partial_top[grid](
            self.order,
            logits,
            self._keys,
            self._batch_row,
            state.temperature,
            logits.stride(0),
            self._columns,
            CHUNK=self._chunk,
            M=spec.top_m,
            num_warps=8,
        )
        choose_sparse[grid[:1]](
            self.order,
            self._keys,
            self._token_ids,
            state.temperature,
            state.seed,
            self._batch_row,
            self._batch_slot,
            self._batch_k,
            self._batch_len,
            *following,
            self._columns,
            narrow.block_table.stride(0),
            M=spec.top_m,
            **static,
        )
