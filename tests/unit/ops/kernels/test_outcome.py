from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from rayspec.link.protocol import T2D, FrameShape
from rayspec.ops.outcome import Outcome, StepWords, pack_outcome
from rayspec.ops.state import ExchangeState

SLOTS, K, MAX_LEN = 6, 3, 40
SHAPE = FrameShape(SLOTS, K)
CPU = torch.device("cpu")


@dataclass
class Slot:
    gen: int = 0
    told: int = 0
    k: int = 0
    proposed: int = 0
    tokens: list[int] = field(default_factory=list)


class Rig:
    """Slots as the runner and the device know them."""

    def __init__(self) -> None:
        self.state = ExchangeState(SLOTS, K, CPU)
        self.slots = [Slot() for _ in range(SLOTS)]
        self.token_ids = torch.full((SLOTS, MAX_LEN), -7, dtype=torch.int32)
        self.lengths = torch.zeros(SLOTS, dtype=torch.int32)

    def begin(self, at: int, gen: int, tokens: Sequence[int], k: int = K) -> None:
        self.slots[at] = Slot(gen, len(tokens), k, 0, list(tokens))
        self.state.set_slot(at, gen, len(tokens), k)
        self._write(at)

    def sample(self, at: int, tokens: Sequence[int]) -> None:
        self.slots[at].tokens += tokens
        self._write(at)

    def _write(self, at: int) -> None:
        tokens = self.slots[at].tokens
        self.token_ids[at, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
        self.lengths[at] = len(tokens)

    def pack(
        self,
        batch: Sequence[tuple[int, int, int]],
        words: StepWords,
        *,
        shard: int = 0,
        shards: int = 1,
    ) -> T2D:
        """`batch` has slot, tokens sampled, drafts rejected of each row."""
        columns = torch.tensor(batch).T
        outcome = Outcome(
            len(batch),
            columns[0].contiguous(),
            columns[1].to(torch.int32),
            columns[2].to(torch.int32),
            self.token_ids,
            self.lengths,
            torch.zeros(SLOTS, dtype=torch.int64),
        )
        frame = torch.full(SHAPE.size, 99, dtype=torch.int32)
        pack_outcome(frame, outcome, self.state, words, shard=shard, shards=shards)
        return T2D.unpack(frame, SHAPE)


def rows(step: T2D) -> dict[int, tuple[int, tuple[int, ...]]]:
    return {row.slot: (row.gen, tuple(row.tokens)) for row in step.rows}


def test_a_ragged_step() -> None:
    rig = Rig()
    rig.begin(0, 5, [1, 2, 3])
    rig.begin(2, 6, [4])
    rig.begin(3, 7, [9] * 12)
    rig.begin(5, 8, [1], k=0)  # never told of
    rig.sample(0, [11, 12, 13, 14])
    rig.sample(2, [21])
    rig.sample(5, [51])
    # Slot 3 is in the middle of its prefill, slot 4 is somebody unknown.
    step = rig.pack([(2, 1, 0), (0, 4, 0), (3, 0, 0), (5, 1, 0), (4, 1, 0)], StepWords(3, 9, 4, 2))
    assert (step.epoch, step.step, step.cseq_required, step.k_want) == (3, 9, 4, 2)
    assert step.checksum is None
    assert rows(step) == {0: (5, (11, 12, 13, 14)), 2: (6, (21,))}
    # Told once.
    assert rows(rig.pack([(0, 1, 0)], StepWords(3, 10, 4, 2))) == {0: (5, ())}


def test_a_slot_told_too_little_asks_to_be_told_again() -> None:
    rig = Rig()
    rig.begin(1, 5, [1, 2, 3])
    rig.sample(1, range(10, 10 + K + 2))
    assert rows(rig.pack([(1, 1, 0)], StepWords(1, 1, 0, 2))) == {1: (-1, ())}
    rig.sample(1, [30])
    assert rows(rig.pack([(1, 1, 0)], StepWords(1, 2, 0, 2))) == {1: (-1, (30,))}
    rig.begin(1, 6, rig.slots[1].tokens)
    rig.sample(1, [31])
    assert rows(rig.pack([(1, 1, 0)], StepWords(1, 3, 0, 2))) == {1: (6, (31,))}


def test_shards_tell_their_own_slots() -> None:
    told = {}
    for shard in range(2):
        rig = Rig()
        for at in range(4):
            rig.begin(at, 10 + at, [at])
            rig.sample(at, [20 + at])
        batch = [(at, 1, 0) for at in range(4)]
        told[shard] = rows(rig.pack(batch, StepWords(1, 1, 0, 1), shard=shard, shards=2))
    assert told == {0: {0: (10, (20,)), 2: (12, (22,))}, 1: {1: (11, (21,)), 3: (13, (23,))}}


def test_drafts_are_counted_without_fillers() -> None:
    rig = Rig()
    for at, proposed in ((0, 3), (1, 1), (2, 0), (3, 3)):
        rig.begin(at, at + 1, [1])
        rig.state.slots[at, 3] = proposed
    # Verified are 3, 3, 3 and 1 drafts, accepted 2, 2, 0 and 1.
    rig.pack([(0, 3, 1), (1, 3, 1), (2, 1, 3), (3, 2, 0)], StepWords(1, 1, 0, 3))
    figures = rig.state.read().drafts
    assert figures.steps == 3
    assert figures.drafted_per_pos == [3, 1, 1]
    assert figures.accepted_per_pos == [3, 1, 0]


def test_against_an_oracle() -> None:
    random.seed(1)
    rig = Rig()
    gen = 0
    for number in range(1, 40):
        batch = []
        expected = {}
        for at in random.sample(range(SLOTS), random.randint(1, SLOTS)):
            slot = rig.slots[at]
            if not slot.gen or len(slot.tokens) > MAX_LEN - K - 2 or random.random() < 0.1:
                gen += 1
                prompt = [random.randrange(100) for _ in range(random.randint(1, 9))]
                rig.begin(at, gen, prompt, k=random.choice([0, 1, K]))
                slot = rig.slots[at]
            new = [random.randrange(100) for _ in range(random.randint(0, K + 1))]
            rig.sample(at, new)
            batch.append((at, len(new), K + 1 - len(new)))
            if new and slot.k:
                expected[at] = (slot.gen, tuple(slot.tokens[slot.told :]))
                slot.told = len(slot.tokens)
            elif new:
                slot.told = len(slot.tokens)
        step = rig.pack(batch, StepWords(1, number, 0, K))
        assert rows(step) == expected
