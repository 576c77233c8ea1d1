"""Makes a drafter by its kind."""

from __future__ import annotations

from typing import Final

from rayspec.draft.base import Drafter
from rayspec.draft.ngram import NgramDrafter
from rayspec.draft.random import RandomDrafter
from rayspec.errors import ConfigError

__all__ = ["DRAFT_KINDS", "build_drafter"]

DRAFT_KINDS: Final = ("model", "ngram", "random")


def build_drafter(
    kind: str,
    *,
    model: str | None = None,
    vocab_size: int | None = None,
    slots: int = 16,
    max_len: int = 2048,
    threads: int | None = None,
    device: str = "cpu",
    ngram_min: int = 2,
    ngram_max: int = 4,
) -> tuple[Drafter, int | None, str | None]:
    """Return the drafter, and the vocabulary size and tokenizer hash its targets must have.

    None stands for any: prompt lookup copies tokens and does not care what they mean.
    """
    match kind:
        case "ngram":
            return NgramDrafter(ngram_min, ngram_max), vocab_size, None
        case "random":
            if vocab_size is None:
                raise ConfigError("vocab_size", vocab_size, "kind random needs it")
            return RandomDrafter(vocab_size), vocab_size, None
        case "model":
            if model is None:
                raise ConfigError("model", model, "kind model needs a model folder")
            # Imported here: a draft without a model starts in a second, not in ten.
            from rayspec.draft.identity import model_vocab_size, tokenizer_hash
            from rayspec.draft.model import ModelDrafter, ModelDrafterSpec

            spec = ModelDrafterSpec(
                path=model, slots=slots, max_len=max_len, threads=threads, device=device
            )
            return ModelDrafter(spec), model_vocab_size(model), tokenizer_hash(model)
        case _:
            raise ConfigError("kind", kind, f"choose one of {', '.join(DRAFT_KINDS)}")
