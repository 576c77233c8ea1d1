"""Prompts for measurements on real text: varied, fixed, and sorted by workload class.

`load_tests/data/prompts.json` lists groups of instructions and subjects; every instruction of a
group is asked about each of its subjects. Apply the tokenizer's chat template before use.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data" / "prompts.json"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a user asks, and the workload class that it belongs to."""

    workload: str
    text: str


def _read() -> tuple[Prompt, ...]:
    groups = json.loads(DATA.read_text(encoding="utf-8"))
    return tuple(
        # Not str.format: prompts about code are full of braces.
        Prompt(group["class"], ask.replace("{}", about))
        for group in groups
        for ask in group["ask"]
        for about in group["about"]
    )


PROMPTS = _read()
WORKLOADS = tuple(dict.fromkeys(prompt.workload for prompt in PROMPTS))


def sample(count: int, *, seed: int = 0, workloads: Collection[str] = WORKLOADS) -> list[Prompt]:
    """Return `count` different prompts in an order that depends on `seed` only.

    The classes take turns as long as they have prompts; ValueError if there are too few.
    """
    rng = random.Random(seed)
    piles = {name: [p for p in PROMPTS if p.workload == name] for name in sorted(workloads)}
    for pile in piles.values():
        rng.shuffle(pile)
    chosen: list[Prompt] = []
    while len(chosen) < count:
        if not any(piles.values()):
            raise ValueError(f"there are only {len(chosen)} prompts of {sorted(workloads)}")
        chosen += [pile.pop() for pile in piles.values() if pile]
    return chosen[:count]
