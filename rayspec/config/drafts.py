"""Configuration of the draft deployment, one section per kind."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rayspec.config.fields import Count, Cpus, Env, Gpus, NonEmpty, Section


class _Draft(Section):
    num_cpus: Cpus = Field(
        0.1, description="CPU cores that Ray reserves for the draft; placement only."
    )
    env: Env = Field(
        default_factory=dict, description="Environment variables of the draft's process."
    )


class NgramDraftConfig(_Draft):
    """Prompt lookup: drafts what followed the latest words the last time they occurred."""

    kind: Literal["ngram"] = Field(description="Selects prompt lookup.")
    ngram_min: Count = Field(2, description="Fewest tokens that must match.")
    ngram_max: Count = Field(4, description="Most tokens that are looked up; longer matches win.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ngram_min > self.ngram_max:
            raise ValueError(f"ngram_min: must not exceed ngram_max ({self.ngram_max})")
        return self


class ModelDraftConfig(_Draft):
    """A smaller model with the target's tokenizer."""

    kind: Literal["model"] = Field(description="Selects a draft model.")
    model: NonEmpty = Field(
        description="Alias, Hugging Face id or folder of the draft model. It must share the "
        "target's tokenizer and vocabulary; start-up says what differs if it does not."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the draft model runs; `auto` is the application's device."
    )
    num_gpus: Gpus | None = Field(
        None, description="GPUs that Ray reserves; by default 1 on CUDA and 0 on CPU."
    )
    num_threads: Count = Field(
        1,
        description="CPU threads of the draft model's computations. Threads that share cores with "
        "an engine slow both down.",
    )


class RandomDraftConfig(_Draft):
    """Random tokens: a draft as bad as can be, for drills that show it costs no correctness."""

    kind: Literal["random"] = Field(description="Selects random drafts.")


DraftConfig = Annotated[
    NgramDraftConfig | ModelDraftConfig | RandomDraftConfig, Field(discriminator="kind")
]
