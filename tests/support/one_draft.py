"""The routing functions for two lanes, of which only the speculative one drafts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rayspec.routing import crossover as crossovers
from rayspec.routing import forecast as forecasts
from rayspec.routing import policy
from rayspec.routing.cost_model import Prediction
from rayspec.routing.crossover import Crossover
from rayspec.routing.curves import LaneCurve
from rayspec.routing.forecast import Drafts
from rayspec.routing.policy import PolicySpec
from rayspec.routing.sharing import Gathering
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import (
    AcceptanceEstimate,
    ClassHistory,
    Decision,
    Drafting,
    Forecast,
    Lane,
    LaneView,
    RequestView,
)

__all__ = ["BOTH", "crossover", "decide", "forecast", "other", "predicted"]

S, P = Lane.SPECULATIVE, Lane.PLAIN
BOTH = (S, P)


def other(lane: Lane) -> Lane:
    """Return the lane of the two that is not `lane`."""
    return P if lane is S else S


def predicted(
    lanes: Mapping[Lane, Prediction],
    drafting: Prediction | None = None,
    acceptance: float = 0.0,
    assumed: bool = False,
    breakeven: float | None = None,
    believed: tuple[float, ...] = (),
    burden_s: Mapping[Lane, float] | None = None,
) -> Forecast:
    """Return a forecast with what drafts do in the speculative lane."""
    drafts = Drafting(drafting, believed or (acceptance,), assumed, breakeven)
    return Forecast(lanes, {S: drafts}, burden_s or {})


def decide(
    request: RequestView,
    lanes: Mapping[Lane, LaneView],
    acceptance: AcceptanceEstimate,
    spec: PolicySpec,
    history: ClassHistory | None = None,
    forecast: Forecast | None = None,
    gathering: Gathering | None = None,
) -> Decision:
    """Decide with what is accepted of the speculative lane's drafts."""
    history = history or ClassHistory()
    return policy.decide(request, lanes, {S: acceptance}, spec, history, forecast, gathering)


def forecast(
    views: Mapping[Lane, LaneView],
    curves: Mapping[Lane, LaneCurve],
    lengths: Lengths,
    acceptance: tuple[float, ...],
    *,
    tiers: Sequence[int],
    coverage: float = 1.0,
    sequences: int = 1,
) -> Forecast:
    """Forecast with the speculative lane's drafts."""
    drafts = {S: Drafts(acceptance, tiers, coverage)}
    return forecasts.forecast(views, curves, lengths, drafts, sequences=sequences)


def crossover(
    workload_class: str,
    views: Mapping[Lane, LaneView],
    curves: Mapping[Lane, LaneCurve],
    lengths: Lengths,
    acceptance: tuple[float, ...],
    *,
    tiers: Sequence[int],
) -> Crossover:
    """Draw the lines of both lanes with the speculative lane's drafts."""
    drafts = {S: Drafts(acceptance, tiers)}
    return crossovers.crossover(workload_class, views, curves, lengths, drafts)
