"""A draft server that drafts in rounds with a `HashModel`, in a process of its own.

python -m tests.support.rounds_server PORT_FILE DEVICE VOCAB
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

from rayspec.draft.admin import AdminServer
from rayspec.draft.rounds.drafter import RoundsDrafter
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.server import DraftServer
from rayspec.draft.spec import DraftServerSpec
from tests.support.hash_model import HashModel


def main(port_file: Path, device: str, vocab_size: int) -> None:
    load = partial(HashModel, device, vocab_size, 16, 256)
    drafter = RoundsDrafter(load, RoundsSpec(rows=8, max_len=256, top_m=8))
    server = DraftServer(drafter, DraftServerSpec(vocab_size=vocab_size, k_max=4))
    server.start()
    admin = AdminServer(server, "127.0.0.1")
    admin.start()
    partial_file = port_file.with_suffix(".partial")
    where = {"host": "127.0.0.1", "port": admin.port, "pid": os.getpid()}
    partial_file.write_text(json.dumps(where))
    partial_file.replace(port_file)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    admin.close()
    server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
