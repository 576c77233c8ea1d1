"""Step frames over NCCL for a drafter that works on the host: they pass through a GPU's memory."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import torch

from rayspec.errors import LinkClosed
from rayspec.link.protocol import FrameShape

__all__ = ["Groups", "NcclTransport"]

_RING: Final = 8
# How often an arrival is looked for: often while steps follow each other, seldom in a pause.
_BUSY_S: Final = 20e-6
_IDLE_S: Final = 1e-3
_BUSY_FOR_S: Final = 0.2


class Groups(Protocol):
    """What is used of `NcclGroups`."""

    def send(self, tensors: list[torch.Tensor]) -> None:
        """Send on the current stream."""

    def recv(self, tensors: list[torch.Tensor]) -> None:
        """Receive on the current stream."""

    def abort(self) -> None:
        """Free the streams."""


class NcclTransport:
    """A `Transport` with one thread that receives what is announced; sends go onto a stream."""

    def __init__(
        self,
        groups: Groups,
        shape: FrameShape,
        device: torch.device,
        on_event: Callable[[], None],
    ) -> None:
        self._groups = groups
        self._device = device
        self._on_event = on_event
        ring = (_RING, *shape.size)
        self._outbox = torch.zeros(ring, dtype=torch.int32, device=device)
        self._staged = torch.zeros(ring, dtype=torch.int32, pin_memory=True)
        self._inbox = torch.zeros(shape.size, dtype=torch.int32, device=device)
        self._arrived = torch.zeros(shape.size, dtype=torch.int32, pin_memory=True)
        self._tx: Any = torch.cuda.Stream(device)
        self._rx: Any = torch.cuda.Stream(device)
        self._tx.wait_stream(torch.cuda.current_stream(device))
        self._rx.wait_stream(torch.cuda.current_stream(device))
        self._sent = [torch.cuda.Event() for _ in range(_RING)]
        self._count = 0
        self._closed = threading.Event()
        self._announced = threading.Semaphore(0)
        self._mailbox: queue.SimpleQueue[torch.Tensor | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._receive_loop, name="rayspec-draft-receive", daemon=True
        )
        self._thread.start()

    @property
    def q(self) -> torch.Tensor | None:
        """None: steps bring no q."""
        return None

    def announce(self) -> None:
        """Let the receive of one more frame be posted."""
        self._announced.release()

    def send(self, frame: torch.Tensor, q: torch.Tensor | None = None) -> None:
        """Hand over a frame; raises LinkClosed when the target takes none any more."""
        at = self._count % _RING
        if self._closed.is_set() or not self._sent[at].query():
            raise LinkClosed("step peer stopped receiving")
        self._count += 1
        self._staged[at].copy_(frame)
        with torch.cuda.stream(self._tx):
            self._outbox[at].copy_(self._staged[at], non_blocking=True)
            self._groups.send([self._outbox[at]])
            self._sent[at].record(self._tx)

    def recv(self, timeout_s: float) -> torch.Tensor | None:
        """Return the oldest frame, None after `timeout_s`; raises LinkClosed at the end."""
        try:
            frame = self._mailbox.get(timeout_s > 0, timeout_s if timeout_s > 0 else None)
        except queue.Empty:
            return None
        if frame is None:
            self._mailbox.put(None)  # for whoever asks again
            raise LinkClosed("step transport is closed")
        return frame

    def abort(self) -> None:
        """Abort the groups and end the thread; idempotent."""
        self._closed.set()
        self._announced.release()
        self._groups.abort()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _receive_loop(self) -> None:
        torch.cuda.set_device(self._device)
        done = torch.cuda.Event()
        try:
            while self._announced.acquire() and not self._closed.is_set():
                with torch.cuda.stream(self._rx):
                    self._groups.recv([self._inbox])
                    self._arrived.copy_(self._inbox, non_blocking=True)
                    done.record(self._rx)
                began = time.monotonic()
                while not done.query() and not self._closed.is_set():
                    time.sleep(_BUSY_S if time.monotonic() - began < _BUSY_FOR_S else _IDLE_S)
                if self._closed.is_set():
                    break
                self._mailbox.put(self._arrived.clone())
                self._on_event()
        except LinkClosed:
            pass
        self._closed.set()
        self._mailbox.put(None)
        self._on_event()
