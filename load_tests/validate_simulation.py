"""Compares what the simulator predicts with what a real application does.

    python load_tests/validate_simulation.py --app deployments/app.yaml     # starts and stops it
    python load_tests/validate_simulation.py --config deployments/app.yaml  # uses a running one

Calibrates the application with one half of the prompts, or takes `--calibration FILE`. Then users
who wait for their answers ask it prompts of the other half, at several concurrencies, always plain,
always speculative and routed; the simulator runs the same requests, with a router that has the
application's settings, where they are known, and engines that measure themselves. Prints p50 and
p95 of the time to the first token (TTFT), per token (TPOT) and to the whole answer (E2E), predicted
and measured. Exits with 1 if an error exceeds `--tolerance`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.closed_loop import LANE_OF, POLICIES, Answer, Ask, asks, drive  # noqa: E402
from load_tests.validation_plot import METRICS, PERCENTILES, draw  # noqa: E402
from rayspec.config import derive, load  # noqa: E402
from rayspec.errors import RayspecError  # noqa: E402
from rayspec.planning.calibrate import Options, calibrate  # noqa: E402
from rayspec.planning.calibrate_app import StartedApp  # noqa: E402
from rayspec.planning.calibrate_client import Client  # noqa: E402
from rayspec.planning.calibrate_limits import Limits, limits_of  # noqa: E402
from rayspec.planning.calibrate_machine import hardware, has_gpu, versions  # noqa: E402
from rayspec.planning.calibrate_prompts import Prompt  # noqa: E402
from rayspec.planning.calibration import Calibration  # noqa: E402
from rayspec.planning.routed import Routed  # noqa: E402
from rayspec.planning.scenarios import ALWAYS, NONE, ROUTED, Scenario, scenarios  # noqa: E402
from rayspec.planning.simulate import make_engines, simulate  # noqa: E402
from rayspec.planning.traces import Trace  # noqa: E402
from rayspec.planning.workload import Workload  # noqa: E402
from rayspec.routing.policy import PolicySpec  # noqa: E402

SCENARIO_OF = {"routed": ROUTED, "always on": ALWAYS, "always plain": NONE}
# Luck with drafts is drawn anew so often, and the usual case is predicted.
DRAWS = 20
Times = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True)
class Line:
    """One number, predicted and measured; seconds."""

    policy: str
    users: int
    metric: str
    percentile: int
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return self.predicted / self.measured - 1


def split(count: int, options: argparse.Namespace) -> tuple[list[Ask], list[Ask]]:
    """Return prompts to calibrate with, and `count` others to validate with."""
    every = asks(
        count + options.calibrate_with,
        seed=options.seed,
        max_tokens=options.max_tokens,
        named=True,
    )
    return every[count:], every[:count]


def measured_times(answers: Sequence[Answer]) -> Times:
    """Return what users met."""
    return {
        "TTFT": np.array([answer.ttft_s for answer in answers]),
        "TPOT": np.array([a.tpot_s for a in answers if a.tpot_s is not None]),
        "E2E": np.array([answer.total_s for answer in answers]),
    }


def trace_of(answers: Sequence[Answer], users: int) -> Trace:
    """Return the requests as they were, with the lengths that their answers had."""
    classes = tuple(dict.fromkeys(answer.workload for answer in answers))
    return Trace(
        classes=classes,
        class_of=np.array([classes.index(answer.workload) for answer in answers]),
        prompt_tokens=np.array([answer.prompt_tokens for answer in answers]),
        output_tokens=np.array([answer.output_tokens for answer in answers]),
        arrivals=np.empty(0),
        users=users,
    )


def scenarios_of(calibration: Calibration, file: Path | None) -> dict[str, Scenario]:
    """Return the scenarios by name; the router in them is that of the application in `file`."""
    which = {scenario.name: scenario for scenario in scenarios(calibration, 1, 1)}
    policy = PolicySpec(k_tiers=tuple(calibration.k_tiers))
    if file is not None:
        policy = derive(load(file), has_gpu=has_gpu()).ingress.policy
    policy = replace(policy, measured=calibration.measured())
    make = partial(
        Routed, calibration=calibration, tiers=policy.k_tiers, spec=policy, learning=True
    )
    return which | {ROUTED: replace(which[ROUTED], make_policy=make)}


def predicted_times(
    calibration: Calibration, scenario: Scenario, answers: Sequence[Answer], users: int
) -> list[Times]:
    """Return what the simulator says of the same requests, with luck drawn several times."""
    trace = trace_of(answers, users)
    found: list[Times] = []
    for seed in range(DRAWS):
        workload = Workload(trace, calibration.classes, seed)
        run = simulate(
            workload, make_engines(calibration, scenario.replicas, workload), scenario.make_policy
        )
        tpot = run.tpot(workload)
        found.append({"TTFT": run.ttft, "TPOT": tpot[~np.isnan(tpot)], "E2E": run.total})
    return found


def compare(policy: str, users: int, predicted: Sequence[Times], measured: Times) -> Iterator[Line]:
    """Yield every percentile of every metric; of the predictions the median."""
    for metric in METRICS:
        for percentile in PERCENTILES:
            told = [np.percentile(times[metric], percentile) for times in predicted]
            met = np.percentile(measured[metric], percentile)
            yield Line(policy, users, metric, percentile, float(np.median(told)), float(met))


async def validate(
    client: Client, calibration: Calibration, requests: Sequence[Ask], options: argparse.Namespace
) -> list[Line]:
    """Drive the application in every scenario, and simulate what was driven."""
    model, k = await client.model(), max(calibration.k_tiers)
    which = scenarios_of(calibration, options.app or options.config)
    # The first answers of engines and of a router that knows nothing yet are not the usual ones.
    for policy in options.policies:
        await drive(client, model, requests[: options.warm_up], 2, LANE_OF[policy], k=k)
    bar = tqdm(total=len(requests) * len(options.policies) * len(options.users), unit="answer")
    lines: list[Line] = []
    for users in options.users:
        for policy in options.policies:
            bar.set_postfix_str(f"{users} users, {policy}")
            lane = LANE_OF[policy]
            answers, _ = await drive(client, model, requests, users, lane, bar.update, k=k)
            told = predicted_times(calibration, which[SCENARIO_OF[policy]], answers, users)
            lines += compare(policy, users, told, measured_times(answers))
    bar.close()
    return lines


def report(lines: Sequence[Line], tolerance: float) -> int:
    """Print the table; return 1 if a line is outside the tolerance."""
    print("predicted/measured in ms, and the error")
    heads = "".join(f"{f'{m} p{p}':>25}" for m in METRICS for p in PERCENTILES)
    print(f"{'policy':13}users{heads}")
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.policy, line.users), []).append(line)
    for (policy, users), group in groups.items():
        cells = (
            f"{line.predicted * 1e3:9.1f}/{line.measured * 1e3:.1f}".rjust(18)
            + f"{line.error:+6.0%}{'!' if abs(line.error) > tolerance else ' '}"
            for line in group
        )
        print(f"{policy:13}{users:5}{''.join(cells)}")
    errors = np.array([abs(line.error) for line in lines])
    outside = int((errors > tolerance).sum())
    print(
        f"{outside} of {len(lines)} predictions are off by more than {tolerance:.0%}; "
        f"median error {np.median(errors):.1%}, worst {errors.max():.1%}"
    )
    return int(outside > 0)


async def run(options: argparse.Namespace) -> int:
    """Calibrate, validate, print, and write what was asked for."""
    known, requests = split(options.requests, options)
    client = Client(options.url)
    try:
        calibration = await _calibration(known, options)
        lines = await validate(client, calibration, requests, options)
    finally:
        await client.close()
    if options.json:
        settings = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items()
        }
        facts = {
            "hardware": hardware(),
            "versions": versions(),
            "options": settings,
            "lines": [asdict(line) | {"error": line.error} for line in lines],
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.plot:
        draw(lines, options.plot)
    return report(lines, options.tolerance)


async def _calibration(known: Sequence[Ask], options: argparse.Namespace) -> Calibration:
    if options.calibration:
        return Calibration.load(options.calibration)
    prompts = [Prompt(ask.workload, ask.body("")) for ask in known]
    file = options.app or options.config
    limits = limits_of(load(file), has_gpu=has_gpu()) if file else Limits()
    out = options.save_calibration or Path("calibration.json")
    outcome = await calibrate(
        Options(
            options.url, out, prompts, depth="quick" if options.quick else "full", limits=limits
        )
    )
    for remark in outcome.remarks:
        print(f"note: {remark}", file=sys.stderr)
    return outcome.calibration


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the application")
    parser.add_argument("--app", type=Path, help="start this Serve YAML, and stop it at the end")
    parser.add_argument("--config", type=Path, help="the Serve YAML of the running application")
    parser.add_argument("--calibration", type=Path, help="what was measured before")
    parser.add_argument("--save-calibration", type=Path, help="keep the calibration here")
    parser.add_argument("--quick", action="store_true", help="calibrate quickly")
    parser.add_argument("--calibrate-with", type=int, default=48, help="prompts to calibrate with")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 8], help="concurrencies")
    parser.add_argument("--requests", type=int, default=48, help="requests at each concurrency")
    parser.add_argument("--warm-up", type=int, default=12, help="requests of each scenario before")
    parser.add_argument(
        "--policies", nargs="+", default=list(POLICIES), choices=POLICIES, help="scenarios"
    )
    parser.add_argument("--max-tokens", type=int, default=48, help="mean limit of answers")
    parser.add_argument("--seed", type=int, default=0, help="chooses the requests")
    parser.add_argument("--tolerance", type=float, default=0.15, help="largest error; 0.1 on GPUs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw them into this file")
    options = parser.parse_args(argv)
    try:
        with StartedApp(options.app, options.url) if options.app else nullcontext():
            return asyncio.run(run(options))
    except RayspecError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
