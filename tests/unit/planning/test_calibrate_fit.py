"""Cells of a machine whose costs are known give these costs."""

from __future__ import annotations

from typing import Any

import pytest

from rayspec.errors import ConfigError
from rayspec.planning import calibrate_fit as fit
from rayspec.planning.calibrate_cells import (
    Cell,
    ClassCell,
    ContentionCell,
    MixedCell,
    PrefillCell,
    StepCell,
)
from rayspec.planning.calibration import PrefillFit
from rayspec.routing.cost_model import StepPoint, StepTimes, expected_tokens
from rayspec.routing.types import Lane

BOTH = (Lane.SPECULATIVE, Lane.PLAIN)


def seconds(batch: int, drafts: float, context: float) -> float:
    return 0.02 + 0.004 * batch + 0.003 * drafts * batch + 1e-6 * batch * context


def window(batch: int, drafts: float, context: float) -> dict[str, float]:
    return {
        "batch": batch,
        "steps": 12,
        "seconds": seconds(batch, drafts, context),
        "context": context,
        "tokens": 1.0,
    }


def step(lane: Lane, batch: int, k: int, context: int, offered: float = 1.0) -> tuple[Cell, Any]:
    cell = StepCell(lane, batch, k, context)
    drafts = k * offered
    return cell, {"windows": {lane: window(batch, drafts, context)}, "drafts": drafts}


def test_steps_are_what_was_measured() -> None:
    results = [step(Lane.PLAIN, batch, 0, 128) for batch in (1, 2, 4)]
    found = fit.steps(results, Lane.PLAIN)
    assert [(s.batch, s.k, s.context) for s in found] == [(1, 0, 128), (2, 0, 128), (4, 0, 128)]
    assert [s.seconds for s in found] == pytest.approx([seconds(b, 0, 128) for b in (1, 2, 4)])
    assert fit.residual(found) == pytest.approx(0, abs=1e-9)


def test_rounds_are_reduced_to_their_median() -> None:
    results = []
    for number, factor in enumerate((1.0, 9.0, 1.02)):
        result = {"windows": {Lane.PLAIN: window(1, 0, 128)}, "drafts": 0.0}
        result["windows"][Lane.PLAIN]["seconds"] *= factor  # type: ignore[index]
        results.append((StepCell(Lane.PLAIN, 1, 0, 128, number), result))
    (found,) = fit.steps(results, Lane.PLAIN)
    assert found.seconds == pytest.approx(1.02 * seconds(1, 0, 128))


def test_drafts_that_were_not_offered_are_priced_as_if_they_had_been() -> None:
    results = [
        step(Lane.SPECULATIVE, batch, k, 128, offered=0.6) for batch in (1, 4) for k in (0, 2, 4)
    ]
    results.append(step(Lane.SPECULATIVE, 4, 4, 1024, offered=0.5))
    found = {(s.batch, s.k, s.context): s.seconds for s in fit.steps(results, Lane.SPECULATIVE)}
    for (batch, k, context), measured in found.items():
        assert measured == pytest.approx(seconds(batch, k, context), rel=1e-6)


def test_a_lane_without_steps_says_why() -> None:
    cell, _ = step(Lane.PLAIN, 1, 0, 128)
    with pytest.raises(ConfigError, match="status 429"):
        fit.steps([(cell, {"failed": "status 429"})], Lane.PLAIN)


def test_prefill_is_the_engines_and_stalls_do_not_count() -> None:
    lengths = (32, 128, 512)
    results: list[tuple[Cell, Any]] = []
    for number in range(3):
        points = [[n, 0.015 + 0.04 + 0.001 * n, 0.04 + 0.001 * n] for n in lengths]
        if number == 1:  # one stall in the engine, one on the way
            points[0][1:] = [0.9, 0.8]
            points[2][1] = 2.0
        results.append((PrefillCell(Lane.PLAIN, lengths, number), {"points": points}))
    prefill, overhead, error = fit.prefill(results, Lane.PLAIN)
    assert prefill.per_token_s == pytest.approx(0.001)
    assert prefill.base_s == pytest.approx(0.04)
    assert overhead == pytest.approx(0.015)
    assert error == pytest.approx(0, abs=1e-9)
    with pytest.raises(ConfigError, match="no cell ran"):
        fit.prefill(results, Lane.SPECULATIVE)


