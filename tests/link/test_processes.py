"""Drafts and targets as processes that die, hang and come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rayspec.link.spec import LinkState
from tests.support.draft_process import ROOT, DraftProcess
from tests.support.link_rig import SPEC, WAIT_S, CountingDrafter, Target, draft_server, wait_until

PROMPT = (1, 2, 3, 4, 5, 6, 1, 2)
# Answers in milliseconds when it can; a busy machine may take long to schedule it.
PATIENT = replace(SPEC, deadline_s=10.0)


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DraftProcess, DraftProcess]]:
    """Two n-gram drafts; the first is the one that a test may kill."""
    processes = [
        DraftProcess(tmp_path_factory.mktemp("draft"), "--kind", "ngram") for _ in range(2)
    ]
    starting = [threading.Thread(target=process.start) for process in processes]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    yield processes[0], processes[1]
    for process in processes:
        process.close()


def test_a_killed_draft_is_seen_at_once_and_replaced(
    drafts: tuple[DraftProcess, DraftProcess],
) -> None:
    first, second = drafts
    target = Target(PATIENT)
    seen: list[tuple[LinkState, float]] = []
    target.link._on_state = lambda state: seen.append((state, time.monotonic()))
    target.attach(first.admit(SPEC.hello(1)))
    target.begin(0, *PROMPT)
    assert target.step() == {0: [3, 4, 5, 6]}
    killer = threading.Timer(0.2, os.kill, (first.pid, signal.SIGKILL))
    killer.start()
    while target.step(s0=[7]) is not None:
        pass  # killed in the middle of exchanges
    first.kill()
    died = time.monotonic()
    wait_until(lambda: target.link.state is LinkState.DETACHED, "detachment")
    assert seen[-1][0] is LinkState.DETACHED
    assert seen[-1][1] - died < 0.5
    assert target.step(s0=[7]) is None  # goes on without a draft
    target.attach(second.admit(SPEC.hello(2)))
    target.end(0)
    target.begin(1, *PROMPT)
    assert target.step() == {1: [3, 4, 5, 6]}
    stats = target.link.stats()
    assert (stats.epoch, stats.deaths, stats.attaches) == (2, 1, 2)
    target.link.close()


def test_a_stopped_draft_costs_few_deadlines_and_comes_back(
    drafts: tuple[DraftProcess, DraftProcess],
) -> None:
    draft = drafts[1]
    target = Target(replace(SPEC, deadline_s=0.3))
    target.attach(draft.admit(SPEC.hello(3)))
    target.begin(0, *PROMPT)
    target.step()
    draft.stop()
    try:
        wait_until(lambda: target.step() is None, "the first step without an answer")
        before = target.link.stats()
        for _ in range(500):
            assert target.step(s0=[]) is None
        target.begin(1, *range(200))
        stats = target.link.stats()
        assert stats.state is LinkState.READY
        assert stats.lagging
        assert stats.misses - before.misses <= 8  # after 1, 2, 4, … 128 steps that did not
    finally:
        draft.resume()
    wait_until(lambda: (target.step() or {}).get(0) == [3, 4, 5, 6], "answers after SIGCONT")
    assert target.link.stats().deaths == 0
    target.link.close()


def test_a_hung_draft_is_given_up_and_may_be_attached_again(
    drafts: tuple[DraftProcess, DraftProcess],
) -> None:
    draft = drafts[1]
    target = Target(replace(SPEC, deadline_s=0.1, ping_interval_s=0.05, pong_timeout_s=0.5))
    target.attach(draft.admit(SPEC.hello(4)))
    target.begin(0, *PROMPT)
    draft.stop()
    try:
        wait_until(lambda: target.link.state is LinkState.DETACHED, "detection of the hang")
        assert "hung" in str(target.link.stats().down_reason)
        assert target.step() is None
    finally:
        draft.resume()
    wait_until(lambda: draft.stats()["links"] == 0, "the draft to let go")
    again = Target(PATIENT)
    again.attach(draft.admit(SPEC.hello(5)))
    again.begin(0, *PROMPT)
    assert again.step() == {0: [3, 4, 5, 6]}
    for link in (target.link, again.link):
        link.close()


def test_a_stopped_draft_does_not_hold_up_close(
    drafts: tuple[DraftProcess, DraftProcess],
) -> None:
    draft = drafts[1]
    target = Target(PATIENT)
    target.attach(draft.admit(SPEC.hello(6)))
    target.begin(0, *PROMPT)
    target.step()
    draft.stop()
    try:
        before = threading.active_count()
        target.link.close()
        assert threading.active_count() < before
    finally:
        draft.resume()
    wait_until(lambda: draft.stats()["links"] == 0, "the draft to let go")


TARGET = """
import sys
from rayspec.link.ticket import Ticket
from tests.support.link_rig import Target
target = Target()
host, control, store, link_id, epoch = sys.argv[1:]
target.attach(Ticket(host, int(control), int(store), link_id, int(epoch)))
target.begin(0, 10)
target.begin(1, 20)
while True:
    target.step()
"""


def test_a_killed_target_frees_its_slots_in_the_draft() -> None:
    drafter = CountingDrafter()
    server = draft_server(drafter)
    ticket = server.admit(SPEC.hello(1))
    where = (ticket.host, ticket.control_port, ticket.store_port, ticket.link_id, ticket.epoch)
    process = subprocess.Popen([sys.executable, "-c", TARGET, *map(str, where)], cwd=ROOT)
    try:
        wait_until(lambda: server.stats().answered > 5, "steps of the target")
        assert len(drafter.live) == 2
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not drafter.live, "release of the slots")
    assert server.stats().links == 0
    assert server.healthy()
    server.close()


def test_a_draft_process_ends_by_sigterm(tmp_path: Path) -> None:
    with DraftProcess(tmp_path, "--kind", "random", "--vocab-size", "1000") as draft:
        target = Target(PATIENT)
        target.attach(draft.admit(SPEC.hello(1)))
        target.begin(0, *PROMPT)
        drafts = target.step()
        assert drafts is not None
        assert len(drafts[0]) == 4
        assert all(0 <= token < 1000 for token in drafts[0])
        assert draft.terminate(WAIT_S) == 0
        wait_until(lambda: target.link.state is LinkState.DETACHED, "detachment")
        target.link.close()
