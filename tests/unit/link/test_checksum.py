from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from rayspec.link.protocol import TokenHash, sequence_checksum

token_lists = st.lists(st.integers(0, 2**31 - 1), max_size=20)


@given(token_lists, token_lists)
def test_extending_equals_hashing_everything(first: list[int], second: list[int]) -> None:
    grown = TokenHash(first)
    grown.extend(second)
    whole = TokenHash(first + second)
    assert (grown.crc, grown.length) == (whole.crc, whole.length)


@given(st.dictionaries(st.integers(0, 63), st.tuples(st.integers(1, 99), token_lists)))
def test_order_of_slots_does_not_matter(live: dict[int, tuple[int, list[int]]]) -> None:
    entries = [(slot, gen, TokenHash(tokens)) for slot, (gen, tokens) in live.items()]
    shuffled = random.Random(0).sample(entries, len(entries))
    assert sequence_checksum(entries) == sequence_checksum(shuffled)
    assert 0 <= sequence_checksum(entries) < 2**31


def test_every_difference_shows() -> None:
    sums = [
        sequence_checksum([]),
        sequence_checksum([(0, 1, TokenHash())]),
        sequence_checksum([(0, 1, TokenHash([0]))]),
        sequence_checksum([(0, 1, TokenHash([0, 0]))]),
        sequence_checksum([(0, 1, TokenHash([1, 2]))]),
        sequence_checksum([(0, 1, TokenHash([2, 1]))]),
        sequence_checksum([(0, 2, TokenHash([2, 1]))]),
        sequence_checksum([(1, 2, TokenHash([2, 1]))]),
        sequence_checksum([(1, 2, TokenHash([2, 1])), (0, 1, TokenHash())]),
    ]
    assert len(set(sums)) == len(sums)
