from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rayspec.routing.types import K_ARG
from rayspec.vllm_ext.config import STEP_K_ATTRIBUTE, ExtConfig
from rayspec.vllm_ext.scheduler import OwnDrafts, StepK, widest


class Base:
    """The part of vLLM's scheduler that the mixin touches."""

    use_v2_model_runner = True

    def __init__(self, tiers: Sequence[int] = ()) -> None:
        self.num_spec_tokens = 4
        self.max_num_running_reqs = 3
        self.scheduler_config = SimpleNamespace(max_num_seqs=3)
        ext = ExtConfig(k_tiers=tuple(tiers))
        self.vllm_config = SimpleNamespace(additional_config=ext.to_additional_config())
        self.dynamic_sd_lookup: list[int] | None = [9, 9]
        self.running: list[Any] = []
        self.kv_holding_waiting: list[Any] = []
        self.waiting: list[Any] = []
        self.requests: dict[str, Any] = {}

    def schedule(self, throttle_prefills: bool = False) -> list[int] | None:
        return self.dynamic_sd_lookup

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> str:
        return "done"

    def update_draft_token_ids(self, draft_token_ids: Any) -> None:
        for req_id, drafts in zip(
            draft_token_ids.req_ids, draft_token_ids.draft_token_ids, strict=True
        ):
            self.requests[req_id].spec_token_ids = drafts


class Scheduler(StepK, Base):
    pass


class OwnDraftScheduler(OwnDrafts, Base):
    def __init__(self, *requests: Any) -> None:
        super().__init__()
        self.requests = {str(n): request for n, request in enumerate(requests)}


class V1OwnDraftScheduler(OwnDraftScheduler):
    use_v2_model_runner = False


class V1Scheduler(Scheduler):
    use_v2_model_runner = False


def output(k: int | None) -> SimpleNamespace:
    return SimpleNamespace(**{STEP_K_ATTRIBUTE: k})


def requests(*ks: int | None) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(
            prompt_token_ids=[1],
            sampling_params=SimpleNamespace(extra_args=None if k is None else {K_ARG: k}),
        )
        for k in ks
    ]


@pytest.mark.parametrize(
    ("asked", "tiers", "k"),
    [
        ([], (0, 1, 3, 5), 0),
        ([0, 0], (0, 1, 3, 5), 0),
        ([1, 0, 1], (0, 1, 3, 5), 1),
        ([1, 2], (0, 1, 3, 5), 3),
        ([1, 4], (0, 3, 5, 1), 5),
        ([1, 9], (0, 1, 3, 5), 5),
        ([1, None], (0, 1, 3, 5), 5),
        ([2], (0, 5), 5),
        ([2, 1], (), 2),
    ],
)
def test_nobody_gets_less_than_asked(asked: list[int | None], tiers: Any, k: int) -> None:
    assert widest(asked, tiers, 5) == k


def test_declared_widths_choose_nothing() -> None:
    assert Scheduler().dynamic_sd_lookup is None


def test_k_follows_the_requests_that_a_step_may_have() -> None:
    scheduler = Scheduler((0, 1, 3, 4))
    scheduler.waiting = requests(1, 0, 0, None)
    assert scheduler.schedule() == [1] * 4  # three can be admitted: the fourth does not count
    scheduler.running, scheduler.waiting = requests(1, 0, 0), requests(None)
    assert scheduler.schedule() == [1] * 4
    scheduler.running, scheduler.waiting = requests(1, 0), requests(2)
    assert scheduler.schedule(throttle_prefills=True) == [3] * 4
    scheduler.running, scheduler.waiting = requests(0, 0), []
    assert scheduler.schedule() == [0] * 4
    scheduler.kv_holding_waiting = requests(None)
    assert scheduler.schedule() is None


