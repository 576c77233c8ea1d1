"""How well and how fast the classifier tells workload classes apart.

    python load_tests/bench_classify.py
    python load_tests/bench_classify.py --errors dev      # and what it got wrong there

Prints precision, recall and F1 per class and the confusion matrix of both splits of
tests/data/classified.jsonl, then microseconds per request: each is timed `--rounds` times and
counts with its median, so that a busy machine's pauses do not; the last lines are prompts and
conversations of megabytes. Only `dev` may be looked at while tuning: `test` tells what is reached
on requests that nobody tuned for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from rayspec.ingress.classify import BUILTIN_CLASSES, classify  # noqa: E402

DATA = ROOT / "tests" / "data" / "classified.jsonl"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A request, the class that a person gave it, and the split that it belongs to."""

    id: str
    split: str
    label: str
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scores:
    """How one class fared; `support` requests have it as their label."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often a label was called what."""

    counts: dict[tuple[str, str], int]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Confusion:
        """Count pairs of a label and what the classifier said."""
        return cls(dict(Counter(pairs)))

    @property
    def accuracy(self) -> float:
        """The share of all requests that got their label."""
        right = sum(n for (label, name), n in self.counts.items() if label == name)
        return right / sum(self.counts.values())

    def scores(self, name: str) -> Scores:
        """Return precision, recall and F1 of a class; 0 where there is nothing to divide by."""
        right = self.counts.get((name, name), 0)
        support = sum(n for (label, _), n in self.counts.items() if label == name)
        called = sum(n for (_, said), n in self.counts.items() if said == name)
        both = support + called
        return Scores(
            precision=right / called if called else 0.0,
            recall=right / support if support else 0.0,
            f1=2 * right / both if both else 0.0,
            support=support,
        )


def read_labelled(file: Path = DATA) -> list[Labelled]:
    """Return every labelled request."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Labelled(**json.loads(line)) for line in lines]


def confusion(requests: Iterable[Labelled]) -> Confusion:
    """Classify `requests` and compare with their labels."""
    return Confusion.of((each.label, classify(each.request, {}).name) for each in requests)


def table(found: Confusion) -> str:
    """Lay out scores and confusion matrix: a row per label, a column per answer."""
    names = BUILTIN_CLASSES
    width = max(map(len, names))
    head = f"{'label':{width}}  precision  recall     F1    n | called " + " ".join(
        f"{name[:6]:>6}" for name in names
    )
    rows = [head]
    for label in names:
        scores = found.scores(label)
        cells = " ".join(f"{found.counts.get((label, name), 0) or '.':>6}" for name in names)
        rows.append(
            f"{label:{width}}  {scores.precision:9.3f}  {scores.recall:6.3f}  {scores.f1:5.3f}"
            f" {scores.support:4} |        {cells}"
        )
    macro = statistics.fmean(found.scores(name).f1 for name in names)
    total = sum(found.counts.values())
    rows.append(f"accuracy {found.accuracy:.3f}, macro F1 {macro:.3f}, {total} requests")
    return "\n".join(rows)


def microseconds(request: dict[str, Any], rounds: int) -> float:
    """Return the median cost of classifying `request`."""
    costs = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        classify(request, {})
        costs.append(time.perf_counter_ns() - started)
    return statistics.median(costs) / 1e3


def huge() -> dict[str, dict[str, Any]]:
    """Return requests whose size, or whose characters, are made to cost the most."""

    def say(text: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}]}

    turn = [{"role": "user", "content": "so"}, {"role": "assistant", "content": "and " * 60}]
    return {
        "5 MB of prose": say("The ferry leaves at nine. " * 200_000),
        "5 MB of one letter": say("x" * 5_000_000),
        "2 MB of Chinese": say("漢字" * 350_000),
        "2 MB of brackets": say("{;a.b(" * 350_000),
        "2 MB of capitals and underscores": say("aB_c " * 400_000),
        "1 MB of single accented letters, in system text too": {
            "messages": [
                {"role": "system", "content": "ü " * 500_000},
                {"role": "user", "content": "é ab ; " * 100_000},
                {"role": "assistant", "content": "so"},
                {"role": "user", "content": "ü ab { " * 100_000},
            ]
        },
        "1 MB of line breaks": say("\n" * 1_000_000),
        "20 000 turns": {"messages": turn * 10_000},
        "500 parts": {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a part " * 99}] * 500}
            ]
        },
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=51, help="timings per request")
    parser.add_argument("--errors", choices=["dev", "test"], help="list wrong answers of a split")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    requests = read_labelled()
    for split in ("dev", "test"):
        chosen = [each for each in requests if each.split == split]
        print(f"{split}\n{table(confusion(chosen))}\n")
        for each in chosen if options.errors == split else ():
            found = classify(each.request, {})
            if found.name != each.label:
                print(f"  {each.id}: {found.name} ({found.why})")
    costs = {each.id: microseconds(each.request, options.rounds) for each in requests}
    ordered = sorted(costs.values())
    slowest = max(costs, key=lambda name: costs[name])
    print(
        f"µs per request: median {statistics.median(ordered):.1f}, "
        f"p99 {ordered[len(ordered) * 99 // 100]:.1f}, longest {ordered[-1]:.1f} ({slowest})"
    )
    for name, request in huge().items():
        print(f"  {name}: {microseconds(request, options.rounds):.1f} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
