"""What tests of the policy ask it with: requests, lanes, forecasts, and strategies for them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from rayspec.routing.cost_model import Prediction
from rayspec.routing.policy import ClassPolicy, PolicySpec
from rayspec.routing.types import (
    AcceptanceEstimate,
    ClassHistory,
    Forecast,
    Lane,
    LaneView,
    RequestView,
    Speculation,
)
from tests.support import one_draft
from tests.support.one_draft import BOTH

S, P = Lane.SPECULATIVE, Lane.PLAIN
CHAT = RequestView("chat")
WANTS_ON = replace(CHAT, speculation=Speculation.ON)
WANTS_OFF = replace(CHAT, speculation=Speculation.OFF)
CONSTRAINED = replace(CHAT, constrained=True)
SPEC = PolicySpec(
    max_speculative_concurrency=8,
    acceptance_floor=0.4,
    acceptance_min_drafted=100,
    exploration_share=0.02,
)
UNKNOWN = AcceptanceEstimate("chat")
POOR = AcceptanceEstimate("chat", 0.2, 0.15, 0.25, 1000.0)
GOOD = AcceptanceEstimate("chat", 0.8, 0.75, 0.85, 1000.0)


def lanes(*present: Lane, busy: int = 0, attached: bool | None = True) -> dict[Lane, LaneView]:
    """Return views of lanes with a replica each, of both by default."""
    return {
        lane: LaneView(lane, in_flight=busy, replicas=1, attached=attached)
        for lane in present or (S, P)
    }


def of_class(**fields: object) -> PolicySpec:
    """Return `SPEC` with a class of its own settings."""
    return replace(SPEC, classes={"chat": ClassPolicy(**fields)})  # type: ignore[arg-type]


def forecast(
    speculative: float, plain: float, *, k: int = 4, drafting: float | None = None
) -> Forecast:
    """Return predicted seconds of both lanes; `drafting` those with drafts where none is best."""
    best = Prediction(0.1, 0.01, speculative, k)
    with_drafts = best if k else Prediction(0.1, 0.01, drafting or speculative, 2)
    return one_draft.predicted(
        {S: best, P: Prediction(0.1, 0.01, plain, 0)}, with_drafts, 0.7, False, breakeven=0.5
    )


counts = st.integers(0, 100)
shares = st.floats(0, 1)
requests = st.builds(
    RequestView,
    workload_class=st.sampled_from(["chat", "code", "something-else"]),
    speculation=st.sampled_from(Speculation),
    constrained=st.booleans(),
    k=st.none() | st.integers(0, 8),
)


@st.composite
def measured(draw: st.DrawFn) -> AcceptanceEstimate:
    """Draw an acceptance whose bounds are in order."""
    low, mean, high = sorted(draw(st.tuples(shares, shares, shares)))
    return AcceptanceEstimate("chat", mean, low, high, draw(st.floats(0, 1e6)))


estimates = measured()
class_policies = st.builds(
    ClassPolicy,
    speculation=st.sampled_from(Speculation),
    acceptance_floor=st.none() | shares,
    max_concurrency=st.none() | counts,
    k=st.none() | st.integers(0, 8),
)
specs = st.builds(
    PolicySpec,
    max_speculative_concurrency=counts,
    acceptance_floor=shares,
    acceptance_min_drafted=st.integers(0, 1000),
    exploration_share=shares,
    constrained_lane=st.sampled_from(BOTH),
    classes=st.dictionaries(st.sampled_from(["chat", "code"]), class_policies),
)
views = st.builds(
    LaneView,
    st.just(S),
    in_flight=counts,
    running=counts,
    waiting=counts,
    replicas=st.integers(0, 3),
    attached=st.none() | st.booleans(),
)
present_lanes = st.tuples(views, st.sets(st.sampled_from(BOTH), min_size=1)).map(
    lambda drawn: {lane: replace(drawn[0], lane=lane) for lane in drawn[1]}
)
histories = st.builds(ClassHistory, st.integers(0, 10**9))


times = st.floats(1e-3, 1e3)
forecasts = st.builds(
    forecast,
    times,
    times,
    k=st.sampled_from([0, 2, 4]),
    drafting=st.none() | times,
)
laned_histories = st.builds(
    ClassHistory, st.integers(0, 100), st.integers(0, 10**6), st.none() | st.sampled_from(BOTH)
)
