"""The reference: its op on the CPU, and the distribution of what it samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rayspec.ops import reference
from rayspec.ops.verify import verify
from tests.support.chi_square import assert_distributed
from tests.support.emulation import emulated_verify
from tests.support.verify_cases import GREEDY, Case, Sampling, case, first_token_distribution

SAMPLINGS = {
    "plain": Sampling(),
    "cool": Sampling(0.6),
    "hot": Sampling(1.5),
    "top-k": Sampling(1.0, top_k=5),
    "top-p": Sampling(1.0, top_p=0.8),
    "min-p": Sampling(1.0, min_p=0.1),
    "all": Sampling(0.8, top_k=8, top_p=0.9, min_p=0.02),
}
VOCAB = 24
REQUESTS = 500


def repeated(sampling: Sampling, top_m: int) -> Case:
    """Return many requests over the same two rows, drafts drawn from one distribution."""
    one = case(VOCAB, (1,), sampling=(sampling,), spread=1.5, top_m=top_m, seed=3)
    draw = torch.Generator().manual_seed(8)
    many = case(VOCAB, (1,) * REQUESTS, sampling=(sampling,), top_m=top_m, seed=4)
    many.logits.copy_(one.logits.repeat(REQUESTS, 1))
    if many.q_ids is not None and many.q_logits is not None:
        assert one.q_ids is not None
        assert one.q_logits is not None
        slot = int(one.slot_of[0])
        many.q_ids[:] = one.q_ids[slot]
        many.q_logits[:] = one.q_logits[slot]
        shares = one.q_logits[slot, 0].softmax(0).expand(REQUESTS, -1)
        picks = torch.multinomial(shares, 1, generator=draw)[:, 0]
        many.draft_ids[1::2] = one.q_ids[slot, 0][picks]
    else:
        many.draft_ids[1::2] = torch.randint(
            0, VOCAB, (REQUESTS,), generator=draw, dtype=torch.int32
        )
    return many


@pytest.mark.parametrize("top_m", [0, 6], ids=["onehot", "sparse"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_target_s_distribution(name: str, top_m: int) -> None:
    given = repeated(SAMPLINGS[name], top_m)
    sampled, num_sampled = reference.verify(given)
    expected = first_token_distribution(given.logits[0], SAMPLINGS[name])
    assert_distributed(sampled[:, 0], expected)
    # What follows an accepted draft is the second row's.
    accepted = sampled[num_sampled == 2, 1]
    assert_distributed(accepted, first_token_distribution(given.logits[1], SAMPLINGS[name]))


def test_ops_on_the_cpu() -> None:
    given = case(200, (2, 0, 1), top_m=4)
    certain = replace(given, q_ids=None, q_logits=None)
    sampled, num_sampled = verify(certain)
    assert sampled.shape == (3, 3)
    assert num_sampled.dtype == torch.int32
    torch.library.opcheck(torch.ops.rayspec.verify, certain.arguments)
    torch.library.opcheck(torch.ops.rayspec.verify, given.arguments)
    again = verify(given)
    expected = emulated_verify(given)
    assert torch.equal(again[0], expected[0])
    assert torch.equal(again[1], expected[1])


def test_greedy_is_argmax() -> None:
    given = case(300, (2, 2, 2), sampling=(GREEDY,), likely=1.0)
    sampled, num_sampled = verify(given)
    assert num_sampled.tolist() == [3, 3, 3]
    assert sampled.flatten().tolist() == given.logits.argmax(dim=1).tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda given: replace(given, logits=given.logits.double()),
        lambda given: replace(given, draft_ids=given.draft_ids.long()),
        lambda given: replace(given, slot_of=given.slot_of[:1]),
        lambda given: replace(given, logits=given.logits.t()),
    ],
)
def test_what_does_not_fit_is_refused(change: object) -> None:
    given = case(200, (2, 0, 1))
    with pytest.raises(ValueError, match=r"need|not"):
        verify(change(given))  # type: ignore[operator]
