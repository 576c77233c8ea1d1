"""How much of a GPU an engine needs: estimates from shapes, for sharing one among engines."""

from __future__ import annotations

from load_tests.bench.models import Model, Models
from load_tests.bench.plan import Variant
from load_tests.bench.settings import Settings

__all__ = ["kv_bytes", "needs"]

GIB = 1 << 30
# CUDA context, kernels, graphs and activations of one engine process.
OVERHEAD = 4 * GIB
DRAFT_OVERHEAD = 2 * GIB
# Blocks are not full, and a preempted request would spoil a measurement.
KV_SLACK = 1.25


def kv_bytes(settings: Settings, models: Models, variant: Variant) -> int:
    """Return the KV cache that each GPU of an engine gets."""
    per_token = models.target.shape.kv_bytes_per_token()
    if variant.draft:
        per_token += models.drafts[variant.draft].shape.kv_bytes_per_token()
    return int(_tokens(settings) * per_token * KV_SLACK) // settings.tp


def needs(settings: Settings, models: Models, variant: Variant) -> dict[int, int]:
    """Return what a variant needs of each GPU that it uses, in bytes; drafts belong to rayspec."""
    need = models.target.weight_bytes // settings.tp
    need += kv_bytes(settings, models, variant) + OVERHEAD
    if variant.draft:
        need += models.drafts[variant.draft].weight_bytes // settings.tp
    of_gpu = dict.fromkeys(settings.devices(variant.system), need)
    if variant.system == "rayspec":
        drafts = sum(_draft_bytes(settings, draft) for draft in models.drafts.values())
        drafts += DRAFT_OVERHEAD if settings.trace else 0
        of_gpu[settings.draft_device] = of_gpu.get(settings.draft_device, 0) + drafts
    return of_gpu


def _draft_bytes(settings: Settings, draft: Model) -> int:
    kv = _tokens(settings) * draft.shape.kv_bytes_per_token()
    return draft.weight_bytes + kv + DRAFT_OVERHEAD


def _tokens(settings: Settings) -> int:
    return max(settings.batches) * (settings.max_model_len + 64) + 2048
