"""Sessions: what a user asks, turn by turn, as a function of class, number and seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from load_tests.prompts import DATA
from load_tests.workloads.material import CHARS_PER_TOKEN, fill
from load_tests.workloads.profiles import PROFILES

__all__ = ["Limits", "Session", "Sessions"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Scales of all lengths, and how much the model takes: `context` tokens, if that is known."""

    prompt_scale: float = 1.0
    output_scale: float = 1.0
    context: int | None = None

    def __post_init__(self) -> None:
        if self.prompt_scale <= 0 or self.output_scale <= 0:
            raise ValueError("scales are greater than 0")

    @property
    def most(self) -> int:
        """Most tokens of a first prompt, and of an answer.

        A quarter of the context: a prompt of figures has up to twice the tokens that its characters
        suggest, and a second turn should fit.
        """
        return max((self.context or 32768) // 4, 16)


@dataclass(frozen=True, slots=True)
class Session:
    """The user's side of a conversation; `max_tokens` goes with the turns."""

    workload: str
    number: int
    turns: tuple[str, ...]
    max_tokens: tuple[int, ...]
    json: bool = False

    def fits(self, turn: int, used: int, context: int | None) -> bool:
        """Whether a turn fits behind the `used` tokens of the conversation so far."""
        if context is None:
            return True
        # Two characters a token is far more than prose has; templates add a few tokens.
        return used + len(self.turns[turn]) // 2 + 32 + self.max_tokens[turn] <= context


@cache
def _groups() -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(DATA.read_text(encoding="utf-8")))


class Sessions:
    """The sessions of a run: session `number` of a class is always the same for one seed."""

    def __init__(self, seed: int, per_class: int, limits: Limits) -> None:
        self._seed = seed
        self._per_class = per_class
        self.limits = limits

    def draw(self, workload: str, rng: random.Random) -> Session:
        """Return one of the sessions of a class."""
        return self.session(workload, rng.randrange(self._per_class))

    def session(self, workload: str, number: int) -> Session:
        """Return a session: questions about one subject, the first of them with material."""
        rng = random.Random(f"{self._seed}/{workload}/{number}")
        profile, limits = PROFILES[workload], self.limits
        group = rng.choice([group for group in _groups() if group["class"] == workload])
        about = rng.choice(group["about"])
        asks = rng.sample(group["ask"], len(group["ask"]))
        turns = 1
        while turns < len(asks) and rng.random() < 1 - 1 / profile.turns:
            turns += 1
        # Not str.format: prompts about code are full of braces.
        texts = [ask.replace("{}", about) for ask in asks[:turns]]
        wanted = min(profile.prompt.scaled(limits.prompt_scale).draw(rng), limits.most)
        texts[0] += fill(profile.material, wanted - len(texts[0]) / CHARS_PER_TOKEN, rng)
        output = profile.output.scaled(limits.output_scale)
        return Session(
            workload,
            number,
            tuple(texts),
            tuple(max(min(output.draw(rng), limits.most), 2) for _ in texts),
            profile.json and "JSON" in texts[0],
        )
