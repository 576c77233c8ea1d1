from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing import Decision, Lane, LaneView, Outcome, Ticket
from rayspec.routing.cost_model import Prediction, expected_tokens
from rayspec.telemetry.history import INTERVAL_S, INTERVALS, History, Kept, merge
from tests.support.clock import Clock
from tests.support.one_draft import predicted
from tests.support.properties import quick

S, P = Lane.SPECULATIVE, Lane.PLAIN


def ticket(lane: Lane = S, name: str = "chat", *, sequences: int = 1) -> Ticket:
    prediction = Prediction(0.1, 0.01, 1.5, 4)
    forecast = predicted({S: prediction}, prediction, 0.5, False, 0.3, (0.5, 0.9, 0.9, 0.9))
    return Ticket(Decision(lane, name, "faster than slow", 4, forecast), sequences, 0.0)


def outcome(drafted: int = 8, accepted: int = 6) -> Outcome:
    return Outcome("chat", S, 2, drafted, accepted, 10, True)


def test_a_request_is_told_from_its_decision_to_its_end() -> None:
    clock = Clock(1000.0)
    history, one = History(clock), ticket()
    history.decided(one, "chat", {S: 3, P: 1})
    (told,) = history.kept().decisions
    assert (told.at, told.lane, told.reason, told.k) == (1000.0, S, "faster than slow", 4)
    assert told.predicted_s == {S: 1.5}
    assert told.loads == {S: 3, P: 1}
    assert told.finished is None

    clock.now += 2.5
    history.finished(one, outcome())
    history.finished(one, outcome())  # a second hand-back changes nothing
    (ended,) = history.kept().decisions
    assert (ended.finished, ended.seconds, ended.output_tokens) == (True, 2.5, 10)
    (interval,) = history.kept().intervals
    assert interval.at == 1000
    assert interval.lanes[S].tokens == 10
    assert interval.classes["chat"].drafted == 8
    assert interval.classes["chat"].accepted == 6


def test_a_request_that_was_cut_off_gives_no_tokens() -> None:
    history, one = History(Clock(1000.0)), ticket()
    history.decided(one, "chat", {})
    history.finished(one, None)
    (told,) = history.kept().decisions
    assert told.finished is False
    assert history.kept().intervals[0].lanes[S].tokens == 0


def test_what_is_no_generation_is_left_out() -> None:
    history = History(Clock(1000.0))
    history.decided(ticket(sequences=0), "none", {})
    assert history.kept() == Kept()


def test_breakeven_is_compared_with_what_yields_as_many_tokens() -> None:
    """A draft that seldom has a token, but then good ones, yields more than its first position."""
    history = History(Clock(1000.0))
    history.decided(ticket(), "chat", {})
    breakeven, expected = history.kept().breakeven["chat", S]
    assert breakeven == 0.3
    tokens = expected_tokens((0.5, 0.9, 0.9, 0.9), 4)
    assert abs(expected_tokens(expected, 4) - tokens) < 1e-6
    assert expected > 0.5


def test_load_is_a_mean_over_samples() -> None:
    clock = Clock(1000.0)
    history = History(clock)
    for load in (2, 4):
        history.sample({S: LaneView(S, in_flight=load)})
        clock.now += 1
    (interval,) = history.kept().intervals
    assert (interval.lanes[S].load, interval.lanes[S].samples) == (6, 2)


def test_memory_is_bounded() -> None:
    clock = Clock(0.0)
    history = History(clock)
    for _ in range(2 * INTERVALS):
        history.decided(ticket(), "chat", {})  # and never handed back
        clock.now += INTERVAL_S
    kept = history.kept()
    assert len(kept.intervals) == INTERVALS
    assert len(kept.decisions) == 50
    assert kept.decisions[0].at > kept.decisions[-1].at


def test_a_clock_that_is_set_back_does_not_confuse_it() -> None:
    clock = Clock(1000.0)
    history, one = History(clock), ticket()
    history.decided(one, "chat", {})
    clock.now = 500.0
    history.finished(one, outcome())
    (interval,) = history.kept().intervals
    assert interval.lanes[S].tokens == 10
    assert history.kept().decisions[0].seconds == 0


@quick
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100), st.sampled_from(["a", "b"]))))
def test_replicas_add_up_to_what_one_would_have_seen(events: list[tuple[int, int, str]]) -> None:
    clock = Clock(0.0)
    parts, whole = [History(clock) for _ in range(3)], History(clock)
    for replica, seconds, name in events:
        clock.now += seconds
        for history in (parts[replica], whole):
            one = ticket(name=name)
            history.decided(one, name, {})
            history.finished(one, outcome())
    # As it arrives from another process.
    sent = [pickle.loads(pickle.dumps(part.kept())) for part in parts]
    merged, alone = merge(sent), whole.kept()
    assert merged.intervals == alone.intervals
    assert [told.at for told in merged.decisions] == [told.at for told in alone.decisions]
