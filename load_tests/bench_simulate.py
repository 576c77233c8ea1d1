"""How many requests a minute `rayspec simulate` gets through on one core.

    python load_tests/bench_simulate.py
    python load_tests/bench_simulate.py --requests 100000 --loads 2 15 30

Each scenario of the shipped example is simulated alone, at several Poisson rates. Times are of the
processor, so that other work on the machine does not count; drawing the requests and reporting are
included. The last line is for `rayspec simulate` as a whole, which runs every scenario.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from rayspec.planning.examples import DEFAULT, open_calibration  # noqa: E402
from rayspec.planning.goodput import Slo  # noqa: E402
from rayspec.planning.scenarios import compare, scenarios  # noqa: E402
from rayspec.planning.traces import ClassMix, open_loop  # noqa: E402
from rayspec.planning.workload import Workload  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--loads", type=float, nargs="+", default=[2.0, 15.0, 30.0])
    parser.add_argument("--calibration", default=DEFAULT)
    options = parser.parse_args()
    slowest = float("inf")
    for rate in options.loads:
        slowest = min(slowest, bench(options.calibration, options.requests, rate))
    print(f"through all scenarios, at the slowest rate: {slowest:,.0f} requests/min")


def bench(ref: str, count: int, rate: float) -> float:
    """Print each scenario's speed at one rate; return that of all of them together."""
    calibration = open_calibration(ref)
    mix = ClassMix(dict.fromkeys(calibration.classes, 1.0), calibration.classes)
    total = 0.0
    for scenario in scenarios(calibration, 1, 1):
        began = time.process_time()
        workload = Workload(open_loop(mix, count, rate, 1.0, 0), calibration.classes)
        found = compare(calibration, workload, [scenario], Slo())[scenario.name]
        taken = time.process_time() - began
        total += taken
        batches = ", ".join(f"{lane} {batch:.1f}" for lane, batch in found.batch.items())
        print(
            f"{rate:g}/s  {scenario.name:<15} {60 * count / taken:>12,.0f} requests/min"
            f"  (mean batch: {batches})"
        )
    return 60 * count / total


if __name__ == "__main__":
    main()
