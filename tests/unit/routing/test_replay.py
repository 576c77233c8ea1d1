"""A router between two modelled engines: what it learns from, and what follows."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from rayspec.routing import EngineProfile, EngineSnapshot, Lane, PolicySpec, RequestView, Router
from rayspec.routing.cost_model import PrefillTimes, expected_tokens
from rayspec.routing.learner import StepLearner
from rayspec.routing.ledger import Ticket
from rayspec.routing.types import Outcome, Rule
from tests.support.clock import Clock
from tests.support.one_draft import BOTH, other

S, P = Lane.SPECULATIVE, Lane.PLAIN
CHAT = RequestView("chat", body_bytes=400, max_tokens=100)
SPEC = PolicySpec(k_tiers=(0, 4))
K = 4
OUTPUT = 100


def step_s(batch: int, k: int) -> float:
    """Return an engine's step time: flat while bound by memory, then linear in its tokens."""
    return 0.01 * max(1.0, batch * (k + 1) / 20) + (0.002 if k else 0.0)


@dataclass
class Engine:
    """One modelled engine: it decodes its requests together and learns as a real one does."""

    lane: Lane
    clock: Clock
    acceptance: float = 0.8
    batch: int = 0
    learner: StepLearner = field(init=False)

    def __post_init__(self) -> None:
        self.learner = StepLearner(self.clock)

    def decode(self, batch: int, k: int, steps: int = 20) -> None:
        for _ in range(steps):
            seconds = step_s(batch, k)
            self.clock.advance(seconds)
            self.learner.decoded(batch, k, 200, seconds)

    def snapshot(self) -> EngineSnapshot:
        profile = EngineProfile(self.learner.points(), PrefillTimes(0.01, 1e-5), 64, 2048)
        return EngineSnapshot(
            self.lane,
            f"{self.lane}-1",
            self.clock(),
            self.batch,
            0,
            0.1,
            attached=self.lane is S,
            context=200.0,
            profile=profile,
        )


@dataclass
class Rig:
    """A router that hears of both engines."""

    clock: Clock = field(default_factory=Clock)
    spec: PolicySpec = SPEC

    def __post_init__(self) -> None:
        self.engines = {lane: Engine(lane, self.clock) for lane in BOTH}
        self.router = self.make_router()

    def make_router(self) -> Router:
        # Reports stay fresh: a test has no polls in between.
        return Router(self.spec, BOTH, self.clock, known_classes=["chat"], snapshot_expiry_s=1e9)

    def measure(self) -> None:
        for batch in (1, 2, 4, 8, 16, 32):
            self.engines[P].decode(batch, 0)
            for k in (0, K):
                self.engines[S].decode(batch, k)
        self.report()

    def report(self, *routers: Router) -> None:
        for router in routers or (self.router,):
            for engine in self.engines.values():
                router.observe(engine.snapshot())

    def finish(self, ticket: Ticket, acceptance: float) -> None:
        """End a request whose steps accepted as `acceptance` says."""
        decision = ticket.decision
        k = K if decision.k is None else decision.k
        counts = [0] * (K + 1)
        steps = round(OUTPUT / expected_tokens(acceptance, k)) if decision.lane is S and k else 0
        for j in range(k + 1):
            counts[j] = round(steps * acceptance**j * (1 - acceptance if j < k else 1))
        steps = sum(counts) if steps else 0
        outcome = Outcome(
            "chat",
            decision.lane,
            steps,
            steps * k,
            sum(j * count for j, count in enumerate(counts)) if steps else 0,
            OUTPUT,
            True,
            by_accepted=tuple(counts) if steps else (),
            k=k,
            body_bytes=400,
            prompt_tokens=100,
        )
        self.router.finish(ticket, outcome)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_before_anything_is_measured_the_usual_rules_hold(rig: Rig) -> None:
    rig.report()

    decision = rig.router.admit(CHAT).decision
    assert (decision.lane, decision.rule, decision.predicted) == (S, Rule.DEFAULT, "")


def test_once_measured_a_request_is_predicted_in_both_lanes(rig: Rig) -> None:
    rig.measure()

    decision = rig.router.admit(CHAT).decision
    assert (decision.lane, decision.rule) == (S, Rule.FASTER)
    assert decision.forecast is not None
    # 100 tokens alone in the plain lane: a prefill and 100 steps of 10 ms.
    assert decision.forecast.lanes[P].total_s == pytest.approx(1.01, rel=0.05)
    assert "prior" in decision.reason


def test_an_idle_application_speculates_and_a_full_one_does_not(rig: Rig) -> None:
    rig.measure()

    decisions = [rig.router.admit(CHAT).decision for _ in range(60)]

    lanes = [decision.lane for decision in decisions]
    assert lanes[:4] == [S] * 4
    assert lanes.count(P) > 10
    # Where both lanes are full, verification has no idle compute left: the lane stops drafting.
    assert decisions[-1].forecast is not None
    assert decisions[-1].forecast.lanes[S].k == 0


