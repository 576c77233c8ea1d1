"""Classes find the lane whose drafts suit them, from nothing but what engines and answers tell."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from rayspec.routing import EngineProfile, EngineSnapshot, Lane, Outcome, PolicySpec, Router
from rayspec.routing.cost_model import LaneCost, PrefillTimes, StepPoint, StepTimes
from rayspec.routing.curves import ClassPrior, Measured, lane_curve
from rayspec.routing.ledger import Ticket
from rayspec.routing.overlap import Overlap
from rayspec.routing.sharing import Usual, gather
from rayspec.routing.traffic import Lengths
from rayspec.routing.trial import TrialSpec
from rayspec.routing.types import LaneView, RequestView, Rule, Speculation
from tests.support.clock import Clock

S, A, P = Lane.SPECULATIVE, Lane.ALTERNATIVE, Lane.PLAIN
ALL = (S, A, P)
TIERS = {S: (0, 2, 4), A: (0, 8), P: (0,)}
SPEC = PolicySpec(k_tiers=TIERS[S], alternative_k_tiers=TIERS[A], exploration_share=0.05)
# What share of drafts at any position is accepted, by class and lane.
ACCEPTED = {
    ("chat", S): 0.8,
    ("chat", A): 0.05,
    ("code", S): 0.3,
    ("code", A): 0.9,
    ("poem", S): 0.05,
    ("poem", A): 0.05,
}
TOKENS = 64


def step_s(batch: int, k: int) -> float:
    """Return the time of a step; drafts cost a tenth of it each."""
    return 0.02 * (1 + 0.05 * batch) * (1 + 0.1 * k)


@dataclass
class Rig:
    """A router over engines that take the same steps and differ in what drafts."""

    spec: PolicySpec = SPEC
    lanes: tuple[Lane, ...] = ALL
    clock: Clock = field(default_factory=lambda: Clock(0.0))
    router: Router = field(init=False)
    rng: random.Random = field(default_factory=lambda: random.Random(5))

    def __post_init__(self) -> None:
        self.router = Router(self.spec, self.lanes, self.clock, known_classes=["chat", "code"])

    def report(self, *lanes: Lane) -> None:
        """Let engines report, with measured steps."""
        for lane in lanes or self.lanes:
            steps = tuple(StepPoint(b, k, 100, step_s(b, k)) for b in (1, 4) for k in TIERS[lane])
            profile = EngineProfile(steps, PrefillTimes(0.001, 1e-6), 16)
            self.router.observe(
                EngineSnapshot(lane, "1", self.clock(), 0, 0, 0.1, lane.drafts, profile=profile)
            )

    def serve(self, name: str, view: RequestView | None = None) -> Ticket:
        """Answer a request as the lane's drafts let it be answered."""
        ticket = self.router.admit(view or RequestView(name, body_bytes=400, max_tokens=TOKENS))
        lane, k = ticket.decision.lane, self.router.asked_k(ticket.decision) or 0
        counts, given = [0] * (k + 1), 0
        while given < TOKENS:
            taken = 0
            while taken < k and self.rng.random() < ACCEPTED[name, lane]:
                taken += 1
            counts[taken] += 1
            given += taken + 1
        steps, drafted = sum(counts), k * sum(counts)
        accepted = sum(n * count for n, count in enumerate(counts))
        self.clock.advance(steps * step_s(1, k))
        by = tuple(counts) if k else ()
        outcome = Outcome(name, lane, steps if k else 0, drafted, accepted, given, True, by, 0, k)
        self.router.finish(ticket, outcome)
        self.report()
        return ticket

    def settled(self, name: str, requests: int = 30) -> Counter[Lane]:
        """Return where requests go that do not explore."""
        made = [self.serve(name).decision for _ in range(requests)]
        return Counter(each.lane for each in made if each.rule != Rule.EXPLORE)