def test_what_no_draft_is_told_of_asks_for_nothing() -> None:
    scheduler = Scheduler((0, 1, 4))
    scheduler.running = requests(None)
    scheduler.running[0].prompt_token_ids = None
    scheduler.running += [SimpleNamespace(prompt_token_ids=[1], sampling_params=None)]
    assert scheduler.schedule() == [0] * 4


def test_the_worker_allows_less_than_is_asked_for() -> None:
    scheduler = Scheduler((0, 1, 3, 4))
    scheduler.running = requests(None)
    for most, lookup in ((3, [3] * 4), (0, [0] * 4), (None, None)):
        scheduler.update_from_output(None, output(most))
        assert scheduler.schedule() == lookup
    scheduler.running = requests(1)
    scheduler.update_from_output(None, output(3))
    assert scheduler.schedule() == [1] * 4


def test_the_v1_runner_always_has_a_table_and_no_fillers_to_save() -> None:
    scheduler = V1Scheduler()
    assert scheduler.dynamic_sd_lookup == [4] * 4
    scheduler.running = requests(1)
    assert scheduler.schedule() == [4] * 4
    scheduler.update_from_output(None, output(1))
    assert scheduler.schedule() == [1] * 4
    scheduler.update_from_output(None, output(None))
    assert scheduler.schedule() == [4] * 4


@pytest.mark.parametrize(
    ("k", "lookup"), [(0, [0] * 4), (2, [2] * 4), (4, None), (9, None), (None, None), (-1, [0] * 4)]
)
def test_k_follows_the_worker(k: int | None, lookup: list[int] | None) -> None:
    scheduler = Scheduler()
    scheduler.running = requests(None)
    assert scheduler.update_from_output(None, output(k)) == "done"
    assert scheduler.schedule() == lookup


def test_an_output_without_our_attribute_changes_nothing() -> None:
    scheduler = Scheduler()
    scheduler.running = requests(None)
    scheduler.update_from_output(None, SimpleNamespace())
    assert scheduler.schedule() is None
    scheduler.update_from_output(None, output(0))
    scheduler.update_from_output(None, SimpleNamespace())
    assert scheduler.schedule() == [0] * 4


def test_requests_that_alternate_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rayspec")
    scheduler = Scheduler((0, 1, 4))
    for k in (1, None, 0, 1):
        scheduler.running = requests(k)
        scheduler.schedule()
    assert not caplog.records
    scheduler.update_from_output(None, output(0))
    assert len(caplog.records) == 1


def test_an_error_of_ours_leaves_the_step_its_k() -> None:
    scheduler = Scheduler((0, 1, 4))
    scheduler.running = requests(1)
    scheduler.schedule()
    scheduler.running = [object()]
    assert scheduler.schedule() == [1] * 4
    assert scheduler._guard.errors == {"schedule:AttributeError": 1}


def own_drafts(scheduler: OwnDraftScheduler) -> list[list[int]]:
    ids = list(scheduler.requests)
    drafts = SimpleNamespace(req_ids=ids, draft_token_ids=[[7, 8, 9] for _ in ids])
    scheduler.update_draft_token_ids(drafts)
    return [request.spec_token_ids for request in scheduler.requests.values()]


def test_a_request_gets_as_many_of_an_engines_own_drafts_as_it_asked_for() -> None:
    asked = requests(0, 2, 9, None)
    assert own_drafts(V1OwnDraftScheduler(*asked)) == [[], [7, 8], [7, 8, 9], [7, 8, 9]]


def test_on_the_v2_runner_batches_keep_their_width() -> None:
    assert own_drafts(OwnDraftScheduler(*requests(0, 2))) == [[7, 8, 9]] * 2


def test_an_error_of_ours_leaves_an_engine_its_drafts() -> None:
    scheduler = V1OwnDraftScheduler(SimpleNamespace())
    assert own_drafts(scheduler) == [[7, 8, 9]]
    assert scheduler._guard.errors == {"update_draft_token_ids:AttributeError": 1}
