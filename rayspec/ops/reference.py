"""Verification in torch: what the kernels of `kernels/` do, row by row and in float64.

It draws the same random numbers, so that it decides the same wherever rounding does not decide;
`Decision.margin` tells how far from that a row was. It also serves tensors that are on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import torch

from rayspec.ops.batch import Batch

__all__ = ["Decision", "Reference", "decide", "verify"]

_LOG2E: Final = 1.4426950408889634
_TILE_BYTES: Final = 2048
_LOWEST: Final = float("-inf")
_MASK: Final = 0xFFFFFFFF


class Domain(IntEnum):
    """What a random number decides."""

    ACCEPT = 0
    TILE = 1
    TOKEN = 2
    NAMED = 3


@dataclass(frozen=True, slots=True)
class Stream:
    """Philox 4x32-10, its first word, keyed by seed, position and step."""

    seed: int
    position: int
    step: int

    def bits(self, domain: Domain, index: torch.Tensor) -> torch.Tensor:
        """Return 32 random bits for every index."""
        index = index.to(torch.int64)
        words = [domain, self.position & _MASK, self.step & _MASK]
        c = [index & _MASK, *(torch.full_like(index, word) for word in words)]
        k = [self.seed & _MASK, (self.seed >> 32) & _MASK]
        for _ in range(10):
            # The products wrap around as int64, which leaves their 64 bits right.
            p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [
                ((p1 >> 32) & _MASK) ^ c[1] ^ k[0],
                p1 & _MASK,
                ((p0 >> 32) & _MASK) ^ c[3] ^ k[1],
                p0 & _MASK,
            ]
            k = [(k[0] + 0x9E3779B9) & _MASK, (k[1] + 0xBB67AE85) & _MASK]
        return c[0]

    def uniform(self, domain: Domain, index: torch.Tensor) -> torch.Tensor:
        """Return float64 numbers in (0, 1)."""
        return (self.bits(domain, index).double() + 0.5) * 2.0**-32

    def noise(self, domain: Domain, index: torch.Tensor) -> torch.Tensor:
        """Return log2 of exponential variates: the largest log2(weight) - noise is a sample."""
        uniform = self.uniform(domain, index).float().double()
        return torch.log2(-torch.log1p(-uniform))


@dataclass(frozen=True, slots=True)
class Params:
    """How a row is sampled."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stream: Stream


@dataclass(frozen=True, slots=True)
class Decision:
    """What a row gives: its draft if `accepted`, else `token`.

    `margin` is the least distance, relative or in log2, of anything that was compared.
    """

    token: int
    accepted: bool
    margin: float


