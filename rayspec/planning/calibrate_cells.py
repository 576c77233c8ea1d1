"""What a calibration measures, cell by cell, the most needed first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from rayspec.routing.types import Lane

__all__ = [
    "Cell",
    "ClassCell",
    "ContentionCell",
    "Depth",
    "MixedCell",
    "PrefillCell",
    "StepCell",
    "plan",
]

Depth = Literal["quick", "full"]

_QUICK_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class StepCell:
    """Steps of `batch` streams in one lane while the other one idles."""

    lane: Lane
    batch: int
    k: int
    context: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class PrefillCell:
    """The time to the first token in a lane that is idle otherwise, for several prompt lengths."""

    lane: Lane
    lengths: tuple[int, ...]
    round: int = 0


@dataclass(frozen=True, slots=True)
class MixedCell:
    """Prompts of several lengths, one at a time, beside `batch` streams of the same lane."""

    lane: Lane
    batch: int
    k: int
    context: int
    lengths: tuple[int, ...]
    round: int = 0


@dataclass(frozen=True, slots=True)
class ContentionCell:
    """Steps of both lanes while both have `batch` streams."""

    batch: int
    k: int
    context: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class ClassCell:
    """Answers to a class's prompts, with drafts: acceptance and lengths."""

    workload_class: str


Cell = StepCell | PrefillCell | MixedCell | ContentionCell | ClassCell


@dataclass(frozen=True, slots=True)
class _Extent:
    batches: Mapping[Lane, Sequence[int]]
    tiers: Sequence[int]
    contexts: Sequence[int]
    lengths: tuple[int, ...]
    contended: Sequence[int]
    rounds: int


def plan(
    seats: Mapping[Lane, int],
    classes: Sequence[str],
    *,
    depth: Depth,
    k_max: int,
    max_len: int,
    tiers: Sequence[int] = (),
) -> list[Cell]:
    """Return the cells in order, for lanes whose engines decode so many sequences together.

    Without `tiers` the draft lengths are 0, `k_max` and its half, or in a full calibration powers
    of two. The first round holds everything that a fit needs; further ones repeat it.
    """
    extent = _extent(seats, depth, k_max, max_len, tiers)
    cells: list[Cell] = []
    for number in range(extent.rounds):
        cells += _steps(extent, number)
        cells += [PrefillCell(lane, extent.lengths, number) for lane in seats]
        cells += _mixed(extent, number)
        if number == 0 and Lane.SPECULATIVE in seats:
            cells += [ClassCell(name) for name in classes]
        cells += [
            ContentionCell(batch, extent.tiers[-1], extent.contexts[0], number)
            for batch in extent.contended
        ]
    return cells


def _extent(
    seats: Mapping[Lane, int], depth: Depth, k_max: int, max_len: int, tiers: Sequence[int]
) -> _Extent:
    tops = {
        lane: min(top, _QUICK_BATCH) if depth == "quick" else top for lane, top in seats.items()
    }
    batches = {
        lane: sorted({b for b in (1 << n for n in range(12)) if b < top} | {top})
        for lane, top in tops.items()
    }
    if depth == "quick":
        own = {0, (k_max + 1) // 2, k_max}
    else:
        own = {0, k_max, *(k for k in (1, 2, 3, 4, 6, 8, 12, 16, 24) if k < k_max)}
    base = max(min(128, max_len // 4), 1)
    contexts = (base, *(c for c in (1024, 4096, 16384) if c <= max_len // 2))
    lengths = (base // 4 or 1, base, *(n for n in (512, 1024, 4096) if n <= max_len // 2))
    contended = [b for b in (1, 4, 16) if b <= min(tops.values())] if len(seats) > 1 else []
    if depth == "quick":
        contexts, lengths, contended = contexts[:2], lengths[:4], contended[:2]
    rounds = 1 if depth == "quick" else 3
    return _Extent(batches, sorted(tiers or own), contexts, lengths, contended, rounds)


def _steps(extent: _Extent, number: int) -> Iterator[StepCell]:
    # Lanes take turns, so that a machine that slows down slows both.
    for batch in sorted({b for batches in extent.batches.values() for b in batches}):
        for k, lane in product(extent.tiers, extent.batches):
            drafts = k if lane is Lane.SPECULATIVE else 0
            once = lane is Lane.SPECULATIVE or k == extent.tiers[0]
            if once and batch in extent.batches[lane]:
                yield StepCell(lane, batch, drafts, extent.contexts[0], number)
    # The price of a context token is one number, which few sequences tell as well as many.
    for context, lane in product(extent.contexts[1:], extent.batches):
        k = extent.tiers[-1] if lane is Lane.SPECULATIVE else 0
        yield StepCell(lane, min(2, extent.batches[lane][-1]), k, context, number)


def _mixed(extent: _Extent, number: int) -> Iterator[MixedCell]:
    """Yield the cells of prompts beside streams, which need a seat of their own."""
    # Prompts as most of them are, thrice: what is sought is a share of a step.
    lengths = extent.lengths[1:3] * 3
    for lane, batches in extent.batches.items():
        batch = min(4, batches[-1] - 1)
        if batch > 0:
            k = extent.tiers[-1] if lane is Lane.SPECULATIVE else 0
            yield MixedCell(lane, batch, k, extent.contexts[0], lengths, number)
