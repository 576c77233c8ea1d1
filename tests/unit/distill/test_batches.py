from __future__ import annotations

from itertools import islice

import numpy as np

from rayspec.distill.batches import batches, collate, epochs
from rayspec.distill.score import answered_before
from rayspec.distill.texts import Text, Texts


def test_every_text_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 500)
    found = batches(lengths, 256, seed=3)
    assert sorted(np.concatenate(found).tolist()) == list(range(500))
    padded = [len(each) * int(lengths[each].max()) for each in found]
    assert max(padded) <= 256
    assert lengths.sum() / sum(padded) > 0.9


def test_a_text_beyond_the_budget_is_a_batch() -> None:
    found = batches(np.array([10, 300, 10]), 64, seed=0)
    assert [each.tolist() for each in found if 1 in each] == [[1]]


def test_epochs_go_on_where_they_were() -> None:
    lengths = np.arange(5, 40)
    whole = [each.tolist() for each in islice(epochs(lengths, 100, 7), 30)]
    for skip in (0, 1, 11, 29):
        rest = [each.tolist() for each in islice(epochs(lengths, 100, 7, skip), 30 - skip)]
        assert rest == whole[skip:]
    count = len(batches(lengths, 100, 7))
    assert count < 30
    assert whole[:count] != whole[count : 2 * count]


def test_collate() -> None:
    texts = Texts.of([Text([1, 2], [3], "a"), Text([4], [5, 6, 7], "b"), Text([8, 9], [10], "c")])
    batch = collate(texts, np.array([1, 2]), answered_before(texts))
    assert batch.ids.tolist() == [[4, 5, 6, 7], [8, 9, 10, 0]]
    assert batch.places.tolist() == [0, 1, 2, 5]
    following = batch.ids.flatten()[batch.places + 1].tolist()
    assert following == [5, 6, 7, 10]
    # Numbers of these among all answered tokens, of which the first text has one.
    assert batch.rows.tolist() == [1, 2, 3, 4]
