"""Counts streamed answers that arrive late: all at once at their end, or with a hole in them.

    make serve
    python load_tests/stalls.py --users 2 --requests 96 --busy 1 --json stalls.json

A stream counts as *stalled* when its third event with text comes after 0.7 of the time of the whole
answer, and as *broken* when two of its events lie further apart than half of that time. `--busy`
processes compute beside it meanwhile, as anything else on the machine may: where what serves has a
lower priority than they (`rayspec.priority`), both happen. The router chooses the lanes unless
`--speculation on off` forces each in turns. Exits with 1 if a stream stalled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.closed_loop import Ask, asks  # noqa: E402

LATE = 0.7
"""Share of an answer's time by which a flowing one has brought its third event."""
HOLE = 0.5
"""Share of an answer's time that no two events of a flowing one lie apart."""
WISHES = ("on", "off", "auto")
PROMPTS = 96  # different ones; then they come again
MIN_EVENTS = 8  # a shorter answer says nothing


@dataclass(slots=True)
class Stream:
    """When the parts of one answer came: seconds after it was asked for."""

    sent_at: float  # by the wall clock, to find it in logs
    request_id: str
    lane: str = ""
    headers: float = 0.0
    events: list[float] = field(default_factory=list)
    ended: float = 0.0

    @property
    def telling(self) -> bool:
        """Whether it is long enough to tell."""
        return len(self.events) >= MIN_EVENTS

    @property
    def stalled(self) -> bool:
        """Whether it came all at once at its end."""
        return self.telling and self.events[2] > LATE * self.ended

    @property
    def gap(self) -> float:
        """Longest time between two events."""
        return max(b - a for a, b in zip(self.events, self.events[1:], strict=False))

    @property
    def broken(self) -> bool:
        """Whether there is a hole in its middle."""
        return self.telling and self.gap > HOLE * self.ended


async def one(http: httpx.AsyncClient, model: str, ask: Ask, wish: str) -> Stream:
    """Stream one answer and note the times of its parts as they leave the socket."""
    body = ask.body(model) | {"stream": True, "rayspec": {"speculation": wish}}
    started = time.perf_counter()
    stream = Stream(time.time(), f"stalls-{uuid4().hex}")
    headers = {"x-request-id": stream.request_id}
    path = "/v1/chat/completions"
    async with http.stream("POST", path, json=body, headers=headers) as response:
        response.raise_for_status()
        stream.headers = time.perf_counter() - started
        stream.lane = response.headers.get("x-rayspec-lane", "")
        async for chunk in response.aiter_raw():
            stream.events += [time.perf_counter() - started] * chunk.count(b'"content":')
    stream.ended = time.perf_counter() - started
    return stream


@contextlib.contextmanager
def others(count: int) -> Iterator[None]:
    """Let so many processes compute without pause."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


async def measure(options: argparse.Namespace) -> list[Stream]:
    """Let the users ask; return what they met."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=options.url, timeout=600, limits=limits) as http:
        model = (await http.get("/v1/models")).raise_for_status().json()["data"][0]["id"]
        streams: list[Stream] = []
        prompts = asks(PROMPTS, seed=options.seed, max_tokens=options.max_tokens)
        left = iter(range(options.requests))
        bar = tqdm(total=options.requests, unit="answer", disable=None)

        async def user() -> None:
            for number in left:
                wish = options.speculation[number % len(options.speculation)]
                streams.append(await one(http, model, prompts[number % PROMPTS], wish))
                bar.update()

        async with asyncio.TaskGroup() as group:
            for _ in range(options.users):
                group.create_task(user())
        bar.close()
    return streams


def report(streams: Sequence[Stream], options: argparse.Namespace) -> int:
    """Print how many stalled; return 1 if any did."""
    told = [stream for stream in streams if stream.telling]
    print("lane          streams  stalled  broken  first event p50/p95 ms  longest gap p50/p95 ms")
    for lane in sorted({stream.lane for stream in told}):
        mine = [stream for stream in told if stream.lane == lane]
        first = _quantiles([stream.events[0] for stream in mine])
        gap = _quantiles([stream.gap for stream in mine])
        print(
            f"{lane:13} {len(mine):7}  {sum(s.stalled for s in mine):7}  "
            f"{sum(s.broken for s in mine):6}  {first:>22}  {gap:>23}"
        )
    for stream in told:
        if stream.stalled or stream.broken:
            print(
                f"{stream.request_id} {stream.lane}: headers {stream.headers * 1e3:.0f} ms, events "
                f"{', '.join(f'{at * 1e3:.0f}' for at in stream.events[:4])} … "
                f"{stream.events[-1] * 1e3:.0f}, longest gap {stream.gap * 1e3:.0f}"
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(stream) for stream in streams]) + "\n")
    return int(any(stream.stalled for stream in told))


def _quantiles(values: Sequence[float]) -> str:
    ordered = sorted(values)
    high = ordered[min(round(0.95 * len(ordered)), len(ordered) - 1)]
    return f"{statistics.median(ordered) * 1e3:.0f} / {high * 1e3:.0f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the application")
    parser.add_argument("--users", type=int, default=2, help="streams at a time")
    parser.add_argument("--requests", type=int, default=96, help="streams in all")
    parser.add_argument("--max-tokens", type=int, default=32, help="tokens of a typical answer")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and lengths")
    parser.add_argument(
        "--speculation", nargs="+", default=["auto"], choices=WISHES, help="wishes, in turns"
    )
    parser.add_argument("--json", type=Path, help="write the times of every stream to this file")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    options = parser.parse_args(argv)
    with others(options.busy):
        streams = asyncio.run(measure(options))
    return report(streams, options)


if __name__ == "__main__":
    sys.exit(main())
