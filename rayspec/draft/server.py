"""A draft that admits targets and serves them until they leave."""

from __future__ import annotations

import logging
import secrets
import select
import socket
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from rayspec.draft.base import DeviceDrafter, Drafter
from rayspec.draft.counters import DraftCounters
from rayspec.draft.loop import Loop, StepLoop
from rayspec.draft.spec import DraftServerSpec, DraftStats
from rayspec.errors import LinkClosed, LinkError, LinkRefused
from rayspec.link.control import ControlChannel, listen
from rayspec.link.protocol import Bye, Hello, Ready
from rayspec.link.rendezvous import host_store
from rayspec.link.ticket import Ticket

__all__ = ["DraftServer"]

logger = logging.getLogger(__name__)

_HELLO_TIMEOUT_S: Final = 5.0
_HELLO_BYTES: Final = 4096
# Connections at one time, joined or not; a flood of strangers cannot take all threads.
_MAX_CONNECTIONS: Final = 128


@dataclass(frozen=True, slots=True)
class _Admission:
    hello: Hello
    store: Any
    expires: float


class DraftServer:
    """Targets are admitted by `admit`, join on the control port, and share one step loop."""

    def __init__(self, drafter: Drafter | DeviceDrafter, spec: DraftServerSpec) -> None:
        self._counters = DraftCounters()
        self._loop: Loop[Any]
        if isinstance(drafter, DeviceDrafter):
            self._loop = drafter.loop(self._counters, k_max=spec.k_max, max_slots=spec.max_slots)
        else:
            self._loop = StepLoop(drafter, self._counters)
        self._spec = replace(spec, transports=self._loop.transports, q_top=self._loop.q_top)
        self._lock = threading.Lock()
        self._admitted: dict[str, _Admission] = {}
        self._joined: set[str] = set()
        self._connections: dict[threading.Thread, ControlChannel | None] = {}
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def spec(self) -> DraftServerSpec:
        """The settings of this server."""
        return self._spec

    def start(self) -> None:
        """Load the drafter and open the control port; does nothing when already started."""
        if self._acceptor is not None:
            return
        if self._closing.is_set():
            raise LinkClosed("draft server is closed")
        self._listener = listen(self._spec.host)
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener,), name="rayspec-draft-accept", daemon=True
        )
        self._loop.start()
        self._acceptor.start()

    def admit(self, hello: Hello) -> Ticket:
        """Return a ticket for one attachment; raises LinkRefused naming what does not fit."""
        listener = self._listener
        if listener is None or self._closing.is_set():
            raise LinkRefused("draft server is not running")
        try:
            self._spec.check(hello)
        except LinkRefused:
            self._counters.refused += 1
            raise
        store, store_port = host_store(self._spec.host, timeout_s=self._spec.join_timeout_s)
        link_id = secrets.token_hex(16)
        expires = time.monotonic() + self._spec.join_timeout_s
        with self._lock:
            self._admitted[link_id] = _Admission(replace(hello, link_id=link_id), store, expires)
            self._counters.admitted += 1
        port = int(listener.getsockname()[1])
        return Ticket(self._spec.host, port, store_port, link_id, hello.epoch)

    def holds(self, link_id: str) -> bool:
        """Return whether the target that joined with a ticket is still there."""
        with self._lock:
            return link_id in self._joined

    def healthy(self) -> bool:
        """Whether targets can be served now."""
        return (
            self._acceptor is not None
            and self._acceptor.is_alive()
            and self._loop.alive(self._spec.stall_timeout_s)
        )

    def stats(self) -> DraftStats:
        """Return the counters now."""
        counters = self._counters
        links, sequences = self._loop.live()
        return DraftStats(
            links=links,
            sequences=sequences,
            admitted=counters.admitted,
            refused=counters.refused,
            frames=counters.frames,
            answered=counters.answered,
            rounds=counters.rounds,
            drafted_tokens=counters.drafted_tokens,
            nacks=counters.nacks,
            mismatches=counters.mismatches,
            errors=counters.errors,
            draft_ewma_us=counters.draft.ewma_us,
            draft_p50_us=counters.draft.percentile(0.5),
            draft_p99_us=counters.draft.percentile(0.99),
            on_device=self._loop.rounds(),
        )

    def close(self) -> None:
        """Leave every target, release the drafter and join every thread; idempotent."""
        self._closing.set()
        if self._acceptor is not None and self._acceptor.is_alive():
            self._acceptor.join()
        with self._lock:
            connections = dict(self._connections)
            self._admitted.clear()
        for channel in connections.values():
            if channel is not None:
                channel.interrupt()
        for thread in connections:
            thread.join()
        self._loop.stop()

    def _accept(self, listener: socket.socket) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        with listener:
            while not self._closing.is_set():
                ready = poll.poll(100)
                self._expire()
                if not ready:
                    continue
                try:
                    sock, _ = listener.accept()
                except OSError as error:
                    logger.warning("control port: %s", error)
                    continue
                self._connect(sock)

    def _connect(self, sock: socket.socket) -> None:
        thread = threading.Thread(
            target=self._converse, args=(sock,), name="rayspec-draft-link", daemon=True
        )
        with self._lock:
            if len(self._connections) >= _MAX_CONNECTIONS:
                sock.close()
                return
            self._connections[thread] = None
        thread.start()

    def _expire(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [key for key, value in self._admitted.items() if value.expires < now]
            for key in late:
                del self._admitted[key]

    def _converse(self, sock: socket.socket) -> None:
        """Serve one connection from its first byte to its end, whatever it sends."""
        me = threading.current_thread()
        control = ControlChannel(sock, name="rayspec-draft")
        with self._lock:
            self._connections[me] = control
        try:
            self._serve(control)
        except LinkError as error:
            logger.info("target is gone: %s", error)
            control.close(Bye(str(error)))
        except Exception:
            logger.exception("serving a target failed")
            control.close(Bye("internal error"))
        finally:
            with self._lock:
                del self._connections[me]

    def _serve(self, control: ControlChannel) -> None:
        hello, store = self._receive_hello(control)
        control.send(Ready(hello.epoch))
        peer = self._loop.join(control, hello, store, self._spec.host, self._spec.join_timeout_s)
        logger.info("target joined: epoch %d, %d slots", hello.epoch, hello.slots)
        why = "draft closed the link"
        with self._lock:
            self._joined.add(hello.link_id)
        try:
            peer.listen(self._loop.wake, self.healthy, self._spec.target_timeout_s)
        except LinkError as error:
            why = str(error)
            raise
        finally:
            with self._lock:
                self._joined.discard(hello.link_id)
            peer.leave()
            peer.cut()
            self._loop.release(peer)
            peer.close(why)

    def _receive_hello(self, control: ControlChannel) -> tuple[Hello, Any]:
        hello = control.receive(_HELLO_TIMEOUT_S, limit=_HELLO_BYTES)
        if not isinstance(hello, Hello):
            raise LinkError("the connection did not start with a hello")
        self._spec.check(hello)
        with self._lock:
            admission = self._admitted.pop(hello.link_id, None)
        if admission is None:
            raise LinkRefused("unknown or used link id: ask for a new ticket")
        if hello != admission.hello:
            raise LinkRefused("the target that joins is not the one that was admitted")
        return hello, admission.store
