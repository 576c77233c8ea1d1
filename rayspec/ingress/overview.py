"""What `/ui` and `rayspec top` show, as one JSON document. Nothing in it is a client's text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import rayspec
from rayspec.ingress.lanes import LaneDown, ServeDeployment
from rayspec.routing import Crossover, Lane, Router
from rayspec.routing.trial import told
from rayspec.telemetry.history import INTERVAL_S, ClassCounts, History, Kept, LaneCounts, merge

__all__ = ["Overview"]

_TIMEOUT_S = 2.0
# However many look: nothing is asked or computed more often than this.
_FRESH_S = 1.0
# Classes whose lines are drawn: those with most requests that are remembered.
_MOST_LINES = 8


class Overview:
    """Gathers the document from the router, the lanes, and what all ingress replicas remember.

    Load, decisions and acceptance over time are of all replicas; predictions are of the replica
    that is asked, whose router knows what its own requests showed.
    """

    def __init__(
        self,
        model: str,
        router: Router,
        history: History,
        lanes: Mapping[Lane, ServeDeployment],
        ingresses: ServeDeployment,
    ) -> None:
        self._model = model
        self._router = router
        self._history = history
        self._lanes = lanes
        self._ingresses = ingresses
        self._started = time.monotonic()
        self._lock = asyncio.Lock()
        self._state: dict[str, Any] = {}
        self._gathered = float("-inf")

    async def state(self) -> dict[str, Any]:
        """Return the document, at most a second old."""
        async with self._lock:
            if time.monotonic() - self._gathered >= _FRESH_S:
                self._state = await self._gather()
                self._gathered = time.monotonic()
            return self._state

    async def _gather(self) -> dict[str, Any]:
        parts, links = await asyncio.gather(_ask(self._ingresses, "remembered"), self._links())
        kept = merge(parts or [self._history.kept()])
        names = _by_requests(kept)
        lanes = self._router.ledger.lanes
        # Two have columns of counts in any case, so that those who look need not ask which.
        shown = [lane for lane in Lane if lane is not Lane.ALTERNATIVE or lane in lanes]
        drafting = [lane for lane in lanes if lane.drafts] or [Lane.SPECULATIVE]
        return {
            "at": time.time(),
            "rayspec": rayspec.__version__,
            "model": self._model,
            "up_s": time.monotonic() - self._started,
            "ingresses": max(len(parts), 1),
            "lanes": {lane: self._lane(lane) for lane in lanes},
            "links": links,
            "trial": None if self._router.trial is None else told(self._router.trial),
            "history": _history(kept, names, shown),
            "classes": [self._class(name, lane, kept) for name in names for lane in drafting],
            "crossover": [
                _lines(self._router.crossover(name)) for name in names[:_MOST_LINES] or ["chat"]
            ],
            "decisions": [asdict(each) for each in kept.decisions],
        }

    def _lane(self, lane: Lane) -> dict[str, Any]:
        view = self._router.ledger.view(lane)
        profiles = self._router.ledger.profiles(lane)
        return {
            "replicas": view.replicas,
            "running": view.running,
            "waiting": view.waiting,
            "load": view.concurrency,
            "capacity": sum(profile.max_num_seqs for profile in profiles),
            "kv_usage": view.kv_usage,
            "attached": view.attached,
        }

    def _class(self, name: str, lane: Lane, kept: Kept) -> dict[str, Any]:
        """Return what drafts of a lane do for a class."""
        estimate = self._router.acceptance.estimate(name, lane)
        known = (estimate.workload_class, lane) in kept.breakeven
        breakeven, expected = kept.breakeven.get((estimate.workload_class, lane), (None, None))
        return {
            "name": estimate.workload_class,
            "lane": lane,
            "acceptance": estimate.mean,
            "low": estimate.low,
            "high": estimate.high,
            "drafted": estimate.drafted,
            "coverage": estimate.coverage,
            "positions": [position.mean for position in estimate.positions],
            "predicted": known,
            "breakeven": breakeven,
            "expected": expected,
        }

    async def _links(self) -> list[dict[str, Any]]:
        drafting = [handle for lane, handle in self._lanes.items() if lane.drafts]
        found = await asyncio.gather(*(_ask(handle, "links") for handle in drafting))
        return [link for links in found for link in links]


async def _ask(deployment: ServeDeployment, method: str) -> list[Any]:
    try:
        return await deployment.broadcast(method, timeout_s=_TIMEOUT_S)
    except LaneDown:
        return []


def _by_requests(kept: Kept) -> list[str]:
    """Return the classes that were seen, those with most requests first."""
    requests: dict[str, int] = {}
    for interval in kept.intervals:
        for name, counts in interval.classes.items():
            requests[name] = requests.get(name, 0) + counts.requests
    return sorted(requests, key=lambda name: (-requests[name], name))


def _history(kept: Kept, names: list[str], shown: Collection[Lane]) -> dict[str, Any]:
    """Return the counts by column: those of one class or lane over all intervals."""
    at = [interval.at for interval in kept.intervals]
    lanes: dict[str, dict[str, list[Any]]] = {}
    for lane in shown:
        column = [interval.lanes.get(lane, LaneCounts()) for interval in kept.intervals]
        lanes[lane] = {
            "requests": [counts.requests for counts in column],
            "tokens": [counts.tokens for counts in column],
            "load": [counts.load / counts.samples if counts.samples else None for counts in column],
        }
    classes: dict[str, dict[str, list[int]]] = {}
    for name in names:
        rows = [interval.classes.get(name, ClassCounts()) for interval in kept.intervals]
        classes[name] = {
            "requests": [counts.requests for counts in rows],
            "drafted": [counts.drafted for counts in rows],
            "accepted": [counts.accepted for counts in rows],
        }
    return {"interval_s": INTERVAL_S, "at": at, "lanes": lanes, "classes": classes}


def _lines(found: Crossover) -> dict[str, Any]:
    return {
        "name": found.workload_class,
        "prompt_tokens": found.lengths.prompt,
        "output_tokens": found.lengths.output,
        "acceptance": found.acceptance,
        "assumed": found.assumed,
        "sooner": [{"load": load, "lane": lane} for load, lane in found.sooner],
        "lanes": {
            lane: {
                "now": line.now,
                "measured_to": line.measured_to,
                "beside": line.beside,
                "load": [point.concurrency for point in line.points],
                "tpot_s": [point.tpot_s for point in line.points],
                "total_s": [point.total_s for point in line.points],
                "k": [point.k for point in line.points],
            }
            for lane, line in found.lanes.items()
        },
    }
