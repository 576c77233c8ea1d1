"""Kills the draft of a running application under load, and says what that cost.

    serve run deployments/app.yaml                  # or any other with a draft, on this machine
    python load_tests/kill_draft.py --concurrency 4 --json kill.json

Greedy answers are streamed all the time. Every text is compared with the one that the same prompt
gave before anything was killed, in the plain lane if there is one. Where a text differs, the
log-probabilities of the place say whether a near tie explains it. Exits with 1 if a request was
lost or a text changed without explanation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.divergence import margin  # noqa: E402
from load_tests.streaming import Client, Reply  # noqa: E402
from rayspec.audit.lossless import NEAR_TIE  # noqa: E402

PROMPTS = ROOT / "tests" / "data" / "prompts.jsonl"
PHASES = ("before", "hit", "without", "after")
POLL_S = 0.2
# A step that waits for a dead draft does so within this many seconds of the kill.
STALL_S = 1.0


@dataclass(frozen=True)
class Drill:
    """When things happened, on the clock of `Reply.times`."""

    killed: float
    drafting: float


class Load:
    """`concurrency` streams at a time, until stopped; a stream that began is finished."""

    def __init__(self, client: Client, concurrency: int, wish: str = "on") -> None:
        self._client = client
        self._wish = wish
        self._stopping = False
        self._numbers: Iterator[int] = _cycle(len(client.prompts))
        self.replies: list[Reply] = []
        self._tasks = [asyncio.create_task(self._worker()) for _ in range(concurrency)]

    async def _worker(self) -> None:
        while not self._stopping:
            self.replies.append(await self._client.stream(next(self._numbers), self._wish))

    async def stop(self) -> None:
        """Let the streams that have begun finish, and begin no other."""
        self._stopping = True
        await asyncio.gather(*self._tasks)


def _cycle(count: int) -> Iterator[int]:
    while True:
        yield from range(count)


def draft_pids() -> list[int]:
    """Return the processes of draft replicas on this machine, by their Ray Serve names."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if any("ServeReplica:" in p and ":Draft" in p for p in process.info["cmdline"] or ()):
                found.append(process.pid)
    return sorted(found)


async def drill(client: Client, load: Load, options: argparse.Namespace) -> Drill:
    """Kill the draft under `load` and wait until the lane drafts again."""
    await asyncio.sleep(options.before)
    pids = [options.pid] if options.pid else draft_pids()
    if not pids:
        sys.exit("no draft process on this machine: name one with --pid")
    attaches = await client.metric("rayspec_link_attaches_total")
    killed = time.perf_counter()
    psutil.Process(pids[0]).kill()
    print(f"killed {pids[0]}, one of {len(pids)} drafts", file=sys.stderr)

    async def until(condition: Callable[[float], bool], name: str) -> float:
        while time.perf_counter() - killed < options.timeout:
            value = await client.metric(name)
            if condition(value):
                return value
            await asyncio.sleep(POLL_S)
        sys.exit(f"the lane does not draft again after {options.timeout} s")

    await until(lambda value: value > attaches, "rayspec_link_attaches_total")
    drafted = await client.metric("rayspec_position_drafted_tokens_total")
    await until(lambda value: value > drafted, "rayspec_position_drafted_tokens_total")
    drafting = time.perf_counter()
    await asyncio.sleep(options.after)
    return Drill(killed, drafting)


def phase(reply: Reply, drill: Drill) -> str:
    """Return in which of `PHASES` a reply was: hit are those that ran when the draft died."""
    if reply.times[-1] < drill.killed:
        return "before"
    if reply.times[0] < drill.killed:
        return "hit"
    return "without" if reply.times[0] < drill.drafting else "after"


def summarize(replies: Sequence[Reply], drill: Drill) -> dict[str, dict[str, Any]]:
    """Return, for each phase, how many requests it had and how fast they were."""
    table = {}
    for name in PHASES:
        those = [reply for reply in replies if phase(reply, drill) == name]
        speeds = [tpot for reply in those if (tpot := reply.tpot_ms) is not None]
        table[name] = {
            "requests": len(those),
            "lost": sum(reply.error is not None for reply in those),
            "tpot_median_ms": statistics.median(speeds) if speeds else None,
            "tpot_worst_ms": max(speeds, default=None),
            "gap_worst_ms": max((reply.worst_gap_ms for reply in those), default=None),
        }
    return table


def stalls_ms(replies: Sequence[Reply], drill: Drill) -> list[float]:
    """Return the longest time between chunks of each stream right after the kill."""
    first, last = drill.killed, drill.killed + STALL_S
    stalls = []
    for reply in replies:
        chunks = reply.times[1:]
        gaps = [b - a for a, b in itertools.pairwise(chunks) if a < last and b > first]
        if gaps and phase(reply, drill) == "hit":
            stalls.append(max(gaps) * 1e3)
    return stalls


