"""Whether two lanes on the same hardware should work at the same time, or all requests share one.

A request that moves to the lane where it is quicker alone slows everybody in both lanes. What it
gains for itself cannot tell whether that pays: two classes that each prefer another lane would keep
both working for ever, although one lane alone answered all of them sooner. So the whole is
compared: how many tokens a second all requests get together, in one lane alone and over both. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rayspec.routing.cost_model import LaneCost, best_k, expected_tokens
from rayspec.routing.curves import LaneCurve
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import Lane, LaneView

__all__ = ["Gathering", "Usual", "drafting_together", "gather"]

# Both lanes have to be quicker together by so much, or the other one alone, for a change.
_MARGIN = 0.03
# Ways to share out the requests that are looked at: the best one is never far from one of them.
_PLAIN_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Usual:
    """The mean of late requests: tokens of a step with drafts, drafts of it, and lengths."""

    tokens: float = 1.0
    drafts: float = 0.0
    lengths: Lengths = field(default_factory=Lengths)

    def then(self, tokens: float, drafts: float, lengths: Lengths, weight: float) -> Usual:
        """Return the mean with a further request of so much weight."""
        keep = 1 - weight
        return Usual(
            self.tokens * keep + tokens * weight,
            self.drafts * keep + drafts * weight,
            Lengths(
                self.lengths.prompt * keep + lengths.prompt * weight,
                self.lengths.output * keep + lengths.output * weight,
            ),
        )


@dataclass(frozen=True, slots=True)
class Gathering:
    """What is best for all: one `lane`, or None for both; tokens a second of it and otherwise."""

    lane: Lane | None
    rate: float
    otherwise: float


def drafting_together(
    views: Mapping[Lane, LaneView],
    cost: LaneCost,
    acceptance: Sequence[float],
    tiers: Sequence[int],
    coverage: float,
    lengths: Lengths,
) -> tuple[float, float]:
    """Return tokens and drafts of a step of a request, if all were in the speculative lane."""
    count = sum(view.concurrency for view in views.values()) + 1
    batch = min(max(count / max(views[Lane.SPECULATIVE].replicas, 1), 1), cost.max_num_seqs)
    context = lengths.prompt + lengths.output / 2
    k = best_k(cost, batch, acceptance, context, tiers, coverage)
    return expected_tokens(acceptance, k), k * coverage


def gather(
    views: Mapping[Lane, LaneView],
    curves: Mapping[Lane, LaneCurve],
    usual: Usual,
    sequences: int,
    before: Lane | None,
    *,
    gathered: bool,
) -> Gathering:
    """Return where all requests of both lanes and `sequences` more are answered soonest.

    `before` is what was best so far, if `gathered` says that anything was; it changes only for a
    clear advantage.
    """
    # What generates nothing, such as a list of models, also comes to an idle application.
    count = max(sum(view.concurrency for view in views.values()) + sequences, 1)
    replicas = {lane: max(view.replicas, 1) for lane, view in views.items()}

    def rate(lane: Lane, share: float, *, beside: bool) -> float:
        curve = curves[lane]
        cost = curve.contended if beside else curve.alone
        return _rate(cost, share, replicas[lane], usual, lane)

    rates: dict[Lane | None, float] = {lane: rate(lane, count, beside=False) for lane in views}
    rates[None] = max(
        (
            rate(Lane.SPECULATIVE, count - there, beside=True)
            + rate(Lane.PLAIN, there, beside=True)
            for there in _shares(count)
        ),
        default=0.0,
    )
    best = max(rates, key=rates.__getitem__)
    if gathered and rates[before] * (1 + _MARGIN) >= rates[best]:
        best = before
    elif best is None and not gathered and rates[None] <= max(_single(rates)) * (1 + _MARGIN):
        best = max(_lanes(rates), key=rates.__getitem__)
    others = max(value for key, value in rates.items() if key is not best)
    return Gathering(best, rates[best], others)


def _single(rates: Mapping[Lane | None, float]) -> list[float]:
    return [rates[lane] for lane in _lanes(rates)]


def _lanes(rates: Mapping[Lane | None, float]) -> list[Lane]:
    return [lane for lane in rates if lane is not None]


def _shares(count: int) -> list[int]:
    """Return some numbers of requests of which neither they nor the rest is empty."""
    found = {round(count * share) for share in _PLAIN_SHARES}
    return sorted(found - {0, count})


def _rate(cost: LaneCost, count: float, replicas: int, usual: Usual, lane: Lane) -> float:
    """Return the tokens a second of `count` requests, of which each follows the one before it.

    While a prompt is prefilled, the others of its engine wait.
    """
    engines = min(count, replicas)
    batch = min(count / engines, cost.max_num_seqs)
    drafting = lane is Lane.SPECULATIVE
    lengths = usual.lengths
    context = lengths.prompt + lengths.output / 2
    step = cost.steps.seconds(batch, usual.drafts if drafting else 0.0, context)
    steps = lengths.output / (usual.tokens if drafting else 1.0)
    prefill = cost.prefill.seconds(lengths.prompt, cost.chunk_tokens)
    return batch * engines * lengths.output / (steps * step + batch * prefill)
