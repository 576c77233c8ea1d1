"""What a draft hands to a target that it admitted."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Ticket"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where and under which name one target may join one draft; good for one attachment."""

    host: str
    control_port: int
    store_port: int
    link_id: str
    epoch: int
