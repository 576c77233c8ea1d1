from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rayspec.errors import LinkClosed
from rayspec.link import nccl

# Without a device the groups cannot be built; what counts is who ends them.
LEFT_OPEN = """
import threading
from rayspec.link import nccl

class Group:
    def __init__(self, name):
        self.name = name

    def abort(self):
        print(self.name)

class Groups(nccl.NcclGroups):
    def __init__(self):
        self._lock, self._aborted, self._gone = threading.Lock(), False, threading.Event()
        self._in, self._out = Group("in"), Group("out")
        nccl._living.add(self)

left, closed = Groups(), Groups()
closed.abort()
print("exit")
"""


def test_groups_left_open_are_aborted_once_at_exit() -> None:
    ran = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.split()) == (0, ["in", "out", "exit", "in", "out"])


class Work:
    def wait(self) -> None:
        pass


class Groups(nccl.NcclGroups):
    """Without a device: sends succeed and receives fail."""

    def __init__(self) -> None:
        self._lock, self._aborted, self._peer = threading.Lock(), False, 1
        self._gone = threading.Event()
        self._out: Any = SimpleNamespace(send=lambda *_: Work())
        self._in: Any = SimpleNamespace(recv=self._fail)

    def _fail(self, *_: Any) -> Work:
        raise RuntimeError("remote process exited")


def test_a_failed_call_leaves_no_group_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    library = SimpleNamespace(ncclGroupEnd=lambda: ended.append(threading.get_ident()))
    monkeypatch.setattr(nccl, "_libnccl", lambda: library)
    groups, word = Groups(), torch.zeros(1, dtype=torch.int32)
    groups.send([word])
    assert ended == []
    with pytest.raises(LinkClosed, match="remote process exited"):
        groups.recv([word])
    assert ended == [threading.get_ident()]  # the group is the calling thread's


def test_a_step_that_comes_while_dead_groups_are_left_waits_for_nothing() -> None:
    """NCCL takes its time to leave a dead peer; whoever leaves it, too, waits for the end."""
    groups, word = Groups(), torch.zeros(1, dtype=torch.int32)
    begun, end = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        end.wait()

    groups._in = groups._out = SimpleNamespace(abort=slow, send=lambda *_: Work())
    first = threading.Thread(target=groups.abort)
    second = threading.Thread(target=groups.abort)
    first.start()
    begun.wait()
    with pytest.raises(LinkClosed, match="closed"):
        groups.send([word])
    second.start()
    second.join(0.2)
    assert second.is_alive()
    end.set()
    first.join()
    second.join()