def learnt(**settings: object) -> Rig:
    rig = Rig(**settings)  # type: ignore[arg-type]
    rig.report()
    for _ in range(100):
        for name in ("chat", "code", "poem"):
            rig.serve(name)
    return rig


@pytest.mark.parametrize("lanes", [ALL, (S, A)])
def test_each_class_goes_where_its_drafts_are_accepted(lanes: tuple[Lane, ...]) -> None:
    rig = learnt(lanes=lanes)
    assert rig.settled("chat").keys() == {S}
    assert rig.settled("code").keys() == {A}
    for _ in range(20):  # nothing that is drafted for it pays: any lane, and no drafts
        decision = rig.serve("poem").decision
        assert rig.router.asked_k(decision) == 0 or decision.rule == Rule.EXPLORE
    # And each lane has its own acceptance of a class.
    acceptance = rig.router.acceptance
    assert acceptance.estimate("code", A).positions[0].mean == pytest.approx(0.9, abs=0.05)
    assert acceptance.estimate("code", S).positions[0].mean == pytest.approx(0.3, abs=0.15)


def test_so_it_does_on_one_machine_where_it_comes_alone() -> None:
    rig = learnt(spec=replace(SPEC, shared_hardware=True))
    assert rig.settled("chat").keys() == {S}
    assert rig.settled("code").keys() == {A}


def test_a_class_whose_text_changes_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = learnt()
    monkeypatch.setitem(ACCEPTED, ("code", A), 0.02)
    monkeypatch.setitem(ACCEPTED, ("code", S), 0.9)
    for _ in range(200):
        rig.serve("code")
    assert rig.settled("code").keys() == {S}


def test_who_wants_drafts_gets_those_that_suit_it() -> None:
    rig = learnt()
    wish = RequestView("code", Speculation.ON, max_tokens=TOKENS)
    assert {rig.serve("code", wish).decision.lane for _ in range(5)} == {A}
    wish = RequestView("chat", Speculation.ON, max_tokens=TOKENS)
    assert {rig.serve("chat", wish).decision.lane for _ in range(5)} == {S}


def test_a_lane_that_comes_later_is_measured_and_used() -> None:
    rig = Rig()
    rig.report(S, P)
    lanes = [rig.router.admit(RequestView("code", max_tokens=TOKENS)).decision for _ in range(5)]
    assert {each.lane for each in lanes} <= {S, P}
    rig = learnt(spec=replace(SPEC, exploration_share=0.1))
    assert rig.settled("code").keys() == {A}


def test_a_calibration_of_two_lanes_leaves_the_third_to_be_learnt() -> None:
    costs = {
        lane: LaneCost(
            StepTimes(StepPoint(b, k, 100, step_s(b, k)) for b in (1, 16) for k in TIERS[lane]),
            PrefillTimes(0.001, 1e-6),
            16,
        )
        for lane in (S, P)
    }
    prior = ClassPrior((0.7,), Lengths(100, 64))
    known = Measured(costs, overhead_s={S: 0.1, P: 0.2}, classes={"code": prior})
    rig = Rig(spec=replace(SPEC, measured=known))
    first = rig.router.admit(RequestView("code", max_tokens=TOKENS)).decision
    assert first.forecast is not None
    assert first.forecast.lanes.keys() == {S, P}
    rig.report()
    forecast = rig.router.admit(RequestView("code", max_tokens=TOKENS)).decision.forecast
    assert forecast is not None
    assert forecast.lanes.keys() == set(ALL)
    assert forecast.drafting[S].acceptance == 0.7
    assert forecast.drafting[A].acceptance == 0.6  # of a draft that no calibration knows
    curve = lane_curve(A, rig.router.ledger.profiles(A), known, TIERS[A])
    assert curve is not None
    assert curve.overhead_s == 0.1  # the way through the ingress is every lane's


