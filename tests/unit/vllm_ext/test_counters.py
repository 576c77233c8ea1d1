from __future__ import annotations

from rayspec.vllm_ext.counters import DraftCounters


def step(
    counters: DraftCounters, proposed: dict[str, int], scheduled: dict[str, int], **sampled: int
) -> None:
    for req_id, drafts in proposed.items():
        counters.propose(req_id, drafts)
    counters.schedule(scheduled)
    for req_id, tokens in sampled.items():
        counters.verify(req_id, tokens)


def test_counts_per_position() -> None:
    counters = DraftCounters(3)
    step(counters, {"a": 3, "b": 2}, {"a": 3, "b": 2}, a=3, b=1)
    assert (counters.steps, counters.drafted, counters.accepted) == (2, 5, 2)
    assert counters.drafted_per_pos == [2, 2, 1]
    assert counters.accepted_per_pos == [1, 1, 0]


def test_fillers_and_what_vllm_cut_do_not_count() -> None:
    counters = DraftCounters(3)
    # "a" was cut to one draft, "b" has fillers only, "c" was not scheduled at all.
    step(counters, {"a": 3, "c": 2}, {"a": 1, "b": 3}, a=2, b=1)
    assert (counters.drafted, counters.accepted) == (1, 1)


def test_drafts_are_counted_once() -> None:
    counters = DraftCounters(2)
    step(counters, {"a": 2}, {"a": 2}, a=3)
    step(counters, {}, {"a": 2}, a=1)
    assert (counters.drafted, counters.accepted) == (2, 2)


def test_a_step_that_sampled_nothing_verified_nothing() -> None:
    counters = DraftCounters(2)
    step(counters, {"a": 2}, {"a": 2}, a=0)
    assert counters.drafted == 0
