from __future__ import annotations

import subprocess
import sys

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
        self._lock, self._aborted = threading.Lock(), False
        self._in, self._out = Group("in"), Group("out")
        nccl._living.add(self)

left, closed = Groups(), Groups()
closed.abort()
print("exit")
"""


def test_groups_left_open_are_aborted_once_at_exit() -> None:
    ran = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.split()) == (0, ["in", "out", "exit", "in", "out"])