def test_neither_lane_is_left_much_fuller_than_pays(rig: Rig) -> None:
    rig.measure()
    for _ in range(60):
        decision = rig.router.admit(CHAT).decision
        forecast = decision.forecast
        assert forecast is not None
        chosen, rejected = (
            forecast.lanes[lane].total_s for lane in (decision.lane, other(decision.lane))
        )
        if decision.rule != Rule.EXPLORE:
            # For the sake of others it takes twice as long at most.
            assert chosen * (1 - SPEC.hysteresis) <= 2 * rejected


def test_a_class_that_rejects_its_drafts_stops_drafting_and_may_come_back(rig: Rig) -> None:
    rig.measure()
    for _ in range(20):
        rig.finish(rig.router.admit(CHAT), acceptance=0.0)

    forecast = rig.router.admit(CHAT).decision.forecast
    assert forecast is not None
    assert forecast.lanes[S].k == 0
    assert not forecast.drafting[S].assumed

    # Its verdict fades, so that it is tried again; then it does well.
    rig.clock.advance(10 * SPEC.acceptance_half_life_s)
    for _ in range(20):
        rig.finish(rig.router.admit(CHAT), acceptance=0.9)
    again = rig.router.admit(CHAT).decision
    assert again.forecast is not None
    assert again.forecast.lanes[S].k == K
    assert again.lane is S


def test_a_poor_class_is_explored_at_a_bounded_loss(rig: Rig) -> None:
    rig.measure()
    lanes: list[Ticket] = []
    for _ in range(400):
        ticket = rig.router.admit(CHAT)
        lanes.append(ticket)
        rig.finish(ticket, acceptance=0.2)

    explored = [t.decision for t in lanes if t.decision.rule == Rule.EXPLORE]
    assert 1 <= len(explored) <= 0.03 * len(lanes)
    for decision in explored:
        forecast, prediction = decision.forecast, decision.prediction
        assert forecast is not None
        assert prediction is not None
        best = min(each.total_s for each in forecast.lanes.values())
        assert prediction.total_s <= (1 + SPEC.exploration_loss) * best * 1.04


def test_a_long_prompt_in_one_lane_sends_the_next_request_to_the_other(rig: Rig) -> None:
    rig.measure()
    essay = RequestView("chat", body_bytes=800_000, max_tokens=100)
    assert rig.router.admit(essay).decision.lane is S

    decision = rig.router.admit(CHAT).decision
    assert decision.lane is P
    assert decision.forecast is not None
    assert decision.forecast.lanes[S].ttft_s > decision.forecast.lanes[P].ttft_s + 1.0


def test_routers_that_hear_the_same_decide_the_same(rig: Rig) -> None:
    rig.measure()
    one, other = rig.make_router(), rig.make_router()
    rig.engines[S].batch = 24
    rig.report(one, other)
    for batch in (1, 30, 3, 12, 0):
        rig.engines[S].batch = batch
        rig.report(other, one)
        views = [
            RequestView(name, body_bytes=size, max_tokens=limit)
            for name in ("chat", "code")
            for size, limit in ((100, 10), (40_000, 500))
        ]
        mine, theirs = ([r.admit(view).decision for view in views] for r in (one, other))
        assert mine == theirs


def test_another_ingress_s_load_moves_requests(rig: Rig) -> None:
    rig.measure()
    assert rig.router.admit(CHAT).decision.lane is S

    rig.engines[S].batch = 40
    rig.report()
    assert rig.router.admit(CHAT).decision.lane is P


def test_a_spilt_request_keeps_its_prediction_and_gets_a_k(rig: Rig) -> None:
    rig.measure()
    asked = RequestView("chat", body_bytes=400, k=0, max_tokens=100)
    refused = rig.router.admit(asked)
    moved = rig.router.spill(refused, "full")

    assert moved is not None
    assert moved.decision.predicted == refused.decision.predicted
    assert (refused.decision.lane, moved.decision.lane, moved.decision.k) == (P, S, 0)
    back = Rig()
    back.measure()
    plain = back.router.admit(RequestView("chat", body_bytes=400, constrained=True))
    drafted = back.router.spill(plain, "full")
    assert drafted is not None
    assert drafted.decision.k == K


def test_a_slower_machine_is_noticed(rig: Rig) -> None:
    rig.measure()
    before = rig.router.admit(CHAT).decision.forecast
    engine = rig.engines[P]
    rig.clock.advance(600.0)
    for _ in range(50):
        engine.learner.decoded(1, 0, 200, 0.03)
    rig.report()
    after = rig.router.admit(CHAT).decision.forecast

    assert before is not None
    assert after is not None
    assert after.lanes[P].total_s > 2 * before.lanes[P].total_s
    assert after.lanes[S].total_s == pytest.approx(before.lanes[S].total_s, rel=0.2)
