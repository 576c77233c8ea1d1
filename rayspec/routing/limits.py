"""What keeps a request out of a lane with drafts, whatever is predicted of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rayspec.routing.policy_spec import ClassPolicy, PolicySpec
from rayspec.routing.types import (
    AcceptanceEstimate,
    Forecast,
    Lane,
    LaneView,
    RequestView,
    Rule,
    Speculation,
)

__all__ = ["Limits", "uncalibrated_experts"]

# Without measurements of a lane: sequences per speculative engine that surely leave compute idle
# for verification.
_UNMEASURED_CONCURRENCY = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a request in the lanes that it may take, `permitted`."""

    request: RequestView
    lanes: Mapping[Lane, LaneView]
    acceptance: Mapping[Lane, AcceptanceEstimate]
    spec: PolicySpec
    forecast: Forecast
    permitted: Collection[Lane]

    def closed(self, lane: Lane, *, explored: bool = False) -> tuple[Rule, str] | None:
        """Return what keeps the request out of `lane`, None if nothing does.

        A lane under its floor may be `explored`: then that is the rule which sends a request there.
        """
        view = self.lanes[lane]
        if view.attached is False:
            return Rule.DETACHED, "draft is not attached"
        if uncalibrated_experts(view, self.spec) and not self._asks:
            return Rule.EXPERTS, f"{view.experts} experts and no routing.calibration"
        floored = self.floored(lane)
        if floored is not None and not explored:
            return Rule.ACCEPTANCE, floored
        if self.full(lane):
            return Rule.CONCURRENCY, f"{view.concurrency} >= {self.limit(lane)}"
        return None if floored is None else (Rule.EXPLORE, f"acceptance {floored}")

    def floored(self, lane: Lane) -> str | None:
        """Return by how much the class's acceptance lies under its floor; None if it does not."""
        lowest = self._own.acceptance_floor
        if lowest is None and not self._comparable(lane):
            lowest = self.spec.acceptance_floor
        found = self.acceptance.get(lane)
        if lowest is None or found is None or found.drafted < self.spec.acceptance_min_drafted:
            return None
        return f"{found.high:.2f} < {lowest:.2f}" if found.high < lowest else None

    def full(self, lane: Lane) -> bool:
        """Whether the lane has as many sequences as it may."""
        limit = self.limit(lane)
        return limit is not None and self.lanes[lane].concurrency >= limit

    def limit(self, lane: Lane) -> int | None:
        """Return how many sequences the lane may have, None for any number."""
        own = self._own.max_concurrency
        limit = self.spec.max_speculative_concurrency if own is None else own
        if limit is None and not self._comparable(lane):
            limit = _UNMEASURED_CONCURRENCY
        # The limit is one replica's; a replica that has not reported lately is not counted on.
        return None if limit is None else limit * max(1, self.lanes[lane].replicas)

    @property
    def _own(self) -> ClassPolicy:
        return self.spec.of(self.request.workload_class)

    @property
    def _asks(self) -> bool:
        """Whether the request or its class wants drafts."""
        return Speculation.ON in (self.request.speculation, self._own.speculation)

    def _comparable(self, lane: Lane) -> bool:
        """Whether the step times of the lane and of another one are known."""
        known = [each for each in self.permitted if each in self.forecast.lanes]
        return lane in known and len(known) > 1


def uncalibrated_experts(view: LaneView, spec: PolicySpec) -> bool:
    """Whether the model is a mixture of experts, whose verification reads more experts than one
    token does: what that costs is not guessed."""
    return spec.measured is None and view.experts > 0
