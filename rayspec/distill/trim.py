"""Which tokens a draft need propose: those that its target writes, by how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayspec.distill.texts import Texts

__all__ = ["FILE", "frequent_tokens", "write_trim"]

FILE: Final = "vocab_trim.json"


def frequent_tokens(texts: Texts, count: int, vocabulary: int, always: list[int]) -> list[int]:
    """Return the `count` token ids that answers have most often, ascending, with `always`."""
    seen = np.bincount(texts.tokens[texts.answered], minlength=vocabulary)
    order = np.argsort(-seen, kind="stable")
    kept = [token for token in dict.fromkeys(always) if 0 <= token < vocabulary]
    others = [int(token) for token in order if int(token) not in set(kept)]
    return sorted((kept + others)[:count])


def write_trim(ids: list[int], texts: Texts, folder: Path) -> dict[str, Any]:
    """Write the list that `draft.vocab_trim` takes; return how much of the answers it covers."""
    (folder / FILE).write_text(json.dumps(ids) + "\n", encoding="utf-8")
    answers = texts.tokens[texts.answered]
    covered = float(np.isin(answers, ids).mean()) if len(answers) else 0.0
    return {"file": FILE, "tokens": len(ids), "covers": round(covered, 5)}
