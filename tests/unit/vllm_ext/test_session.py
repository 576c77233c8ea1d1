"""The session against a link that behaves like a draft's mirror."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rayspec.link.protocol import StepRow, TokenHash, sequence_checksum
from rayspec.link.spec import LinkState
from rayspec.vllm_ext.session import DraftingParams, SessionSpec, TargetSession

K = 3
SLOTS = 4


class Runner:
    """A `TokenSource`."""

    def __init__(self) -> None:
        self.lists: dict[str, list[int]] = {}

    def length(self, req_id: str) -> int | None:
        return len(self.lists[req_id]) if req_id in self.lists else None

    def tokens(self, req_id: str, start: int) -> list[int]:
        return self.lists[req_id][start:]


class MirrorLink:
    """A link whose draft answers every row with the slot's last token plus one, and so on."""

    def __init__(self) -> None:
        self.state = LinkState.READY
        self.fresh = True
        self.lost: frozenset[int] = frozenset()
        self.mirror: dict[int, tuple[int, list[int]]] = {}
        self.adds: list[tuple[int, int]] = []
        self.wanted: list[int] = []
        self.answer = True
        self.drafts: dict[int, list[int]] = {}

    def take_fresh(self) -> bool:
        fresh, self.fresh = self.fresh, False
        return fresh

    def take_resync(self) -> frozenset[int]:
        lost, self.lost = self.lost, frozenset()
        return lost

    def reset(self) -> None:
        self.mirror.clear()

    def add(
        self,
        slot: int,
        gen: int,
        k: int,
        temperature: float,
        seed: int | None,
        tokens: Sequence[int],
    ) -> None:
        if not self.fresh:
            assert slot not in self.mirror
            self.mirror[slot] = (gen, list(tokens))
            self.adds.append((slot, k))

    def delete(self, slot: int, gen: int) -> None:
        if not self.fresh and self.mirror.get(slot, (None,))[0] == gen:
            del self.mirror[slot]

    def exchange(
        self, rows: Sequence[StepRow], k_want: int, checksum: int | None
    ) -> Mapping[int, Sequence[int]] | None:
        assert not self.fresh
        self.wanted.append(k_want)
        for row in rows:
            gen, tokens = self.mirror[row.slot]
            assert gen == row.gen
            assert len(row.tokens) <= K + 1
            tokens.extend(row.tokens)
        mine = ((slot, gen, TokenHash(t)) for slot, (gen, t) in self.mirror.items())
        assert checksum == sequence_checksum(mine)
        if not self.answer:
            return None
        return {
            row.slot: self.drafts.get(
                row.slot, [self.mirror[row.slot][1][-1] + 1 + i for i in range(K)]
            )
            for row in rows
        }


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def link() -> MirrorLink:
    return MirrorLink()


@pytest.fixture
def session(runner: Runner, link: MirrorLink) -> TargetSession:
    return TargetSession(SessionSpec(SLOTS, K, 1000, checksum=True), link, runner)


