"""A draft model that remembers every token, for tests of the bookkeeping around a model.

Its "KV cache" holds tokens by block and offset. Its logits depend on all tokens that a row reads
back through its block table, and on their places: stale KV, a wrong position, length or block
gives other drafts. All of it is torch operations that a CUDA graph can hold.
"""

from __future__ import annotations

import torch

from rayspec.draft.vllm_model.base import Chunks

__all__ = ["HashModel", "greedy_chain"]

_PRIME = 1_000_003
_SPREAD = 7_919


def _weights(count: int) -> torch.Tensor:
    return (torch.arange(count, dtype=torch.int64) * 31_337 + 11) % 10_007 + 1


def logits_of(tokens: list[int], vocab_size: int) -> torch.Tensor:
    """Return the model's logits after `tokens`, [vocab_size] float32."""
    every = torch.tensor(tokens, dtype=torch.int64)
    digest = ((every + 1) * _weights(len(tokens))).sum() % _PRIME
    digest = (digest + 13 * len(tokens)) % _PRIME
    return _scores(digest[None], vocab_size)[0]


def greedy_chain(tokens: list[int], k: int, vocab_size: int) -> list[int]:
    """Return the `k` greedy drafts after `tokens`."""
    drafts: list[int] = []
    for _ in range(k):
        drafts.append(int(logits_of(tokens + drafts, vocab_size).argmax()))
    return drafts


def _scores(digests: torch.Tensor, vocab_size: int) -> torch.Tensor:
    columns = torch.arange(vocab_size, device=digests.device, dtype=torch.int64)
    # Coarse, so that there are ties: the lowest column has to win.
    mixed = ((digests[:, None] + 17) * (columns[None] * _SPREAD + 101)) % _PRIME
    return (mixed % 509).to(torch.float32) / 64


class HashPlan:
    def __init__(self, model: HashModel, rows: int, width: int) -> None:
        device = model.device
        self.rows, self.width, self._model = rows, width, model
        self.input_ids = torch.zeros(rows * width, dtype=torch.int32, device=device)
        self.positions = torch.zeros(rows * width, dtype=torch.int64, device=device)
        self.seq_lens = torch.full((rows,), width, dtype=torch.int32, device=device)
        self.block_table = torch.zeros((rows, model.max_blocks), dtype=torch.int32, device=device)
        self.slot_mapping = torch.zeros(rows * width, dtype=torch.int64, device=device)

    def run(self) -> torch.Tensor:
        model = self._model
        flat = model.cache.view(-1)
        flat.scatter_(0, self.slot_mapping, self.input_ids)
        held = model.cache[self.block_table.long()].view(self.rows, -1).to(torch.int64)
        places = model.places[None, : held.shape[1]]
        inside = places < self.seq_lens[:, None]
        digest = torch.where(inside, (held + 1) * model.weights[None, : held.shape[1]], 0).sum(1)
        newest = self.positions.view(self.rows, self.width)[:, -1]
        digest = (digest % _PRIME + 13 * (newest + 1)) % _PRIME
        columns = model.vocab_size if model.token_ids is None else len(model.token_ids)
        return _scores(digest, columns)


class HashModel:
    """See the module; `vocab_size` is a few hundred, `token_ids` may trim it."""

    def __init__(
        self,
        device: str = "cpu",
        vocab_size: int = 300,
        block_size: int = 4,
        max_len: int = 64,
        widest: int = 2,
    ) -> None:
        self.device = torch.device(device)
        self.vocab_size = vocab_size
        self.token_ids: torch.Tensor | None = None
        self.block_size = block_size
        self.max_len = max_len
        self.kv_bytes_per_token = 4
        self.weight_bytes = 0
        self.widest = widest
        self.prefilled = 0
        self.max_blocks = 0

    def allocate(self, blocks: int, max_blocks: int) -> None:
        self.max_blocks = max_blocks
        count = max_blocks * self.block_size
        self.places = torch.arange(count, device=self.device)
        self.weights = _weights(count).to(self.device)
        self.cache = torch.full(
            (blocks, self.block_size), -7, dtype=torch.int32, device=self.device
        )

    def plan(self, rows: int, width: int) -> HashPlan:
        return HashPlan(self, rows, width)

    def prefill(self, chunks: Chunks) -> None:
        self.prefilled += len(chunks.ids)
        places = chunks.positions
        blocks = chunks.block_table[chunks.owner, places // self.block_size].long()
        self.cache.view(-1)[blocks * self.block_size + places % self.block_size] = chunks.ids

    def close(self) -> None:
        pass
