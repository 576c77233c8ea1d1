"""Catch-ups in Triton's interpreter; run by test_interpreted.py."""

from __future__ import annotations

import pytest

from tests.support.rounds_rig import Rig, SlowPieces

PROMPT = list(range(5, 14))
LONG = list(range(50, 82))


def test_what_a_sequence_missed_is_caught_up_with_and_not_prefilled() -> None:
    rig = Rig(widest=32)
    target = rig.target()
    target.begin(0, LONG)
    target.step(s0=[])
    prefilled, catch_ups = rig.model.prefilled, rig.engine.stats().catch_ups
    for token in (1, 2, 3, 4, 5):
        target.tell(0, {0: [token]})
        rig.settle()
    target.take(ready=True)
    # Steps without drafts cost nothing; with the first that wants some there is one launch.
    assert rig.engine.stats().catch_ups == catch_ups
    target.tell(4, {0: [6]})
    rig.settle()
    target.take(ready=False)
    assert len(target.step(s0=[7])[0]) == 4
    assert rig.model.prefilled == prefilled
    assert rig.engine.stats().catch_ups == catch_ups + 1
    rig.close()


@pytest.mark.parametrize("steps", [1, 6, 20])
def test_steps_during_a_prefill_do_not_call_for_another(steps: int) -> None:
    rig = Rig(widest=32)
    target = rig.target()
    target.begin(0, LONG)
    pieces = SlowPieces(rig.engine)
    for token in range(steps):
        target.tell(4, {0: [token]})
        while rig.turn():
            pass
    pieces.end()
    rig.settle()
    target.take(ready=False)
    assert len(target.step(s0=[7])[0]) == 4
    assert rig.engine.stats().prefill_pieces == 1
    rig.close()


def test_others_are_caught_up_with_while_a_prompt_is_prefilled() -> None:
    rig = Rig(widest=32)
    target = rig.target()
    target.begin(0, LONG)
    target.step(s0=[1])
    target.begin(1, LONG[::-1])
    pieces = SlowPieces(rig.engine)
    target.tell(0, {0: [2, 3, 4, 5, 6]})
    target.tell(4, {0: [7], 1: [8]})
    while rig.turn():
        pass
    target.take(ready=False)
    target.tell(4, {0: [9], 1: [10]})
    while rig.turn():
        pass
    assert [len(drafts) for drafts in target.take(ready=False).values()] == [4, 0]
    pieces.end()
    rig.settle()
    assert [len(drafts) for drafts in target.step(s0=[11], s1=[12]).values()] == [4, 4]
    rig.close()


def test_short_and_long_sequences_are_caught_up_with_by_turns() -> None:
    rig = Rig(widest=32)
    target = rig.target()
    target.begin(0, LONG)
    target.begin(1, PROMPT)
    target.step(s0=[], s1=[])
    prefilled = rig.model.prefilled
    for token in range(3):
        target.tell(0, {0: [token] * 5, 1: [token]})
    rig.settle()
    target.tell(4, {0: [6], 1: [6]})
    rig.settle()
    target.take(ready=False)
    assert [len(drafts) for drafts in target.step(s0=[7], s1=[7]).values()] == [4, 4]
    assert rig.model.prefilled == prefilled
    rig.close()
