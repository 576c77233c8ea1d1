from __future__ import annotations

import logging

import pytest

from rayspec.priority import warn_if_low


@pytest.mark.parametrize(("niceness", "warned"), [(15, True), (1, True), (0, False), (-5, False)])
def test_a_low_priority_is_told(
    niceness: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rayspec.priority"):
        warn_if_low(niceness)

    assert [f"niceness {niceness}" in r.getMessage() for r in caplog.records] == [True] * warned
