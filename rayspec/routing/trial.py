"""Whether a new version of the draft is better than the old one, by what both achieved.

A share of the requests of every class names the new version. Speculation changes no answer, so this
is no shadow that computes everything twice: each request has one of the drafts, and the worse one
costs speed alone. What counts is how many tokens a step gave beyond its own, over all steps of a
request, those included for which the draft had nothing: per class, for the classes have their own
levels, and with requests as the unit of doubt, for the steps of one request are alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import sqrt
from typing import Any

from rayspec.routing.exploration import explores
from rayspec.routing.names import CANDIDATE
from rayspec.routing.types import Outcome

__all__ = ["ClassTrial", "Comparison", "State", "Trial", "TrialSpec", "told"]

# It is looked at after every request, so an interval of 95 % would soon be wrong by chance.
_Z = 3.0
# Fewer requests of a class in either version say nothing of their spread.
_LEAST_OF_CLASS = 5


class State(StrEnum):
    """What has become of the new version."""

    TRIAL = "trial"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """`share` of the requests name the new version until `min_requests` of each were seen.

    After that it takes over once it is surely not worse by more than `tolerance`, a part of the
    tokens per step, and is rolled back once it surely is, over all or for one class.
    """

    share: float = 0.1
    min_requests: int = 50
    tolerance: float = 0.02


@dataclass(frozen=True, slots=True)
class Comparison:
    """By how many tokens per step the new version differs, with bounds."""

    gain: float
    low: float
    high: float
    base: float  # tokens per step of the old version


@dataclass(slots=True)
class _Sums:
    """Requests of one class in one version: accepted tokens a and steps s of each."""

    requests: int = 0
    a: float = 0.0
    s: float = 0.0
    aa: float = 0.0
    sa: float = 0.0
    ss: float = 0.0

    def add(self, accepted: int, steps: int) -> None:
        self.requests += 1
        self.a += accepted
        self.s += steps
        self.aa += accepted * accepted
        self.sa += accepted * steps
        self.ss += steps * steps

    @property
    def mean(self) -> float:
        """Accepted tokens per step."""
        return self.a / self.s

    @property
    def variance(self) -> float:
        """Of `mean`, as a ratio of sums over requests (Cochran, Sampling Techniques, 6.3)."""
        n, mean = self.requests, self.mean
        residuals = self.aa - 2 * mean * self.sa + mean * mean * self.ss
        return max(residuals, 0.0) / self.s**2 * n / (n - 1)


@dataclass(slots=True)
class ClassTrial:
    """What both versions achieved for one class."""

    old: _Sums = field(default_factory=_Sums)
    new: _Sums = field(default_factory=_Sums)

    def comparison(self) -> Comparison | None:
        """Return the difference; None while a version has too few requests."""
        if min(self.old.requests, self.new.requests) < _LEAST_OF_CLASS:
            return None
        gain = self.new.mean - self.old.mean
        doubt = _Z * sqrt(self.new.variance + self.old.variance)
        return Comparison(gain, gain - doubt, gain + doubt, 1 + self.old.mean)


class Trial:
    """Says which requests name the new version, and what becomes of it.

    Not thread-safe: it belongs to one event loop. Of several ingress replicas each judges by what
    it saw.
    """

    def __init__(self, spec: TrialSpec) -> None:
        self.spec = spec
        self.state = State.TRIAL
        self.classes: dict[str, ClassTrial] = {}
        self._turns = 0

    @property
    def serving(self) -> str | None:
        """The draft that most requests name; None is the old one."""
        return CANDIDATE if self.state is State.PROMOTED else None

    def draft(self) -> str | None:
        """Return the draft that the next request is to name."""
        if self.state is not State.TRIAL:
            return self.serving
        turn, self._turns = self._turns, self._turns + 1
        return CANDIDATE if explores(turn, self.spec.share) else None

    def observe(self, workload_class: str, outcome: Outcome) -> None:
        """Learn from a request that had a draft all along, and judge."""
        steps = outcome.steps + outcome.idle_steps
        if steps <= 0 or self.state is not State.TRIAL:
            return
        of_class = self.classes.setdefault(workload_class, ClassTrial())
        sums = of_class.new if outcome.draft == CANDIDATE else of_class.old
        sums.add(outcome.accepted, steps)
        self.state = self._judged()

    def requests(self) -> tuple[int, int]:
        """Return how many requests were seen, of the old version and of the new one."""
        seen = self.classes.values()
        return sum(each.old.requests for each in seen), sum(each.new.requests for each in seen)

    def comparison(self) -> Comparison | None:
        """Return the difference over all classes, each by its share of the steps."""
        told = [(each, found) for each in self.classes.values() if (found := each.comparison())]
        total = sum(each.old.s + each.new.s for each, _ in told)
        if not told:
            return None
        weights = [(each.old.s + each.new.s) / total for each, _ in told]
        gain = sum(w * found.gain for w, (_, found) in zip(weights, told, strict=True))
        base = sum(w * found.base for w, (_, found) in zip(weights, told, strict=True))
        variance = sum(
            w * w * (each.old.variance + each.new.variance)
            for w, (each, _) in zip(weights, told, strict=True)
        )
        doubt = _Z * sqrt(variance)
        return Comparison(gain, gain - doubt, gain + doubt, base)

    def _judged(self) -> State:
        if min(self.requests()) < self.spec.min_requests:
            return State.TRIAL
        overall = self.comparison()
        if overall is None:
            return State.TRIAL
        parts = [found for each in self.classes.values() if (found := each.comparison())]
        if any(self._worse(found) for found in (overall, *parts)):
            return State.ROLLED_BACK
        if overall.low > -self.spec.tolerance * overall.base:
            return State.PROMOTED
        return State.TRIAL

    def _worse(self, found: Comparison) -> bool:
        return found.high < -self.spec.tolerance * found.base


def told(trial: Trial) -> dict[str, Any]:
    """Return how a trial stands, in plain types."""
    overall, (old, new) = trial.comparison(), trial.requests()
    return {
        "state": str(trial.state),
        "share": trial.spec.share,
        "requests": {"old": old, "new": new},
        "needed": trial.spec.min_requests,
        "tokens_per_step": None if overall is None else asdict(overall),
        "classes": {
            name: None if (found := each.comparison()) is None else asdict(found)
            for name, each in sorted(trial.classes.items())
        },
    }
