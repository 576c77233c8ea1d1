from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayspec.config import DraftSpec
from rayspec.draft.deployment import start_server
from rayspec.errors import ConfigError


def model(folder: Path, tokens: list[str], vocab_size: int | None = None) -> str:
    folder.mkdir()
    config = {"vocab_size": vocab_size or len(tokens), "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return str(folder)


def spec(target: str, draft: str | None = None) -> DraftSpec:
    return DraftSpec(
        kind="ngram" if draft is None else "model",
        target_model=target,
        k_max=4,
        k_tiers=(0, 4),
        targets=1,
        target_slots=2,
        slots=2,
        max_len=None,
        device="cpu",
        num_gpus=0,
        num_cpus=0,
        model=draft,
    )


def test_a_draft_with_another_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    target = model(tmp_path / "target", ["a", "b", "c"])
    draft = model(tmp_path / "draft", ["a", "c", "b"])

    with pytest.raises(ConfigError) as caught:
        start_server(spec(target, draft))

    line = str(caught.value)
    assert line.startswith("draft.model = ")
    assert "token 'b': target id 1, draft id 2" in line
    assert "\n" not in line


def test_a_draft_with_another_vocabulary_is_refused_by_size(tmp_path: Path) -> None:
    target = model(tmp_path / "target", ["a", "b", "c"])
    draft = model(tmp_path / "draft", ["a", "b", "c"], vocab_size=8)

    with pytest.raises(ConfigError, match="vocabulary sizes differ: target 3, draft 8"):
        start_server(spec(target, draft))


def test_prompt_lookup_needs_nothing_but_the_target(tmp_path: Path) -> None:
    server = start_server(spec(model(tmp_path / "target", ["a", "b", "c"])))
    try:
        assert server.healthy()
        assert server.spec.vocab_size == 3
    finally:
        server.close()
