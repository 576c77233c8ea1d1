"""A simulation as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rayspec.planning.calibration import Calibration
from rayspec.planning.goodput import Quantiles, Slo
from rayspec.planning.scenarios import Outcome
from rayspec.planning.verdict import Verdict

__all__ = ["as_json", "columns", "results_table"]

_HEAD = (
    "class",
    "scenario",
    "TTFT ms p50/p95/p99",
    "TPOT ms p50/p95/p99",
    "E2E s p50/p95/p99",
    "within",
    "good/s",
    "speculate",
)


def results_table(outcomes: Mapping[str, Outcome]) -> str:
    """Return one line per class and scenario, the row of all classes first."""
    names = list(dict.fromkeys(name for o in outcomes.values() for name in o.results))
    rows: list[Sequence[str]] = [_HEAD]
    for name in names:
        for scenario, outcome in outcomes.items():
            result = outcome.results[name]
            speculate = f"{result.speculative_share:.0%}"
            if result.mean_k:
                speculate += f", K {result.mean_k:.1f}"
            rows.append(
                (
                    name,
                    scenario,
                    _three(result.ttft, 1e3, 0),
                    _three(result.tpot, 1e3, 1),
                    _three(result.total, 1, 2),
                    f"{result.attainment:.1%}",
                    f"{result.goodput_rps:.3g}",
                    speculate,
                )
            )
    return columns(rows)


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells with their columns aligned, a rule below the first."""
    lines = list(rows)
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    texts = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in lines
    ]
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(texts)


def as_json(
    calibration: Calibration,
    source: str,
    slo: Slo,
    sweep: Sequence[tuple[float | None, Mapping[str, Outcome], Sequence[Verdict]]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything that was asked and found; times are seconds."""
    return {
        "calibration": {
            "source": source,
            "model": calibration.model,
            "draft": calibration.draft,
            "hardware": calibration.hardware,
            "notes": calibration.notes,
        },
        "slo": {"ttft_s": slo.ttft_s, "tpot_s": slo.tpot_s},
        "settings": dict(settings),
        "runs": [
            {
                "load": load,
                "scenarios": [
                    {
                        "name": name,
                        "engines": {str(k): v for k, v in outcome.scenario.replicas.items()},
                        "gpus": outcome.scenario.gpus,
                        "mean_batch": {str(k): v for k, v in outcome.batch.items()},
                        "classes": {k: v.as_dict() for k, v in outcome.results.items()},
                    }
                    for name, outcome in outcomes.items()
                ],
                "verdicts": [
                    {"class": v.workload_class, "advice": v.advice, "sentence": v.sentence}
                    for v in verdicts
                ],
            }
            for load, outcomes, verdicts in sweep
        ],
    }


def _three(values: Quantiles, scale: float, digits: int) -> str:
    return " / ".join(f"{v * scale:.{digits}f}" for v in (values.p50, values.p95, values.p99))
