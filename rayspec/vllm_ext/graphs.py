"""Makes vLLM find the full CUDA graphs that it captured. Read at vLLM 0.32.0.

vLLM offers a batch of n tokens only the graphs of the smallest captured size that holds it. With
several widths of K the graphs there may all be of another width: of 30 tokens, 5 requests at K = 5,
the nearest graph is one for 32 requests at K = 0, and the step runs without a full graph although
one for 6 requests at K = 5 is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["complete_dispatch"]


def complete_dispatch(candidates: dict[tuple[int, int], list[Any]], graphs: Iterable[Any]) -> int:
    """Offer each uniform batch the smallest full graph of its width; return how many were added.

    `candidates` is vLLM's table by tokens and adapters, `graphs` the descriptors of what it
    captured.
    """
    by_width: dict[tuple[int, int], list[Any]] = {}
    for graph in graphs:
        if graph.uniform_token_count is not None and graph.num_ubatches == 1:
            key = (graph.uniform_token_count, graph.num_active_loras)
            by_width.setdefault(key, []).append(graph)
    added = 0
    for (width, adapters), family in by_width.items():
        family.sort(key=lambda graph: graph.num_tokens)
        at = 0
        for tokens in range(width, family[-1].num_tokens + 1, width):
            while family[at].num_tokens < tokens:
                at += 1
            offered = candidates.setdefault((tokens, adapters), [])
            if family[at] not in offered:
                # In front: full graphs come before piecewise ones.
                offered.insert(0, family[at])
                added += 1
    return added
