"""Searches for the best cut of every matrix of the fused draft path; see bench_fused.py."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.errors import OutOfResources
from triton.runtime.jit import JITFunction

from rayspec.draft.fused import FusedLlamaModel
from rayspec.draft.fused.launch import MODES, Options, Product, Projection
from rayspec.draft.fused.shape import FusedShape
from rayspec.draft.fused.tiles import Tile, TileKey, choose_tile
from rayspec.draft.fused.weights import Matrix

# More than any L2, so that every launch finds its weights in memory.
_COLD_BYTES = 200_000_000
_PROCESSORS = 132


def keys(shapes: list[FusedShape], rows: list[int]) -> list[TileKey]:
    """Return every matrix of the shapes at every number of rows."""
    found = {
        (role, outputs, inputs, count): None
        for shape, count in itertools.product(shapes, rows)
        for role, outputs, inputs in (
            ("qkv", shape.qkv, shape.hidden),
            ("out", shape.hidden, shape.attended),
            ("gate_up", 2 * shape.intermediate, shape.hidden),
            ("down", shape.hidden, shape.intermediate),
            ("head", shape.vocab, shape.hidden),
        )
        # Heads have a row for a sequence: a width of 2 does not double them.
        if role != "head" or count <= 16
    }
    return cast(list[TileKey], list(found))


def candidates(key: TileKey) -> Iterator[Tile]:
    """Yield cuts worth timing, the rule's own first."""
    role, outputs, inputs, rows = key
    rule = choose_tile(*key, _PROCESSORS)
    yield rule
    if rows >= 16:
        yield from _wide(key, rule)
        return
    splits = (1, 2, 4, 8) if role in ("qkv", "out", "down") else (1,)
    for bn, bk, split in itertools.product(
        (2, 4, 8, 16),
        (256, 512, 1024, 2048),
        splits,
    ):
        programs = -(-outputs // bn) * split
        held = bn * bk * rows
        # Half a wave at least; at most 32 KiB of weights at a time; no split beyond the inputs.
        if programs < _PROCESSORS // 2 or not 1024 <= held <= 16384 or bk * split >= 2 * inputs:
            continue
        if split > 1 and programs > 8 * _PROCESSORS:
            continue
        # One stage loads into registers, all of a turn at once.
        for stages in (1, 4) if held >= 4096 else (4,):
            tile = Tile(bn, bk, split, 4, stages)
            if tile != rule:
                yield tile


def _wide(key: TileKey, rule: Tile) -> Iterator[Tile]:
    """Yield cuts for tensor cores: few, because what matters is how much is under way."""
    role, outputs, inputs, rows = key
    large = outputs * inputs > 4_000_000
    for bn, bk, split in itertools.product(
        (16, 64, 128) if large else (16, 32, 64),
        (64, 128, 256),
        (1, 2, 4, 8) if role in ("qkv", "down", "out") else (1,),
    ):
        programs = -(-outputs // bn) * split
        turns = inputs // (bk * split)
        least = _PROCESSORS // 2 if large else 16
        if inputs % (bk * split) or not least <= programs <= 16 * _PROCESSORS:
            continue
        # All of a processor's shared memory, or half of it for a second program.
        stage = 2 * bk * (bn + rows)
        for budget in (100_000, 200_000):
            stages = min(turns + 1, budget // stage, 8)
            tile = Tile(bn, bk, split, 4, stages)
            if stages >= 3 and tile != rule and (budget == 100_000 or stage * stages > 100_000):
                yield tile


def launch_of(
    key: TileKey, tile: Tile, weight: torch.Tensor, options: Options
) -> Product | Projection:
    """Return a launch with buffers of its own, as a plan would make it."""
    role, outputs, inputs, rows = key
    device, kind, wide = weight.device, weight.dtype, torch.float32
    normed = MODES[role][1]

    def zeros(*size: int, dtype: torch.dtype = wide) -> torch.Tensor:
        return torch.zeros(size, device=device, dtype=dtype)

    parts = tile.split if role == "qkv" else 1
    out = zeros(parts, rows, outputs, dtype=kind if role == "gate_up" else wide)
    common: dict[str, Any] = {
        "role": role,
        "matrix": Matrix(weight, None),
        "out": out,
        "rows": rows,
        "stride": 1,
        "eps": 1e-5,
        "tile": tile,
        "options": options,
    }
    if rows >= 16:
        adds = role in ("out", "down")
        tiles = -(-outputs // tile.bn)
        return Product(
            x=zeros(rows, inputs, dtype=kind),
            squares=zeros(64, rows) if role in ("gate_up", "head") else None,
            gain=zeros(outputs, dtype=kind) if adds else None,
            normed=zeros(rows, outputs, dtype=kind) if adds else None,
            sums=zeros(tiles, rows) if adds else None,
            partial=zeros(tile.split, rows, outputs) if adds else None,
            arrived=zeros(tiles * rows, dtype=torch.int32) if adds else None,
            **common,
        )
    return Projection(
        x=zeros(rows, inputs, dtype=wide if normed else kind),
        gain=torch.ones(inputs, device=device, dtype=kind) if normed else None,
        squares=zeros(parts, rows) if role == "qkv" else None,
        **common,
    )


def tune(
    shapes: list[FusedShape], rows: list[int], bandwidth: float, say: Callable[[str], None]
) -> dict[TileKey, Tile]:
    """Return the fastest cut of every matrix, and print it as a line of `MEASURED`."""
    best: dict[TileKey, Tile] = {}
    for key in keys(shapes, rows):
        outputs, inputs = key[1:3]
        size = outputs * inputs * 2
        count = max(4, min(256, -(-_COLD_BYTES // size)))
        weights = torch.randn(count, outputs, inputs, device="cuda", dtype=torch.bfloat16)
        times: dict[Tile, float] = {}
        for tile in candidates(key):
            try:
                times[tile] = _seconds(key, tile, weights)
            except OutOfResources:
                continue
        ranked = sorted(times, key=lambda tile: times[tile])
        best[key] = ranked[0]
        rule, fastest = (times[tile] * 1e6 for tile in (next(candidates(key)), ranked[0]))
        tile = ranked[0]
        say(
            f"    {key}: Tile({tile.bn}, {tile.bk}, {tile.split}, {tile.warps}, {tile.stages}),"
            f"  # {fastest:.2f} µs, rule {rule:.2f}, floor {size / bandwidth * 1e6:.2f}"
        )
        del weights
    return best


def write_measured(path: Path, tiles: dict[TileKey, Tile], device: str) -> None:
    """Write `rayspec/draft/fused/measured.py`; every line says what it is of."""
    lines = [
        '"""Cuts of matrices that were measured; written by `load_tests/bench_fused.py --tune'
        ' --write`."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Final",
        "",
        "from rayspec.draft.fused.tiles import Tile, TileKey",
        "",
        '__all__ = ["MEASURED"]',
        "",
        f"# On an {device}: (role, outputs, inputs, padded rows).",
        "MEASURED: Final[dict[TileKey, Tile]] = {",
    ]
    for (role, outputs, inputs, rows), tile in sorted(tiles.items()):
        cut = f"Tile({tile.bn}, {tile.bk}, {tile.split}, {tile.warps}, {tile.stages})"
        lines.append(f'    ("{role}", {outputs}, {inputs}, {rows}): {cut},')
    path.write_text("\n".join([*lines, "}", ""]))


def _seconds(key: TileKey, tile: Tile, weights: torch.Tensor) -> float:
    first = launch_of(key, tile, weights[0], Options(pdl=True, hints=True))
    launches = [replace(first, matrix=Matrix(weight, None)) for weight in weights]
    launches[0].run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for launch in launches:
            launch.run()
    graph.replay()
    times = []
    for _ in range(4):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3 / len(launches))
    return float(statistics.median(times))


def precompile(shapes: list[FusedShape], rows: list[int]) -> None:
    """Compile every candidate into Triton's cache, on all processors; before CUDA is in use."""
    _everywhere(
        _compile, [(key, tile) for key in keys(shapes, rows) for tile in candidates(key)], 4
    )


def precompile_steps(
    folders: list[Path],
    batches: list[int],
    tiles: dict[TileKey, Tile],
    quantization: str,
    plain: bool,
) -> None:
    """Compile what the steps of these batch sizes launch, likewise."""
    pdl = (True, False) if plain else (True,)
    jobs = itertools.product(folders, batches, (1, 2), pdl, [tiles], [quantization])
    _everywhere(_compile_step, list(jobs), 1)


def _everywhere(compile_one: Callable[[Any], None], jobs: list[Any], chunk: int) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(os.cpu_count(), torch.set_num_threads, (1,)) as pool:
        for _ in pool.imap_unordered(compile_one, jobs, chunksize=chunk):
            pass


@contextmanager
def _compiling() -> Iterator[None]:
    """Make launches compile and do nothing else."""
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return run(self, *args, grid=grid, warmup=True, **options)

    driver.set_active(_Hopper())
    JITFunction.run = compile_only
    try:
        yield
    except OutOfResources:
        pass
    finally:
        JITFunction.run = run


def _compile(job: tuple[TileKey, Tile]) -> None:
    key, tile = job
    with _compiling():
        weight = torch.empty(key[1], key[2], dtype=torch.bfloat16, device="meta")
        launch_of(key, tile, weight, Options(pdl=True, hints=True)).run()


def _compile_step(job: tuple[Path, int, int, bool, dict[TileKey, Tile], Any]) -> None:
    folder, batch, width, pdl, tiles, quantization = job
    with _compiling():
        model = FusedLlamaModel.load(
            folder, dummy=True, device="meta", quantization=quantization, tiles=tiles
        )
        model.processors = _PROCESSORS
        model.options = Options(pdl=pdl, hints=True)
        model.allocate(1, 1)
        plan = model.plan(batch, width)
        plan.layers = plan.layers[:1]
        plan.run()


class _Hopper:
    """What Triton's launcher asks of a driver until a kernel is compiled."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)
