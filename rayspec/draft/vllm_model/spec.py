"""Which model drafts and how vLLM is to hold it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from rayspec.errors import ConfigError, ModelError

__all__ = ["FAMILIES", "VllmModelSpec", "architecture"]

# The classes whose logits are tested against transformers'; SmolLM2 is a Llama.
FAMILIES: Final = frozenset(
    f"{family}ForCausalLM"
    for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmModelSpec:
    """A model folder and how to hold it.

    `dtype` is a torch name or auto (float32 on a CPU, else bfloat16). `load_format` is one of
    vLLM's, registered ones included. `attention` names a backend of vLLM; None lets vLLM choose on
    a CPU and means FLASH_ATTN on CUDA. `vocab_trim` is a file of the token ids that may be drafted.
    """

    path: str
    device: str = "cpu"
    dtype: str = "auto"
    quantization: Literal["none", "fp8"] = "none"
    load_format: str = "auto"
    attention: str | None = None
    block_size: int | None = None
    max_len: int | None = None
    max_rows: int = 256
    vocab_trim: str | None = None

    def check(self) -> None:
        """Raise ConfigError or ModelError when the model cannot be held so."""
        found = architecture(self.path)
        if found not in FAMILIES:
            raise ModelError(
                f"{self.path}: {found} cannot draft through vLLM; supported are "
                + ", ".join(sorted(FAMILIES))
            )
        if self.quantization == "fp8" and self.on_cpu:
            raise ConfigError("quantization", "fp8", "needs a CUDA device; take none on a CPU")

    @property
    def on_cpu(self) -> bool:
        """Whether the model runs without an accelerator."""
        return self.device == "cpu"

    @property
    def chosen_dtype(self) -> str:
        """The dtype with auto resolved."""
        if self.dtype != "auto":
            return self.dtype
        return "float32" if self.on_cpu else "bfloat16"

    @property
    def chosen_attention(self) -> str | None:
        """The attention backend with the default resolved.

        FlashAttention 3 splits a row's context over the whole device also where a row has two new
        tokens, which Triton's kernel does for single ones only.
        """
        if self.attention is not None or self.on_cpu:
            return self.attention
        return "FLASH_ATTN"

    @property
    def chosen_block_size(self) -> int:
        """Tokens of one KV block; vLLM's CPU kernels want multiples of 32."""
        return self.block_size or (32 if self.on_cpu else 16)


def architecture(path: str) -> str:
    """Return the class name in a model folder's config.json; ModelError when there is none."""
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        return str(config["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(f"{path} is not a model folder: {error!r}") from error
