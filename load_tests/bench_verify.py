"""Times verification: our kernels against vLLM's path, FlashInfer's and the memory's bandwidth.

    python load_tests/bench_verify.py [--quick] [--out verify.json] [--plot verify.png]

Every batch is verified by each way in turn, in CUDA graphs over several copies of the logits;
medians are reported. GB/s count one read of the logits and nothing else; copies count what they
read and what they write. Host times are those of calls without a graph, as vLLM's engine makes
them. Logits are normal with a few likely tokens per row; with `--spread` alone they are flat.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load_tests.bench.verify_paths import flashinfer_path, our_path, vllm_path
from tests.support.verify_cases import Case, Sampling

MODES = {
    "greedy": Sampling(0.0),
    "temperature": Sampling(0.8),
    "top-p": Sampling(1.0, top_p=0.9),
    "top-k": Sampling(1.0, top_k=50),
    "both": Sampling(1.0, top_k=50, top_p=0.9),
}
PATHS: dict[str, Callable[[Case], Callable[[], Any]]] = {
    "rayspec": our_path,
    "vllm": vllm_path,
    "flashinfer": flashinfer_path,
}
# FlashInfer looks up its generator's state on the host: captured, it would draw the same for ever.
# Its times hold the host's, where those are longer.
EAGER = {"flashinfer"}
VOCABS = [32000, 49152, 128256, 151936, 262144]


@dataclass(frozen=True)
class Point:
    """A batch to verify."""

    mode: str
    batch: int
    k: int
    vocab: int

    @property
    def rows(self) -> int:
        """Rows of logits."""
        return self.batch * (self.k + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 8, 16, 64, 128, 256])
    parser.add_argument("--k", nargs="+", type=int, default=[1, 3, 5, 8])
    parser.add_argument("--vocabs", nargs="+", type=int, default=VOCABS)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--paths", nargs="+", default=list(PATHS), choices=list(PATHS))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--spread", type=float, default=2.0)
    parser.add_argument("--likely", type=int, default=20, help="likely tokens per row; 0 is flat")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few points, about a minute")
    parser.add_argument("--budget-s", type=float, default=1800.0)
    parser.add_argument("--out", type=Path, help="where to write everything as JSON")
    parser.add_argument("--plot", type=Path, help="where to draw time against rows")
    args = parser.parse_args()
    points = quick_grid(args) if args.quick else full_grid(args)
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "dtype": args.dtype,
        "copy_gb_s": copy_bandwidth() / 1e9,
        "empty_pair_us": empty_pair_us(),
        "points": [],
        "left_out": {},
        "without_graph": {},
    }
    say(f"{report['device']}, {args.dtype}: copies {report['copy_gb_s']:.0f} GB/s")
    say(f"an empty pair of launches {report['empty_pair_us']:.1f} µs")
    say(
        "mode          B  K  vocab      MB |  ours µs   GB/s  %copy |  vllm µs     × | "
        "flashinf     × | host µs ours  vllm"
    )
    end = time.monotonic() + args.budget_s
    for point in tqdm(points, disable=not sys.stderr.isatty()):
        if time.monotonic() > end:
            say("out of time")
            break
        row = measure(point, args, report)
        report["points"].append(row)
        say(line(point, row))
        if args.out:
            args.out.write_text(json.dumps(report, indent=1))
    for key in ("left_out", "without_graph"):
        if report[key]:
            say(f"{key}: {report[key]}")
    if args.plot:
        plot(report, args.plot)


def quick_grid(args: argparse.Namespace) -> list[Point]:
    """Return the points that the goals are about."""
    points = [Point(mode, b, 5, 128256) for mode in args.modes for b in (64, 1, 2, 16)]
    points += [
        Point(mode, 64, 5, v) for mode in ("greedy", "top-p") for v in (32000, 151936, 262144)
    ]
    return points


def full_grid(args: argparse.Namespace) -> list[Point]:
    """Return every combination, those at the usual draft length and vocabulary first."""
    points = [
        Point(mode, b, k, v)
        for mode in args.modes
        for v in args.vocabs
        for k in args.k
        for b in args.batches
        if b * (k + 1) * v * 4 < 16e9
    ]
    return sorted(points, key=lambda p: (p.vocab != 128256) + (p.k != 5))


def measure(point: Point, args: argparse.Namespace, report: dict[str, Any]) -> dict[str, Any]:
    """Time one point by every path, in turns."""
    dtype = getattr(torch, args.dtype)
    size = point.rows * point.vocab * dtype.itemsize
    copies = int(max(1, min(8, 240e6 // size)))
    cases = [build(point, dtype, args.spread, args.likely)]
    cases += [replace(cases[0], logits=cases[0].logits.clone()) for _ in range(copies - 1)]
    runs: dict[str, Callable[[], None]] = {}
    hosts: dict[str, float] = {}
    for name in args.paths:
        if name in report["left_out"]:
            continue
        try:
            calls = [PATHS[name](given) for given in cases]
            hosts[name] = host_us(calls)
        except Exception as exc:
            report["left_out"][name] = f"{type(exc).__name__}: {exc}"[:200]
            continue
        if name in EAGER:
            runs[name] = partial(run_all, calls)
            continue
        try:
            runs[name] = graphed(calls)
        except RuntimeError as exc:
            report["without_graph"][f"{name}, {point.mode}"] = str(exc)[:200]
            runs[name] = partial(run_all, calls)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, replay in runs.items():
            times[name].append(timed_us(replay) / copies)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        **{key: getattr(point, key) for key in ("mode", "batch", "k", "vocab", "rows")},
        "bytes": size,
        "us": medians,
        "spread_us": {name: [min(values), max(values)] for name, values in times.items()},
        "host_us": hosts,
        "gb_s": size / medians["rayspec"] / 1e3 if "rayspec" in medians else None,
        "of_copy": size / medians["rayspec"] / 1e3 / report["copy_gb_s"]
        if "rayspec" in medians
        else None,
    }


def build(point: Point, dtype: torch.dtype, spread: float, likely: int) -> Case:
    """Return a batch on the device; three of four drafts are the likeliest tokens."""
    draw = torch.Generator("cuda").manual_seed(point.rows)
    device = torch.device("cuda")
    logits = torch.empty((point.rows, point.vocab), dtype=dtype, device=device)
    for start in range(0, point.rows, 64):
        part = logits[start : start + 64]
        noise = torch.randn(part.shape, device=device, generator=draw) * spread
        if likely:
            ids = torch.randint(
                0, point.vocab, (part.shape[0], likely), device=device, generator=draw
            )
            high = 14 + 2.5 * torch.randn(ids.shape, device=device, generator=draw)
            noise.scatter_(1, ids, high)
        part.copy_(noise)
    best = logits.argmax(dim=1).roll(1)
    other = torch.randint(0, point.vocab, (point.rows,), device=device, generator=draw)
    hit = torch.rand(point.rows, device=device, generator=draw) < 0.75
    sampling = MODES[point.mode]

    def all_of(value: float, kind: torch.dtype) -> torch.Tensor:
        return torch.full((point.batch,), value, dtype=kind, device=device)

    batch = torch.arange(point.batch, device=device)
    return Case(
        logits,
        torch.where(hit, best, other).to(torch.int32),
        torch.arange(point.batch + 1, dtype=torch.int32, device=device) * (point.k + 1),
        batch.to(torch.int32),
        all_of(sampling.temperature, torch.float32),
        all_of(sampling.top_k or point.vocab, torch.int32),
        all_of(sampling.top_p, torch.float32),
        all_of(sampling.min_p, torch.float32),
        batch * 7919 + 1,
        torch.arange(point.rows, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
        point.k,
    )


def graphed(calls: list[Callable[[], Any]]) -> Callable[[], None]:
    """Return the replay of one graph with all calls in it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    replay: Callable[[], None] = graph.replay
    return replay


