"""How full each lane is: own requests counted exactly, engines as they last reported."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from rayspec.routing.types import (
    ClassHistory,
    Decision,
    EngineProfile,
    EngineSnapshot,
    Lane,
    LaneView,
    Outcome,
    Rule,
)

__all__ = ["Ledger", "Ticket"]

_MAX_HISTORIES = 1024
# After so long a request's prompt is in what the engines report, if it waits still.
_UNSEEN_S = 1.0
_LEFT_TO_MEASUREMENTS = frozenset(
    {
        Rule.ACCEPTANCE,
        Rule.EXPLORE,
        Rule.CONCURRENCY,
        Rule.TOGETHER,
        Rule.FASTER,
        Rule.STEADY,
        Rule.DEFAULT,
    }
)


_NO_HISTORY = ClassHistory()


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in flight; hand it back to `Ledger.finish` exactly when the request ends.

    `open`, `started` and `outcome` are set by the ledger; `prompt_tokens` is an estimate, and
    `refused` are the lanes that did not take the request before.
    """

    decision: Decision
    sequences: int
    admitted_at: float
    prompt_tokens: float = 0.0
    refused: tuple[Lane, ...] = ()
    open: bool = True
    started: bool = False
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
        lanes: Collection[Lane] = (Lane.SPECULATIVE, Lane.PLAIN),
        *,
        expiry_s: float = 5.0,
    ) -> None:
        self._clock = clock
        self._lanes = tuple(lanes)
        self._expiry_s = expiry_s
        self._in_flight: Counter[tuple[Lane, str]] = Counter()
        self._totals: Counter[Lane] = Counter()
        self._reports: dict[tuple[Lane, str], _Report] = {}
        self._histories: dict[str, ClassHistory] = {}
        # Tickets of requests whose prompt may still be unknown to the engines, oldest first.
        self._unseen: dict[Lane, deque[Ticket]] = {lane: deque() for lane in Lane}

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that this application has."""
        return self._lanes

    def admit(
        self,
        decision: Decision,
        sequences: int = 1,
        prompt_tokens: float = 0.0,
        refused: tuple[Lane, ...] = (),
    ) -> Ticket:
        """Count a request into its lane until its ticket is handed back."""
        self._add(decision, sequences)
        ticket = Ticket(decision, sequences, self._clock(), prompt_tokens, refused)
        if prompt_tokens > 0:
            self._unseen[decision.lane].append(ticket)
        return ticket

    def start(self, ticket: Ticket) -> None:
        """Note that a request's answer has begun: its prompt waits no more."""
        ticket.started = True

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
        if not all(self._fresh(report, now) for report in self._reports.values()):
            self._reports = {
                key: report for key, report in self._reports.items() if self._fresh(report, now)
            }
        fresh = [r.snapshot for r in self._reports.values() if r.snapshot.lane is lane]
        running = sum(s.running for s in fresh)
        profiles = self.profiles(lane)
        return LaneView(
            lane,
            in_flight=self._totals[lane],
            running=running,
            waiting=sum(s.waiting for s in fresh),
            kv_usage=max((s.kv_usage for s in fresh), default=0.0),
            replicas=len(fresh),
            attached=any(s.attached for s in fresh) if fresh else None,
            candidate=bool(fresh) and all(s.candidate for s in fresh),
            context=sum(s.context * s.running for s in fresh) / running if running else 0.0,
            backlog=max(sum(s.backlog for s in fresh), self._own_backlog(lane, now)),
            experts=max((profile.experts for profile in profiles), default=0),
        )

    def profiles(self, lane: Lane) -> tuple[EngineProfile, ...]:
        """Return what the replicas of `lane` have measured of themselves."""
        return tuple(
            report.snapshot.profile
            for (of, _), report in self._reports.items()
            if of is lane and report.snapshot.profile is not None
        )

    def views(self) -> dict[Lane, LaneView]:
        """Return a view of every lane that exists."""
        return {lane: self.view(lane) for lane in self._lanes}

    def loads(self) -> dict[Lane, int]:
        """Return the sequences in every lane, as `LaneView.concurrency` counts them."""
        return {lane: view.concurrency for lane, view in self.views().items()}

    def working(self) -> frozenset[Lane]:
        """Return the lanes that have sequences."""
        busy = {lane for lane in self._lanes if self._totals[lane] > 0}
        busy |= {lane for (lane, _), r in self._reports.items() if r.snapshot.running}
        return frozenset(busy)

    def in_flight(self, lane: Lane, workload_class: str | None = None) -> int:
        """Return the sequences of own requests in `lane`, of one class or of all."""
        if workload_class is None:
            return self._totals[lane]
        return self._in_flight[lane, workload_class]

    def history(self, workload_class: str) -> ClassHistory:
        """Return what was decided for a class so far."""
        return self._histories.get(workload_class, _NO_HISTORY)

    def remember(self, workload_class: str, decision: Decision) -> None:
        """Note a decision; `workload_class` is the one whose acceptance was looked at."""
        if decision.rule not in _LEFT_TO_MEASUREMENTS:
            return
        known = self._histories.get(workload_class)
        if known is None and len(self._histories) >= _MAX_HISTORIES:
            self._histories.clear()  # costs a late exploration at most; names are not ours to trust
        known = known or _NO_HISTORY
        explores = decision.rule == Rule.EXPLORE
        self._histories[workload_class] = ClassHistory(
            floored=known.floored + (explores or decision.rule == Rule.ACCEPTANCE),
            turns=known.turns + 1,
            lane=known.lane if explores else decision.lane,
        )

    def _own_backlog(self, lane: Lane, now: float) -> float:
        """Return the prompt tokens that we sent there so lately that no engine has told yet."""
        unseen = self._unseen[lane]
        while unseen and not self._waits(unseen[0], now):
            unseen.popleft()
        return sum(ticket.prompt_tokens for ticket in unseen if self._waits(ticket, now))

    def _waits(self, ticket: Ticket, now: float) -> bool:
        return ticket.open and not ticket.started and now - ticket.admitted_at <= _UNSEEN_S

    def _fresh(self, report: _Report, now: float) -> bool:
        return now - report.received_at <= self._expiry_s

    def _add(self, decision: Decision, sequences: int) -> None:
        self._totals[decision.lane] += sequences
        key = (decision.lane, decision.workload_class)
        self._in_flight[key] += sequences
        if not self._in_flight[key]:
            del self._in_flight[key]  # class names come from clients: keep only live ones
