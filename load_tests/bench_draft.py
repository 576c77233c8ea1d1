"""Times one decode step of a draft, in a CUDA graph, against its memory floor and its goal.

    python load_tests/bench_draft.py --out draft.json
    python load_tests/bench_draft.py --shapes 1b --batches 1 16 --contexts 512 2048 --breakdown

Floor: weight bytes that a step reads ÷ copy bandwidth (bytes read and written) measured in this
run. Goal: max(1.5 × floor, 20 µs × layers). A step is the forward to the newest logits, without
sampling. Variants take turns round by round; a number is the median over all replays. Weights are
dummies. Shapes: smollm is SmolLM2-135M (30 layers, vocabulary 49152), 1b Llama-3.2-1B (16 layers,
vocabulary 128256), shallow 0.2 B in 4 layers of 1024 with the vocabulary of 128256, all tied.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.draft_timing import (  # noqa: E402
    Captured,
    breakdown,
    capture,
    copy_bandwidth,
    replay,
)
from load_tests.draft_variants import VARIANTS, Variant  # noqa: E402
from load_tests.shapes import SHAPES, VOCAB_SIZE, write_shape  # noqa: E402

VOCABULARIES = {"smollm": 49152}
# Eager attention over a static cache takes long to capture and longer to run.
BASELINE_BATCHES = (1, 16)


def main() -> None:
    options = parse()
    deadline = time.monotonic() + options.seconds
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "settings": {name: str(value) for name, value in vars(options).items()},
        "copy_tb_s": copy_bandwidth() / 1e12,
        "shapes": [],
    }
    say(f"{report['device']}: copies {report['copy_tb_s']:.2f} TB/s (read + written)")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.shapes:
            result: dict[str, Any] = {"shape": name, "cells": [], "errors": {}}
            report["shapes"].append(result)
            try:
                bench(name, Path(folder) / name, options, report, result, deadline)
            except Exception:
                fail(result, "shape", f"{name}: {traceback.format_exc()}")
            print_shape(result)
            options.out.write_text(json.dumps(report, indent=1) + "\n")
            torch.cuda.empty_cache()
    if options.plot is not None:
        plot(report, options.plot)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes", nargs="+", default=["smollm", "1b", "shallow"], choices=sorted(SHAPES)
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--contexts", nargs="+", type=int, default=[512], help="tokens in a row")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=["flash", "triton", "fused", "transformers"],
        choices=sorted(VARIANTS),
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--replays", type=int, default=20, help="of a round")
    parser.add_argument("--seconds", type=float, default=80, help="start nothing new after")
    parser.add_argument("--breakdown", action="store_true", help="time per kernel of a step")
    parser.add_argument("--out", type=Path, default=Path("bench_draft.json"))
    parser.add_argument("--plot", type=Path, help="a .png of step times (needs matplotlib)")
    return parser.parse_args()


def bench(
    name: str,
    folder: Path,
    options: argparse.Namespace,
    report: dict[str, Any],
    result: dict[str, Any],
    deadline: float,
) -> None:
    """Add the cells of a shape to `result`, as they are measured."""
    vocab = VOCABULARIES.get(name, VOCAB_SIZE)
    shape = SHAPES[name]
    write_shape(name, folder, vocab)
    floor = shape.step_bytes(vocab) / (report["copy_tb_s"] * 1e12) * 1e6
    result |= {
        "parameters": shape.parameters(vocab),
        "layers": shape.layers,
        "vocabulary": vocab,
        "weight_bytes": shape.step_bytes(vocab),
        "floor_us": floor,
        "goal_us": max(1.5 * floor, 20 * shape.layers),
        "variant_weight_bytes": {},
    }
    with variants(folder, options, result, deadline) as made:
        for context in options.contexts:
            for batch in options.batches:
                if time.monotonic() > deadline:
                    fail(result, f"b={batch} context={context}", "out of time (--seconds)")
                    continue
                chosen = {
                    key: variant
                    for key, variant in made.items()
                    if key != "transformers" or batch in BASELINE_BATCHES
                }
                for cell in measure(chosen, batch, context, options, result):
                    cell["kv_bytes"] = batch * context * shape.kv_bytes_per_token()
                    cell["ratio_to_floor"] = cell["median_us"] / floor
                    cell["meets_goal"] = cell["median_us"] <= result["goal_us"]
                    result["cells"].append(cell)


@contextmanager
def variants(
    folder: Path, options: argparse.Namespace, result: dict[str, Any], deadline: float
) -> Iterator[dict[str, Variant]]:
    """Make what can be made; what cannot is an entry in `errors`."""
    made: dict[str, Variant] = {}
    try:
        for key in options.variants:
            if time.monotonic() > deadline:
                fail(result, key, "out of time (--seconds)")
                continue
            began = time.monotonic()
            try:
                made[key] = VARIANTS[key](folder, max(options.batches), max(options.contexts))
            except Exception:
                fail(result, key, traceback.format_exc())
                continue
            result["variant_weight_bytes"][key] = made[key].weight_bytes
            say(f"{result['shape']}: {key} is there after {time.monotonic() - began:.1f} s")
        yield made
    finally:
        for variant in made.values():
            variant.close()


def measure(
    made: dict[str, Variant],
    batch: int,
    context: int,
    options: argparse.Namespace,
    result: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yield the times of each variant at one batch size, measured in turns."""
    captured: dict[str, Captured] = {}
    for key, variant in made.items():
        try:
            captured[key] = capture(variant, batch, context)
        except Exception:
            fail(result, f"{key} b={batch} context={context}", traceback.format_exc())
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for key, step in captured.items():
            times[key] += replay(step, options.replays)
    for key, step in captured.items():
        taken = sorted(times[key])
        cell = {
            "batch": batch,
            "context": context,
            "variant": key,
            "median_us": statistics.median(taken),
            "p10_us": taken[len(taken) // 10],
            "p90_us": taken[len(taken) * 9 // 10],
        }
        if options.breakdown:
            cell["kernels"] = breakdown(step)
        yield cell


def print_shape(result: dict[str, Any]) -> None:
    if "floor_us" not in result:
        return
    print(
        f"\n{result['shape']}: {result['parameters'] / 1e9:.3f} B, {result['layers']} layers, "
        f"{result['weight_bytes'] / 1e9:.3f} GB a step, floor {result['floor_us']:.0f} µs, "
        f"goal {result['goal_us']:.0f} µs\n"
        f"{'batch':>5} {'context':>7} {'variant':>16} {'median µs':>10} {'p10':>8} {'p90':>8} "
        f"{'÷ floor':>8} {'goal':>5}"
    )
    for cell in result["cells"]:
        print(
            f"{cell['batch']:5} {cell['context']:7} {cell['variant']:>16} "
            f"{cell['median_us']:10.1f} {cell['p10_us']:8.1f} {cell['p90_us']:8.1f} "
            f"{cell['ratio_to_floor']:8.2f} {'yes' if cell['meets_goal'] else 'no':>5}"
        )
    for cell in result["cells"]:
        if "kernels" in cell:
            print(
                f"\n{result['shape']} b={cell['batch']} context={cell['context']} "
                f"{cell['variant']}: no kernel runs for {cell['kernels']['idle_us']:.1f} µs"
            )
            for row in cell["kernels"]["rows"][:14]:
                print(f"{row['us']:9.1f} µs {row['launches']:6.1f} × {row['kernel']}")
    sys.stdout.flush()


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw step time over batch size, one panel a shape, with floor and goal."""
    try:
        import matplotlib
    except ImportError:
        say("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = [shape for shape in report["shapes"] if shape["cells"]]
    figure, panels = pyplot.subplots(1, len(shapes), figsize=(5 * len(shapes), 4), squeeze=False)
    for panel, shape in zip(panels[0], shapes, strict=True):
        lines: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
        for cell in shape["cells"]:
            lines[cell["variant"], cell["context"]].append((cell["batch"], cell["median_us"]))
        for (variant, context), points in lines.items():
            panel.plot(*zip(*points, strict=True), marker="o", label=f"{variant}, {context} tokens")
        panel.axhline(shape["floor_us"], color="grey", linestyle=":", label="floor")
        panel.axhline(shape["goal_us"], color="black", linestyle="--", label="goal")
        panel.set(title=shape["shape"], xlabel="batch", ylabel="µs a step", xscale="log")
        panel.set_yscale("log")
        panel.legend(fontsize=7)
    figure.suptitle(f"One decode step, {report['device']}")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def fail(result: dict[str, Any], what: str, why: str) -> None:
    result["errors"][what] = why
    say(f"{result['shape']}: {what} failed: {why}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
