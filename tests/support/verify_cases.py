"""Batches to verify, and comparison of what verified them with the reference."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from rayspec.ops.batch import Batch
from rayspec.ops.reference import Reference

# Distances of less are rounding's to decide: float32 against float64, and exponentials that are
# right to two units in the last place.
ROUNDING = 2e-4


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of one request."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


GREEDY = Sampling(0.0)
MIXED = (
    GREEDY,
    Sampling(),
    Sampling(0.7, top_k=50),
    Sampling(1.3, top_p=0.9),
    Sampling(1.0, top_k=40, top_p=0.8),
    Sampling(0.9, min_p=0.05),
    Sampling(1.0, top_k=3, min_p=0.01),
    Sampling(2.0, top_p=0.5, min_p=0.02),
)


class Case(Batch):
    """A batch whose limits are all given; it can be moved."""

    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def to(self, device: str) -> Case:
        """Return the case on a device; the logits keep their strides."""
        moved = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        rows, stride = self.logits.shape[0], self.logits.stride(0)
        if rows > 1 and stride != moved["logits"].stride(0):
            flat = torch.zeros(rows * stride, dtype=self.logits.dtype, device=device)
            view = flat.as_strided(self.logits.shape, self.logits.stride())
            moved["logits"] = view.copy_(self.logits)
        return replace(self, **moved)


def case(
    vocab: int,
    drafts: tuple[int, ...],
    *,
    dtype: torch.dtype = torch.float32,
    sampling: tuple[Sampling, ...] = MIXED,
    seed: int = 0,
    spread: float = 4.0,
    pad: int = 0,
    likely: float = 0.8,
    top_m: int = 0,
) -> Case:
    """Return requests with `drafts[b]` drafts each, sampled as `sampling` says in turn.

    Logits are normal with deviation `spread`; rows are `pad` elements further apart than they are
    wide. A draft is the likeliest token with probability `likely`, else any. `top_m` draws drafts
    from so many tokens near the target's best.
    """
    draw = torch.Generator().manual_seed(seed)
    batch, k_max = len(drafts), max([*drafts, 1])
    rows = sum(n + 1 for n in drafts)
    flat = torch.randn(rows * (vocab + pad), generator=draw) * spread
    logits = flat.to(dtype).view(rows, vocab + pad)[:, :vocab]
    slots = torch.randperm(batch + 2, generator=draw)[:batch].to(torch.int32)
    chosen = [sampling[b % len(sampling)] for b in range(batch)]
    starts = [0]
    for n in drafts:
        starts.append(starts[-1] + n + 1)

    def by_slot(values: list[Any], dtype: torch.dtype) -> torch.Tensor:
        tensor = torch.ones(batch + 2, dtype=dtype)
        tensor[slots.long()] = torch.tensor(values, dtype=dtype)
        return tensor

    draft_ids = torch.randint(0, vocab, (rows,), generator=draw)
    best = logits.float().argmax(dim=1)
    q_ids = q_logits = None
    if top_m:
        q_ids = torch.full((batch + 2, k_max, top_m), -1, dtype=torch.int32)
        q_logits = torch.zeros((batch + 2, k_max, top_m))
    for b, n in enumerate(drafts):
        for i in range(n):
            row = starts[b] + i
            if float(torch.rand(1, generator=draw)) < likely:
                draft_ids[row + 1] = best[row]
            if q_ids is not None and q_logits is not None:
                noisy = logits[row].float() + torch.randn(vocab, generator=draw)
                top = noisy.topk(min(top_m, vocab))
                slot = int(slots[b])
                q_ids[slot, i, : top.indices.shape[0]] = top.indices.to(torch.int32)
                q_logits[slot, i, : top.values.shape[0]] = top.values
                pick = torch.multinomial(top.values.softmax(0), 1, generator=draw)
                draft_ids[row + 1] = top.indices[pick]
    return Case(
        logits,
        draft_ids.to(torch.int32),
        torch.tensor(starts, dtype=torch.int32),
        slots,
        by_slot([s.temperature for s in chosen], torch.float32),
        by_slot([s.top_k or vocab for s in chosen], torch.int32),
        by_slot([s.top_p for s in chosen], torch.float32),
        by_slot([s.min_p for s in chosen], torch.float32),
        torch.randint(-(2**63), 2**63 - 1, (batch + 2,), generator=draw),
        torch.randint(0, 2**20, (rows,), generator=draw),
        torch.tensor([seed * 7 + 1]),
        k_max,
        q_ids=q_ids,
        q_logits=q_logits,
    )


def assert_as_reference(
    given: Batch,
    sampled: torch.Tensor,
    num_sampled: torch.Tensor,
    *,
    most_ties: float = 0.02,
    width: int | None = None,
) -> None:
    """Fail unless every request got what the reference gives, wherever rounding did not decide."""
    reference = Reference(given, width)
    ties = 0
    for b in range(given.slot_of.shape[0]):
        decisions = reference.prefix(b)
        expected = [decision.token for decision in decisions]
        got = sampled[b, : int(num_sampled[b])].tolist()
        assert all(token == -1 for token in sampled[b, int(num_sampled[b]) :].tolist())
        if got == expected:
            continue
        apart = next(
            (i for i, (a, e) in enumerate(zip(got, expected, strict=False)) if a != e),
            min(len(got), len(expected)) - 1,
        )
        # Whether one more was accepted was decided at the last place they share.
        margin = min(d.margin for d in decisions[: apart + 1])
        assert margin < ROUNDING, f"request {b}: {got} is not {expected}, margin {margin:.2e}"
        ties += 1
    allowed = max(1, int(most_ties * given.slot_of.shape[0]))
    assert ties <= allowed, f"{ties} of {given.slot_of.shape[0]} requests were decided by rounding"


def first_token_distribution(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return what vLLM samples from for a row [V], by its own functions for a CPU."""
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    y = logits.float()[None] / sampling.temperature
    if sampling.min_p > 0:
        bound = y.max() + torch.log(torch.tensor(sampling.min_p))
        y = torch.where(y < bound, float("-inf"), y)
    k = torch.tensor([sampling.top_k]) if sampling.top_k else None
    p = torch.tensor([sampling.top_p]) if sampling.top_p < 1 else None
    return apply_top_k_top_p_pytorch(y, k, p).softmax(dim=-1)[0]
