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

    `coverage` is the share of the `rows` · `k` places that had a draft, fillers not counted: with
    synthetic acceptance vLLM also accepts fillers, so a cell with less than 1 looks too fast.
    """
    reading: dict[str, Any] = {
        name: after["link"][name] - before["link"][name] for name in COUNTS if name in after["link"]
    }
    reading |= {
        name: value for name, value in after["link"].items() if name.endswith(("_us", "_ms"))
    }
    drafted = after["drafted"] - before["drafted"]
    reading["coverage"] = min(drafted / (rows * k), 1.0) if rows and k else 0.0
    reading["errors"] = after["errors"]
    return reading


def draft_reading(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the times of the newest rounds, in µs."""
    return {name: value for name, value in stats.items() if name.endswith("_us")}
