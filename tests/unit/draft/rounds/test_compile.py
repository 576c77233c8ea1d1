"""Every kernel of a round compiles for an H100, with the arguments it would really have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from rayspec.draft.rounds.graphs import RoundGraphs
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.rounds.state import SlotState
from tests.support.hash_model import HashModel


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
@pytest.mark.parametrize("vocab", [49152, 262144])
@pytest.mark.parametrize("top", [0, 32, 64])
def test_a_round_compiles(compiled: list[Any], vocab: int, top: int) -> None:
    model = HashModel(vocab_size=vocab, block_size=16)
    if top == 32:
        model.token_ids = torch.arange(0, vocab, 4, dtype=torch.int32)
    spec = RoundsSpec(rows=2, max_len=64, k_max=5, max_slots=1024, top_m=top)
    model.allocate(9, 4)
    state = SlotState(spec, 4, model.device)
    graphs = RoundGraphs(spec, model, state)
    graphs.prepare(None, None)
    graphs.launch(0, 0)
    for rows in (1, 2):
        graphs.launch(rows, 2)
    state.set("gen", 0, 1)
    state.flush()
    names = {kernel.metadata.name for kernel in compiled}
    chosen = {"partial_top", "choose_sparse"} if top else {"partial_largest", "choose_greedy"}
    assert names == {"apply_frame", "begin_batch", "pack_reply", "patch", *chosen}
    assert max(kernel.metadata.shared for kernel in compiled) <= 227 * 1024  # bytes of a block
