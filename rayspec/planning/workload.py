"""A trace with chance taken out: how many steps each request needs for each K, drawn beforehand.

All scenarios of a simulation share these draws, so that they differ by their decisions alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rayspec.errors import ConfigError
from rayspec.planning.calibration import ClassProfile
from rayspec.planning.traces import Floats, Ints, Trace

__all__ = ["Workload", "tokens_per_step"]

_BLOCK = 1 << 20  # steps drawn at a time; bounds memory


def tokens_per_step(acceptance: list[float], k: int) -> Floats:
    """Return the probabilities that a step with `k` drafts yields 1, 2, … k + 1 tokens.

    `acceptance[i]` is of drafts at position i whose predecessors were accepted; the last one holds
    for all after it, and without any nothing is accepted.
    """
    rates = [acceptance[min(i, len(acceptance) - 1)] if acceptance else 0.0 for i in range(k)]
    reached: Floats = np.concatenate(([1.0], np.cumprod(rates), [0.0]))  # [k + 2]
    return -np.diff(reached)


class Workload:
    """The requests of a trace as plain lists, which a simulation reads one by one, and their steps.

    A request's first token comes with its prompt; the others take `steps(k)`.
    """

    def __init__(self, trace: Trace, profiles: Mapping[str, ClassProfile], seed: int = 0) -> None:
        unknown = [name for name in trace.classes if name not in profiles]
        if unknown:
            raise ConfigError(
                "class",
                unknown[0],
                "is not in the calibration, which has "
                f"{', '.join(sorted(profiles)) or 'none'}; "
                "calibrate with prompts of it, or tell its acceptance",
            )
        self.trace = trace
        self.profiles = [profiles[name] for name in trace.classes]
        self.class_of: list[int] = trace.class_of.tolist()
        self.prompts: list[int] = trace.prompt_tokens.tolist()
        self.outputs: list[int] = trace.output_tokens.tolist()
        self.context = float(np.mean(trace.prompt_tokens + trace.output_tokens / 2))
        self._coverage = [profile.coverage for profile in self.profiles]
        self._seed = seed
        self._steps: dict[int, list[int]] = {0: (trace.output_tokens - 1).tolist()}

    def __len__(self) -> int:
        return len(self.prompts)

    def coverage(self, request: int) -> float:
        """Return the share of the drafts asked for that a request is offered."""
        return self._coverage[self.class_of[request]]

    def steps(self, k: int) -> list[int]:
        """Return the verification steps of every request if each has `k` drafts."""
        if k not in self._steps:
            found = np.zeros(len(self), dtype=np.int64)
            for index, profile in enumerate(self.profiles):
                mine = np.flatnonzero(self.trace.class_of == index)
                rng = np.random.default_rng([self._seed, k, index])
                shares = tokens_per_step(profile.acceptance, k)
                found[mine] = _draw(self.trace.output_tokens[mine] - 1, shares, rng)
            self._steps[k] = found.tolist()
        return self._steps[k]


def _draw(needed: Ints, shares: Floats, rng: np.random.Generator) -> Ints:
    """Return the independent steps after which each request has the tokens that it needs."""
    steps = np.zeros(len(needed), dtype=np.int64)
    bounds = np.cumsum(shares)[:-1]
    per_request = max(int(needed.max(initial=0)), 1)
    size = max(_BLOCK // per_request, 1)
    for start in range(0, len(needed), size):
        block = needed[start : start + size]
        drawn = np.searchsorted(bounds, rng.random(int(block.sum())), side="right") + 1
        reached = np.cumsum(drawn)
        before = done = 0  # tokens, steps
        for offset, tokens in enumerate(block.tolist()):
            if tokens:
                end = int(reached.searchsorted(before + tokens)) + 1
                steps[start + offset] = end - done
                done, before = end, int(reached[end - 1])
    return steps
