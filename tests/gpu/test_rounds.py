"""Draft rounds on CUDA: captured graphs, prefill on its own stream, replies over the host."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("triton")

import torch

from tests.support.rounds_rig import Rig, random_run
from tests.support.sampling_checks import (
    check_drafts_are_given_out_with_their_weights,
    check_greedy_takes_the_lowest_of_equals,
    check_sampled_ids_follow_the_weights,
    check_top_and_weights,
)

pytestmark = pytest.mark.gpu

PROMPT = list(range(5, 30))


@pytest.mark.parametrize("accepted", [0, 1, 2, 3, 4])
def test_drafts_follow_whatever_was_accepted(accepted: int) -> None:
    rig = Rig("cuda:0")
    target = rig.target()
    target.begin(2, PROMPT)
    drafts = target.step(s2=[])
    for token in range(5):
        drafts = target.step(s2=[*drafts[2][:accepted], token])
        assert len(drafts[2]) == 4
    stats = rig.engine.stats()
    assert stats.round_p50_us > 0
    assert stats.prefill_pieces == 1
    rig.close()


@pytest.mark.parametrize("widest", [2, 32])
@pytest.mark.parametrize("seed", range(6))
def test_random_schedules_of_two_targets(seed: int, widest: int) -> None:
    chance = random.Random(seed)
    rig = Rig("cuda:0", blocks=40 if seed % 2 else None, widest=widest)
    one, two = rig.target(), rig.target(slots=3)
    drafted = sum(
        random_run(rig, target, chance, steps=60, patient_every=2)
        for _ in range(4)
        for target in (one, two)
    )
    assert drafted > 200
    rig.close()


def test_what_does_not_fit_waits_and_prefill_disturbs_nobody() -> None:
    rig = Rig("cuda:0")
    target = rig.target()
    for slot in range(4):
        target.begin(slot, [*PROMPT, slot])
    target.step(s0=[], s1=[], s2=[], s3=[])
    target.begin(4, PROMPT)
    for token in range(8):
        target.tell(4, {slot: [token] for slot in range(4)})
        rig.settle()
        assert all(len(drafts) == 4 for drafts in target.take(ready=True).values())
    rig.close()


@pytest.mark.parametrize("vocab", [40, 600, 49152, 128256])
def test_greedy_takes_the_lowest_of_equals(vocab: int) -> None:
    check_greedy_takes_the_lowest_of_equals("cuda:0", vocab)


@pytest.mark.parametrize("vocab", [40, 600, 9001])
@pytest.mark.parametrize("top", [2, 32, 64])
def test_top_and_weights(vocab: int, top: int) -> None:
    check_top_and_weights("cuda:0", vocab, top)


def test_sampled_ids_follow_the_weights() -> None:
    check_sampled_ids_follow_the_weights("cuda:0", rows=32, rounds=400)


def test_drafts_are_given_out_with_their_weights() -> None:
    check_drafts_are_given_out_with_their_weights("cuda:0")


def test_nothing_synchronises_the_host() -> None:
    rig = Rig("cuda:0")
    target = rig.target()
    target.begin(0, PROMPT)
    drafts = target.step(s0=[])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for token in range(3):
            drafts = target.step(s0=[*drafts[0][:2], token])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(drafts[0]) == 4
    rig.close()
