from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rayspec.link.channel import Inbox
from rayspec.link.patience import Patience
from rayspec.link.protocol import D2T, FrameShape, StepRow
from rayspec.ops.fetch import await_reply, fetch_drafts
from rayspec.ops.outcome import Outcome
from rayspec.ops.state import ExchangeState

SLOTS, K, VOCAB, EPOCH = 5, 3, 100, 7
SHAPE = FrameShape(SLOTS, K)
CPU = torch.device("cpu")


class Rig:
    def __init__(self) -> None:
        self.state = ExchangeState(SLOTS, K, CPU)
        self.arrived = torch.zeros(1, dtype=torch.int32)
        self.frame = torch.zeros(SHAPE.size, dtype=torch.int32)
        self.inbox = Inbox(self.frame, None, self.arrived, polled=False)
        self.drafts = torch.full((SLOTS, K + 1), -1, dtype=torch.int64)
        self.last = torch.arange(SLOTS, dtype=torch.int64).view(-1, 1) + 50

    def answer(self, step: int, *rows: StepRow, epoch: int = EPOCH) -> None:
        self.frame.copy_(D2T(epoch, step, 1000, rows).pack(SHAPE))
        self.arrived.fill_(step)

    def wait(self, step: int, asked_before: int = 0) -> None:
        await_reply(
            self.inbox,
            self.state,
            epoch=EPOCH,
            step=step,
            asked_before=asked_before,
            deadline_s=1,
        )

    def fetch(
        self,
        batch: Sequence[int],
        sampled: Sequence[int] | None = None,
        *,
        expected: bool = True,
        k: int = K,
        **options: Any,
    ) -> list[list[int]]:
        none = torch.zeros(0, dtype=torch.int32)
        counts = [1] * len(batch) if sampled is None else list(sampled)
        outcome = Outcome(
            len(batch),
            torch.tensor(batch),
            torch.tensor(counts, dtype=torch.int32),
            none,
            none,
            none,
            self.last,
        )
        fetch_drafts(
            self.drafts,
            self.inbox,
            outcome,
            self.state,
            k_want=k,
            vocab_size=VOCAB,
            expected=expected,
            **options,
        )
        drafts: list[list[int]] = self.drafts[: len(batch)].tolist()
        return drafts

    @property
    def link(self) -> dict[str, int]:
        return self.state.read().link


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    for slot in range(SLOTS):
        rig.state.set_slot(slot, 10 + slot, 0, K)
    return rig


def test_ragged_drafts_and_fillers(rig: Rig) -> None:
    rig.answer(4, StepRow(0, 10, (1, 2, 3)), StepRow(2, 12, (4,)), StepRow(3, 13, ()))
    rig.wait(4)
    assert rig.fetch([2, 0, 3, 1]) == [
        [4, 52, 52, 1],
        [1, 2, 3, 3],
        [53, 53, 53, 0],
        [51, 51, 51, 0],
    ]
    assert rig.state.slots[:, 3].tolist() == [3, 0, 1, 0, 0]
    assert (rig.link["received"], rig.link["stale"], rig.link["draft_us"]) == (1, 0, 1000)


def test_what_a_draft_must_not_say(rig: Rig) -> None:
    rows = [
        StepRow(0, 99, (1, 2, 3)),  # another generation
        StepRow(1, 11, (VOCAB, 2, 3)),
        StepRow(2, 12, (4, -5, 6)),
    ]
    rig.answer(1, *rows)
    rig.frame[4, 0], rig.frame[4, 1] = 13, K + 1  # more than fit
    rig.frame[5, 0], rig.frame[5, 1] = 14, -3
    rig.wait(1)
    drafts = rig.fetch(range(SLOTS))
    assert [row[K] for row in drafts] == [0, 0, 1, 0, 0]
    assert drafts[2][:K] == [4, 52, 52]
    assert rig.link["stale"] == 4


def test_a_candidate_writes_over_fillers_where_it_was_told_of_the_request(rig: Rig) -> None:
    rig.answer(4, StepRow(0, 10, (1, 2, 3)), StepRow(2, 12, (4,)))
    rig.state.set_slot(0, 10, 0, 0)
    rig.state.set_slot(1, 11, 0, 0)
    rig.wait(4)
    # Slot 0 is another draft's, which wrote its row before; slot 2 has drafts, slot 3 has none.
    assert rig.fetch([0, 1, 2, 3], told_only=True) == [
        [-1, -1, -1, -1],
        [-1, -1, -1, -1],
        [4, 52, 52, 1],
        [53, 53, 53, 0],
    ]


