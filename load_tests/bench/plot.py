"""The page of a run: speedup and η against the batch, one line per system."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw"]

COLOURS = {
    "rayspec": "#d62728",
    "verify-only": "#ff9896",
    "colocated": "#1f77b4",
    "colocated-v2": "#9ecae1",
    "ngram": "#2ca02c",
}


def draw(report: Mapping[str, Any], file: Path) -> bool:
    """Write the page; False without matplotlib or without a ratio to draw."""
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        return False
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    rows = [row for row in report["best"] if row["system"] != "plain" and row["speedup"]]
    panels = sorted({(row["acceptance"], row["temperature"]) for row in rows})
    if not panels:
        return False
    figure, axes = pyplot.subplots(
        2, len(panels), figsize=(4.2 * len(panels) + 1.5, 7.5), squeeze=False, sharex=True
    )
    for column, panel in enumerate(panels):
        shown = [row for row in rows if (row["acceptance"], row["temperature"]) == panel]
        _panel(axes[0][column], shown, "speedup", 1.0)
        _panel(axes[1][column], shown, "eta", 1.0)
        kind = f"{panel[0]:g} tokens a step" if panel[0] else "real text"
        axes[0][column].set_title(f"{kind}, temperature {panel[1]:g}", fontsize=10)
        axes[1][column].set_xlabel("requests at a time")
        axes[1][column].set_ylim(0, 1.15)
    for row, label in enumerate(("speedup over plain", "η = speedup ÷ tokens a step")):
        axes[row][0].set_ylabel(label)
        top = max(axis.get_ylim()[1] for axis in axes[row])
        for axis in axes[row]:
            axis.set_ylim(0, top)
    handles = {
        label: handle
        for axis in axes[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", ncols=len(handles), frameon=False
    )
    figure.suptitle(report["title"], fontsize=11)
    figure.tight_layout(rect=(0, 0.05, 1, 0.98))
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    return True


def _panel(axis: Any, rows: Sequence[Mapping[str, Any]], quantity: str, level: float) -> None:
    for system in sorted({row["system"] for row in rows}, key=list(COLOURS).index):
        points = sorted((row["batch"], row[quantity], row["k"]) for row in rows
                        if row["system"] == system)  # fmt: skip
        axis.plot(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            marker="o",
            markersize=4,
            color=COLOURS[system],
            label=system,
        )
    batches = sorted({row["batch"] for row in rows})
    axis.axhline(level, color="#888888", linewidth=0.8, linestyle="--")
    axis.set_xscale("log", base=2)
    axis.set_xticks(batches, [str(batch) for batch in batches])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
