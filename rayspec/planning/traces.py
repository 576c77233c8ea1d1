"""Traffic to simulate: requests with lengths and classes, at given times or from waiting users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rayspec.errors import ConfigError
from rayspec.planning.calibration import ClassProfile

__all__ = ["ClassMix", "Trace", "closed_loop", "open_loop", "parse_mix"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of their arrival.

    With `users` the loop is closed: each of them sends the next request `think_s` after its last
    one was answered, and `arrivals` are empty. Else `arrivals` are seconds, growing, from 0.
    """

    classes: tuple[str, ...]
    class_of: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    arrivals: Floats
    users: int = 0
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.users and np.any(np.diff(self.arrivals) < 0):
            raise ValueError("arrivals are not in order")
        if len(self) and min(self.prompt_tokens.min(), self.output_tokens.min()) < 1:
            raise ValueError("prompts and outputs have at least one token")

    def __len__(self) -> int:
        return len(self.class_of)

    @property
    def rate(self) -> float:
        """Requests per second; 0 for a closed loop and for a trace without extent."""
        if self.users or len(self) < 2:
            return 0.0
        span = float(self.arrivals[-1] - self.arrivals[0])
        return (len(self) - 1) / span if span > 0 else 0.0

    def at_rate(self, rate: float) -> Trace:
        """Return the same requests, stretched in time to `rate` per second."""
        if not self.rate:
            return self
        return replace(self, arrivals=self.arrivals * (self.rate / rate))

    def with_users(self, users: int, think_s: float) -> Trace:
        """Return the same requests from `users` users in a closed loop."""
        return replace(self, arrivals=np.empty(0), users=users, think_s=think_s)


@dataclass(frozen=True, slots=True)
class ClassMix:
    """Shares of the classes, and their lengths: gamma distributed with mean and `cv`.

    A `cv` of 0 is a fixed length, of 1 an exponential one.
    """

    shares: Mapping[str, float]
    profiles: Mapping[str, ClassProfile]
    cv: float = 0.5

    def requests(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return `count` requests without arrivals, as arguments of `Trace`."""
        classes = tuple(self.shares)
        weights = np.array([self.shares[name] for name in classes], dtype=float)
        class_of = rng.choice(len(classes), size=count, p=weights / weights.sum())
        prompts = np.array([self.profiles[name].prompt_tokens for name in classes])
        outputs = np.array([self.profiles[name].output_tokens for name in classes])
        return {
            "classes": classes,
            "class_of": class_of,
            "prompt_tokens": self._lengths(prompts[class_of], rng),
            "output_tokens": self._lengths(outputs[class_of], rng),
        }

    def _lengths(self, means: Floats, rng: np.random.Generator) -> Ints:
        shape = 1 / self.cv**2 if self.cv > 0 else np.inf
        drawn: Floats = rng.gamma(shape, means / shape) if self.cv > 0 else means
        lengths: Ints = np.maximum(np.rint(drawn), 1).astype(np.int64)
        return lengths


def open_loop(mix: ClassMix, count: int, rate: float, cv: float, seed: int) -> Trace:
    """Return `count` requests at `rate` per second; `cv` of their distances is 1 for Poisson."""
    rng = np.random.default_rng(seed)
    requests = mix.requests(count, rng)
    if cv > 0:
        gaps = rng.gamma(1 / cv**2, cv**2 / rate, size=count)
    else:
        gaps = np.full(count, 1 / rate)
    gaps[:1] = 0
    return Trace(**requests, arrivals=np.cumsum(gaps))


def closed_loop(mix: ClassMix, count: int, users: int, think_s: float, seed: int) -> Trace:
    """Return `count` requests of `users` users who wait for their answers."""
    rng = np.random.default_rng(seed)
    requests = mix.requests(count, rng)
    return Trace(**requests, arrivals=np.empty(0), users=users, think_s=think_s)


def parse_mix(text: str, known: Sequence[str]) -> dict[str, float]:
    """Read `code=0.3,chat=0.7`, or `code` alone; an empty text gives all known classes equally."""
    if not text:
        return dict.fromkeys(known, 1.0)
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            shares[name] = float(share or 1.0)
        except ValueError:
            raise ConfigError("mix", text, f"{share!r} is not a number") from None
        if not shares[name] >= 0 or shares[name] == float("inf"):
            raise ConfigError("mix", text, f"the share of {name} is not positive")
    if not sum(shares.values()) > 0:
        raise ConfigError("mix", text, "no class has a share")
    return {name: share for name, share in shares.items() if share > 0}
