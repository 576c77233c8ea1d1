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
        self.asked = 0
        self.steps = 0

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
        self.asked += 1
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
        self.held = True
        self.questions: list[str] = []
        self.hangs = False

    async def attach(self, hello: Hello) -> Ticket:
        self.hellos.append(hello)
        if self.errors:
            raise self.errors.pop(0)
        return Ticket("127.0.0.1", 1, 2, f"link-{hello.epoch}", hello.epoch)

    async def holds(self, link_id: str) -> bool:
        self.questions.append(link_id)
        if self.hangs:
            await asyncio.sleep(60)
        return self.held


def loop_of(target: Target, drafts: Drafts, shard: int = 0) -> AttachLoop:
    return AttachLoop(SPEC.hello, drafts, target.worker, lambda: target.steps, shard)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "WORKING_POLL_S", "RESTING_POLL_S"):
        monkeypatch.setattr(attach, name, 0.005)
    monkeypatch.setattr(attach, "DRAFT_TIMEOUT_S", 0.02)
    monkeypatch.setattr(attach, "REFUSED_RETRY_S", 0.005)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_detached_target_is_attached_and_again_after_a_loss() -> None:
    target, drafts = Target(), Drafts()
    loop = loop_of(target, drafts)
    assert not loop.attached
    loop.start()
    loop.start()
    await until(lambda: loop.attached)
    target.state = "detached"
    target.steps += 1
    await until(lambda: len(target.tickets) == 2 and loop.attached)
    await loop.close()
    await loop.close()

    assert [hello.epoch for hello in drafts.hellos] == [1, 2]
    assert [ticket.link_id for ticket in target.tickets] == ["link-1", "link-2"]


async def test_failures_of_either_side_are_survived() -> None:
    target, drafts = Target(), Drafts(RuntimeError("no replica"), LinkRefused("vocabulary"))
    target.failures = 2
    loop = loop_of(target, drafts)
    loop.start()
    await until(lambda: loop.attached)
    await loop.close()

    assert len(drafts.hellos) == 3


@pytest.mark.parametrize("state", ["ready", "attaching", "disabled", "closed"])
async def test_only_a_detached_target_is_attached(state: str) -> None:
    target, drafts = Target(), Drafts()
    target.state = state
    loop = loop_of(target, drafts)
    loop.start()
    for _ in range(3):
        target.steps += 1
        target.polls.clear()
        await target.polls.wait()
    await loop.close()

    assert not drafts.hellos


async def test_a_shard_looks_after_its_own_link() -> None:
    target, drafts = Target(), Drafts()
    target.others = ["ready", "detached"]
    loop = loop_of(target, drafts, shard=2)
    loop.start()
    await until(lambda: loop.attached)
    await loop.close()

    assert (len(target.tickets), target.shard) == (1, 2)
    assert target.others == ["ready", "detached"]


async def test_a_resting_worker_is_not_asked_and_its_draft_is() -> None:
    target, drafts = Target(), Drafts()
    loop = loop_of(target, drafts)
    loop.start()
    await until(lambda: len(drafts.questions) == 3)
    asked = target.asked
    await until(lambda: len(drafts.questions) == 6)
    assert target.asked == asked == 2  # detached, then ready
    assert set(drafts.questions) == {"link-1"}

    target.steps += 1
    await until(lambda: target.asked == asked + 1)
    await loop.close()


@pytest.mark.parametrize("loss", ["gone", "hangs"])
async def test_a_draft_that_is_lost_while_nothing_happens_is_noticed(loss: str) -> None:
    target, drafts = Target(), Drafts()
    loop = loop_of(target, drafts)
    loop.start()
    await until(lambda: loop.attached)
    drafts.held, drafts.hangs = loss != "gone", loss == "hangs"
    target.state = "detached"
    await until(lambda: len(target.tickets) == 2)
    drafts.held, drafts.hangs = True, False
    await until(lambda: loop.attached)
    await loop.close()


async def test_a_worker_without_a_draft_is_not_asked_while_none_can_be_had() -> None:
    target, drafts = Target(), Drafts(*(RuntimeError("no replica") for _ in range(20)))
    loop = loop_of(target, drafts)
    loop.start()
    await until(lambda: len(drafts.hellos) == 20)
    await loop.close()

    assert target.asked == 1
