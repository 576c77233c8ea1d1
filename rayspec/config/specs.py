"""What each deployment is told: values only, derived from the configuration by `derive`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rayspec.ingress.classify import ClassRule
from rayspec.ingress.keys import ApiKey
from rayspec.routing.policy import PolicySpec
from rayspec.routing.trial import TrialSpec
from rayspec.routing.types import Lane

Device = Literal["cpu", "cuda"]
DraftKind = Literal["ngram", "model", "random"]
DraftEngine = Literal["vllm", "transformers"]
Transport = Literal["gloo", "nccl"]
OwnMethod = Literal["ngram", "suffix", "draft_model", "eagle", "eagle3", "mtp"]


@dataclass(frozen=True, slots=True)
class TelemetrySpec:
    """What is told of requests: a log line of each (None: in JSON logs), texts in traces."""

    request_log: bool | None = None
    content: bool = False

    def logs_requests(self, as_json: bool) -> bool:
        """Whether requests are logged where log lines are JSON, or are not."""
        return as_json if self.request_log is None else self.request_log


@dataclass(frozen=True, slots=True)
class OwnDraftSpec:
    """How an engine drafts by itself: a method of vLLM's, and fields of its SpeculativeConfig."""

    method: OwnMethod
    model: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpeculationSpec:
    """How a lane uses its drafts; `k_tiers` ascend from 0 to the maximum.

    `q_top` tokens' weights accompany each sampled draft token, none where it is 0. The engine's
    sequences are shared out over `draft_shards` drafts. With `own` the engine drafts itself, and
    what is about a draft deployment means nothing.
    """

    num_speculative_tokens: int
    k_tiers: tuple[int, ...]
    draft_deadline_s: float
    transport: Transport = "gloo"
    q_top: int = 0
    draft_shards: int = 1
    fused_verification: bool = True
    own: OwnDraftSpec | None = None

    @property
    def q_mode(self) -> Literal["none", "sparse"]:
        """What the draft tells about the distribution that it sampled from."""
        return "sparse" if self.q_top else "none"


@dataclass(frozen=True, slots=True)
class AutoscalingSpec:
    """How a lane's number of engines follows its sequences, running and waiting."""

    min_replicas: int
    max_replicas: int
    target_sequences: float
    look_back_period_s: float
    upscale_delay_s: float
    downscale_delay_s: float


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One lane: a deployment of vLLM engines; `speculation` is None in the plain lane.

    `num_replicas` is how many engines there are at most; when a deployment changes, one of them is
    replaced after the other, `max_surge_percent` of them by engines that start before it stops.
    """

    lane: Lane
    model: str
    served_model_name: str
    device: Device
    dtype: str
    max_model_len: int | None
    seed: int
    num_replicas: int
    tensor_parallel_size: int
    num_gpus: float
    num_cpus: float
    max_num_seqs: int
    max_ongoing_requests: int
    max_queued_requests: int
    max_surge_percent: int = 0
    drain_timeout_s: float = 600.0
    autoscaling: AutoscalingSpec | None = None
    speculation: SpeculationSpec | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    frontend_args: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    telemetry: TelemetrySpec = TelemetrySpec()


@dataclass(frozen=True, slots=True)
class DraftSpec:
    """The draft deployments; `target_model` is whose tokenizer and vocabulary they must share.

    There are `replicas` of them, each with its own GPUs and its share of every target's sequences;
    `slots` sequences of `max_len` tokens (None: the target model's own limit) have a KV cache in
    each. There are `targets` engines of `target_slots` sequences, which ask for one of `k_tiers`
    drafts, up to `k_max`. `model_field` is where `model` was configured.
    """

    kind: DraftKind
    target_model: str
    k_max: int
    k_tiers: tuple[int, ...]
    targets: int
    target_slots: int
    slots: int
    max_len: int | None
    device: Device
    num_gpus: float
    num_cpus: float
    model: str | None = None
    model_field: str = "draft.model"
    other_weights: bool = False
    replicas: int = 1
    num_threads: int = 1
    engine: DraftEngine = "transformers"
    quantization: Literal["none", "fp8"] = "none"
    vocab_trim: str | None = None
    load_format: str = "auto"
    fused: bool | None = None
    kv_gib: float | None = None
    sampling: Literal["greedy", "sparse"] = "greedy"
    top_m: int = 32
    ngram_min: int = 2
    ngram_max: int = 4
    resources: Mapping[str, float] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CorsSpec:
    """What browsers are told that pages of other origins may do."""

    allow_origins: tuple[str, ...]
    allow_headers: tuple[str, ...]
    max_age_s: int


@dataclass(frozen=True, slots=True)
class IngressSpec:
    """The HTTP deployment: how requests are read, classified and routed.

    `k_max` is the most draft tokens that a request may ask for; 0 without a lane that drafts.
    Without `api_keys` nobody needs one; `open_paths` never do. `ui` is whether the built-in page is
    served.
    """

    served_model_name: str
    num_replicas: int
    num_cpus: float
    max_ongoing_requests: int
    max_body_bytes: int
    request_timeout_s: float
    policy: PolicySpec
    max_sequences: int = 256
    body_timeout_s: float = 30.0
    first_token_timeout_s: float | None = None
    drain_timeout_s: float = 600.0
    api_keys: tuple[ApiKey, ...] = ()
    open_paths: tuple[str, ...] = ("/health", "/metrics", "/ui")
    cors: CorsSpec | None = None
    k_max: int = 0
    ui: bool = True
    resources: Mapping[str, float] = field(default_factory=dict)
    class_rules: tuple[ClassRule, ...] = ()
    telemetry: TelemetrySpec = TelemetrySpec()
    trial: TrialSpec | None = None


@dataclass(frozen=True, slots=True)
class AppSpec:
    """A whole application; at least one lane, and a draft only with the speculative one.

    The engines of the `alternative` lane draft themselves.

    `candidate` is the new version of the draft that is tried beside it.
    """

    ingress: IngressSpec
    speculative: TargetSpec | None
    plain: TargetSpec | None
    draft: DraftSpec | None
    candidate: DraftSpec | None = None
    alternative: TargetSpec | None = None

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The lanes that there are."""
        lanes = (self.speculative, self.alternative, self.plain)
        return tuple(lane for lane in lanes if lane is not None)
