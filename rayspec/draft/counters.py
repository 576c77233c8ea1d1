"""What a draft server counts while it runs."""

from __future__ import annotations

from rayspec.draft.spec import RoundStats
from rayspec.link.counters import Timing

__all__ = ["DraftCounters", "RoundCounters"]


class DraftCounters:
    """Counts over all targets of one draft server."""

    def __init__(self) -> None:
        self.admitted = 0
        self.refused = 0
        self.frames = 0
        self.answered = 0
        self.rounds = 0
        self.drafted_tokens = 0
        self.nacks = 0
        self.mismatches = 0
        self.errors = 0
        self.draft = Timing()


class RoundCounters:
    """What rounds on a device add: `round` and `step` are its own time, `launch` the host's."""

    def __init__(self) -> None:
        self.round = Timing()  # of rounds that drafted
        self.step = Timing()  # the same, by draft
        self.launch = Timing()  # from seeing a frame to having started its round
        self.ahead = 0  # rounds that were launched before their frame was there
        self.rows_not_ready = 0
        self.catch_ups = 0
        self.pieces = 0
        self.failures = 0

    def stats(
        self, *, rows_used: int, rows_waiting: int, blocks_used: int, blocks_total: int
    ) -> RoundStats:
        """Return the counters now, beside what is in use."""
        return RoundStats(
            round_ewma_us=self.round.ewma_us,
            round_p50_us=self.round.percentile(0.5),
            round_p99_us=self.round.percentile(0.99),
            round_sum_us=self.round.total_us,
            rounds_drafted=self.round.count,
            step_ewma_us=self.step.ewma_us,
            step_p50_us=self.step.percentile(0.5),
            launch_p50_us=self.launch.percentile(0.5),
            launch_p99_us=self.launch.percentile(0.99),
            rounds_ahead=self.ahead,
            rows_not_ready=self.rows_not_ready,
            catch_ups=self.catch_ups,
            prefill_pieces=self.pieces,
            prefill_failures=self.failures,
            rows_used=rows_used,
            rows_waiting=rows_waiting,
            blocks_used=blocks_used,
            blocks_total=blocks_total,
        )
