"""Runs the engines that answer, side by side on one GPU, and watches them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rayspec.errors import ModelError

__all__ = ["default_workers", "run_workers"]

_CORES_EACH: Final = 4  # an engine's two busy processes, and their helpers
_MOST: Final = 4
_SMALL: Final = 4 * 10**9  # bytes of weights
_GPU_SHARE: Final = 0.8  # of all engines together


def default_workers(target: Path) -> int:
    """Return how many engines this machine feeds; a large target keeps a GPU busy by itself."""
    weights = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    if weights > _SMALL:
        return 1
    return max(1, min(_MOST, len(os.sched_getaffinity(0)) // _CORES_EACH))


def run_workers(
    job: dict[str, Any],
    workers: int,
    log: Path,
    told: Callable[[int, int], None],
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Run `workers` processes until they have answered what they can; ModelError if all fail.

    Of some that fail the others' answers are used, and the log tells.

    `job` has the arguments that all share; `log` takes what engines say. `told` gets the texts and
    tokens of each piece of answers, from other threads one at a time. `meanwhile` is called while
    engines start: it may make the questions.
    """
    lock = threading.Lock()
    with log.open("a", encoding="utf-8") as out:
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "rayspec.distill.worker",
                    json.dumps(
                        {
                            **job,
                            "worker": worker,
                            "workers": workers,
                            "gpu_share": round(_GPU_SHARE / workers, 3),
                        }
                    ),
                ],
                stdout=subprocess.PIPE,
                stderr=out,
                stdin=subprocess.DEVNULL,
                text=True,
            )
            for worker in range(workers)
        ]
        threads = [
            threading.Thread(target=_listen, args=(process, lock, told, out), daemon=True)
            for process in processes
        ]
        try:
            for thread in threads:
                thread.start()
            meanwhile()
            codes = [process.wait() for process in processes]
            for thread in threads:
                thread.join()
        except BaseException:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
            raise
    if all(codes):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = next((line for line in reversed(lines) if "Error" in line), "no error told")
        raise ModelError(f"vLLM could not answer, see {log}: {last.strip()}")


def _listen(
    process: subprocess.Popen[str],
    lock: threading.Lock,
    told: Callable[[int, int], None],
    out: Any,
) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            with lock:
                try:
                    texts, tokens = json.loads(line)
                except (ValueError, TypeError):  # vLLM's own words
                    out.write(line)
                else:
                    told(texts, tokens)
