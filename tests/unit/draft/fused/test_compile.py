"""Every launch of a decode step compiles for an H100, with the arguments it would really have."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from rayspec.draft.fused import FusedLlamaModel, FusedShape
from rayspec.draft.fused.launch import Options
from rayspec.draft.fused.weights import dummy_tensors

SMOLLM = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}
ONE_BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
WIDE_HEADS = {**SMOLLM, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}


class Hopper:
    """What Triton's launcher asks of a driver until a kernel is compiled."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Kernels that launches compiled instead of running."""
    kernels: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernels.append(run(self, *args, grid=grid, warmup=True, **options))

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", Hopper())
    # Triton 3.9 warns until the default is chosen; it is what 3.7 does.
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    return kernels


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("rows", "width", "pdl"),
    [(1, 1, True), (1, 2, True), (2, 2, True), (16, 1, False), (16, 2, True), (64, 2, True)],
)
@pytest.mark.parametrize(
    ("config", "quantization"),
    [
        (LlamaConfig(**SMOLLM), "none"),
        (LlamaConfig(**ONE_BILLION), "none"),
        (LlamaConfig(**ONE_BILLION), "fp8"),
        (Qwen2Config(**SMOLLM), "none"),
        (Qwen3Config(**WIDE_HEADS), "none"),
    ],
    ids=["smollm", "1b", "1b-fp8", "qwen2", "qwen3"],
)
def test_a_step_compiles(
    compiled: list[Any],
    config: Any,
    quantization: Literal["none", "fp8"],
    rows: int,
    width: int,
    pdl: bool,
) -> None:
    config.num_hidden_layers = 1
    device = torch.device("meta")
    weights = dummy_tensors(FusedShape.of(config), device, torch.bfloat16)
    model = FusedLlamaModel(
        config, dict(weights).__getitem__, device=device, quantization=quantization
    )
    model.options = Options(pdl=pdl, hints=True)
    model.processors = 132
    model.allocate(4, 4)
    model.plan(rows, width).run()
    names = [kernel.name for kernel in compiled]
    few = ["embed", "project", "attend", *["project"] * 4]
    many = ["embed_wide", "multiply", "attend", *["multiply"] * 3]
    # Heads see one token of each row.
    many.append("project" if rows <= 2 else "multiply")
    assert names == (few if rows * width <= 2 else many)
    for kernel in compiled:
        ptx = kernel.asm["ptx"]
        assert kernel.asm["cubin"]
        assert kernel.metadata.shared <= 227 * 1024
        assert ("griddepcontrol.wait" in ptx) == (pdl and not kernel.name.startswith("embed"))
        # Weights and context in loads of 16 bytes.
        assert "0x10" in ptx or ".v4.b32" in ptx
