from __future__ import annotations

import numpy as np
import pytest
import torch
from rayspec_triton_cpu.interpreter import DeviceLibrary, accept_integer_masks
from vllm.v1.worker.gpu.spec_decode import rejection_sampler_utils

from rayspec.ops.sparse_q import DenseDraftLogits

accept_integer_masks()
rejection_sampler_utils.tldevice = DeviceLibrary

VOCAB, TOP, K = 24, 4, 2
CPU = torch.device("cpu")
NEVER = float("-inf")
# The 99.99 % quantile of chi-square with VOCAB - 1 degrees of freedom.
CHI2_LIMIT = 56.0


class Rig:
    """Slots with drafts drawn from sparse distributions, written into dense logits."""

    def __init__(self, slots: int, generator: torch.Generator) -> None:
        self.slots = slots
        self.generator = generator
        self.dense = DenseDraftLogits(slots, K, VOCAB, TOP, CPU)
        self.temperature = torch.ones(slots)
        self.drafts = torch.zeros((slots, K + 1), dtype=torch.int64)
        self.q = torch.zeros((slots, K, 2 * TOP), dtype=torch.int32)

    def draft(self, weights: torch.Tensor | None = None, ids: torch.Tensor | None = None) -> None:
        """Draw drafts from `weights` [S, K, M] over `ids` [S, K, M], random where not given."""
        shape = (self.slots, K, TOP)
        if ids is None:
            order = torch.rand((self.slots, K, VOCAB), generator=self.generator).argsort(-1)
            ids = order[..., :TOP]
        if weights is None:
            weights = torch.randn(shape, generator=self.generator)
        chosen = torch.multinomial(
            weights.softmax(-1).view(-1, TOP), 1, generator=self.generator
        ).view(self.slots, K, 1)
        self.drafts[:, :K] = ids.gather(-1, chosen)[..., 0]
        self.drafts[:, K] = K
        self.q = torch.cat([ids.to(torch.int32), weights.float().view(torch.int32)], -1)

    def scatter(self, rows: torch.Tensor | None = None) -> None:
        slot_of = torch.arange(self.slots) if rows is None else rows
        by_row = torch.zeros_like(self.drafts)
        by_row[: len(slot_of)] = self.drafts[slot_of]
        self.dense.scatter(by_row, self.q, slot_of, len(slot_of), self.temperature)

    def distribution(self) -> torch.Tensor:
        """What vLLM takes for the draft's distribution, [S, K, V]."""
        return (self.dense.logits / self.temperature.view(-1, 1, 1)).softmax(-1)

    def expected(self) -> torch.Tensor:
        ids = self.q[..., :TOP].long()
        weights = self.q[..., TOP:].contiguous().view(torch.float32)
        return torch.zeros((self.slots, K, VOCAB)).scatter(-1, ids, weights.softmax(-1))


@pytest.fixture
def rig() -> Rig:
    return Rig(6, torch.Generator().manual_seed(3))


def test_only_the_newest_distribution_is_there(rig: Rig) -> None:
    rig.temperature = torch.tensor([0.3, 0.7, 1.0, 1.0, 1.5, 4.0])
    for _ in range(3):
        rig.draft()
        rig.scatter(torch.tensor([4, 1, 0, 5, 3, 2]))
        torch.testing.assert_close(rig.distribution(), rig.expected())
        assert (rig.dense.logits > NEVER).sum(-1).eq(TOP).all()


def test_what_is_not_drafted_from_its_own_ids_is_certain(rig: Rig) -> None:
    rig.draft()
    rig.scatter()
    rig.drafts[0, K] = 1  # the second one is a filler
    rig.q[1, 0, :TOP] = (rig.drafts[1, 0] + 1 + torch.arange(TOP)) % VOCAB  # not among them
    rig.q[2, 0, TOP:] = torch.tensor(NEVER).view(torch.int32)  # no weight at all
    rig.q[3, 1, :TOP] = rig.drafts[3, 1]  # ambiguous
    rig.temperature[4] = 0.0
    rig.scatter()
    dense = rig.dense.logits
    certain = [(0, 1), (1, 0), (2, 0), (3, 1), (4, 0), (4, 1)]
    for slot, position in certain:
        only = torch.full((VOCAB,), NEVER)
        only[rig.drafts[slot, position]] = 0.0
        assert torch.equal(dense[slot, position], only)
    assert (dense[0, 0] > NEVER).sum() == TOP


def test_entries_that_are_no_tokens_are_left_out(rig: Rig) -> None:
    rig.draft()
    kept = rig.drafts[0, 0].item()
    ids = [kept, -1, VOCAB, 2**31 - 1]
    rig.q[0, 0, :TOP] = torch.tensor(ids, dtype=torch.int32)
    rig.scatter()
    assert (rig.dense.logits[0, 0] > NEVER).nonzero().flatten().tolist() == [kept]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels mask what is not a number
def test_verified_drafts_follow_the_target() -> None:
    """Tokens that vLLM accepts or resamples are distributed as the target's alone."""
    slots = 400
    generator = torch.Generator().manual_seed(11)
    rig = Rig(slots, generator)
    # Temperature is in the target's logits already, as after vLLM's sampling parameters.
    rig.temperature = torch.full((slots,), 0.8)
    target = torch.randn((K + 1, VOCAB), generator=generator)
    ids = torch.rand((K, VOCAB), generator=generator).argsort(-1)[:, :TOP].expand(slots, K, TOP)
    weights = torch.randn((K, TOP), generator=generator).expand(slots, K, TOP).contiguous()
    rig.draft(weights, ids)
    rig.scatter()
    rows = K + 1
    verified = torch.zeros(slots * rows, dtype=torch.int32)
    for position in range(K):
        verified[position + 1 :: rows] = rig.drafts[:, position].to(torch.int32)
    sampled, counts = rejection_sampler_utils.rejection_sample(
        target.repeat(slots, 1),
        rig.dense.logits,
        verified,
        torch.arange(slots + 1, dtype=torch.int32) * rows,
        torch.arange(rows).repeat(slots),
        torch.arange(slots),
        torch.arange(slots).repeat_interleave(rows),
        torch.arange(rows, dtype=torch.int32).repeat(slots),
        rig.temperature,
        torch.randint(2**31, (slots,), generator=generator),
        K,
    )
    assert 0 < (counts > 1).sum() < slots
    # Given that the position was reached, its token is the target's, whatever the draft said.
    for position in range(K + 1):
        reached = counts > position
        seen = np.bincount(sampled[reached, position].numpy(), minlength=VOCAB)
        expected = target[position].softmax(-1).numpy() * int(reached.sum())
        assert ((seen - expected) ** 2 / expected).sum() < CHI2_LIMIT, position
