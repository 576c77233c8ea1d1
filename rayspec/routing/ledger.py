"""How full each lane is: own requests counted exactly, engines as they last reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from rayspec.routing.types import (
    ClassHistory,
    Decision,
    EngineSnapshot,
    Lane,
    LaneView,
    Outcome,
    Rule,
)

__all__ = ["Ledger", "Ticket"]

_MAX_HISTORIES = 1024


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in flight; hand it back to `Ledger.finish` exactly when the request ends.

    `open` and `outcome` are set by the ledger.
    """

    decision: Decision
    sequences: int
    admitted_at: float
    open: bool = True
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class _Report:
    """A snapshot and when it came in, by our clock: engines have clocks of their own."""

    snapshot: EngineSnapshot
    received_at: float


class Ledger:
    """Counts requests in flight and keeps the newest snapshot of every replica.

    Not thread-safe: it belongs to one event loop, and none of its methods awaits. A report counts
    for `expiry_s`; a lane whose draft was lost thus becomes unknown again, and is tried again.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        lanes: Collection[Lane] = tuple(Lane),
        *,
        expiry_s: float = 5.0,
    ) -> None:
        self._clock = clock
        self._lanes = tuple(lanes)
        self._expiry_s = expiry_s
        self._in_flight: Counter[tuple[Lane, str]] = Counter()
        self._totals: Counter[Lane] = Counter()
        self._reports: dict[tuple[Lane, str], _Report] = {}
        self._floored: dict[str, int] = {}

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that this application has."""
        return self._lanes

    def admit(self, decision: Decision, sequences: int = 1) -> Ticket:
        """Count a request into its lane until its ticket is handed back."""
        self._add(decision, sequences)
        return Ticket(decision, sequences, self._clock())

    def finish(self, ticket: Ticket, outcome: Outcome | None = None) -> bool:
        """Take a request out of its lane; False if that was done before."""
        if not ticket.open:
            return False
        ticket.open = False
        ticket.outcome = outcome
        self._add(ticket.decision, -ticket.sequences)
        return True

    def observe(self, snapshot: EngineSnapshot) -> None:
        """Keep `snapshot` unless a fresh one of the same replica is newer."""
        now = self._clock()
        key = (snapshot.lane, snapshot.replica)
        known = self._reports.get(key)
        if known and self._fresh(known, now) and known.snapshot.at > snapshot.at:
            return
        self._reports[key] = _Report(snapshot, now)

    def forget(self, lane: Lane) -> None:
        """Drop what the replicas of `lane` reported, because it was found to be down."""
        self._reports = {key: kept for key, kept in self._reports.items() if key[0] is not lane}

    def view(self, lane: Lane) -> LaneView:
        """Return what is known of `lane` now."""
        now = self._clock()
        self._reports = {
            key: report for key, report in self._reports.items() if self._fresh(report, now)
        }
        fresh = [r.snapshot for r in self._reports.values() if r.snapshot.lane is lane]
        return LaneView(
            lane,
            in_flight=self._totals[lane],
            running=sum(s.running for s in fresh),
            waiting=sum(s.waiting for s in fresh),
            kv_usage=max((s.kv_usage for s in fresh), default=0.0),
            replicas=len(fresh),
            attached=any(s.attached for s in fresh) if fresh else None,
        )

    def views(self) -> dict[Lane, LaneView]:
        """Return a view of every lane that exists."""
        return {lane: self.view(lane) for lane in self._lanes}

    def in_flight(self, lane: Lane, workload_class: str | None = None) -> int:
        """Return the sequences of own requests in `lane`, of one class or of all."""
        if workload_class is None:
            return self._totals[lane]
        return self._in_flight[lane, workload_class]

    def history(self, workload_class: str) -> ClassHistory:
        """Return what was decided for a class so far."""
        return ClassHistory(floored=self._floored.get(workload_class, 0))

    def remember(self, workload_class: str, decision: Decision) -> None:
        """Note a decision; `workload_class` is the one whose acceptance was looked at."""
        if decision.rule not in (Rule.ACCEPTANCE, Rule.EXPLORE):
            return
        if workload_class not in self._floored and len(self._floored) >= _MAX_HISTORIES:
            self._floored.clear()  # costs at most a late exploration; names are not ours to trust
        self._floored[workload_class] = self._floored.get(workload_class, 0) + 1

    def _fresh(self, report: _Report, now: float) -> bool:
        return now - report.received_at <= self._expiry_s

    def _add(self, decision: Decision, sequences: int) -> None:
        self._totals[decision.lane] += sequences
        key = (decision.lane, decision.workload_class)
        self._in_flight[key] += sequences
        if not self._in_flight[key]:
            del self._in_flight[key]  # class names come from clients: keep only live ones
