"""The store over which the two ends of a link find each other."""

from __future__ import annotations

import datetime
from typing import Any

from torch.distributed import TCPStore

from rayspec.errors import LinkClosed
from rayspec.link.control import listen

__all__ = ["host_store", "join_store"]


def host_store(host: str, *, timeout_s: float) -> tuple[Any, int]:
    """Start a store that listens on `host` alone; returns it and its port."""
    # Given a port, TCPStore would listen on every address of the machine; it owns the descriptor.
    sock = listen(host)
    port = int(sock.getsockname()[1])
    timeout = datetime.timedelta(seconds=timeout_s)
    store = TCPStore(
        host,
        port,
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=sock.detach(),
    )
    return store, port


def join_store(host: str, port: int, *, timeout_s: float) -> Any:
    """Connect to a draft's store; raises LinkClosed when it is not there."""
    timeout = datetime.timedelta(seconds=timeout_s)
    try:
        return TCPStore(host, port, is_master=False, timeout=timeout, wait_for_workers=False)
    except Exception as error:
        raise LinkClosed(f"cannot join the store at {host}:{port}: {error}") from None
