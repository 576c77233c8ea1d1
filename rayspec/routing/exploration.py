"""Which requests go where they are not predicted to be fastest, so that it stays measured there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor

from rayspec.routing.cost_model import Prediction
from rayspec.routing.types import Forecast, Lane, LaneView

__all__ = ["exploration", "explores"]


def explores(turn: int, share: float) -> bool:
    """Return whether request number `turn` is one of the evenly spread `share` that explores."""
    return floor((turn + 1) * share) > floor(turn * share)


def exploration(
    forecast: Forecast,
    lane: Lane,
    others: Sequence[Lane],
    views: Mapping[Lane, LaneView],
    turn: int,
    share: float,
    most_loss: float,
    *,
    shared: bool = False,
) -> tuple[Lane, float] | None:
    """Return where request number `turn` explores, and the loss that is predicted of it.

    None if it does not explore; `lane` is where it would go then. Each turn is about one of the
    `others`, so that all of them together get the share. A class that is served without drafts in
    a lane that has some explores drafts there, and the other lane, in turns. Where nobody else is
    drafting, the whole batch waits for the one draft, so a full batch is made to wait more rarely.
    On `shared` hardware the loss is everybody's, and who loses more than `most_loss` does so more
    rarely, so that share times loss stays the same; elsewhere nobody does.
    """
    if not others:
        return None
    turn, which = divmod(turn, len(others))
    other = others[which]
    undrafted = [each for each in (lane, other) if each.drafts and not forecast.lanes[each].k]
    for each in undrafted:
        share /= max(views[each].concurrency / max(views[each].replicas, 1), 1)
    if share <= 0:
        return None
    idle = lane in undrafted and _best(forecast, lane) is not None
    target = lane if idle and floor(turn * share) % 2 == 0 else other
    there = (_best(forecast, target) or forecast.lanes[target]).total_s
    here = forecast.lanes[lane].total_s
    if shared:
        there += forecast.burden_s.get(target, 0.0)
        here += forecast.burden_s.get(lane, 0.0)
    loss = there / here - 1 if here > 0 else 0.0
    if loss > most_loss:
        if not shared:
            return None
        share *= most_loss / loss
    return (target, loss) if explores(turn, share) else None


def _best(forecast: Forecast, lane: Lane) -> Prediction | None:
    """Return what is predicted of a lane with drafts, if the request may have some there."""
    drafting = forecast.drafting.get(lane)
    return None if drafting is None else drafting.best
