"""Makes a draft of real quality for a grown target: some minutes on a GPU.

    python load_tests/distil.py --shape shallow --out /tmp/smollm2-shallow

The result is an ordinary model folder in the given shape, which vLLM's load format `grow` takes as
well. Prints how well it agrees with the model it learned from on prompts that it never saw.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from load_tests.growth import SHAPES, GrownModel, Shape  # noqa: E402
from load_tests.growth.check import compare  # noqa: E402
from load_tests.growth.distil import Training, pack, train, write_texts  # noqa: E402
from rayspec.models.fetch import resolve  # noqa: E402


def load(folder: Path, dtype: torch.dtype, device: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)


def save(student: Any, source: Path, shape: Shape, out: Path) -> None:
    """Write the student in bfloat16, with the recipe of a model that is grown from itself."""
    student.to(torch.bfloat16).save_pretrained(out)
    GrownModel.of(source, shape).write_config(out)
    GrownModel.of(out, replace(shape, computes=())).write_config(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="smollm2", help="the target: alias, id or folder")
    parser.add_argument("--shape", choices=SHAPES, default="shallow", help="of the draft")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--texts", type=int, default=20_000, help="questions to make up")
    parser.add_argument("--answer-tokens", type=int, default=384)
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--batch", type=int, default=Training.batch, help="rows of 1024 tokens")
    parser.add_argument("--rate", type=float, default=Training.rate)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()

    source, shape = resolve(args.source), SHAPES[args.shape]
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    rows = pack(write_texts(source, args.texts, answer_tokens=args.answer_tokens), 1024)
    say(f"{rows.numel() / 1e6:.1f}M tokens")
    with tempfile.TemporaryDirectory() as folder:
        student = load(GrownModel.of(source, shape).write(Path(folder)), torch.float32, args.device)
    teacher = load(source, torch.bfloat16, args.device).eval()
    training = Training(steps=args.steps, batch=args.batch, rate=args.rate)
    for step, loss in enumerate(train(teacher, student, rows, training), 1):
        if step % 50 == 0 or step == args.steps:
            say(f"step {step}: {loss:.3f} nats")
    del teacher
    save(student, source, shape, args.out)
    result = compare(source, args.out, dtype=torch.bfloat16, device=args.device, prompts=48)
    say(str(result))


if __name__ == "__main__":
    main()
