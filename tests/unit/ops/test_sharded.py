"""Sharded verification: two ranks that gather summaries, against the reference over all logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rayspec.ops import reference
from rayspec.ops.batch import Batch
from rayspec.ops.launch import launch_sharded
from rayspec.ops.sharded import Shard, gather_over, verify_sharded
from tests.support.emulation import emulator
from tests.support.shards import on_every_rank, part
from tests.support.verify_cases import GREEDY, Case, Sampling, assert_as_reference, case

PLAIN = (GREEDY, Sampling(), Sampling(0.7), Sampling(1.6))
RAGGED = (3, 2, 0, 1, 3, 2, 3, 1)
Result = tuple[torch.Tensor, torch.Tensor]


def plain(vocab: int, dtype: torch.dtype, **settings: object) -> Case:
    given = case(vocab, RAGGED, dtype=dtype, sampling=PLAIN, **settings)  # type: ignore[arg-type]
    return replace(given, top_k=None, top_p=None, min_p=None)


def emulated(batch: Batch, shard: Shard, gather: Callable[..., torch.Tensor]) -> Result:
    return launch_sharded(emulator(), batch, shard, gather)


@pytest.mark.parametrize("one", [verify_sharded, emulated], ids=["torch", "kernels"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("vocab", "count", "width"), [(3001, 2, 1536), (9000, 4, 2304), (700, 2, 350), (5000, 1, 5000)]
)
def test_as_the_reference(
    vocab: int, count: int, width: int, dtype: torch.dtype, one: Callable[..., Result]
) -> None:
    given = plain(vocab, dtype, seed=vocab, spread=2.0)
    results = on_every_rank(given, count, width, one)
    for sampled, num_sampled in results:
        assert torch.equal(sampled, results[0][0])
        assert torch.equal(num_sampled, results[0][1])
        assert_as_reference(given, sampled, num_sampled, width=width)


@pytest.mark.parametrize("one", [verify_sharded, emulated], ids=["torch", "kernels"])
def test_ties_and_broken_rows(one: Callable[..., Result]) -> None:
    given = plain(3000, torch.bfloat16, seed=9)
    draw = torch.rand(given.logits.shape, generator=torch.Generator().manual_seed(1))
    given.logits[draw < 0.3] = float("-inf")
    given.logits[(draw > 0.3) & (draw < 0.4)] = float("nan")
    given.logits[0] = float("nan")
    given.logits[4] = float("-inf")
    given.logits[5, :1500] = float("nan")
    given.logits[9, 5] = float("inf")
    given.logits[1, [7, 2900]] = 80.0
    for sampled, num_sampled in on_every_rank(given, 2, 1500, one):
        assert_as_reference(given, sampled, num_sampled, width=1500)


def test_greedy_is_that_of_the_gathered_logits() -> None:
    given = replace(plain(2000, torch.float32), temperature=torch.zeros(len(RAGGED) + 2))
    expected = reference.verify(given)
    for sampled, num_sampled in on_every_rank(given, 2, 1024, verify_sharded):
        assert torch.equal(sampled, expected[0])
        assert torch.equal(num_sampled, expected[1])


@pytest.mark.parametrize(
    ("change", "width", "said"),
    [
        ({"top_k": torch.ones(10, dtype=torch.int32)}, 1000, "top-k"),
        ({}, 999, "columns"),
        ({}, 2000, "empty"),
    ],
)
def test_what_shards_do_not_cover(change: dict[str, torch.Tensor], width: int, said: str) -> None:
    given = replace(plain(2000, torch.float32), **change)
    mine = replace(given, logits=given.logits[:, : 2000 if width == 2000 else 1000])
    with pytest.raises(ValueError, match=said):
        verify_sharded(mine, Shard(0, 2, width, 2000), lambda mine: mine)


def verify_on_rank(rank: int, folder: Path) -> None:
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    given = plain(3001, torch.bfloat16, seed=5, spread=1.0)
    shard = Shard(rank, 2, 1536, 3001)
    torch.save(verify_sharded(part(given, shard), shard, gather_over()), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes(tmp_path: Path) -> None:
    mp.spawn(verify_on_rank, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert_as_reference(plain(3001, torch.bfloat16, seed=5, spread=1.0), *first, width=1536)
