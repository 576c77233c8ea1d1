"""The frame path of one attachment, built to what the link's settings ask for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rayspec.errors import LinkError
from rayspec.link.channel import HostChannel, StepChannel
from rayspec.link.counters import LinkCounters
from rayspec.link.gloo import TARGET_RANK, GlooTransport
from rayspec.link.rendezvous import join_store
from rayspec.link.replies import Replies
from rayspec.link.spec import LinkSpec
from rayspec.link.ticket import Ticket
from rayspec.link.transport import Transport

__all__ = ["DeviceStep", "Path", "host_path", "open_path"]


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """One step to be told from the device: the frame to pack, and what its header says.

    `asked_before` is the newest earlier step that expects a reply, 0 for none.
    """

    epoch: int
    step: int
    cseq_required: int
    asked_before: int
    frame: torch.Tensor
    channel: StepChannel


@dataclass(frozen=True, slots=True)
class Path:
    """What carries frames: `replies` for a host that packs them, `channel` for a device."""

    replies: Replies | None
    channel: StepChannel | None
    transport: Transport | None = None

    def abort(self) -> None:
        """Tear the path down whatever the peer does; idempotent."""
        if self.channel is not None:
            self.channel.abort()
        elif self.transport is not None:
            self.transport.abort()


def host_path(
    transport: Transport,
    spec: LinkSpec,
    epoch: int,
    counters: LinkCounters,
    device: torch.device | None = None,
) -> Path:
    """Return a path over a transport between hosts, for frames of the host or of a device."""
    replies = Replies(transport, spec.shape, epoch, spec.deadline_s, counters)
    channel = None if device is None else HostChannel(transport, replies, spec, device)
    return Path(replies, channel, transport)


def open_path(
    ticket: Ticket,
    spec: LinkSpec,
    counters: LinkCounters,
    device: torch.device | None,
    local_host: str,
) -> Path:
    """Build this end of the path; blocks until the draft built its own. LinkClosed on failure."""
    store = join_store(ticket.host, ticket.store_port, timeout_s=spec.attach_timeout_s)
    if spec.transport == "gloo":
        transport = GlooTransport(
            store,
            rank=TARGET_RANK,
            epoch=ticket.epoch,
            shape=spec.shape,
            host=local_host,
            timeout_s=spec.attach_timeout_s,
            q_size=spec.q_size,
        )
        return host_path(transport, spec, ticket.epoch, counters, device)
    if spec.transport != "nccl" or device is None or device.type != "cuda":
        raise LinkError(f"no transport {spec.transport!r} from device {device}")
    # Not on a machine without CUDA: there torch has no such groups.
    from rayspec.link.nccl import NcclGroups
    from rayspec.link.nccl_channel import NcclChannel

    groups = NcclGroups(
        store,
        rank=TARGET_RANK,
        epoch=ticket.epoch,
        device=device,
        timeout_s=spec.attach_timeout_s,
    )
    try:
        return Path(None, NcclChannel(groups, spec, device))
    except BaseException:
        groups.abort()
        raise
