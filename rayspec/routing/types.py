"""What the router sees and says: passive values without Ray, vLLM or CUDA.

A request becomes a `RequestView`, engines report `EngineSnapshot`s, the policy answers with a
`Decision`, and a finished request comes back as an `Outcome`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "K_ARG",
    "OTHER_CLASS",
    "AcceptanceEstimate",
    "ClassHistory",
    "Decision",
    "EngineSnapshot",
    "Lane",
    "LaneView",
    "Outcome",
    "RequestView",
    "Rule",
    "Speculation",
    "header_safe",
    "valid_class_name",
]

K_ARG = "rayspec.k"
"""Key of a request's own draft length in vLLM's `SamplingParams.extra_args`.

Flat, because `vllm_xargs`, which carries it there, refuses nested objects (vLLM 0.32.0).
"""

OTHER_CLASS = "other"
"""Where statistics of classes beyond the tracked number are pooled."""

_CLASS_NAME = re.compile(r"[a-z0-9_-]{1,32}")
_MAX_HEADER_CHARS = 200
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]+")


class Lane(StrEnum):
    """Which of the two target deployments serves a request."""

    SPECULATIVE = "speculative"
    PLAIN = "plain"

    @property
    def other(self) -> Lane:
        """The lane that is not this one."""
        return Lane.PLAIN if self is Lane.SPECULATIVE else Lane.SPECULATIVE


class Speculation(StrEnum):
    """What a request, or the configuration of a class, asks for."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class Rule(StrEnum):
    """The rule that decided, first word of every `Decision.reason`; stable, safe as a label."""

    OVERRIDE = "override"
    CONSTRAINED = "constrained"
    ONLY_LANE = "only_lane"
    CLASS = "class"
    DETACHED = "detached"
    ACCEPTANCE = "acceptance"
    EXPLORE = "explore"
    CONCURRENCY = "concurrency"
    DEFAULT = "default"
    DOWN = "down"
    SPILL = "spill"


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """State of one engine replica at its own time `at`; `drafted` and `accepted` only grow."""

    lane: Lane
    replica: str
    at: float
    running: int
    waiting: int
    kv_usage: float
    attached: bool
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request: `drafted` tokens of which `accepted`, in `steps` verifications."""

    workload_class: str
    lane: Lane
    steps: int
    drafted: int
    accepted: int
    output_tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class RequestView:
    """The little of a request that the policy looks at.

    `sequences` is how many sequences it puts into an engine (`n` times the number of prompts).
    """

    workload_class: str
    speculation: Speculation = Speculation.AUTO
    constrained: bool = False
    k: int | None = None
    sequences: int = 1


@dataclass(frozen=True, slots=True)
class LaneView:
    """What is known of a lane now.

    `attached` is None while no replica has reported recently: nothing speaks against the draft.
    """

    lane: Lane
    in_flight: int = 0
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    replicas: int = 0
    attached: bool | None = None

    @property
    def concurrency(self) -> int:
        """Sequences in the lane: own ones, or those that the engines report if they are more.

        The engines see the requests of every ingress replica, so that all of them agree; the own
        count sees a burst before the engines do.
        """
        return max(self.in_flight, self.running + self.waiting)


@dataclass(frozen=True, slots=True)
class AcceptanceEstimate:
    """Measured share of accepted draft tokens of a class, with a confidence interval.

    Without measurements `mean` is None and the interval is [0, 1].
    """

    workload_class: str
    mean: float | None = None
    low: float = 0.0
    high: float = 1.0
    drafted: float = 0.0


@dataclass(frozen=True, slots=True)
class ClassHistory:
    """What the router remembers of its own decisions about a class.

    `floored` counts the requests that met the acceptance floor so far, explored ones included.
    """

    floored: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes and why; every text in it is safe as an HTTP header value."""

    lane: Lane
    workload_class: str
    reason: str
    k: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", header_safe(self.reason))
        object.__setattr__(self, "workload_class", header_safe(self.workload_class))

    @property
    def rule(self) -> str:
        """The first word of the reason: a `Rule`."""
        return self.reason.partition(" ")[0]


def header_safe(text: str) -> str:
    """Return `text` as printable ASCII on one line, at most 200 characters."""
    clean = _NOT_PRINTABLE.sub("?", text[: 2 * _MAX_HEADER_CHARS]).strip()
    return clean if len(clean) <= _MAX_HEADER_CHARS else clean[: _MAX_HEADER_CHARS - 3] + "..."


def valid_class_name(name: str) -> bool:
    """Whether `name` may be used as a workload class: 1 to 32 of `a-z0-9_-`."""
    return _CLASS_NAME.fullmatch(name) is not None
