"""Draft rounds with their kernels in Triton's interpreter; run by `test_interpreted`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from rayspec.draft.rounds.drafter import RoundsDrafter
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.server import DraftServer
from rayspec.draft.spec import DraftServerSpec
from rayspec.errors import ConfigError, LinkError, LinkRefused
from rayspec.link.protocol import T2D, Announce, Nack, StepRow
from tests.support import link_rig
from tests.support.hash_model import HashModel, greedy_chain
from tests.support.link_rig import SPEC
from tests.support.rounds_rig import VOCAB, Rig, SlowPieces, random_run

PROMPT = [5, 6, 7, 8, 9, 10, 11, 12, 13]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.mark.parametrize("accepted", [0, 1, 2, 3, 4])
def test_drafts_follow_whatever_was_accepted(rig: Rig, accepted: int) -> None:
    target = rig.target()
    target.begin(2, PROMPT)
    drafts = target.step(s2=[])
    prefilled = rig.model.prefilled
    for token in (20, 30, 40):
        drafts = target.step(s2=[*drafts[2][:accepted], token])
        assert len(drafts[2]) == 4
    assert rig.model.prefilled == prefilled  # the rounds wrote all KV themselves


def test_a_batch_of_every_size_and_draft_length(rig: Rig) -> None:
    target = rig.target()
    for slot in range(4):
        target.begin(slot, PROMPT[: slot + 3], k=slot + 1)
        for k_want in (1, 2, 3, 4):
            drafts = target.step(k_want, **{f"s{s}": [s + k_want] for s in range(slot + 1)})
            assert [len(drafts[s]) for s in range(slot + 1)] == [
                min(s + 1, k_want) for s in range(slot + 1)
            ]


def test_steps_without_drafts_and_two_at_once(rig: Rig) -> None:
    target = rig.target()
    target.begin(0, PROMPT)
    target.step(s0=[])
    target.tell(0, {0: [1]})
    target.tell(0, {0: [2]})
    target.tell(4, {0: [3]})
    rig.settle()
    assert target.take(ready=False) == {0: []}  # three tokens behind: prefilled now
    assert len(target.step(s0=[4])[0]) == 4
    for token in (5, 6):
        target.tell(4, {0: [token]})
    rig.settle()
    assert len(target.take(ready=True)[0]) == 4  # the older of the two got an empty answer


def test_a_request_after_steps_that_wanted_no_drafts_has_them_at_once(rig: Rig) -> None:
    target = rig.target()
    target.begin(0, PROMPT, k=0)
    target.step(0, s0=[1])
    target.begin(1, PROMPT[2:])
    rig.settle()
    target.tell(4, {0: [2], 1: [3]})
    rig.settle()
    assert [len(drafts) for drafts in target.take(ready=True).values()] == [0, 4]


def test_a_slot_is_given_to_another_request(rig: Rig) -> None:
    target = rig.target()
    target.begin(1, PROMPT)
    target.step(s1=[1])
    target.end(1)
    target.begin(1, [9, 8, 7, 6, 5, 4])
    assert len(target.step(s1=[2])[1]) == 4


def test_what_left_begins_again_with_its_kv(rig: Rig) -> None:
    target = rig.target()
    target.begin(1, PROMPT)
    drafts = target.step(s1=[])
    target.step(s1=drafts[1])
    prefilled, tokens = rig.model.prefilled, target.requests[1].tokens
    target.end(1)
    target.begin(3, [*tokens, 77])
    assert len(target.step(s3=[1])[3]) == 4
    assert rig.model.prefilled == prefilled + 3
    target.end(3)
    target.begin(0, [*tokens[:10], 78, 79, 80, 81])
    assert len(target.step(s0=[1])[0]) == 4
    assert rig.model.prefilled == prefilled + 7


def test_more_requests_than_rows_wait_for_one(rig: Rig) -> None:
    target = rig.target()
    for slot in range(6):
        target.begin(slot, [*PROMPT, slot])
    rig.settle()
    target.tell(4, {slot: [1] for slot in range(6)})
    rig.settle()
    assert [len(drafts) for drafts in target.take(ready=False).values()] == [4, 4, 4, 4, 0, 0]
    assert rig.engine.stats().rows_waiting == 2
    target.end(0)
    target.end(1)
    drafts = target.step(s2=[2], s3=[2], s4=[2], s5=[2])
    assert [len(drafts[slot]) for slot in range(2, 6)] == [4] * 4


def test_without_blocks_there_are_no_drafts_and_nothing_else_suffers() -> None:
    rig = Rig(blocks=9)  # eight for sequences: 32 tokens
    target = rig.target()
    target.begin(0, PROMPT)
    target.begin(1, list(range(30)))
    rig.settle()
    target.tell(4, {0: [1], 1: [1]})
    rig.settle()
    assert {slot: len(d) for slot, d in target.take(ready=False).items()} == {0: 4, 1: 0}
    target.end(0)
    rig.settle()
    target.begin(0, [1, 2, 3])
    target.end(1)
    assert len(target.step(s0=[1])[0]) == 4
    rig.close()


def test_room_ends_at_the_longest_sequence(rig: Rig) -> None:
    target = rig.target(max_len=20)
    target.begin(0, list(range(14)))
    lengths = [len(target.step(s0=[token])[0]) for token in (1, 2, 3, 4, 5, 6)]
    assert lengths == [4, 4, 3, 2, 1, 0]
    target.tell(4, {0: [7]})
    rig.settle()
    assert target.transport.sent
    target.begin(1, PROMPT)  # the others are served on


def test_prompts_of_one_token_and_beyond_the_longest(rig: Rig) -> None:
    target = rig.target()
    target.begin(0, [7])
    target.begin(1, [7, 8])
    target.begin(2, [1] * 60)
    assert {s: len(d) for s, d in target.step(s0=[], s1=[], s2=[]).items()} == {0: 0, 1: 4, 2: 0}
    assert {s: len(d) for s, d in target.step(s0=[3], s1=[4]).items()} == {0: 4, 1: 4}


def test_messages_that_a_step_needs_are_waited_for(rig: Rig) -> None:
    target = rig.target()
    target.begin(0, PROMPT)
    late = target.peer._inbox.pop()
    target.tell(4, {0: [1]})
    rig.settle()
    assert not target.transport.sent
    target.peer._inbox.append(late)
    rig.settle()
    assert target.take(ready=False) == {0: []}
    assert len(target.step(s0=[2])[0]) == 4


def test_a_token_outside_of_the_vocabulary_ends_its_sequence_alone(rig: Rig) -> None:
    target = rig.target()
    target.begin(0, PROMPT)
    target.begin(1, PROMPT)
    target.step(s0=[1], s1=[1])
    rows = [StepRow(0, 1, (VOCAB,)), StepRow(1, 2, (3,))]
    target.step_number += 1
    frame = T2D(target.hello.epoch, target.step_number, target.cseq, 4, rows)
    target.transport.mailbox.append(frame.pack(target.shape))
    rig.settle()
    (nack,) = [message for message in target.control.sent if isinstance(message, Nack)]
    assert (nack.slot, nack.gen) == (0, 1)
    assert rig.engine.stats().rows_used == 1
    target.transport.sent.clear()
    target.control.sent.clear()
    target.requests.pop(0)
    target.requests[1].tokens.append(3)
    assert len(target.step(s1=[4])[1]) == 4


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({0: 5}, "starts with"),
        ({1: 9}, "epoch 9"),
        ({2: 7}, "step 7 after step 0"),
        ({5: 5}, "wants 5 drafts"),
        ({4: 3}, "its header says 3"),
    ],
)
def test_malformed_frames_end_their_target(rig: Rig, words: dict[int, int], why: str) -> None:
    target = rig.target()
    frame = T2D(target.hello.epoch, 1, 0, 4, [StepRow(0, 1)]).pack(target.shape)
    for place, word in words.items():
        frame[0, place] = word
    target.transport.mailbox.append(frame)
    with pytest.raises(LinkError, match=why):
        target.peer.advance()


def test_targets_share_an_engine_and_one_leaves(rig: Rig) -> None:
    one, two = rig.target(), rig.target(slots=3, k_max=2)
    one.begin(0, PROMPT)
    two.begin(0, PROMPT[:5])
    rig.settle()
    one.tell(4, {0: [1]})
    two.tell(2, {0: [2]})
    rig.settle()
    assert (len(one.take(ready=True)[0]), len(two.take(ready=True)[0])) == (4, 2)
    rig.leave(one)
    assert rig.engine.stats().rows_used == 1
    assert len(two.step(2, s0=[3])[0]) == 2
    three = rig.target()
    three.begin(5, PROMPT)
    assert len(three.step(s5=[3])[5]) == 4
    with pytest.raises(LinkRefused, match="no room for the 8 slots"):
        rig.target(slots=8).peer.advance()
    rig.targets.pop()


@pytest.mark.parametrize("widest", [2, 8, 32])
@pytest.mark.parametrize("seed", range(4))
def test_random_schedules_of_two_targets(seed: int, widest: int) -> None:
    chance = random.Random(seed)
    rig = Rig(blocks=40 if seed % 2 else None, announced=seed % 4 > 1, widest=widest)
    one, two = rig.target(), rig.target(slots=3)
    drafted = sum(
        random_run(rig, target, chance, steps=8) for _ in range(3) for target in (one, two)
    )
    assert drafted > 20
    rig.close()


def test_rounds_are_launched_ahead_of_the_frames_of_a_single_target() -> None:
    rig = Rig(announced=True)
    target = rig.target()
    target.begin(0, PROMPT)
    for token in range(4):
        assert len(target.step(s0=[token])[0]) == 4
    # Before its sequence was known there was nothing to launch ahead for.
    assert rig.engine.stats().rounds_ahead == 4
    other = rig.target(slots=2)
    other.begin(1, PROMPT[:3])
    assert len(other.step(s1=[4])[1]) == 4
    target.step(s0=[9])
    # With two of them no round waits for the other target's frame.
    assert rig.engine.stats().rounds_ahead <= 5
    rig.close()


def test_no_round_ahead_misses_what_is_about_to_be_prefilled() -> None:
    rig = Rig(announced=True)
    target = rig.target()
    target.begin(0, PROMPT)
    target.step(s0=[1])
    ahead = rig.engine.stats().rounds_ahead
    target.begin(1, PROMPT[2:])
    pieces = SlowPieces(rig.engine)
    while rig.engine._prefiller.current is None:
        rig.turn()
    # The frame is announced while the piece runs: its receive is posted, and no round behind it.
    target.path.noticed = False
    target.tell(4, {0: [2], 1: [3]})
    while rig.turn():
        pass
    assert target.peer._posted is not None
    assert rig.engine.stats().rounds_ahead == ahead
    # With the end of the piece there is a round for that frame after all, and it knows of it.
    pieces.end()
    while rig.turn():
        pass
    assert rig.engine.stats().rounds_ahead == ahead + 1
    target.path.noticed = True
    rig.settle()
    assert [len(drafts) for drafts in target.take(ready=True).values()] == [4, 4]
    rig.close()


def test_a_frame_is_not_held_up_by_prefill() -> None:
    rig = Rig(announced=True)
    target = rig.target()
    target.begin(0, PROMPT)
    target.step(s0=[1])
    target.begin(1, PROMPT[2:])
    pieces = SlowPieces(rig.engine)
    while rig.engine._prefiller.current is None:
        rig.turn()
    target.tell(4, {0: [2], 1: [3]})
    while rig.turn():
        pass
    assert [len(drafts) for drafts in target.take(ready=False).values()] == [4, 0]
    # A piece that makes nobody ready is nothing to wait for.
    target.end(1)
    target.tell(4, {0: [4]})
    ahead = rig.engine.stats().rounds_ahead
    while rig.turn():
        pass
    assert rig.engine.stats().rounds_ahead == ahead + 1
    assert len(target.take(ready=True)[0]) == 4
    pieces.end()
    rig.close()


def test_what_begins_together_is_prefilled_in_one_piece(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("rayspec.draft.rounds.prefill.time", clock)
    target = rig.target()
    for slot in range(3):
        target.begin(slot, [*PROMPT, slot])
        while rig.turn():
            now[0] += 20e-6
    assert rig.engine.busy  # the loop looks again soon
    now[0] += 300e-6
    rig.settle()
    assert rig.engine.stats().prefill_pieces == 1
    assert rig.model.prefilled >= 3 * len(PROMPT)
    # Those that keep coming are not waited for.
    for turn in range(9):
        target.end(turn % 3)
        target.begin(turn % 3, [turn, *PROMPT])
        rig.turn()
        rig.turn()
        now[0] += 200e-6
    assert rig.engine.stats().prefill_pieces > 1


def test_a_frame_that_is_not_what_was_announced_ends_the_link() -> None:
    rig = Rig(announced=True)
    target = rig.target()
    target.begin(0, PROMPT)
    target.step(s0=[1])
    rig.announced = False
    target.tell(4, {0: [2]})
    target.peer._announce(Announce(target.step_number, target.cseq, 1, 3))
    with pytest.raises(LinkError, match="is not what was announced"):
        rig.settle()
    # Its round has run, and is no hindrance to letting it go.
    rig.targets.remove(target)
    with rig.engine.activate():
        while not target.peer.let_go():
            rig.engine.settle()
    rig.close()


def test_a_trimmed_head_drafts_tokens_not_columns() -> None:
    ids = [9, 3, 270, 44, 180]
    rig = Rig(token_ids=ids)
    target = rig.target()
    target.begin(0, PROMPT)
    rig.settle()
    target.tell(4, {0: [1]})
    rig.settle()
    frame, _ = target.transport.sent.popleft()
    assert set(frame[1, 2:6].tolist()) <= set(ids)
    rig.close()


def test_a_server_answers_targets_over_the_link() -> None:
    load = partial(HashModel, vocab_size=SPEC.vocab_size, max_len=SPEC.max_len)
    spec = RoundsSpec(rows=2, max_len=SPEC.max_len, targets=2)
    server = DraftServer(
        RoundsDrafter(load, spec),
        DraftServerSpec(vocab_size=SPEC.vocab_size, tokenizer_hash="t", k_max=4, max_slots=4),
    )
    server.start()
    assert server.spec.transports == ("gloo",)
    targets = [link_rig.Target(), link_rig.Target()]
    for target in targets:
        target.attach(server.admit(SPEC.hello(1)))
        target.begin(1, *PROMPT)
    for target in targets:
        got: list[int] = []
        for token in range(100):  # until it is prefilled
            drafts = target.step(s1=[token])
            assert drafts is not None
            got = drafts[1]
            assert got == greedy_chain(target.requests[1][1], len(got), SPEC.vocab_size)
            if len(got) == 4:
                break
        assert len(got) == 4
    stats = server.stats()
    assert (stats.links, stats.nacks, stats.errors) == (2, 0, 0)
    assert stats.on_device.rows_used == 2
    assert stats.on_device.step_p50_us > 0
    targets[0].link.close()
    link_rig.wait_until(lambda: server.stats().on_device.rows_used == 1, "release")
    assert len((targets[1].step(s1=[9]) or {})[1]) == 4
    server.close()
    targets[1].link.close()


@pytest.mark.parametrize(
    "values",
    [
        {"rows": 0},
        {"k_max": 0},
        {"k_max": 63},
        {"max_slots": 4097},
        {"targets": 0},
        {"top_m": 24},
        {"max_len": 2},
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        RoundsSpec(**values)


def test_rounds_are_built_for_what_is_asked_for_alone() -> None:
    spec = RoundsSpec(rows=48, k_tiers=(0, 3, 9)).serving(k_max=5, max_slots=24)
    assert (spec.k_max, spec.max_slots) == (5, 24)
    assert spec.tiers == (3, 5)
    assert spec.buckets == (1, 2, 4, 8, 16, 32, 48)
    assert RoundsSpec().serving(k_max=5, max_slots=8).tiers == (1, 2, 3, 4, 5)
    assert RoundsSpec().serving(k_max=32, max_slots=8).tiers[-1] == 32


def test_the_oracle_itself_depends_on_every_token() -> None:
    chain = greedy_chain(PROMPT, 3, VOCAB)
    assert chain != greedy_chain([6, *PROMPT[1:]], 3, VOCAB)
    assert chain != greedy_chain(PROMPT[1:], 3, VOCAB)
