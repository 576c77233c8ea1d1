"""The JSON that a run leaves: figures per step of its shape, per class and per lane."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.traffic.tally import COUNTS, FACTS, Cell, Slo, Tally

__all__ = ["ALL", "KIND", "StepTimes", "figures", "fold", "read_result"]

KIND = "rayspec load"
ALL = "all"
"""The name of the row that holds all classes, or all lanes."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """A step as it took place."""

    index: int
    name: str
    users: int
    rate: float | None
    warm_up: bool
    seconds: float


def figures(cell: Cell, seconds: float, slo: Slo) -> dict[str, Any]:
    """Return a row of a result."""
    counts = cell.counts
    ended = counts["requests"] + counts["failures"]
    return {
        **{name: counts[name] for name in (*COUNTS, *FACTS)},
        "requests_per_s": round(counts["requests"] / seconds, 4),
        # What came while the step lasted: answers that end later would count for the wrong load.
        "tokens_per_s": round(counts["arrived"] / seconds, 3),
        "goodput_per_s": round(counts["good"] / seconds, 4) if slo else None,
        "good_share": round(counts["good"] / ended, 4) if slo and ended else None,
        "acceptance": round(counts["accepted"] / counts["drafted"], 4)
        if counts["drafted"]
        else None,
        **{name: histogram.summary() for name, histogram in cell.times.items()},
        "reasons": dict(cell.reasons.most_common()),
        "recognised": dict(cell.recognised.most_common()),
        "errors": dict(cell.errors.most_common(20)),
    }


def fold(
    tally: Tally, steps: Sequence[StepTimes], slo: Slo, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the result of a run; `facts` tell what was run."""
    measured = [step for step in steps if not step.warm_up]
    counts = {"requests": 0, "failures": 0}
    for step in measured:
        for (index, _, _), cell in tally.cells.items():
            for name in counts:
                counts[name] += cell.counts[name] if index == step.index else 0
    return {
        "kind": KIND,
        "version": 1,
        **facts,
        "slo": {"ttft_ms": slo.ttft_ms or None, "tpot_ms": slo.tpot_ms or None},
        **counts,
        "repeated": tally.repeated(),
        "wrong": tally.wrong(),
        "steps": [_step(tally, step, slo) for step in steps],
        "texts": {prompt: texts.most_common(1)[0][0] for prompt, texts in tally.texts.items()},
    }


def _step(tally: Tally, step: StepTimes, slo: Slo) -> dict[str, Any]:
    rows: dict[tuple[str, str], Cell] = {}
    for (index, workload, lane), cell in sorted(tally.cells.items()):
        if index == step.index:
            for key in ((ALL, ALL), (ALL, lane), (workload, ALL), (workload, lane)):
                rows.setdefault(key, Cell()).merge(cell)
    return {
        "index": step.index,
        "name": step.name,
        "users": step.users,
        "rate": step.rate,
        "warm_up": step.warm_up,
        "seconds": round(step.seconds, 3),
        "rows": [
            {"class": workload, "lane": lane, **figures(cell, max(step.seconds, 1e-9), slo)}
            for (workload, lane), cell in rows.items()
        ],
    }


def read_result(path: Path) -> dict[str, Any]:
    """Return a result from its file; ValueError if it is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(result, dict) or result.get("kind") != KIND:
        raise ValueError(f"{path}: not a result of load_tests/locustfile.py")
    return result
