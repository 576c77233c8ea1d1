from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from rayspec.draft.server import DraftServer
from rayspec.draft.spec import DraftServerSpec
from rayspec.errors import LinkClosed, LinkRefused
from rayspec.link.control import ControlChannel, dial
from rayspec.link.protocol import Bye, Hello, Message, Ping, pack_message
from rayspec.link.spec import LinkState
from rayspec.link.ticket import Ticket
from tests.support.link_rig import SPEC, WAIT_S, CountingDrafter, Target, draft_server, wait_until

HELLO = SPEC.hello(1)


@pytest.fixture
def server() -> Iterator[DraftServer]:
    server = draft_server(CountingDrafter())
    yield server
    server.close()


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"version": 99}, "wire versions differ: target 99, draft 3"),
        ({"vocab_size": 32000}, "vocabulary sizes differ: target 32000, draft 1000"),
        ({"tokenizer_hash": "other"}, "tokenizers differ: target other, draft t"),
        ({"tokenizer_hash": ""}, "tokenizers differ: target unknown, draft t"),
        ({"q_mode": "sparse"}, "q_mode 'sparse' is not supported, only 'none'"),
        ({"transport": "pigeon"}, "transport 'pigeon' is not supported, only 'gloo'"),
        ({"k_max": 17}, "target wants up to 17 drafts, draft gives 16"),
        ({"slots": 5000}, "target has 5000 slots, draft serves 1024"),
        ({"epoch": -1}, "epoch -1 is out of range"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    server: DraftServer, changed: dict[str, object], difference: str
) -> None:
    with pytest.raises(LinkRefused, match=difference):
        server.admit(replace(HELLO, **changed))  # type: ignore[arg-type]
    assert (server.stats().refused, server.stats().admitted) == (1, 0)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"q_top": 16}, "target wants weights of 16 tokens, draft gives 32"),
        ({"q_mode": "full"}, "q_mode 'full' is not supported"),
        ({"transport": "gloo"}, "transport 'gloo' is not supported, only 'nccl'"),
    ],
)
def test_what_a_drafter_is_not_able_to_do_is_refused(
    changed: dict[str, object], difference: str
) -> None:
    spec = DraftServerSpec(transports=("nccl",), q_top=32)
    hello = replace(HELLO, transport="nccl", q_mode="sparse", q_top=32)
    spec.check(hello)
    with pytest.raises(LinkRefused, match=difference):
        spec.check(replace(hello, **changed))  # type: ignore[arg-type]


def test_a_draft_for_any_vocabulary_says_so_with_none() -> None:
    DraftServerSpec().check(replace(HELLO, vocab_size=5, tokenizer_hash=""))


def test_a_target_that_lies_about_its_tokenizer_is_refused_when_it_joins(
    server: DraftServer,
) -> None:
    target = Target(replace(SPEC, tokenizer_hash="other"))
    target.link.attach(server.admit(HELLO))
    wait_until(lambda: target.link.state is LinkState.REFUSED, "refusal")
    assert target.link.stats().refused_reason == "tokenizers differ: target other, draft t"
    target.link.close()


@pytest.mark.parametrize(
    ("tamper", "why"),
    [
        (lambda hello: replace(hello, link_id="0" * 32), "unknown or used link id"),
        (lambda hello: replace(hello, epoch=2), "not the one that was admitted"),
    ],
)
def test_strangers_are_refused(
    server: DraftServer, tamper: Callable[[Hello], Hello], why: str
) -> None:
    ticket = server.admit(HELLO)
    reply = _say(server, tamper(replace(HELLO, link_id=ticket.link_id)), ticket)
    assert isinstance(reply, Bye)
    assert why in reply.why


def test_a_ticket_is_good_once(server: DraftServer) -> None:
    ticket = server.admit(HELLO)
    target = Target()
    target.attach(ticket)
    target.link.attach(ticket)
    wait_until(lambda: target.link.state is LinkState.REFUSED, "refusal")
    target.link.close()


def test_a_draft_knows_which_targets_it_holds(server: DraftServer) -> None:
    ticket = server.admit(HELLO)
    assert not server.holds(ticket.link_id)
    target = Target()
    target.attach(ticket)
    wait_until(lambda: server.holds(ticket.link_id), "the target")
    target.link.close()
    wait_until(lambda: not server.holds(ticket.link_id), "its end")


def test_tickets_expire() -> None:
    server = draft_server(CountingDrafter(), join_timeout_s=0.01)
    ticket = server.admit(HELLO)
    wait_until(lambda: not server._admitted, "expiry")
    reply = _say(server, replace(HELLO, link_id=ticket.link_id), ticket)
    assert isinstance(reply, Bye)
    server.close()


def _say(server: DraftServer, message: Message, ticket: Ticket) -> Message | None:
    channel = dial(ticket.host, ticket.control_port, timeout_s=WAIT_S, name="stranger")
    channel.send(message)
    reply = channel.receive(WAIT_S)
    channel.close()
    return reply


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 2**32 - 1),
        struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1",
        struct.pack(">I", len(pack_message(Ping(1)))) + pack_message(Ping(1)),
        os.urandom(2000),
    ],
)
def test_garbage_on_the_control_port_harms_nobody(server: DraftServer, garbage: bytes) -> None:
    target = Target()
    target.attach(server.admit(HELLO))
    target.begin(0, 1, 2)
    assert target.step() == {0: [3, 4, 5, 6]}
    ticket = server.admit(HELLO)
    with socket.create_connection((ticket.host, ticket.control_port), timeout=WAIT_S) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert target.step(s0=[3]) == {0: [4, 5, 6, 7]}
    assert server.healthy()
    target.link.close()


def test_garbage_after_joining_ends_that_link_alone(server: DraftServer) -> None:
    good, bad = Target(), Target()
    for target in (good, bad):
        target.attach(server.admit(HELLO))
    bad.begin(0, 1)
    assert bad.step() == {0: [2, 3, 4, 5]}
    attachment = bad.link._live
    assert attachment is not None
    attachment._control._outbox.put(b"\xff" * 64)
    wait_until(lambda: bad.link.state is LinkState.DETACHED, "end of the bad link")
    good.begin(0, 7)
    assert good.step() == {0: [8, 9, 10, 11]}
    wait_until(lambda: server.stats().links == 1, "release")
    for target in (good, bad):
        target.link.close()


def test_lifecycle_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    drafter = CountingDrafter()
    server = draft_server(drafter)
    server.start()
    assert server.healthy()
    target = Target()
    target.attach(server.admit(HELLO))
    server.close()
    server.close()
    assert drafter.closed
    assert not server.healthy()
    wait_until(lambda: target.link.state is LinkState.DETACHED, "end of the link")
    with pytest.raises(LinkRefused, match="not running"):
        server.admit(HELLO)
    with pytest.raises(LinkClosed):
        DraftServer.start(_closed_server())
    target.link.close()
    target.link.close()
    assert target.link.state is LinkState.CLOSED
    target.link.attach(Ticket("127.0.0.1", 1, 1, "x", 1))
    assert target.link.state is LinkState.CLOSED
    wait_until(lambda: set(threading.enumerate()) <= before, "end of all threads")


def _closed_server() -> DraftServer:
    server = DraftServer(CountingDrafter(), DraftServerSpec())
    server.close()
    return server


def test_a_channel_that_ends_before_its_hello_is_let_go(server: DraftServer) -> None:
    ticket = server.admit(HELLO)
    channel: ControlChannel = dial(
        ticket.host, ticket.control_port, timeout_s=WAIT_S, name="stranger"
    )
    channel.close()
    wait_until(lambda: not server._connections, "end of the connection")
