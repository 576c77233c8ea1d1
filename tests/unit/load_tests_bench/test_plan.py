from __future__ import annotations

from load_tests.bench.plan import Group, Turn, Variant, interleave, pack

PLAIN = Variant("plain")
A = Variant("rayspec", 5)
B = Variant("colocated", 5, "1b")
C = Variant("ngram", 5)
NEEDS = {PLAIN: {0: 20}, A: {0: 22, 1: 5}, B: {0: 24}, C: {0: 20}}


def test_names_tell_engines_apart() -> None:
    assert [variant.name for variant in (PLAIN, A, B)] == ["plain", "rayspec-k5", "colocated-1b-k5"]
    # A draft may be a folder.
    assert Variant("colocated", 3, "/tmp/models/distilled").name == "colocated-distilled-k3"


def test_everything_that_fits_is_one_group() -> None:
    assert pack([PLAIN, A, B, C], NEEDS, 100, PLAIN) == [Group((PLAIN, A, B, C))]


def test_plain_is_in_every_group() -> None:
    assert pack([PLAIN, A, B, C], NEEDS, 50, PLAIN) == [
        Group((PLAIN, A)),
        Group((PLAIN, B)),
        Group((PLAIN, C)),
    ]


def test_what_fits_with_nothing_is_measured_alone() -> None:
    groups = pack([PLAIN, A, B], NEEDS, 30, PLAIN)
    assert groups == [Group((PLAIN,)), Group((A,)), Group((B,))]
    assert not any(group.interleaved for group in groups)


def test_engines_on_gpus_of_their_own_do_not_count_together() -> None:
    apart = {PLAIN: {1: 40}, A: {0: 40, 1: 5}, B: {2: 40}, C: {2: 40}}
    assert pack([PLAIN, A, B, C], apart, 50, PLAIN) == [Group((PLAIN, A, B)), Group((PLAIN, C))]
    # The draft of rayspec is beside plain.
    assert pack([PLAIN, A], apart, 44, PLAIN) == [Group((PLAIN,)), Group((A,))]


def test_plain_alone_and_no_plain() -> None:
    assert pack([PLAIN], NEEDS, 100, PLAIN) == [Group((PLAIN,))]
    assert pack([A, B], NEEDS, 100, None) == [Group((A, B))]


def test_rounds_start_with_another_turn_each() -> None:
    turns = [Turn(variant.system, variant) for variant in (PLAIN, A, B)]
    order = [(number, turn.system) for number, turn in interleave(turns, 2)]
    assert order == [
        (0, "plain"),
        (0, "rayspec"),
        (0, "colocated"),
        (1, "rayspec"),
        (1, "colocated"),
        (1, "plain"),
    ]