def run_all(calls: list[Callable[[], Any]]) -> None:
    """Make all calls."""
    for call in calls:
        call()


def timed_us(run: Callable[[], None]) -> float:
    """Return how long the device takes."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3


def host_us(calls: list[Callable[[], Any]]) -> float:
    """Return how long the host takes to launch one call."""
    for _ in range(2):
        for call in calls:
            call()
    times = []
    for _ in range(12):
        torch.cuda.synchronize()
        start = time.perf_counter()
        calls[0]()
        times.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return statistics.median(times) * 1e6


def copy_bandwidth() -> float:
    """Return bytes read and written per second by large copies."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    times = [timed_us(lambda: target.copy_(source)) for _ in range(12)]
    return float(2 * source.numel() * 4 / statistics.median(times) * 1e6)


def empty_pair_us() -> float:
    """Return what two launches that do nothing cost in a graph."""
    word = torch.zeros(1, device="cuda")
    replay = graphed([lambda: word.add_(1)] * 64)
    return statistics.median([timed_us(replay) for _ in range(12)]) / 32


def line(point: Point, row: dict[str, Any]) -> str:
    """Return a point's line of the table."""
    us, host = row["us"], row["host_us"]

    def against(name: str) -> str:
        if name not in us or "rayspec" not in us:
            return f"{'-':>8} {'-':>5}"
        return f"{us[name]:8.1f} {us[name] / us['rayspec']:5.2f}"

    ours = (
        f"{us['rayspec']:8.1f} {row['gb_s']:6.0f} {100 * row['of_copy']:5.0f}%"
        if "rayspec" in us
        else "-"
    )
    return (
        f"{point.mode:11} {point.batch:3} {point.k:2} {point.vocab:6} {row['bytes'] / 1e6:7.1f} | "
        f"{ours} | {against('vllm')} | {against('flashinfer')} | "
        f"{host.get('rayspec', 0):8.0f} {host.get('vllm', 0):8.0f}"
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw time against rows, a panel to a mode."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    modes = list(dict.fromkeys(p["mode"] for p in report["points"]))
    figure, panels = pyplot.subplots(1, len(modes), figsize=(4 * len(modes), 4), squeeze=False)
    for mode, panel in zip(modes, panels[0], strict=True):
        mine = [p for p in report["points"] if p["mode"] == mode and p["vocab"] == 128256]
        mine.sort(key=lambda p: p["rows"])
        for name in PATHS:
            seen = [p for p in mine if name in p["us"]]
            panel.loglog([p["rows"] for p in seen], [p["us"][name] for p in seen], "o-", label=name)
        floor = [p["bytes"] / report["copy_gb_s"] / 1e3 for p in mine]
        panel.loglog([p["rows"] for p in mine], floor, "k--", label="one read")
        panel.set(title=mode, xlabel="rows of logits", ylabel="µs")
    panels[0][0].legend()
    figure.suptitle(f"{report['device']}, vocabulary 128256, {report['dtype']}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
