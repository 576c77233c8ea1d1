"""Proves that routing never loses: routed, always on and always plain, step by step of load.

    serve run deployments/app.yaml                  # or any other with both lanes
    python load_tests/staircase.py --json staircase.json --plot staircase.png

At each step the three policies answer the same requests of all classes, one after another, in
another order every round; figures are medians over the rounds, and so are the ratios of each round,
which are shown with their extremes. Always on makes all the drafts that the application is
configured for; routed, the router chooses their number too. Exits with 1 if at any step the routed
throughput or mean latency is worse than `--floor` of the better of the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.closed_loop import (  # noqa: E402
    LANE_OF,
    POLICIES,
    Answer,
    asks,
    drive,
    mean_latency,
    throughput,
)
from rayspec.errors import RayspecError  # noqa: E402
from rayspec.planning.calibrate_client import Client, most_drafts  # noqa: E402
from rayspec.planning.calibrate_machine import hardware, versions  # noqa: E402

ROUTED, *OTHERS = POLICIES


@dataclass(frozen=True)
class Step:
    """A load, and what each policy reached at it, round by round.

    The policies of a round answer the same requests one after another, so they are compared within
    their round: what a machine does over minutes is in all of them.
    """

    users: int
    tokens_per_s: Mapping[str, Sequence[float]]
    latency_s: Mapping[str, Sequence[float]]
    speculative_share: float

    @property
    def throughputs(self) -> list[float]:
        """Routed ÷ the better of the others, the one with the higher median, in each round."""
        better = max(OTHERS, key=lambda name: statistics.median(self.tokens_per_s[name]))
        pairs = zip(self.tokens_per_s[ROUTED], self.tokens_per_s[better], strict=True)
        return [routed / other for routed, other in pairs]

    @property
    def latencies(self) -> list[float]:
        """The better of the others ÷ routed: as the other ratios, more than 1 is better."""
        better = min(OTHERS, key=lambda name: statistics.median(self.latency_s[name]))
        pairs = zip(self.latency_s[ROUTED], self.latency_s[better], strict=True)
        return [other / routed for routed, other in pairs]

    @property
    def worst(self) -> float:
        """The ratio that decides: the lower of the two medians over the rounds."""
        return min(statistics.median(self.throughputs), statistics.median(self.latencies))


def order(number: int) -> list[str]:
    """Return the policies in the order of a round: each is first, second and last in turn."""
    turn = number % len(POLICIES)
    return [*POLICIES[turn:], *POLICIES[:turn]]


def summarize(users: int, rounds: Mapping[str, Sequence[tuple[Sequence[Answer], float]]]) -> Step:
    """Return the step that the rounds of each policy gave."""
    routed = [answer for answers, _ in rounds[ROUTED] for answer in answers]
    return Step(
        users,
        {name: [throughput(*done) for done in each] for name, each in rounds.items()},
        {name: [mean_latency(answers) for answers, _ in each] for name, each in rounds.items()},
        sum(answer.lane == "speculative" for answer in routed) / len(routed),
    )


async def climb(client: Client, model: str, options: argparse.Namespace) -> list[Step]:
    """Measure every step."""
    k = most_drafts(await client.metrics())
    counts = {users: max(options.requests, 2 * users) for users in options.users}
    runs = options.rounds * len(POLICIES)
    bar = tqdm(total=options.warm_up + runs * sum(counts.values()), unit="answer")
    # The router measures acceptance and step times while it works: first what any service has seen.
    known = asks(options.warm_up, seed=options.seed, max_tokens=options.max_tokens)
    for lane in (None, *(LANE_OF[name] for name in OTHERS)):
        share = known[: options.warm_up // len(POLICIES)]
        await drive(client, model, share, max(options.users) // 2 or 1, lane, bar.update, k=k)
    bar.update(options.warm_up - len(POLICIES) * (options.warm_up // len(POLICIES)))
    steps = []
    for users, count in counts.items():
        done: dict[str, list[tuple[list[Answer], float]]] = {name: [] for name in POLICIES}
        for number in range(options.rounds):
            seed = options.seed + 1 + number
            requests = asks(count, seed=seed, max_tokens=options.max_tokens)
            for name in order(number):
                bar.set_postfix_str(f"{users} users, {name}")
                result = await drive(client, model, requests, users, LANE_OF[name], bar.update, k=k)
                done[name].append(result)
        steps.append(summarize(users, done))
    bar.close()
    return steps


def report(steps: Sequence[Step], floor: float) -> int:
    """Print the table; return 1 if a step is under the floor."""
    heads = ("tokens per second", "mean latency (s)", "routed ÷ better (each round)")
    print(" " * 6 + "".join(f"{head:^40}" for head in heads))
    names = "".join(f"{name:>13}" for name in POLICIES)
    print(f"users {names}{names}{'tokens':>20}{'latency':>20}  speculated")
    for step in steps:
        rates = "".join(f"{statistics.median(step.tokens_per_s[name]):13.1f}" for name in POLICIES)
        waits = "".join(f"{statistics.median(step.latency_s[name]):13.2f}" for name in POLICIES)
        ratios = "".join(f"{_spread(each):>20}" for each in (step.throughputs, step.latencies))
        print(f"{step.users:5} {rates}{waits}{ratios} {step.speculative_share:11.0%}")
    under = [step for step in steps if step.worst < floor]
    for step in under:
        print(f"{step.users} users: routed reaches {step.worst:.3f}, less than {floor}")
    if not under:
        print(f"routed reaches at least {min(step.worst for step in steps):.3f} of the better one")
    return int(bool(under))


def _spread(ratios: Sequence[float]) -> str:
    """Return the median with the extremes."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f}-{max(ratios):.2f})"


