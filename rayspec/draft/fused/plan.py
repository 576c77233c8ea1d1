"""Static buffers for one batch shape, and the launches of a decode step over them."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

import torch
import triton

from rayspec.draft.fused.attention import attend
from rayspec.draft.fused.launch import Options, Product, Projection
from rayspec.draft.fused.prefill import Cache
from rayspec.draft.fused.projection import embed
from rayspec.draft.fused.shape import FusedShape
from rayspec.draft.fused.tiles import Role, Tile, padded_rows
from rayspec.draft.fused.weights import Layer, Matrix, Weights
from rayspec.draft.fused.wide import embed_wide

__all__ = ["FusedPlan", "PlanModel"]

# Tokens of context per turn of the attention kernel, and its most splits of one row's context.
_TURN: Final = 64
_MOST_SPLITS: Final = 32

Launch: TypeAlias = Product | Projection


class PlanModel(Protocol):
    """What a plan needs of its model."""

    shape: FusedShape
    weights: Weights
    device: torch.device
    dtype: torch.dtype
    options: Options
    processors: int
    block_size: int
    max_blocks: int
    cache: Cache
    cos: torch.Tensor
    sin: torch.Tensor

    def tile(self, role: Role, outputs: int, inputs: int, rows: int) -> Tile:
        """Return how a matrix is cut for so many (padded) rows."""


class FusedPlan:
    """The `DecodePlan` of the fused path: 5 launches a layer and two more.

    For one or two tokens, sums over split inputs are atomic, so that logits can differ in their
    last bits between runs. More tokens take the kernels of `wide`.
    """

    def __init__(self, model: PlanModel, rows: int, width: int) -> None:
        if width not in (1, 2):
            raise ValueError(f"width {width} is neither 1 nor 2")
        self.rows, self.width = rows, width
        self._model = model
        shape, device = model.shape, model.device
        count = rows * width

        def zeros(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(size, device=device, dtype=dtype)

        self.input_ids = zeros(count, dtype=torch.int32)
        self.positions = zeros(count, dtype=torch.int64)
        self.seq_lens = torch.full((rows,), width, device=device, dtype=torch.int32)
        self.block_table = zeros(rows, model.max_blocks, dtype=torch.int32)
        self.slot_mapping = zeros(count, dtype=torch.int64)

        pairs = rows * shape.kv_heads
        self._queries = max(16, triton.next_power_of_2(shape.group * width))
        self._splits = min(_MOST_SPLITS, max(1, triton.cdiv(2 * model.processors, pairs)))
        self._partial = zeros(pairs, self._splits, self._queries, shape.head_dim)
        self._scores = zeros(pairs, self._splits, 2, self._queries)
        self._arrived = zeros(pairs, dtype=torch.int32)

        layers, first = model.weights.layers, model.weights.layers[0]
        self._wide = padded_rows(count) >= 16
        self._residual = zeros(count, shape.hidden)
        self._parts = self._tile("qkv", first.qkv, count).split
        self._qkv = zeros(self._parts, count, shape.qkv)
        self._attended = zeros(count, shape.attended, dtype=model.dtype)
        self._active = zeros(count, shape.intermediate, dtype=model.dtype)
        self._logits = zeros(rows, model.weights.head.data.shape[0])
        if self._wide:
            self._scaled = zeros(count, shape.hidden, dtype=model.dtype)
            tiles = [self._tile("out", first.out, count), self._tile("down", first.down, count)]
            parts = [triton.cdiv(shape.hidden, tile.bn) for tile in tiles]
            self._squares, self._squares_out = zeros(parts[1], count), zeros(parts[0], count)
            self._sum = zeros(max(tile.split for tile in tiles), count, shape.hidden)
            self._left = zeros(max(parts) * triton.cdiv(count, 16), dtype=torch.int32)
            gains = [layer.attention_gain for layer in layers[1:]]
            after = [*gains, model.weights.gain]
            self.layers: list[tuple[Launch, Launch, Launch, Launch]] = [
                self._wide_layer(*pair) for pair in zip(layers, after, strict=True)
            ]
        else:
            self._squares = zeros(self._parts, count)
            self.layers = [self._layer(layer) for layer in layers]
        head, gain = model.weights.head, model.weights.gain
        self.head: Launch = (
            self._product("head", head, self._scaled, self._logits, self._squares)
            if self._wide and padded_rows(rows) >= 16
            else self._projection("head", head, self._residual, gain, self._logits)
        )

    def run(self) -> torch.Tensor:
        """Write the tokens' KV and return each row's newest logits, [rows, head's tokens] float32.

        Launches kernels on the current stream and nothing else; the result lasts until this plan
        runs again.
        """
        self.embed()
        for index, (qkv, *rest) in enumerate(self.layers):
            qkv.run()
            self.attend(index)
            for projection in rest:
                projection.run()
        self.head.run()
        return self._logits

    def embed(self) -> None:
        """Start the residual stream with the tokens' embeddings."""
        hidden, weights = self._model.shape.hidden, self._model.weights
        count = self.rows * self.width
        if self._wide:
            embed_wide[(count,)](
                self.input_ids,
                weights.embedding,
                weights.layers[0].attention_gain,
                self._residual,
                self._scaled,
                self._squares,
                count,
                HIDDEN=hidden,
                BLOCK=triton.next_power_of_2(hidden),
                PARTS=self._squares.shape[0],
                SPREAD=triton.next_power_of_2(self._squares.shape[0]),
            )
            return
        embed[(count,)](
            self.input_ids,
            weights.embedding,
            self._residual,
            HIDDEN=hidden,
            BLOCK=triton.next_power_of_2(hidden),
        )

    def attend(self, index: int) -> None:
        """Attend in layer `index`, from what its first projection left."""
        model, shape = self._model, self._model.shape
        layer = model.weights.layers[index]
        keys, values = model.cache[index]
        none = self._qkv
        attend[(self.rows, shape.kv_heads, self._splits)](
            self._qkv,
            self._squares,
            none if layer.qkv_bias is None else layer.qkv_bias,
            none if layer.q_gain is None else layer.q_gain,
            none if layer.k_gain is None else layer.k_gain,
            model.cos,
            model.sin,
            keys,
            values,
            self.positions,
            self.seq_lens,
            self.block_table,
            self.block_table.stride(0),
            self.slot_mapping,
            self._partial,
            self._scores,
            self._arrived,
            self._attended,
            self.rows * self.width,
            HIDDEN=shape.hidden,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            D=shape.head_dim,
            STRIDES=keys.stride()[:3],
            WIDTH=self.width,
            BQ=self._queries,
            BT=_TURN,
            BLOCK=model.block_size,
            SPLITS=self._splits,
            PARTS=self._parts,
            SQUARES=self._squares.shape[0],
            SPREAD=triton.next_power_of_2(self._squares.shape[0]),
            BIAS=shape.qkv_bias,
            NORM=shape.qk_norm,
            EPS=shape.eps,
            SCALE=shape.head_dim**-0.5,
            PDL=model.options.pdl,
            FRESH=".cg" if model.options.hints else "",
            num_warps=4,
            num_stages=3,
            **model.options.kernel,
        )

    def _layer(self, layer: Layer) -> tuple[Projection, Projection, Projection, Projection]:
        residual, attended, active = self._residual, self._attended, self._active
        return (
            self._projection("qkv", layer.qkv, residual, layer.attention_gain, self._qkv),
            self._projection("out", layer.out, attended, None, residual),
            self._projection("gate_up", layer.gate_up, residual, layer.mlp_gain, active),
            self._projection("down", layer.down, active, None, residual),
        )

    def _wide_layer(
        self, layer: Layer, after: torch.Tensor
    ) -> tuple[Product, Product, Product, Product]:
        """Return the layer's launches; `after` is the weight of the next layer's first norm."""
        attended, active, scaled = self._attended, self._active, self._scaled
        of_out, of_down = self._squares_out, self._squares
        return (
            self._product("qkv", layer.qkv, scaled, self._qkv, None),
            self._product("out", layer.out, attended, self._residual, None, layer.mlp_gain, of_out),
            self._product("gate_up", layer.gate_up, scaled, active, of_out),
            self._product("down", layer.down, active, self._residual, None, after, of_down),
        )

    def _product(
        self,
        role: Role,
        matrix: Matrix,
        x: torch.Tensor,
        out: torch.Tensor,
        squares: torch.Tensor | None,
        gain: torch.Tensor | None = None,
        sums: torch.Tensor | None = None,
    ) -> Product:
        newest, adds = role == "head", gain is not None
        rows = self.rows if newest else self.rows * self.width
        return Product(
            role=role,
            matrix=matrix,
            x=x,
            squares=squares,
            out=out,
            gain=gain,
            normed=self._scaled if adds else None,
            sums=sums,
            partial=self._sum if adds else None,
            arrived=self._left if adds else None,
            rows=rows,
            stride=self.width if newest else 1,
            eps=self._model.shape.eps,
            tile=self._tile(role, matrix, rows),
            options=self._model.options,
        )

    def _projection(
        self,
        role: Role,
        matrix: Matrix,
        x: torch.Tensor,
        gain: torch.Tensor | None,
        out: torch.Tensor,
    ) -> Projection:
        newest = role == "head"
        rows = self.rows if newest else self.rows * self.width
        return Projection(
            role=role,
            matrix=matrix,
            x=x,
            gain=gain,
            out=out,
            squares=self._squares if role == "qkv" else None,
            rows=rows,
            stride=self.width if newest else 1,
            eps=self._model.shape.eps,
            tile=self._tile(role, matrix, rows),
            options=self._model.options,
        )

    def _tile(self, role: Role, matrix: Matrix, rows: int) -> Tile:
        outputs, inputs = matrix.data.shape
        return self._model.tile(role, outputs, inputs, padded_rows(rows))
