"""The weights of the big model, one full tensor at a time, on whatever device is asked for.

Nothing is zero that would be random in a real model, since zeros can be faster. What must not
change the function is *faint*: random values of standard deviation 2^-40, which vanish in the
rounding of every sum they enter, float32 included. The two kinds of matrices:

* readers (q, k, v, gate, up) read normalised hidden vectors: the rows of small heads and neurons
  are faint but for the columns of the copy that they read; rows of added ones are plainly random;
* writers (o, down) add to the hidden vector: columns of small heads and neurons have their weights
  once per copy, and all else is faint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from .layout import Layout

FAINT = 2.0**-40
EMBEDDING = "model.embed_tokens.weight"

Small = Callable[[str], torch.Tensor]
"""Returns a tensor of the small model by its Hugging Face name."""


class GrownWeights:
    """Iterates over the big model's tensors under their Hugging Face names, layer by layer.

    The random values are the same every time on one kind of device, and so on every tensor-parallel
    rank. At most two full tensors exist at a time.
    """

    def __init__(
        self,
        layout: Layout,
        small: Small,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self._layout = layout
        self._get = small
        self._dtype = dtype
        self._device = torch.device(device)

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        self._random = torch.Generator(self._device).manual_seed(0)
        yield EMBEDDING, self._rows(EMBEDDING, copies=self._layout.copies)
        for index, layers in enumerate(self._layout.plan):
            for name, tensor in self._layer(layers):
                yield f"model.layers.{index}.{name}.weight", tensor
        yield "model.norm.weight", self._final_norm()
        if not self._layout.big.tied:
            tied = self._layout.small.tied
            head = EMBEDDING if tied else "lm_head.weight"
            yield "lm_head.weight", self._rows(head, copies=1)

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
        rows = [self._head_rows(list(layout.kv_heads(slot))) for slot in slots]
        for name in ("self_attn.k_proj", "self_attn.v_proj"):
            blocks = [self._kv_blocks(slot, tensor) for slot, tensor in enumerate(small(name))]
            yield name, self._reader(big.kv_heads * big.head_dim, blocks, rows)
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
            out[where, layout.copy(slot)] = block.to(self._dtype)
        return out

    def _writer(
        self,
        width: int,
        blocks: Sequence[torch.Tensor],  # [d, n], one per slot
        columns: Sequence[torch.Tensor],  # [n], where each block goes
    ) -> torch.Tensor:
        out = self._noise(self._layout.big.hidden, width, FAINT)
        for block, where in zip(blocks, columns, strict=True):
            for copy in range(self._layout.copies):
                out[self._layout.copy(copy), where] = block.to(self._dtype)
        return out

    def _norm(self, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """Each layer of a group has the weights of its copy; there is no other for the padding."""
        layout = self._layout
        out = torch.ones(layout.big.hidden, dtype=torch.float32, device=self._device)
        for copy in range(layout.copies):
            if weights:
                out[layout.copy(copy)] = weights[copy % len(weights)]
        return (out * layout.norm_gain).to(self._dtype)

    def _final_norm(self) -> torch.Tensor:
        out = self._norm([self._small("model.norm.weight")])
        for copy in range(1, self._layout.copies):  # a tied head has columns for every copy
            out[self._layout.copy(copy)] = 0
        return out

    def _rows(self, name: str, *, copies: int) -> torch.Tensor:
        small = self._small(name)
        out = self._noise(len(small), self._layout.big.hidden, FAINT)
        for copy in range(copies):
            out[:, self._layout.copy(copy)] = small.to(self._dtype)
        return out

    def _kv_blocks(self, slot: int, small: torch.Tensor) -> torch.Tensor:
        """Return the rows of the small KV heads in the order in which the big ones hold them."""
        heads = small.unflatten(0, (self._layout.small.kv_heads, -1))
        return heads[list(self._layout.kv_heads(slot).values())].flatten(0, 1)

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
