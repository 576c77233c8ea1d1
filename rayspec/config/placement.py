"""Where the draft runs, what carries its link, and what a process must know about that."""

from __future__ import annotations

from typing import Any

from rayspec.config.drafts import DraftConfig, ModelDraftConfig
from rayspec.config.specs import Device, DraftEngine, TargetSpec, Transport

__all__ = [
    "draft_device",
    "draft_engine",
    "draft_gpus",
    "gpus",
    "impossible",
    "share_hardware",
    "share_one_gpu",
    "shared_gpu_env",
    "transport",
]

# Fields that only the drafting engine on vLLM's model classes has, with their neutral values.
_ENGINE_FIELDS: dict[str, Any] = {
    "quantization": "none",
    "load_format": "auto",
    "fused": "auto",
    "kv_gib": None,
    "sampling": "greedy",
}


def draft_device(draft: DraftConfig | None, device: Device) -> Device:
    """Return where `draft` runs in an application on `device`."""
    if not isinstance(draft, ModelDraftConfig):
        return "cpu"
    return device if draft.device == "auto" else draft.device


def draft_engine(draft: ModelDraftConfig, device: Device) -> DraftEngine:
    """Return what computes a draft model in an application on `device`."""
    if draft.engine == "auto":
        return "vllm" if draft_device(draft, device) == "cuda" else "transformers"
    return draft.engine


def transport(draft: DraftConfig | None, device: Device) -> Transport:
    """Return what carries step frames: NCCL where both ends keep them on a GPU.

    transformers drafts in host code, so its frames go to the host anyway.
    """
    if isinstance(draft, ModelDraftConfig) and device == draft_device(draft, device) == "cuda":
        return "nccl" if draft_engine(draft, device) == "vllm" else "gloo"
    return "gloo"


def impossible(draft: DraftConfig | None, device: Device) -> tuple[str, str] | None:
    """Return a field of `draft` that cannot work in an application on `device`, and a remedy."""
    if not isinstance(draft, ModelDraftConfig):
        return None
    own = draft_device(draft, device)
    if own == "cpu":
        if draft.num_gpus:
            return "num_gpus", "leave it out for a draft on the CPU"
        if draft.engine == "vllm":
            return "engine", "needs a GPU: use 'transformers' for a draft on the CPU"
    if "cpu" in (device, own) and draft.data_parallel_size > 1:
        return "data_parallel_size", "needs engine and drafts on GPUs; leave it out"
    if draft_engine(draft, device) == "transformers":
        for name, neutral in _ENGINE_FIELDS.items():
            if getattr(draft, name) != neutral:
                return name, "needs a draft with engine 'vllm' on a GPU; leave it out"
    if draft.sampling == "sparse" and transport(draft, device) == "gloo":
        return "sampling", "'sparse' needs engine and draft on GPUs; use 'greedy'"
    return None


def gpus(configured: float | None, device: Device, default: int) -> float:
    """Return how many GPUs Ray reserves for one process group on `device`."""
    if device == "cpu":
        return 0.0
    return float(default) if configured is None else configured


def draft_gpus(draft: ModelDraftConfig, device: Device) -> float:
    """Return how many GPUs Ray reserves for one draft in an application on `device`."""
    return gpus(draft.num_gpus, draft_device(draft, device), 1)


def share_one_gpu(target: TargetSpec, num_gpus: float) -> bool:
    """Whether Ray puts an engine and a draft with `num_gpus` on one GPU: shares that fit it."""
    return 0 < target.num_gpus < 1 and 0 < num_gpus < 1 and target.num_gpus + num_gpus <= 1


def share_hardware(one: TargetSpec, other: TargetSpec) -> bool:
    """Whether engines of two lanes may slow each other: on CPUs, or with parts of one GPU.

    Where CPU engines turn out to be on nodes of their own, the router measures that they do not.
    """
    return one.device == other.device == "cpu" or share_one_gpu(one, other.num_gpus)


def shared_gpu_env(end: str) -> dict[str, str]:
    """Return the variables by which NCCL connects two processes on one GPU; `end` names one.

    NCCL refuses two ranks on one GPU of one host, and tells hosts apart by this id. Between hosts
    it uses its network, of which the loopback interface is the one that is always there.
    """
    return {
        "NCCL_HOSTID": f"rayspec-{end}",
        "NCCL_NET": "Socket",
        "NCCL_SOCKET_IFNAME": "lo",
    }
