from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.routing.types import Decision, Lane, LaneView, header_safe, valid_class_name
from tests.support.properties import quick


@quick
@given(st.text(max_size=600))
def test_any_reason_and_class_become_safe_header_values(text: str) -> None:
    decision = Decision(Lane.PLAIN, text, text)

    for value in (decision.reason, decision.workload_class):
        assert value.isascii()
        assert value.isprintable()
        assert len(value) <= 200
        assert value == value.strip()


def test_a_safe_reason_stays_as_it_is() -> None:
    assert header_safe("concurrency 9 >= 8") == "concurrency 9 >= 8"
    assert Decision(Lane.PLAIN, "chat", "concurrency 9 >= 8").rule == "concurrency"


def test_a_long_reason_says_that_it_was_cut() -> None:
    assert header_safe("a" * 500) == "a" * 197 + "..."


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("chat", True),
        ("my-class_2", True),
        ("a" * 32, True),
        ("", False),
        ("a" * 33, False),
        ("Chat", False),
        ("chat\n", False),
        ("día", False),
        ("a b", False),
    ],
)
def test_class_names(name: str, valid: bool) -> None:
    assert valid_class_name(name) is valid


@pytest.mark.parametrize(
    ("own", "running", "waiting", "expected"), [(3, 5, 2, 7), (9, 5, 2, 9), (0, 0, 0, 0)]
)
def test_concurrency_is_the_larger_of_own_and_reported(
    own: int, running: int, waiting: int, expected: int
) -> None:
    view = LaneView(Lane.PLAIN, in_flight=own, running=running, waiting=waiting)

    assert view.concurrency == expected


def test_each_lane_has_others() -> None:
    assert Lane.PLAIN.others(Lane) == (Lane.SPECULATIVE, Lane.ALTERNATIVE)
    assert Lane.SPECULATIVE.others([Lane.PLAIN, Lane.SPECULATIVE]) == (Lane.PLAIN,)
