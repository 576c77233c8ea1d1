from __future__ import annotations

import asyncio

import pytest
from ray.exceptions import TaskCancelledError
from ray.serve.exceptions import RequestCancelledError

from rayspec.ingress.deadline import RequestTimeout
from rayspec.ingress.endings import cause_of
from rayspec.ingress.lanes import LaneDown, LaneFull


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (LaneFull("x"), "full"),
        (LaneDown("x"), "down"),
        (RequestTimeout("x"), "timeout"),
        (asyncio.CancelledError(), "disconnected"),
        (GeneratorExit(), "disconnected"),
        (TaskCancelledError(), "disconnected"),
        (RequestCancelledError("id"), "disconnected"),
        (ValueError("x"), "error"),
    ],
)
def test_every_ending_has_a_word(error: BaseException, word: str) -> None:
    assert cause_of(error) == word
