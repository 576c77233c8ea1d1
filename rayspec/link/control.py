"""The ordered control channel of a link: length-prefixed messages on TCP, with a failure detector.

Nothing here pickles, sizes are bounded before memory is taken, and `send` never blocks: what the
socket does not take at once waits for a thread, and a peer that stopped reading fills that bounded
backlog and then counts as gone.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from typing import Final

from rayspec.errors import LinkClosed, LinkError
from rayspec.link.messages import Message, pack_message, unpack_message

__all__ = ["MAX_MESSAGE_BYTES", "ControlChannel", "Heartbeat", "dial", "listen"]

# An Add of one million tokens; nothing legitimate is larger.
MAX_MESSAGE_BYTES: Final = 4 << 20
# Messages that may wait for a peer that does not read. A full re-synchronisation of 256 slots fits.
_BACKLOG: Final = 4096
_PREFIX: Final = struct.Struct(">I")


class ControlChannel:
    """One end of a control connection: any thread sends, one thread receives."""

    def __init__(self, sock: socket.socket, *, name: str) -> None:
        sock.setblocking(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._buffer = bytearray()
        self._outbox: queue.Queue[bytes | None] = queue.Queue(_BACKLOG)
        self._lock = threading.Lock()
        self._unwritten = 0  # messages that the thread has not handed to the socket yet
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write, name=f"{name}-write", daemon=True)
        self._writer.start()

    @property
    def local_host(self) -> str:
        """Address of this end, by which the peer's machine is reached."""
        return str(self._sock.getsockname()[0])

    def send(self, message: Message) -> None:
        """Send a message; raises LinkClosed when the peer is gone or stopped reading."""
        if self._closed.is_set():
            raise LinkClosed("control channel is closed")
        data = pack_message(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise LinkError(f"control message of {len(data)} bytes is too large")
        data = _PREFIX.pack(len(data)) + data
        with self._lock:
            # At once if possible: another thread may have to wait for a busy interpreter first.
            rest = data if self._unwritten else data[self._write_now(data) :]
            if not rest:
                return
            try:
                self._outbox.put_nowait(rest)
            except queue.Full:
                raise LinkClosed("control peer stopped reading") from None
            self._unwritten += 1

    def _write_now(self, data: bytes) -> int:
        """Return how many bytes the socket took without waiting."""
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkClosed(f"control channel failed: {error}") from None

    def receive(self, timeout_s: float, *, limit: int = MAX_MESSAGE_BYTES) -> Message | None:
        """Return the next message, None after `timeout_s`; raises LinkClosed at the end."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._next_buffered(limit)
            if message is not None:
                return message
            left = deadline - time.monotonic()
            if not self._poll.poll(max(0.0, left) * 1000):
                return None
            try:
                data = self._sock.recv(1 << 16)
            except OSError as error:
                raise LinkClosed(f"control channel failed: {error}") from None
            if not data:
                raise LinkClosed("control channel ended")
            self._buffer += data

    def _next_buffered(self, limit: int) -> Message | None:
        if len(self._buffer) < _PREFIX.size:
            return None
        (size,) = _PREFIX.unpack_from(self._buffer)
        if size > limit:
            raise LinkError(f"control message of {size} bytes is too large")
        end = _PREFIX.size + size
        if len(self._buffer) < end:
            return None
        data = bytes(self._buffer[_PREFIX.size : end])
        del self._buffer[:end]
        return unpack_message(data)

    def _write(self) -> None:
        while (data := self._outbox.get()) is not None:
            try:
                self._sock.sendall(data)
            except OSError:
                break
            with self._lock:
                self._unwritten -= 1
        self.interrupt()

    def interrupt(self) -> None:
        """End the conversation from any thread: a blocked `receive` wakes up with LinkClosed."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self, last: Message | None = None) -> None:
        """Close the connection, after a last message if the peer still reads; idempotent."""
        if last is not None:
            with contextlib.suppress(LinkError):
                self.send(last)
        with contextlib.suppress(queue.Full):
            self._outbox.put_nowait(None)
        if last is not None:
            self._writer.join(timeout=0.2)
        self.interrupt()
        self._writer.join()
        self._sock.close()


class Heartbeat:
    """Decides when to ping and when a silent peer counts as hung; the caller gives the time."""

    def __init__(self, interval_s: float, timeout_s: float, now: float) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._last_ping = now - interval_s
        self._last_heard = now
        self._nonce = 0

    def due(self, now: float) -> int | None:
        """Return the nonce of a ping to send now, if one is due."""
        if now - self._last_ping < self._interval_s:
            return None
        self._last_ping = now
        self._nonce += 1
        return self._nonce

    def heard(self, now: float) -> None:
        """Note a sign of life."""
        self._last_heard = now

    def hung(self, now: float) -> bool:
        """Whether the peer has been silent for too long."""
        return now - self._last_heard > self._timeout_s


def listen(host: str) -> socket.socket:
    """Return a listening socket on a free port of `host` and of no other address."""
    return socket.create_server((host, 0), backlog=64)


def dial(host: str, port: int, *, timeout_s: float, name: str) -> ControlChannel:
    """Connect to a draft; raises LinkClosed when nobody answers."""
    try:
        sock = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise LinkClosed(f"cannot reach {host}:{port}: {error}") from None
    return ControlChannel(sock, name=name)
