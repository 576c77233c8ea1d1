"""Draws what the simulator predicted and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from load_tests.validate_simulation import Line

__all__ = ["METRICS", "PERCENTILES", "draw"]

METRICS = ("TTFT", "TPOT", "E2E")
PERCENTILES = (50, 95)


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw medians and 95th percentiles over the users, one panel per metric and policy."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    policies = list(dict.fromkeys(line.policy for line in lines))
    size = (4 * len(METRICS), 3 * len(policies))
    figure, grid = plt.subplots(
        len(policies), len(METRICS), figsize=size, sharex=True, sharey="col", squeeze=False
    )
    for row, policy in zip(grid, policies, strict=True):
        for axes, metric in zip(row, METRICS, strict=True):
            for percentile, colour in zip(PERCENTILES, ("tab:blue", "tab:orange"), strict=True):
                mine = [
                    line
                    for line in lines
                    if (line.policy, line.metric, line.percentile) == (policy, metric, percentile)
                ]
                users = [line.users for line in mine]
                axes.plot(
                    users, [line.measured for line in mine], "o-", color=colour,
                    label=f"p{percentile} measured",
                )  # fmt: skip
                axes.plot(
                    users, [line.predicted for line in mine], "x--", color=colour,
                    label=f"p{percentile} predicted",
                )  # fmt: skip
            axes.set_title(f"{policy}: {metric} (s)", fontsize=10)
            axes.set_xscale("log", base=2)
            axes.set_xticks(users, [str(number) for number in users])
            axes.grid(alpha=0.3)
    for axes in grid[0]:
        axes.set_ylim(bottom=0)  # columns share it, so only after the last was drawn
    grid[0][0].legend(fontsize=8)
    figure.supxlabel("users who wait for their answers", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
