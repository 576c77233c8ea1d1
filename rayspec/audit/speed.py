"""What speculation was worth: acceptance and latency of each workload class."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rayspec.audit.client import Answer
from rayspec.audit.turns import Pair

__all__ = ["ALL", "ClassSpeed", "Ratio", "measure", "paired_ratio"]

ALL = "all"
CONFIDENCE = 0.95
_RESAMPLES = 4000
# Fewer prompts than this give an interval that means nothing.
_FEWEST = 3

METRICS: Mapping[str, Callable[[Answer], float | None]] = {
    "ttft_ms": lambda answer: answer.ttft_s * 1e3,
    "tpot_ms": lambda answer: None if answer.tpot_s is None else answer.tpot_s * 1e3,
    "e2e_ms": lambda answer: answer.e2e_s * 1e3,
}


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast the speculative lane is, with a 95 % interval over prompts."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ClassSpeed:
    """One workload class: what was drafted, and the medians of both lanes in milliseconds."""

    workload_class: str
    prompts: int
    tokens: int
    drafted: int
    accepted: int
    plain: Mapping[str, float | None]
    speculative: Mapping[str, float | None]
    faster: Mapping[str, Ratio | None]

    @property
    def acceptance(self) -> float | None:
        """Share of draft tokens that were accepted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_step(self) -> float:
        """Tokens of one step of the target; each step gives one besides the accepted drafts."""
        return self.tokens / (self.tokens - self.accepted)


def measure(pairs: Sequence[Pair]) -> list[ClassSpeed]:
    """Return the classes in the order of the prompts, then all together."""
    names = dict.fromkeys(pair.workload_class for pair in pairs)
    groups = {name: [p for p in pairs if p.workload_class == name] for name in names}
    return [_measure(name, group) for name, group in {**groups, ALL: list(pairs)}.items()]


def paired_ratio(pairs: Sequence[tuple[float, float]], *, seed: int = 0) -> Ratio | None:
    """Return the geometric mean of plain ÷ speculative over prompts, with a bootstrap interval."""
    if not pairs:
        return None
    logs = np.log([plain / speculative for plain, speculative in pairs])
    value = math.exp(logs.mean())
    if len(pairs) < _FEWEST:
        return Ratio(value, None, None)
    random = np.random.default_rng(seed)
    means = random.choice(logs, (_RESAMPLES, len(logs))).mean(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.exp(np.quantile(means, (tail, 1 - tail)))
    return Ratio(value, float(low), float(high))


def _measure(name: str, pairs: Sequence[Pair]) -> ClassSpeed:
    ours = [answer for pair in pairs for answer in pair.speculative]
    return ClassSpeed(
        workload_class=name,
        prompts=len(pairs),
        tokens=sum(len(answer.tokens) for answer in ours),
        drafted=sum(answer.drafted for answer in ours),
        accepted=sum(answer.accepted for answer in ours),
        plain=_medians([answer for pair in pairs for answer in pair.plain]),
        speculative=_medians(ours),
        faster={metric: paired_ratio(_both(pairs, metric)) for metric in METRICS},
    )


def _medians(answers: Sequence[Answer]) -> dict[str, float | None]:
    return {metric: _median(answers, metric) for metric in METRICS}


def _both(pairs: Sequence[Pair], metric: str) -> list[tuple[float, float]]:
    """Return the median over rounds in each lane, of the prompts that have one in both."""
    both = ((_median(p.plain, metric), _median(p.speculative, metric)) for p in pairs)
    return [(plain, ours) for plain, ours in both if plain and ours]


def _median(answers: Sequence[Answer], metric: str) -> float | None:
    values = [value for a in answers if (value := METRICS[metric](a)) is not None]
    return statistics.median(values) if values else None
