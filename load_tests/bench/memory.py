"""How much of a GPU an engine needs: estimates from shapes, for sharing one among engines."""

from __future__ import annotations

from load_tests.bench.models import Models
from load_tests.bench.plan import Variant
from load_tests.bench.settings import Settings

__all__ = ["draft_bytes", "kv_bytes", "variant_bytes"]

GIB = 1 << 30
# CUDA context, kernels, graphs and activations of one engine process.
OVERHEAD = 4 * GIB
DRAFT_OVERHEAD = 2 * GIB
# Blocks are not full, and a preempted request would spoil a measurement.
KV_SLACK = 1.25


def kv_bytes(settings: Settings, models: Models, system: str) -> int:
    """Return the KV cache that every target GPU of a system's engine gets."""
    per_token = models.target.shape.kv_bytes_per_token()
    if system.startswith("colocated"):
        per_token += models.draft.shape.kv_bytes_per_token()
    return int(_tokens(settings) * per_token * KV_SLACK) // settings.tp


def variant_bytes(settings: Settings, models: Models, variant: Variant) -> int:
    """Return what an engine needs of each of its GPUs, its drafts' included where they are there.

    Drafts count only where they share a GPU with a target.
    """
    need = models.target.weight_bytes // settings.tp
    need += kv_bytes(settings, models, variant.system) + OVERHEAD
    if variant.system.startswith("colocated"):
        need += models.draft.weight_bytes // settings.tp
    if variant.system == "rayspec" and settings.shares_gpu:
        need += draft_bytes(settings, models) + (DRAFT_OVERHEAD if settings.trace else 0)
    return need


def draft_bytes(settings: Settings, models: Models) -> int:
    """Return what a draft process needs of its GPU."""
    kv = _tokens(settings) * models.draft.shape.kv_bytes_per_token()
    return models.draft.weight_bytes + kv + DRAFT_OVERHEAD


def _tokens(settings: Settings) -> int:
    return max(settings.batches) * (settings.max_model_len + 64) + 2048
