"""The step loop of rounds: it polls, because nothing wakes a host when a device has received."""

from __future__ import annotations

import contextlib
import ctypes
import time
from typing import Any, Final

import torch

from rayspec.draft.counters import DraftCounters
from rayspec.draft.loop import Loop
from rayspec.draft.rounds.device_peer import DevicePeer
from rayspec.draft.rounds.engine import RoundsEngine
from rayspec.draft.rounds.paths import FramePath, HostPath
from rayspec.draft.spec import RoundStats
from rayspec.draft.transport import open_transport
from rayspec.link.control import ControlChannel
from rayspec.link.gloo import DRAFT_RANK
from rayspec.link.protocol import FrameShape, Hello

__all__ = ["RoundsLoop", "pause_s"]

_PR_SET_TIMERSLACK: Final = 29
_SLACK_NS: Final = 1000
# Between control messages of a target without requests there is nothing to look for.
_REST_S: Final = 0.1


def pause_s(quiet_s: float, *, busy: bool, live: bool, polled: bool) -> float:
    """Return how long to sleep when nothing has happened for `quiet_s`.

    `busy`: the device works for us. `live`: there are sequences, so steps are to be expected;
    frames that are not `polled` for wake the loop by themselves.
    """
    if busy:
        return 5e-6 if quiet_s < 1e-3 else 50e-6
    if not polled or (not live and quiet_s >= 1.0):
        return _REST_S
    if quiet_s < 1e-3 and live:
        return 5e-6
    return 50e-6 if quiet_s < 1.0 and live else 500e-6


class RoundsLoop(Loop[DevicePeer]):
    """Starts rounds first; publishes and begins prefill between them."""

    def __init__(self, engine: RoundsEngine, counters: DraftCounters, *, cuda: bool) -> None:
        super().__init__(counters)
        self._engine = engine
        self.transports = ("gloo", "nccl") if cuda else ("gloo",)
        self.q_top = engine.spec.top_m

    def join(
        self, control: ControlChannel, hello: Hello, store: Any, host: str, timeout_s: float
    ) -> DevicePeer:
        """Build a path between devices, or through the host for a target without one."""
        path = self._path(hello, store, host, timeout_s)
        peer = DevicePeer(control, path, hello, self._engine, self._counters)
        self.add(peer)
        return peer

    def alive(self, stall_timeout_s: float) -> bool:
        """Whether the loop runs and the device ends its rounds."""
        since = self._engine.waiting_since
        stuck = since is not None and time.monotonic() - since > stall_timeout_s
        return super().alive(stall_timeout_s) and not stuck

    def rounds(self) -> RoundStats:
        """Return what the engine counted."""
        return self._engine.stats()

    def _path(self, hello: Hello, store: Any, host: str, timeout_s: float) -> FramePath:
        shape = FrameShape(hello.slots, hello.k_max)
        q_size = (hello.slots, hello.k_max, 2 * hello.q_top) if hello.q_mode == "sparse" else None
        device = self._engine.device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # of this target's thread, for pinned memory and events
        if hello.transport != "nccl":
            transport = open_transport(hello, store, host, timeout_s, self.wake)
            return HostPath(transport, shape, q_size, device)
        from rayspec.draft.rounds.nccl_path import NcclPath
        from rayspec.link.nccl import NcclGroups

        groups = NcclGroups(
            store, rank=DRAFT_RANK, epoch=hello.epoch, device=device, timeout_s=timeout_s
        )
        try:
            return NcclPath(groups, shape, q_size, self._places)
        except BaseException:
            groups.abort()
            raise

    def _open(self) -> None:
        self._engine.start()
        device = self._engine.device
        if device.type == "cuda":
            from rayspec.draft.rounds.nccl_path import PathPlaces

            self._places = PathPlaces(self._engine.spec, device)
            torch.cuda.synchronize(device)  # zeroed on the default stream

    def _close(self) -> None:
        self._engine.close()

    def _serve(self) -> None:
        _sleep_precisely()
        engine = self._engine
        with engine.activate():
            active = time.perf_counter()
            while not self._stopping.is_set():
                self._wake.clear()
                self._busy_since = time.monotonic()
                peers = self._current_peers()
                if self._turn(peers):
                    active = time.perf_counter()
                    continue
                self._busy_since = None
                self._rest(
                    pause_s(
                        time.perf_counter() - active,
                        busy=engine.busy,
                        live=any(len(peer.mirror) for peer in peers),
                        polled=any(peer.polled for peer in peers),
                    )
                )

    def _turn(self, peers: list[DevicePeer]) -> bool:
        """Serve every target once, in turn; False when there was nothing to do."""
        moved = self._engine.settle()
        for peer in peers:
            try:
                moved |= peer.advance()
            except Exception as error:
                self._give_up(peer, error)
        if not moved:
            moved = self._engine.work()
        if not moved:
            moved = self._expect(peers)
        return moved

    def _expect(self, peers: list[DevicePeer]) -> bool:
        """Receive what is announced, and launch the round of the only target that has sequences.

        With more than one the others' rounds would wait for that frame, too. What is prefilled
        while a round waits drafts in the next one only: where that is to be expected soon, the
        frame alone is received, and its round launched when the prefill or the frame is there.
        """
        live = [peer for peer in peers if len(peer.mirror)]
        ready = not self._engine.readies
        moved = False
        for peer in peers:
            try:
                ahead = ready and live == [peer]
                moved |= peer.look_ahead() if ahead else peer.receive()
            except Exception as error:
                self._give_up(peer, error)
        return moved

    def _rest(self, seconds: float) -> None:
        if seconds >= _REST_S:
            self._wake.wait(seconds)
        else:
            time.sleep(seconds)


def _sleep_precisely() -> None:
    """Let this thread sleep for microseconds: Linux rounds up to 50 otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS)