def test_a_trial_is_of_the_speculative_lanes_draft() -> None:
    router = Router(SPEC, ALL, Clock(0.0), trial=TrialSpec())
    assert router.trial is not None
    for lane in (S, A):
        for _ in range(20):
            ticket = router.admit(RequestView("chat", lane=lane))
            assert ticket.decision.lane is lane
            router.finish(ticket, Outcome("chat", lane, 10, 40, 20, 30, True, k=4))
    assert router.trial.requests() == (20, 0)
    assert router.acceptance.estimate("chat", A).drafted == 800


def test_a_request_spills_to_the_other_lanes_by_cost() -> None:
    rig = learnt()
    ticket = rig.router.admit(RequestView("code", max_tokens=TOKENS, lane=A))
    second = rig.router.spill(ticket, "full")
    assert second is not None
    assert second.decision.lane in (S, P)
    assert second.decision.forecast is not None
    assert second.decision.lane is second.decision.forecast.by_cost((S, P))[0]
    assert second.decision.reason == "spill alternative lane full"
    third = rig.router.spill(second, "full")
    assert third is not None
    assert {second.decision.lane, third.decision.lane} == {S, P}
    assert rig.router.spill(third, "full") is None
    rig.router.finish(third)
    assert not any(rig.router.ledger.loads().values())


@pytest.mark.parametrize(("wish", "lanes"), [(Speculation.ON, [A]), (Speculation.OFF, [])])
def test_a_wish_spills_to_what_it_asks_for(wish: Speculation, lanes: list[Lane]) -> None:
    rig = Rig()
    rig.report()
    first = P if wish is Speculation.OFF else S
    ticket: Ticket | None = rig.router.admit(RequestView("chat", wish, lane=first))
    found = []
    while ticket is not None and (ticket := rig.router.spill(ticket, "full", wish)) is not None:
        found.append(ticket.decision.lane)
    assert found == lanes


def test_a_lane_without_replicas_takes_what_spills_last() -> None:
    rig = learnt()
    rig.router.ledger.forget(S)
    ticket = rig.router.admit(RequestView("chat", max_tokens=TOKENS, lane=A))
    moved = rig.router.spill(ticket, "down")
    assert moved is not None
    assert moved.decision.lane is P


def test_what_is_measured_beside_any_other_lane_is_not_alone() -> None:
    clock = Clock(0.0)
    overlap = Overlap(clock)
    overlap.note([S, A])
    clock.advance(1.0)
    overlap.note([P])  # it rested while the others worked
    clock.advance(1.0)
    overlap.note([A, P])
    clock.advance(1.0)
    overlap.note([])
    assert overlap.split(S).share == 1.0
    assert overlap.split(P).share < 0.5


@pytest.mark.parametrize(
    ("contention", "tokens", "expected"),
    [
        (3.0, {S: 1.5, A: 2.5}, {A}),  # together all are slower than in the best alone
        (1.0, {S: 1.8, A: 2.0}, {S, A}),  # the two best share the requests
        (1.0, {S: 0.5, A: 2.0}, {A, P}),
    ],
)
def test_gathering_looks_at_each_lane_and_each_pair(
    contention: float, tokens: dict[Lane, float], expected: set[Lane]
) -> None:
    rig = Rig(spec=replace(SPEC, shared_hardware=True))
    rig.report()
    views = {lane: LaneView(lane, in_flight=8, replicas=1) for lane in ALL}
    found = {}
    for lane in ALL:
        curve = lane_curve(lane, rig.router.ledger.profiles(lane), None, TIERS[lane])
        assert curve is not None
        slower = [
            replace(each, seconds=each.seconds * contention) for each in curve.alone.steps.points
        ]
        found[lane] = replace(curve, contended=replace(curve.alone, steps=StepTimes(slower)))
    lengths = Lengths(50, 64)
    usual = {lane: Usual(tokens.get(lane, 1.0), 0.0, lengths) for lane in ALL}
    best = gather(views, found, usual, 1, None)
    assert best.lanes == expected
    assert gather(views, found, usual, 1, best).lanes == expected
    assert best.rate > best.otherwise
