"""How acceptance changes with the size of the draft, from published laws: very roughly.

Bozorgkhoo and Molybog, "Speculative Decoding Scaling Laws" (arXiv 2603.11053), fit the acceptance
of many pairs of models by an affine function of both perplexities, α = A · PPL_draft +
B · PPL_target + C, and derive from it and the loss of Hoffmann et al. (arXiv 2203.15556, eq. 10,
L(N) = 1.69 + 406.4 / N^0.34 without the data term) that the fastest draft has about 1/200 of the
target's parameters. Used here: the difference that the first term makes between two sizes of
draft, from an acceptance that is known at one of them.

How rough that is: A = -0.0067 is as quoted by others (with R² = 0.60; the paper's own table was
not at hand), the perplexities are those of pretraining, and drafts that were distilled from their
target, or tuned apart from it, are off by more than what ten times the size is worth. Yan et al.,
"Scaling Laws for Speculative Decoding" (arXiv 2505.07858, theorem 1.2), find acceptance growing
with the logarithm of the draft's layers, faster than here. It ranks sizes that nobody has measured;
`rayspec calibrate` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from rayspec.planning.calibration import ClassProfile
from rayspec.planning.gpus import Gpu
from rayspec.planning.memory import Numbers
from rayspec.planning.model_sizes import Model, of_size
from rayspec.planning.roofline import step_s
from rayspec.routing.cost_model import expected_tokens

__all__ = ["RULE_OF_200", "DraftSize", "at_size", "perplexity", "shifted", "sizes"]

RULE_OF_200 = 200
_PER_PERPLEXITY = -0.0067
_CANDIDATES = (0.135e9, 0.25e9, 0.5e9, 1e9, 1.5e9, 3e9, 8e9)


def perplexity(parameters: float) -> float:
    """Return the pretraining perplexity of a model of that size."""
    return exp(1.69 + 406.4 / parameters**0.34)


def at_size(acceptance: float, known: float, wanted: float) -> float:
    """Return the acceptance of a draft of `wanted` parameters, from that of one of `known`."""
    change = _PER_PERPLEXITY * (perplexity(wanted) - perplexity(known))
    return min(max(acceptance + change, 0.0), 1.0)


def shifted(profile: ClassProfile, known: float, wanted: float) -> ClassProfile:
    """Return a class as it would be with a draft of another size."""
    moved = [at_size(share, known, wanted) for share in profile.acceptance]
    return profile.model_copy(update={"acceptance": moved})


@dataclass(frozen=True, slots=True)
class DraftSize:
    """A size of draft and what it promises: tokens per second of one sequence, over plain."""

    parameters: float
    acceptance: float
    k: int
    speedup: float


def sizes(
    target: Model,
    gpu: Gpu,
    classes: Mapping[str, ClassProfile],
    known: float,
    *,
    tensor_parallel: int,
    batch: int,
    tiers: tuple[int, ...],
) -> list[DraftSize]:
    """Return draft sizes up to a quarter of the target, the best first.

    `classes` hold the acceptance of a draft of `known` parameters, and count equally; `batch`
    sequences decode at a time.
    """
    mean = sum(c.acceptance[0] if c.acceptance else 0.0 for c in classes.values()) / len(classes)
    where = {"batch": batch, "tensor_parallel": tensor_parallel}
    plain = step_s(target.shape, target.numbers, gpu, **where)
    found = []
    for count in _CANDIDATES:
        if count > target.shape.parameters / 4:
            continue
        acceptance = at_size(mean, known, count)
        shape = of_size(count, target.shape.vocabulary)
        drafting = step_s(shape, Numbers(), gpu, batch=batch)
        best = max(
            (
                plain
                * expected_tokens(acceptance, k)
                / (step_s(target.shape, target.numbers, gpu, tokens=k + 1, **where) + k * drafting),
                k,
            )
            for k in tiers
        )
        found.append(DraftSize(count, acceptance, best[1], best[0]))
    return sorted(found, key=lambda size: -size.speedup)
