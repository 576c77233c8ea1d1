from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from rayspec.errors import LinkClosed, LinkError
from rayspec.link.control import MAX_MESSAGE_BYTES, ControlChannel, Heartbeat, dial, listen
from rayspec.link.protocol import Add, Bye, Message, Ping, Reset, pack_message

WAIT_S = 10.0


@pytest.fixture
def raw_and_channel() -> Iterator[tuple[socket.socket, ControlChannel]]:
    raw, sock = _tcp_pair()
    channel = ControlChannel(sock, name="test")
    yield raw, channel
    channel.close()
    raw.close()


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with listen("127.0.0.1") as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def _framed(message: Message) -> bytes:
    data = pack_message(message)
    return struct.pack(">I", len(data)) + data


def test_messages_arrive_in_order_however_they_are_cut(
    raw_and_channel: tuple[socket.socket, ControlChannel],
) -> None:
    raw, channel = raw_and_channel
    sent: list[Message] = [Ping(1), Add(1, 0, 1, 4, 0.5, None, tuple(range(3000))), Reset(2)]
    stream = b"".join(_framed(message) for message in sent)
    for start in range(0, len(stream), 997):
        raw.sendall(stream[start : start + 997])
    assert [channel.receive(WAIT_S) for _ in sent] == sent
    assert channel.receive(0.0) is None


def test_both_directions(raw_and_channel: tuple[socket.socket, ControlChannel]) -> None:
    raw, channel = raw_and_channel
    peer = ControlChannel(raw.dup(), name="peer")
    channel.send(Ping(7))
    assert peer.receive(WAIT_S) == Ping(7)
    peer.close(Bye("done"))
    raw.close()
    assert channel.receive(WAIT_S) == Bye("done")
    with pytest.raises(LinkClosed, match="ended"):
        channel.receive(WAIT_S)


def test_sizes_are_bounded_before_memory_is_taken(
    raw_and_channel: tuple[socket.socket, ControlChannel],
) -> None:
    raw, channel = raw_and_channel
    raw.sendall(struct.pack(">I", MAX_MESSAGE_BYTES + 1))
    with pytest.raises(LinkError, match="too large"):
        channel.receive(WAIT_S)


def test_too_large_a_message_is_not_sent(
    raw_and_channel: tuple[socket.socket, ControlChannel],
) -> None:
    _, channel = raw_and_channel
    with pytest.raises(LinkError, match="too large"):
        channel.send(Add(1, 0, 1, 4, 0.0, None, (0,) * (MAX_MESSAGE_BYTES // 4)))


def test_a_peer_that_stopped_reading_never_blocks_the_sender(
    raw_and_channel: tuple[socket.socket, ControlChannel],
) -> None:
    _, channel = raw_and_channel
    message = Add(1, 0, 1, 4, 0.0, None, (0,) * 3000)

    def flood() -> None:
        for _ in range(6000):
            channel.send(message)

    with pytest.raises(LinkClosed, match="stopped reading"):
        flood()
    channel.close()


def test_what_waits_for_a_slow_peer_keeps_its_order(
    raw_and_channel: tuple[socket.socket, ControlChannel],
) -> None:
    raw, channel = raw_and_channel
    peer = ControlChannel(raw.dup(), name="peer")
    sent: list[Message] = []
    for number in range(600):  # more than a socket holds
        sent += [Add(number, 0, 1, 4, 0.0, None, (number,) * 3000), Ping(number)]
        channel.send(sent[-2])
        channel.send(sent[-1])
    assert [peer.receive(WAIT_S) for _ in sent] == sent
    channel.send(Ping(-1))
    assert peer.receive(WAIT_S) == Ping(-1)
    peer.close()
    raw.close()


def test_interrupt_wakes_a_blocked_receive(
    raw_and_channel: tuple[socket.socket, ControlChannel],
) -> None:
    _, channel = raw_and_channel
    timer = threading.Timer(0.05, channel.interrupt)
    timer.start()
    with pytest.raises(LinkClosed):
        channel.receive(60.0)
    timer.join()
    with pytest.raises(LinkClosed):
        channel.send(Ping(1))
    channel.close()
    channel.close()


def test_listens_on_its_host_alone() -> None:
    with listen("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        assert listener.getsockname()[0] == "127.0.0.1"
        with pytest.raises(OSError, match=r"."):
            socket.create_connection(("127.0.0.2", port), timeout=2.0)


def test_dialling_nobody_is_a_closed_link() -> None:
    with listen("127.0.0.1") as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LinkClosed, match="cannot reach"):
        dial("127.0.0.1", port, timeout_s=2.0, name="test")


def test_heartbeat_pings_at_its_interval_and_sees_silence() -> None:
    heart = Heartbeat(interval_s=1.0, timeout_s=3.0, now=10.0)
    assert heart.due(10.0) == 1
    assert heart.due(10.9) is None
    assert heart.due(11.0) == 2
    assert not heart.hung(13.0)
    assert heart.hung(13.1)
    heart.heard(13.2)
    assert not heart.hung(16.2)
