from __future__ import annotations

import logging

import pytest

from rayspec.vllm_ext.guard import Guard


def test_swallows_counts_and_logs_each_kind_once(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            with guard("propose"):
                raise ValueError("bad")
        with guard("propose"):
            raise KeyError("worse")
    assert guard.errors == {"propose:ValueError": 3, "propose:KeyError": 1}
    assert len(caplog.records) == 2


def test_lets_the_end_of_the_process_through() -> None:
    with pytest.raises(KeyboardInterrupt), Guard()("propose"):
        raise KeyboardInterrupt
