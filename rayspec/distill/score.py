"""The target's likeliest tokens at every place of its answers: what a draft learns from.

Stored once and read in every epoch, so that training does not run the target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rayspec.distill.batches import batches, collate
from rayspec.distill.texts import Texts

__all__ = ["Scores", "answered_before", "score", "top_k"]

_BLOCK = 64
_MEMORY = 2.5  # times the scores: what training needs beside them


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each answered token the target's top k: `ids` and `logp` float16, both [answered, k].

    Ids of vocabularies up to 65 536 are int16 without a sign, others int32.
    """

    ids: torch.Tensor
    logp: torch.Tensor

    @classmethod
    def empty(cls, folder: Path, tokens: int, k: int, vocabulary: int) -> Scores:
        """Return new arrays in files of `folder`."""
        narrow = np.int16 if vocabulary <= 1 << 16 else np.int32
        for name, kind in (("ids", narrow), ("logp", np.float16)):
            create: Any = np.lib.format.open_memmap  # has no types
            create(folder / f"{name}.npy", "w+", kind, (tokens, k)).flush()
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Scores:
        """Return what `score` wrote, mapped from its files."""
        ids, logp = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("ids", "logp"))
        return cls(torch.from_numpy(ids), torch.from_numpy(logp))

    def on(self, device: torch.device) -> Scores:
        """Return the same, on a GPU if that has more than enough memory, else as it is."""
        if device.type != "cuda" or _MEMORY * self.size > torch.cuda.mem_get_info(device)[0]:
            return self
        return Scores(self.ids.to(device), self.logp.to(device))

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.numel() * each.element_size() for each in (self.ids, self.logp))

    def rows(
        self, rows: npt.NDArray[np.int64], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and logp float32 of some answered tokens on the device, [rows, k]."""
        index = torch.from_numpy(rows)
        if self.ids.is_cuda:
            index = index.pin_memory().to(device, non_blocking=True)
        ids, logp = self.ids[index], self.logp[index]
        if device.type == "cuda" and not ids.is_cuda:
            ids, logp = (part.pin_memory().to(device, non_blocking=True) for part in (ids, logp))
        ids = ids.long()
        return ids & 0xFFFF if self.ids.dtype == torch.int16 else ids, logp.float()


def answered_before(texts: Texts) -> npt.NDArray[np.int64]:
    """Return how many answered tokens come before each token, [tokens]."""
    counted = np.cumsum(texts.answered, dtype=np.int64)
    return counted - texts.answered


@torch.inference_mode()
def score(
    target: Any,
    texts: Texts,
    k: int,
    folder: Path,
    *,
    budget: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Write the target's top k at every answered token of `texts` into `folder`.

    A batch has at most `budget` tokens with padding; `progress` gets the tokens done so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(target.parameters()).device
    head = target.get_output_embeddings().weight.float()
    scores = Scores.empty(folder, texts.answer_tokens, k, head.shape[0])
    before, done = answered_before(texts), 0
    for chosen in batches(texts.lengths, budget, seed=0):
        batch = collate(texts, chosen, before)
        hidden = target.base_model(batch.ids.to(device), use_cache=False).last_hidden_state
        places = hidden.flatten(0, 1)[batch.places.to(device)]
        for begin in range(0, len(batch.rows), 4096):
            rows = torch.from_numpy(batch.rows[begin : begin + 4096])
            values, ids = top_k(places[begin : begin + 4096].float() @ head.T, k)
            # 16 bits are enough to tell ids apart; the sign they are read with is undone in `rows`
            scores.ids[rows] = ids.cpu().to(scores.ids.dtype)
            scores.logp[rows] = values.half().cpu()
        done += len(batch.rows)
        progress(done)
    return scores


def top_k(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k greatest log-probabilities [n, k], float32, and their ids.

    The greatest k are in those k blocks whose maxima are greatest: two small searches instead of
    one through the vocabulary.
    """
    n, vocabulary = logits.shape
    whole = logits.logsumexp(-1, keepdim=True)
    if vocabulary % _BLOCK or vocabulary // _BLOCK < k:
        values, ids = logits.topk(min(k, vocabulary), dim=-1)
        return values - whole, ids
    blocks = logits.view(n, -1, _BLOCK)
    best = blocks.amax(-1).topk(k, dim=-1).indices  # [n, k]
    inside = blocks.gather(1, best[:, :, None].expand(-1, -1, _BLOCK)).view(n, -1)
    values, where = inside.topk(k, dim=-1)
    ids = best.gather(1, where // _BLOCK) * _BLOCK + where % _BLOCK
    return values - whole, ids
