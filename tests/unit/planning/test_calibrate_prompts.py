"""The prompts of a calibration: built-in ones, files of a user, and made ones of any length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.errors import ConfigError
from rayspec.ingress.classify import BUILTIN_CLASSES
from rayspec.planning.calibrate_prompts import TokenPool, built_in, read_prompts


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_every_built_in_class_has_prompts() -> None:
    prompts = built_in()
    names = [prompt.workload_class for prompt in prompts]
    assert set(names) == set(BUILTIN_CLASSES)
    assert all(names.count(name) >= 4 for name in names)
    assert len({json.dumps(prompt.body) for prompt in prompts}) == len(prompts)


def test_rows_and_bodies(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    named = {"messages": messages, "metadata": {"workload_class": "support"}, "temperature": 0.7}
    file = write(
        tmp_path / "prompts.jsonl",
        {"class": "code", "prompt": "def f():"},
        "",
        named,
        {"prompt": "Once", "max_tokens": 7, "stream": True, "model": "theirs", "n": 3},
        {"prompt": "Twice"},
    )
    one, two, three, four = read_prompts(file)
    assert one.workload_class == "code"
    assert one.body["messages"] == [{"role": "user", "content": "def f():"}]
    assert (two.workload_class, two.body) == ("support", named)
    # A completion stays one, without what the calibration decides.
    assert (three.workload_class, three.body) == ("", {"prompt": "Once", "max_tokens": 7})
    assert four.body["messages"][0]["content"] == "Twice"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "prompts.jsonl:1': is not JSON"),
        ({"text": "Hi"}, "needs a `prompt` or `messages`"),
        ([1], "needs a `prompt` or `messages`"),
        ({"class": "My Class", "prompt": "Hi"}, "is no name of a class"),
        ("", "holds no prompts"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, row: Any, reason: str) -> None:
    file = write(tmp_path / "prompts.jsonl", row)
    with pytest.raises(ConfigError) as caught:
        read_prompts(file)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "nowhere.jsonl")


@given(
    st.lists(st.lists(st.integers(3, 50_000), min_size=1, max_size=40), min_size=1, max_size=5),
    st.integers(1, 200),
)
def test_made_prompts_have_the_length_that_was_asked_for(
    prompts: list[list[int]], length: int
) -> None:
    pool = TokenPool(prompts)
    known = {token for prompt in prompts for token in prompt}
    for made in (*pool.take(3, length), *pool.repeat(3, length)):
        assert len(made) == length
        assert known.issuperset(made)


def test_made_prompts_end_like_real_ones_and_repeated_ones_repeat() -> None:
    pool = TokenPool([[1, 2, 3], [7, 8, 9]])
    assert [made[-3:] for made in pool.take(2, 9)] == [[1, 2, 3], [7, 8, 9]]
    (made,) = pool.repeat(1, 48)
    assert made[:12] == made[12:24] == made[24:36]