def decide(
    logits: torch.Tensor,
    params: Params,
    draft: int,
    named: torch.Tensor,
    q: torch.Tensor,
    width: int | None = None,
) -> Decision:
    """Decide one row [V]; `named` int64 [M] are the tokens that the draft (-1: none) could be.

    `q` float64 [M] are its probabilities of them. Tiles do not cross
    multiples of `width`.
    """
    x = logits.float()
    x = torch.where(torch.isnan(x), _LOWEST, x).clamp_max(torch.finfo(torch.float32).max)
    largest = x.max()
    if params.temperature <= 0:
        first = int((x == largest).nonzero()[0])
        return Decision(first, draft >= 0 and first == draft and bool(largest > _LOWEST), math.inf)
    if not bool(largest > _LOWEST):
        return Decision(0, False, math.inf)
    kept, margin = _truncate(x, params)
    scale = torch.tensor(_LOG2E, dtype=torch.float32) / torch.tensor(
        params.temperature, dtype=torch.float32
    )
    exponents = (x - largest).double() * scale.double().to(x.device)
    weights = torch.where(kept, torch.exp2(exponents), 0.0)
    total = weights.sum()
    stream = params.stream
    accepted = False
    token: int | None
    if draft >= 0:
        u = stream.uniform(Domain.ACCEPT, torch.zeros(1, dtype=torch.int64, device=x.device))
        bound = float(u * q[named == draft] * total)
        weight = float(weights[draft])
        accepted = weight > bound
        margin = min(margin, abs(weight - bound) / max(weight, bound))
    rest = weights.clone()
    rest[named] = 0.0
    left = (weights[named] - q * total).clamp_min(0.0)
    best_named = torch.log2(left) - stream.noise(Domain.NAMED, named)
    whole = params.top_k >= x.shape[0] and params.top_p >= 1.0 and params.min_p <= 0.0
    if not whole:
        scores = _scores(rest, exponents, stream)
        token, gap = _best(torch.cat([scores, best_named]), x.shape[0], named)
        return Decision(_or_draft(token, draft), accepted, min(margin, gap))
    columns = _TILE_BYTES // logits.element_size()
    of_tile = _tiles(x.shape[0], columns, width or x.shape[0], x.device)
    sums = torch.zeros(int(of_tile[-1]) + 1, dtype=rest.dtype, device=x.device)
    sums.index_add_(0, of_tile, rest)
    tile_ids = torch.arange(sums.shape[0], device=x.device)
    tile_scores = torch.log2(sums) - stream.noise(Domain.TILE, tile_ids)
    choice, gap = _best(torch.cat([tile_scores, best_named]), -1, named)
    margin = min(margin, gap)
    if choice is None or choice >= sums.shape[0]:
        token = None if choice is None else int(named[choice - sums.shape[0]])
        return Decision(_or_draft(token, draft), accepted, margin)
    scores = _scores(torch.where(of_tile == choice, rest, 0.0), exponents, stream)
    token, gap = _best(scores, -1, named)
    return Decision(_or_draft(token, draft), accepted, min(margin, gap))


def _tiles(vocab: int, columns: int, width: int, device: torch.device) -> torch.Tensor:
    """Return which tile each column is in."""
    column = torch.arange(vocab, device=device)
    return column // width * -(-width // columns) + column % width // columns


def _truncate(x: torch.Tensor, params: Params) -> tuple[torch.Tensor, float]:
    """Return which tokens are kept, and how close the nearest one was to the other side."""
    kept, margin = x > _LOWEST, math.inf
    temperature = torch.tensor(params.temperature, dtype=torch.float32, device=x.device)
    if params.min_p > 0:
        y = x / temperature
        kept &= y >= y.max() + torch.log(torch.tensor(params.min_p, dtype=torch.float32)).to(
            x.device
        )
    if 0 < params.top_k < x.shape[0]:
        kth = torch.where(kept, x, _LOWEST).topk(params.top_k).values[-1]
        kept &= x >= kth
    if params.top_p < 1:
        y = x.double() / temperature.double()
        values, order = torch.where(kept, y, _LOWEST).sort(descending=True, stable=True)
        mass = torch.exp(values - values[0]).cumsum(0)
        target = float(params.top_p * mass[-1])
        at = int(torch.searchsorted(mass, target))
        at = min(at, int(kept.sum()) - 1)
        threshold = x[order[at]]
        above = float(torch.where(kept & (x > threshold), torch.exp(y - values[0]), 0.0).sum())
        kept &= x >= threshold
        through = float(torch.where(kept, torch.exp(y - values[0]), 0.0).sum())
        margin = min(abs(target - above), abs(through - target)) / float(mass[-1])
    return kept, margin


def _scores(weights: torch.Tensor, exponents: torch.Tensor, stream: Stream) -> torch.Tensor:
    ids = torch.arange(weights.shape[0], device=weights.device)
    kept = weights > 0
    # Exponents rather than logarithms: weights of unlikely tokens are imprecise.
    return torch.where(kept, exponents - stream.noise(Domain.TOKEN, ids), _LOWEST)


def _best(scores: torch.Tensor, vocab: int, named: torch.Tensor) -> tuple[int | None, float]:
    """Return the best index (as a token where it is at or above `vocab` ≥ 0), and by how much."""
    top = scores.topk(min(2, scores.shape[0]))
    if not bool(top.values[0] > _LOWEST):
        return None, math.inf
    gap = float(top.values[0] - top.values[1]) if scores.shape[0] > 1 else math.inf
    index = int(top.indices[0])
    return (int(named[index - vocab]) if 0 <= vocab <= index else index), gap


