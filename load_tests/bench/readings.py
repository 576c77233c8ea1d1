"""What the link and the draft say about one measurement, from their own counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["draft_reading", "link_reading"]

COUNTS = ("sent", "received", "misses", "skipped", "stale", "resyncs", "deaths")


def link_reading(
    before: Mapping[str, Any], after: Mapping[str, Any], rows: int, k: int
) -> dict[str, Any]:
    """Return what happened on the link between two `rayspec_status` answers.

    `wait_us` is the mean of a step. `coverage` is the share of the `rows` · `k` places that had a
    draft, fillers not counted: with synthetic acceptance vLLM also accepts fillers, so that a cell
    with less than 1 looks too fast.
    """
    reading: dict[str, Any] = {
        name: after["link"][name] - before["link"][name] for name in COUNTS if name in after["link"]
    }
    if "wait_us" in after["link"]:  # counted on the device only
        waited = after["link"]["wait_us"] - before["link"]["wait_us"]
        reading["wait_us"] = waited / max(reading["sent"], 1)
    drafted = after["drafted"] - before["drafted"]
    reading["coverage"] = min(drafted / (rows * k), 1.0) if rows and k else 0.0
    reading["errors"] = after["errors"]
    return reading


def draft_reading(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the draft's rounds took between two answers about its statistics, in µs.

    `round_us` is the mean of a whole round. A draft on a GPU measures it there, where the host's
    clock sees launches only; of one on the host it is the median of the newest rounds, some of
    which may be older.
    """
    old, new = before.get("on_device") or {}, after.get("on_device") or {}
    rounds = new.get("rounds_drafted", 0) - old.get("rounds_drafted", 0)
    if not rounds:
        return {"round_us": after["draft_p50_us"]}
    return {
        "round_us": (new["round_sum_us"] - old["round_sum_us"]) / rounds,
        "ahead": (new["rounds_ahead"] - old["rounds_ahead"]) / rounds,
        "rows_not_ready": new["rows_not_ready"] - old["rows_not_ready"],
        "launch_p50_us": new["launch_p50_us"],
    }
