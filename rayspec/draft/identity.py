"""Tells whether a draft and a target speak of the same tokens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rayspec.errors import ConfigError

__all__ = [
    "describe_difference",
    "model_hash",
    "model_max_len",
    "model_vocab_size",
    "tokenizer_hash",
]

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def tokenizer_hash(path: str | Path) -> str:
    """Return a stable hash over token ids, added tokens and merges of a model folder."""
    vocabulary, merges = _tokenizer(Path(path))
    digest = hashlib.sha256()
    for part in (sorted(vocabulary.items(), key=lambda item: (item[1], item[0])), merges):
        digest.update(json.dumps(part, ensure_ascii=True).encode())
    return digest.hexdigest()[:32]


def model_hash(path: str | Path) -> str:
    """Return a hash over the weight files of a model folder, whose every byte is read.

    The same weights cut into other files are another model to it.
    """
    files = next((found for kind in _WEIGHTS if (found := sorted(Path(path).glob(kind)))), None)
    if files is None:
        raise ConfigError("model", str(path), "has no weights: no .safetensors file")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(
                f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode()
            )
    return digest.hexdigest()[:32]


def model_vocab_size(path: str | Path) -> int:
    """Return how many token ids the model of a folder knows."""
    return _size(path, "vocab_size")


def model_max_len(path: str | Path) -> int:
    """Return the longest sequence, in tokens, that the model of a folder is made for."""
    return _size(path, "max_position_embeddings")


def _size(path: str | Path, name: str) -> int:
    config = _read_json(Path(path) / "config.json")
    size = config.get(name, config.get("text_config", {}).get(name))
    if not isinstance(size, int):
        raise ConfigError("model", str(path), f"its config.json names no {name}")
    return size


def describe_difference(target_path: str | Path, draft_path: str | Path) -> str | None:
    """Name the first difference that forbids this pair of models; None when they fit."""
    sizes = model_vocab_size(target_path), model_vocab_size(draft_path)
    if sizes[0] != sizes[1]:
        return f"vocabulary sizes differ: target {sizes[0]}, draft {sizes[1]}"
    (ours, our_merges), (theirs, their_merges) = (
        _tokenizer(Path(path)) for path in (target_path, draft_path)
    )
    for token in sorted(ours.keys() | theirs.keys()):
        if ours.get(token) != theirs.get(token):
            return f"token {token!r}: target id {ours.get(token)}, draft id {theirs.get(token)}"
    if our_merges != their_merges:
        at = next(
            (i for i, (a, b) in enumerate(zip(our_merges, their_merges, strict=False)) if a != b),
            min(len(our_merges), len(their_merges)),
        )
        return f"merge {at} differs"
    return None


def _tokenizer(path: Path) -> tuple[dict[str, int], list[list[str]]]:
    """Return token → id, added tokens included, and the merges in order."""
    file = path / "tokenizer.json"
    if not file.exists():
        return _slow_tokenizer(path), []
    data = _read_json(file)
    model = data["model"]
    vocab = model.get("vocab", {})
    if isinstance(vocab, list):  # Unigram: [[piece, score], …] in id order
        vocab = {piece: number for number, (piece, _) in enumerate(vocab)}
    vocabulary = dict(vocab)
    vocabulary.update((token["content"], token["id"]) for token in data.get("added_tokens", ()))
    merges = [
        merge.split(" ", 1) if isinstance(merge, str) else list(merge)
        for merge in model.get("merges", ())
    ]
    return vocabulary, merges


def _slow_tokenizer(path: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return {**tokenizer.get_vocab(), **tokenizer.get_added_vocab()}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("model", str(file.parent), f"cannot read {file.name}: {error}") from None
    return data
