"""How predictions of the simulator are compared with what a real application did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from load_tests.closed_loop import Answer
from load_tests.validate_simulation import (
    Line,
    compare,
    measured_times,
    predicted_times,
    report,
    scenarios_of,
    trace_of,
)
from load_tests.validation_plot import METRICS, PERCENTILES, draw
from rayspec.planning.calibration import (
    CALIBRATED,
    Calibration,
    ClassProfile,
    LaneProfile,
    PrefillFit,
    Step,
)
from rayspec.planning.scenarios import ALWAYS, NONE, ROUTED, scenarios

STEP_S, BASE_S, PER_TOKEN_S, OUTSIDE_S = 0.05, 0.04, 0.001, 0.02


def calibration() -> Calibration:
    lane = LaneProfile(
        steps=[Step(batch=b, k=k, context=100, seconds=STEP_S) for b in (1, 8) for k in (0, 4)],
        prefill=PrefillFit(base_s=BASE_S, per_token_s=PER_TOKEN_S),
        max_num_seqs=8,
        overhead_s=OUTSIDE_S,
    )
    return Calibration(
        created="2026-01-01T00:00:00+00:00",
        model="tiny",
        k_tiers=[0, 4],
        lanes=dict.fromkeys(CALIBRATED, lane),
        classes={"code": ClassProfile(acceptance=[1.0]), "chat": ClassProfile(acceptance=[0.0])},
    )


def answer(name: str = "chat", prompt: int = 100, tokens: int = 11) -> Answer:
    ttft = OUTSIDE_S + BASE_S + PER_TOKEN_S * prompt
    total = ttft + (tokens - 1) * STEP_S
    return Answer(name, "plain", prompt, tokens, ttft, STEP_S if tokens > 1 else None, total)


def line(predicted: float, measured: float) -> Line:
    return Line("routed", 4, "E2E", 50, predicted, measured)


def test_the_trace_is_what_was_asked() -> None:
    trace = trace_of([answer("chat"), answer("code", 7, 3), answer("chat", 9, 1)], 2)
    assert trace.classes == ("chat", "code")
    assert trace.class_of.tolist() == [0, 1, 0]
    assert trace.prompt_tokens.tolist() == [100, 7, 9]
    assert trace.output_tokens.tolist() == [11, 3, 1]
    assert (trace.users, trace.think_s, len(trace.arrivals)) == (2, 0.0, 0)


@pytest.mark.parametrize("lengths", [[11], [11, 1, 5]])
def test_a_machine_that_is_as_calibrated_is_predicted_exactly(lengths: Sequence[int]) -> None:
    known = calibration()
    which = {scenario.name: scenario for scenario in scenarios(known, 1, 1)}
    answers = [answer(tokens=tokens) for tokens in lengths]
    told = predicted_times(known, which[NONE], answers, users=1)
    lines = list(compare("always plain", 1, told, measured_times(answers)))
    assert [(one.metric, one.percentile) for one in lines] == [
        (metric, percentile) for metric in METRICS for percentile in PERCENTILES
    ]
    assert [one.error for one in lines] == pytest.approx([0.0] * len(lines), abs=1e-6)


def test_accepted_drafts_make_tokens_cheaper() -> None:
    known = calibration()
    which = {scenario.name: scenario for scenario in scenarios(known, 1, 1)}
    told = predicted_times(known, which[ALWAYS], [answer("code")], users=1)
    assert told[0]["TPOT"] == pytest.approx(STEP_S / 5)
    rejected = predicted_times(known, which[ALWAYS], [answer("chat")], users=1)
    assert rejected[0]["TPOT"] == pytest.approx(STEP_S)


def test_the_simulated_router_has_the_settings_of_the_application() -> None:
    known = calibration()
    file = Path(__file__).parents[3] / "deployments" / "app.yaml"
    told = predicted_times(known, scenarios_of(known, file)[ROUTED], [answer("code")] * 8, users=2)
    assert all(len(times["E2E"]) == 8 for times in told)
    assert ALWAYS in scenarios_of(known, None)


def test_answers_of_one_token_have_no_time_per_token() -> None:
    times = measured_times([answer(tokens=1), answer(tokens=5)])
    assert [len(times[name]) for name in METRICS] == [2, 1, 2]
    assert np.all(times["TPOT"] == STEP_S)


@pytest.mark.parametrize(
    ("lines", "code", "told"),
    [
        ([line(1.1, 1.0), line(0.9, 1.0)], 0, "0 of 2 predictions"),
        ([line(1.1, 1.0), line(0.8, 1.0)], 1, "1 of 2 predictions"),
    ],
)
def test_one_line_outside_the_tolerance_fails(
    capsys: pytest.CaptureFixture[str], lines: Sequence[Line], code: int, told: str
) -> None:
    assert report(lines, 0.15) == code
    assert told in capsys.readouterr().out


def test_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "validation.png"
    known = calibration()
    which = {scenario.name: scenario for scenario in scenarios(known, 1, 1)}
    lines: list[Line] = []
    for users in (1, 2):
        told = predicted_times(known, which[NONE], [answer()] * 4, users)
        lines += compare("always plain", users, told, measured_times([answer()] * 4))
    draw(lines, path)
    assert path.read_bytes().startswith(b"\x89PNG")
