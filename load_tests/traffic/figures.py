"""The plots of the report, as SVG that stands in its page."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from load_tests.traffic.compare import Comparison, Run
from load_tests.traffic.result import ALL

__all__ = ["classes_plot", "overview_plot"]

# Told apart without colour vision, too: Okabe and Ito.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = "osD^vP"

Reading = Callable[[Run, str], float | None]


def _figure(figure: str, workload: str = ALL, factor: float = 1.0) -> Reading:
    def read(run: Run, step: str) -> float | None:
        value = run.value(step, figure, workload)
        return None if value is None else value * factor

    return read


def _line(
    axes: Axes, comparison: Comparison, number: int, read: Reading, style: str, label: str | None
) -> None:
    values = [read(comparison.runs[number], step) for step in comparison.steps]
    axes.plot(
        range(len(values)),
        [math.nan if value is None else value for value in values],
        style,
        color=_COLOURS[number % len(_COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=4,
        linewidth=1.5 if style == "-" else 1.0,
        label=label,
    )


def _panel(
    axes: Axes,
    comparison: Comparison,
    title: str,
    solid: Reading,
    dashed: Reading | None = None,
) -> None:
    for number, run in enumerate(comparison.runs):
        _line(axes, comparison, number, solid, "-", run.label)
        if dashed is not None:
            _line(axes, comparison, number, dashed, "--", None)
    axes.set_title(title, loc="left", fontsize=10)
    names = [step.removesuffix("s").removesuffix(" user") for step in comparison.steps]
    unit = "users" if names != comparison.steps else ""
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=0 if len(names) < 9 else 60)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.set_ylim(0, axes.get_ylim()[1])  # from 0, with the margin above
    axes.set_xlim(-0.3, len(names) - 0.7)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    # Same ids in every run, so that a report of the same results is the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rayspec"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _grid(panels: int, columns: int) -> tuple[Figure, Sequence[Any]]:
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.5 * columns, 2.5 * rows + 0.5), layout="constrained")
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in axes[panels:]:
        spare.set_visible(False)
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=min(len(labels), 4),
        frameon=False,
        fontsize=9,
    )


def overview_plot(comparison: Comparison) -> str:
    """Draw throughput, latencies, lane mix and goodput over the steps, a colour per run."""
    panels: list[tuple[str, Reading, Reading | None]] = [
        ("output tokens/s", _figure("tokens_per_s"), None),
        ("TTFT, ms: p50, dashed p95", _figure("ttft_ms.p50"), _figure("ttft_ms.p95")),
        ("TPOT, ms: p50, dashed p95", _figure("tpot_ms.p50"), _figure("tpot_ms.p95")),
        (
            "whole answer, s: p50, dashed p95",
            _figure("e2e_ms.p50", factor=1e-3),
            _figure("e2e_ms.p95", factor=1e-3),
        ),
        (
            "answers from the speculative lane, %",
            lambda run, step: None if (s := run.speculated(step)) is None else s * 100,
            None,
        ),
    ]
    if any(any(run.result["slo"].values()) for run in comparison.runs):
        panels.append(("good answers/s", _figure("goodput_per_s"), None))
    else:
        panels.append(("accepted drafts, %", _figure("acceptance", factor=100), None))
    figure, axes = _grid(len(panels), 3)
    for place, (title, solid, dashed) in zip(axes, panels, strict=False):
        _panel(place, comparison, title, solid, dashed)
    _legend(figure, axes[0])
    return _svg(figure)


def classes_plot(comparison: Comparison, figure: str, unit: str, factor: float = 1.0) -> str:
    """Draw the median of one figure for each class: solid p50, dashed p95."""
    drawing, axes = _grid(len(comparison.classes), 3)
    for place, workload in zip(axes, comparison.classes, strict=False):
        solid = _figure(f"{figure}.p50", workload, factor)
        dashed = _figure(f"{figure}.p95", workload, factor)
        _panel(place, comparison, f"{workload}, {unit}", solid, dashed)
    _legend(drawing, axes[0])
    return _svg(drawing)
