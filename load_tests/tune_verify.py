"""Finds how the verification kernels are best compiled and launched on a GPU: one table decides.

    python load_tests/tune_verify.py [--out tune-verify.json] [--budget-s 60]

Builds differ in threads of a block and in blocks that registers are kept few enough for (of the
reading kernel, and of the one that decides truncated rows); `early` is programmatic dependent
launch, `run` how many tiles a warp reads one after the other, `apart` whether a kernel of its own
decides rows that nobody truncates. All are timed in CUDA graphs on the same batches, in turns,
twice; figures are medians. Nothing is written into the sources: what wins becomes a default of
`kernels/` or `rayspec/ops/launch.py` by hand.
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
RUNS = {64: (2, 4, 8, 16), 16: (2, 4, 8), 1: (1, 2)}
UNLIMITED = ("greedy", "temperature")
# In the order of the goals: what they are about is measured first.
POINTS = [
    *((mode, 64, VOCAB) for mode in ("temperature", "greedy", "top-k", "top-p", "both")),
    ("top-p", 64, 262144),
    *((mode, 1, VOCAB) for mode in ("temperature", "greedy", "top-k", "top-p")),
    *((mode, 16, VOCAB) for mode in ("temperature", "greedy", "top-p")),
]


@dataclass(frozen=True)
class Build:
    """How the kernels are compiled, and whether they start early."""

    threads: int
    read_blocks: int
    truncate_blocks: int
    early: bool = True

    def __str__(self) -> str:
        text = f"{self.threads} threads, read {self.read_blocks}"
        return f"{text}, truncate {self.truncate_blocks}" + ("" if self.early else ", not early")

    @property
    def macros(self) -> tuple[str, ...]:
        """What the compiler is told."""
        return (
            f"RAYSPEC_THREADS={self.threads}",
            f"RAYSPEC_READ_BLOCKS={self.read_blocks}",
            f"RAYSPEC_TRUNCATE_BLOCKS={self.truncate_blocks}",
        )


BUILDS = [
    Build(256, 4, 3),
    Build(256, 4, 4),
    Build(256, 3, 3),
    Build(256, 5, 1),
    Build(512, 2, 1),
    Build(512, 1, 2),
    Build(128, 8, 6),
    Build(128, 6, 4),
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
    times: dict[Key, list[float]] = defaultdict(list)
    end = time.monotonic() + args.budget_s
    for turn in range(2):
        for mode, batch, vocab in POINTS:
            if time.monotonic() > end:
                say(f"out of time in turn {turn} at {mode}, {batch}, {vocab}")
                break
            cases = [build_case(Point(mode, batch, 5, vocab))]
            copied = 2 if batch == 64 else 8
            cases += [replace(cases[0], logits=cases[0].logits.clone()) for _ in range(copied - 1)]
            for build_ in right:
                for run, apart in launches(mode, batch):
                    calls: list[Callable[[], Any]] = [
                        partial(launch_verify, modules[build_], each, run=run, apart=apart)
                        for each in cases
                    ]
                    replay = graphed(calls)
                    taken = [timed_us(replay) / copied for _ in range(9)]
                    key = (mode, batch, vocab, build_, run or 0, apart)
                    times[key].append(statistics.median(taken))
    rows = [
        {
            **{"mode": mode, "batch": batch, "vocab": vocab, **asdict(build_)},
            **{"run": run, "apart": apart, "us": min(us), "all_us": us},
        }
        for (mode, batch, vocab, build_, run, apart), us in times.items()
    ]
    args.out.write_text(
        json.dumps(
            {"device": torch.cuda.get_device_name(), "copy_gb_s": copies, "rows": rows}, indent=1
        )
    )
    table(rows, copies)


Key = tuple[str, int, int, Build, int, bool]


def launches(mode: str, batch: int) -> Iterator[tuple[int | None, bool]]:
    """Yield the ways to launch that a point is measured with: `run` and `apart`."""
    if mode not in UNLIMITED:
        yield None, False
        return
    for run in RUNS[batch]:
        yield run, False
        yield run, True


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
    drafts = (3, 2, 0, 1, 3, 2, 3, 1)
    for vocab, dtype, spread in (
        (32000, torch.bfloat16, 4.0),
        (3001, torch.float32, 4.0),
        (9000, torch.float16, 0.3),
    ):
        given = case(vocab, drafts, dtype=dtype, pad=vocab % 8, top_m=4, spread=spread).to("cuda")
        plain = replace(given, top_k=None, top_p=None, min_p=None)
        try:
            assert_as_reference(given, *launch_verify(module, given))
            for run, apart in ((1, False), (3, True), (16, False)):
                done = launch_verify(module, plain, run=run, apart=apart)
                assert_as_reference(plain, *done)
        except AssertionError as exc:
            say(f"WRONG {build_}: {exc}")
            return False
    return True


def table(rows: list[dict[str, Any]], copies: float) -> None:
    """Print each point's best builds, and the default one's place."""
    for mode, batch, vocab in POINTS:
        mine = sorted(
            (r for r in rows if (r["mode"], r["batch"], r["vocab"]) == (mode, batch, vocab)),
            key=lambda r: r["us"],
        )
        if not mine:
            continue
        floor = batch * 6 * vocab * 2 / copies / 1e3
        say(f"-- {mode}, B={batch}, {vocab}: one read at copy speed {floor:.1f} µs")
        shown = mine[:5] + [r for r in mine[5:] if is_default(r)][:3] + mine[-1:]
        for r in shown:
            name = Build(**{key: r[key] for key in asdict(BUILDS[0])})
            said = " ".join(f"{us:.1f}" for us in r["all_us"])
            speed = f"{r['us']:8.1f} µs  {100 * floor / r['us']:3.0f} %"
            how = f"run {r['run']}{', apart' if r['apart'] else ''}"
            say(f"{speed}  {how}  {name}  [{said}]")


def is_default(row: dict[str, Any]) -> bool:
    return all(row[key] == value for key, value in asdict(BUILDS[0]).items())


if __name__ == "__main__":
    main()
