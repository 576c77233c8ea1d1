"""Gaps in Triton's interpreter that vLLM's kernels meet.

Its masked loads and stores take boolean masks only, compiled ones integers too. The functions of
CUDA's device library are stubs in it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import triton.language as tl
import triton.runtime.interpreter as interpreter


@cache
def accept_integer_masks() -> None:
    """Make masked loads and stores read any non-zero mask value as true; works once."""
    builder = interpreter.InterpreterBuilder
    load, store = builder.create_masked_load, builder.create_masked_store

    def masked_load(self: Any, ptrs: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        return load(self, ptrs, _boolean(mask), *rest, **options)

    def masked_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        return store(self, ptrs, value, _boolean(mask), *rest)

    builder.create_masked_load = masked_load
    builder.create_masked_store = masked_store


class DeviceLibrary:
    """What vLLM's kernels use of `tldevice`, in terms that the interpreter knows."""

    @staticmethod
    def log1p(x: Any) -> Any:
        return tl.log(1.0 + x)


def _boolean(mask: Any) -> Any:
    if mask.data.dtype != bool:
        mask.data = mask.data.astype(bool)
    return mask