def test_limits_of_step_request_and_state(rig: Rig) -> None:
    rig.answer(1, *(StepRow(slot, 10 + slot, (1, 2, 3)) for slot in range(SLOTS)))
    rig.state.set_slot(1, 11, 0, 1)
    rig.state.set_slot(3, 13, 0, 0)
    rig.wait(1)
    counts = [row[K] for row in rig.fetch(range(SLOTS), [1, 1, 0, 1, 1], k=2)]
    assert counts == [2, 1, 0, 0, 2]  # slot 2 is in its prefill, slot 3 wants nothing
    assert [row[K] for row in rig.fetch(range(SLOTS), expected=False)] == [0] * SLOTS
    assert [row[K] for row in rig.fetch([0, 1], k=0)] == [0, 0]


@pytest.mark.parametrize("change", [{"epoch": 8}, {"step": 6}, {"magic": 1}])
def test_a_reply_of_another_step_is_stale(rig: Rig, change: dict[str, int]) -> None:
    rig.answer(change.get("step", 5), StepRow(0, 10, (1,)), epoch=change.get("epoch", EPOCH))
    if "magic" in change:
        rig.frame[0, 0] = 1
    rig.wait(5)
    assert rig.fetch([0]) == [[50, 50, 50, 0]]
    assert (rig.link["received"], rig.link["stale"]) == (0, 1)


def test_after_a_miss_ever_fewer_steps_wait(rig: Rig) -> None:
    def seen() -> tuple[int, int, int, int]:
        link = rig.link
        return link["received"], link["misses"], link["skipped"], link["lagging"]

    rig.answer(1)
    rig.wait(1)
    assert seen() == (1, 0, 0, 0)
    rig.wait(2, 1)
    assert seen() == (1, 1, 0, 1)
    rig.wait(3, 2)
    assert seen() == (1, 1, 1, 1)
    rig.answer(2)  # late, and not the newest
    rig.wait(4, 3)
    assert seen() == (1, 2, 1, 1)
    rig.answer(4)
    rig.wait(5, 4)  # it caught up, so it is waited for again, in vain
    assert seen() == (1, 3, 1, 1)
    rig.answer(6, StepRow(0, 10, (9,)))  # it was quicker than the lag
    rig.wait(6, 5)
    assert seen() == (2, 3, 1, 0)
    assert rig.fetch([0])[0] == [9, 50, 50, 1]


@pytest.mark.parametrize("chance", [0.0, 0.01, 0.3, 0.7, 1.0])
def test_the_device_is_as_patient_as_the_host(rig: Rig, chance: float) -> None:
    """Every step is answered in time, before the next one, or never."""
    draws = random.Random(int(chance * 100))
    patience, answered = Patience(), 0
    misses = skipped = 0
    for step in range(1, 601):
        waits = patience.waits(caught_up=answered == step - 1)
        in_time, late = draws.random() < chance, draws.random() < 0.3
        if in_time:
            answered = step
            rig.answer(step)
        rig.wait(step, step - 1)
        patience.learn(in_time=in_time)
        misses += waits and not in_time
        skipped += not waits and not in_time
        link = rig.link
        assert (link["misses"], link["skipped"]) == (misses, skipped)
        assert link["lagging"] == patience.lagging
        if late and not in_time:
            answered = step
            rig.answer(step)


def test_another_attachment_begins_afresh(rig: Rig) -> None:
    for step in range(1, 10):
        rig.wait(step, step - 1)
    before = rig.link["misses"]
    rig.wait(1)
    assert rig.link["misses"] == before + 1
    assert rig.state.flow.tolist() == [0, 1, 2, 0]


def test_shards_leave_each_others_rows_alone(rig: Rig) -> None:
    rig.answer(1, *(StepRow(slot, 10 + slot, (slot,)) for slot in range(SLOTS)))
    rig.wait(1)
    drafts = rig.fetch(range(SLOTS), shard=1, shards=2)
    assert [row[0] for row in drafts] == [-1, 1, -1, 3, -1]


def test_weights_travel_with_their_drafts(rig: Rig) -> None:
    top = 2
    arriving = torch.arange(SLOTS * K * 2 * top, dtype=torch.int32).view(SLOTS, K, 2 * top)
    kept = torch.full_like(arriving, -1)
    rig.inbox = Inbox(rig.frame, arriving, rig.arrived, polled=False)
    rig.answer(1, StepRow(1, 11, (5,)), StepRow(2, 99, (6,)))
    rig.wait(1)
    rig.fetch(range(SLOTS), q=kept)
    assert torch.equal(kept[1], arriving[1])
    assert (kept[[0, 2, 3, 4]] == -1).all()
