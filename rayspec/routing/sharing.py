"""Whether two lanes on the same hardware should work at the same time, or all requests share one.

A request that moves to the lane where it is quicker alone slows everybody in all lanes. What it
gains for itself cannot tell whether that pays: two classes that each prefer another lane would keep
both working for ever, although one lane alone answered all of them sooner. So the whole is
compared: how many tokens a second all requests get together, in each lane alone and over each pair
of lanes. More than two lanes at a time are not looked at. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

from rayspec.routing.cost_model import LaneCost, best_k, expected_tokens
from rayspec.routing.curves import LaneCurve
from rayspec.routing.forecast import Drafts
from rayspec.routing.traffic import Lengths
from rayspec.routing.types import Lane, LaneView

__all__ = ["Gathering", "Usual", "drafting_together", "gather"]

# Two lanes have to be quicker together by so much, or the other one alone, for a change.
_MARGIN = 0.03
# Ways to share out the requests that are looked at: the best one is never far from one of them.
_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Usual:
    """The mean of late requests in a lane: tokens of a step, drafts of it, and lengths."""

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
    """What is best for all: one `lane`, or None for a `pair`; tokens a second of it and otherwise.

    An empty pair stands for any lanes.
    """

    lane: Lane | None
    rate: float
    otherwise: float
    pair: frozenset[Lane] = frozenset()

    @property
    def lanes(self) -> frozenset[Lane]:
        """The lanes that are to work."""
        return self.pair if self.lane is None else frozenset({self.lane})


def drafting_together(
    views: Mapping[Lane, LaneView],
    lane: Lane,
    cost: LaneCost,
    drafts: Drafts,
    lengths: Lengths,
) -> tuple[float, float]:
    """Return tokens and drafts of a step of a request, if all were in `lane`."""
    count = sum(view.concurrency for view in views.values()) + 1
    batch = min(max(count / max(views[lane].replicas, 1), 1), cost.max_num_seqs)
    context = lengths.prompt + lengths.output / 2
    k = best_k(cost, batch, drafts.acceptance, context, drafts.tiers, drafts.coverage)
    return expected_tokens(drafts.acceptance, k), k * drafts.coverage


def gather(
    views: Mapping[Lane, LaneView],
    curves: Mapping[Lane, LaneCurve],
    usual: Mapping[Lane, Usual],
    sequences: int,
    before: Gathering | None,
) -> Gathering:
    """Return where all requests of all lanes and `sequences` more are answered soonest.

    `before` is what was best so far; it changes only for a clear advantage.
    """
    # What generates nothing, such as a list of models, also comes to an idle application.
    count = max(sum(view.concurrency for view in views.values()) + sequences, 1)
    replicas = {lane: max(view.replicas, 1) for lane, view in views.items()}

    def rate(lane: Lane, share: float, *, beside: bool) -> float:
        curve = curves[lane]
        cost = curve.contended if beside else curve.alone
        return _rate(cost, share, replicas[lane], usual[lane])

    def together(one: Lane, other: Lane) -> float:
        return max(
            (
                rate(one, count - there, beside=True) + rate(other, there, beside=True)
                for there in _shares(count)
            ),
            default=0.0,
        )

    single = {frozenset({lane}): rate(lane, count, beside=False) for lane in views}
    rates = single | {frozenset(pair): together(*pair) for pair in combinations(views, 2)}
    best = max(rates, key=rates.__getitem__)
    if before is not None and before.lanes in rates:
        if rates[before.lanes] * (1 + _MARGIN) >= rates[best]:
            best = before.lanes
    elif best not in single and rates[best] <= max(single.values()) * (1 + _MARGIN):
        best = max(single, key=single.__getitem__)
    others = max(value for key, value in rates.items() if key != best)
    if best in single:
        (lane,) = best
        return Gathering(lane, rates[best], others)
    return Gathering(None, rates[best], others, best)


def _shares(count: int) -> list[int]:
    """Return some numbers of requests of which neither they nor the rest is empty."""
    found = {round(count * share) for share in _SHARES}
    return sorted(found - {0, count})


def _rate(cost: LaneCost, count: float, replicas: int, usual: Usual) -> float:
    """Return the tokens a second of `count` requests, of which each follows the one before it.

    While a prompt is prefilled, the others of its engine wait.
    """
    engines = min(count, replicas)
    batch = min(count / engines, cost.max_num_seqs)
    lengths = usual.lengths
    context = lengths.prompt + lengths.output / 2
    step = cost.steps.seconds(batch, usual.drafts, context)
    steps = lengths.output / usual.tokens
    prefill = cost.prefill.seconds(lengths.prompt, cost.chunk_tokens)
    return batch * engines * lengths.output / (steps * step + batch * prefill)
