"""The path of step frames as device tensors, and the one that goes through the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from rayspec.link.replies import Replies
from rayspec.link.spec import LinkSpec
from rayspec.link.transport import Transport

__all__ = ["HostChannel", "Inbox", "StepChannel"]


@dataclass(frozen=True, slots=True)
class Inbox:
    """Where a step's reply arrives: complete once `arrived` int32 [1] has reached the step.

    `frame` int32 [S + 1, W]; `q` int32 [S, K, 2M] on a link that carries q. One that is `polled`
    is filled behind the host's back, so a kernel has to wait for it.
    """

    frame: torch.Tensor
    q: torch.Tensor | None
    arrived: torch.Tensor
    polled: bool


class StepChannel(Protocol):
    """One end of the frame path of one attachment, driven by the engine's thread alone.

    Nothing here waits for the device. What `inbox` gives stays valid for the kernels that were
    launched on it, also after the end of the attachment.
    """

    def adopt(self) -> None:
        """The current stream is the one that packs frames and fetches replies."""

    def outbox(self, step: int) -> torch.Tensor | None:
        """Return the frame to pack the step into; None while the draft is too far behind."""

    def post(self, step: int, *, expect: bool) -> None:
        """Send the packed frame, and receive a reply if one is expected; LinkClosed at the end."""

    def inbox(self, step: int) -> Inbox:
        """Return where the step's reply arrives."""

    def drained(self) -> bool:
        """Whether the draft has taken every frame."""

    def abort(self) -> None:
        """End every pending transfer, from any thread; idempotent."""


class HostChannel:
    """Copies frames over the host; the deadline is on the host's mailbox."""

    def __init__(
        self, transport: Transport, replies: Replies, spec: LinkSpec, device: torch.device
    ) -> None:
        def words(size: tuple[int, ...]) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.int32, device=device)

        self._transport = transport
        self._replies = replies
        self._outbox = words(spec.shape.size)
        q = None if spec.q_size is None else words(spec.q_size)
        self._inbox = Inbox(words(spec.shape.size), q, words((1,)), polled=False)

    def adopt(self) -> None:
        """Nothing to do: transfers are in the order of the host's calls."""

    def outbox(self, step: int) -> torch.Tensor | None:
        """Return the one frame there is: `post` copies it."""
        return self._outbox

    def post(self, step: int, *, expect: bool) -> None:
        """Send a copy of the frame and wait for its reply, at most the deadline."""
        answered = self._replies.catch_up()
        if answered is not None:
            self._inbox.arrived.fill_(answered)
        reply = self._replies.ask(step, self._outbox.cpu().clone(), expect=expect)
        if reply is None:
            return
        self._inbox.frame.copy_(reply.frame)
        if self._inbox.q is not None and reply.q is not None:
            self._inbox.q.copy_(reply.q)
        self._inbox.arrived.fill_(step)

    def inbox(self, step: int) -> Inbox:
        """Return the one inbox there is."""
        return self._inbox

    def drained(self) -> bool:
        """Return True: frames are copied before they are sent."""
        return True

    def abort(self) -> None:
        """Tear the transport down."""
        self._transport.abort()
