"""Drafting on vLLM's Model Runner V2, carried by `method="ngram_gpu"`. Read at vLLM 0.32.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from vllm.distributed.parallel_state import get_tp_group
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator

from rayspec.vllm_ext.guard import Guard
from rayspec.vllm_ext.params import drafting_params
from rayspec.vllm_ext.session import TargetSession

__all__ = ["RemoteSpeculator", "StateTokens"]


class StateTokens:
    """`TokenSource` over the V2 runner's request states, which live on the device."""

    def __init__(self, states: Any) -> None:
        self._states = states
        # Tokens of the requests that arrived with the step being run: known to the host, so that
        # telling the draft about them does not wait for the device.
        self.arriving: dict[str, Sequence[int]] = {}
        self._lengths: dict[str, int] = {}

    def read_lengths(self, req_ids: Sequence[str], slots: torch.Tensor) -> None:
        """Fetch the lengths of a batch in one copy; they hold for the rest of the step."""
        self.arriving.clear()
        self._lengths = dict(zip(req_ids, self._states.total_len.gpu[slots].tolist(), strict=True))

    def forget_lengths(self) -> None:
        """Drop what `read_lengths` fetched."""
        self._lengths.clear()

    def slot(self, req_id: str) -> int:
        """Return a request's slot, which it keeps until it finishes or is preempted."""
        slot: int = self._states.req_id_to_index[req_id]
        return slot

    def length(self, req_id: str) -> int | None:
        """Return how many tokens a request has; None for unknown ones."""
        if (tokens := self.arriving.get(req_id)) is not None:
            return len(tokens)
        if (length := self._lengths.get(req_id)) is not None:
            return length
        slot = self._states.req_id_to_index.get(req_id)
        return None if slot is None else int(self._states.total_len.gpu[slot])

    def tokens(self, req_id: str, start: int) -> list[int]:
        """Return a request's tokens from `start` on."""
        if (tokens := self.arriving.get(req_id)) is not None:
            return list(tokens[start:])
        slot = self._states.req_id_to_index[req_id]
        length = self.length(req_id)
        fresh: list[int] = self._states.all_token_ids.gpu[slot, start:length].tolist()
        return fresh


class RemoteSpeculator(BaseSpeculator):
    """Proposes what the draft at the other end of the link says.

    Every tensor-parallel rank holds one; rank 0 alone has a session, and one broadcast a step
    makes the drafts equal. Rows without drafts carry the last sampled token, a valid id that the
    target will mostly reject: -1 would reach the embedding table.
    """

    supports_mm_inputs = False
    draft_logits = None

    def __init__(
        self,
        vllm_config: Any,
        device: torch.device,
        tokens: StateTokens,
        session: TargetSession | None,
        guard: Guard,
    ) -> None:
        self._k_max: int = vllm_config.speculative_config.num_speculative_tokens
        self.num_speculative_steps = self._k_max
        self._tokens = tokens
        self._session = session
        self._guard = guard
        # Row = position in the batch; the last column counts the drafts that are not fillers.
        slots: int = vllm_config.scheduler_config.max_num_seqs
        self._drafts = torch.zeros((slots, self._k_max + 1), dtype=torch.int64, device=device)

    @property
    def n_valid(self) -> torch.Tensor:
        """Drafts per row of the newest batch that are not fillers, [max_num_seqs]."""
        return self._drafts[:, self._k_max]

    def init_cudagraph_manager(self, cudagraph_mode: Any) -> None:
        """Nothing to capture: drafting runs elsewhere."""

    def capture(self) -> None:
        """Nothing to capture: drafting runs elsewhere."""

    def before_execute(self, scheduler_output: Any) -> None:
        """Let go of requests while the runner still knows their slots."""
        session = self._session
        if session is None:
            return
        session.counters.schedule(
            {r: len(d) for r, d in scheduler_output.scheduled_spec_decode_tokens.items()}
        )
        for req_id in scheduler_output.finished_req_ids:
            session.release(req_id)
        for req_id in scheduler_output.preempted_req_ids or ():
            session.release(req_id)

    def after_execute(self, scheduler_output: Any) -> None:
        """Follow new and resumed requests, which have their slots now."""
        session = self._session
        if session is None:
            return
        for new in scheduler_output.scheduled_new_reqs:
            if new.prompt_token_ids is None:
                continue
            self._tokens.arriving[new.req_id] = new.prefill_token_ids
            slot = self._tokens.slot(new.req_id)
            session.admit(new.req_id, slot, drafting_params(new.sampling_params))

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
        drafts = self._drafts[:rows, : self._k_max]
        if dummy_run or is_profile:
            return drafts
        drafts.copy_(last_sampled[input_batch.idx_mapping].expand(rows, self._k_max))
        self.n_valid.zero_()
        if self._session is not None:
            with self._guard("propose"):
                try:
                    k = self._k_max if num_speculative_tokens is None else num_speculative_tokens
                    self._fill(input_batch.req_ids, self._ask(input_batch, num_sampled, k))
                except Exception:
                    self._session.invalidate()
                    raise
        group = get_tp_group()
        if group.world_size > 1:
            # The whole static buffer, and outside the guard: every rank must take part in it.
            group.broadcast(self._drafts, src=0)
        return drafts

    def _ask(
        self, input_batch: Any, num_sampled: torch.Tensor, k: int
    ) -> Mapping[str, Sequence[int]]:
        """Exchange this step over the link, through the host.

        The seam for a link between devices: everything before this call and after it stays on the
        device; this one reads the outcome on the host.
        """
        session = self._session
        if session is None:
            return {}
        req_ids: list[str] = input_batch.req_ids
        sampling = []
        for req_id, sampled in zip(req_ids, num_sampled.tolist(), strict=False):
            if sampled:
                session.counters.verify(req_id, sampled)
                sampling.append(req_id)
        self._tokens.read_lengths(req_ids, input_batch.idx_mapping)
        try:
            answer = session.step(sampling, min(k, self._k_max))
        finally:
            self._tokens.forget_lengths()
        for req_id, tokens in answer.items():
            session.counters.propose(req_id, len(tokens))
        return answer

    def _fill(self, req_ids: Sequence[str], answer: Mapping[str, Sequence[int]]) -> None:
        for row, req_id in enumerate(req_ids):
            if tokens := answer.get(req_id):
                values = torch.tensor(tokens, dtype=torch.int64)
                self._drafts[row, : len(tokens)] = values.to(self._drafts.device)
                self._drafts[row, self._k_max] = len(tokens)
