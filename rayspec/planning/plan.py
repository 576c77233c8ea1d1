"""Ranks layouts under one's traffic: first who keeps the limits, then by goodput per GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rayspec.planning.goodput import ALL, ClassResult, Slo, summarize
from rayspec.planning.layouts import Layout
from rayspec.planning.policies import Always, Fleet, Policy
from rayspec.planning.routed import Routed
from rayspec.planning.simulate import make_engines, simulate
from rayspec.planning.traces import Trace
from rayspec.planning.workload import Workload
from rayspec.routing.types import Lane

__all__ = ["Ranked", "rank"]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A layout and what its users meet; `good` if enough of them within the limits."""

    layout: Layout
    result: ClassResult
    good: bool

    @property
    def per_gpu(self) -> float:
        """Requests within the limits per second and GPU, the drafts' GPUs counted."""
        return self.result.goodput_rps / self.layout.gpus


def rank(
    found: Sequence[Layout],
    trace: Trace,
    slo: Slo,
    *,
    attainment: float = 0.95,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Ranked]:
    """Simulate each layout with the same requests; return the best first.

    Those where a share of `attainment` keeps the limits come before all others, ordered by goodput
    per GPU and then by latency; the others by attainment. Without limits every layout keeps them,
    so that in an open loop the cheapest that keeps up is first.
    """
    ranked = []
    for layout in found:
        workload = Workload(trace, layout.calibration.classes, seed)
        engines = make_engines(layout.calibration, layout.replicas, workload)
        run = simulate(workload, engines, partial(_policy, layout), progress)
        result = summarize(run, workload, slo)[ALL]
        ranked.append(Ranked(layout, result, result.attainment >= attainment))
    return sorted(ranked, key=_order)


def _policy(layout: Layout, fleet: Fleet) -> Policy:
    if Lane.SPECULATIVE not in layout.replicas:
        return Always(Lane.PLAIN, 0)
    return Routed(fleet, calibration=layout.calibration, tiers=layout.calibration.k_tiers)


def _order(ranked: Ranked) -> tuple[object, ...]:
    if not ranked.good:
        return (1, -round(ranked.result.attainment, 3), -ranked.per_gpu)
    # What differs by less than 2 % is equal: then the faster one.
    return (0, -float(f"{ranked.per_gpu:.2g}"), ranked.result.mean_total_s)
