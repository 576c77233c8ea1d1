from __future__ import annotations

import pytest

from rayspec.routing.overlap import Overlap
from rayspec.routing.types import Lane
from tests.support.clock import Clock

S, P = Lane.SPECULATIVE, Lane.PLAIN


def test_the_share_follows_what_is_seen_and_forgets() -> None:
    clock = Clock()
    overlap = Overlap(clock, half_life_s=10.0)
    assert overlap.shares() == {}
    overlap.observe(P, beside=True)
    assert overlap.shares() == {P: 1.0}
    for _ in range(10):
        clock.advance(1.0)
        overlap.observe(P, beside=False)
    assert overlap.shares()[P] == pytest.approx(0.5)
    for _ in range(200):
        clock.advance(1.0)
        overlap.observe(P, beside=True)
    assert overlap.shares()[P] == pytest.approx(1.0, abs=1e-3)
    assert S not in overlap.shares()


def test_a_pause_counts_for_no_more_than_a_second_of_it() -> None:
    clock = Clock()
    overlap = Overlap(clock, half_life_s=1.0)
    overlap.observe(S, beside=False)
    clock.advance(1000.0)
    overlap.observe(S, beside=True)
    assert overlap.shares()[S] == pytest.approx(0.5)
