"""Names that leave the router: of classes, of our part of a request, and in headers."""

from __future__ import annotations

import re

__all__ = ["CANDIDATE", "DRAFT_ARG", "K_ARG", "OTHER_CLASS", "header_safe", "valid_class_name"]

K_ARG = "rayspec.k"
"""Key of a request's own draft length in vLLM's `SamplingParams.extra_args`.

Flat, because `vllm_xargs`, which carries it there, refuses nested objects (vLLM 0.32.0).
"""

DRAFT_ARG = "rayspec.draft"
"""Key of the draft that a request names, beside its draft length; see `CANDIDATE`."""

CANDIDATE = "candidate"
"""Names the new version of a draft, which drafts for nobody else."""

OTHER_CLASS = "other"
"""Where statistics of classes beyond the tracked number are pooled."""

_CLASS_NAME = re.compile(r"[a-z0-9_-]{1,32}")
_MAX_HEADER_CHARS = 200
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]+")


def header_safe(text: str) -> str:
    """Return `text` as printable ASCII on one line, at most 200 characters."""
    clean = _NOT_PRINTABLE.sub("?", text[: 2 * _MAX_HEADER_CHARS]).strip()
    return clean if len(clean) <= _MAX_HEADER_CHARS else clean[: _MAX_HEADER_CHARS - 3] + "..."


def valid_class_name(name: str) -> bool:
    """Whether `name` may be used as a workload class: 1 to 32 of `a-z0-9_-`."""
    return _CLASS_NAME.fullmatch(name) is not None
