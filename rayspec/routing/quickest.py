"""In which lane a request and those whom it delays are answered soonest. Pure."""

from __future__ import annotations

from collections.abc import Collection

from rayspec.routing.types import Forecast, Lane, Rule

__all__ = ["quickest"]

# How much longer a request may take for the sake of others.
_MOST_GIVEN = 1.0
# Equal costs are no reason to occupy a draft, and least of all one that others need.
_AMONG_EQUALS = (Lane.PLAIN, Lane.ALTERNATIVE, Lane.SPECULATIVE)


def quickest(
    forecast: Forecast, lanes: Collection[Lane], last: Lane | None, margin: float
) -> tuple[Lane, Rule, str]:
    """Choose one of `lanes`, all of which are forecast, and say what was compared.

    The `last` lane of the class is left only for a cost that is smaller by the share `margin`.
    """
    own = {lane: forecast.lanes[lane].total_s for lane in _AMONG_EQUALS if lane in lanes}
    most = min(own.values()) * (1 + _MOST_GIVEN)
    fair = [lane for lane, seconds in own.items() if seconds <= most]
    cost = forecast.cost_s
    lane, rule = min(fair, key=cost.__getitem__), Rule.FASTER
    if last in fair and last is not lane and cost[lane] >= cost[last] * (1 - margin):
        lane, rule = last, Rule.STEADY
    return lane, rule, _compared(lane, lanes, forecast)


def _compared(lane: Lane, lanes: Collection[Lane], forecast: Forecast) -> str:
    told, before, cost = _told(lane, forecast), lane, forecast.cost_s
    for other in forecast.by_cost(lane.others(lanes)):
        sign = "<" if cost[before] < cost[other] else "~"
        told, before = f"{told} {sign} {_told(other, forecast)}", other
    if (drafting := forecast.drafts_beside(lane)) is None:
        return told
    source = "prior" if drafting.assumed else "measured"
    return f"{told} at {source} acceptance {drafting.acceptance:.2f}"


def _told(lane: Lane, forecast: Forecast) -> str:
    """Return the latency in a lane, and behind a plus the delay of others if there is any."""
    own = f"{lane} {1000 * forecast.lanes[lane].total_s:.0f}"
    burden = 1000 * forecast.burden_s.get(lane, 0.0)
    return f"{own}+{burden:.0f}ms" if burden >= 0.5 else f"{own}ms"