def draw(steps: Sequence[Step], path: Path) -> None:
    """Draw throughput and mean latency over the users."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    users = [step.users for step in steps]
    styles = {"routed": "o-", "always on": "s--", "always plain": "^:"}
    for name in POLICIES:
        rates = [statistics.median(step.tokens_per_s[name]) for step in steps]
        waits = [statistics.median(step.latency_s[name]) for step in steps]
        left.plot(users, rates, styles[name], label=name)
        right.plot(users, waits, styles[name], label=name)
    left.set_ylabel("tokens per second")
    right.set_ylabel("mean latency (s)")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(users, [str(number) for number in users])
        axes.set_xlabel("users who wait for their answers")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    left.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


async def run(options: argparse.Namespace) -> int:
    """Measure, print, write what was asked for."""
    client = Client(options.url)
    try:
        lanes = await client.lanes()
        missing = [name for name in ("speculative", "plain") if not lanes.get(name)]
        if missing:
            sys.exit(f"the application has no {missing[0]} lane: nothing to compare")
        steps = await climb(client, await client.model(), options)
    except RayspecError as error:
        sys.exit(str(error))
    finally:
        await client.close()
    if options.json:
        settings = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items()
        }
        facts: dict[str, Any] = {
            "hardware": hardware(),
            "versions": versions(),
            "options": settings,
            "steps": [
                asdict(step)
                | {"throughput_ratios": step.throughputs, "latency_ratios": step.latencies}
                for step in steps
            ],
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.plot:
        draw(steps, options.plot)
    return report(steps, options.floor)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the application")
    parser.add_argument(
        "--users", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="the steps; add 32 on GPUs"
    )
    parser.add_argument("--requests", type=int, default=18, help="fewest requests a step and round")
    parser.add_argument("--rounds", type=int, default=3, help="times that a step is measured")
    parser.add_argument("--max-tokens", type=int, default=48, help="mean limit of answers")
    parser.add_argument("--warm-up", type=int, default=48, help="requests before the first step")
    parser.add_argument("--seed", type=int, default=0, help="chooses the requests")
    parser.add_argument("--floor", type=float, default=0.97, help="least routed ÷ better")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw them into this file")
    return asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
