"""Drafting on vLLM's Model Runner V2, carried by `method="ngram_gpu"`. Read at vLLM 0.32.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.distributed.parallel_state import get_tp_group
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator

from rayspec.link.spec import LinkSpec
from rayspec.ops.outcome import Outcome
from rayspec.ops.sparse_q import DenseDraftLogits
from rayspec.vllm_ext.exchange import Shard
from rayspec.vllm_ext.guard import Guard
from rayspec.vllm_ext.params import drafting_params

__all__ = ["RemoteSpeculator", "StateTokens"]


class StateTokens:
    """`DeviceTokens` over the V2 runner's request states."""

    def __init__(self, states: Any) -> None:
        self._states = states

    def tokens(self, slot: int) -> list[int]:
        """Return all tokens of a slot; waits for the device."""
        length = int(self._states.total_len.gpu[slot])
        tokens: list[int] = self._states.all_token_ids.gpu[slot, :length].tolist()
        return tokens


class RemoteSpeculator(BaseSpeculator):
    """Proposes what the drafts at the other ends of the links say, without the host looking.

    Every tensor-parallel rank holds one; rank 0 alone has shards, and one broadcast a step makes
    the drafts equal. Rows without drafts carry the last sampled token, a valid id that the target
    will mostly reject: -1 would reach the embedding table.
    """

    supports_mm_inputs = False

    def __init__(
        self,
        spec: LinkSpec,
        device: torch.device,
        states: Any,
        shards: Sequence[Shard],
        guard: Guard,
        candidate: Shard | None = None,
    ) -> None:
        self._spec = spec
        self._states = states
        self._shards = shards
        self._candidate = candidate
        self._guard = guard
        self._shard_of: dict[str, Shard] = {}
        self.num_speculative_steps = spec.k_max
        # Row = position in the batch; the last column counts the drafts that are not fillers.
        size = (spec.slots, spec.k_max + 1)
        self._drafts = torch.zeros(size, dtype=torch.int64, device=device)
        self._q: torch.Tensor | None = None
        self._dense: DenseDraftLogits | None = None
        self.draft_logits: torch.Tensor | None = None
        if spec.q_size is not None:
            self._q = torch.zeros(spec.q_size, dtype=torch.int32, device=device)
            self._dense = DenseDraftLogits(
                spec.slots, spec.k_max, spec.vocab_size, spec.q_top, device
            )
            self.draft_logits = self._dense.logits

    @property
    def sparse_q(self) -> DenseDraftLogits | None:
        """What the newest drafts were drawn from, if they were."""
        return self._dense

    @property
    def n_valid(self) -> torch.Tensor:
        """Drafts per row of the newest batch that are not fillers, [max_num_seqs]."""
        return self._drafts[:, self._spec.k_max]

    def init_cudagraph_manager(self, cudagraph_mode: Any) -> None:
        """Nothing to capture: drafting runs elsewhere."""

    def capture(self) -> None:
        """Nothing to capture: drafting runs elsewhere."""

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Load every kernel: loading one while a reply is awaited would wait for the draft."""
        device = self._drafts.device
        states = self._states
        one = torch.zeros(1, dtype=torch.int32, device=device)
        slot_of = torch.zeros(1, dtype=torch.int64, device=device)
        outcome = Outcome(
            1,
            slot_of,
            one,
            one,
            states.all_token_ids.gpu,
            states.total_len.gpu,
            states.last_sampled_tokens,
        )
        for shard in self._all():
            shard.warm_up(outcome, self._drafts, self._q)
        self._fill(1, slot_of, states.last_sampled_tokens)
        temperature = torch.zeros(self._spec.slots, dtype=torch.float32, device=device)
        self._share(1, slot_of, temperature)

    def before_execute(self, scheduler_output: Any) -> None:
        """Let go of requests while the runner still knows their slots."""
        for ids in (scheduler_output.finished_req_ids, scheduler_output.preempted_req_ids or ()):
            for req_id in ids:
                self._release(req_id)

    def after_execute(self, scheduler_output: Any) -> None:
        """Follow new and resumed requests, which have their slots now."""
        if not self._shards:
            return
        for new in scheduler_output.scheduled_new_reqs:
            if new.prompt_token_ids is None:
                continue
            self._release(new.req_id)
            slot: int = self._states.req_id_to_index[new.req_id]
            params = drafting_params(new.sampling_params)
            shard = self._shards[slot % len(self._shards)]
            if params.candidate and self._candidate is not None:
                shard = self._candidate
            self._shard_of[new.req_id] = shard
            shard.session.admit(new.req_id, slot, params, new.prefill_token_ids)

    def after_sample(self, output: Any) -> None:
        """Nothing to do: vLLM calls `propose` in every step."""

    @torch.inference_mode()
    def propose(
        self,
        input_batch: Any,
        attn_metadata: Any,
        slot_mappings: Any,
        last_hidden_states: torch.Tensor,
        aux_hidden_states: list[torch.Tensor] | None,
        num_sampled: torch.Tensor,
        num_rejected: torch.Tensor,
        last_sampled: torch.Tensor,
        next_prefill_tokens: torch.Tensor,
        temperature: torch.Tensor,
        seeds: torch.Tensor,
        dp_sync_state: Any = None,
        dummy_run: bool = False,
        skip_attn_for_dummy_run: bool = False,
        mm_inputs: Any = None,
        is_profile: bool = False,
        num_speculative_tokens: int | None = None,
    ) -> torch.Tensor:
        """Return drafts for every row of the batch, [B, K]."""
        rows: int = input_batch.num_reqs
        drafts = self._drafts[:rows, : self._spec.k_max]
        if dummy_run or is_profile:
            return drafts
        slot_of = input_batch.idx_mapping
        if self._shards:
            outcome = Outcome(
                rows,
                slot_of,
                num_sampled,
                num_rejected,
                self._states.all_token_ids.gpu,
                self._states.total_len.gpu,
                last_sampled,
            )
            k = self._spec.k_max if num_speculative_tokens is None else num_speculative_tokens
            with self._guard("propose"):
                try:
                    self._exchange(outcome, min(k, self._spec.k_max), _samples(input_batch))
                except Exception:
                    self._fill(rows, slot_of, last_sampled)
                    for shard in self._all():
                        shard.session.invalidate()
                    raise
        self._share(rows, slot_of, temperature)
        return drafts

    def _exchange(self, outcome: Outcome, k: int, sampled: bool) -> None:
        """Ask every draft before the first answer is awaited.

        The candidate's rows are written over the fillers that the others leave there; it takes no
        part while it has none.
        """
        busy = self._candidate is not None and self._candidate.session.live > 0
        shards = self._all() if busy else self._shards
        for shard in shards:
            shard.tell(outcome, k, sampled=sampled)
        for shard in shards:
            shard.fetch(self._drafts, self._q, outcome, k)

    def _all(self) -> Sequence[Shard]:
        return self._shards if self._candidate is None else [*self._shards, self._candidate]

    def _fill(self, rows: int, slot_of: torch.Tensor, last_sampled: torch.Tensor) -> None:
        fillers = last_sampled.view(-1, 1)[slot_of[:rows]]
        self._drafts[:rows, : self._spec.k_max] = fillers
        self.n_valid.zero_()

    def _share(self, rows: int, slot_of: torch.Tensor, temperature: torch.Tensor) -> None:
        """Make the drafts of rank 0 everybody's; every rank takes part in every step."""
        group = get_tp_group()
        if group.world_size > 1:
            # Whole static buffers: their size says nothing about the batch.
            group.broadcast(self._drafts, src=0)
            if self._q is not None:
                group.broadcast(self._q, src=0)
        if self._dense is not None and self._q is not None:
            self._dense.scatter(self._drafts, self._q, slot_of, rows, temperature)

    def _release(self, req_id: str) -> None:
        shard = self._shard_of.pop(req_id, None)
        if shard is not None:
            shard.session.release(req_id)


def _samples(input_batch: Any) -> bool:
    """Whether any request of the batch may be past its prefill after this step."""
    reached = input_batch.num_computed_prefill_tokens_np + input_batch.num_scheduled_tokens
    return bool((reached >= input_batch.prefill_len_np).any())
