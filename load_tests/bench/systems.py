"""How each system's engine is started: what they share, and each one's best setting. vLLM 0.32.0.

The same for all: V1 engine in a process of its own (`AsyncLLM`), asynchronous scheduling where
vLLM allows it (all of these), full CUDA graphs of every measured batch, no prefix cache (rounds
repeat prompts), a KV cache that holds all requests, no detokenisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from load_tests.bench.memory import kv_bytes
from load_tests.bench.models import Models
from load_tests.bench.plan import Variant
from load_tests.bench.rates import position_rates
from load_tests.bench.settings import Settings
from rayspec.draft.identity import tokenizer_hash
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.engine_args import plain_engine_args, speculative_engine_args

__all__ = ["NOTES", "engine_args", "environment"]

NOTES: Final[Mapping[str, str]] = {
    "plain": "vLLM without speculation, as rayspec's plain lane runs it",
    "colocated": (
        "vLLM's draft_model on the V1 runner, the only one of its two that runs the draft in CUDA "
        "graphs (piecewise: compiled, attention outside); draft tensor parallel as the target, "
        "which vLLM demands; no parallel drafting, which needs a draft trained for it; no local "
        "argmax, which vLLM's Llama does not have"
    ),
    "colocated-v2": (
        "vLLM's draft_model on Model Runner V2, vLLM's own choice: target in full CUDA graphs, "
        "draft compiled but without graphs"
    ),
    "ngram": "vLLM's ngram_gpu on Model Runner V2 (ngram is on the CPU and not asynchronous)",
    "rayspec": "remote draft, synchronous, over NCCL (gloo on a CPU)",
    "verify-only": "rayspec's engine, attached to a draft that gives random tokens at once",
}
# Tokens that a sparsely sampling draft chooses from, rayspec's default.
TOP_M: Final = 32
EXTENSION: Final = "load_tests.bench.extension.BenchExtension"


def engine_args(settings: Settings, models: Models, variant: Variant) -> dict[str, Any]:
    """Return the keyword arguments of a variant's `AsyncEngineArgs`."""
    base = _base(settings, models, variant)
    device: Any = settings.device
    rates = None
    if not settings.real:
        rates = position_rates(settings.probability(settings.acceptances[0]), variant.k)
    if variant.system == "plain":
        return plain_engine_args(base, device=device)
    if variant.system == "rayspec":
        return speculative_engine_args(
            base,
            device=device,
            num_speculative_tokens=variant.k,
            k_tiers=settings.ks,
            ext=_ext(settings, models.target.folder),
            synthetic_acceptance=rates,
        )
    config = _vllms_own(settings, models, variant)
    if rates is not None:
        config |= {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": rates}
    # rayspec's engines count this way as well, and it costs a little.
    return {**base, "speculative_config": config, "per_request_spec_decode_metrics": "summary"}


def _base(settings: Settings, models: Models, variant: Variant) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": str(models.target.folder),
        "skip_tokenizer_init": True,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        # With more than the requests can have, vLLM's dummy runs read beyond their block tables.
        "max_num_batched_tokens": min(8192, settings.max_num_seqs * settings.max_model_len),
        "tensor_parallel_size": settings.tp,
        "distributed_executor_backend": "uni" if settings.tp == 1 else "mp",
        "enable_prefix_caching": False,
        "seed": settings.seed,
        "worker_extension_cls": EXTENSION,
    }
    if settings.device == "cpu":
        return base | {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 1 << 28}
    return base | {
        "dtype": "bfloat16",
        "load_format": "grow" if settings.real else "dummy",
        # Given in bytes, vLLM does not measure what is free: others start on this GPU meanwhile.
        "kv_cache_memory_bytes": kv_bytes(settings, models, variant),
        "gpu_memory_utilization": 0.02,
        "compilation_config": {"cudagraph_capture_sizes": graph_sizes(settings, variant)},
    }


def graph_sizes(settings: Settings, variant: Variant) -> list[int]:
    """Return the token counts to capture: every batch at every width that the system runs."""
    widths = {1}
    if variant.system == "rayspec":
        widths |= {k + 1 for k in settings.ks}
    elif variant.k:
        # A co-located draft's first pass takes one token more than the target's step.
        widths |= (
            {variant.k + 1, variant.k + 2} if "colocated" in variant.system else {variant.k + 1}
        )
    sizes = {batch * width for batch in settings.batches for width in widths}
    if variant.k and variant.system != "rayspec":
        # vLLM rounds sizes up to whole verification steps and drops those above the largest.
        step = variant.k + 1
        sizes = {-(-size // step) * step for size in sizes}
    return sorted(sizes)


def _vllms_own(settings: Settings, models: Models, variant: Variant) -> dict[str, Any]:
    config: dict[str, Any] = {"num_speculative_tokens": variant.k}
    if variant.system == "ngram":
        return config | {"method": "ngram_gpu", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
    return config | {
        "method": "draft_model",
        "model": str(models.drafts[variant.draft].folder),
        "draft_tensor_parallel_size": settings.tp,
        "draft_sample_method": "probabilistic" if settings.sampling == "sparse" else "greedy",
    }


def _ext(settings: Settings, target: Path) -> ExtConfig:
    sparse = settings.sampling == "sparse"
    return ExtConfig(
        deadline_s=settings.deadline_ms / 1e3,
        tokenizer_hash=tokenizer_hash(target),
        transport="gloo" if settings.device == "cpu" else "nccl",
        q_mode="sparse" if sparse else "none",
        q_top=TOP_M if sparse else 0,
    )


def environment(settings: Settings, variant: Variant) -> dict[str, str]:
    """Return the environment variables that a variant's processes need beside the inherited."""
    env = {"VLLM_CACHE_ROOT": str(settings.cache / variant.name), "VLLM_LOGGING_LEVEL": "INFO"}
    if settings.device == "cpu":
        return env | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "passive"}
    if variant.system == "colocated":
        env["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    else:
        env["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    return env | link_environment(settings, "target")


def link_environment(settings: Settings, end: str) -> dict[str, str]:
    """Return what lets two processes on one GPU talk NCCL: it must take them for two hosts."""
    if not settings.same_gpu_link:
        return {}
    return {
        "NCCL_HOSTID": f"rayspec-bench-{end}",
        "NCCL_NET": "Socket",
        "NCCL_SOCKET_IFNAME": "lo",
        # Hardware queues for all streams: what waits must not be in front of what it waits for.
        "CUDA_DEVICE_MAX_CONNECTIONS": "32",
    }
