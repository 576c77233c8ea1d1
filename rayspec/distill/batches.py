"""Batches of texts of like length: little padding, every text once an epoch, an order by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rayspec.distill.texts import Texts

__all__ = ["Batch", "batches", "collate", "epochs"]

_POOL = 50  # batches whose texts are sorted by length together


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded texts `ids` [texts, length], and the n places whose next token the target wrote.

    `places` [n] index the flattened texts; `rows` [n] number those tokens among all answered ones.
    """

    ids: torch.Tensor
    places: torch.Tensor
    rows: npt.NDArray[np.int64]


def batches(lengths: npt.NDArray[np.int64], budget: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Return one epoch: indices of texts, at most `budget` tokens with padding in each batch."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    pool = max(1, int(_POOL * budget / max(1.0, float(lengths.mean())))) if len(lengths) else 1
    found: list[npt.NDArray[np.int64]] = []
    for begin in range(0, len(order), pool):
        some = order[begin : begin + pool]
        some = some[np.argsort(lengths[some], kind="stable")]
        first = 0
        for last in range(1, len(some) + 1):
            if last == len(some) or (last - first + 1) * lengths[some[last]] > budget:
                found.append(some[first:last])
                first = last
    return [found[index] for index in rng.permutation(len(found))]


def epochs(
    lengths: npt.NDArray[np.int64], budget: int, seed: int, skip: int = 0
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches without end, from batch number `skip` on."""
    epoch = 0
    while True:
        here = batches(lengths, budget, seed + epoch)
        yield from here[skip:]
        skip = max(0, skip - len(here))
        epoch += 1


def collate(texts: Texts, chosen: npt.NDArray[np.int64], answered: npt.NDArray[np.int64]) -> Batch:
    """Return the chosen texts as a batch; `answered` counts answered tokens before each token."""
    ends = texts.ends[chosen]
    starts = np.where(chosen > 0, texts.ends[chosen - 1], 0)
    lengths = ends - starts
    columns = np.arange(int(lengths.max()))
    where = np.minimum(starts[:, None] + columns, len(texts.tokens) - 1)  # [texts, length]
    ids = np.where(columns < lengths[:, None], texts.tokens[where], 0).astype(np.int64)
    following = np.minimum(where + 1, len(texts.tokens) - 1)
    wanted = texts.answered[following] & (columns < lengths[:, None] - 1)
    places = np.flatnonzero(wanted)
    return Batch(
        torch.from_numpy(ids), torch.from_numpy(places), answered[following.reshape(-1)[places]]
    )
