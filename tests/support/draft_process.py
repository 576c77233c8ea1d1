"""A draft server in a process of its own, which a test may kill, stop and continue."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rayspec.draft import client
from rayspec.link.protocol import Hello
from rayspec.link.ticket import Ticket

ROOT = Path(__file__).parents[2]


class DraftProcess:
    """Runs `python -m rayspec.draft` with the given options, inside a `with` block."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        start_timeout_s: float = 120.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._options = options
        self._environment = os.environ | dict(environment or {})
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ("", 0)

    def start(self) -> DraftProcess:
        """Start, or start again under the same options, and wait until it admits targets."""
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        port_file = self._folder / "draft-port.json"
        port_file.unlink(missing_ok=True)
        log_file = self._folder / "draft.log"
        command = [sys.executable, "-m", "rayspec.draft", *self._options]
        command += ["--port-file", str(port_file), "--log-file", str(log_file)]
        process = self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment)
        deadline = time.monotonic() + self._start_timeout_s
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                self.close()
                log = log_file.read_text() if log_file.exists() else ""
                raise RuntimeError(f"draft did not start ({process.returncode}): {log}")
            time.sleep(0.01)
        where = json.loads(port_file.read_text())
        self.address = (where["host"], where["port"])
        return self

    @property
    def pid(self) -> int:
        return self._running.pid

    def admit(self, hello: Hello) -> Ticket:
        return client.admit(self.address, hello)

    def stats(self) -> dict[str, Any]:
        return client.stats(self.address)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._running.kill()
        self._running.wait()

    def stop(self) -> None:
        """SIGSTOP: the process hangs with its sockets open."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._running.send_signal(signal.SIGCONT)

    def terminate(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        self._running.terminate()
        return self._running.wait(timeout=timeout_s)

    def close(self) -> None:
        """Make sure that the process is gone; idempotent."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the draft was not started")
        return self._process

    def __enter__(self) -> DraftProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
