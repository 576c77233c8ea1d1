from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayspec.draft.identity import describe_difference, model_vocab_size, tokenizer_hash
from rayspec.errors import ConfigError

VOCAB = {"a": 0, "b": 1, "ab": 2}


def folder(
    path: Path, *, vocab: Any = VOCAB, merges: Any = ("a b",), size: int = 4, added: str = "<s>"
) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"vocab_size": size}))
    tokenizer = {
        "added_tokens": [{"id": 3, "content": added}],
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


def test_the_same_tokens_hash_the_same_however_they_are_written(tmp_path: Path) -> None:
    one = folder(tmp_path / "one")
    other = folder(tmp_path / "two", vocab=dict(reversed(list(VOCAB.items()))), merges=[["a", "b"]])
    assert tokenizer_hash(one) == tokenizer_hash(str(other))
    assert len(tokenizer_hash(one)) == 32
    assert describe_difference(one, other) is None


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"size": 8}, "vocabulary sizes differ: target 4, draft 8"),
        ({"vocab": {"a": 1, "b": 0, "ab": 2}}, "token 'a': target id 0, draft id 1"),
        ({"vocab": {"a": 0, "b": 1}}, "token 'ab': target id 2, draft id None"),
        ({"added": "<t>"}, "token '<s>': target id 3, draft id None"),
        ({"merges": []}, "merge 0 differs"),
        ({"merges": ["a b", "b a"]}, "merge 1 differs"),
    ],
)
def test_differences_are_named(tmp_path: Path, change: dict[str, Any], difference: str) -> None:
    target = folder(tmp_path / "target")
    draft = folder(tmp_path / "draft", **change)
    assert describe_difference(target, draft) == difference
    assert (tokenizer_hash(target) == tokenizer_hash(draft)) == ("size" in change)


def test_unigram_vocabularies(tmp_path: Path) -> None:
    pieces = [["a", -1.0], ["b", -2.0]]
    one, other = folder(tmp_path / "one", vocab=pieces), folder(tmp_path / "b", vocab=pieces[::-1])
    assert tokenizer_hash(one) != tokenizer_hash(other)


def test_vocabulary_sizes(tmp_path: Path) -> None:
    assert model_vocab_size(folder(tmp_path / "plain", size=7)) == 7
    nested = folder(tmp_path / "nested")
    (nested / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 9}}))
    assert model_vocab_size(nested) == 9


@pytest.mark.parametrize("text", ["{}", "no json"])
def test_a_folder_without_a_vocabulary_size_is_named(tmp_path: Path, text: str) -> None:
    path = folder(tmp_path / "model")
    (path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        model_vocab_size(path)
