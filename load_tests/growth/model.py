"""A grown model as a folder: its configuration, and where its weights come from."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .layout import Layout
from .shapes import Dims, Shape
from .weights import GrownWeights

RECIPE = "growth.json"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclass(frozen=True)
class GrownModel:
    """A small model's folder and the layout of the big one."""

    source: Path
    layout: Layout

    @classmethod
    def of(cls, source: Path, shape: Shape) -> GrownModel:
        """Plan how the model in `source` grows into `shape`; ValueError if it cannot."""
        config = _read(source / "config.json")
        small = Dims.from_config(config)
        if shape.dims.head_dim != small.head_dim and _rope_type(config) != "default":
            raise ValueError("scaled rotary frequencies cannot move to another head size")
        return cls(source, Layout(small, shape.dims, shape.plan(small.layers)))

    @classmethod
    def read(cls, folder: Path, source: Path | None = None) -> GrownModel:
        """Read what `write_config` wrote; `source` overrides where the small model lies."""
        recipe = _read(folder / RECIPE)
        source = source or Path(recipe["source"])
        small = Dims.from_config(_read(source / "config.json"))
        big = Dims.from_config(_read(folder / "config.json"))
        return cls(source, Layout(small, big, tuple(map(tuple, recipe["plan"]))))

    @property
    def config(self) -> dict[str, Any]:
        """The big model's `config.json`."""
        small: dict[str, Any] = _read(self.source / "config.json")
        big = self.layout.big
        return small | {
            "hidden_size": big.hidden,
            "num_hidden_layers": big.layers,
            "num_attention_heads": big.heads,
            "num_key_value_heads": big.kv_heads,
            "head_dim": big.head_dim,
            "intermediate_size": big.intermediate,
            "tie_word_embeddings": big.tied,
            "rms_norm_eps": small["rms_norm_eps"] * self.layout.norm_gain**2,
        }

    def write_config(self, folder: Path) -> Path:
        """Write configuration, tokenizer and recipe: all that the load format `grow` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _TOKENIZER:
            if (self.source / name).exists() and not folder.samefile(self.source):
                shutil.copy(self.source / name, folder / name)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        recipe = {"source": str(self.source.resolve()), "plan": self.layout.plan}
        (folder / RECIPE).write_text(json.dumps(recipe) + "\n")
        return folder

    def write(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
        """Write an ordinary model folder, weights included; holds all of it in memory."""
        self.write_config(folder)
        weights = dict(self.weights(dtype=dtype, device="cpu"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    def weights(self, *, dtype: torch.dtype, device: torch.device | str) -> GrownWeights:
        """Return the big model's tensors; see `GrownWeights`."""
        file: Any = safe_open(self.source / "model.safetensors", framework="pt")
        return GrownWeights(self.layout, file.get_tensor, dtype=dtype, device=device)


def _rope_type(config: dict[str, Any]) -> str:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return str(rope.get("rope_type", "default"))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
