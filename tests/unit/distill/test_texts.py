from __future__ import annotations

from pathlib import Path

import numpy as np

from rayspec.distill.texts import Text, Texts

THREE = (
    Text([1, 2, 3], [4, 5], "code"),
    Text([6], [7, 8, 9], "chat", 1.0),
    Text([10, 11], [12], "chat", 0.0, held_out=True),
)


def spoken(texts: Texts) -> list[tuple[list[int], list[bool]]]:
    return [
        (texts.tokens[a:b].tolist(), texts.answered[a:b].tolist())
        for a, b in zip(texts.starts, texts.ends, strict=True)
    ]


def test_arrays() -> None:
    texts = Texts.of(THREE)
    assert len(texts) == 3
    assert texts.lengths.tolist() == [5, 4, 3]
    assert texts.answer_tokens == 6
    assert spoken(texts)[1] == ([6, 7, 8, 9], [False, True, True, True])
    assert texts.temperatures.tolist() == [0.0, 1.0, 0.0]


def test_pick_and_join() -> None:
    texts = Texts.of(THREE)
    kept, others = texts.pick(texts.held_out), texts.pick(~texts.held_out)
    assert spoken(kept) == [([10, 11, 12], [False, False, True])]
    assert spoken(Texts.join([others, kept])) == spoken(texts)
    assert len(Texts.join([])) == 0
    assert Texts.of(()).lengths.tolist() == []


def test_shards_come_back_in_order(tmp_path: Path) -> None:
    Texts.of(THREE[:1]).save(tmp_path / "a.npz")
    Texts.of(THREE[1:]).save(tmp_path / "b.npz")
    found = Texts.load(tmp_path)
    assert spoken(found) == spoken(Texts.of(THREE))
    assert found.classes.tolist() == ["code", "chat", "chat"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_rows_keep_every_text_whole() -> None:
    many = Texts.of([Text([i], [i, i + 1], "chat") for i in range(40)])
    rows = many.rows(0.5, 9, seed=1)
    assert rows.lengths.max() == 9
    assert (rows.lengths == 3).sum() >= 20
    assert rows.answer_tokens == many.answer_tokens
    # The same texts, each still in one piece.
    assert sorted(rows.tokens[::3].tolist()) == list(range(40))
    assert np.array_equal(rows.tokens[1::3], rows.tokens[::3])
    assert spoken(many.rows(0.5, 9, seed=1)) == spoken(rows)
    assert spoken(many.rows(0.0, 9, seed=2)) != spoken(rows)
