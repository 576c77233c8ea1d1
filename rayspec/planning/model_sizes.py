"""Models by folder, Hugging Face id, alias or number of parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any, Final

from rayspec.errors import ConfigError
from rayspec.planning.memory import ModelShape, Numbers

__all__ = ["Model", "find_model", "of_size"]

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([mb])", re.IGNORECASE)
# Published dense models with grouped heads; other sizes take the nearest one's width.
_FAMILIES: Final = (
    ModelShape(576, 1536, 30, 9, 3, 64, 49152, tied=True),  # SmolLM2 135M
    ModelShape(1024, 3072, 28, 16, 8, 128, 151936, tied=True),  # Qwen3 0.6B
    ModelShape(2048, 8192, 16, 32, 8, 64, 128256, tied=True),  # Llama 3.2 1B
    ModelShape(3072, 8192, 28, 24, 8, 128, 128256, tied=True),  # Llama 3.2 3B
    ModelShape(4096, 14336, 32, 32, 8, 128, 128256),  # Llama 3.1 8B
    ModelShape(5120, 27648, 64, 40, 8, 128, 152064),  # Qwen2.5 32B
    ModelShape(8192, 28672, 80, 64, 8, 128, 128256),  # Llama 3.1 70B
    ModelShape(16384, 53248, 126, 128, 8, 128, 128256),  # Llama 3.1 405B
)


@dataclass(frozen=True, slots=True)
class Model:
    """A model as planning knows it; `assumed` if its shape follows from its size alone."""

    name: str
    shape: ModelShape
    numbers: Numbers
    assumed: bool


def find_model(ref: str, dtype: str = "auto", kv: str = "auto") -> Model:
    """Read what `ref` names: `70b` or `135m`, a folder or config.json, an alias, or a hub id."""
    size = _SIZE.fullmatch(ref.strip())
    if size:
        count = float(size[1]) * (1e9 if size[2].lower() == "b" else 1e6)
        return Model(ref, of_size(count), Numbers.of({}, dtype, kv), True)
    shape, config = _read(ref)
    return Model(ref, shape, Numbers.of(config, dtype, kv), False)


def of_size(parameters: float, vocabulary: int | None = None) -> ModelShape:
    """Return a Llama-like shape of so many parameters: the nearest published one's, made deeper.

    With `vocabulary` its embeddings have that size, as those of a draft that fits to a target.
    """
    if parameters < 1e6:
        raise ConfigError("model", parameters, "is not a number of parameters, as 8b or 135m")
    shapes = [replace(shape, vocabulary=vocabulary or shape.vocabulary) for shape in _FAMILIES]
    nearest = min(shapes, key=lambda shape: abs(log(shape.parameters / parameters)))
    per_layer = nearest.layer_weights / nearest.layers
    layers = max(round((parameters - nearest.embedding) / per_layer), 1)
    return replace(nearest, layers=layers)


def _read(ref: str) -> tuple[ModelShape, Mapping[str, Any]]:
    path = Path(ref).expanduser()
    if path.exists():
        return ModelShape.read(path)
    from rayspec.models import cache
    from rayspec.models.fetch import ALIASES

    if ref in ALIASES:
        folder = cache.lookup(ref)
        if folder is None:
            raise ConfigError("model", ref, f"is not here yet; run `rayspec models fetch {ref}`")
        return ModelShape.read(folder)
    if ref.count("/") != 1 or ref.startswith((".", "/")):
        raise ConfigError("model", ref, "is no folder, hub id, alias, or size such as 8b or 135m")
    return _from_hub(ref)


def _from_hub(ref: str) -> tuple[ModelShape, Mapping[str, Any]]:
    """Fetch the configuration alone."""
    from huggingface_hub import hf_hub_download

    try:
        return ModelShape.read(Path(hf_hub_download(ref, "config.json")))
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError("model", ref, f"has no configuration to be had: {first}") from None
