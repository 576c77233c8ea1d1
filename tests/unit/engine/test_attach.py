from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rayspec.engine import attach
from rayspec.engine.attach import AttachLoop
from rayspec.errors import LinkRefused
from rayspec.link.protocol import Hello
from rayspec.link.spec import LinkSpec
from rayspec.link.ticket import Ticket

SPEC = LinkSpec(slots=2, k_max=4, vocab_size=8, max_len=16, tokenizer_hash="h")


class Target:
    """A worker that is attached one poll after it was given a ticket."""

    def __init__(self) -> None:
        self.state = "detached"
        self.tickets: list[Ticket] = []
        self.polls = asyncio.Event()
        self.failures = 0
        self.shard: int | None = None
        self.others: list[str] = []

    async def worker(self, method: str, *args: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the engine is busy")
        if method == "rayspec_attach":
            ticket, self.shard = args
            self.tickets.append(ticket)
            self.state = "ready"
            return True
        self.polls.set()
        states = [*self.others, self.state]
        return {
            "state": states[0],
            "attached": "ready" in states,
            "shards": [{"state": state} for state in states],
        }


class Drafts:
    """A draft deployment that first answers with the given errors."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.hellos: list[Hello] = []

    async def attach(self, hello: Hello) -> Ticket:
        self.hellos.append(hello)
        if self.errors:
            raise self.errors.pop(0)
        return Ticket("127.0.0.1", 1, 2, f"link-{hello.epoch}", hello.epoch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "POLL_S", 0.005)
    monkeypatch.setattr(attach, "REFUSED_RETRY_S", 0.005)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_detached_target_is_attached_and_again_after_a_loss() -> None:
    target, drafts = Target(), Drafts()
    loop = AttachLoop(SPEC.hello, drafts.attach, target.worker)
    assert not loop.attached
    loop.start()
    loop.start()
    await until(lambda: loop.attached)
    target.state = "detached"
    await until(lambda: len(target.tickets) == 2 and loop.attached)
    await loop.close()
    await loop.close()

    assert [hello.epoch for hello in drafts.hellos] == [1, 2]
    assert [ticket.link_id for ticket in target.tickets] == ["link-1", "link-2"]


async def test_failures_of_either_side_are_survived() -> None:
    target, drafts = Target(), Drafts(RuntimeError("no replica"), LinkRefused("vocabulary"))
    target.failures = 2
    loop = AttachLoop(SPEC.hello, drafts.attach, target.worker)
    loop.start()
    await until(lambda: loop.attached)
    await loop.close()

    assert len(drafts.hellos) == 3


@pytest.mark.parametrize("state", ["ready", "attaching", "disabled", "closed"])
async def test_only_a_detached_target_is_attached(state: str) -> None:
    target, drafts = Target(), Drafts()
    target.state = state
    loop = AttachLoop(SPEC.hello, drafts.attach, target.worker)
    loop.start()
    for _ in range(3):
        target.polls.clear()
        await target.polls.wait()
    await loop.close()

    assert not drafts.hellos


async def test_a_shard_looks_after_its_own_link() -> None:
    target, drafts = Target(), Drafts()
    target.others = ["ready", "detached"]
    loop = AttachLoop(SPEC.hello, drafts.attach, target.worker, shard=2)
    loop.start()
    await until(lambda: loop.attached)
    await loop.close()

    assert (len(target.tickets), target.shard) == (1, 2)
    assert target.others == ["ready", "detached"]
