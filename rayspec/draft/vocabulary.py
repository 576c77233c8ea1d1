"""Which tokens may be drafted: a list of ids in a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from rayspec.errors import ConfigError

__all__ = ["read_token_ids"]


def read_token_ids(path: str, vocab_size: int) -> torch.Tensor:
    """Return the token ids of a .json, .npy or .pt file, [trimmed] int32 on the CPU.

    ConfigError when the file is unreadable or the ids are not distinct ids of the vocabulary.
    """
    try:
        match Path(path).suffix:
            case ".json":
                raw = torch.tensor(json.loads(Path(path).read_text(encoding="utf-8")))
            case ".npy":
                raw = torch.from_numpy(np.load(path, allow_pickle=False))
            case ".pt":
                raw = torch.as_tensor(torch.load(path, weights_only=True))
            case _:
                raise ConfigError("vocab_trim", path, "takes a .json, .npy or .pt file of ids")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError("vocab_trim", path, f"cannot be read: {error}") from error
    if raw.ndim != 1 or not len(raw) or raw.is_floating_point() or raw.is_complex():
        raise ConfigError("vocab_trim", path, "must be one list of token ids")
    if int(raw.min()) < 0 or int(raw.max()) >= vocab_size:
        raise ConfigError("vocab_trim", path, f"has ids outside of 0..{vocab_size - 1}")
    if len(raw.unique()) != len(raw):
        raise ConfigError("vocab_trim", path, "has an id twice")
    return raw.to(torch.int32)
