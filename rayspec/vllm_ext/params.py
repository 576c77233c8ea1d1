"""What a request says about drafting, and what a vLLM configuration says about the link."""

from __future__ import annotations

from typing import Any

from rayspec.link.spec import LinkSpec
from rayspec.routing.names import CANDIDATE, DRAFT_ARG, K_ARG
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.session import DraftingParams

__all__ = ["asked_k", "drafting_params", "link_spec"]


def asked_k(sampling_params: Any) -> int | None:
    """Read `extra_args["rayspec.k"]` of vLLM's SamplingParams; None is the configured K.

    Anything but a non-negative integer counts as not given: a request is never failed here.
    """
    if sampling_params is None:
        return 0
    k = (sampling_params.extra_args or {}).get(K_ARG)
    return None if isinstance(k, bool) or not isinstance(k, int) or k < 0 else k


def drafting_params(sampling_params: Any) -> DraftingParams:
    """Read what matters to a draft of vLLM's SamplingParams."""
    if sampling_params is None:
        return DraftingParams(k=0)
    k = asked_k(sampling_params)
    named = (sampling_params.extra_args or {}).get(DRAFT_ARG) == CANDIDATE
    return DraftingParams(k, float(sampling_params.temperature), sampling_params.seed, named)


def link_spec(vllm_config: Any, ext: ExtConfig) -> LinkSpec:
    """Return the link that fits an engine of this configuration."""
    return LinkSpec(
        slots=vllm_config.scheduler_config.max_num_seqs,
        k_max=vllm_config.speculative_config.num_speculative_tokens,
        vocab_size=vllm_config.model_config.get_vocab_size(),
        max_len=vllm_config.model_config.max_model_len,
        tokenizer_hash=ext.tokenizer_hash,
        deadline_s=ext.deadline_s,
        checksum=ext.checksum,
        transport=ext.transport,
        q_mode=ext.q_mode,
        q_top=ext.q_top,
        ping_interval_s=ext.ping_interval_s,
        pong_timeout_s=ext.pong_timeout_s,
    )
