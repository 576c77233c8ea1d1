"""Checks whether models, KV caches and graphs fit: pure functions from facts to findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rayspec.audit.doctor_facts import Application, Finding, Level, Machine, in_bytes
from rayspec.config import DraftSpec, TargetSpec
from rayspec.engine.cpu import fastest_dtype
from rayspec.errors import ConfigError
from rayspec.planning.memory import GIB, Budget, ModelShape, Numbers, budget

__all__ = ["check_memory", "draft_budget", "engine_budget", "engine_ram"]

_UTILIZATION = 0.92  # vLLM's default part of a GPU, or of a CPU's memory. Read at vLLM 0.32.0
_CHUNK_TOKENS = 2048
_DRAFT_GRAPHS = GIB // 2
# What a process of torch and vLLM takes on a CPU beside weights and KV cache, and what Ray does.
_PROCESS = GIB
_RAY = GIB


def check_memory(app: Application, machine: Machine) -> Iterator[Finding]:
    """Yield whether everything fits that is of known size."""
    targets = app.spec.targets
    for target in targets:
        if target.device == "cuda":
            yield from _on_gpu(target, app, machine)
    if app.spec.draft is not None and app.spec.draft.device == "cuda":
        yield from _draft_on_gpu(app.spec.draft, app, machine)
    if any(target.device == "cpu" for target in targets):
        yield from _in_ram(app, machine)


def engine_budget(target: TargetSpec, config: Mapping[str, Any], memory: int) -> Budget:
    """Return how an engine of a lane fills a GPU of `memory` bytes."""
    args, k = target.engine_args, 0
    if target.speculation is not None:
        k = target.speculation.num_speculative_tokens
    share = target.num_gpus if target.num_gpus < 1 else 1.0
    return budget(
        ModelShape.of(config),
        Numbers.of(config, _dtype(target, config, args), args.get("kv_cache_dtype", "auto")),
        memory,
        tensor_parallel=target.tensor_parallel_size,
        max_model_len=target.max_model_len or config.get("max_position_embeddings", 8192),
        chunk_tokens=args.get("max_num_batched_tokens", _CHUNK_TOKENS),
        max_num_seqs=target.max_num_seqs,
        k=k,
        utilization=args.get("gpu_memory_utilization", _UTILIZATION * share),
    )


def _dtype(target: TargetSpec, config: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    """Return the type to count with: a quantized model keeps its own, whatever `dtype` says."""
    if args.get("quantization") == "fp8":
        return "fp8"
    return "auto" if "quantization_config" in config else target.dtype


def draft_budget(draft: DraftSpec, config: Mapping[str, Any], memory: int, longest: int) -> Budget:
    """Return how a draft model fills a GPU of `memory` bytes; `kv` is what its cache may take."""
    share = draft.num_gpus if draft.num_gpus < 1 else 1.0
    shape = ModelShape.of(config)
    numbers = Numbers.of(config, "fp8" if draft.quantization == "fp8" else "auto")
    return budget(
        shape,
        numbers,
        int(memory * share),
        max_model_len=longest,
        max_num_seqs=draft.slots,
        utilization=1.0,
        graph_bytes=_DRAFT_GRAPHS,
    )


def _on_gpu(target: TargetSpec, app: Application, machine: Machine) -> Iterator[Finding]:
    name = f"{target.lane} lane"
    if (config := _config(app, target.model)) is None:
        yield _unknown(name, target.model)
        return
    smallest = _smallest(machine)
    try:
        found = engine_budget(target, config, smallest)
    except (ConfigError, KeyError) as error:
        yield _unclear(name, error)
        return
    if not smallest:
        yield _needs(name, found)
        return
    fixed = target.engine_args.get("kv_cache_memory_bytes")
    missing = found.missing if fixed is None else max(found.needed - fixed, fixed - found.kv, 0)
    if missing:
        yield Finding(
            Level.PROBLEM,
            "memory",
            f"{name} lacks {in_bytes(missing)} a GPU: {_parts(found)}, and one sequence of "
            f"{found.needed // found.kv_bytes_per_token} tokens needs {in_bytes(found.needed)}",
            "raise tensor_parallel_size, lower max_model_len, or take a quantized model",
        )
        return
    cache = found.kv if fixed is None else fixed
    sequences = cache / found.needed
    yield Finding(
        Level.OK if sequences >= 1.5 else Level.WARNING,
        "memory",
        f"{name}, a GPU: {_parts(found)}, KV cache {in_bytes(cache)} = "
        f"{cache // found.kv_bytes_per_token} tokens, {sequences:.1f} of the longest sequences",
        "" if sequences >= 1.5 else "lower max_model_len, or raise tensor_parallel_size",
    )


def _draft_on_gpu(draft: DraftSpec, app: Application, machine: Machine) -> Iterator[Finding]:
    if draft.model is None:
        return
    config, target = _config(app, draft.model), _config(app, draft.target_model)
    if config is None:
        yield _unknown("draft", draft.model)
        return
    longest = min(
        draft.max_len or (target or config).get("max_position_embeddings", 8192),
        config.get("max_position_embeddings", 8192),
    )
    smallest = _smallest(machine)
    try:
        found = draft_budget(draft, config, smallest, longest)
    except (ConfigError, KeyError) as error:
        yield _unclear("draft", error)
        return
    if not smallest:
        yield _needs("draft", found)
        return
    wanted = draft.slots * found.needed
    cache = min(wanted, found.kv) if draft.kv_gib is None else int(draft.kv_gib * GIB)
    if found.missing or cache > found.kv:
        yield Finding(
            Level.PROBLEM,
            "memory",
            f"draft does not fit: {_parts(found)}, which leaves {in_bytes(max(found.kv, 0))} "
            f"for a KV cache of {in_bytes(max(cache, found.needed))}",
            "give it a larger share by num_gpus, set quantization: fp8, or lower kv_gib",
        )
    elif cache < wanted:
        yield Finding(
            Level.WARNING,
            "memory",
            f"draft's KV cache of {in_bytes(cache)} holds {cache / found.needed:.0f} sequences at "
            f"their longest, of {draft.slots}; what does not fit gets no drafts",
            "lower max_model_len or max_num_seqs, or raise data_parallel_size",
        )
    else:
        yield Finding(
            Level.OK, "memory", f"draft, its GPU: {_parts(found)}, KV cache {in_bytes(cache)}"
        )


def engine_ram(target: TargetSpec, config: Mapping[str, Any], memory: int) -> int:
    """Return the bytes that one engine takes on a CPU with `memory` bytes in all."""
    dtype = fastest_dtype() if target.dtype == "auto" else target.dtype
    weights = ModelShape.of(config).weight_bytes(Numbers.of(config, dtype))
    space = target.env.get("VLLM_CPU_KVCACHE_SPACE", "")
    fixed = target.engine_args.get("kv_cache_memory_bytes")
    if fixed is None and space.isdigit():
        fixed = int(space) * GIB
    if fixed is None:  # vLLM then takes its part of all memory, weights included
        share = target.engine_args.get("gpu_memory_utilization", _UTILIZATION)
        return int(memory * share)
    return weights + int(fixed) + target.tensor_parallel_size * _PROCESS


def _in_ram(app: Application, machine: Machine) -> Iterator[Finding]:
    parts: list[tuple[str, int]] = [("Ray", _RAY)]
    targets = app.spec.targets
    greedy = []
    for target in targets:
        if target.device != "cpu":
            continue
        if (config := _config(app, target.model)) is None:
            yield _unknown(f"{target.lane} lane", target.model)
            return
        try:
            size = engine_ram(target, config, machine.memory)
        except (ConfigError, KeyError) as error:
            yield _unclear(f"{target.lane} lane", error)
            return
        parts.append((f"{target.lane} lane", size * target.num_replicas))
        if "VLLM_CPU_KVCACHE_SPACE" not in target.env:
            greedy.append(target)
    draft = app.spec.draft
    if draft is not None and draft.device == "cpu":
        size = _PROCESS // 2
        if draft.model is not None and (config := _config(app, draft.model)) is not None:
            size += ModelShape.of(config).weight_bytes(Numbers.of(config))
        parts.append(("draft", size * draft.replicas))
    total = sum(size for _, size in parts)
    listed = ", ".join(f"{name} {in_bytes(size)}" for name, size in parts)
    if total > machine.memory:
        yield Finding(
            Level.PROBLEM,
            "memory",
            f"about {in_bytes(total)} are needed ({listed}), of {in_bytes(machine.memory)}",
            "set VLLM_CPU_KVCACHE_SPACE in env of each lane" if greedy else "leave out a lane",
        )
    elif total > machine.memory_free:
        yield Finding(
            Level.WARNING,
            "memory",
            f"about {in_bytes(total)} are needed ({listed}), {in_bytes(machine.memory_free)} free",
            "stop other programs, or lower VLLM_CPU_KVCACHE_SPACE in env of each lane",
        )
    else:
        yield Finding(
            Level.OK,
            "memory",
            f"about {in_bytes(total)} of {in_bytes(machine.memory_free)} free: {listed}",
        )


def _config(app: Application, ref: str) -> Mapping[str, Any] | None:
    config = app.models[ref].config if ref in app.models else {}
    return {**config, **config.get("text_config", {})} if config else None


def _smallest(machine: Machine) -> int:
    return min((gpu.memory for gpu in machine.gpus.devices if gpu.memory), default=0)


def _needs(name: str, found: Budget) -> Finding:
    least = found.weights + found.activations + found.graphs + found.needed
    return Finding(
        Level.OK,
        "memory",
        f"{name} needs at least {in_bytes(least)} of a GPU: {_parts(found)}, one sequence "
        f"{in_bytes(found.needed)}",
    )


def _unknown(name: str, ref: str) -> Finding:
    return Finding(
        Level.WARNING,
        "memory",
        f"{name}: unknown until {ref} is here",
        f"rayspec models fetch {ref}, then rayspec doctor again",
    )


def _unclear(name: str, error: Exception) -> Finding:
    what = f"its config.json has no {error}" if isinstance(error, KeyError) else str(error)
    return Finding(
        Level.WARNING, "memory", f"{name}: cannot be computed, {what}", "see how the start goes"
    )


def _parts(found: Budget) -> str:
    return (
        f"weights {in_bytes(found.weights)}, activations {in_bytes(found.activations)}, "
        f"graphs {in_bytes(found.graphs)}"
    )
