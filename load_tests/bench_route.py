"""What the router costs a request: its decision, and the bookkeeping around it.

    python load_tests/bench_route.py
    python load_tests/bench_route.py --users 4 64 --calibration cpu-2 --profile

A simulated closed loop of users keeps engines busy that measure their own steps, so that the router
meets loads, reports and step times that change as they do in an application; its calls are timed.
`decide` is all of `Router.admit`: the request waits for it. `report` is one engine's snapshot taken
in, two of them come with each answer. Microseconds of the processor, so that other work on the
machine counts little.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from rayspec.planning.examples import names, open_calibration  # noqa: E402
from rayspec.planning.routed import Routed  # noqa: E402
from rayspec.planning.scenarios import ROUTED, scenarios  # noqa: E402
from rayspec.planning.simulate import make_engines, simulate  # noqa: E402
from rayspec.planning.traces import Trace  # noqa: E402
from rayspec.planning.workload import Workload  # noqa: E402
from rayspec.routing import PolicySpec, Router  # noqa: E402

CALLS = {"decide": "admit", "report": "observe", "end": "finish"}
PROMPT, OUTPUT = (20, 600), (8, 200)  # tokens, drawn evenly


def timed(router: Router, name: str, into: list[float]) -> None:
    """Let `router` note the seconds of each call of a method."""
    method: Callable[..., Any] = getattr(router, name)

    def call(*args: Any) -> Any:
        began = time.thread_time()
        try:
            return method(*args)
        finally:
            into.append(time.thread_time() - began)

    setattr(router, name, call)


def bench(ref: str, users: int, requests: int) -> dict[str, list[float]]:
    """Return the seconds of each call."""
    calibration = open_calibration(ref)
    rng = np.random.default_rng(0)
    trace = Trace(
        classes=tuple(calibration.classes),
        class_of=rng.integers(0, len(calibration.classes), requests),
        prompt_tokens=rng.integers(*PROMPT, requests),
        output_tokens=rng.integers(*OUTPUT, requests),
        arrivals=np.empty(0),
        users=users,
    )
    workload = Workload(trace, calibration.classes, 0)
    routed = next(s for s in scenarios(calibration, 1, 1) if s.name == ROUTED)
    seconds: dict[str, list[float]] = {name: [] for name in CALLS}
    spec = PolicySpec(k_tiers=tuple(calibration.k_tiers), measured=calibration.measured())
    make = partial(Routed, calibration=calibration, tiers=spec.k_tiers, spec=spec, learning=True)

    def policy(fleet: Any) -> Routed:
        found = make(fleet)
        for name, method in CALLS.items():
            timed(found.router, method, seconds[name])
        return found

    simulate(workload, make_engines(calibration, routed.replicas, workload), policy)
    return seconds


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=3000, help="of each load")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4, 16, 64], help="loads")
    parser.add_argument("--calibration", nargs="+", default=names(), help="files or examples")
    parser.add_argument("--profile", action="store_true", help="tell where the time goes, too")
    options = parser.parse_args()
    profile = cProfile.Profile()
    print(f"{'calibration':12} users  call    p50 µs  p95 µs  p99 µs")
    for ref in options.calibration:
        for users in options.users:
            if options.profile:
                profile.enable()
            seconds = bench(ref, users, options.requests)
            profile.disable()
            for name, found in seconds.items():
                cuts = statistics.quantiles(found, n=100)
                at = "  ".join(f"{1e6 * cuts[p - 1]:6.0f}" for p in (50, 95, 99))
                print(f"{ref:12} {users:5}  {name:6}  {at}")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats("rayspec", 25)


if __name__ == "__main__":
    main()
