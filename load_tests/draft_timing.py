"""Captures a step into a CUDA graph, times its replays, and tells what its kernels take."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from load_tests.draft_variants import Variant

__all__ = ["Captured", "breakdown", "capture", "copy_bandwidth", "replay"]


@dataclass
class Captured:
    """A captured step and what keeps it repeatable."""

    graph: torch.cuda.CUDAGraph
    rewind: Callable[[], None]
    keep: Any  # what the graph reads and writes


def capture(variant: Variant, batch: int, context: int) -> Captured:
    """Return a step of `batch` rows with `context` tokens each, captured after a warm-up."""
    run, rewind = variant.step(batch, context)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    rewind()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    return Captured(graph, rewind, (run, out))


def replay(step: Captured, count: int) -> list[float]:
    """Return the µs of each of `count` replays, back to back."""
    step.rewind()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    step.graph.replay()
    # Until the device wakes, everything is enqueued: the host's launches take none of its time.
    torch.cuda._sleep(4_000_000)
    for event in events[:-1]:
        event.record()
        step.graph.replay()
    events[-1].record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) * 1e3 for a, b in itertools.pairwise(events)]


def breakdown(step: Captured, count: int = 5) -> dict[str, Any]:
    """Return µs and launches per step of each kernel, and how long no kernel ran."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    step.rewind()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for _ in range(count):
            step.graph.replay()
        torch.cuda.synchronize()
    kernels: dict[str, list[float]] = defaultdict(list)
    spans = []
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            kernels[event.name].append(event.time_range.elapsed_us())
            spans.append((event.time_range.start, event.time_range.end))
    spans.sort()
    idle = sum(max(0.0, b[0] - a[1]) for a, b in itertools.pairwise(spans))
    rows: list[dict[str, Any]] = [
        {"kernel": name[:120], "us": sum(us) / count, "launches": len(us) / count}
        for name, us in kernels.items()
    ]
    rows.sort(key=lambda row: -row["us"])
    return {"idle_us": idle / count, "rows": rows}


def copy_bandwidth() -> float:
    """Return bytes read and written per second by a copy of 2 GiB."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(12):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3)
    return 2 * int(source.nbytes) / statistics.median(times[2:])
