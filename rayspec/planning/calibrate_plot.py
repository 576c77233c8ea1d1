"""Draws where speculation stops to pay: time per token of both lanes over the load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rayspec.errors import ConfigError
from rayspec.planning.calibration import Calibration, ClassProfile
from rayspec.routing.cost_model import best_k, predict
from rayspec.routing.types import Lane

__all__ = ["Crossover", "crossover", "draw"]

_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Crossover:
    """Milliseconds per token of a class in each lane, by the sequences in its engine.

    `k` is the best draft length at each load; `at` the load from which on the plain lane is never
    slower, None if the speculative one is faster at the highest.
    """

    batches: Sequence[int]
    plain: Sequence[float]
    speculative: Sequence[float]
    k: Sequence[int]

    @property
    def at(self) -> int | None:
        """Return the load from which on speculation does not pay."""
        pairs = zip(self.plain, self.speculative, strict=True)
        pays = [
            batch
            for batch, (plain, drafts) in zip(self.batches, pairs, strict=True)
            if drafts < plain
        ]
        if not pays:
            return self.batches[0]
        return pays[-1] + 1 if pays[-1] < self.batches[-1] else None


def crossover(calibration: Calibration, profile: ClassProfile) -> Crossover:
    """Return what both lanes take for the class, by load."""
    costs = calibration.costs()
    top = min(cost.max_num_seqs for cost in costs.values())
    batches = range(1, top + 1)
    context = profile.prompt_tokens + profile.output_tokens / 2
    times: dict[Lane, list[float]] = {lane: [] for lane in costs}
    lengths = []
    for lane, cost in costs.items():
        for batch in batches:
            k = 0
            if lane is Lane.SPECULATIVE:
                k = best_k(
                    cost, batch, profile.acceptance, context, calibration.k_tiers, profile.coverage
                )
                lengths.append(k)
            told = predict(
                cost,
                batch=batch,
                k=k,
                acceptance=profile.acceptance,
                prompt_tokens=profile.prompt_tokens,
                output_tokens=profile.output_tokens,
                context=context,
                coverage=profile.coverage,
            )
            times[lane].append(told.tpot_s * 1e3)
    return Crossover(batches, times[Lane.PLAIN], times[Lane.SPECULATIVE], lengths)


def draw(calibration: Calibration, path: Path) -> None:
    """Write a picture with one panel per class."""
    if len(calibration.lanes) < 2 or not calibration.classes:
        raise ConfigError("plot", str(path), "needs both lanes and at least one class")
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError("plot", str(path), "needs matplotlib: pip install matplotlib") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = sorted(calibration.classes)
    rows = ceil(len(names) / _COLUMNS)
    figure, grid = plt.subplots(
        rows, _COLUMNS, figsize=(4 * _COLUMNS, 3.1 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axes, name in zip(grid.flat, names, strict=False):
        found = crossover(calibration, calibration.classes[name])
        axes.plot(found.batches, found.plain, color="tab:gray", label="plain")
        axes.plot(found.batches, found.speculative, color="tab:blue", label="speculative, best K")
        where = "faster at every load"
        if found.at is not None:
            axes.axvline(found.at, color="tab:red", linewidth=1, linestyle="--")
            where = f"pays below {found.at}" if found.at > 1 else "never pays"
        axes.set_title(f"{name}: {where}", fontsize=10)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
    grid.flat[0].set_ylim(bottom=0)  # all share it, so only after the last was drawn
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    grid.flat[0].legend(fontsize=8)
    figure.supxlabel("sequences in one engine of the lane", fontsize=10)
    figure.supylabel("ms per token", fontsize=10)
    figure.suptitle(f"{calibration.model}, draft {calibration.draft or 'none'}", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
