"""Processes of a run: engines behind a pipe, drafts behind their port file, both with a log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

__all__ = ["DraftProcess", "EngineProcess", "SystemFailed", "TurnFailed", "visible_devices"]

ROOT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 30.0


class SystemFailed(Exception):
    """An engine ended or hangs; the others go on."""


class TurnFailed(Exception):
    """A draft is not there, or a living engine said that it cannot; its other turns go on."""


def visible_devices(devices: Sequence[int], environment: Mapping[str, str] = os.environ) -> str:
    """Return the CUDA_VISIBLE_DEVICES of a child that is to see only `devices` of ours."""
    ours = environment.get("CUDA_VISIBLE_DEVICES")
    names = ours.split(",") if ours else None
    return ",".join(names[device] if names else str(device) for device in devices)


def _start(
    command: Sequence[str], environment: Mapping[str, str], log: Path, descriptors: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    env = {**os.environ, **environment}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=descriptors,
            start_new_session=True,  # its children end with it, and give their memory back
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class EngineProcess:
    """One engine in its own process; `start` returns at once, `ready` waits for it."""

    def __init__(self, engine_args: Mapping[str, Any], environment: Mapping[str, str], log: Path):
        self._log = log
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", "load_tests.bench.worker", str(theirs.fileno())]
        self._process = _start(command, environment, log, (theirs.fileno(),))
        theirs.close()
        self._pipe.send(dict(engine_args))

    def ready(self, timeout_s: float) -> dict[str, Any]:
        """Wait until the engine runs and return its facts; raises SystemFailed."""
        try:
            facts: dict[str, Any] = self._answer(timeout_s)
        except TurnFailed as failure:
            raise SystemFailed(str(failure)) from None
        return facts

    def call(self, method: str, *arguments: Any, timeout_s: float = 120.0) -> Any:
        """Call a method of the engine; raises TurnFailed and SystemFailed."""
        try:
            self._pipe.send((method, arguments))
        except OSError:
            raise SystemFailed(f"engine ended, see {self._log}") from None
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> Any:
        pipe: Connection = self._pipe
        try:
            if not pipe.poll(timeout_s):
                raise SystemFailed(f"no answer within {timeout_s:.0f} s, see {self._log}")
            kind, answer = pipe.recv()
        except (EOFError, OSError):
            raise SystemFailed(f"engine ended, see {self._log}") from None
        if kind == "error":
            raise TurnFailed(f"{answer} (see {self._log})")
        return answer

    def close(self) -> None:
        """Stop the engine and wait until its memory is free."""
        with contextlib.suppress(OSError):
            self._pipe.send(("close", ()))
        _stop(self._process)
        self._pipe.close()


class DraftProcess:
    """`python -m rayspec.draft` in its own process; `start` returns at once."""

    def __init__(self, options: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._port_file = log.with_suffix(".port")
        self._port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "rayspec.draft", *options]
        command += ["--port-file", str(self._port_file), "--log-file", str(log)]
        self._process = _start(command, environment, log, ())

    def address(self, timeout_s: float) -> tuple[str, int]:
        """Wait until the draft admits targets and return where; raises TurnFailed."""
        deadline = time.monotonic() + timeout_s
        while not self._port_file.exists():
            if self._process.poll() is not None:
                raise TurnFailed(f"draft ended ({self._process.returncode}), see {self._log}")
            if time.monotonic() > deadline:
                raise TurnFailed(f"draft not ready after {timeout_s:.0f} s, see {self._log}")
            time.sleep(0.05)
        where = json.loads(self._port_file.read_text())
        return where["host"], where["port"]

    def close(self) -> None:
        """Stop the draft and wait for its end."""
        self._process.terminate()
        _stop(self._process)
