from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rayspec.draft.mirror import DraftSequence, Mirror
from rayspec.errors import LinkError
from rayspec.link.protocol import (
    ALL_SLOTS,
    T2D,
    Add,
    Delete,
    Hello,
    Nack,
    Reset,
    SetK,
    StepRow,
    TokenHash,
    sequence_checksum,
)

HELLO = Hello(1, 1, slots=4, k_max=4, vocab_size=50, max_len=40, tokenizer_hash="t", checksum=True)


class Follower:
    """What a drafter sees of a mirror."""

    def __init__(self) -> None:
        self.live: list[DraftSequence] = []
        self.mirror = Mirror(HELLO, on_add=self.live.append, on_drop=self.live.remove)


def add(slot: int, gen: int, *tokens: int, k: int = 4) -> Add:
    return Add(1, slot, gen, k, 0.0, None, tokens)


def step(*rows: StepRow, k_want: int = 4, checksum: int | None = None) -> T2D:
    return T2D(1, 1, 0, k_want, rows, checksum)


@pytest.fixture
def follower() -> Follower:
    return Follower()


def drafts_of(mirror: Mirror, told: T2D) -> dict[int, int]:
    return {sequence.slot: k for sequence, k in mirror.wanted(told)}


def test_outcomes_are_appended(follower: Follower) -> None:
    follower.mirror.apply(add(0, 1, 1, 2))
    assert follower.mirror.apply_step(step(StepRow(0, 1, (3, 4)))) == []
    assert follower.live[0].tokens == [1, 2, 3, 4]


def test_an_old_generation_changes_nothing_but_is_told_once(follower: Follower) -> None:
    mirror = follower.mirror
    mirror.apply(add(0, 1, 1))
    mirror.apply(add(0, 2, 5))
    mirror.apply(Delete(3, 0, 1))
    mirror.apply(SetK(4, 0, 1, 1))
    stale = step(StepRow(0, 1, (9,)))
    assert [nack.slot for nack in mirror.apply_step(stale)] == [0]
    assert mirror.apply_step(stale) == []
    sequence = mirror.get(0, 2)
    assert sequence is not None
    assert (sequence.tokens, sequence.k) == ([5], 4)
    assert follower.live == [sequence]
    mirror.apply(add(0, 1, 1))  # the slot was told again, so it may be rejected again
    mirror.apply(Delete(6, 0, 1))
    assert [nack.gen for nack in mirror.apply_step(stale)] == [1]


def test_a_token_outside_of_the_vocabulary_loses_the_slot(follower: Follower) -> None:
    follower.mirror.apply(add(0, 1, 1))
    nacks = follower.mirror.apply_step(step(StepRow(0, 1, (50,))))
    assert [(nack.slot, nack.gen) for nack in nacks] == [(0, 1)]
    assert follower.live == []


@pytest.mark.parametrize(
    "message", [add(4, 1, 1), add(-1, 1, 1), add(0, 1, 50), add(0, 1, -1), add(0, 1, *[1] * 41)]
)
def test_what_cannot_be_meant_is_a_link_error(follower: Follower, message: Add) -> None:
    with pytest.raises(LinkError):
        follower.mirror.apply(message)


def test_drafts_are_limited_by_step_slot_and_room(follower: Follower) -> None:
    mirror = follower.mirror
    mirror.apply(add(0, 1, 1))
    mirror.apply(add(1, 1, 1, k=2))
    mirror.apply(add(2, 1, *[1] * 39))
    mirror.apply(add(3, 1, *[1] * 40))
    told = step(*(StepRow(slot, 1) for slot in range(4)))
    assert drafts_of(mirror, told) == {0: 4, 1: 2, 2: 1}
    mirror.apply(SetK(9, 0, 1, 0))
    assert drafts_of(mirror, told) == {1: 2, 2: 1}
    assert drafts_of(mirror, step(StepRow(1, 1), k_want=1)) == {1: 1}
    assert drafts_of(mirror, step(StepRow(1, 1), k_want=0)) == {}


def test_a_wrong_checksum_asks_for_everything_once_and_drafts_nothing(follower: Follower) -> None:
    mirror = follower.mirror
    mirror.apply(add(0, 1, 1))
    right = sequence_checksum([(0, 1, TokenHash([1, 2]))])
    assert mirror.apply_step(step(StepRow(0, 1, (2,)), checksum=right)) == []
    wrong = step(StepRow(0, 1, (3,)), checksum=right)
    assert mirror.apply_step(wrong) == [Nack(ALL_SLOTS, 0, "checksum differs at step 1")]
    assert mirror.apply_step(wrong) == []
    assert mirror.wanted(wrong) == []
    mirror.apply(Reset(2))
    mirror.apply(add(0, 1, 1, 2))
    assert mirror.apply_step(step(StepRow(0, 1), checksum=right)) == []
    assert drafts_of(mirror, step(StepRow(0, 1))) == {0: 4}


class MirrorAgainstTarget(RuleBasedStateMachine):
    """Whatever a target does, the mirror knows the same, and the drafter follows exactly."""

    @initialize()
    def begin(self) -> None:
        self.follower = Follower()
        self.target: dict[int, tuple[int, list[int]]] = {}
        self.gen = 0

    @rule(slot=st.integers(0, 3), tokens=st.lists(st.integers(0, 49), min_size=1, max_size=5))
    def add_slot(self, slot: int, tokens: list[int]) -> None:
        self.gen += 1
        self.target[slot] = (self.gen, list(tokens))
        self.follower.mirror.apply(add(slot, self.gen, *tokens))

    @rule(slot=st.integers(0, 3))
    def delete_slot(self, slot: int) -> None:
        gen, _ = self.target.pop(slot, (0, []))
        self.follower.mirror.apply(Delete(1, slot, gen))

    @rule(data=st.data())
    def tell_step(self, data: st.DataObject) -> None:
        slots = data.draw(st.sets(st.sampled_from(sorted(self.target)))) if self.target else set()
        rows = []
        for slot in sorted(slots):
            tokens = data.draw(st.lists(st.integers(0, 49), max_size=5))
            gen, known = self.target[slot]
            known += tokens
            rows.append(StepRow(slot, gen, tuple(tokens)))
        assert self.follower.mirror.apply_step(step(*rows, checksum=self.checksum())) == []

    @rule()
    def reset(self) -> None:
        self.target.clear()
        self.follower.mirror.apply(Reset(1))

    def checksum(self) -> int:
        return sequence_checksum(
            (slot, gen, TokenHash(tokens)) for slot, (gen, tokens) in self.target.items()
        )

    @invariant()
    def same(self) -> None:
        follower = self.follower
        assert len(follower.mirror) == len(self.target) == len(follower.live)
        assert follower.mirror.checksum() == self.checksum()
        assert {s.slot: (s.gen, s.tokens) for s in follower.live} == self.target


TestMirrorAgainstTarget = MirrorAgainstTarget.TestCase


@given(st.lists(st.lists(st.integers(0, 49), max_size=5), max_size=5))
def test_the_running_hash_is_that_of_all_tokens(parts: list[list[int]]) -> None:
    sequence = DraftSequence(0, 1, 4, 0.0, None, [1])
    for part in parts:
        sequence.extend(part)
    assert sequence.hash.crc == TokenHash(sequence.tokens).crc
