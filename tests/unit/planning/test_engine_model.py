"""One engine, by hand: budgets, seats, chunks, verification, jumps and their cuts."""

from __future__ import annotations

import pytest

from rayspec.planning.calibration import Calibration
from rayspec.planning.engine_model import Engine, Taken
from rayspec.planning.policies import Always
from rayspec.planning.simulate import Run, make_engines, simulate
from rayspec.planning.traces import Trace
from rayspec.routing.types import Lane
from tests.support.planning import calibration, constant, lane, trace, workload


def run(
    requests: Trace, measured: Calibration, which: Lane = Lane.PLAIN, k: int = 0, engines: int = 1
) -> Run:
    drawn = workload(requests, measured)
    fleet = make_engines(measured, {which: engines}, drawn)
    return simulate(drawn, fleet, lambda _: Always(which, k))


def test_one_request_alone() -> None:
    measured = calibration(lane([(1, 0, 0.01)], base_s=0.02, per_token_s=1e-4))
    found = run(trace([5.0], [11], [100]), measured)
    assert found.ttft[0] == pytest.approx(0.02 + 100 * 1e-4)
    assert found.total[0] == pytest.approx(0.03 + 10 * 0.01)


def test_a_prompt_is_prefilled_in_chunks() -> None:
    measured = calibration(lane([(1, 0, 0.01)], base_s=0.02, per_token_s=1e-4, chunk_tokens=40))
    found = run(trace([0.0], [1], [100]), measured)
    assert found.ttft[0] == pytest.approx(3 * 0.02 + 100 * 1e-4)
    assert found.total[0] == found.ttft[0]


def test_decoding_goes_on_beside_a_prefill_and_waits_for_it() -> None:
    measured = calibration(lane([(1, 0, 0.01), (2, 0, 0.01)], base_s=0.0, per_token_s=1e-3))
    # The second prompt arrives in the middle of the first's third decode step.
    found = run(trace([0.0, 0.125], [10, 2], [100, 50]), measured)
    # 0.1 prefill, steps until 0.13, a step of 0.01 with 50 tokens more, then decoding in twos.
    assert found.first_token[1] == pytest.approx(0.13 + 0.01 + 0.05)
    assert found.finished[1] == pytest.approx(0.20)
    assert found.finished[0] == pytest.approx(0.1 + 9 * 0.01 + 0.05)


def test_decoding_takes_its_tokens_out_of_the_budget_first() -> None:
    points = [(1, 5, 0.01), (2, 5, 0.01)]
    measured = calibration(
        None, lane(points, per_token_s=1e-12, chunk_tokens=16), {"code": [0.0]}, tiers=[5]
    )
    # The first request decodes with 6 tokens a step, which leaves 10 of 16 for the second prompt.
    found = run(trace([0.0, 0.095], [100, 1], [16, 40]), measured, Lane.SPECULATIVE, 5)
    assert found.first_token[1] == pytest.approx(0.10 + 4 * 0.01)


def test_no_more_than_max_num_seqs_run() -> None:
    measured = calibration(constant(0.01, max_num_seqs=2))
    found = run(trace([0.0] * 3, [11, 21, 11]), measured)
    # The second comes when the first's prompt is on its way, so that it is a step behind. The third
    # takes the first one's seat; its prompt is in a step in which the second decodes.
    assert found.finished[:2].tolist() == pytest.approx([0.10, 0.21], abs=1e-6)
    assert found.first_token[2] == pytest.approx(0.11, abs=1e-6)
    assert found.finished[2] == pytest.approx(0.21, abs=1e-6)


def test_accepted_drafts_shorten_answers() -> None:
    curve = [(1, 0, 0.010), (1, 3, 0.012)]
    measured = calibration(None, lane(curve), {"code": [1.0]}, tiers=[3])
    found = run(trace([0.0], [41]), measured, Lane.SPECULATIVE, 3)
    assert found.total[0] == pytest.approx(10 * 0.012, abs=1e-6)
    rejected = calibration(None, lane(curve), {"code": [0.0]}, tiers=[3])
    found = run(trace([0.0], [41]), rejected, Lane.SPECULATIVE, 3)
    assert found.total[0] == pytest.approx(40 * 0.012, abs=1e-6)


def test_steps_slow_down_with_batch_and_context() -> None:
    profile = lane([(1, 0, 0.010), (2, 0, 0.014)])
    longer = profile.steps[0].model_copy(update={"context": 300, "seconds": 0.012})
    measured = calibration(profile.model_copy(update={"steps": [*profile.steps, longer]}))
    # Context from 101 on costs 0.01 ms a token: the sum of 10 steps has 1 + 2 + … + 9 + 10 of it.
    found = run(trace([0.0], [11]), measured)
    assert found.total[0] == pytest.approx(10 * 0.010 + 55e-5, rel=1e-6)
    # The second one's prompt comes with the first step; then contexts are 2 and 1, … 10 and 9 more.
    both = run(trace([0.0, 0.0], [11, 11]), measured)
    assert both.total[0] == pytest.approx(0.01001 + 9 * 0.014 + 99e-5, rel=1e-6)


