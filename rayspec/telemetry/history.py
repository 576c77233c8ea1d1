"""What an ingress replica remembers for those who look at it: half an hour of counts, decisions.

Bounded, and never anything of a client's text: classes have bounded names, and a decision is told
by the rule that made it. Counts of several replicas add up; see `merge`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from rayspec.routing import Decision, Lane, LaneView, Outcome, Ticket
from rayspec.routing.cost_model import breakeven_acceptance, expected_tokens

__all__ = [
    "INTERVALS",
    "INTERVAL_S",
    "ClassCounts",
    "History",
    "Interval",
    "Kept",
    "LaneCounts",
    "Told",
    "merge",
]

INTERVAL_S = 10
INTERVALS = 180
_DECISIONS = 50
# A ticket that never comes back would stay: none should, and this many may be open.
_MAX_OPEN = 4096


@dataclass(slots=True)
class ClassCounts:
    """What a class did in an interval: requests decided, draft tokens verified and accepted."""

    requests: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(slots=True)
class LaneCounts:
    """What a lane did in an interval; its mean load is `load` over `samples`.

    Tokens count when their request ends.
    """

    requests: int = 0
    tokens: int = 0
    load: int = 0
    samples: int = 0


@dataclass(slots=True)
class Interval:
    """Counts of the `INTERVAL_S` seconds that begin at `at`, in seconds since the epoch."""

    at: int
    lanes: dict[Lane, LaneCounts] = field(default_factory=dict)
    classes: dict[str, ClassCounts] = field(default_factory=dict)


@dataclass(slots=True)
class Told:
    """A decision, and what became of its request once that is known.

    `finished` is None while it is answered and False if it was not answered to its end here, as
    after a spill to another lane. `seconds` are from its decision to its end.
    """

    at: float
    workload_class: str
    lane: Lane
    reason: str
    k: int | None
    predicted_s: dict[Lane, float]
    loads: dict[Lane, int]
    finished: bool | None = None
    seconds: float | None = None
    output_tokens: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(slots=True)
class Kept:
    """All that one replica, or several together, remember; the newest decision comes first.

    `breakeven` is, of the last decision about each class and lane with drafts, the acceptance at
    every position from which they paid (None if never), and the one that would yield as many
    tokens as the decision expected.
    """

    intervals: list[Interval] = field(default_factory=list)
    decisions: list[Told] = field(default_factory=list)
    breakeven: dict[tuple[str, Lane], tuple[float | None, float]] = field(default_factory=dict)


_Counts = TypeVar("_Counts", ClassCounts, LaneCounts)


class History:
    """Remembers the last intervals and decisions; `clock` tells seconds since the epoch.

    Not thread-safe: it belongs to one event loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._intervals: deque[Interval] = deque(maxlen=INTERVALS)
        self._decisions: deque[Told] = deque(maxlen=_DECISIONS)
        self._open: dict[Ticket, Told] = {}
        self._breakeven: dict[tuple[str, Lane], tuple[float | None, float]] = {}

    def decided(self, ticket: Ticket, label: str, loads: Mapping[Lane, int]) -> None:
        """Remember a decision about a class named `label`, made at these loads of the lanes.

        Requests that put no sequence into an engine, such as a list of models, are left out.
        """
        if not ticket.sequences:
            return
        decision = ticket.decision
        told = Told(
            self._clock(),
            label,
            decision.lane,
            decision.reason,
            decision.k,
            _predicted(decision),
            dict(loads),
        )
        self._decisions.appendleft(told)
        if len(self._open) < _MAX_OPEN:
            self._open[ticket] = told
        interval = self._interval()
        interval.lanes.setdefault(decision.lane, LaneCounts()).requests += 1
        interval.classes.setdefault(label, ClassCounts()).requests += 1
        drafting = {} if decision.forecast is None else decision.forecast.drafting
        for lane, drafts in drafting.items():
            if drafts.best is not None:
                k = drafts.best.k
                tokens = expected_tokens(drafts.believed, k)
                # The acceptance at which 1 + a + … + a^k is so many tokens.
                expected = breakeven_acceptance(tokens, 1.0, k) or 0
                self._breakeven[label, lane] = drafts.breakeven, expected

    def finished(self, ticket: Ticket, outcome: Outcome | None) -> None:
        """Remember how a request ended; None if its answer was cut off or another lane takes it."""
        told = self._open.pop(ticket, None)
        if told is None:
            return
        told.finished = outcome is not None
        told.seconds = max(self._clock() - told.at, 0.0)
        if outcome is None:
            return
        told.output_tokens = outcome.output_tokens
        told.drafted, told.accepted = outcome.drafted, outcome.accepted
        interval = self._interval()
        interval.lanes.setdefault(told.lane, LaneCounts()).tokens += outcome.output_tokens
        counts = interval.classes.setdefault(told.workload_class, ClassCounts())
        counts.drafted += outcome.drafted
        counts.accepted += outcome.accepted

    def sample(self, views: Mapping[Lane, LaneView]) -> None:
        """Note how full the lanes are."""
        interval = self._interval()
        for lane, view in views.items():
            counts = interval.lanes.setdefault(lane, LaneCounts())
            counts.load += view.concurrency
            counts.samples += 1

    def kept(self) -> Kept:
        """Return what is remembered; it goes on changing until it is copied or sent."""
        return Kept(list(self._intervals), list(self._decisions), dict(self._breakeven))

    def _interval(self) -> Interval:
        at = int(self._clock()) // INTERVAL_S * INTERVAL_S
        if not self._intervals or at > self._intervals[-1].at:
            self._intervals.append(Interval(at))
        return self._intervals[-1]  # also if the clock was set back


def merge(parts: Iterable[Kept]) -> Kept:
    """Return what several replicas remember together, as long as one alone would keep it."""
    found = list(parts)
    intervals: dict[int, Interval] = {}
    for each in (interval for part in found for interval in part.intervals):
        into = intervals.setdefault(each.at, Interval(each.at))
        for lane, counts in each.lanes.items():
            _add(into.lanes.setdefault(lane, LaneCounts()), counts)
        for name, classed in each.classes.items():
            _add(into.classes.setdefault(name, ClassCounts()), classed)
    decisions = sorted(
        (told for part in found for told in part.decisions), key=lambda told: -told.at
    )
    breakeven: dict[tuple[str, Lane], tuple[float | None, float]] = {}
    for part in found:
        breakeven |= part.breakeven
    newest = sorted(intervals.values(), key=lambda interval: interval.at)[-INTERVALS:]
    return Kept(newest, decisions[:_DECISIONS], breakeven)


def _add(into: _Counts, more: _Counts) -> None:
    for name in into.__slots__:
        setattr(into, name, getattr(into, name) + getattr(more, name))


def _predicted(decision: Decision) -> dict[Lane, float]:
    lanes = {} if decision.forecast is None else decision.forecast.lanes
    return {lane: prediction.total_s for lane, prediction in lanes.items()}
