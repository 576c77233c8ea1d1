"""Draft servers over NCCL, in processes of their own, against a bare target."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rayspec.draft import client
from rayspec.link.control import ControlChannel, dial
from rayspec.link.gloo import TARGET_RANK
from rayspec.link.nccl import NcclGroups
from rayspec.link.protocol import (
    D2T,
    T2D,
    WIRE_VERSION,
    Add,
    Announce,
    FrameShape,
    Hello,
    Ready,
    StepRow,
)
from rayspec.link.rendezvous import join_store
from tests.support.gpu_ends import draft_environment, target_environment
from tests.support.hash_model import greedy_chain

pytestmark = pytest.mark.gpu

VOCAB = 300
WAIT_S = 120.0
PROMPT = list(range(5, 40))


class BareTarget:
    """One slot over NCCL, its steps told and its replies received by hand."""

    def __init__(self, address: tuple[str, int], epoch: int, **hello: object) -> None:
        values = {"slots": 4, "k_max": 4, "vocab_size": VOCAB, "max_len": 200, **hello}
        self.hello = Hello(
            epoch=epoch,
            version=WIRE_VERSION,
            tokenizer_hash="t",
            transport="nccl",
            **values,  # type: ignore[arg-type]
        )
        self.shape = FrameShape(self.hello.slots, self.hello.k_max)
        ticket = client.admit(address, self.hello)
        self.control: ControlChannel = dial(
            ticket.host, ticket.control_port, timeout_s=WAIT_S, name="target"
        )
        self.control.send(replace(self.hello, link_id=ticket.link_id))
        assert self.control.receive(WAIT_S) == Ready(epoch)
        store = join_store(ticket.host, ticket.store_port, timeout_s=WAIT_S)
        self.device = torch.device("cuda", 0)
        self.groups = NcclGroups(
            store, rank=TARGET_RANK, epoch=epoch, device=self.device, timeout_s=WAIT_S
        )
        self.step_number = 0
        self.tokens = list(PROMPT)
        self.control.send(Add(1, 2, 1, 4, 0.7, 3, tuple(self.tokens)))

    def tell(self, new: Sequence[int], k_want: int = 4) -> None:
        self.step_number += 1
        self.tokens += new
        rows = [StepRow(2, 1, tuple(new))]
        frame = T2D(self.hello.epoch, self.step_number, 1, k_want, rows).pack(self.shape)
        self.announce(self.step_number, k_want)
        self.groups.send([frame.to(self.device)])

    def announce(self, step: int, k_want: int) -> None:
        self.control.send(Announce(step, 1, 1, k_want))

    def receive(self) -> tuple[D2T, torch.Tensor | None]:
        frame = torch.zeros(self.shape.size, dtype=torch.int32, device=self.device)
        q = None
        if self.hello.q_mode == "sparse":
            q = torch.zeros((4, 4, 2 * self.hello.q_top), dtype=torch.int32, device=self.device)
        self.groups.recv([frame] if q is None else [frame, q])
        return D2T.unpack(frame.cpu(), self.shape), None if q is None else q.cpu()

    def ready(self) -> None:
        """Step until the draft has prefilled."""
        deadline = time.monotonic() + WAIT_S
        while True:
            self.tell([1])
            reply, _ = self.receive()
            if reply.rows[0].tokens:
                return
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def close(self) -> None:
        self.control.close()
        self.groups.abort()


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Where a draft of the command in the parameter admits targets."""
    os.environ.update(target_environment())
    port_file = tmp_path / "port.json"
    command = [sys.executable, *(part.format(port_file=port_file) for part in request.param)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **draft_environment()}, stdout=log, stderr=log
        )
    deadline = time.monotonic() + WAIT_S
    while not port_file.exists():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    where = json.loads(port_file.read_text())
    yield where["host"], where["port"]
    process.terminate()
    assert process.wait(WAIT_S) == 0


ROUNDS = ["-m", "tests.support.rounds_server", "{port_file}", "cuda:0", str(VOCAB)]
NGRAM = ["-m", "rayspec.draft", "--kind", "ngram", "--port-file", "{port_file}"]


@pytest.mark.parametrize("address", [ROUNDS], indirect=True)
def test_rounds_answer_over_nccl(address: tuple[str, int]) -> None:
    target = BareTarget(address, 1)
    target.ready()
    for token in range(20):
        target.tell([token])
        reply, _ = target.receive()
        assert (reply.step, len(reply.rows[0].tokens)) == (target.step_number, 4)
        assert list(reply.rows[0].tokens) == greedy_chain(target.tokens, 4, VOCAB)
    target.tell([1], k_want=0)
    target.tell([2])
    target.tell([3])
    replies = [target.receive()[0] for _ in range(2)]
    assert [reply.step for reply in replies] == [target.step_number - 1, target.step_number]
    stats = client.stats(address)
    assert (stats["nacks"], stats["errors"]) == (0, 0)
    target.close()


@pytest.mark.parametrize("address", [ROUNDS], indirect=True)
def test_a_target_that_leaves_disturbs_no_other_and_may_come_back(
    address: tuple[str, int],
) -> None:
    stays = BareTarget(address, 1)
    stays.ready()
    for epoch in (2, 3):
        leaves = BareTarget(address, epoch, q_mode="sparse", q_top=8)
        leaves.ready()
        leaves.tell([4])
        reply, q = leaves.receive()
        assert q is not None
        for step, draft in enumerate(reply.rows[0].tokens):
            assert draft in q[2, step, :8].tolist()
        leaves.tell([5])  # its reply is never received
        leaves.close()
        stays.tell([epoch])
        assert len(stays.receive()[0].rows[0].tokens) == 4
    deadline = time.monotonic() + WAIT_S
    while client.stats(address)["links"] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stays.close()


@pytest.mark.parametrize("address", [ROUNDS], indirect=True)
def test_a_round_that_waits_for_a_frame_ends_with_its_target(address: tuple[str, int]) -> None:
    for epoch in (1, 2):
        target = BareTarget(address, epoch)
        target.ready()
        target.tell([7])
        assert len(target.receive()[0].rows[0].tokens) == 4
        # The draft launches the round, and the frame never comes.
        target.announce(target.step_number + 1, 4)
        time.sleep(0.2)
        target.close()
    last = BareTarget(address, 3)
    last.ready()
    last.tell([9])
    reply, _ = last.receive()
    assert list(reply.rows[0].tokens) == greedy_chain(last.tokens, 4, VOCAB)
    assert client.stats(address)["on_device"]["rounds_ahead"] > 2
    last.close()


@pytest.mark.parametrize("address", [NGRAM], indirect=True)
def test_a_drafter_on_the_host_answers_over_nccl(address: tuple[str, int]) -> None:
    target = BareTarget(address, 1)
    for token in PROMPT[:6]:
        target.tell([token])
        reply, _ = target.receive()
        assert reply.step == target.step_number
    assert list(reply.rows[0].tokens) == PROMPT[6:10]
    target.tell([1], k_want=0)
    target.tell([2])
    assert target.receive()[0].step == target.step_number
    target.close()
