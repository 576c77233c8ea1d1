"""Scenarios stand on equal hardware, results are counted right, and verdicts follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from rayspec.errors import ConfigError
from rayspec.planning.calibration import Calibration
from rayspec.planning.goodput import ALL, Slo, summarize
from rayspec.planning.scenarios import ALWAYS, NONE, ORACLE, ROUTED, compare, scenarios
from rayspec.planning.simulate import Run
from rayspec.planning.traces import ClassMix, closed_loop
from rayspec.planning.verdict import Verdict, judge
from rayspec.planning.workload import Workload
from rayspec.routing.types import Lane
from tests.support.planning import calibration, lane, trace, workload

FLAT = [(b, 0, 0.01) for b in (1, 16)]


def drafts(cost: float) -> list[tuple[int, int, float]]:
    """Return steps that each draft makes longer by `cost` of a plain step."""
    return [(b, k, 0.01 * (1 + cost * k)) for b in (1, 16) for k in (0, 5)]


@pytest.mark.parametrize(
    ("gpus", "replicas", "none", "always"),
    [
        ((2, 1), (1, 1), {Lane.PLAIN: 3}, {Lane.SPECULATIVE: 1}),
        ((3, 2), (2, 1), {Lane.PLAIN: 4}, {Lane.SPECULATIVE: 2}),
        ((2, 1), (0, 4), {Lane.PLAIN: 4}, {Lane.SPECULATIVE: 2}),
        ((0, 0), (1, 1), {Lane.PLAIN: 1}, {Lane.SPECULATIVE: 1}),
        ((0, 0), (1, 0), {Lane.PLAIN: 1}, {Lane.SPECULATIVE: 1}),
    ],
)
def test_equal_hardware(
    gpus: tuple[int, int],
    replicas: tuple[int, int],
    none: dict[Lane, int],
    always: dict[Lane, int],
) -> None:
    measured = calibration(lane(FLAT, gpus=gpus[1]), lane(drafts(0.1), gpus=gpus[0]))
    found = {scenario.name: scenario for scenario in scenarios(measured, *replicas)}
    assert found[NONE].replicas == none
    assert found[ALWAYS].replicas == always
    total = gpus[0] * replicas[0] + gpus[1] * replicas[1]
    assert found[ROUTED].gpus == found[ORACLE].gpus == total
    assert max(found[NONE].gpus, found[ALWAYS].gpus) <= total


def test_one_lane_has_no_scenario_of_the_other() -> None:
    found = scenarios(calibration(lane(FLAT)), 0, 2)
    assert [scenario.name for scenario in found] == [NONE, ROUTED, ORACLE]
    assert found[0].hardware == "2 plain (2 GPUs)"


@pytest.mark.parametrize("replicas", [(0, 0), (1, 1), (-1, 1)])
def test_impossible_fleets_are_refused(replicas: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="replicas"):
        scenarios(calibration(lane(FLAT)), *replicas)


def test_results_by_hand() -> None:
    requests = trace([0.0, 1.0, 2.0], [11, 11, 1], classes=["code", "chat", "chat"])
    drawn = workload(requests, calibration(lane(FLAT)))
    first, done = np.array([0.1, 1.5, 2.2]), np.array([1.1, 2.0, 2.2])
    run = Run(requests.arrivals, first, done, np.array([1, 1, 0]), np.array([3, 1, 0]), [])
    found = summarize(run, drawn, Slo(ttft_s=0.4, tpot_s=0.06))
    # The first misses on 0.1 s a token, the second on 0.5 s; the third has no further token.
    assert found[ALL].attainment == pytest.approx(1 / 3)
    assert found[ALL].goodput_rps == pytest.approx(1 / 2.2)
    assert found[ALL].output_tokens_per_s == pytest.approx(23 / 2.2)
    assert found["code"].tpot.p50 == pytest.approx(0.1)
    assert found["code"].mean_k == 3
    assert found["chat"].ttft.p50 == pytest.approx(0.35)
    assert found["chat"].speculative_share == 0.5
    assert found["chat"].mean_total_s == pytest.approx(0.6)


def verdicts(measured: Calibration, slo: Slo, users: int = 4) -> dict[str, Verdict]:
    mix = ClassMix(dict.fromkeys(measured.classes, 1.0), measured.classes)
    drawn = Workload(closed_loop(mix, 300, users, 0.0, 0), measured.classes)
    outcomes = compare(measured, drawn, scenarios(measured, 1, 1), slo)
    found = [judge(name, outcomes, measured, slo, drawn.context) for name in measured.classes]
    return {verdict.workload_class: verdict for verdict in found if verdict}


def test_good_drafts_are_recommended_and_bad_ones_are_not() -> None:
    cheap = calibration(lane(FLAT, gpus=0), lane(drafts(0.05), gpus=0), {"code": [0.9]}, [5])
    assert verdicts(cheap, Slo())["code"].advice == "enable"
    dear = calibration(lane(FLAT, gpus=0), lane(drafts(0.9), gpus=0), {"code": [0.2]}, [5])
    found = verdicts(dear, Slo())["code"]
    assert found.advice == "disable"
    assert "costs 5.50 plain steps" in found.sentence
    assert found.sentence.count(". ") == 0


def test_classes_are_told_apart() -> None:
    rates = {"code": [0.95], "chat": [0.05]}
    measured = calibration(lane(FLAT, gpus=0), lane(drafts(0.3), gpus=0), rates, [5])
    found = verdicts(measured, Slo())
    assert found["code"].advice in ("enable", "route")
    assert found["chat"].advice == "disable"


def test_limits_decide_where_they_are_given() -> None:
    measured = calibration(lane(FLAT, gpus=0), lane(drafts(0.05), gpus=0), {"code": [0.9]}, [5])
    sentence = verdicts(measured, Slo(tpot_s=0.006))["code"].sentence
    assert "instead of 0.0% within the limits" in sentence


def test_without_a_plain_lane_there_is_no_verdict() -> None:
    measured = calibration(None, lane(drafts(0.1)), {"code": [0.9]}, [5])
    mix = ClassMix({"code": 1}, measured.classes)
    drawn = Workload(closed_loop(mix, 20, 1, 0.0, 0), measured.classes)
    outcomes = compare(measured, drawn, scenarios(measured, 1, 0), Slo())
    assert list(outcomes) == [ALWAYS, ROUTED, ORACLE]
    assert judge("code", outcomes, measured, Slo(), drawn.context) is None
