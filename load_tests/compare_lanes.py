"""Asks both lanes of a running application the same: is the text equal, and how much sooner.

    python load_tests/compare_lanes.py --concurrency 1 --rounds 3

Greedy answers are compared character by character. The lanes take turns within one run, and the
ratio is that of the medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import openai
from tqdm import tqdm

PROMPTS = Path(__file__).resolve().parents[1] / "tests" / "data" / "prompts.jsonl"
LANES = {"speculative": "on", "plain": "off"}


@dataclass(frozen=True)
class Answer:
    """One answer: its text, its output tokens, and the draft tokens behind it."""

    text: str
    tokens: int
    drafted: int
    accepted: int


async def ask(
    client: openai.AsyncOpenAI, model: str, prompt: str, lane: str, max_tokens: int
) -> Answer:
    """Return the greedy answer of `lane`; fails if another lane gave it."""
    raw = await client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=max_tokens,
        extra_body={"rayspec": {"speculation": LANES[lane]}},
    )
    if raw.headers["x-rayspec-lane"] != lane:
        sys.exit(f"the {lane} lane did not answer: {raw.headers['x-rayspec-reason']}")
    answer = raw.parse()
    metrics = (answer.model_extra or {}).get("metrics") or {}
    spec = metrics.get("speculative_decoding") or {}
    return Answer(
        text=answer.choices[0].message.content or "",
        tokens=answer.usage.completion_tokens if answer.usage else 0,
        drafted=spec.get("num_draft_tokens", 0),
        accepted=spec.get("num_accepted_draft_tokens", 0),
    )


async def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 1 if any pair of texts differs."""
    rows = [json.loads(line) for line in options.prompts.read_text().splitlines()]
    rows = rows[: options.limit]
    client = openai.AsyncOpenAI(base_url=f"{options.url}/v1", api_key="none", timeout=600)
    model = (await client.models.list()).data[0].id
    gate = asyncio.Semaphore(options.concurrency)
    seconds: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[Answer]] = {}
    bar = tqdm(total=len(rows) * len(LANES) * options.rounds, unit="answer")

    async def one(prompt: str, lane: str) -> Answer:
        async with gate:
            answer = await ask(client, model, prompt, lane, options.max_tokens)
            bar.update()
            return answer

    for _ in range(options.rounds):
        for lane in LANES:
            started = time.perf_counter()
            answers[lane] = await asyncio.gather(*(one(row["prompt"], lane) for row in rows))
            seconds[lane].append(time.perf_counter() - started)
    bar.close()
    return report(rows, answers, seconds, options)


def report(
    rows: list[dict[str, str]],
    answers: dict[str, list[Answer]],
    seconds: dict[str, list[float]],
    options: argparse.Namespace,
) -> int:
    """Print the comparison; return 1 if any pair of texts differs."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row, ours, plain in zip(rows, answers["speculative"], answers["plain"], strict=True):
        for name in (row["class"], "all"):
            total = totals[name]
            total[0] += 1
            total[1] += ours.text == plain.text
            total[2] += ours.drafted
            total[3] += ours.accepted
    print("class         prompts  equal  drafted  accepted")
    for name, (prompts, equal, drafted, accepted) in totals.items():
        share = f"{accepted / drafted:8.0%}" if drafted else "       -"
        print(f"{name:13} {prompts:7}  {equal:5}  {drafted:7}  {share}")
    rate = {
        lane: sum(answer.tokens for answer in answers[lane]) / statistics.median(seconds[lane])
        for lane in LANES
    }
    print(
        f"concurrency {options.concurrency}: speculative/plain "
        f"{rate['speculative'] / rate['plain']:.2f}, tokens per second "
        f"{rate['speculative']:.1f} and {rate['plain']:.1f} "
        f"(medians of {options.rounds} rounds)"
    )
    return int(totals["all"][0] != totals["all"][1])


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the application")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="JSONL of class and prompt")
    parser.add_argument("--limit", type=int, help="use the first prompts only")
    parser.add_argument("--concurrency", type=int, default=1, help="requests at a time")
    parser.add_argument("--max-tokens", type=int, default=64, help="longest answer in tokens")
    parser.add_argument("--rounds", type=int, default=1, help="times that each lane is measured")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