def test_an_arrival_cuts_a_jump_at_the_end_of_its_step() -> None:
    measured = calibration(constant(0.01))
    drawn = workload(trace([0.0, 1.0], [1001, 2]), measured)
    (engine,) = make_engines(measured, {Lane.PLAIN: 1}, drawn)
    engine.enqueue(0, 0)
    assert engine.begin(0.0) == pytest.approx(0.0, abs=1e-6)
    assert engine.end() == ([0], [])
    assert engine.begin(0.0) == pytest.approx(10.0)
    assert engine.cut(0.0999) == pytest.approx(0.10)
    assert engine.cut(0.0999) is None
    version = engine.version
    engine.end()
    engine.enqueue(1, 0)
    assert engine.begin(0.10) == pytest.approx(0.11)
    assert engine.version > version


def test_engines_of_a_shared_machine_slow_each_other_down() -> None:
    shared = constant(0.01, contention=2.0)
    measured = calibration(shared)
    # The first is alone for 0.1 s, then both work; after its end the second is alone again.
    found = run(trace([0.0, 0.1], [21, 31]), measured, engines=2)
    assert found.finished[0] == pytest.approx(0.1 + 10 * 0.02, abs=1e-6)
    assert found.finished[1] == pytest.approx(0.3 + 20 * 0.01, abs=1e-6)


def test_time_outside_of_the_engine_is_added() -> None:
    profile = constant(0.01).model_copy(update={"overhead_s": 0.5})
    found = run(trace([0.0], [11]), calibration(profile))
    assert found.ttft[0] == pytest.approx(0.5, abs=1e-6)
    assert found.total[0] == pytest.approx(0.6, abs=1e-6)


def test_more_time_outside_where_the_engine_is_busy() -> None:
    profile = constant(0.01).model_copy(update={"overhead_s": 0.5, "busy_overhead_s": 0.2})
    # The second also waits for the rest of a step, and its prompt is in the next one.
    found = run(trace([0.0, 0.095], [31, 11]), calibration(profile))
    assert found.ttft.tolist() == pytest.approx([0.5, 0.715], abs=1e-6)
    assert found.total.tolist() == pytest.approx([0.8, 0.815], abs=1e-6)


def test_drafts_that_are_rarely_there_cost_fewer_tokens() -> None:
    curve = lane([(1, 0, 0.010), (1, 4, 0.018)])
    measured = calibration(None, curve, {"code": [0.0]}, tiers=[4])
    half = measured.classes["code"].model_copy(update={"coverage": 0.5})
    measured = measured.model_copy(update={"classes": {"code": half}})
    found = run(trace([0.0], [11]), measured, Lane.SPECULATIVE, 4)
    assert found.total[0] == pytest.approx(10 * 0.014, abs=1e-6)


def test_an_engine_without_work_begins_nothing() -> None:
    measured = calibration(constant(0.01))
    (engine,) = make_engines(measured, {Lane.PLAIN: 1}, workload(trace([0.0], [1]), measured))
    assert isinstance(engine, Engine)
    assert engine.begin(0.0) is None
    assert engine.idle
    assert engine.cut(1.0) is None


def test_what_an_engine_took_can_be_measured() -> None:
    measured = calibration(lane([(1, 0, 0.01)], per_token_s=1e-3))
    drawn = workload(trace([0.0], [11], [50]), measured)
    (engine,) = make_engines(measured, {Lane.PLAIN: 1}, drawn)
    seen: list[Taken] = []
    engine.on_taken = seen.append
    simulate(drawn, [engine], lambda _: Always(Lane.PLAIN, 0))

    prompt, decoding = seen
    assert (prompt.prompt_tokens, prompt.batch, prompt.steps) == (50, 0, 1)
    assert prompt.at == pytest.approx(prompt.seconds) == pytest.approx(0.05)
    assert (decoding.prompt_tokens, decoding.batch, decoding.steps) == (0, 1, 10)
    assert decoding.seconds == pytest.approx(0.01)
    assert decoding.at == pytest.approx(0.15)


@pytest.mark.parametrize(("mixing", "beside"), [(0.0, 0.02), (0.5, 0.025), (1.0, 0.03)])
def test_a_step_with_a_prompt_takes_a_share_of_the_shorter_part_on_top(
    mixing: float, beside: float
) -> None:
    profile = lane([(1, 0, 0.01), (2, 0, 0.01)], base_s=0.02, per_token_s=1e-9)
    measured = calibration(profile.model_copy(update={"mixing": mixing}))
    found = run(trace([0.0, 0.025], [10, 1]), measured)
    assert found.first_token[1] == pytest.approx(0.03 + beside, abs=1e-6)


def test_where_steps_are_scheduled_ahead_a_request_waits_for_one_more() -> None:
    profile = lane([(1, 0, 0.01), (2, 0, 0.01)])
    ahead = calibration(profile.model_copy(update={"wait_steps": 1}))
    # The first is alone in an idle engine; the second comes in the middle of a step.
    requests = trace([0.0, 0.025, 0.027], [10, 3, 3], [1, 1, 1])
    for measured, first in ((calibration(profile), 0.04), (ahead, 0.05)):
        found = run(requests, measured)
        assert found.first_token[1:].tolist() == pytest.approx([first, first], abs=1e-6)
        assert found.finished[0] == pytest.approx(0.09, abs=1e-6)


def test_who_waits_for_a_seat_takes_it_at_once() -> None:
    profile = lane([(1, 0, 0.01)], max_num_seqs=1)
    for measured in (
        calibration(profile),
        calibration(profile.model_copy(update={"wait_steps": 1})),
    ):
        found = run(trace([0.0, 0.025], [10, 3]), measured)
        assert found.first_token[1] == pytest.approx(0.09, abs=1e-6)
