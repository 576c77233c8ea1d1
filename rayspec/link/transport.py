"""What carries step frames between hosts; see `channel` for those between devices."""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["Transport"]


class Transport(Protocol):
    """One end of the frame path of one attachment."""

    @property
    def q(self) -> torch.Tensor | None:
        """What came with the newest frame from `recv`, on a link that carries q."""

    def announce(self) -> None:
        """The peer says that it sends one more frame; from any thread."""

    def send(self, frame: torch.Tensor, q: torch.Tensor | None = None) -> None:
        """Hand over a frame without waiting; raises LinkClosed when the path is gone."""

    def recv(self, timeout_s: float) -> torch.Tensor | None:
        """Return the oldest frame, None after `timeout_s`; raises LinkClosed at the end."""

    def abort(self) -> None:
        """Tear the path down whatever the peer does, and release its threads; idempotent."""
