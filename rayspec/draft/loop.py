"""The step loop: the one thread that owns the drafter and every mirror."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from rayspec.draft.base import Drafter, DraftRequest
from rayspec.draft.counters import DraftCounters
from rayspec.draft.peer import Peer, PeerBase
from rayspec.draft.spec import RoundStats
from rayspec.draft.transport import cuda_is_there, open_transport
from rayspec.errors import LinkError
from rayspec.link.control import ControlChannel
from rayspec.link.protocol import T2D, Hello

__all__ = ["Loop", "StepLoop"]

logger = logging.getLogger(__name__)

# Targets that never leave a pause still let one piece of prefill through every so many rounds.
_ROUNDS_PER_PIECE: Final = 4

P = TypeVar("P", bound=PeerBase)


class Loop(ABC, Generic[P]):
    """The thread, its peers, and its end; what it does with them is the subclass's.

    `transports` and `q_top` say what targets may ask for.
    """

    transports: tuple[str, ...]
    q_top: int

    def __init__(self, counters: DraftCounters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._peers: list[P] = []
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._busy_since: float | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rayspec-draft-loop", daemon=True)

    @abstractmethod
    def join(
        self, control: ControlChannel, hello: Hello, store: Any, host: str, timeout_s: float
    ) -> P:
        """Build this end of a target's frame path, and serve it from now on; may block."""

    @abstractmethod
    def _open(self) -> None:
        """Get ready to draft; may take long."""

    @abstractmethod
    def _serve(self) -> None:
        """Serve until `_stopping` is set."""

    @abstractmethod
    def _close(self) -> None:
        """Release everything."""

    def start(self) -> None:
        """Start the thread and wait until the drafter is ready; raises what its start raised."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def add(self, peer: P) -> None:
        """Serve a target from now on."""
        with self._lock:
            self._peers.append(peer)
        self.wake()

    def wake(self) -> None:
        """Something arrived for a target."""
        self._wake.set()

    def release(self, peer: P) -> None:
        """Wait until the loop has let go of a target that is gone."""
        self.wake()
        while not peer.released.wait(timeout=0.5):
            if not self._thread.is_alive():
                return

    def alive(self, stall_timeout_s: float) -> bool:
        """Whether the loop runs and is not stuck inside the drafter."""
        since = self._busy_since
        stuck = since is not None and time.monotonic() - since > stall_timeout_s
        return self._thread.is_alive() and not stuck

    def live(self) -> tuple[int, int]:
        """Return how many targets and how many sequences are served."""
        with self._lock:
            return len(self._peers), sum(len(peer.mirror) for peer in self._peers)

    def rounds(self) -> RoundStats:
        """Return what rounds on a device counted; nothing where there are none."""
        return RoundStats()

    def stop(self) -> None:
        """End the thread; idempotent."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._open()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._started.set()
        try:
            self._serve()
        except Exception:
            logger.exception("draft step loop failed")
        finally:
            self._close()

    def _current_peers(self) -> list[P]:
        with self._lock:
            gone = [peer for peer in self._peers if peer.gone.is_set()]
        left = [peer for peer in gone if peer.let_go()]
        with self._lock:
            self._peers = [peer for peer in self._peers if peer not in left]
            peers = [peer for peer in self._peers if peer not in gone]
        for peer in left:
            peer.released.set()
        return peers

    def _give_up(self, peer: P, error: Exception) -> None:
        """Let one target go, so that the others are served on."""
        logger.warning("target is dropped: %s", error, exc_info=not isinstance(error, LinkError))
        peer.leave()


class StepLoop(Loop[Peer]):
    """Answers steps first; prepares (prefill, indexing) in the pauses, piece by piece."""

    q_top = 0

    def __init__(self, drafter: Drafter, counters: DraftCounters) -> None:
        super().__init__(counters)
        self._drafter = drafter
        self.transports = ("gloo", "nccl") if cuda_is_there() else ("gloo",)

    def join(
        self, control: ControlChannel, hello: Hello, store: Any, host: str, timeout_s: float
    ) -> Peer:
        """Build a transport between hosts, whatever carries it."""
        transport = open_transport(hello, store, host, timeout_s, self.wake)
        peer = Peer(control, transport, hello, self._drafter, self._counters)
        self.add(peer)
        return peer

    def _open(self) -> None:
        self._drafter.start()

    def _close(self) -> None:
        self._drafter.close()

    def _serve(self) -> None:
        unprepared = False
        rounds = 0
        while not self._stopping.is_set():
            if not unprepared:
                self._wake.wait()
            self._wake.clear()
            self._busy_since = time.monotonic()
            answered = self._answer()
            rounds = rounds + 1 if answered else _ROUNDS_PER_PIECE
            if rounds >= _ROUNDS_PER_PIECE:
                unprepared = self._prepare()
                rounds = 0
            else:
                unprepared = True  # look again: nobody may be waiting any more
            self._busy_since = None

    def _answer(self) -> bool:
        """Take in what arrived and answer every target that waits, in one call of the drafter."""
        due: list[tuple[Peer, T2D, list[DraftRequest]]] = []
        for peer in self._current_peers():
            try:
                step = peer.advance()
            except Exception as error:
                self._give_up(peer, error)
                continue
            if step is not None:
                due.append((peer, step, peer.requests(step)))
        if not due:
            return False
        began = time.perf_counter()
        drafts = self._draft([request for _, _, requests in due for request in requests])
        took_us = int((time.perf_counter() - began) * 1e6)
        at = 0
        for peer, step, requests in due:
            try:
                peer.reply(step, requests, drafts[at : at + len(requests)], took_us)
            except Exception as error:
                self._give_up(peer, error)
            at += len(requests)
            self._counters.answered += 1
        return True

    def _draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        if not requests:
            return []
        began = time.perf_counter()
        try:
            drafts = self._drafter.draft(requests)
        except Exception:
            # A target must get its answer in time; a draft that cannot draft says nothing.
            logger.exception("drafter failed")
            self._counters.errors += 1
            return [[] for _ in requests]
        self._counters.draft.add((time.perf_counter() - began) * 1e6)
        self._counters.rounds += 1
        self._counters.drafted_tokens += sum(map(len, drafts))
        return drafts

    def _prepare(self) -> bool:
        try:
            return self._drafter.work()
        except Exception:
            logger.exception("drafter failed to prepare")
            self._counters.errors += 1
            return False
