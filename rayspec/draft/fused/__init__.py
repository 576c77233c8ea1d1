"""Llama-like drafts on Triton kernels of our own: five launches a layer, weights read once."""

from rayspec.draft.fused.model import FusedLlamaModel
from rayspec.draft.fused.shape import FusedShape, supports

__all__ = ["FusedLlamaModel", "FusedShape", "supports"]
