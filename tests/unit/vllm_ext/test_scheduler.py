from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rayspec.vllm_ext.config import STEP_K_ATTRIBUTE
from rayspec.vllm_ext.scheduler import StepK


class Base:
    """The part of vLLM's scheduler that the mixin touches."""

    use_v2_model_runner = True

    def __init__(self) -> None:
        self.num_spec_tokens = 4
        self.scheduler_config = SimpleNamespace(max_num_seqs=3)
        self.dynamic_sd_lookup: list[int] | None = [9, 9]

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> str:
        return "done"


class Scheduler(StepK, Base):
    pass


class V1Scheduler(Scheduler):
    use_v2_model_runner = False


def output(k: int | None) -> SimpleNamespace:
    return SimpleNamespace(**{STEP_K_ATTRIBUTE: k})


def test_declared_widths_choose_nothing() -> None:
    assert Scheduler().dynamic_sd_lookup is None


def test_the_v1_runner_always_has_a_table() -> None:
    scheduler = V1Scheduler()
    assert scheduler.dynamic_sd_lookup == [4] * 4
    scheduler.update_from_output(None, output(1))
    assert scheduler.dynamic_sd_lookup == [1] * 4
    scheduler.update_from_output(None, output(None))
    assert scheduler.dynamic_sd_lookup == [4] * 4


@pytest.mark.parametrize(
    ("k", "lookup"), [(0, [0] * 4), (2, [2] * 4), (4, None), (9, None), (None, None), (-1, [0] * 4)]
)
def test_k_follows_the_worker(k: int | None, lookup: list[int] | None) -> None:
    scheduler = Scheduler()
    assert scheduler.update_from_output(None, output(k)) == "done"
    assert scheduler.dynamic_sd_lookup == lookup


def test_back_to_the_configured_k() -> None:
    scheduler = Scheduler()
    scheduler.update_from_output(None, output(1))
    scheduler.update_from_output(None, output(None))
    assert scheduler.dynamic_sd_lookup is None


def test_an_output_without_our_attribute_changes_nothing() -> None:
    scheduler = Scheduler()
    scheduler.update_from_output(None, SimpleNamespace())
    assert scheduler.dynamic_sd_lookup is None
    scheduler.update_from_output(None, output(0))
    scheduler.update_from_output(None, SimpleNamespace())
    assert scheduler.dynamic_sd_lookup == [0] * 4
