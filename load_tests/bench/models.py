"""The models of a run: folders that are written here, or grown from a small real model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.bench.prompts import Prompts
from load_tests.bench.settings import Settings
from load_tests.shapes import SHAPES, Shape, read_shape, write_shape

__all__ = ["Model", "Models", "prepare"]

SOURCE = "smollm2"


@dataclass(frozen=True)
class Model:
    """A model folder and its sizes, bfloat16 on a GPU."""

    folder: Path
    shape: Shape
    vocab_size: int

    @classmethod
    def read(cls, folder: Path) -> Model:
        """Read the sizes from the folder's configuration."""
        return cls(folder, *read_shape(folder))

    @property
    def weight_bytes(self) -> int:
        """What the weights take."""
        return 2 * self.shape.parameters(self.vocab_size)

    @property
    def step_bytes(self) -> int:
        """What one decode step reads at least."""
        return self.shape.step_bytes(self.vocab_size)


@dataclass(frozen=True)
class Models:
    """The target, the drafts by name, and what they are asked."""

    target: Model
    drafts: Mapping[str, Model]
    prompts: Prompts


def prepare(settings: Settings) -> Models:
    """Write the folders of a run, or find them where an earlier one left them."""
    if settings.device == "cpu":
        folder = _random_model(settings.cache / "models" / "random-tiny", settings.seed)
        model = Model.read(folder)
        drafts = dict.fromkeys(settings.draft_shapes, model)
        return Models(model, drafts, Prompts(model.vocab_size, settings.input_tokens))
    if settings.real:
        return _grown(settings)
    target = Model.read(_dummy(settings, settings.target_shape))
    drafts = {name: Model.read(_dummy(settings, name)) for name in settings.draft_shapes}
    return Models(target, drafts, Prompts(target.vocab_size, settings.input_tokens))


def _dummy(settings: Settings, name: str) -> Path:
    return write_shape(name, settings.cache / "models" / f"dummy-{name}")


def _grown(settings: Settings) -> Models:
    from load_tests.growth import SHAPES as GROWTH
    from load_tests.growth import GrownModel
    from rayspec.models.fetch import resolve

    source = resolve(SOURCE)
    target = settings.cache / "models" / f"grown-{settings.target_shape}"
    GrownModel.of(source, GROWTH[settings.target_shape]).write_config(target)
    drafts = {}
    for name in settings.draft_shapes:
        folder = Path(name)
        if name in GROWTH:
            # With its weights: rayspec's draft loads the file, a co-located one grows it as well.
            folder = settings.cache / "models" / f"grown-{name}-weights"
            if not (folder / "model.safetensors").exists():
                GrownModel.of(source, GROWTH[name]).write(folder)
        drafts[name] = Model.read(folder)
    big = Model.read(target)
    texts = _texts(source, max(settings.batches) * 2, settings)
    return Models(big, drafts, Prompts(big.vocab_size, settings.input_tokens, texts))


def _texts(tokenizer_folder: Path, count: int, settings: Settings) -> list[list[int]]:
    """Return real prompts as token ids, those that are too long left out."""
    from transformers import AutoTokenizer

    from load_tests.prompts import PROMPTS, sample

    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.text}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for prompt in sample(min(count, len(PROMPTS)), seed=settings.seed)
    ]
    return [text for text in texts if len(text) <= settings.input_tokens]


def _random_model(folder: Path, seed: int) -> Path:
    """Write a tiny model with random weights that are wide enough to answer differently."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "model.safetensors").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    write_shape("tiny", folder, vocab_size=1024)
    torch.manual_seed(seed)
    config = LlamaConfig.from_pretrained(folder, initializer_range=0.2)
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    return folder


def known_shapes(real: bool) -> list[str]:
    """Return the names that `prepare` takes, for dummy or for grown models."""
    if not real:
        return list(SHAPES)
    from load_tests.growth import SHAPES as GROWTH

    return list(GROWTH)
