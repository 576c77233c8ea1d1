"""Kills a process of the speculative lane's engine under load, and says what that cost.

    serve run deployments/app.yaml                  # or any other with both lanes, on this machine
    python load_tests/kill_target.py --concurrency 8 --json kill.json

Greedy answers are streamed all the time, in the lanes that the router chooses. Only what was in
flight in that lane may fail, and only with an error that the application itself answered. Every
text is compared with the one that the same prompt gave before, in the plain lane; where one
differs, the log-probabilities of the place say whether a near tie explains it. Exits with 1 if
anything else was lost, a stream was cut without a word, or a text changed without explanation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.kill_draft import Change, Load, changes, common_options, connect  # noqa: E402
from load_tests.streaming import Client, Reply  # noqa: E402

LANE = "speculative"
ENGINE_PROCESSES = ("VLLM::Worker", "VLLM::EngineCore")
POLL_S = 0.5


def engine_pids() -> list[int]:
    """Return the engine processes of the speculative lane on this machine, workers first."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.info["cmdline"] or ())
            if "ServeReplica:" not in line or ":SpeculativeTarget" not in line:
                continue
            for child in process.children(recursive=True):
                title = " ".join(child.cmdline())
                rank = next((i for i, n in enumerate(ENGINE_PROCESSES) if n in title), None)
                if rank is not None:
                    found.append((rank, child.pid))
    return [pid for _, pid in sorted(found)]


async def serves_again(client: Client, killed: float, timeout: float) -> float | None:
    """Return after how many seconds the lane answers; None if it does not within `timeout`."""
    while time.perf_counter() - killed < timeout:
        reply = await client.stream(0, "on")
        if reply.error is None and reply.lane == LANE:
            return reply.times[-1] - killed
        await asyncio.sleep(POLL_S)
    return None


def summary(replies: Sequence[Reply], killed: float) -> dict[str, Any]:
    """Return what was lost: in flight in the killed lane, and anything else."""
    hit = [r for r in replies if r.lane == LANE and r.times[0] < killed <= r.times[-1] + POLL_S]
    failed = [reply for reply in replies if reply.error is not None]
    struck = [reply for reply in failed if reply.lane == LANE and reply.times[0] < killed]
    others = [reply for reply in failed if reply not in struck]
    after = [reply for reply in replies if reply.times[0] >= killed]
    return {
        "requests": len(replies),
        "in_flight_in_the_lane": len(hit),
        "of_these_failed": len(struck),
        "after_the_kill": len(after),
        "lost_otherwise": len(others),
        "cut_without_an_error": sum(not reply.told for reply in failed),
        "errors": sorted({str(reply.error)[:300] for reply in failed}),
    }


async def run(options: argparse.Namespace) -> int:
    """Run the drill, print the report, and return 1 if more was lost than may be."""
    client, reference = await connect(options)
    pids = [options.pid] if options.pid else engine_pids()
    if not pids:
        sys.exit("no engine of the speculative lane on this machine: name a process with --pid")
    load = Load(client, options.concurrency, wish="auto")
    await asyncio.sleep(options.before)
    killed = time.perf_counter()
    psutil.Process(pids[0]).kill()
    print(f"killed {pids[0]}, one of {len(pids)} engine processes", file=sys.stderr)
    await asyncio.sleep(options.after)
    await load.stop()
    again = await serves_again(client, killed, options.timeout) if options.timeout else None
    facts = summary(load.replies, killed) | {"serves_again_s": again}
    changed = await changes(client, load.replies, reference)
    await client.close()
    return report(facts, changed, options)


def report(facts: dict[str, Any], changed: Sequence[Change], options: argparse.Namespace) -> int:
    """Print what the kill cost; return 1 if more was lost than may be."""
    wrong = [change for change in changed if change.margin > options.margin]
    facts |= {"changed": [asdict(change) for change in changed], "unexplained": len(wrong)}
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):24} {value}")
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return int(bool(facts["lost_otherwise"] or facts["cut_without_an_error"] or wrong))


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = common_options(__doc__)
    parser.add_argument("--before", type=float, default=10, help="seconds of load before the kill")
    parser.add_argument("--after", type=float, default=20, help="seconds of load after it")
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds for the lane to serve again; 0: no wait"
    )
    parser.add_argument("--pid", type=int, help="the process to kill, instead of a worker")
    return asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
