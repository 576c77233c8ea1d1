"""What a lane's vLLM engine is started with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rayspec.config import OwnDraftSpec, TargetSpec
from rayspec.draft.identity import describe_difference, tokenizer_hash
from rayspec.engine.cpu import fastest_dtype
from rayspec.errors import ConfigError
from rayspec.models.fetch import resolve
from rayspec.routing.types import Lane
from rayspec.telemetry.environment import engine_endpoint
from rayspec.vllm_ext import compat
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.cpu_executor import ONE_PROCESS
from rayspec.vllm_ext.engine_args import (
    own_draft_engine_args,
    plain_engine_args,
    speculative_engine_args,
)

__all__ = ["own_draft_args", "plain_args", "speculative_args"]


# Of an engine's share of a GPU's memory; the rest is CUDA contexts and what others overdraw.
_MEMORY_OF_SHARE = 0.9


def plain_args(spec: TargetSpec, path: Path) -> dict[str, Any]:
    """Return the `AsyncEngineArgs` of an engine without speculation."""
    return plain_engine_args(_common_args(spec, path), device=spec.device)


def _common_args(spec: TargetSpec, path: Path) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "model": str(path),
        "served_model_name": [spec.served_model_name],
        "dtype": spec.dtype,
        "max_model_len": spec.max_model_len,
        "seed": spec.seed,
        "max_num_seqs": spec.max_num_seqs,
        "tensor_parallel_size": spec.tensor_parallel_size,
        # Inside a Ray actor vLLM would pick its Ray executor, which wants a placement group.
        "distributed_executor_backend": "uni" if spec.tensor_parallel_size == 1 else "mp",
    }
    if spec.device == "cpu":
        # Compilation takes longer to prepare than it saves on a CPU.
        ours["enforce_eager"] = True
        if spec.tensor_parallel_size == 1 and compat.check("cpu").ok:
            ours["distributed_executor_backend"] = ONE_PROCESS
        if spec.dtype == "auto":
            ours["dtype"] = fastest_dtype()
    elif 0 < spec.num_gpus < 1:
        # vLLM counts in parts of the whole GPU and would take all of it.
        ours["gpu_memory_utilization"] = round(_MEMORY_OF_SHARE * spec.num_gpus, 3)
    if (endpoint := engine_endpoint(os.environ)) is not None:
        ours["otlp_traces_endpoint"] = endpoint
    return ours | dict(spec.engine_args)


def speculative_args(spec: TargetSpec, path: Path) -> dict[str, Any]:
    """Return the `AsyncEngineArgs` of an engine that takes drafts over a link."""
    speculation = spec.speculation
    if speculation is None:
        raise ValueError(f"the {spec.lane} lane has no speculation settings")
    return speculative_engine_args(
        _common_args(spec, path),
        device=spec.device,
        num_speculative_tokens=speculation.num_speculative_tokens,
        k_tiers=speculation.k_tiers,
        ext=ExtConfig(
            deadline_s=speculation.draft_deadline_s,
            tokenizer_hash=tokenizer_hash(path),
            transport=speculation.transport,
            q_mode=speculation.q_mode,
            q_top=speculation.q_top,
            draft_shards=speculation.draft_shards,
            fused_verification=speculation.fused_verification,
            # Always: a new version of the draft may come while the engine serves.
            candidate=True,
        ),
    )


def own_draft_args(spec: TargetSpec, path: Path) -> dict[str, Any]:
    """Return the `AsyncEngineArgs` of an engine that drafts itself.

    Raises `ConfigError` for a draft model of other tokens.
    """
    speculation = spec.speculation
    if speculation is None or speculation.own is None:
        raise ValueError(f"the {spec.lane} lane has no draft of its own")
    return own_draft_engine_args(
        _common_args(spec, path),
        device=spec.device,
        num_speculative_tokens=speculation.num_speculative_tokens,
        k_tiers=speculation.k_tiers,
        method=speculation.own.method,
        settings=_settings(speculation.own, path, spec.lane),
    )


def _settings(own: OwnDraftSpec, target: Path, lane: Lane) -> dict[str, Any]:
    if own.model is None:
        return dict(own.args)
    folder = resolve(own.model)
    same_tokens = not own.args.get("use_heterogeneous_vocab", False)
    if own.method == "draft_model" and same_tokens:
        difference = describe_difference(target, folder)
        if difference is not None:
            raise ConfigError(
                f"{lane}.draft.model", own.model, f"take one with the same tokens; {difference}"
            )
    return {"model": str(folder), **own.args}
