"""Verification by our kernels behind vLLM's `RejectionSampler`. Read at vLLM 0.32.0.

What the kernels do not cover goes vLLM's own way: whole batches where the engine is configured for
something else (block verification, synthetic acceptance, watermarks), where processed logprobs are
asked for or a logits processor of the user's is installed; and of the rest the penalties, biases,
bad words and thinking budgets, which vLLM applies to the logits before our kernels see them.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from vllm.config.model import PROCESSED_LOGPROBS_MODES
from vllm.v1.worker.gpu.input_batch import get_num_sampled_and_rejected
from vllm.v1.worker.gpu.metrics.logits import get_num_nans
from vllm.v1.worker.gpu.sample.bad_words import BadWordsState
from vllm.v1.worker.gpu.sample.logit_bias import LogitBiasState
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.penalties import PenaltiesState
from vllm.v1.worker.gpu.sample.states import NO_LOGPROBS
from vllm.v1.worker.gpu.spec_decode.rejection_sampler import (
    RejectionSampler,
    gather_draft_sampled,
    get_max_chunk_logits,
)

from rayspec.ops.verify import MOST_NAMED, Batch, verify

__all__ = ["FusedVerifier", "install"]

logger = logging.getLogger(__name__)


def install(runner: Any) -> bool:
    """Put our verification in the place of vLLM's; return whether it is there.

    Loads the kernels, and compiles them where that was not done before. Nothing changes where that
    fails or where vLLM is configured for something else.
    """
    theirs = runner.rejection_sampler
    reason = "no CUDA device" if runner.device.type != "cuda" else _unfit(theirs, runner.speculator)
    if reason is None:
        from rayspec.ops.loader import KernelError, load

        try:
            load(runner.device)
        except KernelError as exc:
            reason = str(exc)
    if reason is not None:
        logger.warning("vLLM verifies drafts: %s", reason)
        return False
    runner.rejection_sampler = FusedVerifier(theirs, getattr(runner.speculator, "sparse_q", None))
    logger.info("our kernels verify drafts")
    return True


def _unfit(theirs: Any, speculator: Any) -> str | None:
    if type(theirs) is not RejectionSampler:
        return f"a {type(theirs).__name__} is installed"
    if theirs.use_block_verification or theirs.synthetic_conditional_rates is not None:
        return "another rejection method is configured"
    if theirs.watermark_key is not None:
        return "watermarks are configured"
    sampler = theirs.sampler
    if sampler.use_fp64_gumbel or sampler.return_sampling_mask:
        return "float64 noise or sampling masks are configured"
    known = (LogitBiasState, PenaltiesState, BadWordsState)
    if any(type(processor) not in known for processor in sampler.logits_processors):
        return "logits processors are installed"
    q = getattr(speculator, "sparse_q", None)
    if q is not None and q.ids.shape[2] > MOST_NAMED:
        return f"drafts name more than {MOST_NAMED} tokens"
    return None


class FusedVerifier(RejectionSampler):
    """vLLM's rejection sampler whose usual way is our kernels.

    Randomness is keyed by a request's seed and the position, as in vLLM: each position is decided
    once, so nothing is drawn twice, and a seed gives the same text in every run. The kernels' third
    key, the step, stays 0. `enabled` False lets vLLM verify: after a failure of ours, for one.
    """

    def __init__(self, theirs: RejectionSampler, sparse_q: Any) -> None:
        # Everything that its constructor has worked out from the configuration.
        self.__dict__.update(theirs.__dict__)
        self._sparse_q = sparse_q
        self._step: torch.Tensor | None = None
        self.enabled = True

    def __call__(
        self,
        logits: torch.Tensor,
        input_batch: Any,
        draft_logits: torch.Tensor | None = None,
        invalid_drafts: torch.Tensor | None = None,
    ) -> SamplerOutput:
        """Return what vLLM's sampler returns."""
        if self._covers(logits, input_batch, draft_logits):
            try:
                return self._fused(logits, input_batch, draft_logits, invalid_drafts)
            except Exception:
                # Not worth an engine: vLLM's own path needs nothing of ours.
                logger.exception("our verification failed; vLLM verifies from now on")
                self.enabled = False
        return super().__call__(logits, input_batch, draft_logits, invalid_drafts)

    def _covers(
        self, logits: torch.Tensor, input_batch: Any, draft_logits: torch.Tensor | None
    ) -> bool:
        if not self.enabled or self.enable_adaptive_verification or logits.stride(-1) != 1:
            return False
        if draft_logits is not None and self._sparse_q is None:
            return False
        slots = input_batch.idx_mapping_np
        if self.sampler.logprobs_mode in PROCESSED_LOGPROBS_MODES:
            asked: int = self.sampler.sampling_states.max_num_logprobs(slots)
            return asked == int(NO_LOGPROBS)
        few = bool(logits.shape[0] <= get_max_chunk_logits(logits.shape[1]))
        return few or not self._needs_processing(slots)

    def _needs_processing(self, slots: np.ndarray) -> bool:
        """Whether any of the slots wants logits changed before temperature applies."""
        sampler = self.sampler
        if not np.any(sampler.needs_logits_processing[slots]):
            return False
        bias, penalties, bad_words = sampler.logits_processors
        thinking = sampler.thinking_budget_state
        return bool(
            np.any(bias.use_logit_bias[slots])
            or np.any(penalties.use_penalty[slots])
            or np.any(bad_words.num_bad_words.np[slots])
            or (thinking.enabled and np.any(thinking.use_thinking_budget[slots]))
        )

    def _fused(
        self,
        logits: torch.Tensor,
        batch: Any,
        draft_logits: torch.Tensor | None,
        invalid_drafts: torch.Tensor | None,
    ) -> SamplerOutput:
        sampler = self.sampler
        num_nans = get_num_nans(logits) if sampler.compute_nans else None
        prefill_len = sampler.req_states.prefill_len.gpu
        drafts, positions = gather_draft_sampled(
            batch.input_ids,
            batch.positions,
            batch.logits_indices,
            batch.expanded_idx_mapping,
            batch.expanded_local_pos,
            prefill_len,
        )
        slots = batch.idx_mapping_np
        processed = logits
        if self._needs_processing(slots):
            processed = self._process(logits, batch, drafts, positions)
        sampled, num_sampled = self._verify_fused(
            processed, batch, drafts, positions, draft_logits is not None, invalid_drafts
        )
        logprobs = self._get_logprobs_tensors(
            sampled,
            num_sampled,
            logits,
            batch.cu_num_logits,
            batch.cu_num_logits_np,
            sampler.sampling_states.max_num_logprobs(slots),
        )
        num_sampled, num_rejected = get_num_sampled_and_rejected(
            num_sampled, batch.seq_lens, batch.cu_num_logits, batch.idx_mapping, prefill_len
        )
        return SamplerOutput(
            sampled_token_ids=sampled,
            logprobs_tensors=logprobs,
            num_nans=num_nans,
            num_sampled=num_sampled,
            num_rejected=num_rejected,
        )

    def _process(
        self, logits: torch.Tensor, batch: Any, drafts: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Apply what comes before temperature to a copy, in vLLM's order."""
        logits = torch.empty_like(logits, dtype=torch.float32).copy_(logits)
        context = LogitsContext(
            expanded_idx_mapping=batch.expanded_idx_mapping,
            idx_mapping=batch.idx_mapping,
            idx_mapping_np=batch.idx_mapping_np,
            expanded_local_pos=batch.expanded_local_pos,
            input_ids=drafts,
            pos=positions,
            seq_lens_upper_bound_np=batch.seq_lens_cpu_upper_bound.numpy(),
        )
        for processor in self.sampler.logits_processors:
            logits = processor.apply(logits, context)
        self.sampler.thinking_budget_state.apply(logits, context)
        return logits

    def _verify_fused(
        self,
        logits: torch.Tensor,
        batch: Any,
        drafts: torch.Tensor,
        positions: torch.Tensor,
        sparse: bool,
        invalid: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._step is None:
            self._step = torch.zeros(1, dtype=torch.int64, device=logits.device)
        states, slots = self.sampler.sampling_states, batch.idx_mapping_np
        vocab = logits.shape[1]
        q = self._sparse_q if sparse else None
        return verify(
            Batch(
                logits,
                drafts.to(torch.int32),
                batch.cu_num_logits.to(torch.int32),
                batch.idx_mapping.to(torch.int32),
                states.temperature.gpu,
                states.top_k.gpu if np.any(states.top_k.np[slots] < vocab) else None,
                states.top_p.gpu if np.any(states.top_p.np[slots] < 1) else None,
                states.min_p.gpu if np.any(states.min_p.np[slots] > 0) else None,
                states.seeds.gpu,
                positions.to(torch.int64),
                self._step,
                self.num_speculative_steps,
                invalid=invalid,
                q_ids=None if q is None else q.ids,
                q_logits=None if q is None else q.weights,
            )
        )
