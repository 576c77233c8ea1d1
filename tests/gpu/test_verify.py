"""The verification kernels on CUDA: against the reference, the target's distribution and vLLM."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rayspec.ops.batch import Batch
from rayspec.ops.loader import architecture, compile_kernels
from rayspec.ops.sharded import verify_sharded
from rayspec.ops.verify import verify
from tests.support.chi_square import assert_distributed
from tests.support.shards import on_every_rank
from tests.support.verify_cases import (
    GREEDY,
    MIXED,
    Case,
    Sampling,
    assert_as_reference,
    case,
    first_token_distribution,
)

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
RAGGED = (3, 2, 0, 1, 3, 5, 3, 1, 4, 2, 2, 0)
VOCABS = [7, 1001, 32000, 49152, 128256, 151936, 151937, 262144]


def agree(given: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Verify on the device; the reference computes there too."""
    on_device = given.to("cuda")
    sampled, num_sampled = verify(on_device)
    assert_as_reference(on_device, sampled, num_sampled)
    return sampled, num_sampled


def test_compiles_and_launches() -> None:
    assert compile_kernels(architecture(torch.device("cuda", 0)))
    sampled, num_sampled = agree(case(1000, (2,), sampling=(GREEDY,)))
    assert sampled.shape == (1, 3)
    assert int(num_sampled[0]) in (1, 2, 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("top_m", [0, 32])
def test_every_sampling(vocab: int, dtype: torch.dtype, top_m: int) -> None:
    top_m = min(top_m, vocab)
    pad, spread = [(0, 3.0), (8, 1.5), (3, 0.7)][vocab % 3]
    agree(case(vocab, RAGGED, dtype=dtype, pad=pad, spread=spread, seed=vocab, top_m=top_m))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flat_steep_and_broken_rows(dtype: torch.dtype) -> None:
    agree(case(50000, RAGGED, dtype=dtype, spread=0.0, seed=5))
    agree(case(50000, RAGGED, dtype=dtype, spread=20.0, seed=6))
    given = case(50000, RAGGED, dtype=dtype, seed=7)
    draw = torch.rand(given.logits.shape, generator=torch.Generator().manual_seed(1))
    given.logits[draw < 0.3] = float("-inf")
    given.logits[(draw > 0.3) & (draw < 0.4)] = float("nan")
    given.logits[0] = float("nan")
    given.logits[4] = float("-inf")
    sampled, num_sampled = agree(given)
    for tokens, count in zip(sampled.tolist(), num_sampled.tolist(), strict=True):
        assert all(0 <= token < 50000 for token in tokens[:count])


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(0.7)], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_one_launch_without_limits(sampling: Sampling, batch: int) -> None:
    given = case(128256, (5,) * batch, dtype=torch.bfloat16, sampling=(sampling,), seed=batch)
    agree(replace(given, top_k=None, top_p=None, min_p=None))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("vocab", "count", "width"), [(128256, 2, 64128), (151937, 4, 38016)])
def test_shards(vocab: int, count: int, width: int, dtype: torch.dtype) -> None:
    samplings = (GREEDY, Sampling(), Sampling(0.7))
    given = case(vocab, RAGGED, dtype=dtype, sampling=samplings, seed=vocab).to("cuda")
    plain = replace(given, top_k=None, top_p=None, min_p=None)
    for sampled, num_sampled in on_every_rank(plain, count, width, verify_sharded):
        assert_as_reference(plain, sampled, num_sampled, width=width)


def test_drafts_that_may_not_be_accepted() -> None:
    given = case(500, (3, 3, 3, 3), sampling=MIXED[:4], likely=1.0, spread=40.0)
    invalid = torch.zeros(16, dtype=torch.bool)
    invalid[[2, 5]] = True
    given.draft_ids[9] = -1
    given.draft_ids[15] = 500
    n_valid = torch.tensor([3, 3, 2, 3], dtype=torch.int32)
    _, num_sampled = agree(replace(given, invalid=invalid, n_valid=n_valid))
    assert num_sampled.tolist() == [2, 1, 1, 3]


def test_many_requests() -> None:
    agree(case(32000, (5,) * 256, dtype=torch.bfloat16, seed=2))


DISTRIBUTIONS = {
    "plain": Sampling(),
    "cool": Sampling(0.6),
    "hot": Sampling(1.5),
    "top-k": Sampling(1.0, top_k=20),
    "top-p": Sampling(1.0, top_p=0.9),
    "min-p": Sampling(1.0, min_p=0.05),
    "all": Sampling(0.8, top_k=50, top_p=0.9, min_p=0.01),
}


