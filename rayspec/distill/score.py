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


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each answered token the target's top k: `ids` and `logp` float16, both [answered, k]."""

    ids: npt.NDArray[Any]
    logp: npt.NDArray[np.float16]

    @classmethod
    def empty(cls, folder: Path, tokens: int, k: int, vocabulary: int) -> Scores:
        """Return new arrays in files of `folder`."""
        narrow = np.uint16 if vocabulary <= 1 << 16 else np.int32
        return cls(
            np.lib.format.open_memmap(folder / "ids.npy", "w+", narrow, (tokens, k)),
            np.lib.format.open_memmap(folder / "logp.npy", "w+", np.float16, (tokens, k)),
        )

    @classmethod
    def load(cls, folder: Path) -> Scores:
        """Return what `score` wrote, mapped from its files."""
        return cls(
            np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "logp.npy", mmap_mode="r")
        )

    def rows(
        self, rows: npt.NDArray[np.int64], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and logp float32 of some answered tokens, [rows, k]."""
        ids = torch.from_numpy(self.ids[rows].astype(np.int32))
        logp = torch.from_numpy(np.asarray(self.logp[rows]))
        if device.type == "cuda":  # from pinned memory the copy waits for nothing
            ids, logp = (part.pin_memory().to(device, non_blocking=True) for part in (ids, logp))
        return ids.long(), logp.float()


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
    head = target.get_output_embeddings().weight
    scores = Scores.empty(folder, texts.answer_tokens, k, head.shape[0])
    before, done = answered_before(texts), 0
    for chosen in batches(texts.lengths, budget, seed=0):
        batch = collate(texts, chosen, before)
        hidden = target.base_model(batch.ids.to(device), use_cache=False).last_hidden_state
        places = hidden.flatten(0, 1)[batch.places.to(device)]
        for begin in range(0, len(batch.rows), 4096):
            rows = batch.rows[begin : begin + 4096]
            values, ids = top_k(places[begin : begin + 4096] @ head.T, k)
            scores.ids[rows] = ids.cpu().numpy().astype(scores.ids.dtype)
            scores.logp[rows] = values.half().cpu().numpy()
        done += len(batch.rows)
        progress(done)
    for array in (scores.ids, scores.logp):
        array.flush()
    return scores


def top_k(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k greatest log-probabilities [n, k], float32, and their ids.

    The greatest k are in those k blocks whose maxima are greatest: two small searches instead of
    one through the vocabulary.
    """
    n, vocabulary = logits.shape
    logits = logits.float()
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
