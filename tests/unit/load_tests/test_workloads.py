"""Lengths, mixes and sessions of the load test."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from itertools import islice

import pytest

from load_tests.workloads import PROFILES, Lengths, Limits, Sessions, deal, parse_mix
from load_tests.workloads.material import CHARS_PER_TOKEN, fill


def test_lengths_are_lognormal() -> None:
    rng = random.Random(1)
    lengths = Lengths(200, 0.6, 1, 100_000)
    drawn = [lengths.draw(rng) for _ in range(4000)]
    assert statistics.median(drawn) == pytest.approx(200, rel=0.06)
    logarithms = [math.log(length) for length in drawn]
    assert statistics.stdev(logarithms) == pytest.approx(0.6, rel=0.06)
    # Skewed as such traffic is: the mean lies above the median.
    assert statistics.fmean(drawn) == pytest.approx(200 * math.exp(0.6**2 / 2), rel=0.1)


def test_lengths_are_cut_and_scaled() -> None:
    rng = random.Random(1)
    drawn = [Lengths(50, 2.0, 20, 80).draw(rng) for _ in range(500)]
    assert (min(drawn), max(drawn)) == (20, 80)
    assert Lengths(50, 1.0, 20, 80).scaled(0.1) == Lengths(5.0, 1.0, 2, 8)
    assert Lengths(4, 1.0, 2, 8).scaled(0.01) == Lengths(1.0, 1.0, 1, 1)
    with pytest.raises(ValueError, match="no distribution"):
        Lengths(10, 1.0, 20, 80)


def test_mixes() -> None:
    assert parse_mix("code=0.3, chat=0.9", PROFILES) == pytest.approx({"code": 0.25, "chat": 0.75})
    assert parse_mix("code,chat=0", PROFILES) == {"code": 1.0}
    assert sum(profile.share for profile in PROFILES.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("poems=1", "no class 'poems'"),
        ("code=1,code=1", "twice"),
        ("code=x", "not a number"),
        ("code=-1", "not negative"),
        ("code=nan", "not negative"),
        ("code=0", "all shares are 0"),
        ("", "no class"),
    ],
)
def test_a_mix_that_is_none(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_mix(text, PROFILES)


def test_short_stretches_have_all_classes() -> None:
    mix = {name: profile.share for name, profile in PROFILES.items()}
    for start in (0.0, 0.5, 7.25):
        dealt = list(islice(deal(mix, start), 200))
        for first in range(0, 180, 20):
            counts = Counter(dealt[first : first + 20])
            assert set(counts) == set(mix)
            assert all(abs(counts[name] - 20 * share) < 2.5 for name, share in mix.items())


@pytest.mark.parametrize("kind", ["prose", "code", "records"])
def test_material_is_as_long_as_wanted_and_does_not_repeat(kind: str) -> None:
    text = fill(kind, 500, random.Random(3))
    assert 420 < len(text) / CHARS_PER_TOKEN <= 500
    parts = text.split("\n\n" if kind == "code" else ". " if kind == "prose" else "\n")
    assert len(set(parts)) >= 0.95 * len(parts)
    assert fill(kind, 2, random.Random(3)) == ""
    assert fill("", 500, random.Random(3)) == ""


@pytest.mark.parametrize("workload", PROFILES)
def test_sessions_depend_on_their_seed_only(workload: str) -> None:
    sessions = Sessions(5, 40, Limits())
    drawn = [sessions.session(workload, number) for number in range(40)]
    assert drawn == [Sessions(5, 40, Limits()).session(workload, number) for number in range(40)]
    assert drawn != [Sessions(6, 40, Limits()).session(workload, number) for number in range(40)]
    assert len({session.turns for session in drawn}) > 20
    assert all(len(session.turns) == len(session.max_tokens) for session in drawn)
    assert sessions.draw(workload, random.Random(1)) in drawn
    turns = statistics.fmean(len(session.turns) for session in drawn)
    assert (turns > 1) == (PROFILES[workload].turns > 1)
    lengths = [len(session.turns[0]) / CHARS_PER_TOKEN for session in drawn]
    if PROFILES[workload].material:
        assert max(lengths) > 3 * min(lengths)


@pytest.mark.parametrize("workload", PROFILES)
def test_sessions_fit_into_a_small_context(workload: str) -> None:
    sessions = Sessions(5, 30, Limits(context=512))
    for number in range(30):
        session = sessions.session(workload, number)
        assert max(session.max_tokens) <= 128
        # Instructions are not cut; only a given text of a summary is longer than a quarter.
        assert len(session.turns[0]) / CHARS_PER_TOKEN < 256


def test_a_turn_that_does_not_fit_is_not_asked() -> None:
    session = Sessions(5, 30, Limits()).session("chat", 3)
    needed = len(session.turns[1]) // 2 + 32 + session.max_tokens[1]
    assert session.fits(1, 100, 100 + needed)
    assert not session.fits(1, 101, 100 + needed)
    assert session.fits(1, 10**6, None)


def test_json_is_enforced_only_where_it_was_asked_for() -> None:
    sessions = [Sessions(5, 60, Limits()).session("structured", n) for n in range(60)]
    assert {session.json for session in sessions} == {True, False}
    assert all(session.json == ("JSON" in session.turns[0]) for session in sessions)


def test_scales_are_positive() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Limits(prompt_scale=0)
