"""Sets the results of runs side by side: what the report shows, as plain tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from load_tests.traffic.result import ALL

__all__ = ["ENOUGH", "FASTER", "Comparison", "Gain", "Run"]

FASTER = 1.05
"""Less than 5 % is told as no difference: steps of two runs differ by that without a cause."""

ENOUGH = 5
"""Medians of fewer answers are not compared."""


@dataclass(frozen=True, slots=True)
class Run:
    """A result under the name that it has in the report."""

    label: str
    result: Mapping[str, Any]

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The measured steps."""
        return [step for step in self.result["steps"] if not step["warm_up"]]

    def row(self, step: str, workload: str = ALL, lane: str = ALL) -> Mapping[str, Any] | None:
        """Return the figures of a step by its name, for a class and a lane."""
        for candidate in self.steps:
            if candidate["name"] == step:
                for row in candidate["rows"]:
                    if (row["class"], row["lane"]) == (workload, lane):
                        return dict(row)
        return None

    def value(self, step: str, figure: str, workload: str = ALL, lane: str = ALL) -> float | None:
        """Return one figure, such as `tokens_per_s` or `ttft_ms.p95`; None where there is none."""
        value: Any = self.row(step, workload, lane)
        for part in figure.split("."):
            value = None if value is None else value.get(part)
        return None if value is None else float(value)

    def speculated(self, step: str, workload: str = ALL) -> float | None:
        """Return the share of answers that came from the speculative lane."""
        everything = self.value(step, "requests", workload)
        if not everything:
            return None
        return (self.value(step, "requests", workload, "speculative") or 0) / everything


@dataclass(frozen=True, slots=True)
class Gain:
    """How a run compares with the baseline for a class at a step; more than 1 is better."""

    workload: str
    step: str
    latency: float | None
    tpot: float | None


class Comparison:
    """Runs with labels of their own, and the one that the others are compared with."""

    def __init__(self, results: Sequence[Mapping[str, Any]], baseline: str = "") -> None:
        if not results:
            raise ValueError("there is no result to report")
        self.runs = [Run(*pair) for pair in zip(_labels(results), results, strict=True)]
        labels = [run.label for run in self.runs]
        if baseline and baseline not in labels:
            raise ValueError(f"no run {baseline!r}: {', '.join(labels)}")
        self.baseline = next((run for run in self.runs if run.label == baseline), self.runs[-1])

    @property
    def others(self) -> list[Run]:
        """The runs that are compared with the baseline."""
        return [run for run in self.runs if run is not self.baseline]

    @property
    def steps(self) -> list[str]:
        """Names of the measured steps of all runs, in their order."""
        return list(dict.fromkeys(step["name"] for run in self.runs for step in run.steps))

    @property
    def classes(self) -> list[str]:
        """The workload classes of all runs."""
        rows = (row for run in self.runs for step in run.steps for row in step["rows"])
        return sorted({row["class"] for row in rows} - {ALL})

    @property
    def lanes(self) -> list[str]:
        """The lanes of all runs, `none` for requests that reached no lane."""
        rows = (row for run in self.runs for step in run.steps for row in step["rows"])
        return sorted({row["lane"] for row in rows} - {ALL}, reverse=True)

    def gain(self, run: Run, workload: str, step: str) -> Gain:
        """Return a class's gain at a step, from medians."""

        def ratio(figure: str) -> float | None:
            pair = (self.baseline, run)
            if any((r.value(step, f"{figure}.count", workload) or 0) < ENOUGH for r in pair):
                return None
            before, after = (r.value(step, f"{figure}.p50", workload) for r in pair)
            return before / after if before and after else None

        return Gain(workload, step, ratio("e2e_ms"), ratio("tpot_ms"))

    def gains(self, run: Run) -> Iterator[tuple[str, list[Gain]]]:
        """Yield each class, and all of them, with the gains of a run at every step."""
        for workload in (*self.classes, ALL):
            yield workload, [self.gain(run, workload, step) for step in self.steps]

    def sentences(self, run: Run) -> list[str]:
        """Say for each class where a run is faster per token than the baseline, and where not."""
        told = []
        for workload, gains in self.gains(run):
            known = {gain.step: gain.tpot for gain in gains if gain.tpot is not None}
            if not known:
                continue
            faster = [step for step, tpot in known.items() if tpot >= FASTER]
            slower = [step for step, tpot in known.items() if tpot <= 1 / FASTER]
            best = max(known, key=lambda step: known[step] or 0.0)
            name = "all classes" if workload == ALL else workload
            told.append(
                f"{name}: time per token {known[best]:.2f} times as good at best ({best}); better "
                f"at {', '.join(faster) or 'no step'}, worse at {', '.join(slower) or 'no step'}"
            )
        return told

    def texts(self, run: Run) -> tuple[int, int]:
        """Return how many greedy requests a run shares with the baseline, and how many differ."""
        before, after = self.baseline.result["texts"], run.result["texts"]
        shared = before.keys() & after.keys()
        return len(shared), sum(before[prompt] != after[prompt] for prompt in shared)


def _labels(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    taken: set[str] = set()
    for number, result in enumerate(results, 1):
        label = str(result["label"])
        label = f"{label} #{number}" if label in taken else label
        taken.add(label)
        yield label
