"""The promise on a machine that both lanes share: routed never loses to the better lane.

Step times are about those of two cores with the default application (`load_tests/RESULTS.md`):
plain 31 ms at one sequence and 66 at 16, 217 ms to verify 16 times five tokens, a prompt 120 ms.
Users who wait for their answers ask requests of six classes; engines measure themselves as real
ones do.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rayspec.planning.calibration import Calibration, ClassProfile, LaneProfile, PrefillFit, Step
from rayspec.planning.policies import Always, Fleet, Policy
from rayspec.planning.routed import Routed
from rayspec.planning.simulate import Run, make_engines, simulate
from rayspec.planning.traces import ClassMix, closed_loop
from rayspec.planning.workload import Workload
from rayspec.routing import PolicySpec
from rayspec.routing.types import Lane

FLOOR = 0.97
TIERS = (0, 1, 2, 4)
PLAIN = ((1, 31), (2, 34), (4, 39), (8, 48), (16, 66))
# Acceptance where there is a draft, how often there is one, tokens of an answer.
CLASSES = {
    "code": (0.75, 0.45, 54),
    "summarize": (0.45, 0.35, 48),
    "structured": (0.5, 0.3, 48),
    "chat": (0.15, 0.12, 48),
    "creative": (0.08, 0.1, 48),
    "multilingual": (0.12, 0.1, 48),
}


def verify_ms(batch: int, k: int) -> float:
    """Return the step of `batch` sequences that verify k drafts each."""
    if k == 0:
        return dict(PLAIN)[batch] * 1.02
    return 31 + (0.8 * k if batch == 1 else 2.36 * (batch * (k + 1) - 1))


def machine(speculative: float, plain: float) -> Calibration:
    """Return the machine whose lanes slow each other so much."""
    points: dict[Lane, list[tuple[int, int, float]]] = {
        Lane.PLAIN: [(batch, 0, ms) for batch, ms in PLAIN],
        Lane.SPECULATIVE: [(b, k, verify_ms(b, k)) for b, _ in PLAIN for k in TIERS],
    }
    contention = {Lane.PLAIN: plain, Lane.SPECULATIVE: speculative}
    return Calibration(
        created="2026-11-26",
        model="smollm2",
        k_tiers=list(TIERS),
        lanes={
            lane: LaneProfile(
                steps=[Step(batch=b, k=k, context=150, seconds=ms / 1000) for b, k, ms in steps],
                prefill=PrefillFit(base_s=0.02, per_token_s=0.001),
                max_num_seqs=16,
                contention=contention[lane],
                overhead_s=0.004,
            )
            for lane, steps in points.items()
        },
        classes={
            name: ClassProfile(
                acceptance=[rate * coverage**0.5, rate, rate, rate],
                coverage=coverage,
                prompt_tokens=100,
                output_tokens=output,
            )
            for name, (rate, coverage, output) in CLASSES.items()
        },
    )


def climb(
    truth: Calibration, users: int, count: int, spec: PolicySpec, skip: int = 0
) -> tuple[float, float]:
    """Return routed ÷ better in tokens per second, and better ÷ routed in mean latency."""
    mix = ClassMix(dict.fromkeys(CLASSES, 1.0), truth.classes, cv=0.3)
    drawn = Workload(closed_loop(mix, count, users, 0.0, 1), truth.classes, 1)
    policies: dict[str, Callable[[Fleet], Policy]] = {
        "plain": lambda _: Always(Lane.PLAIN, 0),
        "on": lambda _: Always(Lane.SPECULATIVE, 4),
        "routed": lambda fleet: Routed(
            fleet, calibration=truth, tiers=TIERS, spec=spec, learning=True
        ),
    }
    rates, waits = {}, {}
    for name, make in policies.items():
        engines = make_engines(truth, {Lane.SPECULATIVE: 1, Lane.PLAIN: 1}, drawn)
        run: Run = simulate(drawn, engines, make)
        late = slice(skip, None)
        span = run.finished.max() - run.arrived[late].min()
        rates[name] = drawn.trace.output_tokens[late].sum() / span
        waits[name] = run.total[late].mean()
    return (
        rates["routed"] / max(rates["plain"], rates["on"]),
        min(waits["plain"], waits["on"]) / waits["routed"],
    )


@pytest.mark.parametrize("users", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("contention", [(1.06, 1.31), (1.3, 1.3), (1.6, 1.6)])
def test_with_a_calibration(contention: tuple[float, float], users: int) -> None:
    truth = machine(*contention)

    found = climb(truth, users, 150, PolicySpec(measured=truth.measured()))

    assert min(found) >= FLOOR


@pytest.mark.parametrize("users", [2, 4, 8])
def test_with_a_calibration_that_saw_too_little_contention(users: int) -> None:
    spec = PolicySpec(measured=machine(1.06, 1.31).measured())

    assert min(climb(machine(1.6, 1.6), users, 400, spec, skip=100)) >= FLOOR


@pytest.mark.parametrize("users", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("contention", [(1.06, 1.31), (1.3, 1.3), (1.6, 1.6)])
def test_with_what_the_engines_have_measured_themselves(
    contention: tuple[float, float], users: int
) -> None:
    spec = PolicySpec(shared_hardware=True)

    assert min(climb(machine(*contention), users, 400, spec, skip=100)) >= FLOOR
