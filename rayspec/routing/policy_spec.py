"""Settings of the policy: of all classes, and what differs for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayspec.routing.curves import Measured
from rayspec.routing.types import Lane, Speculation

__all__ = ["ClassPolicy", "PolicySpec"]


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What differs for one workload class; None means as for all."""

    speculation: Speculation = Speculation.AUTO
    acceptance_floor: float | None = None
    max_concurrency: int | None = None
    k: int | None = None
    hysteresis: float | None = None


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Settings of the policy.

    A request goes where its predicted latency and the delay that it causes to others are smaller
    together, but gives way to them by at most as much as its own latency; its class changes lanes
    only for a sum that is smaller by `hysteresis`. `exploration_share` of a class's requests go to
    the other lanes in turn, which keeps it measured there, unless they are predicted to take longer
    by `exploration_loss`.

    `shared_hardware` says that engines of several lanes work on the same processor or GPU.

    `max_speculative_concurrency` sequences per replica are the most that a lane with drafts takes;
    None is no limit, or a cautious one while step times are unknown. Until then, too, a class whose
    acceptance there lies under `acceptance_floor` with confidence, after at least
    `acceptance_min_drafted` recent draft tokens, goes elsewhere, but for the share that explores.
    `acceptance_half_life_s` is for the tracker, `k_tiers` and `alternative_k_tiers` are the draft
    lengths that the engines of the two lanes with drafts take, and `measured` is the calibration.
    """

    max_speculative_concurrency: int | None = None
    acceptance_floor: float = 0.4
    acceptance_half_life_s: float = 300.0
    acceptance_min_drafted: int = 200
    exploration_share: float = 0.02
    exploration_loss: float = 0.25
    hysteresis: float = 0.03
    constrained_lane: Lane = Lane.PLAIN
    shared_hardware: bool = False
    k_tiers: tuple[int, ...] = ()
    alternative_k_tiers: tuple[int, ...] = ()
    measured: Measured | None = None
    classes: Mapping[str, ClassPolicy] = field(default_factory=dict)

    def of(self, workload_class: str) -> ClassPolicy:
        """Return the settings of one class."""
        return self.classes.get(workload_class, _ALL_DEFAULT)

    def tiers(self, lane: Lane) -> tuple[int, ...]:
        """Return the draft lengths that the engines of a lane take; none in the plain lane."""
        if lane is Lane.ALTERNATIVE:
            return self.alternative_k_tiers
        return self.k_tiers if lane.drafts else ()


_ALL_DEFAULT = ClassPolicy()
