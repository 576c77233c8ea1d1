"""The CUDA source, run on the host, against the reference: same random numbers, same tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support.emulation import emulated_verify
from tests.support.verify_cases import GREEDY, Case, Sampling, assert_as_reference, case

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RAGGED = (3, 2, 0, 1, 3, 2, 3, 1)


def agree(given: Case) -> tuple[torch.Tensor, torch.Tensor]:
    sampled, num_sampled = emulated_verify(given)
    assert_as_reference(given, sampled, num_sampled)
    return sampled, num_sampled


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("vocab", "pad"), [(7, 0), (33, 2), (1000, 1), (2048, 8), (9001, 3), (32000, 0)]
)
@pytest.mark.parametrize("top_m", [0, 8])
def test_every_sampling(vocab: int, pad: int, dtype: torch.dtype, top_m: int) -> None:
    agree(case(vocab, RAGGED, dtype=dtype, pad=pad, top_m=top_m, seed=vocab + pad))


@pytest.mark.parametrize("spread", [0.0, 0.3, 12.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flat_and_steep(spread: float, dtype: torch.dtype) -> None:
    # Flat rows keep more tokens than shared memory holds, and tie at every threshold.
    agree(case(9000, RAGGED, dtype=dtype, spread=spread, seed=5, likely=0.4))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_nucleus_that_reaches_into_the_many(dtype: torch.dtype) -> None:
    # The tiles alone bound the threshold so loosely that shared memory has no room for what is
    # above the bound, but has for what is kept.
    samplings = (
        Sampling(top_p=0.9),
        Sampling(top_p=0.5),
        Sampling(top_k=1500),
        Sampling(min_p=1e-7),
    )
    given = case(20000, (1,) * 4, dtype=dtype, sampling=samplings, spread=2.0, likely=0.4, seed=4)
    draw = torch.Generator().manual_seed(6)
    at = torch.randint(0, 20000, (8, 8), generator=draw)
    high = torch.linspace(9.5, 12.5, 8)[:, None].expand(8, 8)
    given.logits.scatter_(1, at, high.to(dtype))
    agree(given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_with_nan_and_infinities(dtype: torch.dtype) -> None:
    given = case(3000, RAGGED, dtype=dtype, seed=9)
    draw = torch.rand(given.logits.shape, generator=torch.Generator().manual_seed(1))
    given.logits[draw < 0.3] = float("-inf")
    given.logits[(draw > 0.3) & (draw < 0.4)] = float("nan")
    given.logits[0] = float("nan")
    given.logits[4] = float("-inf")
    given.logits[9, 5] = float("inf")
    sampled, num_sampled = agree(given)
    for tokens, count in zip(sampled.tolist(), num_sampled.tolist(), strict=True):
        assert all(0 <= token < 3000 for token in tokens[:count])


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_p=0.9), Sampling(top_k=5)])
def test_drafts_that_may_not_be_accepted(sampling: Sampling) -> None:
    given = case(500, (3, 3, 3, 3), sampling=(sampling,), likely=1.0, spread=40.0)
    _, everything = agree(given)
    assert everything.tolist() == [4, 4, 4, 4]
    invalid = torch.zeros(16, dtype=torch.bool)
    invalid[[2, 5]] = True
    given.draft_ids[9] = -1
    given.draft_ids[15] = 500
    n_valid = torch.tensor([3, 3, 2, 3], dtype=torch.int32)
    _, num_sampled = agree(replace(given, invalid=invalid, n_valid=n_valid))
    assert num_sampled.tolist() == [2, 1, 1, 3]
    n_valid = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    given = case(500, (3, 3, 3, 3), sampling=(sampling,), likely=1.0, spread=40.0)
    _, num_sampled = agree(replace(given, n_valid=n_valid))
    assert num_sampled.tolist() == [1, 2, 3, 4]


def test_ties_go_to_the_lowest_token() -> None:
    given = case(5000, (1, 1, 1), sampling=(GREEDY,), dtype=torch.bfloat16)
    given.logits[:] = -1.0
    given.logits[:, [4999, 77, 1500]] = 3.0
    given.draft_ids[[1, 3, 5]] = torch.tensor([77, 1500, 3], dtype=torch.int32)
    sampled, num_sampled = agree(given)
    assert num_sampled.tolist() == [2, 1, 1]
    assert sampled[:, 0].tolist() == [77, 77, 77]


def test_q_of_a_liar_and_of_nobody() -> None:
    given = case(400, (2, 2, 2, 2), sampling=(Sampling(),), top_m=4)
    assert given.q_ids is not None
    assert given.q_logits is not None
    slots = given.slot_of.long()
    given.q_ids[slots[0]] = -1
    given.q_ids[slots[1]] = given.q_ids[slots[1], :, :1]
    given.q_logits[slots[2], 0, 1] = float("nan")
    given.q_ids[slots[3], :, 3] = 400
    agree(given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_decided_apart_are_the_same(dtype: torch.dtype) -> None:
    samplings = (GREEDY, Sampling(), Sampling(0.7))
    given = case(3001, RAGGED, dtype=dtype, sampling=samplings, seed=3, top_m=4)
    plain = replace(given, top_k=None, top_p=None, min_p=None)
    together, apart = emulated_verify(plain), emulated_verify(plain, apart=True)
    assert_as_reference(plain, *together)
    assert torch.equal(together[0], apart[0])
    assert torch.equal(together[1], apart[1])


def test_the_layout_of_rows_does_not_matter() -> None:
    dense = case(3001, RAGGED, dtype=torch.bfloat16, seed=3)
    apart = case(3001, RAGGED, dtype=torch.bfloat16, seed=3, pad=7)
    apart.logits.copy_(dense.logits)
    first = emulated_verify(dense)
    second = emulated_verify(replace(dense, logits=apart.logits))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_randomness_follows_the_step() -> None:
    given = case(3000, (0,) * 16, sampling=(Sampling(),), spread=0.1)
    again = emulated_verify(given)[0]
    assert torch.equal(emulated_verify(given)[0], again)
    later = emulated_verify(replace(given, step=given.step + 1))[0]
    assert (later[:, 0] != again[:, 0]).sum() > 8
