"""What we declare makes vLLM capture full graphs of every width that the per-step K may take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config.compilation import CUDAGraphMode
from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager, _is_compatible

from rayspec.vllm_ext.engine_args import speculative_engine_args
from rayspec.vllm_ext.graphs import complete_dispatch

MAX_REQUESTS = 64
LARGEST = 512


def manager(k: int, tiers: tuple[int, ...], sizes: set[int]) -> CudaGraphManager:
    args = speculative_engine_args(
        {"model": "m", "max_num_seqs": MAX_REQUESTS},
        device="cuda",
        num_speculative_tokens=k,
        k_tiers=tiers,
    )
    schedule = args["speculative_config"]["num_speculative_tokens_per_batch_size"]
    config: Any = SimpleNamespace(
        num_speculative_tokens=k,
        scheduler_config=SimpleNamespace(max_num_seqs=MAX_REQUESTS),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
        cache_config=SimpleNamespace(use_kda_recoverssm=False),
        compilation_config=SimpleNamespace(
            cudagraph_capture_sizes=sorted(sizes), max_cudagraph_capture_size=LARGEST
        ),
        speculative_config=SimpleNamespace(
            num_speculative_tokens_per_batch_size=schedule,
            uses_dynamic_speculative_decoding=lambda: True,
        ),
    )
    mode = CUDAGraphMode.FULL_AND_PIECEWISE
    return CudaGraphManager(config, torch.device("cpu"), mode, decode_query_len=k + 1)


@pytest.mark.parametrize(("k", "tiers"), [(5, ()), (5, (2,)), (4, (1, 2)), (7, (3,))])
def test_every_decode_batch_of_every_width_has_a_full_graph(
    k: int, tiers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = "vllm.v1.worker.gpu.cudagraph_utils"
    group = SimpleNamespace(is_first_rank=True, is_last_rank=True)
    monkeypatch.setattr(f"{utils}.get_pp_group", lambda: group)
    monkeypatch.setattr(f"{utils}.current_platform.get_global_graph_pool", lambda: None)
    # vLLM's own sizes: its grid, and the widest width at the request counts of the grid.
    grid = {1, 2, 4, *range(8, 256, 8), *range(256, LARGEST + 1, 16)}
    counts = {1, 2, 4, *range(8, MAX_REQUESTS + 1, 8)}
    sizes = grid | {n * (k + 1) for n in counts if n * (k + 1) <= LARGEST}
    graphs = manager(k, tiers, sizes)
    captured = graphs._capture_descs[CUDAGraphMode.FULL]
    added = complete_dispatch(graphs._candidates, captured)
    assert added > 0 or k == 7  # vLLM's grid is of multiples of 4 and 8
    assert complete_dispatch(graphs._candidates, captured) == 0
    for width in {1, k + 1, *(tier + 1 for tier in tiers)}:
        for requests in range(1, MAX_REQUESTS + 1):
            tokens = requests * width
            chosen = next(
                desc
                for desc in graphs._candidates[tokens, 0]
                if _is_compatible(desc, requests, tokens, width, 0, width, 1)
            )
            assert chosen.cg_mode == CUDAGraphMode.FULL, (width, requests)
            # A few rows of padding at most, and none where it would weigh most.
            assert chosen.num_reqs is not None
            assert chosen.num_reqs < requests + 8
            if width in (1, k + 1) and requests in (1, 2, 4, 8, 16, 32, 64):
                assert chosen.num_reqs == requests
