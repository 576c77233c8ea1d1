"""Makes a drafter by its kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Literal

from rayspec.draft.base import DeviceDrafter, Drafter
from rayspec.draft.ngram import NgramDrafter
from rayspec.draft.random import RandomDrafter
from rayspec.errors import ConfigError

__all__ = ["DRAFT_ENGINES", "DRAFT_KINDS", "build_drafter"]

DRAFT_KINDS: Final = ("model", "ngram", "random")
DRAFT_ENGINES: Final = ("auto", "vllm", "transformers")


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
    engine: str = "auto",
    quantization: Literal["none", "fp8"] = "none",
    vocab_trim: str | None = None,
    load_format: str = "auto",
    fused: bool | None = None,
    kv_gib: float | None = None,
    sampling: str = "greedy",
    top_m: int = 32,
    targets: int = 4,
    k_tiers: Sequence[int] | None = None,
) -> tuple[Drafter | DeviceDrafter, int | None, str | None]:
    """Return the drafter, and the vocabulary size and tokenizer hash its targets must have.

    None stands for any: prompt lookup copies tokens and does not care what they mean. The engine
    `auto` is vllm, which drafts in rounds on a device, with CUDA and transformers without; what
    follows `vocab_trim` is for vllm alone, and so is `quantization`: it serves up to `targets`
    targets, and has a graph for each of `k_tiers`, None for any draft length.
    """
    match kind:
        case "ngram":
            return NgramDrafter(ngram_min, ngram_max), vocab_size, None
        case "random":
            if vocab_size is None:
                raise ConfigError("vocab_size", vocab_size, "kind random needs it")
            return RandomDrafter(vocab_size), vocab_size, None
        case "model":
            pass
        case _:
            raise ConfigError("kind", kind, f"choose one of {', '.join(DRAFT_KINDS)}")
    if model is None:
        raise ConfigError("model", model, "kind model needs a model folder")
    # Imported here: a draft without a model starts in a second, not in ten.
    from rayspec.draft.identity import model_vocab_size, tokenizer_hash

    drafter: Drafter | DeviceDrafter
    if _takes_rounds(engine, device):
        drafter = _rounds(
            model,
            slots=slots,
            max_len=max_len,
            device=device,
            top_m=_top(sampling, top_m),
            kv_gib=kv_gib,
            quantization=quantization,
            vocab_trim=vocab_trim,
            load_format=load_format,
            fused=fused,
            targets=targets,
            k_tiers=None if k_tiers is None else tuple(k_tiers),
        )
    else:
        for name, value, plain in (
            ("quantization", quantization, "none"),
            ("load_format", load_format, "auto"),
            ("sampling", sampling, "greedy"),
        ):
            if value != plain:
                raise ConfigError(name, value, "needs the engine vllm, on a CUDA device")
        from rayspec.draft.model import ModelDrafter, ModelDrafterSpec

        drafter = ModelDrafter(
            ModelDrafterSpec(
                path=model,
                slots=slots,
                max_len=max_len,
                threads=threads,
                device=device,
                vocab_trim=vocab_trim,
            )
        )
    return drafter, model_vocab_size(model), tokenizer_hash(model)


def _takes_rounds(engine: str, device: str) -> bool:
    if engine not in DRAFT_ENGINES:
        raise ConfigError("engine", engine, f"choose one of {', '.join(DRAFT_ENGINES)}")
    on_cuda = device.startswith("cuda")
    if engine == "vllm" and not on_cuda:
        raise ConfigError("engine", engine, f"needs a CUDA device, not {device}")
    return on_cuda and engine != "transformers"


def _top(sampling: str, top_m: int) -> int:
    if sampling not in ("greedy", "sparse"):
        raise ConfigError("sampling", sampling, "choose greedy or sparse")
    return top_m if sampling == "sparse" else 0


def _rounds(
    model: str,
    *,
    slots: int,
    max_len: int,
    device: str,
    top_m: int,
    kv_gib: float | None,
    targets: int,
    k_tiers: tuple[int, ...] | None,
    **choice: Any,
) -> DeviceDrafter:
    from rayspec.draft.identity import model_max_len
    from rayspec.draft.rounds.drafter import RoundsDrafter
    from rayspec.draft.rounds.models import ModelChoice, load_draft_model
    from rayspec.draft.rounds.spec import RoundsSpec

    longest = min(max_len, model_max_len(model))
    spec = RoundsSpec(
        rows=slots,
        max_len=longest,
        top_m=top_m,
        kv_gib=kv_gib,
        # One that comes back may do so before its end is noticed.
        targets=2 * targets,
        k_tiers=k_tiers,
    )
    chosen = ModelChoice(path=model, device=device, max_len=longest, max_rows=slots, **choice)
    return RoundsDrafter(partial(load_draft_model, chosen), spec)
