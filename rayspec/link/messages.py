"""Control messages of a link, and their bytes.

A message is a msgpack array: its kind, then its fields in order. Token lists travel as
little-endian int32 bytes. Every decoded field is checked, so malformed input is a
`LinkError` and nothing else.

`cseq` grows with every message that changes the mirror; a step frame names the newest one it
relies on. `after` is the newest step sent before the message: the draft applies it only once that
step is applied, so a request that ends cannot overtake its own last outcome.

`Announce` goes ahead of every frame between devices. Only then does the draft post a receive: one
that is pending for a target with nothing to say would block whatever synchronises the draft's
device, the attachment of another target above all. And it knows enough to launch the round before
the frame is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import msgpack
import numpy as np

from rayspec.errors import LinkError

__all__ = [
    "ALL_SLOTS",
    "WIRE_VERSION",
    "Add",
    "Announce",
    "Bye",
    "Delete",
    "Hello",
    "Message",
    "MirrorMessage",
    "Nack",
    "Ping",
    "Pong",
    "Ready",
    "Reset",
    "SetK",
    "pack_message",
    "unpack_message",
]

WIRE_VERSION = 3
# The slot of a Nack that asks for everything again.
ALL_SLOTS = -1


@dataclass(frozen=True, slots=True)
class Hello:
    """What a target is; asks for admission (empty `link_id`) or joins with a ticket."""

    epoch: int
    version: int
    slots: int
    k_max: int
    vocab_size: int
    max_len: int
    tokenizer_hash: str
    q_mode: str = "none"  # "none" | "sparse"
    q_top: int = 0
    transport: str = "gloo"  # "gloo" | "nccl"
    checksum: bool = False
    link_id: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The draft accepts the Hello; both sides now build the step transport."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget every slot."""

    cseq: int
    after: int = 0


@dataclass(frozen=True, slots=True)
class Add:
    """A request takes a slot, with all its tokens so far."""

    cseq: int
    slot: int
    gen: int
    k: int
    temperature: float
    seed: int | None
    tokens: tuple[int, ...]
    after: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """The request of this generation leaves its slot."""

    cseq: int
    slot: int
    gen: int
    after: int = 0


@dataclass(frozen=True, slots=True)
class SetK:
    """The request of this generation wants at most `k` drafts a step."""

    cseq: int
    slot: int
    gen: int
    k: int
    after: int = 0


@dataclass(frozen=True, slots=True)
class Announce:
    """The frame of this step is on its way over NCCL, and what its header will say.

    `rows` are at least the rows that it will have.
    """

    step: int
    cseq_required: int
    rows: int
    k_want: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to the Ping of the same nonce."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The mirror of a slot (or of `ALL_SLOTS`) is wrong and has to be sent again."""

    slot: int
    gen: int
    why: str


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender ends the link; to a Hello it is the refusal."""

    why: str


MirrorMessage = Reset | Add | Delete | SetK
Message = Hello | Ready | Reset | Add | Delete | SetK | Ping | Pong | Nack | Bye | Announce

# The position is the wire kind: append only.
_KINDS: tuple[type[Any], ...] = (
    *(Hello, Ready, Reset, Add, Delete, SetK, Ping, Pong, Nack, Bye),
    Announce,
)
_KIND_OF = {kind: number for number, kind in enumerate(_KINDS)}


def pack_message(message: Message) -> bytes:
    """Return the bytes of a message, without its length prefix."""
    values: list[object] = [_KIND_OF[type(message)]]
    for field in fields(message):
        value = getattr(message, field.name)
        if field.type == "tuple[int, ...]":
            value = np.asarray(value, dtype="<i4").tobytes()
        values.append(value)
    packed: bytes = msgpack.packb(values)
    return packed


def unpack_message(data: bytes) -> Message:
    """Return the message in `data`; raises LinkError when there is none."""
    try:
        values = msgpack.unpackb(data)
    except Exception as error:
        raise LinkError(f"control message is not msgpack: {error}") from None
    if not isinstance(values, list) or not values or type(values[0]) is not int:
        raise LinkError("control message is not an array that starts with its kind")
    if not 0 <= values[0] < len(_KINDS):
        raise LinkError(f"unknown control message kind {values[0]}")
    kind = _KINDS[values[0]]
    expected = fields(kind)
    if len(values) != len(expected) + 1:
        raise LinkError(f"{kind.__name__} has {len(values) - 1} fields, expected {len(expected)}")
    message: Message = kind(
        *(
            _READERS[str(field.type)](value, f"{kind.__name__}.{field.name}")
            for field, value in zip(expected, values[1:], strict=True)
        )
    )
    return message


def _plain(kind: type[Any]) -> Callable[[Any, str], Any]:
    def read(value: Any, name: str) -> Any:
        if type(value) is not kind:
            raise LinkError(f"{name} is {type(value).__name__}, expected {kind.__name__}")
        return value

    return read


def _optional_int(value: Any, name: str) -> int | None:
    return None if value is None else int(_plain(int)(value, name))


def _tokens(value: Any, name: str) -> tuple[int, ...]:
    data = _plain(bytes)(value, name)
    if len(data) % 4:
        raise LinkError(f"{name} has {len(data)} bytes, expected a multiple of 4")
    return tuple(np.frombuffer(data, dtype="<i4").tolist())


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "int": _plain(int),
    "float": _plain(float),
    "bool": _plain(bool),
    "str": _plain(str),
    "int | None": _optional_int,
    "tuple[int, ...]": _tokens,
}
