"""Makes a draft of real quality for a grown target: some minutes on a GPU.

    python load_tests/distil.py --shape shallow --out /tmp/smollm2-shallow

`rayspec distill` for a draft in one of the shapes of `growth`, which vLLM's load format `grow`
takes as well. Prints how well it agrees with the model it learned from on prompts it never saw.
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
from rayspec.distill.run import Distillation  # noqa: E402
from rayspec.distill.spec import DistillSpec  # noqa: E402
from rayspec.models.fetch import resolve  # noqa: E402


def untrained(source: Path, shape: Shape) -> Any:
    """Return the model of `source` grown into a shape, whose layers may be merged or left out."""
    with tempfile.TemporaryDirectory() as folder:
        grown = GrownModel.of(source, shape).write(Path(folder))
        return AutoModelForCausalLM.from_pretrained(grown, dtype=torch.float32)


def describe(out: Path, source: Path, shape: Shape) -> None:
    """Give the model in `out` the recipe of one that is grown from itself."""
    GrownModel.of(source, shape).write_config(out)
    GrownModel.of(out, replace(shape, computes=())).write_config(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="smollm2", help="the target: alias, id or folder")
    parser.add_argument("--shape", choices=SHAPES, default="shallow", help="of the draft")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--minutes", type=float, default=8.0, help="of all of it")
    parser.add_argument("--texts", type=int, help="most prompts to answer")
    parser.add_argument("--answer-tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, help="instead of what the time allows")
    parser.add_argument("--batch-tokens", type=int, default=32768)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()

    source, shape = resolve(args.source), SHAPES[args.shape]
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    spec = DistillSpec(
        target=source,
        target_name=args.source,
        out=args.out.absolute(),
        work=args.out.with_name(args.out.name + ".work").absolute(),
        minutes=args.minutes,
        texts=args.texts,
        answer_tokens=args.answer_tokens,
        steps=args.steps,
        batch_tokens=args.batch_tokens,
        rate=args.rate,
        device=args.device,
    )
    Distillation(spec, lambda: untrained(source, shape), args.shape, say).run()
    describe(args.out, source, shape)
    device = (
        args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    )
    say(str(compare(source, args.out, dtype=torch.bfloat16, device=device, prompts=48)))


if __name__ == "__main__":
    main()
