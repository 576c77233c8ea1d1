"""Launches of the kernels with everything that stays the same bound to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton

from rayspec.draft.fused import projection
from rayspec.draft.fused.tiles import Role, Tile, padded_rows
from rayspec.draft.fused.weights import Matrix
from rayspec.draft.fused.wide import multiply

__all__ = ["MODES", "Options", "Product", "Projection", "launch_options"]

# (mode, whether the input is normed)
MODES: dict[Role, tuple[Any, bool]] = {
    "qkv": (projection.PARTIAL, True),
    "out": (projection.ADD, False),
    "gate_up": (projection.SILU, True),
    "down": (projection.ADD, False),
    "head": (projection.LOGITS, True),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How kernels are launched.

    `pdl` starts a kernel before its predecessor has ended, which hides its launch and the first of
    its weight loads; it needs compute capability 9. Without `hints` loads carry no cache hints,
    which the interpreter does not know.
    """

    pdl: bool
    hints: bool

    @property
    def kernel(self) -> dict[str, Any]:
        """Keyword arguments of a launch with programmatic dependence; plain ones have none."""
        return {"launch_pdl": True} if self.pdl else {}


def launch_options(device: torch.device, pdl: bool | None = None) -> Options:
    """Return what the device can do; `pdl` None takes it where it exists."""
    cuda = device.type == "cuda"
    able = cuda and torch.cuda.get_device_capability(device)[0] >= 9
    return Options(pdl=able if pdl is None else pdl and able, hints=cuda)


@dataclass(frozen=True, slots=True)
class Projection:
    """One matrix of a plan for one or two rows, ready to run."""

    role: Role
    matrix: Matrix
    x: torch.Tensor
    gain: torch.Tensor | None
    out: torch.Tensor
    squares: torch.Tensor | None
    rows: int
    stride: int
    eps: float
    tile: Tile
    options: Options

    def run(self) -> None:
        """Enqueue the kernel."""
        mode, normed = MODES[self.role]
        outputs, inputs = self.matrix.data.shape
        tile, rows = self.tile, padded_rows(self.rows)
        scale = self.matrix.scale
        grid = triton.cdiv(outputs, tile.bn), tile.split, triton.cdiv(self.rows, rows)
        projection.project[grid](
            self.x,
            self.matrix.data,
            self.x if self.gain is None else self.gain,
            self.x if scale is None else scale,
            self.out,
            self.out if self.squares is None else self.squares,
            self.rows,
            N=outputs,
            K=inputs,
            STRIDE=self.stride,
            EPS=self.eps,
            NORM=normed,
            SCALED=scale is not None,
            MODE=mode,
            BM=rows,
            BN=tile.bn,
            BK=tile.bk,
            SPLIT=tile.split,
            STAGES=tile.stages,
            PDL=self.options.pdl,
            EVICT="evict_first" if self.options.hints else "",
            num_warps=tile.warps,
            num_stages=tile.stages,
            **self.options.kernel,
        )


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix of a plan for more rows, ready to run.

    `x` [·, inputs] is scaled by the norm's weight, `squares` [parts, ·] what norms the result.
    Roles that add to the residual have `gain`, `normed`, `sums`, `partial` and `arrived`.
    """

    role: Role
    matrix: Matrix
    x: torch.Tensor
    squares: torch.Tensor | None
    out: torch.Tensor
    gain: torch.Tensor | None
    normed: torch.Tensor | None
    sums: torch.Tensor | None
    partial: torch.Tensor | None
    arrived: torch.Tensor | None
    rows: int
    stride: int
    eps: float
    tile: Tile
    options: Options

    def run(self) -> None:
        """Enqueue the kernel."""
        outputs, inputs = self.matrix.data.shape
        tile, rows = self.tile, padded_rows(self.rows)
        scale, none = self.matrix.scale, self.out
        parts = 0 if self.squares is None else self.squares.shape[0]
        grid = triton.cdiv(outputs, tile.bn), tile.split, triton.cdiv(self.rows, rows)
        multiply[grid](
            self.x,
            self.matrix.data,
            none if scale is None else scale,
            none if self.squares is None else self.squares,
            self.out,
            none if self.gain is None else self.gain,
            none if self.normed is None else self.normed,
            none if self.sums is None else self.sums,
            none if self.partial is None else self.partial,
            none if self.arrived is None else self.arrived,
            self.rows,
            self.x.shape[0],
            N=outputs,
            K=inputs,
            STRIDE=self.stride,
            EPS=self.eps,
            SQUARES=parts,
            SPREAD=triton.next_power_of_2(max(1, parts)),
            SCALED=scale is not None,
            MODE=MODES[self.role][0],
            BM=rows,
            BN=tile.bn,
            BK=tile.bk,
            SPLIT=tile.split,
            STAGES=tile.stages,
            PDL=self.options.pdl,
            EVICT="evict_first" if self.options.hints else "",
            FRESH=".cg" if self.options.hints else "",
            num_warps=tile.warps,
            num_stages=tile.stages,
            **self.options.kernel,
        )