@dataclass(frozen=True)
class Change:
    """A text that is not the reference; `margin` is 0 or a near tie if that explains it."""

    prompt: int
    margin: float
    texts: int


async def changes(
    client: Client, replies: Sequence[Reply], reference: Sequence[Reply]
) -> list[Change]:
    """Return the prompts whose texts differ from the reference, with what explains them."""
    found = []
    for before in reference:
        told = {r.text for r in replies if r.prompt == before.prompt and r.error is None}
        different = told - {before.text}
        if different:
            tokens = await client.logprobs(before.prompt)
            margins = [margin(tokens, text) for text in (before.text, *different)]
            found.append(Change(before.prompt, max(margins), len(different)))
    return found


async def connect(options: argparse.Namespace) -> tuple[Client, list[Reply]]:
    """Return a client of the application, and its answers while nothing disturbs it."""
    rows = [json.loads(line)["prompt"] for line in options.prompts.read_text().splitlines()]
    client = Client(options.url, rows[: options.limit], options.max_tokens)
    await client.open()
    gate = asyncio.Semaphore(options.concurrency)

    async def undisturbed(prompt: int) -> Reply:
        async with gate:
            return await client.stream(prompt, client.reference_wish)

    numbers = range(len(client.prompts))
    reference = await asyncio.gather(*(undisturbed(number) for number in numbers))
    if failed := [reply.error for reply in reference if reply.error]:
        sys.exit(f"the application does not answer: {failed[0]}")
    return client, reference


async def run(options: argparse.Namespace) -> int:
    """Run the drill, print the report, and return 1 if anything was lost or wrong."""
    client, reference = await connect(options)
    load = Load(client, options.concurrency)
    result = await drill(client, load, options)
    await load.stop()
    changed = await changes(client, load.replies, reference)
    await client.close()
    return report(load.replies, result, changed, options)


def report(
    replies: Sequence[Reply], drill: Drill, changed: Sequence[Change], options: argparse.Namespace
) -> int:
    """Print what the kill cost; return 1 if anything was lost or wrong."""
    table = summarize(replies, drill)
    errors = [reply.error for reply in replies if reply.error]
    wrong = [change for change in changed if change.margin > options.margin]
    again = drill.drafting - drill.killed
    print("phase    requests  lost  TPOT median  TPOT worst  worst gap (ms)")
    for name, row in table.items():
        cells = (row["tpot_median_ms"], row["tpot_worst_ms"], row["gap_worst_ms"])
        shown = [f"{cell:11.1f}" if cell is not None else " " * 10 + "-" for cell in cells]
        print(f"{name:8} {row['requests']:8}  {row['lost']:4}  {shown[0]} {shown[1]} {shown[2]}")
    stalls = stalls_ms(replies, drill) or [0.0]
    print(
        f"longest pause of a stream within {STALL_S:g} s of the kill: median "
        f"{statistics.median(stalls):.1f} ms, worst {max(stalls):.1f} ms"
    )
    print(
        f"concurrency {options.concurrency}: drafting again {again:.1f} s after the kill; "
        f"{len(replies)} requests, {len(errors)} lost, {len(changed)} prompts with another text, "
        f"{len(wrong)} of them not explained by a margin of {options.margin} nats"
    )
    for error in errors[:5]:
        print(f"lost: {error}")
    for change in wrong:
        print(f"prompt {change.prompt} differs by {change.margin:.3f} nats")
    if options.json:
        facts = {
            "concurrency": options.concurrency,
            "max_tokens": options.max_tokens,
            "drafting_again_s": again,
            "pause_median_ms": statistics.median(stalls),
            "pause_worst_ms": max(stalls),
            "requests": len(replies),
            "lost": len(errors),
            "changed": [asdict(change) for change in changed],
            "unexplained": len(wrong),
            "phases": table,
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return int(bool(errors or wrong))


def common_options(description: str) -> argparse.ArgumentParser:
    """Return the command line of a drill: the load, and what explains another text."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the application")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="JSONL with prompts")
    parser.add_argument("--limit", type=int, default=12, help="use the first prompts only")
    parser.add_argument("--concurrency", type=int, default=4, help="streams at a time")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest answer in tokens")
    parser.add_argument("--margin", type=float, default=NEAR_TIE, help="nats that rounding decides")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = common_options(__doc__)
    parser.add_argument("--before", type=float, default=20, help="seconds of load before the kill")
    parser.add_argument("--after", type=float, default=20, help="seconds of load with a new draft")
    parser.add_argument("--timeout", type=float, default=300, help="seconds to draft again")
    parser.add_argument("--pid", type=int, help="the process to kill, instead of the first draft")
    return asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
