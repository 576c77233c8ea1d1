"""Properties of whole simulations: nothing is lost, no time runs backwards, queues behave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.planning.calibration import Calibration
from rayspec.planning.policies import Always, Fleet, Oracle, Policy
from rayspec.planning.routed import Routed
from rayspec.planning.simulate import Run, make_engines, simulate
from rayspec.planning.traces import ClassMix, Trace, closed_loop, open_loop
from rayspec.planning.workload import Workload
from rayspec.routing.types import Lane
from tests.support.planning import TIERS, calibration, calibrations, constant, lane, trace
from tests.support.properties import quick

BOTH = {Lane.SPECULATIVE: 1, Lane.PLAIN: 1}


def traffic(measured: Calibration, count: int, rate: float, seed: int = 0) -> Trace:
    mix = ClassMix({"code": 1, "chat": 1}, measured.classes)
    return open_loop(mix, count, rate, 1.0, seed)


def run(requests: Trace, measured: Calibration, name: str = "plain", seed: int = 0) -> Run:
    drawn = Workload(requests, measured.classes, seed)
    policies: dict[str, Callable[[Fleet], Policy]] = {
        "plain": lambda _: Always(Lane.PLAIN, 0),
        "speculative": lambda _: Always(Lane.SPECULATIVE, 3),
        "zero": lambda _: Always(Lane.SPECULATIVE, 0),
        "routed": lambda fleet: Routed(fleet, calibration=measured, tiers=TIERS),
        "oracle": lambda fleet: Oracle(fleet, TIERS),
    }
    fleet = {lane: count for lane, count in BOTH.items() if lane in measured.lanes}
    return simulate(drawn, make_engines(measured, fleet, drawn), policies[name])


@quick
@given(
    calibrations(),
    st.floats(0.2, 20),
    st.sampled_from(["plain", "speculative", "routed", "oracle"]),
)
def test_every_request_is_answered_once_and_in_order(
    measured: Calibration, rate: float, name: str
) -> None:
    requests = traffic(measured, 60, rate)
    found = run(requests, measured, name)
    assert found.arrived.tolist() == requests.arrivals.tolist()
    assert (found.ttft > 0).all()
    assert (found.finished >= found.first_token).all()
    several = requests.output_tokens > 1
    assert (found.finished[several] > found.first_token[several]).all()
    assert all(engine.idle and not engine.load for engine in found.engines)
    assert all(engine.backlog_tokens == 0 for engine in found.engines)
    # No request is faster than alone on the fastest step there is.
    prefill = measured.lanes[Lane.PLAIN].prefill
    assert (found.ttft >= requests.prompt_tokens * prefill.per_token_s).all()
    fastest = min(s.seconds for s in measured.lanes[Lane.PLAIN].steps)
    assert (found.total >= (requests.output_tokens - 1) // 6 * fastest * (1 - 1e-9)).all()


@quick
@given(calibrations(contention=False), st.floats(0.2, 20))
def test_an_engine_works_whenever_it_has_requests(measured: Calibration, rate: float) -> None:
    found = run(traffic(measured, 60, rate), measured)
    spans = sorted(zip(found.arrived.tolist(), found.finished.tolist(), strict=True))
    covered, until = 0.0, 0.0
    for start, end in spans:
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    assert sum(engine.busy_s for engine in found.engines) == pytest.approx(covered, rel=1e-6)


@quick
@given(calibrations(contention=False), st.floats(0.2, 10))
def test_more_load_is_no_faster(measured: Calibration, rate: float) -> None:
    requests = traffic(measured, 120, rate)
    calm, busy = (run(at, measured).total.mean() for at in (requests, requests.at_rate(3 * rate)))
    assert busy >= calm * 0.99


@quick
@given(calibrations(), st.floats(0.2, 20))
def test_without_drafts_the_lanes_are_equal(measured: Calibration, rate: float) -> None:
    requests = traffic(measured, 60, rate)
    plain, zero = (run(requests, measured, name) for name in ("plain", "zero"))
    assert np.allclose(plain.first_token, zero.first_token)
    assert np.allclose(plain.finished, zero.finished)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_seat_is_an_m_d_1_queue(load: float) -> None:
    steps, step_s = 20, 0.01
    service = steps * step_s
    measured = calibration(constant(step_s, base_s=step_s, max_num_seqs=1))
    mix = ClassMix({"code": 1}, {"code": measured.classes["code"]}, cv=0.0)
    requests = open_loop(mix, 40_000, load / service, 1.0, seed=3)
    requests.output_tokens[:] = steps
    found = run(requests, measured)
    # Pollaczek-Khinchine: the mean wait of a queue with Poisson arrivals and constant service.
    expected = load * service / (2 * (1 - load))
    assert found.total.mean() - service == pytest.approx(expected, rel=0.06)


def test_a_seat_for_everyone_means_nobody_waits() -> None:
    measured = calibration(constant(0.01, base_s=0.01, max_num_seqs=1000))
    requests = traffic(measured, 2000, 50.0)
    found = run(requests, measured)
    # At most the rest of the running step, then a step for the prompt and one for each token.
    alone = requests.output_tokens * 0.01
    assert (found.total >= alone - 1e-9).all()
    assert (found.total <= alone + 0.01 + 1e-6).all()


@quick
@given(calibrations(), st.integers(1, 8), st.floats(0, 1))
def test_users_send_one_request_at_a_time(measured: Calibration, users: int, think: float) -> None:
    mix = ClassMix({"code": 1, "chat": 1}, measured.classes)
    found = run(closed_loop(mix, 60, users, think, 0), measured, "routed")
    events = [(at, 1) for at in found.arrived] + [(at, -1) for at in found.finished]
    level = np.cumsum([change for _, change in sorted(events)])
    assert level.max() <= users
    assert (found.finished >= found.arrived).all()
    if users == 1:
        gaps = found.arrived[1:] - found.finished[:-1]
        assert np.allclose(gaps, think)


def test_a_seed_says_it_all() -> None:
    measured = calibration(constant(0.01), lane([(1, 0, 0.01), (1, 5, 0.015)]))
    requests = traffic(measured, 300, 5.0)
    one, same, other = (run(requests, measured, "routed", seed) for seed in (1, 1, 2))
    assert np.array_equal(one.finished, same.finished)
    assert not np.array_equal(one.finished, other.finished)


def test_progress_counts_every_request() -> None:
    measured = calibration(constant(0.01))
    drawn = Workload(traffic(measured, 2500, 5.0), measured.classes)
    told: list[int] = []
    engines = make_engines(measured, {Lane.PLAIN: 1}, drawn)
    simulate(drawn, engines, lambda _: Always(Lane.PLAIN, 0), told.append)
    assert sum(told) == 2500
    assert len(told) == 3


def test_replicas_share_the_requests() -> None:
    measured = calibration(constant(0.01, max_num_seqs=1))
    drawn = Workload(trace([0.0, 0.0], [101, 101]), measured.classes)
    found = simulate(
        drawn, make_engines(measured, {Lane.PLAIN: 2}, drawn), lambda _: Always(Lane.PLAIN, 0)
    )
    assert found.finished.tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert found.batch(Lane.PLAIN) == pytest.approx(1.0)
    assert found.batch(Lane.SPECULATIVE) == 0.0
