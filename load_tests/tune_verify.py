"""Finds how the verification kernels are best compiled and launched on a GPU: one table decides.

    python load_tests/tune_verify.py [--out tune-verify.json] [--budget-s 60]

Builds differ in threads of a block, in blocks that registers are kept few enough for (of the
reading kernel, and of the one for truncated rows) and in whether a warp loads a tile ahead; `early`
is programmatic dependent launch, `run` how many tiles a warp reads one after the other. All are
timed in CUDA graphs on the same batches, in turns, twice; figures are medians. Nothing is written
into the sources: what wins becomes a default of `kernels/` or `rayspec/ops/launch.py` by hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load_tests.bench.verify_paths import limited
from load_tests.bench_verify import Point, build, copy_bandwidth, graphed, say, timed_us
from rayspec.ops.launch import launch_verify
from rayspec.ops.loader import Module, _nvrtc, architecture, sources
from tests.support.verify_cases import assert_as_reference, case

VOCAB = 128256
RUNS = {64: (1, 2, 3, 4, 6, 8), 16: (1, 2, 4), 1: (1,)}


@dataclass(frozen=True)
class Build:
    """How the kernels are compiled, and whether they start early."""

    threads: int
    read_blocks: int
    ahead: int
    truncate_blocks: int
    early: bool = True

    def __str__(self) -> str:
        text = f"{self.threads} threads, read {self.read_blocks}, ahead {self.ahead}"
        return f"{text}, truncate {self.truncate_blocks}" + ("" if self.early else ", not early")

    @property
    def macros(self) -> tuple[str, ...]:
        """What the compiler is told."""
        return (
            f"RAYSPEC_THREADS={self.threads}",
            f"RAYSPEC_READ_BLOCKS={self.read_blocks}",
            f"RAYSPEC_AHEAD={self.ahead}",
            f"RAYSPEC_TRUNCATE_BLOCKS={self.truncate_blocks}",
        )


BUILDS = [
    Build(256, 4, 1, 4),
    Build(256, 4, 1, 4, early=False),
    Build(256, 3, 1, 3),
    Build(256, 4, 0, 5),
    Build(256, 5, 0, 6),
    Build(256, 6, 0, 2),
    Build(512, 2, 1, 2),
    Build(512, 2, 0, 1),
    Build(512, 3, 0, 3),
    Build(128, 8, 1, 6),
    Build(128, 10, 0, 4),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("tune-verify.json"))
    parser.add_argument("--budget-s", type=float, default=60.0, help="of measuring")
    parser.add_argument("--processes", type=int, default=11, help="that compile")
    args = parser.parse_args()
    device = torch.device("cuda", torch.cuda.current_device())
    modules = compiled(device, args.processes)
    copies = copy_bandwidth() / 1e9
    say(f"{torch.cuda.get_device_name()}: copies {copies:.0f} GB/s")
    right = [build for build, module in modules.items() if agrees(build, module)]
    times: dict[tuple[str, int, Build, int], list[float]] = defaultdict(list)
    end = time.monotonic() + args.budget_s
    for turn in range(2):
        for mode, batch in points():
            if time.monotonic() > end:
                say(f"out of time in turn {turn} at {mode}, {batch}")
                break
            point = Point(mode, batch, 5, VOCAB)
            cases = [build_case(point)]
            copied = 2 if batch == 64 else 8
            cases += [replace(cases[0], logits=cases[0].logits.clone()) for _ in range(copied - 1)]
            for build_ in right:
                for run in RUNS[batch] if mode in ("greedy", "temperature") else (None,):
                    calls: list[Callable[[], Any]] = [
                        partial(launch_verify, modules[build_], each, run=run) for each in cases
                    ]
                    replay = graphed(calls)
                    taken = [timed_us(replay) / copied for _ in range(9)]
                    times[mode, batch, build_, run or 0].append(statistics.median(taken))
    rows = [
        {"mode": mode, "batch": batch, **asdict(build_), "run": run, "us": min(us), "all_us": us}
        for (mode, batch, build_, run), us in times.items()
    ]
    args.out.write_text(
        json.dumps(
            {"device": torch.cuda.get_device_name(), "copy_gb_s": copies, "rows": rows}, indent=1
        )
    )
    table(rows, copies)


def points() -> Iterator[tuple[str, int]]:
    for batch in (64, 1, 16):
        for mode in ("greedy", "temperature", "top-p", "top-k", "both"):
            yield mode, batch


def build_case(point: Point) -> Any:
    """Return a batch with the limits that anybody has."""
    return limited(build(point, torch.bfloat16, 2.0, 20))


def compiled(device: torch.device, processes: int) -> dict[Build, Module]:
    """Compile all builds, several at a time."""
    began = time.monotonic()
    arch = architecture(device)
    different = list(dict.fromkeys(build.macros for build in BUILDS))
    with ProcessPoolExecutor(processes) as pool:
        code = dict(
            zip(different, pool.map(partial(_nvrtc, sources(), arch), different), strict=True)
        )
    say(f"{len(different)} builds compiled in {time.monotonic() - began:.1f} s")
    torch.cuda.current_stream().synchronize()
    modules = {}
    for build_ in BUILDS:
        module = Module(code[build_.macros], device, build_.threads)
        module.starts_early = module.starts_early and build_.early
        modules[build_] = module
    return modules


def agrees(build_: Build, module: Module) -> bool:
    """Say whether a build does what the reference does; a wrong one is not timed."""
    for vocab, dtype in ((32000, torch.bfloat16), (3001, torch.float32)):
        given = case(vocab, (3, 2, 0, 1, 3, 2, 3, 1), dtype=dtype, pad=vocab % 8, top_m=4).to(
            "cuda"
        )
        try:
            assert_as_reference(given, *launch_verify(module, given))
        except AssertionError as exc:
            say(f"WRONG {build_}: {exc}")
            return False
    return True


def table(rows: list[dict[str, Any]], copies: float) -> None:
    """Print each point's best builds, and the default one's place."""
    for mode, batch in points():
        mine = sorted(
            (r for r in rows if (r["mode"], r["batch"]) == (mode, batch)), key=lambda r: r["us"]
        )
        if not mine:
            continue
        floor = batch * 6 * VOCAB * 2 / copies / 1e3
        say(f"-- {mode}, B={batch}: one read at copy speed {floor:.1f} µs")
        shown = mine[:5] + [r for r in mine[5:] if is_default(r)][:2] + mine[-1:]
        for r in shown:
            name = Build(**{key: r[key] for key in asdict(BUILDS[0])})
            said = " ".join(f"{us:.1f}" for us in r["all_us"])
            speed = f"{r['us']:8.1f} µs  {100 * floor / r['us']:3.0f} %"
            say(f"{speed}  run {r['run']}  {name}  [{said}]")


def is_default(row: dict[str, Any]) -> bool:
    return all(row[key] == value for key, value in asdict(BUILDS[0]).items())


if __name__ == "__main__":
    main()
