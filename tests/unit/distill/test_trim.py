from __future__ import annotations

from pathlib import Path

import pytest

from rayspec.distill.texts import Text, Texts
from rayspec.distill.trim import FILE, frequent_tokens, write_trim
from rayspec.draft.vocabulary import read_token_ids

TEXTS = Texts.of([Text([9, 9, 9, 9], [3, 3, 5, 3], "a"), Text([9], [5, 6], "b")])


def test_most_frequent_in_answers() -> None:
    assert frequent_tokens(TEXTS, 2, 10, []) == [3, 5]
    assert frequent_tokens(TEXTS, 3, 10, [0, 99]) == [0, 3, 5]
    assert frequent_tokens(TEXTS, 99, 10, []) == list(range(10))


def test_the_file_is_what_a_draft_takes(tmp_path: Path) -> None:
    described = write_trim([3, 5], TEXTS, tmp_path)
    assert described["covers"] == pytest.approx(5 / 6, abs=1e-4)
    assert read_token_ids(str(tmp_path / FILE), 10).tolist() == [3, 5]
