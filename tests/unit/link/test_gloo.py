from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rayspec.errors import LinkClosed
from rayspec.link.frames import FrameShape
from rayspec.link.gloo import DRAFT_RANK, TARGET_RANK, GlooTransport
from rayspec.link.rendezvous import host_store, join_store

SHAPE = FrameShape(2, 4)
HOST = "127.0.0.1"
WAIT_S = 20.0


def build(
    on_event: Callable[[], None] | None = None, q_size: tuple[int, ...] | None = None
) -> tuple[GlooTransport, GlooTransport]:
    store, port = host_store(HOST, timeout_s=WAIT_S)

    def end(rank: int) -> GlooTransport:
        ours = store if rank == DRAFT_RANK else join_store(HOST, port, timeout_s=WAIT_S)
        return GlooTransport(
            ours,
            rank=rank,
            epoch=3,
            shape=SHAPE,
            host=HOST,
            timeout_s=WAIT_S,
            on_event=on_event if rank == DRAFT_RANK else None,
            q_size=q_size,
        )

    with ThreadPoolExecutor(2) as pool:
        target, draft = pool.map(end, (TARGET_RANK, DRAFT_RANK))
    return target, draft


@pytest.fixture
def ends() -> Iterator[tuple[GlooTransport, GlooTransport]]:
    target, draft = build()
    yield target, draft
    target.abort()
    draft.abort()


def frame(value: int) -> torch.Tensor:
    return torch.full(SHAPE.size, value, dtype=torch.int32)


def test_frames_arrive_in_order_in_both_directions(
    ends: tuple[GlooTransport, GlooTransport],
) -> None:
    for source, sink in (ends, ends[::-1]):
        for value in range(50):
            source.send(frame(value))
        for value in range(50):
            received = sink.recv(WAIT_S)
            assert received is not None
            assert torch.equal(received, frame(value))
        assert sink.recv(0.0) is None


def test_weights_follow_replies_and_nothing_else() -> None:
    target, draft = build(q_size=(2, 4, 6))
    for value in range(5):
        q = torch.full((2, 4, 6), 10 + value, dtype=torch.int32)
        draft.send(frame(value), q)
        target.send(frame(value))
    for value in range(5):
        assert target.recv(WAIT_S) is not None
        assert target.q is not None
        assert torch.equal(target.q, torch.full((2, 4, 6), 10 + value, dtype=torch.int32))
        assert draft.recv(WAIT_S) is not None
        assert draft.q is None
    target.abort()
    draft.abort()


def test_the_peer_sees_an_abort() -> None:
    woken = threading.Event()
    target, draft = build(on_event=woken.set)
    target.abort()
    target.abort()
    assert woken.wait(WAIT_S)
    with pytest.raises(LinkClosed):
        draft.recv(WAIT_S)
    with pytest.raises(LinkClosed):
        draft.recv(0.0)
    with pytest.raises(LinkClosed):
        target.send(frame(1))
    draft.abort()


def test_abort_releases_its_threads_while_the_peer_is_silent() -> None:
    before = threading.active_count()
    target, draft = build()
    target.abort()
    draft.abort()
    assert threading.active_count() == before


def test_a_store_that_is_gone_is_a_closed_link() -> None:
    store, port = host_store(HOST, timeout_s=0.2)
    del store
    with pytest.raises(LinkClosed, match="cannot join the store"):
        join_store(HOST, port, timeout_s=0.2)
