"""The words that tell a captured round where to find a frame, and what to do with it."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["REPORT_WORDS", "Order", "Report"]


class Order(IntEnum):
    """Words of an order, int64; one order starts one round. Addresses are of device memory."""

    FRAME = 0  # address of the t2d frame [slots + 1, width]
    REPLY = 1  # address of the d2t frame of the same shape; 0 for none
    Q = 2  # address of [slots, k_max, 2 * top_m] int32; 0 for none
    BASE = 3  # of this target's slots in the slot map
    SLOTS = 4
    WIDTH = 5
    K_WANT = 6
    K_MAX = 7  # of the target
    MAX_LEN = 8
    VOCAB = 9
    GREEDY = 10  # 1: temperatures count as 0
    T_DRAFT_US = 11  # what the reply says a round takes
    MAGIC = 12  # first word of the reply

    WORDS = 16


class Report(IntEnum):
    """What a round tells the host about each slot of its target, int32."""

    GEN = 0  # -1: no sequence of this generation has a row
    LENGTH = 1
    KV_LEN = 2
    DRAFTED = 3


REPORT_WORDS = len(Report)
