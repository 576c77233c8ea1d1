"""`AppConfig`: everything that can be configured, with units and defaults."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rayspec.config import foreign
from rayspec.config.access import CorsConfig, KeysConfig, PathPattern
from rayspec.config.drafts import DraftConfig, ModelDraftConfig
from rayspec.config.fields import Count, Cpus, NonEmpty, Resources, Section
from rayspec.config.lanes import (
    AlternativeLaneConfig,
    DraftingLaneConfig,
    PlainLaneConfig,
    SpeculativeLaneConfig,
)
from rayspec.config.methods import Method, ModelMethod
from rayspec.config.placement import impossible
from rayspec.config.routing import RoutingConfig
from rayspec.config.specs import Device


class IngressConfig(KeysConfig):
    """The HTTP deployment."""

    num_replicas: Count = Field(1, description="HTTP servers.")
    num_cpus: Cpus = Field(0.1, description="CPU cores that Ray reserves for one; placement only.")
    resources: Resources = Field(
        default_factory=dict,
        description="Ray resources that one takes, such as `{target: 0.01}`: it runs on a node "
        "that has them. What is in flight there is lost with that node.",
    )
    max_ongoing_requests: Count = Field(
        256, description="Requests that one HTTP server holds open together."
    )
    max_body_bytes: Count = Field(
        4 * 2**20, description="Largest request body in bytes; beyond it the status is 413."
    )
    max_sequences: Count = Field(
        256,
        description="Most sequences that one request may ask for, `n` for each of its prompts; "
        "beyond it the status is 400.",
    )
    body_timeout_s: float = Field(
        30.0, gt=0, description="Seconds in which a request must have come in; else status 408."
    )
    first_token_timeout_s: float | None = Field(
        None,
        gt=0,
        description="Seconds in which a stream must have its first token; else the engine drops "
        "the request and the status is 504. By default only `request_timeout_s` counts.",
    )
    request_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds after which the engine drops an unfinished request: status 504, or an "
        "error at the end of what was streamed.",
    )
    drain_timeout_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that replicas which a new deployment replaces have to finish what "
        "they began; by default a little more than `request_timeout_s`, so that nothing is cut.",
    )
    open_paths: list[PathPattern] = Field(
        ["/health", "/metrics", "/ui"],
        description="Paths that need no key, where there are keys; `*` stands for anything. The "
        "page at `/ui` has nothing to hide: it asks for a key to read `/ui/state`.",
    )
    cors: CorsConfig | None = Field(
        None, description="Web pages of other origins that may ask; by default none."
    )
    ui: bool = Field(
        True,
        description="Serve the built-in page at `/ui` and what it shows at `/ui/state`: load, "
        "acceptance, predictions and recent decisions, never prompts or answers.",
    )


class TelemetryConfig(Section):
    """What is told of requests, beside metrics; traces go where `OTEL_*` variables say."""

    request_log: bool | None = Field(
        None,
        description="One log line for each finished request, without its texts; by default where "
        "logs are JSON (`logging_config: {encoding: JSON}` beside `applications`).",
    )
    content: bool = Field(
        False, description="Prompts and answers in traces, as `gen_ai.*.messages`."
    )


class AppConfig(Section):
    """One application: a model served in one to three lanes behind an OpenAI interface."""

    model: NonEmpty = Field(
        description="The served model: alias (`smollm2`), Hugging Face id, or a folder."
    )
    served_model_name: NonEmpty | None = Field(
        None, description="Name of the model in the API; by default `model` as written."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the engines run; `auto` is CUDA if the cluster has a GPU."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of weights and activations; `auto` is the model's own on CUDA "
        "and the faster one for the processor on CPU.",
    )
    max_model_len: Count | None = Field(
        None, description="Longest prompt plus answer in tokens; by default the model's own."
    )
    seed: int = Field(0, ge=0, description="Seed of the engines' own random numbers.")
    frontend_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of vLLM's OpenAI answers (its BaseFrontendArgs), such as "
        "`enable_auto_tool_choice`, passed on as they are. Host, port and TLS are Serve's.",
    )
    speculative: SpeculativeLaneConfig | None = Field(
        None, description="The lane whose tokens are drafted; may be left out."
    )
    alternative: AlternativeLaneConfig | None = Field(
        None,
        description="A further lane whose tokens are drafted, by the engines themselves and in "
        "another way than in the speculative one; requests are routed among the lanes by what is "
        "measured. A calibration knows nothing of it: it learns while it serves.",
    )
    plain: PlainLaneConfig | None = Field(
        None, description="The lane without a draft; may be left out."
    )
    draft: DraftConfig | None = Field(
        None,
        description="The draft deployment; goes with the speculative lane, unless its engines "
        "draft themselves (`speculative.draft`).",
    )
    routing: RoutingConfig = Field(
        default_factory=RoutingConfig, description="How requests are classified and routed."
    )
    ingress: IngressConfig = Field(
        default_factory=IngressConfig, description="The HTTP deployment."
    )
    telemetry: TelemetryConfig = Field(
        default_factory=TelemetryConfig, description="What is told of requests."
    )

    def models(self) -> list[str]:
        """Return every model that the application loads, as written here."""
        candidate = self.draft.candidate if isinstance(self.draft, ModelDraftConfig) else None
        sections = (self.draft, candidate, *self._methods())
        drafts = [model for each in sections if (model := getattr(each, "model", None))]
        return list(dict.fromkeys([self.model, *drafts]))

    def draft_models(self) -> list[str]:
        """Return the models that draft and must share the target's tokens."""
        models = []
        if isinstance(self.draft, ModelDraftConfig):
            candidate = self.draft.candidate
            models += [self.draft.model, *([] if candidate is None else [candidate.model])]
        for own in self._methods():
            if isinstance(own, ModelMethod) and own.method == "draft_model":
                models += [] if own.args.get("use_heterogeneous_vocab") else [own.model]
        return models

    def drafting(self) -> dict[str, DraftingLaneConfig]:
        """Return the lanes whose tokens are drafted, by name."""
        lanes = {"speculative": self.speculative, "alternative": self.alternative}
        return {name: lane for name, lane in lanes.items() if lane is not None}

    def _methods(self) -> list[Method]:
        """Return by which methods engines draft themselves."""
        return [lane.draft for lane in self.drafting().values() if lane.draft is not None]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.alternative is not None and self.speculative is None and self.plain is None:
            raise ValueError("alternative: call it 'speculative', or add 'speculative' or 'plain'")
        if self.speculative is None and self.plain is None:
            raise ValueError("plain: configure 'plain', 'speculative' or both")
        own = self.speculative is not None and self.speculative.draft is not None
        if self.speculative is not None and self.draft is None and not own:
            raise ValueError("draft: the speculative lane needs one, such as {kind: ngram}")
        if self.draft is not None and own:
            raise ValueError("draft: leave it out, or 'draft' of the speculative lane; not both")
        if self.speculative is None and self.draft is not None:
            raise ValueError("draft: remove it or add a 'speculative' lane that uses it")
        if wrong := foreign.unknown(self.frontend_args, foreign.FRONTEND_ARGS):
            raise ValueError(
                f"frontend_args.{wrong[0]}: vLLM's answers have no such setting{wrong[1]}"
            )
        self._check_k()
        self._check_devices()
        return self

    def _check_k(self) -> None:
        longest = {lane.num_speculative_tokens: name for name, lane in self.drafting().items()}
        if not longest:
            return
        highest = max(longest)
        for name, settings in self.routing.classes.items():
            if settings.k is not None and settings.k > highest:
                raise ValueError(
                    f"routing.classes.{name}.k: must not exceed "
                    f"{longest[highest]}.num_speculative_tokens ({highest})"
                )

    def _check_devices(self) -> None:
        if self.device == "cpu":
            for name in ("speculative", "alternative", "plain"):
                lane = getattr(self, name)
                if lane is not None and lane.num_gpus:
                    raise ValueError(f"{name}.num_gpus: leave it out with device 'cpu'")
        # What `auto` means is known where the application is built; some things work nowhere.
        devices: tuple[Device, ...] = ("cuda", "cpu") if self.device == "auto" else (self.device,)
        found = [wrong for device in devices if (wrong := impossible(self.draft, device))]
        if len(found) == len(devices):
            raise ValueError(f"draft.{found[0][0]}: {found[0][1]}")
        shards = self.draft.data_parallel_size if isinstance(self.draft, ModelDraftConfig) else 1
        if self.speculative is not None and shards > self.speculative.max_num_seqs:
            raise ValueError(
                "draft.data_parallel_size: must not exceed speculative.max_num_seqs "
                f"({self.speculative.max_num_seqs})"
            )
