"""How many engines a lane needs, as a Serve autoscaling policy. Read at Ray 2.60.0.

Serve's own policy counts requests, of which one may be many sequences (`n`, several prompts); an
engine fills up by sequences. Serve asks each replica for its figures and averages them over the
look-back period; the delays, the limits and the smoothing are Serve's.

Serve pickles this module into its controller: it imports nothing of ours.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["AUTOSCALING_POLICY", "by_sequences", "stats"]

AUTOSCALING_POLICY = "rayspec.engine.autoscaling:by_sequences"

_SEQUENCES = "rayspec_sequences"


class _Load(Protocol):
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...


def stats(load: _Load) -> dict[str, float]:
    """Return what an engine reports to the policy."""
    return {_SEQUENCES: float(load.running + load.waiting)}


def by_sequences(context: Any) -> tuple[float, dict[str, Any]]:
    """Return the engines that give each its target of sequences, from Serve's context.

    Counts what runs and waits in the engines and, a request as one sequence, what the ingress
    holds back because they are full. Engines that have not reported yet count as empty.
    """
    reported = (context.aggregated_metrics or {}).get(_SEQUENCES, {})
    sequences = sum(reported.values()) + context.total_queued_requests
    return sequences / context.config.get_target_ongoing_requests(), {}
