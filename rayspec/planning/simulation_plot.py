"""The page of a sweep: latency of each class against the load, one line per scenario."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayspec.errors import ConfigError
from rayspec.planning.goodput import ALL
from rayspec.planning.scenarios import ALWAYS, NONE, ORACLE, ROUTED, Outcome

__all__ = ["draw"]

_STYLES: Mapping[str, Mapping[str, Any]] = {
    NONE: {"color": "#1f77b4", "marker": "o"},
    ALWAYS: {"color": "#ff7f0e", "marker": "s"},
    ROUTED: {"color": "#d62728", "marker": "D", "linewidth": 2.2},
    ORACLE: {"color": "#7f7f7f", "marker": "", "linestyle": "--"},
}


def draw(
    sweep: Sequence[tuple[float, Mapping[str, Outcome]]],
    file: Path,
    *,
    load: str,
    title: str,
    attainment: bool,
) -> None:
    """Write the page: medians above, 95th percentiles below, and attainment if there are limits."""
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise ConfigError("plot", str(file), "needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    classes = list(sweep[0][1][ROUTED].results)
    if len(classes) == 2:  # one class: `all` says the same
        classes.remove(ALL)
    rows = 3 if attainment else 2
    figure, axes = pyplot.subplots(
        rows,
        len(classes),
        figsize=(max(3.4 * len(classes), 6.5), 2.7 * rows + 1.1),
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    for column, name in enumerate(classes):
        axes[0][column].set_title(name, fontsize=10)
        for scenario, outcome in sweep[0][1].items():
            style = {"markersize": 4, **_STYLES[scenario]}
            label = f"{scenario}: {outcome.scenario.hardware}"
            found = [(value, at[scenario].results.get(name)) for value, at in sweep]
            points = [(value, result) for value, result in found if result is not None]
            loads = [value for value, _ in points]
            lines = [
                [result.total.p50 for _, result in points],
                [result.total.p95 for _, result in points],
                [result.attainment for _, result in points],
            ]
            for row in range(rows):
                axes[row][column].plot(loads, lines[row], label=label, **style)
        axes[-1][column].set_xlabel(load)
    for row, label in enumerate(("median answer, s", "95 % of answers within, s")):
        axes[row][0].set_ylabel(label)
        axes[row][0].set_yscale("log")
        # Plain numbers: a log axis over less than a decade has no labels otherwise.
        for which in ("major", "minor"):
            formatter = importlib.import_module("matplotlib.ticker").FuncFormatter(_plain)
            getattr(axes[row][0].yaxis, f"set_{which}_formatter")(formatter)
    if attainment:
        axes[2][0].set_ylabel("share within the limits")
        axes[2][0].set_ylim(-0.03, 1.03)
    ticks = [value for value, _ in sweep]
    for axis in axes.flat:
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axis.tick_params(labelsize=8)
        axis.tick_params(axis="y", which="minor", labelsize=6)
        axis.grid(alpha=0.25)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.5 / figure.get_figheight(), 1, 0.99))
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def _plain(value: float, _: object) -> str:
    return f"{value:.3g}"
