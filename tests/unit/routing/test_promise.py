"""Routed traffic is never noticeably slower than the better of its two lanes alone.

Closed-loop clients ask two modelled engines, whose steps take a known time and whose learners see
them as a real engine's does. The router starts knowing nothing.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from statistics import fmean

import pytest

from rayspec.routing import (
    EngineProfile,
    EngineSnapshot,
    Lane,
    Outcome,
    PolicySpec,
    RequestView,
    Router,
    Speculation,
)
from rayspec.routing.cost_model import PrefillTimes, expected_tokens
from rayspec.routing.learner import StepLearner
from rayspec.routing.ledger import Ticket
from tests.support.clock import Clock
from tests.support.one_draft import BOTH

S, P = Lane.SPECULATIVE, Lane.PLAIN
K, TOKENS = 4, 100
SPEC = PolicySpec(k_tiers=(0, 1, 2, 4))


@dataclass(frozen=True)
class Machine:
    """Step time: flat until `idle` tokens fill the compute, then linear; drafting costs extra."""

    idle: float
    draft_s: float

    def step_s(self, tokens: float, drafts: bool) -> float:
        return 0.01 * max(1.0, tokens / self.idle) + (self.draft_s if drafts else 0.0)


@dataclass
class Running:
    ticket: Ticket
    started: float
    k: int
    left: float = TOKENS
    steps: int = 0


@dataclass
class Engine:
    lane: Lane
    machine: Machine
    clock: Clock
    acceptance: float
    running: list[Running] = field(default_factory=list)
    learner: StepLearner = field(init=False)
    busy: bool = False

    def __post_init__(self) -> None:
        self.learner = StepLearner(self.clock)

    def next_step_s(self) -> float:
        drafts = sum(request.k for request in self.running)
        return self.machine.step_s(len(self.running) + drafts, drafts > 0)

    def step(self, seconds: float, batch: int) -> list[Running]:
        """End a step of the first `batch` requests; return those that are done."""
        stepped = self.running[:batch]
        drafts = sum(request.k for request in stepped)
        self.learner.decoded(batch, drafts / batch, 200, seconds)
        for request in stepped:
            request.steps += 1
            request.left -= expected_tokens(self.acceptance, request.k)
        done = [request for request in stepped if request.left <= 0]
        self.running = [request for request in self.running if request.left > 0]
        return done

    def snapshot(self) -> EngineSnapshot:
        profile = EngineProfile(self.learner.points(), PrefillTimes(1e-4, 1e-7), 64, 2048)
        return EngineSnapshot(
            self.lane, self.lane, self.clock(), len(self.running), 0, 0.1, True, profile=profile
        )


def latency(
    machine: Machine, acceptance: float, clients: int, wish: Speculation, rounds: int = 40
) -> float:
    """Return the mean latency of the second half of the requests."""
    clock = Clock(0.0)
    engines = {lane: Engine(lane, machine, clock, acceptance) for lane in BOTH}
    router = Router(SPEC, BOTH, clock, known_classes=["chat"], snapshot_expiry_s=1e9)
    view = RequestView("chat", wish, body_bytes=400, max_tokens=TOKENS)
    order = count()
    events: list[tuple[float, int, Engine, float, int]] = []
    taken: list[float] = []

    def start(engine: Engine) -> None:
        engine.busy = bool(engine.running)
        if engine.busy:
            seconds = engine.next_step_s()
            batch = len(engine.running)
            heapq.heappush(events, (clock() + seconds, next(order), engine, seconds, batch))

    def arrive() -> None:
        ticket = router.admit(view)
        k = 0 if ticket.decision.lane is P else ticket.decision.k
        engine = engines[ticket.decision.lane]
        engine.running.append(Running(ticket, clock(), K if k is None else k))
        if not engine.busy:
            start(engine)

    for engine in engines.values():
        router.observe(engine.snapshot())
    for _ in range(clients):
        arrive()
    while len(taken) < rounds * clients:
        clock.now, _, engine, seconds, batch = heapq.heappop(events)
        done = engine.step(seconds, batch)
        for request in done:
            taken.append(clock() - request.started)
            router.finish(request.ticket, outcome(request, acceptance))
        if done:
            for each in engines.values():
                router.observe(each.snapshot())
        for _ in done:
            arrive()
        start(engine)
    return fmean(taken[len(taken) // 2 :])


def outcome(request: Running, acceptance: float) -> Outcome:
    k, steps = request.k, request.steps if request.k else 0
    counts = [steps * acceptance**j * ((1 - acceptance) if j < k else 1) for j in range(k + 1)]
    whole = tuple(round(each) for each in counts) if k else ()
    return Outcome(
        "chat",
        request.ticket.decision.lane,
        sum(whole),
        sum(whole) * k,
        sum(j * each for j, each in enumerate(whole)),
        TOKENS,
        True,
        by_accepted=whole,
        k=k,
        body_bytes=400,
        prompt_tokens=100,
    )


@pytest.mark.parametrize("clients", [1, 4, 32])
@pytest.mark.parametrize("acceptance", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "machine", [Machine(idle=4, draft_s=0.004), Machine(idle=64, draft_s=0.002)]
)
def test_routed_is_as_fast_as_the_better_lane(
    machine: Machine, acceptance: float, clients: int
) -> None:
    routed = latency(machine, acceptance, clients, Speculation.AUTO)
    always, never = (
        latency(machine, acceptance, clients, wish) for wish in (Speculation.ON, Speculation.OFF)
    )

    assert min(always, never) / routed >= 0.97
