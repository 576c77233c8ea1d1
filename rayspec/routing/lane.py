"""The lanes, what may be asked of them, and the rules that choose one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

__all__ = ["Lane", "Rule", "Speculation"]


class Lane(StrEnum):
    """Which of the target deployments serves a request; an application has one to three of them.

    The alternative lane drafts in another way than the speculative one, inside its engines.
    """

    SPECULATIVE = "speculative"
    ALTERNATIVE = "alternative"
    PLAIN = "plain"

    @property
    def drafts(self) -> bool:
        """Whether engines of this lane verify drafts."""
        return self is not Lane.PLAIN

    def others(self, lanes: Iterable[Lane]) -> tuple[Lane, ...]:
        """Return those of `lanes` that are not this one, in their order."""
        return tuple(lane for lane in lanes if lane is not self)


class Speculation(StrEnum):
    """What a request, or the configuration of a class, asks for."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class Rule(StrEnum):
    """The rule that decided, first word of every `Decision.reason`; stable, safe as a label."""

    OVERRIDE = "override"
    CONSTRAINED = "constrained"
    ONLY_LANE = "only_lane"
    CLASS = "class"
    DETACHED = "detached"
    EXPERTS = "experts"
    ACCEPTANCE = "acceptance"
    EXPLORE = "explore"
    CONCURRENCY = "concurrency"
    TOGETHER = "together"
    FASTER = "faster"
    STEADY = "steady"
    DEFAULT = "default"
    DOWN = "down"
    SPILL = "spill"
