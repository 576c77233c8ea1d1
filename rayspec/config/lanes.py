"""Configuration of the lanes."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from rayspec.config import foreign
from rayspec.config.fields import Count, Cpus, Env, Gpus, Resources, Section
from rayspec.config.methods import Method

# Keys of vLLM's AsyncEngineArgs that follow from the rest of the configuration, and where to say
# what was meant instead.
OWNED_ENGINE_ARGS = {
    "model": "set 'model' at the top",
    "tokenizer": "the tokenizer is the model's own",
    "served_model_name": "set 'served_model_name' at the top",
    "dtype": "set 'dtype' at the top",
    "max_model_len": "set 'max_model_len' at the top",
    "seed": "set 'seed' at the top",
    "max_num_seqs": "set 'max_num_seqs' of the lane",
    "tensor_parallel_size": "set 'tensor_parallel_size' of the lane",
    "pipeline_parallel_size": "use 'tensor_parallel_size' of the lane",
    "data_parallel_size": "use 'num_replicas' of the lane",
    "distributed_executor_backend": "it follows from the lane's placement",
    "worker_cls": "rayspec installs its own",
    "scheduler_cls": "rayspec installs its own",
    "additional_config": "rayspec keeps its settings there",
    "speculative_config": "use 'draft' at the top, or 'draft' of the lane",
    "per_request_spec_decode_metrics": "rayspec measures acceptance by it",
    "disable_log_stats": "routing needs the engine's statistics",
}


# What only drafts over a link know.
_OF_THE_LINK = {"draft_deadline_ms", "fused_verification"}


class LaneConfig(Section):
    """A deployment of vLLM engines."""

    num_replicas: Count = Field(1, description="Engines in this lane.")
    max_surge_percent: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Engines, in percent of `num_replicas`, that may start beside the old ones "
        "when a deployment changes, before those stop. By default 100 on CPU, which takes twice "
        "the memory for that time, and 0 on CUDA, where each takes GPUs of its own: a lane of one "
        "engine then answers nothing while it restarts.",
    )
    tensor_parallel_size: Count = Field(1, description="GPUs (or CPU processes) of one engine.")
    num_gpus: Gpus | None = Field(
        None,
        description="GPUs that Ray reserves for one engine; by default the tensor parallel size on "
        "CUDA and 0 on CPU. A fraction lets an engine of one GPU share it.",
    )
    num_cpus: Cpus = Field(
        0.1,
        description="CPU cores that Ray reserves for one engine. This is for placement only and "
        "limits nothing; the default lets the whole application fit on a laptop.",
    )
    resources: Resources = Field(
        default_factory=dict,
        description="Ray resources that one engine takes, such as `{target: 0.01}`: it runs on a "
        "node that has them.",
    )
    max_num_seqs: Count = Field(64, description="Sequences that one engine decodes together.")
    max_ongoing_requests: Count | None = Field(
        None,
        description="Requests that one engine takes before it counts as full; by default "
        "`max_num_seqs`.",
    )
    max_queued_requests: int = Field(
        128,
        ge=0,
        description="Requests that each ingress replica holds back while every engine of the lane "
        "is full; beyond that the client gets status 429.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of vLLM's AsyncEngineArgs, passed on as they are.",
    )
    env: Env = Field(
        default_factory=dict, description="Environment variables of the engine's processes."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in self.engine_args:
            if key in OWNED_ENGINE_ARGS:
                raise ValueError(f"engine_args.{key}: {OWNED_ENGINE_ARGS[key]}")
        if wrong := foreign.unknown(self.engine_args, foreign.ENGINE_ARGS):
            raise ValueError(f"engine_args.{wrong[0]}: vLLM has no such argument{wrong[1]}")
        tp = self.tensor_parallel_size
        if self.num_gpus is not None and self.num_gpus > 0:
            shares_one = tp == 1 and self.num_gpus <= 1
            if not shares_one and self.num_gpus != tp:
                raise ValueError(f"num_gpus: leave it out or set it to tensor_parallel_size ({tp})")
        return self


class AutoscalingConfig(Section):
    """How many engines a lane has, by the sequences that run and wait in it."""

    min_replicas: Count = Field(1, description="Fewest engines.")
    max_replicas: Count = Field(description="Most engines.")
    target_sequences: float | None = Field(
        None,
        gt=0,
        description="Sequences, running and waiting, that each engine is to have: more make "
        "engines start, fewer make them stop. By default three quarters of `max_num_seqs`.",
    )
    look_back_period_s: float = Field(
        30.0,
        gt=10,
        description="Seconds over which the sequences are averaged; engines report every 10.",
    )
    upscale_delay_s: float = Field(
        30.0, ge=0, description="Seconds that too many sequences must last before engines start."
    )
    downscale_delay_s: float = Field(
        600.0, ge=0, description="Seconds that too few sequences must last before engines stop."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas: must be at least min_replicas ({self.min_replicas})")
        return self


class PlainLaneConfig(LaneConfig):
    """Engines that decode without a draft."""

    autoscaling: AutoscalingConfig | None = Field(
        None, description="Lets the number of engines follow the load, instead of `num_replicas`."
    )

    @model_validator(mode="after")
    def _check_autoscaling(self) -> Self:
        if self.autoscaling is not None and "num_replicas" in self.model_fields_set:
            raise ValueError("num_replicas: leave it out where 'autoscaling' says how many")
        return self


class DraftingLaneConfig(LaneConfig):
    """Engines that verify drafted tokens."""

    draft: Method | None = Field(
        None,
        description="Drafts that each engine makes itself, by a method of vLLM's: there is no "
        "draft deployment then, and no `draft` at the top.",
    )
    num_speculative_tokens: int = Field(
        4, ge=1, le=32, description="Most draft tokens per sequence and step (K)."
    )
    k_tiers: list[int] | None = Field(
        None,
        description="Values that K may take while running, each up to `num_speculative_tokens`. "
        "0 and `num_speculative_tokens` always belong to them; by default there are no others. "
        "On CUDA each tier costs its own set of graphs.",
    )

    @model_validator(mode="after")
    def _check_tiers(self) -> Self:
        highest = self.num_speculative_tokens
        wrong = [k for k in self.k_tiers or () if not 0 <= k <= highest]
        if wrong:
            raise ValueError(
                f"k_tiers: {wrong[0]} is not between 0 and num_speculative_tokens ({highest})"
            )
        return self


class SpeculativeLaneConfig(DraftingLaneConfig):
    """Engines that verify drafted tokens: those of the draft deployment, or their own."""

    fused_verification: bool = Field(
        True,
        description="Verify drafts on CUDA with rayspec's kernels rather than on vLLM's path: the "
        "same distribution, in one read of the logits.",
    )
    draft_deadline_ms: float | None = Field(
        None,
        gt=0,
        le=60_000,
        description="How long a step waits for drafts, in milliseconds; by default 20 where engine "
        "and draft are both on GPUs (NCCL) and 250 elsewhere (gloo). A draft that is late once is "
        "not waited for again until it has caught up.",
    )

    @model_validator(mode="after")
    def _check_draft(self) -> Self:
        if self.draft is not None:
            for name in _OF_THE_LINK & self.model_fields_set:
                raise ValueError(f"{name}: leave it out where the engine drafts itself ('draft')")
        return self


class AlternativeLaneConfig(DraftingLaneConfig):
    """Engines that draft themselves, in another way than those of the speculative lane."""

    draft: Method = Field(
        description="Drafts that each engine makes itself, by a method of vLLM's. Drafts of the "
        "draft deployment are the speculative lane's.",
    )
