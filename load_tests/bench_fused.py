"""Times a decode step of the fused draft path against its memory floor and its goal.

    python load_tests/bench_fused.py [--tune] [--out fused.json]

Floor: weight bytes that a step reads ÷ measured copy bandwidth. Goal: max(1.5 × floor, 20 µs ×
layers). Steps run in a CUDA graph on random weights, with `--context` tokens in every row. What a
kernel costs is what the step gains without it. `--tune` first searches for the best cut of every
matrix (load_tests/tune_fused.py); with `--write` they become rayspec's own, in
rayspec/draft/fused/measured.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load_tests.shapes import SHAPES, write_shape
from load_tests.tune_fused import precompile, precompile_steps, tune, write_measured
from rayspec.draft.fused import FusedLlamaModel, FusedShape
from rayspec.draft.fused.launch import Options
from rayspec.draft.fused.plan import FusedPlan
from rayspec.draft.fused.shape import read_config
from rayspec.draft.fused.tiles import Tile, TileKey

DEFAULT_SHAPES = ["smollm", "1b", "shallow"]
MEASURED_FILE = Path(__file__).resolve().parents[1] / "rayspec/draft/fused/measured.py"
ROLES = ["qkv", "out", "gate_up", "down"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=DEFAULT_SHAPES, choices=sorted(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--quantization", default="none", choices=["none", "fp8"])
    parser.add_argument(
        "--plain", action="store_true", help="also time it without programmatic dependent launches"
    )
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--write", action="store_true", help="of --tune, into rayspec's source")
    parser.add_argument("--tune-rows", nargs="+", type=int, default=[1, 2, 16, 32])
    parser.add_argument("--tiles", type=Path, help="cuts that an earlier --tune wrote to --out")
    parser.add_argument("--out", type=Path, help="where to write everything as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: write_shape(name, Path(folder) / name) for name in args.shapes}
        shapes = {name: FusedShape.of(read_config(path)) for name, path in folders.items()}
        tiles = read_tiles(args.tiles) if args.tiles else {}
        # In other processes, which must be started before this one touches the device.
        if args.tune:
            precompile(list(shapes.values()), args.tune_rows)
        else:
            precompile_steps(
                list(folders.values()), args.batches, tiles, args.quantization, args.plain
            )
        report: dict[str, Any] = {"device": torch.cuda.get_device_name(), "steps": [], "tiles": []}
        bandwidth = copy_bandwidth()
        report["copy_tb_s"] = bandwidth / 1e12
        say(f"{report['device']}: copies {bandwidth / 1e12:.2f} TB/s")
        if args.tune:
            tiles |= tune(list(shapes.values()), args.tune_rows, bandwidth, say)
            if args.write:
                write_measured(MEASURED_FILE, tiles, report["device"])
        report["tiles"] = [[*key, asdict(tile)] for key, tile in sorted(tiles.items())]
        save(args.out, report)
        for name, path in folders.items():
            for row in bench(name, path, args, tiles, bandwidth):
                report["steps"].append(row)
                save(args.out, report)


def bench(
    name: str, path: Path, args: argparse.Namespace, tiles: dict[TileKey, Tile], bandwidth: float
) -> Iterator[dict[str, Any]]:
    """Yield the times of one shape, a row to a batch size and width."""
    model = FusedLlamaModel.load(path, dummy=True, quantization=args.quantization, tiles=tiles)
    per_row = -(-(args.context + 8) // model.block_size)
    model.allocate(max(args.batches) * per_row, per_row)
    usual = model.options
    floor = model.weight_bytes / bandwidth
    goal = max(1.5 * floor, 20e-6 * model.shape.layers)
    say(f"\n{name}: {model.weight_bytes / 1e9:.3f} GB, floor {us(floor)}, goal {us(goal)} µs")
    say("batch width   step  no pdl  goal?  " + " ".join(f"{r:>8}" for r in kernels()))
    for batch in args.batches:
        for width in (1, 2):
            plan = aimed(model, batch, width, args.context)
            step = timed(plan.run)
            costs = {}
            if width == 1:
                for role in kernels():
                    with without(plan, role):
                        costs[role] = step - timed(plan.run)
            slow = None
            if args.plain:
                model.options = Options(pdl=False, hints=True)
                slow = timed(aimed(model, batch, width, args.context).run)
                model.options = usual
            met = "yes" if step <= goal else "NO"
            say(
                f"{batch:5} {width:5} {us(step):>6} {us(slow) if slow else '-':>7}  {met:>5}  "
                + " ".join(f"{us(cost):>8}" for cost in costs.values())
            )
            yield {
                "shape": name,
                "quantization": args.quantization,
                "batch": batch,
                "width": width,
                "context": args.context,
                "step_us": step * 1e6,
                "step_without_pdl_us": slow and slow * 1e6,
                "floor_us": floor * 1e6,
                "goal_us": goal * 1e6,
                "kernels_us": {role: cost * 1e6 for role, cost in costs.items()},
            }
    model.close()
    torch.cuda.empty_cache()


def kernels() -> list[str]:
    """Return what a step can be timed without."""
    return [*ROLES, "attend", "head"]


@contextmanager
def without(plan: Any, role: str) -> Iterator[None]:
    """Leave one kind of kernel out of a plan's runs."""
    layers, head = plan.layers, plan.head
    if role == "attend":
        plan.attend = lambda index: None
    elif role == "head":
        plan.head = Skipped()
    else:
        at = ROLES.index(role)
        plan.layers = [(*layer[:at], Skipped(), *layer[at + 1 :]) for layer in layers]
    try:
        yield
    finally:
        plan.layers, plan.head = layers, head
        plan.__dict__.pop("attend", None)


class Skipped:
    """A projection that does nothing."""

    def run(self) -> None:
        """Nothing."""


def aimed(model: FusedLlamaModel, batch: int, width: int, context: int) -> FusedPlan:
    """Return a plan whose rows have `context` tokens each, in blocks of their own."""
    plan = model.plan(batch, width)
    size, per_row = model.block_size, model.max_blocks
    table = torch.arange(batch * per_row, dtype=torch.int32).view(batch, per_row)
    at = torch.arange(context - width, context)
    plan.block_table.copy_(table)
    plan.seq_lens.fill_(context)
    plan.positions.copy_(at.repeat(batch))
    plan.slot_mapping.copy_((table[:, at // size].long() * size + at % size).flatten())
    plan.input_ids.random_(0, model.vocab_size)
    return plan


def timed(run: Callable[[], Any], repeats: int = 15, inner: int = 10) -> float:
    """Return the median seconds of `run` in a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for _ in range(3):
        graph.replay()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(inner):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / inner * 1e-3)
    return float(statistics.median(times))


def copy_bandwidth() -> float:
    """Return bytes read and written per second by a copy of 2 GiB."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), repeats=5, inner=5)
    return 2 * int(source.nbytes) / seconds


def read_tiles(path: Path) -> dict[TileKey, Tile]:
    """Return the cuts in a report."""
    entries = json.loads(path.read_text())["tiles"]
    return {(role, n, k, rows): Tile(**tile) for role, n, k, rows, tile in entries}


def save(path: Path | None, report: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n")


def us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
