"""Step frames over gloo, for machines without a GPU. Read at torch 2.13.

Two 2-rank groups, one per direction, outside torch.distributed's global state, so that they touch
neither vLLM's groups nor each other. Deadlines are on the mailbox and never on a gloo wait: a gloo
wait that expires closes its pair for good. `abort` uses exactly that, because gloo's own abort does
not wake a pending receive.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.distributed import PrefixStore
from torch.distributed.distributed_c10d import ProcessGroupGloo

from rayspec.errors import LinkClosed
from rayspec.link.frames import FrameShape

__all__ = ["DRAFT_RANK", "TARGET_RANK", "GlooTransport"]

logger = logging.getLogger(__name__)

TARGET_RANK: Final = 0
DRAFT_RANK: Final = 1
# Frames that may wait for a peer that does not receive; far more than the failure detector allows.
_BACKLOG: Final = 4096
_FOREVER: Final = datetime.timedelta(days=365)
_FRAME_TAG: Final = 0
_ABORT_TAG: Final = 1


class GlooTransport:
    """One end of the frame path; the constructor blocks until the peer has built its end."""

    def __init__(
        self,
        store: Any,
        *,
        rank: int,
        epoch: int,
        shape: FrameShape,
        host: str,
        timeout_s: float,
        on_event: Callable[[], None] | None = None,
        q_size: tuple[int, ...] | None = None,
    ) -> None:
        self._peer = 1 - rank
        # Tensors of one message; q follows replies alone.
        self._sizes = [shape.size, *([q_size] if q_size and rank == TARGET_RANK else [])]
        self._q: torch.Tensor | None = None
        self._on_event = on_event or _nothing
        to_draft = _group(store, f"{epoch}/t2d", rank, host, timeout_s)
        to_target = _group(store, f"{epoch}/d2t", rank, host, timeout_s)
        self._out, self._in = (
            (to_draft, to_target) if rank == TARGET_RANK else (to_target, to_draft)
        )
        self._closed = threading.Event()
        self._outbox: queue.Queue[list[torch.Tensor] | None] = queue.Queue(_BACKLOG)
        self._mailbox: queue.SimpleQueue[list[torch.Tensor] | None] = queue.SimpleQueue()
        role = "target" if rank == TARGET_RANK else "draft"
        self._threads = [
            threading.Thread(target=run, name=f"rayspec-{role}-{what}", daemon=True)
            for run, what in ((self._send_loop, "send"), (self._receive_loop, "receive"))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def q(self) -> torch.Tensor | None:
        """What came with the newest frame from `recv`."""
        return self._q

    def announce(self) -> None:
        """Nothing to do: a host may receive before anything is sent."""

    def send(self, frame: torch.Tensor, q: torch.Tensor | None = None) -> None:
        """Queue a frame, with its `q` when it is a reply on a link that carries q.

        A peer that takes none fills the backlog and then counts as gone.
        """
        if self._closed.is_set():
            raise LinkClosed("step transport is closed")
        try:
            self._outbox.put_nowait([frame] if q is None else [frame, q])
        except queue.Full:
            raise LinkClosed("step peer stopped receiving") from None

    def recv(self, timeout_s: float) -> torch.Tensor | None:
        """Return the oldest frame, None after `timeout_s`; raises LinkClosed at the end."""
        try:
            tensors = (
                self._mailbox.get(timeout=timeout_s) if timeout_s > 0 else self._mailbox.get(False)
            )
        except queue.Empty:
            return None
        if tensors is None:
            self._mailbox.put(None)  # for whoever asks again
            raise LinkClosed("step transport is closed")
        frame, *rest = tensors
        self._q = rest[0] if rest else None
        return frame

    def abort(self) -> None:
        """Close both pairs whatever the peer does, and end the two threads; idempotent."""
        self._end()
        probe = torch.empty(1, dtype=torch.int32)
        soon = datetime.timedelta(milliseconds=1)
        for post in (self._in.recv, self._out.send):
            with contextlib.suppress(RuntimeError):
                post([probe], self._peer, _ABORT_TAG).wait(soon)
        for thread in self._threads:
            thread.join()

    def _send_loop(self) -> None:
        while (tensors := self._outbox.get()) is not None and not self._closed.is_set():
            try:
                for tensor in tensors:
                    self._out.send([tensor], self._peer, _FRAME_TAG).wait(_FOREVER)
            except RuntimeError as error:
                logger.debug("step send ended: %s", error)
                break
        self._end()

    def _receive_loop(self) -> None:
        while not self._closed.is_set():
            tensors = [torch.empty(size, dtype=torch.int32) for size in self._sizes]
            try:
                for tensor in tensors:
                    self._in.recv([tensor], self._peer, _FRAME_TAG).wait(_FOREVER)
            except RuntimeError as error:
                logger.debug("step receive ended: %s", error)
                break
            self._mailbox.put(tensors)
            self._on_event()
        self._end()

    def _end(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._mailbox.put(None)
        with contextlib.suppress(queue.Full):
            self._outbox.put_nowait(None)
        self._on_event()


def _group(store: Any, name: str, rank: int, host: str, timeout_s: float) -> Any:
    options = ProcessGroupGloo._Options()
    options._timeout = datetime.timedelta(seconds=timeout_s)
    options._threads = 1
    options._devices = [ProcessGroupGloo.create_device(hostname=host)]
    try:
        return ProcessGroupGloo(PrefixStore(name, store), rank, 2, options)
    except RuntimeError as error:
        raise LinkClosed(f"step transport was not built: {error}") from None


def _nothing() -> None:
    pass
