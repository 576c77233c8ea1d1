"""An application that a calibration starts for itself, and stops when it is done."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from rayspec.errors import ConfigError

__all__ = ["StartedApp"]

# A large model takes this long to load and to capture its graphs.
_START_TIMEOUT_S: Final = 1800.0
_STOP_TIMEOUT_S: Final = 180.0
_POLL_S: Final = 1.0
# The `serve` command need not be on the path.
_SERVE: Final = "rayspec.planning.serve_run"


class StartedApp:
    """`serve run FILE`, from its start until it is complete, and Ctrl-C at the end."""

    def __init__(self, file: Path, url: str) -> None:
        self._file = file
        self._url = url.rstrip("/")
        self._log = Path(tempfile.gettempdir()) / f"rayspec-calibrate-{file.stem}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._lanes() is not None:
            raise ConfigError(
                "app",
                str(self._file),
                f"an application runs at {self._url}: stop it, or leave out --app to measure it",
            )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _SERVE, "run", str(self._file.resolve())],
                stdout=log,
                stderr=subprocess.STDOUT,
                # Of its own, so that Ctrl-C is ours to send; but no session of its own: Linux may
                # schedule sessions against each other, and a busy one delay what we ask it.
                process_group=0,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Press Ctrl-C and wait for the end; again does nothing."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._complete():
            if self._process is None or self._process.poll() is not None:
                self._fail("ended while it started")
            if time.monotonic() > deadline:
                self._fail(f"was not ready after {_START_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)

    def _fail(self, what: str) -> None:
        raise ConfigError("app", str(self._file), f"{what}; its output is in {self._log}")

    def _complete(self) -> bool:
        lanes = self._lanes() or {}
        return bool(lanes) and all(
            lane["replicas"] and lane.get("draft_attached", True) for lane in lanes.values()
        )

    def _lanes(self) -> dict[str, dict[str, bool]] | None:
        try:
            return dict(httpx.get(f"{self._url}/health", timeout=10).json()["lanes"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None
