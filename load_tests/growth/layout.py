"""Where a small model lies inside a big one, and the factors that keep its function.

The small hidden vector is the first part of the big one, and the rest is padding. If layers run
side by side, there are as many copies of it, so that each of them has norm weights of its own.

In exact arithmetic nothing changes. In bfloat16, factors that are not powers of two round weights
anew. That costs nothing that could be measured: SmolLM2 grown with powers of two throughout (in
twice its hidden size) differs from itself as much as one grown in any other way, by the order of
summation alone, and that is as much as bfloat16 differs from float32 (overlap of the distributions
0.985 to 0.989, argmax equal in 98 to 99 % of positions on its own greedy text).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .shapes import Dims


@dataclass(frozen=True)
class Layout:
    """The place of `small` in `big`; `plan[l]` are the small layers that layer l computes.

    ValueError if they do not fit.
    """

    small: Dims
    big: Dims
    plan: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        small, big, copies = self.small, self.big, self.copies
        problems = {
            "hidden size": big.hidden < copies * small.hidden,
            "layers": len(self.plan) != big.layers,
            "KV heads": big.kv_heads < copies * self._kv_per_slot,
            "head size": bool(big.head_dim % small.head_dim),
            "intermediate size": big.intermediate < copies * small.intermediate,
            "untied head": big.tied and not small.tied,
        }
        if wrong := [name for name, problem in problems.items() if problem]:
            raise ValueError(f"{small} does not fit into {big}: {', '.join(wrong)}")

    @property
    def copies(self) -> int:
        """How many copies of the small hidden vector there are: one for each layer of a group."""
        return max(1, *map(len, self.plan))

    @property
    def exact(self) -> bool:
        """Whether the big model computes the small one's function."""
        order = [layer for layers in self.plan for layer in layers]
        return self.copies == 1 and order == list(range(self.small.layers))

    @property
    def norm_gain(self) -> float:
        """What norm weights must be multiplied by, as padding lowers the mean square.

        The epsilon of the norms must be multiplied by its square.
        """
        return math.sqrt(self.copies * self.small.hidden / self.big.hidden)

    @property
    def score_gain(self) -> float:
        """What queries must be multiplied by, as scores are divided by √(head size)."""
        return math.sqrt(self.big.head_dim / self.small.head_dim)

    def copy(self, index: int) -> slice:
        """Return the channels of copy `index` of the hidden vector."""
        return slice(index * self.small.hidden, (index + 1) * self.small.hidden)

    def neurons(self, slot: int) -> slice:
        """Return the MLP neurons of the small layer in `slot` of a big layer."""
        size = self.small.intermediate
        return slice(slot * size, (slot + 1) * size)

    def query_heads(self, slot: int) -> list[int]:
        """Return the big query head of every small one."""
        return [
            self._kv_head(slot, head) * self.big.group + head % self.small.group % self.big.group
            for head in range(self.small.heads)
        ]

    def kv_heads(self, slot: int) -> dict[int, int]:
        """Return the small KV head in every big one that holds one.

        Groups that are too small for the small model's hold the same KV head several times.
        """
        heads = range(self.small.heads)
        return {self._kv_head(slot, head): head // self.small.group for head in heads}

    @property
    def head_dims(self) -> list[int]:
        """The place of each dimension of a small head in a big one.

        A head of n dimensions turns the pair (j, j + n/2) by θ^(-2j/n) per position. So pair i goes
        to pair i·N/n of a head of N dimensions, which turns as fast.
        """
        half, step = self.small.head_dim // 2, self.big.head_dim // self.small.head_dim
        return [part * self.big.head_dim // 2 + i * step for part in range(2) for i in range(half)]

    @property
    def _kv_per_slot(self) -> int:
        return self.small.kv_heads * math.ceil(self.small.group / self.big.group)

    def _kv_head(self, slot: int, head: int) -> int:
        group, member = divmod(head, self.small.group)
        per_group = self._kv_per_slot // self.small.kv_heads
        return slot * self._kv_per_slot + group * per_group + member // self.big.group
