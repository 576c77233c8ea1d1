"""One vLLM engine that answers every n-th question, as a process: `-m rayspec.distill.worker`.

A process of its own because it gives back the GPU entirely when it ends, and because several of
them keep a GPU busy that one, which schedules on one core, does not. Prints a JSON object a piece.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from rayspec.distill.answer import answer_all
from rayspec.distill.encode import Encoder
from rayspec.distill.generate import VllmGenerator
from rayspec.distill.prompts import read


def run(job: dict[str, Any]) -> None:
    """Answer the questions of a job; see `distill.workers`."""
    generator = VllmGenerator(
        Path(job["target"]),
        max_len=job["max_len"],
        gpu_share=job["gpu_share"],
        seed=job["seed"] + job["worker"],
    )
    try:
        if not _made(Path(job["questions"])):
            return
        answer_all(
            islice(read(Path(job["questions"])), job["worker"], None, job["workers"]),
            Encoder(Path(job["target"])),
            generator,
            Path(job["folder"]),
            f"w{job['worker']}",
            answer_tokens=job["answer_tokens"],
            max_len=job["max_len"],
            deadline=job["deadline"],
            piece=job["piece"],
            told=lambda texts, tokens: print(json.dumps([texts, tokens]), flush=True),
        )
    finally:
        generator.close()


def _made(questions: Path) -> bool:
    """Wait for the questions, which are made while engines start; False if nobody makes them."""
    parent = os.getppid()
    while not questions.exists():
        if os.getppid() != parent:
            return False
        time.sleep(0.2)
    return True


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
