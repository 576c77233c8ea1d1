"""Frames between two processes on GPUs, and what is left when one of them is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rayspec.errors import LinkClosed
from rayspec.link.gloo import TARGET_RANK
from rayspec.link.rendezvous import host_store
from rayspec.link.spec import LinkSpec
from tests.support.gpu_ends import DEADLINE_S, draft_environment, target_environment

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
SLOTS, K, MAX_LEN, TOP = 4, 3, 512, 8
WAIT_S = 60.0
SPEC = LinkSpec(
    slots=SLOTS,
    k_max=K,
    vocab_size=10_000,
    max_len=MAX_LEN,
    tokenizer_hash="",
    deadline_s=DEADLINE_S,
    transport="nccl",
    q_mode="sparse",
    q_top=TOP,
)


@pytest.fixture(scope="module", autouse=True)
def _own_host() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(target_environment())
    yield
    os.environ.clear()
    os.environ.update(before)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.001)


class Rig:
    """A target in miniature: one live slot, its tokens on the device, a channel to a peer."""

    def __init__(self, spec: LinkSpec = SPEC) -> None:
        from rayspec.ops.outcome import Outcome
        from rayspec.ops.state import ExchangeState

        self.spec = spec
        self.device = torch.device("cuda", 0)
        self.state = ExchangeState(SLOTS, K, self.device)
        self.tokens = torch.zeros((SLOTS, MAX_LEN), dtype=torch.int32, device=self.device)
        self.lengths = torch.zeros(SLOTS, dtype=torch.int32, device=self.device)
        self.drafts = torch.zeros((SLOTS, K + 1), dtype=torch.int64, device=self.device)
        self.q = torch.zeros((SLOTS, K, 2 * TOP), dtype=torch.int32, device=self.device)
        one = torch.ones(1, dtype=torch.int32, device=self.device)
        self.outcome = Outcome(
            1,
            torch.tensor([2], device=self.device),
            one,
            torch.zeros_like(one),
            self.tokens,
            self.lengths,
            torch.full((SLOTS, 1), 77, dtype=torch.int64, device=self.device),
        )
        self.work = torch.randn(2048, 2048, device=self.device)
        # Loaded now: under a pending receive the first use of a kernel waits for the peer.
        (self.work @ self.work).sum().item()

    def attach(self, epoch: int) -> subprocess.Popen[bytes]:
        from rayspec.link.nccl import NcclGroups
        from rayspec.link.nccl_channel import NcclChannel

        store, port = host_store("127.0.0.1", timeout_s=WAIT_S)
        q_top = TOP if self.spec.q_size else 0
        command = [sys.executable, "-m", "tests.support.nccl_peer"]
        command += [str(value) for value in (port, epoch, SLOTS, K, q_top)]
        environment = os.environ | draft_environment()
        peer = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            groups = NcclGroups(
                store, rank=TARGET_RANK, epoch=epoch, device=self.device, timeout_s=WAIT_S
            )
        except BaseException:
            peer.kill()
            peer.wait()
            raise
        self.epoch, self.step, self.asked = epoch, 0, 0
        self.channel = NcclChannel(groups, self.spec, self.device)
        self.channel.adopt()
        self.state.clear()
        self.lengths.zero_()
        self.state.set_slot(2, 5, 0, K)
        return peer

    def exchange(self, *, expect: bool = True) -> torch.cuda.Event:
        """Enqueue a step in which slot 2 gets the token 10 * step; return its end."""
        from rayspec.ops.fetch import await_reply, fetch_drafts
        from rayspec.ops.outcome import StepWords, pack_outcome

        self.step += 1
        self.tokens[2, self.step - 1] = 10 * self.step
        self.lengths[2] = self.step
        frame = self.channel.outbox(self.step)
        assert frame is not None
        k = K if expect else 0
        pack_outcome(frame, self.outcome, self.state, StepWords(self.epoch, self.step, 0, k))
        self.channel.post(self.step, expect=expect)
        inbox = self.channel.inbox(self.step)
        if expect:
            await_reply(
                inbox,
                self.state,
                epoch=self.epoch,
                step=self.step,
                asked_before=self.asked,
                deadline_s=DEADLINE_S,
            )
            self.asked = self.step
        fetch_drafts(
            self.drafts,
            inbox,
            self.outcome,
            self.state,
            k_want=k,
            vocab_size=self.spec.vocab_size,
            expected=expect,
            q=self.q if self.spec.q_size else None,
        )
        done = torch.cuda.Event()
        done.record()
        return done

    def drafted(self) -> list[int]:
        drafts: list[int] = self.drafts[0].tolist()
        return drafts


def counted(step: int) -> list[int]:
    return [10 * step + 1 + i for i in range(K)] + [K]


@pytest.mark.parametrize("q_mode", ["none", "sparse"])
def test_frames_go_round(q_mode: str) -> None:
    rig = Rig(replace(SPEC, q_mode=q_mode, q_top=TOP if q_mode == "sparse" else 0))
    peer = rig.attach(1)
    try:
        for step in range(1, 101):
            expect = step % 10 != 7
            rig.exchange(expect=expect)
            assert rig.drafted() == (counted(step) if expect else [77, 77, 77, 0])
            if expect and q_mode == "sparse":
                assert (rig.q[2] == step).all()
        figures = rig.state.read()
        assert (figures.link["received"], figures.link["misses"]) == (90, 0)
        # The host may run ahead of both ends.
        for _ in range(8):
            rig.exchange()
        assert rig.drafted() == counted(108)
    finally:
        rig.channel.abort()
        peer.kill()
        peer.wait()


def test_a_dead_peer_costs_a_deadline_and_the_next_one_is_served() -> None:
    rig = Rig()
    for epoch in range(1, 4):
        peer = rig.attach(epoch)
        try:
            for _ in range(20):
                rig.exchange()
            assert rig.drafted() == counted(20)
            # Stopped, it keeps its connections: nothing but the deadline ends the wait.
            peer.send_signal(signal.SIGSTOP)
            for _ in range(3):
                done = rig.exchange()
            wait_until(done.query, "a step without a draft")
            assert rig.drafted() == [77, 77, 77, 0]
            link = rig.state.read().link
            assert (link["misses"], link["skipped"], link["lagging"]) == (2, 1, 1)
            peer.kill()
            peer.wait()
            # Dead, with receives pending. Over sockets torch may have seen the end of the
            # connections, which ends the link; over peer-to-peer nothing is seen of it.
            with contextlib.suppress(LinkClosed):
                done = rig.exchange()
            wait_until(done.query, "a step with a dead draft")
            aborting = threading.Thread(target=rig.channel.abort)
            aborting.start()
            # The stream that computes is free all the time.
            (rig.work @ rig.work).sum().item()
            aborting.join(WAIT_S)
            assert not aborting.is_alive()
            with pytest.raises(LinkClosed):
                rig.exchange()
            # The whole device is: nothing is pending any more.
            torch.cuda.synchronize()
            assert torch.isfinite((rig.work @ rig.work).sum()).item()
        finally:
            rig.channel.abort()
            peer.kill()
            peer.wait()


LEFT_OPEN = """
import signal, sys, time
from tests.gpu.test_link import Rig
rig = Rig()
peer = rig.attach(1)
for _ in range(20):
    rig.exchange()
rig.drafted()
if sys.argv[1] == "dead":
    peer.send_signal(signal.SIGSTOP)
    rig.exchange()
    peer.kill()
    peer.wait()
    time.sleep(2.0)  # torch's watchdog looks at pending transfers about once a second
else:
    peer.kill()
    peer.wait()
"""


@pytest.mark.parametrize("peer", ["dead", "dying"])
def test_a_process_that_closes_nothing_exits_in_peace(peer: str) -> None:
    environment = os.environ | target_environment() | {"PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-c", LEFT_OPEN, peer]
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=WAIT_S * 2
    )
    assert ran.returncode == 0, ran.stderr
