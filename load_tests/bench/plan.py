"""What is measured, in which order, and which engines share a GPU's memory. Values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cell", "Group", "Turn", "Variant", "interleave", "pack"]


@dataclass(frozen=True, order=True)
class Variant:
    """One engine: a system, the most drafts a step of it takes, and its co-located draft."""

    system: str
    k: int = 0
    draft: str = ""

    @property
    def name(self) -> str:
        """How the engine is called in logs and file names."""
        draft = f"-{Path(self.draft).name}" if self.draft else ""
        return f"{self.system}{draft}-k{self.k}" if self.k else self.system


@dataclass(frozen=True, order=True)
class Turn:
    """One engine's share of a round: how it is called in the results, and what drafts for it."""

    system: str
    variant: Variant
    k: int = 0
    draft: str = ""


@dataclass(frozen=True, order=True)
class Cell:
    """One measurement: requests at a time, tokens per step (0: as they come), temperature."""

    batch: int
    acceptance: float
    temperature: float


@dataclass(frozen=True)
class Group:
    """Engines that are alive together; their turns are interleaved."""

    variants: tuple[Variant, ...]

    @property
    def interleaved(self) -> bool:
        """Whether there is another to take turns with."""
        return len(self.variants) > 1


def pack(
    variants: Sequence[Variant],
    needs: Mapping[Variant, Mapping[int, int]],
    capacity: int,
    plain: Variant | None,
) -> list[Group]:
    """Return groups that fit into `capacity` bytes of each GPU, in the order of `variants`.

    `needs` says how many bytes a variant takes of which GPU.
    Every group has `plain` in it if that leaves room for another: the ratio to it is what is
    measured. A variant that does not fit even alone still gets its group: its engine will say so.
    """
    groups: list[list[Variant]] = []
    rest = [variant for variant in variants if variant != plain]
    first = [plain] if plain is not None else []
    if not rest:
        return [Group(tuple(first))] if first else []
    for variant in rest:
        if groups and _fits([*groups[-1], variant], needs, capacity):
            groups[-1].append(variant)
        elif _fits([*first, variant], needs, capacity):
            groups.append([*first, variant])
        else:
            if first and not any(plain in group for group in groups):
                groups.append(list(first))
            groups.append([variant])
    return [Group(tuple(group)) for group in groups]


def _fits(
    variants: Sequence[Variant], needs: Mapping[Variant, Mapping[int, int]], capacity: int
) -> bool:
    taken: Counter[int] = Counter()
    for variant in variants:
        taken.update(needs[variant])
    return all(size <= capacity for size in taken.values())


def interleave(turns: Sequence[Turn], rounds: int) -> Iterator[tuple[int, Turn]]:
    """Yield (round, turn): every turn once a round, another one first in each."""
    for number in range(rounds):
        start = number % len(turns)
        for turn in (*turns[start:], *turns[:start]):
            yield number, turn
