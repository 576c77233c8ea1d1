"""What a draft server counts while it runs."""

from __future__ import annotations

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
