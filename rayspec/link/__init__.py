"""The connection between a target and its draft: frames, control channel, and the target's end."""

from __future__ import annotations

from rayspec.link.frames import StepRow
from rayspec.link.messages import Hello
from rayspec.link.spec import LinkSpec, LinkState, LinkStats
from rayspec.link.target import TargetLink
from rayspec.link.ticket import Ticket

__all__ = [
    "Hello",
    "LinkSpec",
    "LinkState",
    "LinkStats",
    "StepRow",
    "TargetLink",
    "Ticket",
]
