"""Calibrations and traffic for tests of planning: made up, cheap, and easy to reason about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from rayspec.planning.calibration import Calibration, ClassProfile, LaneProfile, PrefillFit, Step
from rayspec.planning.traces import Trace
from rayspec.planning.workload import Workload
from rayspec.routing.types import Lane

__all__ = ["TIERS", "calibration", "calibrations", "constant", "lane", "trace", "workload"]

TIERS = (1, 3, 5)


def lane(
    points: Sequence[tuple[int, int, float]],
    *,
    base_s: float = 0.0,
    per_token_s: float = 1e-12,
    max_num_seqs: int = 64,
    chunk_tokens: int = 2048,
    contention: float = 1.0,
    gpus: int = 1,
) -> LaneProfile:
    """Return a lane of (batch, k, seconds), whose prompts cost nothing unless said."""
    return LaneProfile(
        steps=[Step(batch=b, k=k, context=100, seconds=s) for b, k, s in points],
        prefill=PrefillFit(base_s=base_s, per_token_s=per_token_s),
        max_num_seqs=max_num_seqs,
        chunk_tokens=chunk_tokens,
        contention=contention,
        gpus=gpus,
    )


def constant(seconds: float, **limits: float) -> LaneProfile:
    """Return a lane whose every step takes the same time."""
    return lane([(1, 0, seconds)], **limits)  # type: ignore[arg-type]


def calibration(
    plain: LaneProfile | None,
    speculative: LaneProfile | None = None,
    acceptance: Mapping[str, Sequence[float]] | None = None,
    tiers: Sequence[int] = TIERS,
) -> Calibration:
    """Return both lanes with the given classes, `code` at 0.8 and `chat` at 0.4 by default."""
    rates = {"code": [0.8], "chat": [0.4]} if acceptance is None else acceptance
    lanes = {Lane.PLAIN: plain, Lane.SPECULATIVE: speculative}
    return Calibration(
        created="2026-01-01",
        model="a model",
        k_tiers=list(tiers),
        lanes={key: value for key, value in lanes.items() if value is not None},
        classes={
            name: ClassProfile(acceptance=list(rate), prompt_tokens=100, output_tokens=50)
            for name, rate in rates.items()
        },
    )


def trace(
    arrivals: Sequence[float],
    outputs: Sequence[int],
    prompts: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> Trace:
    """Return requests as listed, of class `code` unless said."""
    names = tuple(sorted(set(classes or ["code"])))
    of = [names.index(name) for name in classes] if classes else [0] * len(arrivals)
    return Trace(
        names,
        np.array(of),
        np.array(prompts if prompts is not None else [100] * len(arrivals)),
        np.array(outputs),
        np.array(arrivals, dtype=float),
    )


def workload(requests: Trace, measured: Calibration, seed: int = 0) -> Workload:
    """Return the requests with their draws."""
    return Workload(requests, measured.classes, seed)


@st.composite
def calibrations(draw: st.DrawFn, contention: bool = True) -> Calibration:
    """Draw step times that grow with the batch and with K, from flat to steep, and acceptances."""
    slope = draw(st.floats(0.0, 0.3))
    per_draft = draw(st.floats(0.0, 0.4))
    base = 0.01

    def points(tiers: tuple[int, ...]) -> list[tuple[int, int, float]]:
        return [
            (b, k, base * (1 + slope * (b - 1) * (1 + per_draft * k) + per_draft * k))
            for b in (1, 4, 16)
            for k in tiers
        ]

    per_token_s = draw(st.floats(1e-6, 1e-4))
    seats = draw(st.sampled_from([2, 8, 64]))
    chunk = draw(st.sampled_from([64, 512]))
    slowdown = draw(st.sampled_from([1.0, 1.0, 1.5])) if contention else 1.0

    def profile(tiers: tuple[int, ...]) -> LaneProfile:
        return lane(
            points(tiers),
            base_s=base,
            per_token_s=per_token_s,
            max_num_seqs=seats,
            chunk_tokens=chunk,
            contention=slowdown,
        )

    acceptance = {"code": [draw(st.floats(0.5, 0.95))], "chat": [draw(st.floats(0.0, 0.7))]}
    return calibration(profile((0,)), profile((0, *TIERS)), acceptance, TIERS)
