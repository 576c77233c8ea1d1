"""Turns what the cells of a calibration gave into the numbers that planning uses. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Final

import numpy as np

from rayspec.errors import ConfigError
from rayspec.planning.calibrate_cells import (
    Cell,
    ClassCell,
    ContentionCell,
    MixedCell,
    PrefillCell,
    StepCell,
)
from rayspec.planning.calibrate_measure import Result
from rayspec.planning.calibration import ClassProfile, PrefillFit, Step
from rayspec.routing.cost_model import StepPoint, StepTimes
from rayspec.routing.types import Lane

__all__ = [
    "Results",
    "classes",
    "contention",
    "largest_batch",
    "mixing",
    "prefill",
    "residual",
    "steps",
]

Results = Sequence[tuple[Cell, Result]]

# From so much of a step on, prompts wait for one that was scheduled ahead, and for no busy machine.
_WHOLE_STEP: Final = 0.8
# Drafts per sequence and step that cells must differ by to tell what one costs.
_SPREAD: Final = 0.5


def steps(results: Results, lane: Lane) -> list[Step]:
    """Return a lane's step times for the draft lengths that were asked for.

    Of each cell the median over its rounds. Where a draft did not always have something to offer,
    fewer drafts were verified than asked for: what the missing ones would have cost is added, at
    the price of a draft that the cells of the same batch tell.
    """
    rounds: dict[tuple[int, int, int], list[tuple[float, float, float]]] = defaultdict(list)
    for cell, result in results:
        if isinstance(cell, StepCell) and cell.lane is lane and "windows" in result:
            window = result["windows"][lane]
            seen = result["drafts"], window["context"], window["seconds"]
            rounds[cell.batch, cell.k, cell.context].append(seen)
    if not rounds:
        raise ConfigError("lane", str(lane), f"no step was measured: {_why(results)}")
    shortest = min(context for _, _, context in rounds)
    cells = {
        key: [median(column) for column in zip(*seen, strict=True)] for key, seen in rounds.items()
    }
    found = []
    for (batch, k, _), (drafts, context, seconds) in sorted(cells.items()):
        beside = [
            (seen[0], seen[2]) for key, seen in cells.items() if key[::2] == (batch, shortest)
        ]
        missing = max(k - drafts, 0.0) * _price(beside)
        found.append(Step(batch=batch, k=k, context=round(context), seconds=seconds + missing))
    return found


def _price(seen: Sequence[tuple[float, float]]) -> float:
    """Return the seconds that a draft per sequence adds to a step, not negative."""
    drafts, seconds = (np.array(column) for column in zip(*seen, strict=True))
    if np.ptp(drafts) < _SPREAD:
        return 0.0
    return max(float(np.polyfit(drafts, seconds, 1)[0]), 0.0)


def _why(results: Results) -> str:
    return next((result["failed"] for _, result in results if "failed" in result), "no cell ran")


def residual(points: Iterable[Step]) -> float:
    """Return the median relative error of step times between the points, leaving each out once.

    Points at the ends stay, and those that tell the price of context: nothing else knows them.
    """
    every = [StepPoint(p.batch, p.k, p.context, p.seconds) for p in points]
    long = 2 * min(point.context for point in every)
    errors = []
    for point in every:
        if point.context > long:
            continue
        others = [other for other in every if other is not point]
        beside = [other.batch for other in others if other.k == point.k]
        if beside and min(beside) < point.batch < max(beside):
            told = StepTimes(others).seconds(point.batch, point.k, point.context)
            errors.append(abs(told - point.seconds) / point.seconds)
    return median(errors) if errors else 0.0


def prefill(results: Results, lane: Lane) -> tuple[PrefillFit, float, float]:
    """Return the fit of a lane's prefill, the time outside its engine, and the fit's error.

    The line through what the engine saw minimises relative errors; the time outside is what the
    client waits longer than that.
    """
    found = [r for c, r in results if isinstance(c, PrefillCell) and c.lane is lane]
    found = [result for result in found if "points" in result]
    if not found:
        raise ConfigError("lane", str(lane), f"no first token was measured: {_why(results)}")
    by_length: dict[int, list[float]] = defaultdict(list)
    outside = []
    for result in found:
        for tokens, client_s, engine_s in result["points"]:
            by_length[tokens].append(engine_s)
            outside.append(client_s - engine_s)
    lengths = np.array(sorted(by_length), dtype=float)
    times = np.array([median(by_length[int(length)]) for length in lengths])
    slope, base = (float(value) for value in np.polyfit(lengths, times, 1, w=1 / times))
    error = float(np.median(np.abs(slope * lengths + base - times) / times))
    fit = PrefillFit(base_s=max(base, 0.0), per_token_s=max(slope, 1e-9))
    return fit, max(median(outside), 0.0), error


def mixing(
    results: Results, lane: Lane, fit: PrefillFit, overhead_s: float
) -> tuple[float, int, float]:
    """Return how a lane's prompts and decoding share a step, and what prompts wait for.

    The first is the share of the shorter part, decoding or an empty prefill, that comes on top of
    the longer one: 0 where both read the weights together, 1 where they follow one another. The
    second is of whole steps after the one in which a request comes, the third of further seconds,
    in which what is outside of the engine gives way to it. All are 0 if never measured.
    """
    shares, waits = [], []
    for cell, result in results:
        if isinstance(cell, MixedCell) and cell.lane is lane:
            for tokens, mixed_s, step_s, ttft_s in result.get("mixed", ()):
                longer, shorter = max(step_s, fit.base_s), min(step_s, fit.base_s)
                rest = mixed_s - longer - tokens * fit.per_token_s
                if shorter > 0:
                    shares.append(rest / shorter)
                # It comes in the middle of a step, in the mean.
                waits.append((ttft_s - overhead_s - mixed_s - step_s / 2, step_s))
    share = min(max(median(shares), 0.0), 1.0) if shares else 0.0
    if not waits:
        return share, 0, 0.0
    whole = int(median(wait / step for wait, step in waits) > _WHOLE_STEP)
    return share, whole, max(median(wait - whole * step for wait, step in waits), 0.0)


def contention(results: Results, lane: Lane, alone: StepTimes) -> float:
    """Return a step while the other lane works too ÷ one while it idles; 1 if never measured."""
    ratios = []
    for cell, result in results:
        if isinstance(cell, ContentionCell) and "windows" in result:
            window = result["windows"][lane]
            k = result["drafts"] if lane is Lane.SPECULATIVE else 0
            ratios.append(window["seconds"] / alone.seconds(cell.batch, k, window["context"]))
    return max(median(ratios), 1.0) if ratios else 1.0


def classes(results: Results, k_max: int) -> dict[str, ClassProfile]:
    """Return what each class is like."""
    return {
        cell.workload_class: _profile(result, k_max)
        for cell, result in results
        if isinstance(cell, ClassCell) and "steps" in result
    }


def _profile(result: Result, k_max: int) -> ClassProfile:
    counts: Mapping[int, int] = {int(n): count for n, count in result["steps"].items()}
    # A step with n tokens accepted n - 1 drafts, one after another.
    reached = [sum(c for n, c in counts.items() if n > position) for position in range(k_max + 1)]
    acceptance = [after / before for before, after in pairwise(reached) if before]
    asked = k_max * result["all_steps"]
    return ClassProfile(
        acceptance=acceptance,
        drafted=result["drafted"],
        coverage=min(result["drafted"] / asked, 1.0) if asked else 1.0,
        prompt_tokens=fmean(result["prompt_tokens"]),
        output_tokens=max(fmean(result["output_tokens"]), 1.0),
    )


def largest_batch(results: Results, lane: Lane) -> int:
    """Return the most streams of a lane that decoded together."""
    found = (
        c.batch for c, r in results if isinstance(c, StepCell) and c.lane is lane and "windows" in r
    )
    return max(found, default=1)
