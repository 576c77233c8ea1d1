"""Times verification at tensor parallelism 2: gathered logits, vLLM's all-to-all, and summaries.

    python load_tests/bench_sharded.py [--ranks 2] [--graphs] [--out sharded.json]

Each rank has half of the columns of every row. `gathered`: NCCL gathers the logits, as vLLM's
logits processor does, and every rank verifies all rows. `all-to-all`: each rank gets whole rows of
half of the requests and verifies those, then tokens are gathered (vLLM's batch-sharded sampling).
`sharded`: each rank reads what it has, and 32 bytes a row are gathered. The kernels are ours in all
three. Paths take turns; a time is the slowest rank's median. First all three must agree: greedy
with one another, and `sharded` with the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load_tests.bench.verify_paths import limited
from load_tests.bench_verify import Point, build, say, timed_us
from rayspec.ops.batch import Batch
from rayspec.ops.sharded import Shard, gather_over, verify_sharded
from rayspec.ops.verify import verify
from tests.support.verify_cases import assert_as_reference

Result = tuple[torch.Tensor, torch.Tensor]
K = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 1, 16, 256])
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--modes", nargs="+", default=["greedy", "temperature"])
    parser.add_argument("--graphs", action="store_true", help="capture, collectives included")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    mp.spawn(rank_main, (args,), nprocs=args.ranks)


def rank_main(rank: int, args: argparse.Namespace) -> None:
    """Measure on one rank; rank 0 prints."""
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=args.ranks)
    shard = Shard(rank, args.ranks, -(-args.vocab // (64 * args.ranks)) * 64, args.vocab)
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(), "points": []}
    if rank == 0:
        say(f"{report['device']} × {args.ranks}, graphs: {args.graphs}")
        say("mode          B | gathered µs  all-to-all  sharded | gathered ÷ sharded  logits MB")
    check(shard, args.vocab)
    for mode in args.modes:
        for batch in args.batches:
            whole = limited(build(Point(mode, batch, K, args.vocab), torch.bfloat16, 2.0, 20))
            paths = {name: make(whole, shard) for name, make in PATHS.items()}
            if batch % args.ranks:
                paths.pop("all-to-all")
            runs = {name: captured(call) if args.graphs else call for name, call in paths.items()}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(args.rounds):
                for name, run in runs.items():
                    dist.barrier()
                    torch.cuda.synchronize()
                    times[name].append(timed_us(partial(repeat, run)) / REPEATS)
            mine = torch.tensor([statistics.median(us) for us in times.values()], device="cuda")
            dist.all_reduce(mine, dist.ReduceOp.MAX)
            us = dict(zip(times, mine.tolist(), strict=True))
            report["points"].append(
                {"mode": mode, "batch": batch, "rows": batch * (K + 1), "us": us}
            )
            if rank == 0:
                size = whole.logits.nbytes / 1e6
                shown = [f"{us.get(name, float('nan')):10.1f}" for name in PATHS]
                ratio = us["gathered"] / us["sharded"]
                say(f"{mode:11} {batch:3} | {' '.join(shown)} | {ratio:10.2f} {size:15.1f}")
    if rank == 0 and args.out:
        args.out.write_text(json.dumps(report, indent=1))
    dist.destroy_process_group()


REPEATS = 20


def repeat(run: Callable[[], Any]) -> None:
    """Call back to back: the device catches up with the host, or the other way round."""
    for _ in range(REPEATS):
        run()


def check(shard: Shard, vocab: int) -> None:
    """Fail unless the ways agree wherever their random numbers are the same."""
    for mode in ("greedy", "temperature"):
        whole = limited(build(Point(mode, 4, K, vocab), torch.bfloat16, 2.0, 20))
        results = {name: make(whole, shard)() for name, make in PATHS.items()}
        assert_as_reference(whole, *results["sharded"], width=shard.width)
        assert torch.equal(results["gathered"][0], results["all-to-all"][0]), mode
        if mode == "greedy":
            assert torch.equal(results["gathered"][0], results["sharded"][0])
    if shard.index == 0:
        say("all three agree")


def part(whole: Batch, shard: Shard) -> Batch:
    """Return a rank's columns."""
    mine = whole.logits.new_zeros(whole.logits.shape[0], shard.width)
    mine[:, : shard.columns] = whole.logits[:, shard.first : shard.first + shard.columns]
    return replace(whole, logits=mine)


def gathered(whole: Batch, shard: Shard) -> Callable[[], Result]:
    """Return the verification after an all-gather of the logits."""
    mine = part(whole, shard)

    def run() -> Result:
        n, width = mine.logits.shape
        everyone = mine.logits.new_empty((shard.count * n, width))
        dist.all_gather_single(everyone, mine.logits)
        # As vLLM's communicator does: rank by rank to side by side, one copy.
        rows = everyone.view(shard.count, n, width).movedim(0, 1).reshape(n, shard.count * width)
        return verify(replace(mine, logits=rows[:, : shard.vocab]))

    return run


def all_to_all(whole: Batch, shard: Shard) -> Callable[[], Result]:
    """Return the verification of a part of the requests each, their rows whole."""
    mine = part(whole, shard)
    requests = whole.slot_of.shape[0] // shard.count
    if requests * shard.count != whole.slot_of.shape[0]:
        return gathered(whole, shard)
    rows = requests * (K + 1)
    own = slice(shard.index * rows, (shard.index + 1) * rows)
    few = replace(
        whole,
        draft_ids=whole.draft_ids[own].contiguous(),
        cu_num_logits=whole.cu_num_logits[: requests + 1].contiguous(),
        slot_of=whole.slot_of[shard.index * requests :][:requests].contiguous(),
        positions=whole.positions[own].contiguous(),
    )

    def run() -> Result:
        width = mine.logits.shape[1]
        received = torch.empty_like(mine.logits)
        dist.all_to_all_single(received, mine.logits)
        whole_rows = received.view(shard.count, rows, width).movedim(0, 1).reshape(rows, -1)
        sampled, counts = verify(replace(few, logits=whole_rows[:, : shard.vocab]))
        both = torch.cat([sampled, counts[:, None].long()], dim=1)
        everyone = both.new_empty((shard.count * requests, both.shape[1]))
        dist.all_gather_single(everyone, both)
        return everyone[:, :-1], everyone[:, -1].int()

    return run


def sharded(whole: Batch, shard: Shard) -> Callable[[], Result]:
    """Return the verification by summaries."""
    mine, gather = part(whole, shard), gather_over()
    return lambda: verify_sharded(mine, shard, gather)


PATHS: dict[str, Callable[[Batch, Shard], Callable[[], Result]]] = {
    "gathered": gathered,
    "all-to-all": all_to_all,
    "sharded": sharded,
}


def captured(call: Callable[[], Any]) -> Callable[[], None]:
    """Return the replay of a graph of one call, collectives included."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        call()
    graph.replay()
    replay: Callable[[], None] = graph.replay
    return replay


if __name__ == "__main__":
    main()
