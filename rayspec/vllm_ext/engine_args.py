"""Engine arguments that install rayspec into a vLLM engine, or leave it alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rayspec.vllm_ext import compat
from rayspec.vllm_ext.compat import Compat, Device
from rayspec.vllm_ext.config import ExtConfig

__all__ = ["own_draft_engine_args", "plain_engine_args", "speculative_engine_args"]

logger = logging.getLogger(__name__)

WORKERS: Mapping[str, str] = {
    "cpu": "rayspec.vllm_ext.worker_cpu.Worker",
    "cuda": "rayspec.vllm_ext.worker_gpu.Worker",
}
PLAIN_CPU_WORKER = "rayspec.vllm_ext.worker_cpu.PlainWorker"
SCHEDULER = "rayspec.vllm_ext.scheduler.create_scheduler"
OWN_DRAFT_SCHEDULER = "rayspec.vllm_ext.scheduler.create_own_draft_scheduler"
PROPOSER = "rayspec.vllm_ext.proposer.RemoteProposer"


def plain_engine_args(
    base: Mapping[str, Any], *, device: Device, compatibility: Compat | None = None
) -> dict[str, Any]:
    """Return the arguments of an engine without speculation.

    On CUDA vLLM runs it as it is; on CPU our worker keeps a seeded request from ending it.
    """
    if device == "cuda":
        return dict(base)
    compatibility = compat.check(device) if compatibility is None else compatibility
    return {**base, "worker_cls": PLAIN_CPU_WORKER} if compatibility.ok else dict(base)


def speculative_engine_args(
    base: Mapping[str, Any],
    *,
    device: Device,
    num_speculative_tokens: int,
    k_tiers: Sequence[int] = (),
    ext: ExtConfig | None = None,
    synthetic_acceptance: Sequence[float] | float | None = None,
    compatibility: Compat | None = None,
) -> dict[str, Any]:
    """Return `base` with everything that installs drafting over a link.

    On a vLLM that the hooks do not fit, or with `ext.enabled` off, the engine decodes without
    speculation and its `rayspec_status()` says why. `k_tiers` are the widths below
    `num_speculative_tokens` that the per-step K may take (0 always is one); on CUDA each costs
    its own set of graphs.

    `synthetic_acceptance` is for benchmarks, and only on CUDA: drafts are accepted whatever they
    say, fillers too, with these probabilities per position (the chance that all up to it are
    accepted), or so many tokens per step (1 to K + 1) in the mean. The output is then nonsense.
    """
    ext = ExtConfig() if ext is None else ext
    compatibility = compat.check(device) if compatibility is None else compatibility
    if not compatibility.ok:
        ext = replace(ext, enabled=False, disabled_reason=compatibility.reason)
    elif not ext.enabled and ext.disabled_reason is None:
        ext = replace(ext, disabled_reason="disabled by configuration")
    if not ext.enabled:
        logger.warning("speculation is off: %s", ext.disabled_reason)
        reporter = {"worker_cls": WORKERS[device]} if compatibility.worker else {}
        return {**base, **reporter, **_extra(base, ext)}
    tiers = sorted({0, num_speculative_tokens, *k_tiers})
    if tiers[0] < 0 or tiers[-1] > num_speculative_tokens:
        raise ValueError(f"k_tiers must lie within 0..{num_speculative_tokens}, not {k_tiers}")
    if device == "cuda" or k_tiers:
        ext = replace(ext, k_tiers=tuple(tiers))
    return {
        **base,
        "worker_cls": WORKERS[device],
        "scheduler_cls": SCHEDULER,
        "speculative_config": {
            **_carrier(device, num_speculative_tokens, ext.k_tiers, base),
            **_synthetic(device, synthetic_acceptance),
        },
        "per_request_spec_decode_metrics": "summary",
        **_extra(base, ext),
    }


def own_draft_engine_args(
    base: Mapping[str, Any],
    *,
    device: Device,
    num_speculative_tokens: int,
    k_tiers: Sequence[int],
    method: str,
    settings: Mapping[str, Any],
    compatibility: Compat | None = None,
) -> dict[str, Any]:
    """Return `base` with vLLM's own speculation by `method`, and `settings` of its configuration.

    Of ours are only the scheduler, by which a request's own K is followed, and on CPU the worker
    that repairs the V1 runner; neither is there on a vLLM that the hooks do not fit.
    """
    compatibility = compat.check(device) if compatibility is None else compatibility
    on_gpu = device == "cuda"
    config: dict[str, Any] = {
        # The same lookup as a kernel, which the V2 runner has; on it `ngram` would be synchronous.
        "method": "ngram_gpu" if on_gpu and method == "ngram" else method,
        "num_speculative_tokens": num_speculative_tokens,
        **settings,
    }
    args = {
        **base,
        "speculative_config": config,
        "per_request_spec_decode_metrics": "summary",
    }
    if not compatibility.ok:
        logger.warning("requests cannot choose how much is drafted: %s", compatibility.reason)
        return args
    # Suffix decoding is of the V1 runner, which has neither fillers nor graphs of a width.
    tiers = tuple(k_tiers) if on_gpu and method != "suffix" else ()
    if len(tiers) > 1:
        config["num_speculative_tokens_per_batch_size"] = _declare(tiers, base)
    worker = {} if on_gpu else {"worker_cls": PLAIN_CPU_WORKER}
    return {
        **args,
        **worker,
        "scheduler_cls": OWN_DRAFT_SCHEDULER,
        **_extra(base, ExtConfig(k_tiers=tiers)),
    }


def _extra(base: Mapping[str, Any], ext: ExtConfig) -> dict[str, Any]:
    return {
        "additional_config": {**(base.get("additional_config") or {}), **ext.to_additional_config()}
    }


def _carrier(
    device: Device, k_max: int, tiers: Sequence[int], base: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the speculative configuration whose drafting hook we take over.

    On CUDA ngram_gpu loads no draft model, allows asynchronous scheduling and keeps all token
    ids on the device. On CPU the V1 runner takes a proposer class by its name.
    """
    if device == "cpu":
        return {"method": "custom_class", "model": PROPOSER, "num_speculative_tokens": k_max}
    config: dict[str, Any] = {
        "method": "ngram_gpu",
        "num_speculative_tokens": k_max,
        "prompt_lookup_min": 2,
        "prompt_lookup_max": 2,
    }
    if len(tiers) > 1:
        config["num_speculative_tokens_per_batch_size"] = _declare(tiers, base)
    return config


def _synthetic(device: Device, acceptance: Sequence[float] | float | None) -> dict[str, Any]:
    if acceptance is None:
        return {}
    if device != "cuda":
        raise ValueError("synthetic acceptance needs the V2 model runner, which runs on CUDA")
    how: dict[str, Any] = (
        {"synthetic_acceptance_length": float(acceptance)}
        if isinstance(acceptance, int | float)
        else {"synthetic_acceptance_rates": list(acceptance)}
    )
    return {"rejection_sample_method": "synthetic", **how}


def _declare(tiers: Sequence[int], base: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Declare the widths to capture graphs for.

    vLLM declares them by batch size, and captures each width at the batch sizes that it declares
    it for. Our scheduler replaces that rule: the widest, which is the usual one, gets all sizes,
    the others one size each, and beyond that the sizes of vLLM's own grid that they divide.
    """
    widths = sorted(set(tiers))
    largest = max(int(base.get("max_num_seqs") or 1024), len(widths))
    last = len(widths)
    return [(size, largest if size == last else size, k) for size, k in enumerate(widths, start=1)]