def test_contention_is_against_the_same_load_alone() -> None:
    alone = StepTimes(
        StepPoint(batch, k, context, seconds(batch, k, context))
        for batch in (1, 2, 4)
        for k in (0, 4)
        for context in (128, 1024)
    )
    results: list[tuple[Cell, Any]] = []
    for batch, slow in ((1, 1.2), (2, 1.3), (4, 1.4)):
        windows = {lane: window(batch, 4 if lane is BOTH[0] else 0, 128) for lane in BOTH}
        for found in windows.values():
            found["seconds"] *= slow
        cell = ContentionCell(batch, 4, 128)
        results.append((cell, {"windows": windows, "drafts": 4.0}))
    for lane in BOTH:
        assert fit.contention(results, lane, alone) == pytest.approx(1.3, rel=1e-6)
    assert fit.contention([], Lane.PLAIN, alone) == 1.0


def test_acceptance_yields_the_tokens_that_were_seen() -> None:
    counts = {"1": 50, "2": 20, "3": 20, "5": 10}
    result = {
        "steps": counts,
        "all_steps": 110,
        "drafted": 220,
        "prompt_tokens": [10, 30],
        "output_tokens": [100, 95],
    }
    (profile,) = fit.classes([(ClassCell("code"), result)], 4).values()
    assert profile.acceptance == pytest.approx([0.5, 0.6, 1 / 3, 1.0])
    mean = sum(int(tokens) * count for tokens, count in counts.items()) / 100
    assert expected_tokens(profile.acceptance, 4) == pytest.approx(mean)
    assert profile.coverage == pytest.approx(0.5)
    assert (profile.prompt_tokens, profile.output_tokens, profile.drafted) == (20, 97.5, 220)


def test_a_class_without_any_accepted_draft() -> None:
    result = {
        "steps": {"1": 9},
        "all_steps": 9,
        "drafted": 0,
        "prompt_tokens": [5],
        "output_tokens": [10],
    }
    (profile,) = fit.classes([(ClassCell("chat"), result)], 4).values()
    assert profile.acceptance == [0.0]
    assert profile.coverage == 0.0


@pytest.mark.parametrize(
    ("share", "wait", "whole", "busy_s"),
    [
        (0.0, 0.0, 0, 0.0),
        (1.0, 0.0, 0, 0.0),
        (0.5, 1.0, 1, 0.0),
        (0.0, 1.1, 1, 0.004),
        (-0.3, 0.4, 0, 0.016),
        (2.0, -0.2, 0, 0.0),
    ],
)
def test_how_prompts_and_decoding_share_a_step(
    share: float, wait: float, whole: int, busy_s: float
) -> None:
    prefill, overhead_s, step_s = PrefillFit(base_s=0.02, per_token_s=1e-3), 0.01, 0.04
    points = []
    for tokens in (128, 512, 128):
        mixed_s = step_s + share * 0.02 + tokens * 1e-3
        points.append((tokens, mixed_s, step_s, overhead_s + (0.5 + wait) * step_s + mixed_s))
    cell = MixedCell(Lane.PLAIN, 4, 0, 128, (128, 512, 128))
    results: list[tuple[Cell, Any]] = [(cell, {"mixed": points}), (cell, {"failed": "lost"})]

    found, waited, further_s = fit.mixing(results, Lane.PLAIN, prefill, overhead_s)
    assert found == pytest.approx(min(max(share, 0.0), 1.0))
    assert waited == whole
    assert further_s == pytest.approx(busy_s)
    assert fit.mixing(results, Lane.SPECULATIVE, prefill, overhead_s) == (0.0, 0, 0.0)
