"""Verifies drafts against the target's logits in one read of them: torch ops with fakes.

On CUDA they run the kernels in `kernels/`, elsewhere `rayspec.ops.reference`. Both keep to vLLM's
order: temperature, then min-p, top-k and top-p; ties at a threshold are all kept. Penalties, biases
and the like are applied to the logits before.
"""

from __future__ import annotations

from ctypes import c_int, c_longlong, c_void_p
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from rayspec.ops import reference

__all__ = [
    "MOST_NAMED",
    "TILE_BYTES",
    "Launcher",
    "launch_verify",
    "verify_onehot",
    "verify_sparse_q",
]

# These five are constants of the kernels.
TILE_BYTES: Final = 2048
MOST_NAMED: Final = 32
_ROW_BYTES: Final = 64
_STATS_WARPS: Final = 8
_RESOLVE_THREADS: Final = 512
_DTYPES: Final = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
}
# Blocks of the reading kernel that a multiprocessor holds, and how many rounds of them there
# should be before a warp reads more than one tile.
_RESIDENT: Final = 4
_ROUNDS: Final = 2

_ARGUMENTS: Final = (
    "Tensor logits, Tensor draft_ids, Tensor cu_num_logits, Tensor slot_of, Tensor temperature, "
    "Tensor? top_k, Tensor? top_p, Tensor? min_p, Tensor seeds, Tensor positions, Tensor step, "
    "int k_max, Tensor? n_valid=None, Tensor? invalid=None"
)
_LIBRARY: Final = torch.library.Library("rayspec", "FRAGMENT")
_LIBRARY.define(f"verify_onehot({_ARGUMENTS}) -> (Tensor, Tensor)")
_LIBRARY.define(
    "verify_sparse_q(Tensor q_ids, Tensor q_logits, " + _ARGUMENTS + ") -> (Tensor, Tensor)"
)


