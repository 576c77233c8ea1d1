"""One log line for each routing decision; nothing in it is the client's text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from rayspec.routing.types import Decision, Lane

__all__ = ["DecisionLog"]

logger = logging.getLogger(__name__)

_SAMPLE_S = 30.0

Loads = Callable[[], Mapping[Lane, int]]


class DecisionLog:
    """Logs every decision at DEBUG, and one in a while at INFO, as `key=value` fields.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = float("-inf")

    def decided(self, decision: Decision, label: str, loads: Loads) -> None:
        """Log a decision; `label` bounds its class's name, `loads` tells the lanes' sequences."""
        level = logging.DEBUG
        if (now := self._clock()) >= self._next:
            level = logging.INFO
        if not logger.isEnabledFor(level):
            return
        if level == logging.INFO:
            self._next = now + _SAMPLE_S
        logger.log(
            level,
            "decision class=%s lane=%s rule=%s k=%s load=%s predicted=%s acceptance=%s "
            "breakeven=%s",
            label,
            decision.lane,
            decision.rule,
            "default" if decision.k is None else decision.k,
            ",".join(f"{lane}:{load}" for lane, load in loads().items()),
            decision.predicted.replace(" ", ",") or "none",
            *_shares(decision),
        )


def _shares(decision: Decision) -> tuple[str, str]:
    """Return the acceptance that was reckoned with, and the breakeven: the lane's, if it drafts."""
    forecast = decision.forecast
    drafting = None if forecast is None else forecast.drafts_beside(decision.lane)
    if drafting is None or drafting.best is None:
        return "none", "none"
    source = "prior" if drafting.assumed else "measured"
    breakeven = "never" if drafting.breakeven is None else f"{drafting.breakeven:.2f}"
    return f"{source}:{drafting.acceptance:.2f}", breakeven
