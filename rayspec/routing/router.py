"""The parts of routing put together: decide, count in, count out, learn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from rayspec.routing.acceptance import AcceptanceTracker
from rayspec.routing.crossover import Crossover, crossover
from rayspec.routing.curves import ClassPrior, Curves, LaneCurve
from rayspec.routing.forecast import NO_DRAFTS, Drafts, believed_acceptance, forecast
from rayspec.routing.ledger import Ledger, Ticket
from rayspec.routing.overlap import Overlap
from rayspec.routing.policy import PolicySpec, decide, wanted_tiers
from rayspec.routing.sharing import Gathering, Usual, drafting_together, gather
from rayspec.routing.traffic import Lengths, TrafficTracker
from rayspec.routing.trial import Trial, TrialSpec
from rayspec.routing.types import (
    AcceptanceEstimate,
    Decision,
    EngineSnapshot,
    Forecast,
    Lane,
    LaneView,
    Outcome,
    RequestView,
    Rule,
    Speculation,
)

__all__ = ["Router"]

_NO_PRIOR = ClassPrior()
_HAS = {True: Speculation.ON, False: Speculation.OFF}
# Who is in the plain lane by one of these wants no drafts, wherever the request ends.
_ASKED = (Rule.OVERRIDE, Rule.CLASS)
# Of a request in the mean of those that share a machine: about the last 16 tell how they are.
_WEIGHT_OF_ONE = 1 / 16
# They change little from one to the next: with the same load and step times, what is best for all
# is asked anew after so many.
_USES = 4


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
        trial: TrialSpec | None = None,
    ) -> None:
        self.spec = spec
        self.trial = None if trial is None else Trial(trial)
        self.ledger = Ledger(clock, lanes, expiry_s=snapshot_expiry_s)
        self.acceptance = AcceptanceTracker(
            clock, spec.acceptance_half_life_s, known={*known_classes, *spec.classes}
        )
        self._priors = {} if spec.measured is None else spec.measured.classes
        self._traffic = TrafficTracker(
            clock,
            spec.acceptance_half_life_s,
            {name: prior.lengths for name, prior in self._priors.items()},
        )
        self._shared = _shared(spec)
        tiers = {lane: spec.tiers(lane) for lane in lanes if lane.drafts}
        self._curves = Curves(spec.measured, tiers, shared=self._shared, clock=clock)
        self._usual: dict[Lane, Usual] = {}
        self._gathering: Gathering | None = None
        self._basis: tuple[object, ...] = ()  # what it was found for
        self._basis_uses = 0
        self._overlap = Overlap(clock)

    def admit(self, request: RequestView) -> Ticket:
        """Decide where `request` goes and count it in; the decision is on the ticket."""
        # Acceptance of classes without a place is pooled, so their exploration is, too.
        name = self.acceptance.place(request.workload_class)
        views, curves = self._lanes()
        lengths = self._traffic.lengths(name, request)
        estimates = self._estimates(name)
        drafts = self._drafts(request, estimates)
        predicted = None
        if curves:
            sequences = max(request.sequences, 1)
            predicted = forecast(views, curves, lengths, drafts, sequences=sequences)
        gathering = self._gather(request, views, curves, predicted, drafts, lengths)
        decision = decide(
            request, views, estimates, self.spec, self.ledger.history(name), predicted, gathering
        )
        decision = self._with_draft(decision, views)
        self.ledger.remember(name, decision)
        prompt_tokens = lengths.prompt if request.sequences else 0.0
        ticket = self.ledger.admit(decision, request.sequences, prompt_tokens)
        self._overlap.note(self.ledger.working())
        return ticket

    def spill(
        self, ticket: Ticket, why: str, wish: Speculation = Speculation.AUTO
    ) -> Ticket | None:
        """Move a request that its lane did not take to the next one by cost, with its count.

        None when every lane was asked already that `wish` allows: with drafts, or without.
        """
        refused = ticket.decision
        if wish not in (Speculation.AUTO, _HAS[refused.lane.drafts]):
            return None
        tried = (*ticket.refused, refused.lane)
        left = [
            lane
            for lane in self.ledger.lanes
            if lane not in tried and wish in (Speculation.AUTO, _HAS[lane.drafts])
        ]
        if not left:
            return None
        lane, *more = (refused.forecast or Forecast()).by_cost(left)
        if more and not self.ledger.view(lane).replicas:
            lane = next((each for each in more if self.ledger.view(each).replicas), lane)
        self.ledger.finish(ticket)
        decision = Decision(
            lane,
            refused.workload_class,
            f"{Rule.SPILL} {refused.lane} lane {why}",
            forecast=refused.forecast,
        )
        if lane.drafts and refused.lane is Lane.PLAIN and refused.rule in _ASKED:
            decision = replace(decision, k=0)
        elif lane.drafts and decision.prediction is not None:
            decision = replace(decision, k=decision.prediction.k)
        moved = self.ledger.admit(decision, ticket.sequences, ticket.prompt_tokens, tried)
        self._overlap.note(self.ledger.working())
        return moved

    def observe(self, snapshot: EngineSnapshot) -> None:
        """Take in the state of an engine, as each answer carries it."""
        self.ledger.observe(snapshot)
        self._overlap.note(self.ledger.working())
        self._overlap.observe(snapshot)
        self._update_curves()  # here, because no request waits for it

    def start(self, ticket: Ticket) -> None:
        """Note that a request's answer has begun."""
        self.ledger.start(ticket)

    def asked_k(self, decision: Decision) -> int | None:
        """Return how many drafts a step of this request was to get; None if that is not known."""
        if not decision.lane.drafts:
            return 0
        if decision.k is not None:
            return decision.k
        return max(self.spec.tiers(decision.lane), default=None)

    def finish(self, ticket: Ticket, outcome: Outcome | None = None) -> None:
        """Count a request out, once, and learn from what its drafts achieved."""
        if self.ledger.finish(ticket, outcome) and outcome is not None:
            # What is tried is a draft of the speculative lane.
            trial = None if outcome.lane is Lane.ALTERNATIVE else self.trial
            if trial is None or outcome.draft == trial.serving:
                self.acceptance.observe(outcome)
            place = self.acceptance.place(outcome.workload_class)
            self._traffic.observe(place, outcome)
            if trial is not None:
                trial.observe(place, outcome)
        self._overlap.note(self.ledger.working())

    def crossover(self, workload_class: str) -> Crossover:
        """Return what a usual request of a class costs in each lane at every load, as known now."""
        name = self.acceptance.place(workload_class)
        views, curves = self._lanes()
        drafts = self._drafts(RequestView(workload_class), self._estimates(name), place=name)
        return crossover(name, views, curves, self._traffic.usual(name), drafts)

    def _estimates(self, place: str) -> dict[Lane, AcceptanceEstimate]:
        """Return the measured acceptance of a class in every lane that drafts."""
        drafting = (lane for lane in self.ledger.lanes if lane.drafts)
        return {lane: self.acceptance.estimate(place, lane) for lane in drafting}

    def _drafts(
        self,
        request: RequestView,
        estimates: Mapping[Lane, AcceptanceEstimate],
        *,
        place: str | None = None,
    ) -> dict[Lane, Drafts]:
        """Return what is known of the drafts of every lane that has some, for a request."""
        found: dict[Lane, Drafts] = {}
        for lane, estimate in estimates.items():
            prior: tuple[float, ...] = ()
            if lane is not Lane.ALTERNATIVE:  # a calibration knows the speculative lane's draft
                prior = self._priors.get(place or request.workload_class, _NO_PRIOR).acceptance
            k_max = max(self.spec.tiers(lane), default=0)
            acceptance, assumed = believed_acceptance(estimate, prior, k_max)
            tiers = wanted_tiers(request, self.spec, lane)
            found[lane] = Drafts(acceptance, tiers, estimate.coverage, assumed)
        return found

    def _with_draft(self, decision: Decision, views: Mapping[Lane, LaneView]) -> Decision:
        """Let a request that drafts name the new version of the draft, if its turn has come."""
        drafts = decision.lane.drafts and decision.k != 0
        if self.trial is None or not drafts or not views[decision.lane].candidate:
            return decision
        return replace(decision, draft=self.trial.draft())

    def _lanes(self) -> tuple[dict[Lane, LaneView], Mapping[Lane, LaneCurve]]:
        views = self.ledger.views()
        curves = self._update_curves()
        for lane in curves:
            views[lane] = replace(views[lane], measured=True)
        return views, curves

    def _update_curves(self) -> Mapping[Lane, LaneCurve]:
        profiles = {lane: self.ledger.profiles(lane) for lane in self.ledger.lanes}
        return self._curves.update(profiles, self._overlap.split)

    def _gather(
        self,
        request: RequestView,
        views: Mapping[Lane, LaneView],
        curves: Mapping[Lane, LaneCurve],
        predicted: Forecast | None,
        drafts: Mapping[Lane, Drafts],
        lengths: Lengths,
    ) -> Gathering | None:
        """Return in which lanes all requests are served best, if lanes on one machine compete."""
        if not self._shared or predicted is None or len(predicted.lanes) < 2:
            return None
        if not request.sequences:
            return self._gathering
        views = {lane: view for lane, view in views.items() if lane in predicted.lanes}
        for lane in views:
            tokens, drafted = drafting_together(
                views, lane, curves[lane].alone, drafts.get(lane, NO_DRAFTS), lengths
            )
            known = self._usual.get(lane, Usual(tokens, drafted, lengths))
            self._usual[lane] = known.then(tokens, drafted, lengths, _WEIGHT_OF_ONE)
        count = sum(view.concurrency for view in views.values()) + request.sequences
        basis = (count, *(curves[lane] for lane in views))
        before = self._gathering
        if before is not None and basis == self._basis and self._basis_uses < _USES:
            self._basis_uses += 1
            return before
        found = gather(views, curves, self._usual, request.sequences, before)
        self._gathering, self._basis, self._basis_uses = found, basis, 0
        return found


def _shared(spec: PolicySpec) -> bool:
    contentions = () if spec.measured is None else spec.measured.contention.values()
    return spec.shared_hardware or any(each > 1 for each in contentions)