def _or_draft(token: int | None, draft: int) -> int:
    return max(draft, 0) if token is None else token


def verify(batch: Batch, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what `rayspec.ops.verify.verify` says.

    Each `width` columns of the vocabulary are cut into tiles of their own, as
    `rayspec.ops.sharded` does.
    """
    return Reference(batch, width).verify()


@dataclass(frozen=True, slots=True)
class Reference:
    """A batch, decided row by row."""

    batch: Batch
    width: int | None = None  # of a shard
    vocab: int = 0  # of all shards; 0: that of the logits

    def verify(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `sampled` and `num_sampled`."""
        batch = self.batch
        size = (batch.slot_of.shape[0], batch.k_max + 1)
        sampled = torch.full(size, -1, dtype=torch.int64)
        counts = torch.zeros(size[0], dtype=torch.int32)
        for request in range(size[0]):
            tokens = [decision.token for decision in self.prefix(request)]
            sampled[request, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            counts[request] = len(tokens)
        return sampled.to(batch.logits.device), counts.to(batch.logits.device)

    def prefix(self, request: int) -> list[Decision]:
        """Return the decisions that count: those up to the first that is no accepted draft."""
        start, end = self.batch.cu_num_logits[request : request + 2].tolist()
        count = min(end - start, self.batch.k_max + 1)
        decisions: list[Decision] = []
        for place in range(count):
            draft = self.draft(request, start + place, place) if place + 1 < count else -1
            decision = self.decide(request, start + place, place, draft)
            if not decision.accepted:
                return [*decisions, decision]
            decisions.append(Decision(draft, True, decision.margin))
        return decisions

    def draft(self, request: int, row: int, place: int) -> int:
        """Return the draft that a row tests, -1 for none."""
        draft = int(self.batch.draft_ids[row + 1])
        marked = self.batch.invalid is not None and bool(self.batch.invalid[row + 1])
        late = self.batch.n_valid is not None and place >= int(self.batch.n_valid[request])
        vocab = self.vocab or self.batch.logits.shape[1]
        return -1 if marked or late or draft >= vocab else max(draft, -1)

    def decide(self, request: int, row: int, place: int, draft: int) -> Decision:
        """Decide one row."""
        slot = int(self.batch.slot_of[request])
        named, q = self.named(slot, place, draft)
        params = self.params(slot, row)
        return decide(self.batch.logits[row], params, draft, named, q, self.width)

    def params(self, slot: int, row: int) -> Params:
        """Return how a row of a slot's is sampled."""
        batch, vocab = self.batch, self.batch.logits.shape[1]
        top_k = vocab if batch.top_k is None else int(batch.top_k[slot])
        return Params(
            float(batch.temperature[slot]),
            top_k if 0 < top_k < vocab else vocab,
            1.0 if batch.top_p is None else float(batch.top_p[slot]),
            0.0 if batch.min_p is None else float(batch.min_p[slot]),
            Stream(int(batch.seeds[slot]), int(batch.positions[row]), int(batch.step[0])),
        )

    def named(self, slot: int, place: int, draft: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens that a draft could be, and its probabilities of them."""
        certain = {} if draft < 0 else {draft: 1.0}
        if draft >= 0 and self.batch.q_ids is not None and self.batch.q_logits is not None:
            ids = self.batch.q_ids[slot, place].tolist()
            weights = self.batch.q_logits[slot, place].tolist()
            pairs = zip(ids, weights, strict=True)
            # Of a token that is named twice the last counts.
            said = {
                i: w for i, w in pairs if 0 <= i < self.batch.logits.shape[1] and math.isfinite(w)
            }
            if draft in said:
                most = max(said.values())
                shares = {i: math.exp(w - most) for i, w in said.items()}
                certain = {i: share / sum(shares.values()) for i, share in shares.items()}
        device = self.batch.logits.device
        return (
            torch.tensor(list(certain), dtype=torch.int64, device=device),
            torch.tensor(list(certain.values()), dtype=torch.float64, device=device),
        )
