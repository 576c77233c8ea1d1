"""rayspec's own router as the policy of a simulation: the code that runs in the ingress.

It sees what it would see there: the class and the size of a request, snapshots of the engines with
every answer's begin and end and once a second, and what became of the drafts. It starts with the
calibration, or knowing nothing; on request, engines measure their own steps, as real ones do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rayspec.planning.calibration import Calibration
from rayspec.planning.engine_model import Engine, Taken
from rayspec.planning.policies import Choice, Fleet
from rayspec.planning.workload import tokens_per_step
from rayspec.routing import PolicySpec, Router, Ticket
from rayspec.routing.learner import StepLearner
from rayspec.routing.types import EngineProfile, EngineSnapshot, Lane, Outcome, RequestView

__all__ = ["Routed"]

_BYTES_PER_TOKEN = 4  # of a request's body
_POLL_S = 1.0  # as `ingress.monitor` does


class Routed:
    """Asks a `Router` where to send each request, and tells it how that ended."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        calibration: Calibration,
        tiers: Sequence[int],
        spec: PolicySpec | None = None,
        learning: bool = False,
    ) -> None:
        self._fleet = fleet
        self._learning = {id(engine): _Learning(engine) for engine in fleet.engines if learning}
        self._now = self._polled_at = 0.0
        self._rng = np.random.default_rng(0)
        self._tickets: dict[int, tuple[Ticket, int, Engine]] = {}
        spec = spec or PolicySpec(measured=calibration.measured())
        spec = replace(spec, k_tiers=tuple(sorted(tiers)))
        self.router = Router(
            spec, tuple(fleet.lanes), lambda: self._now, known_classes=calibration.classes
        )
        self._poll()

    def route(self, request: int, now: float) -> Choice:
        """Return the router's decision."""
        self._now = now
        if now - self._polled_at >= _POLL_S:
            self._poll()
        workload = self._fleet.workload
        ticket = self.router.admit(
            RequestView(
                workload.trace.classes[workload.class_of[request]],
                body_bytes=_BYTES_PER_TOKEN * workload.prompts[request],
            )
        )
        decision = ticket.decision
        k = self.router.asked_k(decision) or 0
        self._tickets[request] = ticket, k, self._fleet.least_loaded(decision.lane)
        return decision.lane, k

    def started(self, request: int, now: float) -> None:
        """Hand over the snapshot that comes with the first token."""
        self._now = now
        ticket, _, engine = self._tickets[request]
        self.router.start(ticket)
        self.router.observe(self._snapshot(engine))

    def finished(self, request: int, now: float) -> None:
        """Hand the ticket back with what the drafts of the request achieved."""
        self._now = now
        ticket, k, engine = self._tickets.pop(request)
        workload = self._fleet.workload
        steps = workload.steps(k)[request]
        counts = [steps]
        if k and steps:
            # Drawn anew instead of kept from the request's own steps: the same distribution.
            shares = tokens_per_step(workload.profiles[workload.class_of[request]].acceptance, k)
            counts = self._rng.multinomial(steps, shares).tolist()
        self.router.observe(self._snapshot(engine))
        self.router.finish(
            ticket,
            Outcome(
                ticket.decision.workload_class,
                ticket.decision.lane,
                steps=steps if k else 0,
                drafted=round(steps * k * workload.coverage(request)),
                accepted=sum(accepted * count for accepted, count in enumerate(counts)),
                output_tokens=workload.outputs[request],
                finished=True,
                by_accepted=tuple(counts) if k else (),
                k=k,
                body_bytes=_BYTES_PER_TOKEN * workload.prompts[request],
                prompt_tokens=workload.prompts[request],
            ),
        )

    def _poll(self) -> None:
        self._polled_at = self._now
        for engine in self._fleet.engines:
            self.router.observe(self._snapshot(engine))

    def _snapshot(self, engine: Engine) -> EngineSnapshot:
        return EngineSnapshot(
            engine.lane,
            str(self._fleet.index[id(engine)]),
            self._now,
            running=engine.running,
            waiting=len(engine.waiting),
            kv_usage=0.0,
            attached=engine.lane is Lane.SPECULATIVE,
            context=engine.context,
            backlog=engine.backlog_tokens,
            profile=self._learning[id(engine)].profile() if self._learning else None,
        )


class _Learning:
    """An engine that measures its own steps."""

    def __init__(self, engine: Engine) -> None:
        self._cost = engine.cost
        self._now = 0.0
        self._learner = StepLearner(lambda: self._now)
        engine.on_taken = self.take

    def take(self, taken: Taken) -> None:
        """Learn from a jump."""
        self._now = taken.at
        if taken.prompt_tokens:
            self._learner.prefilled(taken.prompt_tokens, taken.seconds)
            return
        drafts = taken.drafts / taken.batch
        for _ in range(taken.steps):
            self._learner.decoded(taken.batch, drafts, taken.context, taken.seconds)

    def profile(self) -> EngineProfile:
        """Return what the engine would report."""
        return EngineProfile(
            self._learner.points(),
            self._learner.prefill(),
            self._cost.max_num_seqs,
            self._cost.chunk_tokens,
            sums=self._learner.sums(),
        )
