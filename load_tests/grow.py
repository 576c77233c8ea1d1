"""Grows a small real model into a large shape: real text at real cost, without a download.

    python load_tests/grow.py list
    python load_tests/grow.py config --shape 8b --out /tmp/smollm2-8b
    python load_tests/grow.py write --shape 1b-deep --out /tmp/smollm2-1b
    python load_tests/grow.py check --shape 0.5b

`config` writes a folder without weights, for vLLM's load format `grow` (see `growth.loader` and
`engine_args`); `write` an ordinary model folder, for a draft; `check` compares a grown model with
the small one on this machine's CPU. A draft of an exact shape agrees with its target in everything;
one with the acceptance of real drafts comes from `distil.py`. The vocabulary stays the small
model's, so embedding and head cost less than in the model whose shape it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.growth import SHAPES, GrownModel  # noqa: E402
from rayspec.models.fetch import resolve  # noqa: E402

EXTENSION = "load_tests.growth.loader.WorkerExtension"


def engine_args(folder: Path) -> dict[str, Any]:
    """Return the arguments with which vLLM loads what `config` wrote.

    Also puts the repository on the path of processes that do not inherit this one's.
    """
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in path:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, path)])
    return {"model": str(folder), "load_format": "grow", "worker_extension_cls": EXTENSION}


def print_shapes(vocab: int) -> None:
    print(f"{'shape':10} {'hidden':>6} {'layers':>6} {'weights':>9} {'GB/step':>8}")
    for name, shape in SHAPES.items():
        dims = shape.dims
        print(
            f"{name:10} {dims.hidden:6} {dims.layers:6} {dims.parameters(vocab) / 1e9:8.2f}B"
            f" {dims.step_bytes(vocab) / 1e9:8.2f}  {shape.about}"
        )


def check(source: Path, grown: GrownModel, dtypes: list[str]) -> None:
    import torch

    from load_tests.growth.check import compare

    for name in dtypes:
        dtype = getattr(torch, name)
        with tempfile.TemporaryDirectory() as folder:
            print(name, compare(source, grown.write(Path(folder), dtype), dtype=dtype), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("list", "config", "write", "check"))
    parser.add_argument("--source", default="smollm2", help="the small model: alias, id or folder")
    parser.add_argument("--shape", choices=SHAPES, default="0.5b")
    parser.add_argument("--out", type=Path, help="the folder to write")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], help="for check")
    args = parser.parse_args()

    source = resolve(args.source)
    if args.command == "list":
        print_shapes(json.loads((source / "config.json").read_text())["vocab_size"])
        return
    grown = GrownModel.of(source, SHAPES[args.shape])
    if args.command == "check":
        check(source, grown, args.dtype)
    elif args.out is None:
        parser.error(f"{args.command} needs --out")
    else:
        print(grown.write_config(args.out) if args.command == "config" else grown.write(args.out))


if __name__ == "__main__":
    main()
