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
STYLES = ("-", "--", ":", "-.")  # one for each draft


def draw(report: Mapping[str, Any], file: Path) -> bool:
    """Write the page; False without matplotlib or without a ratio to draw."""
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        return False
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    rows = [row for row in report["best"] if row["system"] != "plain" and row["speedup"]]
    if not rows:
        return False
    acceptances = sorted({row["acceptance"] for row in rows})
    temperatures = sorted({row["temperature"] for row in rows})
    figure, axes = pyplot.subplots(
        2 * len(temperatures),
        len(acceptances),
        figsize=(max(4.4 * len(acceptances), 7.5), 3.3 * 2 * len(temperatures) + 1),
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    for line, temperature in enumerate(temperatures):
        for column, acceptance in enumerate(acceptances):
            kind = (temperature, acceptance)
            shown = [row for row in rows if (row["temperature"], row["acceptance"]) == kind]
            top, bottom = axes[2 * line][column], axes[2 * line + 1][column]
            _panel(top, shown, "speedup")
            _panel(bottom, shown, "eta")
            text = f"{acceptance:g} tokens a step" if acceptance else "real text"
            top.set_title(f"{text}, temperature {temperature:g}", fontsize=10)
        axes[2 * line][0].set_ylabel("speedup over plain")
        axes[2 * line][0].set_ylim(bottom=0)
        axes[2 * line + 1][0].set_ylabel("η = speedup ÷ tokens a step")
        axes[2 * line + 1][0].set_ylim(0, 1.15)
    for axis in axes[-1]:
        axis.set_xlabel("requests at a time")
    handles = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="lower center",
        ncols=min(len(handles), 4),
        frameon=False,
    )
    figure.suptitle(report["title"], fontsize=11)
    figure.tight_layout(rect=(0, 0.06, 1, 0.99))
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    return True


def _panel(axis: Any, rows: Sequence[Mapping[str, Any]], quantity: str) -> None:
    lines = {(row["system"], row["draft_model"]) for row in rows}
    drafts = sorted({draft for _, draft in lines} - {""})
    for system, draft in sorted(lines, key=lambda line: (list(COLOURS).index(line[0]), line[1])):
        points = sorted(
            (row["batch"], row[quantity])
            for row in rows
            if (row["system"], row["draft_model"]) == (system, draft)
        )
        axis.plot(
            [x for x, _ in points],
            [y for _, y in points],
            marker="o",
            markersize=4,
            color=COLOURS[system],
            linestyle=STYLES[drafts.index(draft) % len(STYLES)] if draft else "-",
            label=f"{system}, {Path(draft).name}" if draft else system,
        )
    batches = sorted({row["batch"] for row in rows})
    axis.axhline(1.0, color="#888888", linewidth=0.8, linestyle="--")
    axis.set_xscale("log", base=2)
    axis.set_xticks(batches, [str(batch) for batch in batches])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
