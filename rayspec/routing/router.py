"""The parts of routing put together: decide, count in, count out, learn."""

from __future__ import annotations

from collections.abc import Callable, Collection

from rayspec.routing.acceptance import AcceptanceTracker
from rayspec.routing.ledger import Ledger, Ticket
from rayspec.routing.policy import PolicySpec, decide
from rayspec.routing.types import Decision, EngineSnapshot, Lane, Outcome, RequestView, Rule

__all__ = ["Router"]


class Router:
    """Routes requests by the policy and feeds their outcomes back to it.

    Every ticket must be handed back, also for a request that failed or was abandoned by its
    client. Not thread-safe: it belongs to one event loop.
    """

    def __init__(
        self,
        spec: PolicySpec,
        lanes: Collection[Lane],
        clock: Callable[[], float],
        *,
        known_classes: Collection[str] = (),
        snapshot_expiry_s: float = 5.0,
    ) -> None:
        self.spec = spec
        self.ledger = Ledger(clock, lanes, expiry_s=snapshot_expiry_s)
        self.acceptance = AcceptanceTracker(
            clock, spec.acceptance_half_life_s, known={*known_classes, *spec.classes}
        )

    def admit(self, request: RequestView) -> Ticket:
        """Decide where `request` goes and count it in; the decision is on the ticket."""
        estimate = self.acceptance.estimate(request.workload_class)
        # Acceptance of classes without a place is pooled, so their exploration is, too.
        name = estimate.workload_class
        decision = decide(
            request, self.ledger.views(), estimate, self.spec, self.ledger.history(name)
        )
        self.ledger.remember(name, decision)
        return self.ledger.admit(decision, request.sequences)

    def spill(self, ticket: Ticket, why: str) -> Ticket | None:
        """Move a request that its lane did not take to the other lane, with its count.

        None when there is no other lane, or when the request came from there already.
        """
        refused = ticket.decision
        if refused.rule == Rule.SPILL:
            return None
        if refused.lane.other not in self.ledger.lanes:
            return None
        self.ledger.finish(ticket)
        decision = Decision(
            refused.lane.other, refused.workload_class, f"{Rule.SPILL} {refused.lane} lane {why}"
        )
        return self.ledger.admit(decision, ticket.sequences)

    def observe(self, snapshot: EngineSnapshot) -> None:
        """Take in the state of an engine, as each answer carries it."""
        self.ledger.observe(snapshot)

    def finish(self, ticket: Ticket, outcome: Outcome | None = None) -> None:
        """Count a request out, once, and learn from what its drafts achieved."""
        if self.ledger.finish(ticket, outcome) and outcome is not None:
            self.acceptance.observe(outcome)
