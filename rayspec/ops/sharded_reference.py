"""Sharded verification in torch, row by row: what `kernels/include/shards.cuh` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from rayspec.ops.batch import Batch
from rayspec.ops.launch import Shard
from rayspec.ops.reference import Domain, Params, Reference

__all__ = ["verify"]

_LOG2E: Final = 1.4426950408889634
_LOWEST: Final = float("-inf")
_TILE_BYTES: Final = 2048
# A summary is the kernels' `Summary`: a float64 sum, then float32 words and a token.
_WORDS: Final = 8
_LARGEST, _DRAFT, _SCORE, _TOKEN = 2, 3, 4, 5


def verify(
    batch: Batch, shard: Shard, gather: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what `rayspec.ops.sharded.verify_sharded` says."""
    rows = Reference(batch, vocab=shard.vocab)
    words = torch.zeros((batch.logits.shape[0], _WORDS), dtype=torch.float32)
    places: dict[int, list[tuple[int, int, Params]]] = {}
    for request in range(batch.slot_of.shape[0]):
        start, end = batch.cu_num_logits[request : request + 2].tolist()
        count = min(end - start, batch.k_max + 1)
        for place in range(count):
            row = start + place
            draft = rows.draft(request, row, place) if place + 1 < count else -1
            params = rows.params(int(batch.slot_of[request]), row)
            _summarize(words[row], batch.logits[row], shard, params, draft)
            places.setdefault(request, []).append((row, draft, params))
    everyone = gather(words.view(torch.uint8)).view(torch.float32)
    sampled = torch.full((batch.slot_of.shape[0], batch.k_max + 1), -1, dtype=torch.int64)
    counts = torch.zeros(batch.slot_of.shape[0], dtype=torch.int32)
    for request, mine in places.items():
        for place, (row, draft, params) in enumerate(mine):
            token, accepted = _combine(everyone[:, row].contiguous(), params, draft)
            sampled[request, place] = draft if accepted else token
            counts[request] = place + 1
            if not accepted:
                break
    return sampled, counts


def _scale(params: Params) -> float:
    # As the kernels have it, in float32.
    one = torch.tensor(_LOG2E, dtype=torch.float32)
    return float(one / torch.tensor(params.temperature, dtype=torch.float32))


def _summarize(
    words: torch.Tensor, logits: torch.Tensor, shard: Shard, params: Params, draft: int
) -> None:
    """Write what this shard knows of a row [width]."""
    x = logits[: shard.columns].float()
    x = torch.where(torch.isnan(x), _LOWEST, x).clamp_max(torch.finfo(torch.float32).max)
    tokens = words.view(torch.int32)
    words[_DRAFT], words[_SCORE], tokens[_TOKEN] = _LOWEST, _LOWEST, -1
    words[_LARGEST] = x.max()
    if params.temperature <= 0:
        tokens[_TOKEN] = shard.first + int((x == x.max()).nonzero()[0])
        return
    if 0 <= draft - shard.first < shard.columns:
        words[_DRAFT] = x[draft - shard.first]
        x[draft - shard.first] = _LOWEST
        words[_LARGEST] = x.max()
    if not bool(x.max() > _LOWEST):
        return
    exponents = (x - x.max()).double() * _scale(params)
    weights = torch.exp2(exponents)
    columns = _TILE_BYTES // logits.element_size()
    sums = torch.nn.functional.pad(weights, (0, -x.shape[0] % columns)).view(-1, columns).sum(dim=1)
    first_tile = shard.index * -(-shard.width // columns)
    tiles = torch.arange(sums.shape[0]) + first_tile
    scores = torch.log2(sums) - params.stream.noise(Domain.TILE, tiles)
    tile = int(scores.argmax())
    inside = torch.arange(tile * columns, min((tile + 1) * columns, x.shape[0]))
    noise = params.stream.noise(Domain.TOKEN, inside + shard.first)
    best = torch.where(weights[inside] > 0, exponents[inside] - noise, _LOWEST).argmax()
    words.view(torch.float64)[0] = sums.sum()
    words[_SCORE] = scores[tile]
    tokens[_TOKEN] = shard.first + int(inside[best])


def _combine(words: torch.Tensor, params: Params, draft: int) -> tuple[int, bool]:
    """Return a row's token and whether its draft is accepted, from its summaries [ranks, 8]."""
    tokens = words.view(torch.int32)[:, _TOKEN]
    largest = words[:, _LARGEST].max()
    if params.temperature <= 0:
        token = int(tokens[words[:, _LARGEST].argmax()])
        return token, token == draft and bool(largest > _LOWEST)
    largest = torch.maximum(largest, words[:, _DRAFT].max())
    if not bool(largest > _LOWEST):
        return 0, False
    exponents = (words[:, _LARGEST] - largest).double() * _scale(params)
    weight = torch.exp2((words[:, _DRAFT].max() - largest).double() * _scale(params))
    total = (words.view(torch.float64)[:, 0] * torch.exp2(exponents)).sum() + weight
    uniform = params.stream.uniform(Domain.ACCEPT, torch.zeros(1, dtype=torch.int64))
    accepted = draft >= 0 and bool(weight > uniform * total)
    scores = torch.where(tokens >= 0, words[:, _SCORE].double() + exponents, _LOWEST)
    token = int(tokens[scores.argmax()])
    return token if token >= 0 else max(draft, 0), accepted