@pytest.mark.parametrize("top_m", [0, 16], ids=["onehot", "sparse"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_target_s_distribution(name: str, top_m: int) -> None:
    vocab, requests = 2000, 40000
    sampling = DISTRIBUTIONS[name]
    one = case(vocab, (1,), sampling=(sampling,), spread=2.0, top_m=top_m, seed=3).to("cuda")
    draw = torch.Generator("cuda").manual_seed(8)
    starts = torch.arange(requests + 1, dtype=torch.int32, device="cuda") * 2
    ids = torch.randint(0, vocab, (2 * requests,), device="cuda", generator=draw)
    # A third drafts the likeliest, so that there are acceptances to follow.
    ids[1::6] = one.logits[0].argmax()
    q = {}
    if one.q_ids is not None and one.q_logits is not None:
        slot = int(one.slot_of[0])
        q = {
            "q_ids": one.q_ids[slot].expand(requests, -1, -1).contiguous(),
            "q_logits": one.q_logits[slot].expand(requests, -1, -1).contiguous(),
        }
        shares = one.q_logits[slot, 0].softmax(0)
        picks = torch.multinomial(shares, requests, replacement=True, generator=draw)
        ids[1::2] = one.q_ids[slot, 0][picks].long()

    def all_of(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((requests,), value, dtype=dtype, device="cuda")

    given = Case(
        one.logits.repeat(requests, 1),
        ids.to(torch.int32),
        starts,
        torch.arange(requests, dtype=torch.int32, device="cuda"),
        all_of(sampling.temperature, torch.float32),
        all_of(sampling.top_k or vocab, torch.int32),
        all_of(sampling.top_p, torch.float32),
        all_of(sampling.min_p, torch.float32),
        torch.arange(requests, device="cuda"),
        torch.zeros(2 * requests, dtype=torch.int64, device="cuda"),
        torch.zeros(1, dtype=torch.int64, device="cuda"),
        1,
        **q,
    )
    sampled, num_sampled = verify(given)
    assert_distributed(sampled[:, 0], first_token_distribution(one.logits[0].cpu(), sampling))
    follow = sampled[num_sampled == 2, 1]
    assert follow.shape[0] > 100
    assert_distributed(follow, first_token_distribution(one.logits[1].cpu(), sampling))


@pytest.mark.parametrize("sampling", MIXED, ids=str)
def test_acceptance_is_as_often_as_vllm_s(sampling: Sampling) -> None:
    from load_tests.bench.verify_paths import vllm_path

    requests = 4096
    one = case(32000, (3,), sampling=(sampling,), spread=3.0, seed=12).to("cuda")
    # 4096 copies of one request: what differs is the seeds.
    many = case(8, (3,) * requests, sampling=(sampling,)).to("cuda")
    given = replace(
        many,
        logits=one.logits.repeat(requests, 1),
        draft_ids=one.draft_ids.repeat(requests),
        top_k=torch.full_like(many.top_k, int(one.top_k[one.slot_of.long()][0])),
    )
    _, ours = verify(given)
    _, theirs = vllm_path(given)()
    for count in range(1, 5):
        a, b = (float((n == count).double().mean()) for n in (ours, theirs))
        noise = (2 * max(a * (1 - a), b * (1 - b)) / requests) ** 0.5
        assert abs(a - b) <= 5 * noise + 1e-9, f"{count} tokens: {a:.4f}, vLLM {b:.4f}"


def test_graphs_draw_afresh() -> None:
    given = case(32000, (3,) * 16, sampling=MIXED, spread=0.5, dtype=torch.bfloat16).to("cuda")
    verify(given)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        verify(given)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sampled, num_sampled = verify(given)
    seen = []
    for _ in range(4):
        given.step.add_(1)
        graph.replay()
        assert_as_reference(given, sampled, num_sampled)
        seen.append(sampled.clone())
    assert not torch.equal(seen[0], seen[1])
    given.step.sub_(1)
    graph.replay()
    assert torch.equal(sampled, seen[2])


def test_torch_compile() -> None:
    given = case(5000, (3, 1), dtype=torch.bfloat16).to("cuda")
    expected = verify(given)
    torch.library.opcheck(torch.ops.rayspec.verify, given.arguments, test_utils="test_faketensor")
    compiled = torch.compile(lambda *arguments: verify(Batch(*arguments)), fullgraph=True)
    sampled, num_sampled = compiled(*given.arguments)
    assert torch.equal(sampled, expected[0])
    assert torch.equal(num_sampled, expected[1])