def test_tells_new_tokens_and_returns_drafts(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    runner.lists["a"] = [1, 2, 3]
    session.admit("a", 0, DraftingParams())
    runner.lists["a"].append(10)
    assert session.step(["a"], K) == {"a": [11, 12, 13]}
    runner.lists["a"] += [11, 12]
    assert session.step(["a"], K) == {"a": [13, 14, 15]}
    assert link.mirror[0][1] == runner.lists["a"]


def test_a_new_request_is_told_before_its_first_outcome(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    session.step([], K)  # takes the attachment over
    runner.lists["a"] = [1, 2]
    session.admit("a", 1, DraftingParams())
    assert link.mirror[1][1] == [1, 2]


def test_attaching_in_the_middle_tells_everything(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    link.state = LinkState.DETACHED
    for slot, req_id in enumerate("ab"):
        runner.lists[req_id] = [slot + 1] * 5
        session.admit(req_id, slot, DraftingParams())
    assert session.step(["a", "b"], K) == {}
    runner.lists["a"] += [7] * 20
    link.state = LinkState.READY
    # "b" is not in this step, but its tokens are told all the same.
    assert session.step(["a"], K) == {"a": [8, 9, 10]}
    assert {slot: tokens for slot, (_, tokens) in link.mirror.items()} == {
        0: runner.lists["a"],
        1: runner.lists["b"],
    }


def test_more_tokens_than_a_row_holds(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    runner.lists["a"] = [1]
    session.admit("a", 0, DraftingParams())
    session.step(["a"], K)
    gen = link.mirror[0][0]
    runner.lists["a"] += [5] * (K + 2)
    assert session.step(["a"], K) == {"a": [6, 7, 8]}
    assert link.mirror[0][0] != gen


def test_tokens_that_the_runner_took_back(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    runner.lists["a"] = [1, 2, 3, 4]
    session.admit("a", 0, DraftingParams())
    session.step(["a"], K)
    del runner.lists["a"][2:]
    session.step(["a"], K)
    assert link.mirror[0][1] == [1, 2]


def test_a_rejected_slot_is_told_again(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    for slot, req_id in enumerate("ab"):
        runner.lists[req_id] = [slot]
        session.admit(req_id, slot, DraftingParams())
    session.step(["a", "b"], K)
    link.adds.clear()
    link.lost = frozenset({1})
    session.step(["a", "b"], K)
    assert link.adds == [(1, K)]


def test_k_of_a_request_and_of_a_step(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    for slot, (req_id, k) in enumerate({"none": 0, "one": 1, "more": 99}.items()):
        runner.lists[req_id] = [slot]
        session.admit(req_id, slot, DraftingParams(k=k))
    drafts = session.step(["none", "one", "more"], K)
    assert {req_id: len(tokens) for req_id, tokens in drafts.items()} == {"one": 1, "more": K}
    # Who never speculates is not told to the draft at all.
    assert sorted(link.mirror) == [1, 2]
    assert {r: len(t) for r, t in session.step(["one", "more"], 2).items()} == {"one": 1, "more": 2}
    assert session.step(["one", "more"], 0) == {}
    # Even then the outcome was told.
    assert link.wanted == [K, 2, 0]


def test_drafts_outside_the_vocabulary_are_cut(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    for slot, req_id in enumerate("abc"):
        runner.lists[req_id] = [slot]
        session.admit(req_id, slot, DraftingParams())
    link.drafts = {0: [5, 1000, 6], 1: [-1, 2, 3], 2: [999, 0, 7, 8]}
    assert session.step(["a", "b", "c"], K) == {"a": [5], "c": [999, 0, 7]}


def test_no_answer_is_no_drafts(session: TargetSession, runner: Runner, link: MirrorLink) -> None:
    runner.lists["a"] = [1]
    session.admit("a", 0, DraftingParams())
    link.answer = False
    assert session.step(["a"], K) == {}


def test_released_requests_leave_the_mirror(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    runner.lists["a"] = [1]
    session.admit("a", 3, DraftingParams())
    session.step(["a"], K)
    assert session.release("a") == 3
    assert session.release("a") is None
    assert link.mirror == {}
    assert session.step(["a"], K) == {}


def test_after_an_error_everything_is_told_again(
    session: TargetSession, runner: Runner, link: MirrorLink
) -> None:
    runner.lists["a"] = [1]
    session.admit("a", 0, DraftingParams())
    session.step(["a"], K)
    link.mirror[0][1].append(77)  # now both ends disagree
    session.invalidate()
    session.step(["a"], K)
    assert link.mirror[0][1] == [1]


class SessionMachine(RuleBasedStateMachine):
    """Whatever happens, a told request's mirror is what the runner has."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = Runner()
        self.link = MirrorLink()
        self.session = TargetSession(
            SessionSpec(SLOTS, K, 1000, checksum=True), self.link, self.runner
        )
        self.free = list(range(SLOTS))
        self.slot: dict[str, int] = {}
        self.number = 0

    @rule(prompt=st.lists(st.integers(0, 999), min_size=1, max_size=6), k=st.integers(0, K))
    def arrive(self, prompt: list[int], k: int) -> None:
        if self.free:
            self.number += 1
            req_id = f"r{self.number}"
            self.runner.lists[req_id] = prompt
            self.slot[req_id] = self.free.pop()
            self.session.admit(req_id, self.slot[req_id], DraftingParams(k=k))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.slot:
            req_id = data.draw(st.sampled_from(sorted(self.slot)))
            self.session.release(req_id)
            self.free.append(self.slot.pop(req_id))
            del self.runner.lists[req_id]

    @rule(data=st.data(), k=st.integers(0, K))
    def step(self, data: st.DataObject, k: int) -> None:
        sampling = [r for r in sorted(self.slot) if data.draw(st.booleans())]
        for req_id in sampling:
            new = data.draw(st.lists(st.integers(0, 999), min_size=1, max_size=K + 1))
            self.runner.lists[req_id] += new
        drafts = self.session.step(sampling, k)
        assert set(drafts) <= set(sampling)
        if self.link.state is LinkState.READY:
            for req_id in sampling:
                if self.slot[req_id] in self.link.mirror:
                    assert self.link.mirror[self.slot[req_id]][1] == self.runner.lists[req_id]

    @rule(data=st.data())
    def skipped_step(self, data: st.DataObject) -> None:
        """The runner samples without calling the drafting hook."""
        for req_id in sorted(self.slot):
            new = data.draw(st.lists(st.integers(0, 999), max_size=K + 1))
            self.runner.lists[req_id] += new

    @rule()
    def draft_dies(self) -> None:
        self.link.state = LinkState.DETACHED

    @rule()
    def draft_attaches(self) -> None:
        self.link.state = LinkState.READY
        self.link.fresh = True

    @rule(slots=st.frozensets(st.integers(0, SLOTS - 1)))
    def draft_rejects(self, slots: frozenset[int]) -> None:
        self.link.lost = slots

    @rule()
    def something_goes_wrong(self) -> None:
        self.session.invalidate()

    @invariant()
    def follows_the_live(self) -> None:
        assert self.session.live == len(self.slot)


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
