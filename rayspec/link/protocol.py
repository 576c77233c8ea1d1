"""Everything that crosses a link, under one name."""

from __future__ import annotations

from rayspec.link.checksum import TokenHash, sequence_checksum
from rayspec.link.frames import D2T, HEADER_WORDS, T2D, FrameShape, StepRow
from rayspec.link.messages import (
    ALL_SLOTS,
    WIRE_VERSION,
    Add,
    Announce,
    Bye,
    Delete,
    Hello,
    Message,
    MirrorMessage,
    Nack,
    Ping,
    Pong,
    Ready,
    Reset,
    SetK,
    pack_message,
    unpack_message,
)

__all__ = [
    "ALL_SLOTS",
    "D2T",
    "HEADER_WORDS",
    "T2D",
    "WIRE_VERSION",
    "Add",
    "Announce",
    "Bye",
    "Delete",
    "FrameShape",
    "Hello",
    "Message",
    "MirrorMessage",
    "Nack",
    "Ping",
    "Pong",
    "Ready",
    "Reset",
    "SetK",
    "StepRow",
    "TokenHash",
    "pack_message",
    "sequence_checksum",
    "unpack_message",
]
