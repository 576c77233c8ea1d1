"""Weights in the layouts of the kernels, from a Hugging Face folder or any source of tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open

from rayspec.draft.fused.shape import FusedShape
from rayspec.errors import ModelError

__all__ = ["Layer", "Matrix", "Weights", "build_weights", "dummy_tensors", "folder_tensors"]

_FP8: Final = torch.float8_e4m3fn
_FP8_MAX: Final = torch.finfo(_FP8).max

# Looks a tensor up by its name in a transformers checkpoint.
Find = Callable[[str], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight [outputs, inputs], or its fp8 form with a float32 `scale` [outputs]."""

    data: torch.Tensor
    scale: torch.Tensor | None

    @property
    def bytes(self) -> int:
        """Bytes that one product reads."""
        return int(self.data.nbytes) + (0 if self.scale is None else int(self.scale.nbytes))

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight without scales; itself where there are none."""
        if self.scale is None:
            return self.data
        return (self.data.to(torch.float32) * self.scale[:, None]).to(dtype)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. `gate_up` has gate and up rows in turn, so that one program gets both."""

    qkv: Matrix  # [(heads + 2 kv_heads) head_dim, hidden]
    qkv_bias: torch.Tensor | None
    q_gain: torch.Tensor | None  # [head_dim]
    k_gain: torch.Tensor | None
    out: Matrix  # [hidden, heads head_dim]
    gate_up: Matrix  # [2 intermediate, hidden]
    down: Matrix  # [hidden, intermediate]
    attention_gain: torch.Tensor  # [hidden]
    mlp_gain: torch.Tensor  # [hidden]

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Everything large."""
        return self.qkv, self.out, self.gate_up, self.down


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model; `head` may cover fewer tokens than `embedding`."""

    embedding: torch.Tensor  # [vocab, hidden]
    layers: tuple[Layer, ...]
    gain: torch.Tensor  # [hidden]
    head: Matrix  # [vocab or trimmed, hidden]

    @property
    def step_bytes(self) -> int:
        """Weight bytes that one decode step reads."""
        matrices = [matrix for layer in self.layers for matrix in layer.matrices]
        return sum(matrix.bytes for matrix in (*matrices, self.head))


def build_weights(
    shape: FusedShape,
    find: Find,
    *,
    device: torch.device,
    dtype: torch.dtype,
    token_ids: torch.Tensor | None = None,
    fp8: bool = False,
) -> Weights:
    """Return the weights that `find` yields by their transformers names, in `dtype` or fp8.

    With `token_ids` [n] the head has these rows only, in this order.
    """

    def get(name: str) -> torch.Tensor:
        return find(name).to(device=device, dtype=dtype).contiguous()

    def matrix(*names: str) -> Matrix:
        return _matrix(torch.cat([get(name) for name in names]), fp8)

    def layer(index: int) -> Layer:
        at = f"model.layers.{index}."
        qkv = [f"{at}self_attn.{name}_proj" for name in "qkv"]
        bias = torch.cat([get(f"{name}.bias") for name in qkv]) if shape.qkv_bias else None
        pair = [get(f"{at}mlp.{name}_proj.weight") for name in ("gate", "up")]
        return Layer(
            qkv=matrix(*(f"{name}.weight" for name in qkv)),
            qkv_bias=bias,
            q_gain=get(f"{at}self_attn.q_norm.weight") if shape.qk_norm else None,
            k_gain=get(f"{at}self_attn.k_norm.weight") if shape.qk_norm else None,
            out=matrix(f"{at}self_attn.o_proj.weight"),
            gate_up=_matrix(torch.stack(pair, dim=1).flatten(0, 1), fp8),
            down=matrix(f"{at}mlp.down_proj.weight"),
            attention_gain=get(f"{at}input_layernorm.weight"),
            mlp_gain=get(f"{at}post_attention_layernorm.weight"),
        )

    embedding = get("model.embed_tokens.weight")
    head = embedding if shape.tied else get("lm_head.weight")
    if token_ids is not None:
        head = head.index_select(0, token_ids.to(device=device, dtype=torch.int64))
    layers = tuple(layer(index) for index in range(shape.layers))
    return Weights(embedding, layers, get("model.norm.weight"), _matrix(head, fp8))


def _matrix(weight: torch.Tensor, fp8: bool) -> Matrix:
    if not fp8:
        return Matrix(weight.contiguous(), None)
    scale = (weight.abs().amax(dim=1).to(torch.float32) / _FP8_MAX).clamp_min(1e-12)
    data = (weight.to(torch.float32) / scale[:, None]).clamp(-_FP8_MAX, _FP8_MAX)
    return Matrix(data.to(_FP8).contiguous(), scale)


def folder_tensors(folder: str | Path) -> Find:
    """Return a look-up in the safetensors of a model folder; ModelError for what is missing."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    else:
        single = folder / "model.safetensors"
        if not single.exists():
            raise ModelError(f"{folder} holds no safetensors")
        with safe_open(single, framework="pt") as tensors:
            files = dict.fromkeys(tensors.keys(), single.name)

    def find(name: str) -> torch.Tensor:
        if name not in files:
            raise ModelError(f"{folder}: {name} is missing")
        with safe_open(folder / files[name], framework="pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name)
        return tensor

    return find


def stream_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> Find:
    """Return a look-up in named tensors, which are held until the last look-up is gone."""
    held = dict(tensors)

    def find(name: str) -> torch.Tensor:
        if name not in held:
            raise ModelError(f"the weights have no {name}")
        return held[name]

    return find


def dummy_tensors(
    shape: FusedShape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield random weights under their transformers names: the cost of a model, not its mind.

    On the device meta there is nothing to draw, which is enough to compile for.
    """
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)

    def draw(*size: int) -> torch.Tensor:
        out = torch.empty(size, device=device, dtype=dtype)
        return out.normal_(0.0, 0.02, generator=generator)

    def gain(size: int) -> torch.Tensor:
        return draw(size) + 1.0

    yield "model.embed_tokens.weight", draw(shape.vocab, shape.hidden)
    yield "model.norm.weight", gain(shape.hidden)
    if not shape.tied:
        yield "lm_head.weight", draw(shape.vocab, shape.hidden)
    sizes = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    for index in range(shape.layers):
        at = f"model.layers.{index}."
        for name, heads in sizes.items():
            yield f"{at}self_attn.{name}_proj.weight", draw(heads * shape.head_dim, shape.hidden)
            if shape.qkv_bias:
                yield f"{at}self_attn.{name}_proj.bias", draw(heads * shape.head_dim)
            if shape.qk_norm and name != "v":
                yield f"{at}self_attn.{name}_norm.weight", gain(shape.head_dim)
        yield f"{at}self_attn.o_proj.weight", draw(shape.hidden, shape.attended)
        for name in ("gate", "up"):
            yield f"{at}mlp.{name}_proj.weight", draw(shape.intermediate, shape.hidden)
        yield f"{at}mlp.down_proj.weight", draw(shape.hidden, shape.intermediate)
        yield f"{at}input_layernorm.weight", gain(shape.hidden)
        yield f"{at}post_attention_layernorm.weight", gain(shape.hidden)