def verify_onehot(
    logits: torch.Tensor,
    draft_ids: torch.Tensor,
    cu_num_logits: torch.Tensor,
    slot_of: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    step: torch.Tensor,
    k_max: int,
    *,
    n_valid: torch.Tensor | None = None,
    invalid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Accept a prefix of every request's drafts and sample the token after it.

    `logits` [N, V] float32, float16 or bfloat16, any row stride; request b of B has the rows from
    `cu_num_logits[b]` (int32 [B + 1]) on: one for each draft and one more, at most `k_max + 1`.
    `draft_ids` int32 [N]: row i's own input token, so `draft_ids[i + 1]` is what row i tests; -1
    and what `invalid` (bool [N]) marks is rejected, and so are drafts from `n_valid` (int32 [B])
    on. By slot, for `slot_of` (int32 [B]): `temperature`, `top_p`, `min_p` float32, `top_k` int32,
    `seeds` int64. Randomness is a function of the seed, `positions` (int64 [N], below 2³²) and
    `step` (int64 [1], modulo 2³²), read on the device.

    A draft counts as certain: it is accepted with probability p, and what replaces it is drawn from
    p without it. Temperature 0 takes the largest logit, the lowest of equal ones. NaN is never
    chosen where there is anything else.

    Return `sampled` int64 [B, k_max + 1], -1 after the `num_sampled` int32 [B] tokens.
    """
    _check(logits, draft_ids, cu_num_logits, slot_of, positions, step)
    sampled, num_sampled = torch.ops.rayspec.verify_onehot(
        logits,
        draft_ids,
        cu_num_logits,
        slot_of,
        temperature,
        top_k,
        top_p,
        min_p,
        seeds,
        positions,
        step,
        k_max,
        n_valid,
        invalid,
    )
    return sampled, num_sampled


def verify_sparse_q(
    q_ids: torch.Tensor,
    q_logits: torch.Tensor,
    logits: torch.Tensor,
    draft_ids: torch.Tensor,
    cu_num_logits: torch.Tensor,
    slot_of: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    step: torch.Tensor,
    k_max: int,
    *,
    n_valid: torch.Tensor | None = None,
    invalid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what `verify_onehot` does for drafts that were sampled from few tokens each.

    `q_ids` int32, `q_logits` float32 [S, k_max, M], M ≤ 32, the last dimension dense: draft i of
    slot s was drawn from the softmax of `q_logits[s, i]`, which has the temperature in it. It is
    accepted with probability min(1, p / q), and max(p - q, 0) replaces it. A draft that is not
    among its own tokens counts as certain; ids that are no tokens are left out.
    """
    _check(logits, draft_ids, cu_num_logits, slot_of, positions, step)
    if q_ids.shape != q_logits.shape or q_ids.dim() != 3 or q_ids.shape[2] > MOST_NAMED:
        raise ValueError(f"q needs [S, K, M <= {MOST_NAMED}], not {tuple(q_ids.shape)}")
    if q_ids.stride() != q_logits.stride() or q_ids.stride(2) != 1:
        raise ValueError("ids and weights of q need one layout with a dense last dimension")
    sampled, num_sampled = torch.ops.rayspec.verify_sparse_q(
        q_ids,
        q_logits,
        logits,
        draft_ids,
        cu_num_logits,
        slot_of,
        temperature,
        top_k,
        top_p,
        min_p,
        seeds,
        positions,
        step,
        k_max,
        n_valid,
        invalid,
    )
    return sampled, num_sampled


def _check(
    logits: torch.Tensor,
    draft_ids: torch.Tensor,
    cu_num_logits: torch.Tensor,
    slot_of: torch.Tensor,
    positions: torch.Tensor,
    step: torch.Tensor,
) -> None:
    if logits.dim() != 2 or logits.stride(1) != 1 or logits.dtype not in _DTYPES:
        raise ValueError("logits need [N, V] of a floating type with dense rows")
    if draft_ids.dtype != torch.int32 or positions.dtype != torch.int64:
        raise ValueError("draft_ids need int32 and positions int64")
    if cu_num_logits.dtype != torch.int32 or slot_of.dtype != torch.int32:
        raise ValueError("cu_num_logits and slot_of need int32")
    if cu_num_logits.shape[0] != slot_of.shape[0] + 1 or step.dtype != torch.int64:
        raise ValueError("cu_num_logits needs B + 1 entries, step int64")


class Launcher(Protocol):
    """Something that runs the kernels."""

    def launch(self, name: str, grid: tuple[int, int], threads: int, arguments: list[Any]) -> None:
        """Run a kernel; `arguments` are ctypes values in the order of its parameters."""


@dataclass(frozen=True, slots=True)
class _Workspace:
    """Where the kernels keep what they know, as addresses into one allocation."""

    rows: int
    verdicts: int
    named_ids: int
    named_q: int
    done: int
    stats: int
    holder: torch.Tensor

    @classmethod
    def of(cls, device: torch.device, n: int, batch: int, named: int, tiles: int) -> _Workspace:
        sizes = (n * _ROW_BYTES, n * 8, n * named * 4, n * named * 4, batch * 4, n * tiles * 8)
        starts, end = [], 0
        for size in sizes:
            starts.append(end)
            end += -(-size // 16) * 16
        holder = torch.empty(end, dtype=torch.uint8, device=device)
        base = holder.data_ptr()
        rows, verdicts, named_ids, named_q, done, stats = (base + start for start in starts)
        return cls(rows, verdicts, named_ids, named_q, done, stats, holder)


def tiles_per_warp(tiles: int, rows: int, multiprocessors: int) -> int:
    """Return how many tiles a warp reads one after the other: more only where blocks abound."""
    warps = multiprocessors * _RESIDENT * _STATS_WARPS * _ROUNDS
    return max(1, min(4, tiles * rows // warps))


def launch_verify(
    launcher: Launcher,
    multiprocessors: int,
    q: tuple[torch.Tensor, torch.Tensor] | None,
    logits: torch.Tensor,
    draft_ids: torch.Tensor,
    cu_num_logits: torch.Tensor,
    slot_of: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    step: torch.Tensor,
    k_max: int,
    n_valid: torch.Tensor | None = None,
    invalid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the three kernels; what they need beside the arguments is allocated here."""
    (n, vocab), batch = logits.shape, slot_of.shape[0]
    device = logits.device
    sampled = torch.empty((batch, k_max + 1), dtype=torch.int64, device=device)
    num_sampled = torch.empty(batch, dtype=torch.int32, device=device)
    if n == 0 or batch == 0:
        return sampled.fill_(-1), num_sampled.zero_()
    kind = _DTYPES[logits.dtype]
    tiles = -(-vocab * logits.element_size() // TILE_BYTES)
    named = 1 if q is None else q[0].shape[2]
    space = _Workspace.of(device, n, batch, named, tiles)
    ids, weights = q if q is not None else (None, None)
    launcher.launch(
        "rayspec_prepare",
        (batch, k_max + 1),
        32,
        [
            c_void_p(space.rows),
            c_void_p(space.named_ids),
            c_void_p(space.named_q),
            c_void_p(space.done),
            c_int(n),
            c_int(named),
            c_int(vocab),
            *(
                c_void_p(None if tensor is None else tensor.data_ptr())
                for tensor in (
                    draft_ids,
                    invalid,
                    n_valid,
                    cu_num_logits,
                    slot_of,
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    seeds,
                    positions,
                    step,
                    ids,
                    weights,
                )
            ),
            c_longlong(0 if ids is None else ids.stride(0)),
            c_longlong(0 if ids is None else ids.stride(1)),
        ],
    )
    matrix = [c_void_p(logits.data_ptr()), c_longlong(logits.stride(0)), c_int(vocab), c_int(tiles)]
    run = tiles_per_warp(tiles, n, multiprocessors)
    launcher.launch(
        f"rayspec_row_stats_{kind}",
        (-(-tiles // (_STATS_WARPS * run)) * n, 1),
        32 * _STATS_WARPS,
        [
            *matrix,
            c_int(run),
            c_void_p(space.rows),
            c_void_p(space.named_ids),
            c_int(named),
            c_void_p(space.stats),
        ],
    )
    launcher.launch(
        f"rayspec_resolve_{kind}",
        (n, 1),
        _RESOLVE_THREADS,
        [
            *matrix,
            c_void_p(space.rows),
            c_void_p(space.named_ids),
            c_void_p(space.named_q),
            c_int(named),
            c_void_p(space.stats),
            c_void_p(space.verdicts),
            c_void_p(space.done),
            c_void_p(sampled.data_ptr()),
            c_longlong(k_max + 1),
            c_void_p(num_sampled.data_ptr()),
        ],
    )
    return sampled, num_sampled


def _onehot_cuda(logits: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from rayspec.ops.loader import load

    module = load(logits.device)
    return launch_verify(module, module.multiprocessors, None, logits, *arguments)


def _sparse_cuda(
    q_ids: torch.Tensor, q_logits: torch.Tensor, logits: torch.Tensor, *arguments: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    from rayspec.ops.loader import load

    module = load(logits.device)
    return launch_verify(module, module.multiprocessors, (q_ids, q_logits), logits, *arguments)


def _onehot_fake(
    logits: torch.Tensor,
    draft_ids: torch.Tensor,
    cu: torch.Tensor,
    slot_of: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, k_max = slot_of.shape[0], rest[7]
    sampled = logits.new_empty((batch, k_max + 1), dtype=torch.int64)
    return sampled, logits.new_empty(batch, dtype=torch.int32)


def _sparse_fake(q_ids: torch.Tensor, q_logits: torch.Tensor, *rest: Any) -> Any:
    return _onehot_fake(*rest)


_LIBRARY.impl("verify_onehot", reference.verify_onehot, "CPU")
_LIBRARY.impl("verify_sparse_q", reference.verify_sparse_q, "CPU")
_LIBRARY.impl("verify_onehot", _onehot_cuda, "CUDA")
_LIBRARY.impl("verify_sparse_q", _sparse_cuda, "CUDA")
torch.library.register_fake("rayspec::verify_onehot", _onehot_fake, lib=_LIBRARY)
torch.library.register_fake("rayspec::verify_sparse_q", _sparse_fake, lib=_LIBRARY)
