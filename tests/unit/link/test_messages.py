from __future__ import annotations

import contextlib
from dataclasses import fields

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.errors import LinkError
from rayspec.link.protocol import (
    Add,
    Announce,
    Bye,
    Delete,
    Hello,
    Message,
    Nack,
    Ping,
    Pong,
    Ready,
    Reset,
    SetK,
    pack_message,
    unpack_message,
)

int32 = st.integers(-(2**31), 2**31 - 1)
BY_TYPE: dict[str, st.SearchStrategy[object]] = {
    "int": int32,
    "str": st.text(max_size=20),
    "bool": st.booleans(),
    "float": st.floats(allow_nan=False),
    "int | None": st.none() | int32,
    "tuple[int, ...]": st.lists(int32, max_size=8).map(tuple),
}
KINDS: list[type[Message]] = [
    *(Hello, Ready, Reset, Add, Delete, SetK, Ping, Pong, Nack, Bye),
    Announce,
]
MESSAGES = st.one_of(
    [st.builds(kind, **{f.name: BY_TYPE[str(f.type)] for f in fields(kind)}) for kind in KINDS]
)


@given(MESSAGES)
def test_what_is_packed_is_unpacked(message: Message) -> None:
    assert unpack_message(pack_message(message)) == message


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_link_error(data: bytes) -> None:
    with contextlib.suppress(LinkError):
        unpack_message(data)


@given(MESSAGES, st.data())
def test_damaged_messages_are_a_message_or_a_link_error(
    message: Message, data: st.DataObject
) -> None:
    packed = bytearray(pack_message(message))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(LinkError):
        unpack_message(bytes(packed))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([99], "unknown control message kind 99"),
        ([-1], "unknown control message kind -1"),
        ([True], "starts with its kind"),
        ({"kind": 1}, "starts with its kind"),
        ([6], "Ping has 0 fields, expected 1"),
        ([6, "1"], "Ping.nonce is str, expected int"),
        ([6, True], "Ping.nonce is bool, expected int"),
        ([3, 1, 0, 1, 4, 0.0, None, b"123", 0], "Add.tokens has 3 bytes"),
        ([3, 1, 0, 1, 4, 0.0, None, [1, 2], 0], "Add.tokens is list, expected bytes"),
    ],
)
def test_malformed_messages_are_named(values: object, complaint: str) -> None:
    with pytest.raises(LinkError, match=complaint):
        unpack_message(msgpack.packb(values))
