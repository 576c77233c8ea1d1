"""Runs traffic through engines of both lanes under a policy, event by event in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from rayspec.planning.calibration import Calibration
from rayspec.planning.engine_model import Engine
from rayspec.planning.policies import Fleet, Policy
from rayspec.planning.traces import Floats, Ints
from rayspec.planning.workload import Workload
from rayspec.routing.types import Lane

__all__ = ["Run", "make_engines", "simulate"]

LANES = (Lane.PLAIN, Lane.SPECULATIVE)
_PROGRESS_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """What happened to each request, and what the engines did."""

    arrived: Floats
    first_token: Floats
    finished: Floats
    lane: Ints
    k: Ints
    engines: Sequence[Engine]

    @property
    def span_s(self) -> float:
        """From the first arrival to the last answer."""
        return float(self.finished.max() - self.arrived.min()) if len(self.finished) else 0.0

    @property
    def ttft(self) -> Floats:
        """Seconds to the first token."""
        return self.first_token - self.arrived

    @property
    def total(self) -> Floats:
        """Seconds to the last token."""
        return self.finished - self.arrived

    def tpot(self, workload: Workload) -> Floats:
        """Seconds per token after the first; NaN where there is only one."""
        more = workload.trace.output_tokens - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            times: Floats = np.where(more > 0, (self.finished - self.first_token) / more, np.nan)
        return times

    def batch(self, lane: Lane) -> float:
        """Sequences that decode in a working engine of the lane, in the mean."""
        mine = [engine for engine in self.engines if engine.lane is lane]
        busy = sum(engine.busy_s for engine in mine)
        return sum(engine.batch_s for engine in mine) / busy if busy else 0.0


def make_engines(
    calibration: Calibration, replicas: Mapping[Lane, int], workload: Workload
) -> list[Engine]:
    """Return the engines of a fleet, as measured."""
    engines = []
    for lane, count in replicas.items():
        profile, cost = calibration.lanes[lane], calibration.lanes[lane].cost()
        engines += [
            Engine(
                lane,
                cost,
                workload,
                contention=profile.contention,
                overhead_s=profile.overhead_s,
                busy_overhead_s=profile.busy_overhead_s,
                mixing=profile.mixing,
                wait_steps=profile.wait_steps,
                gpus=profile.gpus,
            )
            for _ in range(count)
        ]
    return engines


def simulate(
    workload: Workload,
    engines: Sequence[Engine],
    make_policy: Callable[[Fleet], Policy],
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Run all requests to their end; `progress` is told how many more have ended.

    Within its lane a request goes to the engine with the fewest. Engines that share a machine, as
    a contention above 1 says, slow one another down while they work, from their next jump on.
    """
    return _Simulation(workload, engines, make_policy, progress).run()


class _Simulation:
    def __init__(
        self,
        workload: Workload,
        engines: Sequence[Engine],
        make_policy: Callable[[Fleet], Policy],
        progress: Callable[[int], None] | None,
    ) -> None:
        self.workload = workload
        self.engines = engines
        self.fleet = Fleet(workload, engines)
        self.policy = make_policy(self.fleet)
        self.progress = progress
        self.shared = any(engine.contention > 1 for engine in engines)
        self.busy = 0
        self.events: list[tuple[float, int, int]] = []  # end of a jump, engine, its version
        self.arrivals: list[tuple[float, int]] = []  # heap of when, request
        self.upcoming = 0
        count = len(workload)
        self.arrived = [0.0] * count
        self.first = [0.0] * count
        self.done = [0.0] * count
        self.outside = [0.0] * count  # what each waits outside of its engine
        self.lane = [0] * count
        self.k = [0] * count

    def run(self) -> Run:
        trace = self.workload.trace
        if trace.users:
            for _ in range(trace.users):
                self._next_of_a_user(0.0)
        else:
            self.arrivals = list(zip(trace.arrivals.tolist(), range(len(trace)), strict=True))
        finished = 0
        events, arrivals = self.events, self.arrivals
        while events or arrivals:
            # At the same moment answers come first: who leaves makes room for who arrives.
            if arrivals and (not events or arrivals[0][0] < events[0][0]):
                now, request = heappop(arrivals)
                self._arrive(request, now)
                continue
            now, index, version = heappop(events)
            if version == self.engines[index].version:
                done = self._end(index, now)
                if self.progress and finished // _PROGRESS_EVERY != (
                    (finished + done) // _PROGRESS_EVERY
                ):
                    self.progress(_PROGRESS_EVERY)
                finished += done
        if self.progress:
            self.progress(finished % _PROGRESS_EVERY)
        return Run(
            np.array(self.arrived),
            np.array(self.first),
            np.array(self.done),
            np.array(self.lane, dtype=np.int64),
            np.array(self.k, dtype=np.int64),
            self.engines,
        )

    def _next_of_a_user(self, now: float) -> None:
        if self.upcoming < len(self.workload):
            heappush(self.arrivals, (now, self.upcoming))
            self.upcoming += 1

    def _arrive(self, request: int, now: float) -> None:
        lane, k = self.policy.route(request, now)
        self.arrived[request] = now
        self.lane[request] = LANES.index(lane)
        self.k[request] = k
        engine = self.fleet.least_loaded(lane)
        was_idle = engine.idle
        self.outside[request] = engine.overhead_s + (0.0 if was_idle else engine.busy_overhead_s)
        engine.enqueue(request, k)
        if was_idle:
            self.busy += 1
            self._begin(engine, now)
            self._repace(engine, now)
        elif engine.running < engine.cost.max_num_seqs:
            self._cut(engine, now)

    def _end(self, index: int, now: float) -> int:
        engine = self.engines[index]
        started, done = engine.end()
        for request in started:
            self.first[request] = now + self.outside[request]
            self.policy.started(request, now)
        think_s = self.workload.trace.think_s
        for request in done:
            self.done[request] = answered = now + self.outside[request]
            self.policy.finished(request, now)
            if self.workload.trace.users:
                self._next_of_a_user(answered + think_s)
        self._begin(engine, now)
        if engine.idle:
            self.busy -= 1
            self._repace(engine, now)
        return len(done)

    def _begin(self, engine: Engine, now: float) -> None:
        slowdown = engine.contention if self.busy > 1 else 1.0
        end = engine.begin(now, slowdown)
        if end is not None:
            heappush(self.events, (end, self.fleet.index[id(engine)], engine.version))

    def _cut(self, engine: Engine, now: float) -> None:
        end = engine.cut(now)
        if end is not None:
            heappush(self.events, (end, self.fleet.index[id(engine)], engine.version))

    def _repace(self, changed: Engine, now: float) -> None:
        """Let engines that share the machine notice that another began or ended to work."""
        if self.shared and self.busy <= 2:
            for engine in self.engines:
                if engine is not changed and not engine.idle:
                    self._cut(engine, now)
