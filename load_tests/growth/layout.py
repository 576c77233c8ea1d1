"""Where a small model lies inside a big one, and the factors that keep its function.

The big hidden vector holds several *copies* of the small one, the c-th scaled by `scales[c]`, then
padding. Only copy 0 has to be there, but the others buy three things:

* RMSNorm divides by the mean square, which padding with zeros would lower by d/D. With copies whose
  squares sum to D/d·4^-m it changes by a power of two only, so that bfloat16 rounds every product
  exactly as in the small model. What the sum misses goes into the norm weights (`norm_gain`).
* A weight that has to be multiplied by √2 (see `score_gain`) is not a bfloat16 any more. Its
  rounding error is written against a second copy of the same input: 16 bits of precision.
* Two layers side by side in one layer each get a copy with their own norm weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from .shapes import Dims

_BF16_STEPS = 128  # values of bfloat16 in [1, 2)
_FREE = 2  # copies whose scale need not be a power of two


@dataclass(frozen=True)
class Layout:
    """The place of `small` in `big`; `plan[l]` are the small layers that layer l computes.

    ValueError if they do not fit.
    """

    small: Dims
    big: Dims
    plan: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        small, big = self.small, self.big
        width = max(map(len, self.plan))
        problems = {
            "hidden size": big.hidden < width * small.hidden,
            "layers": len(self.plan) != big.layers,
            "KV heads": big.kv_heads < width * self._kv_per_slot,
            "head size": bool(big.head_dim % small.head_dim),
            "intermediate size": big.intermediate < width * small.intermediate,
            "untied head": big.tied and not small.tied,
        }
        if wrong := [name for name, problem in problems.items() if problem]:
            raise ValueError(f"{small} does not fit into {big}: {', '.join(wrong)}")

    @property
    def exact(self) -> bool:
        """Whether the big model computes the small one's function."""
        order = [layers[0] for layers in self.plan if len(layers) == 1]
        return order == list(range(self.small.layers)) and max(map(len, self.plan)) == 1

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """The scale of each copy of the hidden vector, all exact in bfloat16."""
        ratio = self.big.hidden / self.small.hidden
        return copy_scales(ratio, int(ratio))

    @property
    def norm_gain(self) -> float:
        """What normalised values of copy 0 must be multiplied by; near a power of two.

        The epsilon of the norms must be multiplied by its square.
        """
        energy = sum(scale * scale for scale in self.scales)
        return math.sqrt(energy * self.small.hidden / self.big.hidden)

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


def copy_scales(ratio: float, most: int) -> tuple[float, ...]:
    """Return at most `most` scales, the first 1, whose squares sum to about ratio·4^-m.

    Powers of two as far as possible: a copy with such a scale rounds like the original. The last
    two may be any bfloat16, and are the better the less of the sum they have to carry.
    """
    totals = [ratio / 4**m for m in range(int(math.log(ratio, 4)) + 1)]
    # A total of 1 has no room for a second copy, where rounding errors can be made good.
    totals = [total for total in totals if total > 1] or [1.0]
    return min((_scales(total, most) for total in totals), key=lambda found: found[0])[1]


def _scales(total: float, most: int) -> tuple[float, tuple[float, ...]]:
    scales, rest = [1.0], total - 1.0
    while rest > 0 and len(scales) < most - _FREE:
        scales.append(2.0 ** math.floor(math.log2(rest) / 2))
        rest -= scales[-1] ** 2
    free = _free_scales(rest, most - len(scales)) if rest > 0 else ()
    missed = abs(rest - sum(scale * scale for scale in free))
    # A copy that rounds by itself has another energy than its share, by about 1e-4 of it.
    return (missed + 1e-4 * rest) / total, (*scales, *free)


def _free_scales(energy: float, most: int) -> tuple[float, ...]:
    if most <= 0:
        return ()
    if most == 1:
        return (_bf16(math.sqrt(energy)),)
    top = 2.0 ** math.floor(math.log2(energy) / 2)
    firsts = (top * (1 + step / _BF16_STEPS) / 2**e for step in range(_BF16_STEPS) for e in (0, 1))
    pairs = (
        (first, _bf16(math.sqrt(energy - first * first)))
        for first in firsts
        if first * first < energy
    )
    return min(pairs, key=lambda pair: abs(energy - pair[0] ** 2 - pair[1] ** 2))


def _bf16(value: float) -> float:
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 2 * _BF16_STEPS) / (2 * _BF16_STEPS), exponent)
