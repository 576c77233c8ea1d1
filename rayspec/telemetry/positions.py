"""Metrics that a speculative engine has whoever drafts: whether, and acceptance by position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["by_position", "draft_attached"]


def draft_attached(attached: bool) -> GaugeMetricFamily:
    """Return whether drafts are to be had."""
    return GaugeMetricFamily("rayspec_draft_attached", "1 while a draft answers.", float(attached))


def by_position(drafted: Sequence[int], accepted: Sequence[int]) -> Iterator[CounterMetricFamily]:
    """Yield how many draft tokens were verified and accepted at each position of a draft."""
    for name, text, counts in (
        ("drafted", "Draft tokens verified, by position in the draft.", drafted),
        ("accepted", "Draft tokens accepted, by position in the draft.", accepted),
    ):
        family = CounterMetricFamily(f"rayspec_position_{name}_tokens", text, labels=["position"])
        for position, count in enumerate(counts):
            family.add_metric([str(position)], count)
        yield family
