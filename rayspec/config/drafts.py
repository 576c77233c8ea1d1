"""Configuration of the draft deployment, one section per kind."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rayspec.config.fields import Count, Cpus, Env, Gpus, NonEmpty, Resources, Section, Switch


class _Draft(Section):
    num_cpus: Cpus = Field(
        0.1, description="CPU cores that Ray reserves for the draft; placement only."
    )
    resources: Resources = Field(
        default_factory=dict,
        description="Ray resources that one draft takes, such as `{draft: 0.01}`: it runs on a "
        "node that has them.",
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


class CandidateConfig(Section):
    """A new version of the draft model, tried beside the old one on a share of the requests."""

    model: NonEmpty = Field(
        description="Alias, Hugging Face id or folder of the new version. It must share the "
        "target's tokenizer, as the old one; everything else about it is as `draft` says."
    )
    share: float = Field(
        0.1, gt=0, le=0.5, description="Share of the requests that have the new version meanwhile."
    )
    min_requests: int = Field(
        50, ge=10, description="Requests that each version must have had before it is judged."
    )
    tolerance: float = Field(
        0.02,
        gt=0,
        le=0.5,
        description="Part of the tokens per step that the new version may yield less: it takes "
        "over once it surely yields no less than that, and is rolled back once it surely does, "
        "over all requests or for one class.",
    )


class ModelDraftConfig(_Draft):
    """A smaller model with the target's tokenizer."""

    kind: Literal["model"] = Field(description="Selects a draft model.")
    model: NonEmpty = Field(
        description="Alias, Hugging Face id or folder of the draft model. It must share the "
        "target's tokenizer and vocabulary; start-up says what differs if it does not."
    )
    other_weights: bool = Field(
        False,
        description="Whether a draft that `rayspec distill` made for other weights than the "
        "target's, such as those before a fine-tuning, is taken all the same: its tokens may be "
        "accepted less often. Otherwise start-up reads the target's weights to compare them.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the draft model runs; `auto` is the application's device."
    )
    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto",
        description="What computes the draft: `vllm` runs vLLM's model classes and kernels in CUDA "
        "graphs, `transformers` any causal language model on any device, slower. `auto` is `vllm` "
        "on CUDA and `transformers` on CPU.",
    )
    num_gpus: Gpus | None = Field(
        None,
        description="GPUs that Ray reserves for one draft; by default 1 on CUDA and 0 on CPU. A "
        "fraction lets it share a GPU. Where the fractions of draft and engine fit one GPU, their "
        "link is made to work between two processes on it, over the loopback interface.",
    )
    data_parallel_size: Count = Field(
        1,
        description="Drafts, each with its own GPU; every one serves its share of an engine's "
        "sequences.",
    )
    num_threads: Count = Field(
        1,
        description="CPU threads of the draft model's computations. Threads that share cores with "
        "an engine slow both down.",
    )
    quantization: Literal["none", "fp8"] = Field(
        "none",
        description="Number format of the draft's weights: `fp8` halves what a step reads. Drafts "
        "are only hints, so this costs acceptance at most.",
    )
    vocab_trim: NonEmpty | None = Field(
        None,
        description="JSON, npy or pt file with the token ids that the draft may propose; its "
        "output layer keeps these alone, which takes less time and no correctness. A name without "
        "a folder is a file of the draft model's folder. By default all.",
    )
    load_format: NonEmpty = Field(
        "auto",
        description="vLLM's load format of the draft's weights, such as `dummy` for random ones; "
        "`auto` reads the files of the model.",
    )
    fused: Switch = Field(
        "auto",
        description="Whether decoding uses rayspec's fused kernels (`on`, `off`); `auto` takes "
        "them for the batch sizes where they prove faster at start-up.",
    )
    kv_gib: float | None = Field(
        None,
        gt=0,
        description="GiB of GPU memory for the draft's KV cache; by default what its sequences "
        "can need, within the memory that is free.",
    )
    sampling: Literal["greedy", "sparse"] = Field(
        "greedy",
        description="How the draft chooses tokens for requests with a temperature: `greedy` takes "
        "the likeliest; `sparse` samples from the `top_m` likeliest and sends their weights along, "
        "which raises acceptance. Answers have the model's own distribution in both cases.",
    )
    top_m: Literal[2, 4, 8, 16, 32, 64] = Field(
        32, description="Tokens that `sampling: sparse` chooses from."
    )
    candidate: CandidateConfig | None = Field(
        None,
        description="A new version of the draft to try while the old one serves. It takes CPUs "
        "and GPUs of its own, as many as one draft does.",
    )


class RandomDraftConfig(_Draft):
    """Random tokens: a draft as bad as can be, for drills that show it costs no correctness."""

    kind: Literal["random"] = Field(description="Selects random drafts.")


DraftConfig = Annotated[
    NgramDraftConfig | ModelDraftConfig | RandomDraftConfig, Field(discriminator="kind")
]
