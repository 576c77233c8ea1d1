"""Who decides where a simulated request goes: one lane always, or an oracle; see also `routed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from rayspec.planning.calibration import CALIBRATED
from rayspec.planning.engine_model import Engine
from rayspec.planning.traces import Floats, Ints
from rayspec.planning.workload import Workload
from rayspec.routing.types import Lane

__all__ = ["Always", "Choice", "Fleet", "Oracle", "Policy"]

Choice = tuple[Lane, int]
"""A lane and how many drafts a step verifies."""


class Fleet:
    """The engines that there are, by lane."""

    def __init__(self, workload: Workload, engines: Sequence[Engine]) -> None:
        self.workload = workload
        self.engines = engines
        self.index = {id(engine): index for index, engine in enumerate(engines)}
        self.lanes: Mapping[Lane, list[Engine]] = {
            lane: [engine for engine in engines if engine.lane is lane]
            for lane in CALIBRATED
            if any(engine.lane is lane for engine in engines)
        }

    def least_loaded(self, lane: Lane) -> Engine:
        """Return the engine of a lane with the fewest requests, the first among equals."""
        engines = self.lanes[lane]
        return engines[0] if len(engines) == 1 else min(engines, key=lambda engine: engine.load)


class Policy(Protocol):
    """Decides on arrival, and hears what became of requests."""

    def route(self, request: int, now: float) -> Choice:
        """Return where a request goes."""

    def started(self, request: int, now: float) -> None:
        """Hear that a request got its first token."""

    def finished(self, request: int, now: float) -> None:
        """Hear that a request has ended."""


class _Deaf:
    """A policy that learns nothing from outcomes."""

    def started(self, request: int, now: float) -> None:
        """Hear that a request got its first token."""

    def finished(self, request: int, now: float) -> None:
        """Hear that a request has ended."""


class Always(_Deaf):
    """Everything to one lane, with one K."""

    def __init__(self, lane: Lane, k: int) -> None:
        self._choice = lane, k if lane is Lane.SPECULATIVE else 0

    def route(self, request: int, now: float) -> Choice:
        """Return the one choice."""
        return self._choice


class Oracle(_Deaf):
    """Knows every answer's length and which drafts will be accepted, but not who arrives later.

    It takes what adds least to the latency of all: the request's own, found by playing the engine
    forward with what is in it, and the delay of the others there. It is no bound: on a machine that
    both lanes share, starting the second one can cost those who arrive later.
    """

    def __init__(self, fleet: Fleet, tiers: Sequence[int]) -> None:
        self._fleet = fleet
        self._tiers = {Lane.PLAIN: (0,), Lane.SPECULATIVE: tuple(tiers)}
        self._tables: dict[int, Floats] = {}  # [drafts, batch] by step times

    def route(self, request: int, now: float) -> Choice:
        """Return the lane and K that add the least latency."""
        found = [
            (self._added(self._fleet.least_loaded(lane), request, k), lane, k)
            for lane in self._fleet.lanes
            for k in self._tiers[lane]
        ]
        _, lane, k = min(found, key=lambda one: one[0])
        return lane, k

    def _added(self, engine: Engine, request: int, k: int) -> float:
        workload, cost = self._fleet.workload, engine.cost
        others = _steps_left(engine, workload)
        count, seats = len(others), cost.max_num_seqs
        mine = workload.steps(k)[request]
        drafts = k * workload.coverage(request)
        usual = engine.drafts / len(engine.ends) if engine.ends else drafts
        prompt_s = cost.prefill.seconds(workload.prompts[request], cost.chunk_tokens)
        own = cost.prefill.seconds(engine.backlog_tokens, cost.chunk_tokens) + prompt_s
        delay = prompt_s * len(engine.ends)
        if count >= seats:  # wait until enough others have left, then decode in a full batch
            step = float(self._seconds(engine, np.array([seats]), np.array([usual]))[0])
            rounds, rest = divmod(count - seats, seats)
            wait = rounds * float(others.mean()) + float(others[min(rest, count - 1)])
            own += (wait + mine) * step
        else:
            before = others[others < mine]
            spans = np.diff(np.concatenate(([0.0], before, [float(mine)])))
            beside = count - np.arange(len(before) + 1)  # others that decode in each span
            mixed: Floats = (usual * beside + drafts) / (beside + 1)
            now_s = self._seconds(engine, beside, np.full(len(beside), usual))
            then_s = self._seconds(engine, beside + 1, mixed)
            own += float(np.dot(spans, then_s))
            delay += float(np.dot(spans, beside * np.subtract(then_s, now_s)))
        return own * self._contention(engine) + delay

    def _contention(self, engine: Engine) -> float:
        """Return by how much other engines of a shared machine slow it, and are slowed by it."""
        if engine.contention <= 1:
            return 1.0
        working = [one for one in self._fleet.engines if one is not engine and not one.idle]
        if not working:
            return 1.0
        slowed = sum(one.load for one in working) if engine.idle else 0
        return engine.contention + (engine.contention - 1) * slowed

    def _seconds(self, engine: Engine, batch: Ints, drafts: Floats) -> Floats:
        """Return step times at the workload's mean context, by a table over batch and drafts."""
        table = self._tables.get(id(engine.cost.steps))
        if table is None:
            seats, context = engine.cost.max_num_seqs, self._fleet.workload.context
            table = np.array(
                [
                    [0.0, *(engine.cost.steps.seconds(b, k, context) for b in range(1, seats + 1))]
                    for k in range(max(self._tiers[engine.lane]) + 2)
                ]
            )
            self._tables[id(engine.cost.steps)] = table
        below = drafts.astype(np.int64)
        share = drafts - below
        times: Floats = (1 - share) * table[below, batch] + share * table[below + 1, batch]
        return times


def _steps_left(engine: Engine, workload: Workload) -> Floats:
    """Return the steps that each request in an engine still needs, sorted."""
    left = [end - engine.step for end, _, _ in engine.ends]
    left += [workload.steps(k)[request] for request, k in engine.prefilled]
    left += [workload.steps(k)[request] for request, k, _ in engine.prefilling]
    left += [workload.steps(k)[request] for request, k in engine.waiting]
    left.sort()
    return np.array(left, dtype=float)
