"""How long prompts and answers of a class are; recent requests count most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rayspec.routing.types import Outcome, RequestView

__all__ = ["Lengths", "TrafficTracker"]

_BYTES_PER_TOKEN = 4.0
_PRIOR_WEIGHT = 2.0  # requests
_MAX_CLASSES = 1024


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a prompt and of an answer."""

    prompt: float = 256.0
    output: float = 128.0


@dataclass(slots=True)
class _Sums:
    at: float
    answers: float
    size: float
    prompt: float
    output: float


class TrafficTracker:
    """Learns bytes per token and tokens per answer of every class. Not thread-safe.

    A request's weight halves every `half_life_s`. Until a class has shown some requests, `priors`
    (or a default) stand in for them.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        half_life_s: float = 300.0,
        priors: Mapping[str, Lengths] | None = None,
    ) -> None:
        self._clock = clock
        self._half_life_s = half_life_s
        self._priors = dict(priors or {})
        self._sums: dict[str, _Sums] = {}

    def observe(self, workload_class: str, outcome: Outcome) -> None:
        """Learn from a finished request; nothing from one that generated nothing."""
        if not outcome.finished or outcome.output_tokens <= 0:
            return
        if workload_class not in self._sums and len(self._sums) >= _MAX_CLASSES:
            self._sums.clear()  # names come from clients; a class is relearnt within a few requests
        sums = self._decayed(workload_class)
        sums.answers += 1
        sums.output += outcome.output_tokens / max(outcome.sequences, 1)
        if outcome.body_bytes > 0 and outcome.prompt_tokens > 0:
            sums.size += outcome.body_bytes
            sums.prompt += outcome.prompt_tokens

    def lengths(self, workload_class: str, request: RequestView) -> Lengths:
        """Return what to expect of a request: its prompt by its size, its answer by others'."""
        prior = self._priors.get(workload_class, Lengths())
        sums = self._decayed(workload_class) if workload_class in self._sums else None
        if sums is None:
            prompt, output = request.body_bytes / _BYTES_PER_TOKEN, prior.output
        else:
            size = sums.size + _PRIOR_WEIGHT * _BYTES_PER_TOKEN * prior.prompt
            tokens = sums.prompt + _PRIOR_WEIGHT * prior.prompt
            prompt = request.body_bytes * tokens / size
            answers = sums.answers + _PRIOR_WEIGHT
            output = (sums.output + _PRIOR_WEIGHT * prior.output) / answers
        if request.body_bytes <= 0:
            prompt = prior.prompt
        if request.max_tokens is not None:
            output = min(output, request.max_tokens)
        return Lengths(max(prompt, 1.0), max(output, 1.0))

    def usual(self, workload_class: str) -> Lengths:
        """Return the mean lengths of a class's recent requests."""
        prior = self._priors.get(workload_class, Lengths())
        if workload_class not in self._sums:
            return prior
        sums = self._decayed(workload_class)
        answers = sums.answers + _PRIOR_WEIGHT
        return Lengths(
            max((sums.prompt + _PRIOR_WEIGHT * prior.prompt) / answers, 1.0),
            max((sums.output + _PRIOR_WEIGHT * prior.output) / answers, 1.0),
        )

    def _decayed(self, name: str) -> _Sums:
        now = self._clock()
        sums = self._sums.setdefault(name, _Sums(now, 0.0, 0.0, 0.0, 0.0))
        weight = 0.5 ** (max(0.0, now - sums.at) / self._half_life_s)
        sums.answers *= weight
        sums.size *= weight
        sums.prompt *= weight
        sums.output *= weight
        sums.at = now
        return sums
