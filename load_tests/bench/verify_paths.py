"""Ways to verify the same batch: our kernels, vLLM's path and FlashInfer's kernels.

Each function returns a callable that verifies a `tests.support.verify_cases.Case` on its device.
vLLM's path is read at 0.32.0: parameters are gathered for every row, applied to a float32 copy of
the logits, and `rejection_sample` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from rayspec.ops.batch import Batch
from rayspec.ops.verify import verify
from tests.support.verify_cases import Case

__all__ = ["flashinfer_path", "limited", "our_path", "vllm_path"]

Result = tuple[torch.Tensor, torch.Tensor]


def limited(given: Case) -> Batch:
    """Return the batch with the limits that anybody has: what an engine knows on the host."""
    mine = given.slot_of.long()
    return replace(
        given,
        top_k=given.top_k if bool((given.top_k[mine] < given.logits.shape[1]).any()) else None,
        top_p=given.top_p if bool((given.top_p[mine] < 1).any()) else None,
        min_p=given.min_p if bool((given.min_p[mine] > 0).any()) else None,
    )


def our_path(given: Case) -> Callable[[], Result]:
    """Return the verification by our kernels."""
    batch = limited(given)
    return lambda: verify(batch)


def vllm_path(given: Case) -> Callable[[], Result]:
    """Return what vLLM's `Sampler.apply_sampling_params` and `rejection_sample` do."""
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
    from vllm.v1.worker.gpu.sample.gumbel import apply_temperature
    from vllm.v1.worker.gpu.sample.min_p import apply_min_p
    from vllm.v1.worker.gpu.spec_decode.rejection_sampler_utils import rejection_sample

    counts = given.cu_num_logits.diff().long()
    slots = given.slot_of.repeat_interleave(counts)
    places = torch.cat([torch.arange(int(n)) for n in counts]).to(slots)
    mine = given.slot_of.long()
    # What vLLM looks up on the host.
    warm = bool(((given.temperature[mine] != 0) & (given.temperature[mine] != 1)).any())
    random = bool((given.temperature[mine] != 0).any())
    min_p = bool((given.min_p[mine] > 0).any())
    top_k = bool((given.top_k[mine] < given.logits.shape[1]).any())
    top_p = bool((given.top_p[mine] < 1).any())

    def run() -> Result:
        logits = given.logits
        if random and (warm or min_p or top_k or top_p):
            logits = torch.empty_like(logits, dtype=torch.float32).copy_(logits)
            if warm:
                apply_temperature(logits, slots, given.temperature)
            if min_p:
                apply_min_p(logits, slots, given.min_p)
            if top_k or top_p:
                k = given.top_k[slots] if top_k else None
                p = given.top_p[slots] if top_p else None
                logits = apply_top_k_top_p(logits, k, p)
        sampled, num_sampled = rejection_sample(
            logits,
            None,
            given.draft_ids,
            given.cu_num_logits,
            given.positions,
            given.slot_of,
            slots,
            places,
            given.temperature,
            given.seeds,
            given.k_max,
        )
        return sampled, num_sampled

    return run


def flashinfer_path(given: Case) -> Callable[[], Any]:
    """Return FlashInfer's way: probabilities, renormalised, then chain verification.

    For batches whose requests have as many drafts each and the same parameters. Raises where
    FlashInfer cannot be had.
    """
    flashinfer = import_module("flashinfer")

    batch, k = given.slot_of.shape[0], given.k_max
    vocab = given.logits.shape[1]
    slot = int(given.slot_of[0])
    temperature = float(given.temperature[slot])
    top_k, top_p = int(given.top_k[slot]), float(given.top_p[slot])
    drafts = given.draft_ids.view(batch, k + 1)[:, 1:].contiguous()
    certain = torch.zeros((batch, k, vocab), device=given.logits.device)
    certain.scatter_(2, drafts.long()[:, :, None], 1.0)

    def run() -> Any:
        probs = torch.softmax(given.logits.float() / max(temperature, 1e-5), dim=-1)
        if top_k < vocab:
            probs = flashinfer.sampling.top_k_renorm_probs(probs, top_k)
        if top_p < 1:
            probs = flashinfer.sampling.top_p_renorm_probs(probs, top_p)
        return flashinfer.sampling.chain_speculative_sampling(
            certain, drafts, probs.view(batch, k + 1, vocab)
        )

    return run
