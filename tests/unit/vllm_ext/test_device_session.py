from __future__ import annotations

from collections.abc import Sequence

import pytest

from rayspec.link.protocol import T2D, StepRow, TokenHash, sequence_checksum
from rayspec.link.spec import LinkState
from rayspec.vllm_ext.device_session import DeviceSession
from rayspec.vllm_ext.session import DraftingParams, SessionSpec

GREEDY = DraftingParams()


class Link:
    def __init__(self) -> None:
        self.state = LinkState.READY
        self.fresh = False
        self.lost: set[int] = set()
        self.told: list[tuple[object, ...]] = []

    def take_fresh(self) -> bool:
        fresh, self.fresh = self.fresh, False
        return fresh

    def take_resync(self) -> frozenset[int]:
        lost, self.lost = frozenset(self.lost), set()
        return lost

    def reset(self) -> None:
        self.told.append(("reset",))

    def add(
        self,
        slot: int,
        gen: int,
        k: int,
        temperature: float,
        seed: int | None,
        tokens: Sequence[int],
    ) -> None:
        self.told.append(("add", slot, gen, k, temperature, seed, tuple(tokens)))

    def delete(self, slot: int, gen: int) -> None:
        self.told.append(("delete", slot, gen))


class Rig:
    """The link, the device's token lists, and its slot table."""

    def __init__(self) -> None:
        self.link = Link()
        self.on_device: dict[int, list[int]] = {}
        self.table: dict[int, tuple[int, int, int]] = {}
        spec = SessionSpec(slots=4, k_max=3, vocab_size=100, checksum=True)
        self.session = DeviceSession(spec, self.link, self, self)

    def tokens(self, slot: int) -> list[int]:
        return self.on_device[slot]

    def set_slot(self, slot: int, gen: int, told: int, k: int) -> None:
        self.table[slot] = (gen, told, k)

    def told(self) -> list[tuple[object, ...]]:
        told, self.link.told = self.link.told, []
        return told


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_request_from_its_arrival_to_its_end(rig: Rig) -> None:
    rig.session.admit("a", 2, DraftingParams(temperature=0.5, seed=9), [1, 2, 3])
    assert rig.told() == [("add", 2, 1, 3, 0.5, 9, (1, 2, 3))]
    assert rig.table[2] == (1, 3, 3)
    rig.session.prepare()
    assert rig.told() == []
    rig.session.release("a")
    rig.session.release("a")
    assert rig.told() == [("delete", 2, 1)]
    assert rig.table[2] == (0, 0, 0)
    assert rig.session.live == 0


def test_a_request_that_wants_no_drafts_is_never_told(rig: Rig) -> None:
    rig.session.admit("a", 0, DraftingParams(k=0), [1])
    rig.session.admit("b", 1, DraftingParams(k=9), [2])
    rig.link.fresh = True
    rig.on_device = {0: [1, 5], 1: [2, 6]}
    rig.session.prepare()
    rig.session.release("a")
    assert rig.told() == [
        ("add", 1, 2, 3, 0.0, None, (2,)),
        ("reset",),
        ("add", 1, 4, 3, 0.0, None, (2, 6)),
    ]
    assert rig.table[0] == (0, 0, 0)
    assert rig.table[1] == (4, 2, 3)


def test_an_attachment_in_the_middle_reads_the_device(rig: Rig) -> None:
    rig.link.state = LinkState.DETACHED
    rig.session.admit("a", 3, GREEDY, [1, 2])
    rig.session.prepare()
    assert rig.told() == []
    assert rig.table[3][2] == 0  # kept out of frames
    rig.on_device[3] = [1, 2, 7, 8]
    rig.link.state, rig.link.fresh = LinkState.READY, True
    rig.session.prepare()
    assert rig.told() == [("reset",), ("add", 3, 2, 3, 0.0, None, (1, 2, 7, 8))]
    assert rig.table[3] == (2, 4, 3)


def test_a_lost_slot_is_told_again_and_only_that(rig: Rig) -> None:
    rig.session.admit("a", 0, GREEDY, [1])
    rig.session.admit("b", 1, GREEDY, [2])
    rig.told()
    rig.on_device = {1: [2, 3]}
    rig.link.lost = {1, 3}
    rig.session.prepare()
    assert rig.told() == [("delete", 1, 2), ("add", 1, 3, 3, 0.0, None, (2, 3))]


def test_after_an_error_everything_is_told_again(rig: Rig) -> None:
    rig.session.admit("a", 0, GREEDY, [1])
    rig.told()
    rig.on_device = {0: [1, 4]}
    rig.session.invalidate()
    rig.session.prepare()
    assert rig.told() == [("reset",), ("add", 0, 2, 3, 0.0, None, (1, 4))]
    rig.session.prepare()
    assert rig.told() == []


def test_the_checksum_follows_the_frames(rig: Rig) -> None:
    rig.session.admit("a", 0, GREEDY, [1, 2])
    rig.session.admit("b", 1, GREEDY, [3])
    rows = [StepRow(0, 1, (5, 6)), StepRow(1, 99, (7,))]  # the second is of an older request
    checksum = rig.session.checksum(T2D(1, 1, 0, 3, rows))
    assert checksum == sequence_checksum([(0, 1, TokenHash([1, 2, 5, 6])), (1, 2, TokenHash([3]))])
