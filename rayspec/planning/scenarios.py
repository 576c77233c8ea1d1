"""The scenarios that a simulation compares, on equal hardware: the GPUs of the routed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rayspec.errors import ConfigError
from rayspec.planning.calibration import Calibration
from rayspec.planning.goodput import ClassResult, Slo, summarize
from rayspec.planning.policies import Always, Fleet, Oracle, Policy
from rayspec.planning.routed import Routed
from rayspec.planning.simulate import make_engines, simulate
from rayspec.planning.workload import Workload
from rayspec.routing.types import Lane

__all__ = ["ALWAYS", "NONE", "ORACLE", "ROUTED", "Outcome", "Scenario", "compare", "scenarios"]

NONE, ALWAYS, ROUTED, ORACLE = "no speculation", "always on", "rayspec", "oracle"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Engines of each lane and who decides between them."""

    name: str
    replicas: Mapping[Lane, int]
    gpus: int
    make_policy: Callable[[Fleet], Policy]

    @property
    def hardware(self) -> str:
        """How many engines there are, in words."""
        engines = [f"{count} {lane}" for lane, count in self.replicas.items() if count]
        gpus = f" ({self.gpus} GPU{'s' if self.gpus != 1 else ''})" if self.gpus else ""
        return " + ".join(engines) + gpus


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario after its simulation; `batch` is the mean decoding batch of each lane."""

    scenario: Scenario
    results: Mapping[str, ClassResult]
    batch: Mapping[Lane, float]


def scenarios(
    calibration: Calibration, speculative: int, plain: int, k: int | None = None
) -> list[Scenario]:
    """Return what to compare with `speculative` and `plain` engines.

    The routed scenario and the oracle have both. Without speculation all of their GPUs serve plain
    engines, and with speculation always on as many speculative ones as fit; what does not divide
    idles. Without GPUs both lanes share a machine, and each of these two has its lane's engines.
    `k` is the draft length of always on, the largest measured one unless given.
    """
    wanted = {Lane.SPECULATIVE: speculative, Lane.PLAIN: plain}
    for lane, count in wanted.items():
        if count < 0 or (count and lane not in calibration.lanes):
            have = " and ".join(calibration.lanes)
            raise ConfigError(f"{lane}-replicas", count, f"the calibration has lanes: {have}")
    if not speculative + plain:
        raise ConfigError("speculative-replicas", speculative, "there has to be an engine")
    cost = {
        lane: calibration.lanes[lane].gpus if lane in calibration.lanes else 0 for lane in wanted
    }
    gpus = sum(cost[lane] * count for lane, count in wanted.items())
    tiers = tuple(sorted(set(calibration.k_tiers)))
    fixed_k = max(tiers) if k is None else k
    found = []
    for name, lane in ((NONE, Lane.PLAIN), (ALWAYS, Lane.SPECULATIVE)):
        if lane not in calibration.lanes:
            continue
        count = gpus // cost[lane] if cost[lane] else max(wanted[lane], 1)
        if count:
            make = partial(_always, lane=lane, k=fixed_k)
            found.append(Scenario(name, {lane: count}, count * cost[lane], make))
    both = {lane: count for lane, count in wanted.items() if count}
    found.append(
        Scenario(ROUTED, both, gpus, partial(Routed, calibration=calibration, tiers=tiers))
    )
    found.append(Scenario(ORACLE, both, gpus, partial(Oracle, tiers=tiers)))
    return found


def compare(
    calibration: Calibration,
    workload: Workload,
    which: Sequence[Scenario],
    slo: Slo,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Outcome]:
    """Simulate each scenario with the same requests and the same luck."""
    outcomes = {}
    for scenario in which:
        engines = make_engines(calibration, scenario.replicas, workload)
        run = simulate(workload, engines, scenario.make_policy, progress)
        batch = {lane: run.batch(lane) for lane in scenario.replicas}
        outcomes[scenario.name] = Outcome(scenario, summarize(run, workload, slo), batch)
    return outcomes


def _always(_: Fleet, *, lane: Lane, k: int) -> Policy:
    return Always(lane, k)
