"""Counts per step of the load, class and lane, in the form in which workers report them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from load_tests.traffic.answer import Answer
from load_tests.traffic.histogram import Histogram

__all__ = ["Cell", "Key", "Slo", "Tally"]

Key = tuple[int, str, str]
"""Step, class, lane."""

TIMES = ("ttft_ms", "tpot_ms", "e2e_ms", "gap_ms")
COUNTS = ("requests", "failures", "crossed", "good", "tokens", "arrived")
FACTS = ("prompt_tokens", "drafted", "accepted")


@dataclass(frozen=True, slots=True)
class Slo:
    """What a good answer takes at most, in ms; 0 is no limit."""

    ttft_ms: float = 0.0
    tpot_ms: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.ttft_ms or self.tpot_ms)

    def met(self, answer: Answer) -> bool:
        """Whether a whole answer was good."""
        return _within(answer.ttft_ms, self.ttft_ms) and _within(answer.tpot_ms, self.tpot_ms)


def _within(value: float | None, limit: float) -> bool:
    return not limit or value is None or value <= limit


@dataclass(slots=True)
class Cell:
    """What became of the requests of one step, class and lane.

    `requests` were answered, `failures` were not, `crossed` of both ended in a later step. `tokens`
    are those of the answers, `arrived` those that came while the step lasted.
    """

    counts: Counter[str] = field(default_factory=Counter)
    times: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram() for name in TIMES}
    )
    reasons: Counter[str] = field(default_factory=Counter)
    recognised: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Answer, slo: Slo, crossed: bool) -> None:
        """Count an answer that has ended."""
        self.reasons[answer.reason] += 1
        self.counts["crossed"] += crossed
        if answer.error is not None:
            self.counts["failures"] += 1
            self.errors[answer.error] += 1
            return
        self.recognised[answer.recognised] += 1
        self.counts["requests"] += 1
        self.counts["good"] += slo.met(answer)
        self.counts["tokens"] += answer.output_tokens or answer.tokens
        for name in FACTS:
            self.counts[name] += getattr(answer, name)
        for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
            if (value := getattr(answer, name)) is not None:
                self.times[name].add(value)
        for gap in answer.gaps:
            self.times["gap_ms"].add(gap)

    def merge(self, other: Cell) -> None:
        """Count what `other` counted."""
        for mine, theirs in zip(self._counters(), other._counters(), strict=True):
            mine.update(theirs)
        for name, histogram in self.times.items():
            histogram.merge(other.times[name])

    def _counters(self) -> Iterable[Counter[str]]:
        return self.counts, self.reasons, self.recognised, self.errors

    def pack(self) -> list[Any]:
        """Return it in values that Locust's messages carry."""
        return [
            [dict(counter) for counter in self._counters()],
            [self.times[name].pack() for name in TIMES],
        ]

    @classmethod
    def unpack(cls, packed: list[Any]) -> Cell:
        """Return what `pack` was asked of."""
        counters, times = packed
        histograms = dict(zip(TIMES, map(Histogram.unpack, times), strict=True))
        counts, reasons, recognised, errors = (Counter[str](counter) for counter in counters)
        return cls(counts, histograms, reasons, recognised, errors)


class Tally:
    """All cells, and which texts the greedy requests were answered with."""

    def __init__(self) -> None:
        self.cells: defaultdict[Key, Cell] = defaultdict(Cell)
        self.texts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def merge(self, other: Tally) -> None:
        """Count what `other` counted."""
        for key, cell in other.cells.items():
            self.cells[key].merge(cell)
        for prompt, texts in other.texts.items():
            self.texts[prompt].update(texts)

    def wrong(self) -> int:
        """Return how many greedy answers differ from what most answers to the same prompt were."""
        return sum(texts.total() - max(texts.values()) for texts in self.texts.values())

    def repeated(self) -> int:
        """Return how many greedy answers had an earlier one to be compared with."""
        return sum(texts.total() - 1 for texts in self.texts.values())

    def pack(self) -> dict[str, Any]:
        """Return it in values that Locust's messages carry."""
        return {
            "cells": [[*key, cell.pack()] for key, cell in self.cells.items()],
            "texts": {prompt: dict(texts) for prompt, texts in self.texts.items()},
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Tally:
        """Return what `pack` was asked of."""
        tally = cls()
        for step, workload, lane, cell in packed["cells"]:
            tally.cells[step, workload, lane] = Cell.unpack(cell)
        for prompt, texts in packed["texts"].items():
            tally.texts[prompt] = Counter(texts)
        return tally
