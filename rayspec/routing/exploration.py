"""Which requests go where they are not predicted to be fastest, so that it stays measured there."""

from __future__ import annotations

from math import floor

from rayspec.routing.types import Forecast, Lane, LaneView

__all__ = ["exploration", "explores"]


def explores(turn: int, share: float) -> bool:
    """Return whether request number `turn` is one of the evenly spread `share` that explores."""
    return floor((turn + 1) * share) > floor(turn * share)


def exploration(
    forecast: Forecast,
    lane: Lane,
    speculative: LaneView,
    turn: int,
    share: float,
    most_loss: float,
    *,
    shared: bool = False,
) -> tuple[Lane, float] | None:
    """Return where request number `turn` explores, and the loss that is predicted of it.

    None if it does not explore; `lane` is where it would go then. A class that is served without
    drafts in the speculative lane explores drafts there, and the plain lane, in turns. Where nobody
    else is drafting, the whole batch waits for the one draft, so a full batch is made to wait more
    rarely. On `shared` hardware the loss is everybody's, and who loses more than `most_loss` does
    so more rarely, so that share times loss stays the same; elsewhere nobody does.
    """
    undrafted = forecast.lanes[Lane.SPECULATIVE].k == 0
    if undrafted:
        share /= max(speculative.concurrency / max(speculative.replicas, 1), 1)
    if share <= 0:
        return None
    drafting = forecast.drafting or forecast.lanes[Lane.SPECULATIVE]
    idle = undrafted and forecast.drafting is not None and floor(turn * share) % 2 == 0
    target = Lane.SPECULATIVE if lane is Lane.PLAIN or idle else Lane.PLAIN
    there = drafting.total_s if target is Lane.SPECULATIVE else forecast.lanes[target].total_s
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
