"""The draft's end of a frame path between hosts, over gloo or through a GPU's memory over NCCL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rayspec.link.gloo import DRAFT_RANK, GlooTransport
from rayspec.link.protocol import FrameShape, Hello
from rayspec.link.transport import Transport

__all__ = ["cuda_is_there", "open_transport"]

# Ray shows a process its own devices only; a plain process takes the first.
_DEVICE: Final = "cuda:0"


def cuda_is_there() -> bool:
    """Whether frames can travel over NCCL from this process."""
    import torch

    return bool(torch.cuda.is_available() and torch.distributed.is_nccl_available())


def open_transport(
    hello: Hello,
    store: Any,
    host: str,
    timeout_s: float,
    on_event: Callable[[], None],
) -> Transport:
    """Build the transport that a target asked for; blocks until the target built its end.

    Raises LinkClosed when that does not happen.
    """
    shape = FrameShape(hello.slots, hello.k_max)
    if hello.transport == "nccl":
        import torch

        from rayspec.draft.nccl_host import NcclTransport
        from rayspec.link.nccl import NcclGroups

        device = torch.device(_DEVICE)
        groups = NcclGroups(
            store, rank=DRAFT_RANK, epoch=hello.epoch, device=device, timeout_s=timeout_s
        )
        return NcclTransport(groups, shape, device, on_event)
    return GlooTransport(
        store,
        rank=DRAFT_RANK,
        epoch=hello.epoch,
        shape=shape,
        host=host,
        timeout_s=timeout_s,
        on_event=on_event,
        q_size=(hello.slots, hello.k_max, 2 * hello.q_top) if hello.q_mode == "sparse" else None,
    )
