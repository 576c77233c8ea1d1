"""Step frames over NCCL, between tensors on two GPUs. Read at torch 2.13.

Two 2-rank groups, one per direction: torch puts all point-to-point work of one communicator on one
stream, so a posted receive would hold back a later send. They are outside torch.distributed's
global state, so that they touch neither vLLM's groups nor each other.

While a receive is pending, whatever synchronises the device (the first use of a kernel under lazy
loading, an allocation, a free) waits for the peer; when the peer is dead, until `abort`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import datetime
import functools
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.distributed as dist

from rayspec.errors import LinkClosed
from rayspec.link.gloo import TARGET_RANK

__all__ = ["NcclGroups", "leave_deadlines_to_us"]

logger = logging.getLogger(__name__)

# torch's watchdog would end the process over a peer that died, and torch reads these when it builds
# a group. A pending receive is no fault: deadlines and the failure detector are the link's.
_WATCHDOG: Final = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    # After an error the watchdog would sleep a minute for dumps, and a group's end wait for it.
    "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "0",
}
_FOREVER: Final = datetime.timedelta(days=365)
# How long an abort lets a call in progress come to its end: one takes microseconds, and a blocked
# one is blocked by the peer, with the engine behind it.
_ABORT_GRACE_S: Final = 0.1
# An abort that takes longer than this is worth a line.
_SLOW_S: Final = 0.05


def leave_deadlines_to_us() -> None:
    """Keep torch's watchdog away from the groups that this process builds from now on.

    A process with groups of its own calls it after these are built; settings of the user stay.
    """
    for name, value in _WATCHDOG.items():
        os.environ.setdefault(name, value)


class NcclGroups:
    """The two NCCL groups of one attachment, seen from one of its ends.

    The constructor blocks until the peer has built its end, and leaves `device` as the calling
    thread's current one. After it both communicators have carried a tensor, so nothing of NCCL's
    is loaded or connected later. Every call raises LinkClosed once the groups are gone. Whoever
    made them aborts them; what is left is aborted when the process exits.
    """

    def __init__(
        self, store: Any, *, rank: int, epoch: int, device: torch.device, timeout_s: float
    ) -> None:
        leave_deadlines_to_us()
        try:
            _libnccl()
        except OSError as error:
            raise LinkClosed(f"NCCL cannot be opened: {error}") from None
        self._peer = 1 - rank
        self._lock = threading.Lock()  # an abort must not free what a call is using
        self._aborted = False
        self._gone = threading.Event()  # every group is aborted
        self._store = store  # torch's groups hold it only as long as they need it
        torch.cuda.set_device(device)
        store.set_timeout(datetime.timedelta(seconds=timeout_s))
        to_draft = _group(store, f"{epoch}/t2d", rank)
        to_target = _group(store, f"{epoch}/d2t", rank)
        self._out, self._in = (
            (to_draft, to_target) if rank == TARGET_RANK else (to_target, to_draft)
        )
        _living.add(self)
        try:
            self._introduce(rank, device, timeout_s)
        except BaseException:
            self.abort()
            raise

    def send(self, tensors: Sequence[torch.Tensor]) -> None:
        """Send on the current stream, which waits for the end of it; the host does not."""
        self._enqueue(self._out.send, tensors)

    def recv(self, tensors: Sequence[torch.Tensor]) -> None:
        """Receive into `tensors` on the current stream, which waits; the host does not."""
        self._enqueue(self._in.recv, tensors)

    def abort(self) -> None:
        """Free the streams of everything that is pending; idempotent, from any thread.

        The group with a pending receive comes first: aborting an idle group hangs for ever while
        a receive from a dead peer is pending.
        """
        times = [time.monotonic()]
        held = self._lock.acquire(timeout=_ABORT_GRACE_S)
        first, self._aborted = not self._aborted, True
        if held:
            # No call begins any more: NCCL takes half a second for each group of a dead peer, and
            # whoever comes with a step meanwhile must hear at once that the groups are closed.
            self._lock.release()
        if not first:
            self._gone.wait()
            return
        times.append(time.monotonic())
        try:
            for group in (self._in, self._out):
                with contextlib.suppress(RuntimeError):
                    group.abort()
                times.append(time.monotonic())
        finally:
            self._gone.set()
        if times[-1] - times[0] > _SLOW_S:
            took = " + ".join(f"{(b - a) * 1e3:.0f}" for a, b in itertools.pairwise(times))
            logger.warning(
                "leaving the step groups took %s ms: the call in progress%s, receiving, sending",
                took,
                "" if held else ", which did not end",
            )

    def _enqueue(self, call: Any, tensors: Sequence[torch.Tensor]) -> None:
        with self._lock:
            if self._aborted:
                raise LinkClosed("step groups are closed")
            try:
                for tensor in tensors:
                    call([tensor], self._peer, 0).wait()
            except RuntimeError as error:
                _leave_call()
                raise LinkClosed(f"step group failed: {error}") from None

    def _introduce(self, rank: int, device: torch.device, timeout_s: float) -> None:
        """Carry one tensor each way; the order is the same at both ends, as NCCL's set-up asks."""
        word = torch.zeros(1, dtype=torch.int32, device=device)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for call in (self.send, self.recv) if rank == TARGET_RANK else (self.recv, self.send):
                call([word])
            done = torch.cuda.Event()
            done.record()
        deadline = time.monotonic() + timeout_s
        while not done.query():
            if time.monotonic() > deadline:
                raise LinkClosed("step groups were not built in time")
            time.sleep(0.001)


# A group that is not aborted when the interpreter comes down, after its peer died, crashes it.
_living: weakref.WeakSet[NcclGroups] = weakref.WeakSet()


def _abort_all() -> None:
    for groups in list(_living):
        groups.abort()


atexit.register(_abort_all)


@functools.cache
def _libnccl() -> ctypes.CDLL:
    """Return the NCCL that torch has loaded; OSError if torch brings it in some other form."""
    return ctypes.CDLL("libnccl.so.2")


def _leave_call() -> None:
    """End the NCCL group that torch leaves open on this thread when a call inside it fails.

    NCCL would only queue what the thread asks of it next, be it for a new link or for vLLM. Where
    no group is open this does nothing. Read at torch 2.13 and NCCL 2.29.
    """
    _libnccl().ncclGroupEnd()


def _group(store: Any, name: str, rank: int) -> Any:
    nccl: Any = dist.ProcessGroupNCCL
    # Small frames must not wait behind a busy target's kernels, nor take processors from them.
    options = nccl.Options(is_high_priority_stream=True)
    options._timeout = _FOREVER
    options.config.max_ctas = 1
    options.config.min_ctas = 1
    try:
        return nccl(dist.PrefixStore(name, store), rank, 2, options)
    except RuntimeError as error:
        raise LinkClosed(f"step group was not built: {error}") from None
