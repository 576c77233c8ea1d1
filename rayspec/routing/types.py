"""What the router sees and says: passive values without Ray, vLLM or CUDA.

A request becomes a `RequestView`, engines report `EngineSnapshot`s, the policy answers with a
`Decision`, and a finished request comes back as an `Outcome`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from rayspec.routing.cost_model import Prediction, PrefillTimes, StepPoint
from rayspec.routing.lane import Lane, Rule, Speculation
from rayspec.routing.learner import StepSum
from rayspec.routing.names import K_ARG, OTHER_CLASS, header_safe, valid_class_name

__all__ = [
    "K_ARG",
    "OTHER_CLASS",
    "AcceptanceEstimate",
    "ClassHistory",
    "Decision",
    "Drafting",
    "EngineProfile",
    "EngineSnapshot",
    "Forecast",
    "Lane",
    "LaneView",
    "Outcome",
    "PositionEstimate",
    "RequestView",
    "Rule",
    "Speculation",
    "header_safe",
    "valid_class_name",
]


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What an engine has measured of its own steps, and how much it takes at a time.

    In `steps` K is the mean number of drafts that were verified per sequence; `sums` are of the
    steps that it took last. `experts` is how many experts its model has, 0 for a dense one.
    """

    steps: tuple[StepPoint, ...] = ()
    prefill: PrefillTimes | None = None
    max_num_seqs: int = 256
    chunk_tokens: int = 2048
    experts: int = 0
    sums: tuple[StepSum, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """State of one engine replica at its own time `at`; `drafted` and `accepted` only grow.

    `context` is the mean length of a running sequence and `backlog` the prompt tokens that are
    still to be prefilled, both in tokens. `candidate` is whether a new version of the draft answers
    beside the old one, None where none is wanted.
    """

    lane: Lane
    replica: str
    at: float
    running: int
    waiting: int
    kv_usage: float
    attached: bool
    drafted: int = 0
    accepted: int = 0
    context: float = 0.0
    backlog: int = 0
    profile: EngineProfile | None = None
    candidate: bool | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request: `drafted` tokens of which `accepted`, in `steps` verifications.

    `by_accepted[j]` of those steps accepted j tokens; empty if unknown. `idle_steps` decoded
    without a draft although one was attached and `k` tokens were asked for. `body_bytes` is the
    size of the request; tokens are of all its prompts and `sequences` together. `draft` is the
    version of the draft that it named.
    """

    workload_class: str
    lane: Lane
    steps: int
    drafted: int
    accepted: int
    output_tokens: int
    finished: bool
    by_accepted: tuple[int, ...] = ()
    idle_steps: int = 0
    k: int | None = None
    body_bytes: int = 0
    prompt_tokens: int = 0
    sequences: int = 1
    draft: str | None = None


@dataclass(frozen=True, slots=True)
class RequestView:
    """The little of a request that the policy looks at.

    `lane` is the one that it asks for by name.
    `sequences` is how many sequences it puts into an engine (`n` times the number of prompts).
    `body_bytes`, its size, tells about how many tokens its prompt has; `max_tokens` is the longest
    answer that it allows, None if it does not say.
    """

    workload_class: str
    speculation: Speculation = Speculation.AUTO
    constrained: bool = False
    k: int | None = None
    sequences: int = 1
    body_bytes: int = 0
    max_tokens: int | None = None
    lane: Lane | None = None


@dataclass(frozen=True, slots=True)
class LaneView:
    """What is known of a lane now.

    `attached` is None while no replica has reported recently: nothing speaks against the draft.
    `context` is the mean length of a running sequence, `backlog` the prompt tokens of all replicas
    that are still to be prefilled, `experts` those of the model, and `measured` is whether step
    times of the lane are known. `candidate` is whether a new version of the draft answers all.
    """

    lane: Lane
    in_flight: int = 0
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    replicas: int = 0
    attached: bool | None = None
    context: float = 0.0
    backlog: float = 0.0
    experts: int = 0
    measured: bool = False
    candidate: bool = False

    @property
    def concurrency(self) -> int:
        """Sequences in the lane: own ones, or those that the engines report if they are more.

        The engines see the requests of every ingress replica, so that all of them agree; the own
        count sees a burst before the engines do.
        """
        return max(self.in_flight, self.running + self.waiting)


@dataclass(frozen=True, slots=True)
class PositionEstimate:
    """The chance that a draft is offered and accepted at a position, given that all before it were.

    `trials` is how many (decayed) steps got that far; `low` and `high` bound a 95 % interval.
    """

    mean: float
    low: float
    high: float
    trials: float


@dataclass(frozen=True, slots=True)
class AcceptanceEstimate:
    """Measured share of accepted draft tokens of a class, with a confidence interval.

    Without measurements `mean` is None and the interval is [0, 1]. `positions` ends where nothing
    was measured. `coverage` is the share of the tokens asked for that the draft offered.
    """

    workload_class: str
    mean: float | None = None
    low: float = 0.0
    high: float = 1.0
    drafted: float = 0.0
    positions: tuple[PositionEstimate, ...] = ()
    coverage: float = 1.0


@dataclass(frozen=True, slots=True)
class ClassHistory:
    """What the router remembers of its own decisions about a class.

    `floored` counts the requests that met the acceptance floor so far, explored ones included;
    `turns` those that were left to the measurements, and `lane` is where the last of them went that
    did not explore.
    """

    floored: int = 0
    turns: int = 0
    lane: Lane | None = None


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafts would do for a request in one lane.

    `best` is its prediction with the best K above 0, None where it may have no drafts. `believed`
    is the acceptance per position that is reckoned with; `assumed` says that it is largely the
    prior. `breakeven` is the acceptance from which drafts pay at the lane's present load, None if
    they never do.
    """

    best: Prediction | None = None
    believed: tuple[float, ...] = ()
    assumed: bool = False
    breakeven: float | None = None

    @property
    def acceptance(self) -> float:
        """The believed acceptance of the first position."""
        return self.believed[0] if self.believed else 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a request would meet in each lane whose step times are known.

    Each is with the K that is best there; `drafting` is about those of the lanes that draft.
    `burden_s` is by how much the request would delay all others together: a router that looked at
    its own latency alone would fill the quicker lane until neither is quick.
    """

    lanes: Mapping[Lane, Prediction] = field(default_factory=dict)
    drafting: Mapping[Lane, Drafting] = field(default_factory=dict)
    burden_s: Mapping[Lane, float] = field(default_factory=dict)

    @property
    def cost_s(self) -> Mapping[Lane, float]:
        """What the request costs everybody in each lane: its latency, and the delay of others."""
        return {lane: at.total_s + self.burden_s.get(lane, 0.0) for lane, at in self.lanes.items()}

    def by_cost(self, lanes: Iterable[Lane]) -> tuple[Lane, ...]:
        """Return `lanes` with the least cost first; those without a prediction come last."""
        cost = self.cost_s
        return tuple(sorted(lanes, key=lambda lane: cost.get(lane, inf)))

    def drafts_beside(self, lane: Lane) -> Drafting | None:
        """Return what drafts do in `lane`; if it has none, in the lane that has them at least cost.

        None where no lane with drafts is known.
        """
        if lane in self.drafting:
            return self.drafting[lane]
        nearest = next(iter(self.by_cost(self.drafting)), None)
        return None if nearest is None else self.drafting[nearest]


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes and why; every text in it is safe as an HTTP header value.

    `k` is the draft length that the engine is told, None for the configured one, and `draft` the
    version of the draft, None for the usual one.
    """

    lane: Lane
    workload_class: str
    reason: str
    k: int | None = None
    forecast: Forecast | None = None
    draft: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", header_safe(self.reason))
        object.__setattr__(self, "workload_class", header_safe(self.workload_class))

    @property
    def rule(self) -> str:
        """The first word of the reason: a `Rule`."""
        return self.reason.partition(" ")[0]

    @property
    def prediction(self) -> Prediction | None:
        """What was predicted for the lane that was chosen, at the K that was chosen."""
        if self.forecast is None:
            return None
        drafting = self.forecast.drafting.get(self.lane)
        if drafting is not None and drafting.best is not None and drafting.best.k == self.k:
            return drafting.best
        return self.forecast.lanes.get(self.lane)

    @property
    def predicted(self) -> str:
        """The predicted latencies, as a header value; empty where nothing was predicted."""
        lanes = {} if self.forecast is None else self.forecast.lanes
        parts = [f"{lane}={1000 * each.total_s:.0f}ms" for lane, each in lanes.items()]
        drafting = [lane for lane in lanes if lane.drafts]
        for lane in drafting:
            name = "k" if len(drafting) == 1 else f"k_{lane}"
            parts.append(f"{name}={lanes[lane].k}")
        return header_safe(" ".join(parts))
