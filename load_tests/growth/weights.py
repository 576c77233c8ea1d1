"""The weights of the big model, one full tensor at a time, on whatever device is asked for.

Nothing is zero that would be random in a real model, since zeros can be faster. What must not
change the function is *faint*: random values of standard deviation 2^-40, which vanish in the
rounding of every sum they enter, float32 included. The two kinds of matrices:

* readers (q, k, v, gate, up, head) read normalised hidden vectors: full columns where they read a
  copy, faint ones elsewhere; rows that only added heads or neurons see are plainly random;
* writers (o, down) add to the hidden vector: full columns where a small head or neuron is, and
  each row once per copy of the hidden vector; faint elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from .layout import Layout

FAINT = 2.0**-40

Small = Callable[[str], torch.Tensor]
"""Returns a tensor of the small model by its Hugging Face name."""


class GrownWeights:
    """Iterates over the big model's tensors under their Hugging Face names, layer by layer.

    The values depend on `seed` and the kind of device only, so every tensor-parallel rank makes the
    same ones. At most two full tensors exist at a time.
    """

    def __init__(
        self,
        layout: Layout,
        small: Small,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        seed: int = 0,
    ) -> None:
        self._layout = layout
        self._get = small
        self._dtype = dtype
        self._device = torch.device(device)
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        self._random = torch.Generator(self._device).manual_seed(self._seed)
        yield "model.embed_tokens.weight", self._rows("model.embed_tokens.weight", copies=True)
        for index, layers in enumerate(self._layout.plan):
            for name, tensor in self._layer(layers):
                yield f"model.layers.{index}.{name}.weight", tensor
        yield "model.norm.weight", self._final_norm()
        if not self._layout.big.tied:
            tied = self._layout.small.tied
            head = "model.embed_tokens.weight" if tied else "lm_head.weight"
            yield "lm_head.weight", self._rows(head, copies=False)

    def _layer(self, layers: Sequence[int]) -> Iterator[tuple[str, torch.Tensor]]:
        big, layout = self._layout.big, self._layout
        slots = range(len(layers))
        neurons = [_indices(layout.neurons(slot)) for slot in slots]
        queries = [self._head_rows(layout.query_heads(slot)) for slot in slots]

        def small(name: str) -> list[torch.Tensor]:
            return [self._small(f"model.layers.{layer}.{name}.weight") for layer in layers]

        yield "input_layernorm", self._norm(small("input_layernorm"))
        scores = [tensor * layout.score_gain for tensor in small("self_attn.q_proj")]
        # Unused dimensions of a used query head are faint: its keys have random ones there.
        used = [self._whole_heads(layout.query_heads(slot)) for slot in slots]
        yield (
            "self_attn.q_proj",
            self._reader(big.heads * big.head_dim, scores, queries, faint=used),
        )
        for name in ("self_attn.k_proj", "self_attn.v_proj"):
            blocks = [
                tensor.unflatten(0, (-1, layout.small.head_dim))[
                    list(layout.kv_heads(slot).values())
                ]
                for slot, tensor in enumerate(small(name))
            ]
            rows = [self._head_rows(list(layout.kv_heads(slot))) for slot in slots]
            flat = [block.flatten(0, 1) for block in blocks]
            yield name, self._reader(big.kv_heads * big.head_dim, flat, rows)
        columns = big.heads * big.head_dim
        yield "self_attn.o_proj", self._writer(columns, small("self_attn.o_proj"), queries)
        yield "post_attention_layernorm", self._norm(small("post_attention_layernorm"))
        for name in ("mlp.gate_proj", "mlp.up_proj"):
            yield name, self._reader(big.intermediate, small(name), neurons)
        yield "mlp.down_proj", self._writer(big.intermediate, small("mlp.down_proj"), neurons)

    def _reader(
        self,
        height: int,
        blocks: Sequence[torch.Tensor],  # [n, d], one per slot
        rows: Sequence[torch.Tensor],  # [n], where each block goes
        faint: Sequence[torch.Tensor] = (),  # rows that read nothing else, if more than those
    ) -> torch.Tensor:
        layout, width = self._layout, self._layout.big.hidden
        out = self._noise(height, width, width**-0.5)
        for silent in faint or rows:
            out[silent] = self._noise(len(silent), width, FAINT)
        for slot, (block, where) in enumerate(zip(blocks, rows, strict=True)):
            rounded = block.to(self._dtype)
            out[where, layout.copy(slot)] = rounded
            second = slot + len(blocks)
            if second < len(layout.scales):
                out[where, layout.copy(second)] += (block - rounded).to(self._dtype)
        return out

    def _writer(
        self,
        width: int,
        blocks: Sequence[torch.Tensor],  # [d, n], one per slot
        columns: Sequence[torch.Tensor],  # [n], where each block goes
    ) -> torch.Tensor:
        out = self._noise(self._layout.big.hidden, width, FAINT)
        for block, where in zip(blocks, columns, strict=True):
            for copy, scale in enumerate(self._layout.scales):
                out[self._layout.copy(copy), where] = (block * scale).to(self._dtype)
        return out

    def _norm(self, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        layout = self._layout
        size, gain = layout.big.hidden, layout.norm_gain
        out = torch.full((size,), gain, dtype=torch.float32, device=self._device)
        for copy, scale in enumerate(layout.scales):
            if weights:  # each slot reads its own copy, and its second one `len(weights)` later
                weight = weights[copy % len(weights)]
                out[layout.copy(copy)] = weight * (gain / scale)
        return out.to(self._dtype)

    def _final_norm(self) -> torch.Tensor:
        # A tied head has a copy's worth of columns for every copy: it may read one only.
        out = self._norm([self._small("model.norm.weight")])
        if self._layout.big.tied:
            out[self._layout.small.hidden :] = 0
        return out

    def _rows(self, name: str, *, copies: bool) -> torch.Tensor:
        layout, small = self._layout, self._small(name)
        out = self._noise(len(small), layout.big.hidden, FAINT)
        for copy, scale in enumerate(layout.scales if copies else (1.0,)):
            out[:, layout.copy(copy)] = (small * scale).to(self._dtype)
        return out

    def _head_rows(self, heads: Sequence[int]) -> torch.Tensor:
        places = torch.tensor(self._layout.head_dims)
        return _rows_of(heads, self._layout.big.head_dim, places)

    def _whole_heads(self, heads: Sequence[int]) -> torch.Tensor:
        size = self._layout.big.head_dim
        return _rows_of(heads, size, torch.arange(size))

    def _small(self, name: str) -> torch.Tensor:
        return self._get(name).to(self._device, torch.float32)

    def _noise(self, rows: int, columns: int, std: float) -> torch.Tensor:
        out = torch.empty(rows, columns, dtype=self._dtype, device=self._device)
        return out.normal_(std=std, generator=self._random)


def _rows_of(heads: Sequence[int], size: int, places: torch.Tensor) -> torch.Tensor:
    return (torch.tensor(heads)[:, None] * size + places).flatten()


def _indices(piece: slice) -> torch.Tensor:
    return torch.arange(piece.start, piece.stop)
