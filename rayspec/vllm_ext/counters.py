"""What was drafted and what of it the target accepted, fillers excluded."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DraftCounters"]


class DraftCounters:
    """Follows each request's drafts from proposal over scheduling to verification.

    vLLM may verify fewer drafts than were proposed (grammar, token budget, length) and on the V2
    runner it counts fillers as drafts, hence our own count.
    """

    def __init__(self, k_max: int) -> None:
        self.steps = 0
        self.drafted = 0
        self.accepted = 0
        self.drafted_per_pos = [0] * k_max
        self.accepted_per_pos = [0] * k_max
        self._proposed: dict[str, int] = {}
        self._verifying: dict[str, int] = {}

    def propose(self, req_id: str, drafts: int) -> None:
        """Note that a request got this many drafts for its next step."""
        if drafts:
            self._proposed[req_id] = drafts

    def schedule(self, scheduled: Mapping[str, int]) -> None:
        """Note how many drafts of each request the step that starts now verifies."""
        proposed, self._proposed = self._proposed, {}
        self._verifying = {
            req_id: min(drafts, scheduled[req_id])
            for req_id, drafts in proposed.items()
            if req_id in scheduled
        }

    def verify(self, req_id: str, sampled: int) -> None:
        """Count a request's outcome: `sampled` new tokens, the last one the target's own."""
        drafts = self._verifying.pop(req_id, 0)
        if not drafts or not sampled:
            return
        accepted = min(sampled - 1, drafts)
        self.steps += 1
        self.drafted += drafts
        self.accepted += accepted
        for position in range(drafts):
            self.drafted_per_pos[position] += 1
        for position in range(accepted):
            self.accepted_per_pos[position] += 1
