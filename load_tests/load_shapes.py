"""Shapes of load: staircase across the crossover, spike, soak, open loop and closed loop."""

from __future__ import annotations

import math
import time
from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING

from locust import LoadTestShape

from load_tests.traffic.options import numbers

if TYPE_CHECKING:
    from load_tests.traffic.collect import Collector

__all__ = ["ChosenShape", "Step", "plan"]

# Users come and go at once; Locust warns of more.
_SPAWNS_PER_S = 100.0
# Workers report every 3 s.
_REPORT_S = 3.5


@dataclass(frozen=True, slots=True)
class Step:
    """A load for some seconds: `users` who wait for their answers or, with a rate, who do not.

    With a rate users are where requests come from; together they send `rate` a second.
    """

    name: str
    users: int
    seconds: float
    rate: float | None = None
    warm_up: bool = False


def plan(options: Namespace, workers: int = 1) -> list[Step]:
    """Return the steps that the options ask for; the last one of soak and closed may have no end.

    Open loop has a source of requests in every worker at least.
    """
    users = options.num_users or 1
    seconds = options.step_seconds
    lasting = float(options.run_time or math.inf)
    match options.shape:
        case "staircase":
            steps = [Step(_named(int(n)), int(n), seconds) for n in numbers(options.steps)]
        case "spike":
            steps = [
                Step("before", users, seconds),
                Step("spike", options.peak, seconds),
                Step("after", users, seconds),
            ]
        case "soak":
            steps = _windows(users, lasting, seconds)
        case "open":
            sources = max(users, workers)
            steps = [Step(f"{n:g}/s", sources, seconds, n) for n in numbers(options.rates)]
        case _:
            steps = [Step(_named(users), users, lasting)]
    if options.warm_up > 0:
        middle = steps[len(steps) // 2]
        warm = Step("warm-up", middle.users, options.warm_up, middle.rate, warm_up=True)
        steps.insert(0, warm)
    return steps


def _named(users: int) -> str:
    return f"{users} user" + "s" * (users != 1)


def _windows(users: int, lasting: float, seconds: float) -> list[Step]:
    """Return a soak as windows, so that a drift is seen; without an end, a day of them."""
    if math.isinf(lasting):
        lasting = 86400.0
    starts = range(math.ceil(lasting / seconds))
    return [Step(f"{n * seconds:g} s", users, min(seconds, lasting - n * seconds)) for n in starts]


class ChosenShape(LoadTestShape):
    """The shape of `--shape`, which tells the collector when a step begins.

    After the last step all users finish what they wait for; then the run ends.
    """

    use_common_options = True
    collector: Collector

    def __init__(self) -> None:
        super().__init__()
        self.rewind()

    def rewind(self) -> None:
        """Begin with the first step at the next tick."""
        self._steps: list[Step] = []
        self._position = -1
        self._until = 0.0

    def tick(self) -> tuple[int, float] | None:
        """Return the users of this second; None ends the run."""
        now = time.perf_counter()
        if self._position < 0:
            self._steps = plan(self.collector.options, self.collector.workers())
            self.collector.plan(self._steps)
            self._enter(0, now)
        elif now >= self._until and self._position < len(self._steps):
            self._enter(self._position + 1, now)
        if self._position < len(self._steps):
            return self._steps[self._position].users, _SPAWNS_PER_S
        if now >= self._until and (not self.collector.busy() or now >= self._give_up):
            self.rewind()
            return None
        return 0, _SPAWNS_PER_S

    def _enter(self, position: int, now: float) -> None:
        self._position = position
        if position < len(self._steps):
            self.collector.begin(position, self._steps[position])
            # A tick comes every second: half of one early is nearer than half of one late.
            self._until = now + self._steps[position].seconds - 0.5
        else:
            self.collector.begin(position, None)
            self._until = now + _REPORT_S * (self.collector.workers() > 0)
            self._give_up = now + self.collector.patience_s + 2 * _REPORT_S
