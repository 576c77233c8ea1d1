"""What users met in a simulation: percentiles, and the share of requests within their limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rayspec.planning.simulate import Run
from rayspec.planning.traces import Floats
from rayspec.planning.workload import Workload

__all__ = ["ALL", "ClassResult", "Quantiles", "Slo", "summarize"]

ALL = "all"
"""The row of all classes together."""


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits that a request has to keep to count as served well; None is no limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return self.ttft_s is not None or self.tpot_s is not None


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Seconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Floats) -> Quantiles:
        """Return the percentiles of what is a number; 0 of nothing."""
        numbers = values[~np.isnan(values)]
        if not len(numbers):
            return cls(0.0, 0.0, 0.0)
        return cls(*(float(value) for value in np.percentile(numbers, (50, 95, 99))))


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class in one scenario.

    `attainment` is the share of requests within the limits and `goodput_rps` how many of those were
    answered a second; without limits these are 1 and the throughput.
    """

    workload_class: str
    requests: int
    ttft: Quantiles
    tpot: Quantiles
    total: Quantiles
    mean_total_s: float
    attainment: float
    goodput_rps: float
    output_tokens_per_s: float
    speculative_share: float
    mean_k: float

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def summarize(run: Run, workload: Workload, slo: Slo) -> dict[str, ClassResult]:
    """Return the results of each class, and of `all`."""
    tpot = run.tpot(workload)
    within = np.ones(len(workload), dtype=bool)
    if slo.ttft_s is not None:
        within &= run.ttft <= slo.ttft_s
    if slo.tpot_s is not None:
        within &= np.isnan(tpot) | (tpot <= slo.tpot_s)
    everything = np.ones(len(workload), dtype=bool)
    masks = {ALL: everything} | {
        name: workload.trace.class_of == index for index, name in enumerate(workload.trace.classes)
    }
    return {
        name: _result(name, mask, run, workload, tpot, within)
        for name, mask in masks.items()
        if mask.any()
    }


def _result(
    name: str,
    mask: npt.NDArray[np.bool_],
    run: Run,
    workload: Workload,
    tpot: Floats,
    within: npt.NDArray[np.bool_],
) -> ClassResult:
    span = run.span_s or 1.0
    speculative = run.lane[mask] == 1
    return ClassResult(
        workload_class=name,
        requests=int(mask.sum()),
        ttft=Quantiles.of(run.ttft[mask]),
        tpot=Quantiles.of(tpot[mask]),
        total=Quantiles.of(run.total[mask]),
        mean_total_s=float(run.total[mask].mean()),
        attainment=float(within[mask].mean()),
        goodput_rps=float(within[mask].sum()) / span,
        output_tokens_per_s=float(workload.trace.output_tokens[mask].sum()) / span,
        speculative_share=float(speculative.mean()),
        mean_k=float(run.k[mask][speculative].mean()) if speculative.any() else 0.0,
    )
