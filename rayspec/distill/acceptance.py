"""How well a draft's proposals would be accepted, from both models' logits over the same texts.

In a greedy step all drafts up to the first wrong one stand after the target's own text, so running
the draft once over that text says exactly what steps of K drafts would have yielded. At temperature
1 a sampled draft is accepted with the chance Σ min(p, q) (Leviathan et al. 2023).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from rayspec.distill.batches import batches, collate
from rayspec.distill.score import answered_before
from rayspec.distill.spec import DRAFT_LENGTH
from rayspec.distill.texts import Texts

__all__ = ["ClassAcceptance", "Counts", "measure"]


@dataclass(slots=True)
class Counts:
    """Greedy steps of K drafts: `tested[i]` drafts at position i whose predecessors were right."""

    k: int
    steps: int = 0
    tested: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tested, self.accepted = [0] * self.k, [0] * self.k

    def add(self, right: Sequence[bool]) -> None:
        """Count the steps of a text, given for each of its tokens whether the draft has it."""
        at = 0
        while at < len(right):
            self.steps += 1
            taken = 0
            while taken < self.k and at + taken < len(right):
                self.tested[taken] += 1
                if not right[at + taken]:
                    break
                self.accepted[taken] += 1
                taken += 1
            at += taken + 1


@dataclass(frozen=True, slots=True)
class ClassAcceptance:
    """Acceptance in one workload class; None where there were no such texts.

    `greedy` is per token: accepted ÷ tested, those after a wrong one not being tested.
    `by_position[i]` is that of drafts at position i; `tokens_per_step` counts the target's own.
    `sampled` is the mean chance at temperature 1, over places that are not chosen by the draft.
    """

    texts: int
    tokens: int
    greedy: float | None
    by_position: list[float]
    tokens_per_step: float | None
    sampled: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


@dataclass(slots=True)
class _Tally:
    counts: Counts
    texts: int = 0
    tokens: int = 0
    overlap: float = 0.0
    sampled: int = 0

    def result(self) -> ClassAcceptance:
        counts = self.counts
        tested, accepted = sum(counts.tested), sum(counts.accepted)
        return ClassAcceptance(
            self.texts,
            self.tokens,
            accepted / tested if tested else None,
            [a / t for a, t in zip(counts.accepted, counts.tested, strict=True) if t],
            1 + accepted / counts.steps if counts.steps else None,
            self.overlap / self.sampled if self.sampled else None,
        )


@torch.inference_mode()
def measure(
    target: Any,
    draft: Any,
    texts: Texts,
    *,
    k: int = DRAFT_LENGTH,
    budget: int = 8192,
    drafted: torch.Tensor | None = None,
) -> dict[str, ClassAcceptance]:
    """Return the acceptance of `draft` on texts of `target`, by class, and of `all`.

    `drafted` are the only token ids that the draft proposes, if given.
    """
    tallies: dict[str, _Tally] = defaultdict(lambda: _Tally(Counts(k)))
    before = answered_before(texts)
    for chosen in batches(texts.lengths, budget, seed=0):
        batch = collate(texts, chosen, before)
        overlap, right = _compare(target, draft, batch.ids, batch.places, drafted)
        of = (batch.places // batch.ids.shape[1]).numpy()
        for row, index in enumerate(chosen.tolist()):
            here = of == row
            for name in (str(texts.classes[index]), "all"):
                tally = tallies[name]
                tally.texts += 1
                tally.tokens += int(here.sum())
                if texts.temperatures[index] > 0:
                    tally.overlap += float(overlap[here].sum())
                    tally.sampled += int(here.sum())
                else:
                    tally.counts.add(right[here].tolist())
    named = sorted(tallies.items(), key=lambda item: (item[0] == "all", item[0]))
    return {name: tally.result() for name, tally in named}


def _compare(
    target: Any,
    draft: Any,
    ids: torch.Tensor,
    places: torch.Tensor,
    drafted: torch.Tensor | None,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return, of each place, Σ min(p, q) and whether the draft's first choice comes next."""
    device = next(target.parameters()).device
    following = ids.flatten()[places + 1].to(device)
    ids, places = ids.to(device), places.to(device)
    states = [
        model.base_model(ids, use_cache=False).last_hidden_state.flatten(0, 1)[places]
        for model in (target, draft)
    ]
    heads = [model.get_output_embeddings().weight.float() for model in (target, draft)]
    overlaps, rights = [], []
    for begin in range(0, len(places), 2048):
        expected, found = (
            state[begin : begin + 2048].float() @ head.T
            for state, head in zip(states, heads, strict=True)
        )
        if drafted is not None:
            allowed = torch.full_like(found[0], -torch.inf)
            allowed[drafted.to(device).long()] = 0
            found += allowed
        overlaps.append(torch.minimum(expected.softmax(-1), found.softmax(-1)).sum(-1).cpu())
        rights.append((found.argmax(-1) == following[begin : begin + 2048]).cpu())
    return torch.cat(overlaps).numpy(), torch.cat(rights).numpy()
