from __future__ import annotations

import json
from typing import Any, cast

from rayspec.ingress.lanes import LaneDown, ServeDeployment
from rayspec.ingress.overview import Overview
from rayspec.routing import EngineProfile, EngineSnapshot, Lane, Outcome, PolicySpec, Router
from rayspec.routing.cost_model import PrefillTimes, StepPoint
from rayspec.routing.types import RequestView
from rayspec.telemetry.history import History
from tests.support.clock import Clock

S, A, P = Lane.SPECULATIVE, Lane.ALTERNATIVE, Lane.PLAIN
LINK: dict[str, Any] = {
    "replica": "1",
    "lane": "speculative",
    "attached": True,
    "k": None,
    "disabled_reason": None,
    "drafted_per_pos": [],
    "accepted_per_pos": [],
    "shards": [],
}


class Deployment:
    """Answers a broadcast with what each replica's function returns; None has no replica."""

    def __init__(self, *replicas: Any) -> None:
        self.replicas = replicas
        self.asked: list[str] = []

    async def broadcast(self, method: str, timeout_s: float) -> list[Any]:
        self.asked.append(method)
        if not self.replicas:
            raise LaneDown("no replica")
        return [replica() for replica in self.replicas]


class Bench:
    """An overview over scripted deployments, with a router that knows both lanes' steps."""

    def __init__(self, *, lanes: tuple[Lane, ...] = (S, P), links: int = 1, ingresses: int = 1):
        spec = PolicySpec(k_tiers=(0, 4), alternative_k_tiers=(0, 8))
        self.router = Router(spec, lanes, lambda: 0.0)
        self.clock = Clock(1000.0)
        self.histories = [History(self.clock) for _ in range(ingresses)]
        self.speculative = Deployment(*[lambda: LINK] * links)
        self.ingresses = Deployment(*(history.kept for history in self.histories))
        own = LINK | {"lane": "alternative", "method": "ngram", "drafted_per_pos": [4]}
        deployments = {S: self.speculative, A: Deployment(lambda: own), P: Deployment()}
        self.overview = Overview(
            "m",
            self.router,
            self.histories[0],
            {lane: cast(ServeDeployment, deployments[lane]) for lane in lanes},
            cast(ServeDeployment, self.ingresses),
        )

    def measure(self) -> None:
        for lane in self.router.ledger.lanes:
            tiers = self.router.spec.tiers(lane) or (0,)
            points = tuple(StepPoint(1, k, 100, 0.01) for k in tiers)
            profile = EngineProfile(points, PrefillTimes(0.001, 0.00001), 16, 2048)
            self.router.observe(
                EngineSnapshot(lane, "1", 1.0, 2, 1, 0.25, lane.drafts, profile=profile)
            )

    def serve(self, name: str = "chat", replica: int = 0) -> None:
        history = self.histories[replica]
        ticket = self.router.admit(RequestView(name, body_bytes=400))
        history.decided(ticket, name, self.router.ledger.loads())
        outcome = Outcome(name, ticket.decision.lane, 4, 16, 12, 16, True, (0, 0, 0, 4, 0), k=4)
        self.router.finish(ticket, outcome)
        history.finished(ticket, outcome)

    async def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(json.dumps(await self.overview.state(), allow_nan=False))
        return state


async def test_before_anything_happened() -> None:
    state = await Bench(links=0).state()
    assert state["links"] == state["classes"] == state["decisions"] == []
    assert state["history"]["at"] == []
    assert state["crossover"][0]["lanes"] == {}
    assert state["lanes"]["plain"]["replicas"] == 0


async def test_everything_is_told() -> None:
    bench = Bench()
    bench.measure()
    for _ in range(3):
        bench.serve()
    bench.serve("code")
    state = await bench.state()
    assert state["lanes"]["speculative"] == {
        "replicas": 1,
        "running": 2,
        "waiting": 1,
        "load": 3,
        "capacity": 16,
        "kv_usage": 0.25,
        "attached": True,
    }
    assert state["links"] == [LINK]
    assert [each["name"] for each in state["classes"]] == ["chat", "code"]
    chat = state["classes"][0]
    assert chat["acceptance"] == 0.75
    assert chat["low"] < 0.75 < chat["high"]
    assert chat["predicted"]
    assert 0 < chat["expected"] < 1
    assert state["history"]["classes"]["chat"] == {
        "requests": [3],
        "drafted": [48],
        "accepted": [36],
    }
    lines = state["crossover"][0]
    assert lines["name"] == "chat"
    for line in lines["lanes"].values():
        assert len(line["load"]) == len(line["tpot_s"]) == len(line["total_s"]) == len(line["k"])
    assert lines["lanes"]["speculative"]["now"] == 3
    assert [told["workload_class"] for told in state["decisions"]] == ["code", *["chat"] * 3]


async def test_all_ingresses_together() -> None:
    bench = Bench(ingresses=2)
    bench.measure()
    bench.serve(replica=0)
    bench.serve(replica=1)
    state = await bench.state()
    assert state["ingresses"] == 2
    assert state["history"]["classes"]["chat"]["requests"] == [2]
    assert len(state["decisions"]) == 2


async def test_one_lane_has_no_link() -> None:
    bench = Bench(lanes=(P,))
    bench.measure()
    bench.serve()
    state = await bench.state()
    assert state["links"] == []
    assert set(state["lanes"]) == {"plain"}
    assert state["crossover"][0]["sooner"] == []
    assert bench.speculative.asked == []


async def test_many_watchers_ask_once() -> None:
    bench = Bench()
    for _ in range(5):
        await bench.overview.state()
    assert bench.ingresses.asked == ["remembered"]
    assert bench.speculative.asked == ["links"]


async def test_each_lane_that_drafts_is_told_by_class() -> None:
    bench = Bench(lanes=(S, A, P))
    bench.measure()
    bench.serve()
    state = await bench.state()
    assert list(state["lanes"]) == list(state["history"]["lanes"]) == list(Lane)
    assert [link["lane"] for link in state["links"]] == ["speculative", "alternative"]
    rows = {each["lane"]: each for each in state["classes"]}
    assert list(rows) == ["speculative", "alternative"]
    assert all(each["name"] == "chat" and each["predicted"] for each in rows.values())
    drafted = state["decisions"][0]["lane"]
    assert [lane for lane in rows if rows[lane]["acceptance"] is not None] == [drafted]
    lines = state["crossover"][0]
    assert lines["lanes"].keys() == set(Lane)
    assert lines["lanes"]["alternative"]["k"][0] == 8
    assert {each["lane"] for each in lines["sooner"]} <= set(Lane)
