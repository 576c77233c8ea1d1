"""Configuration of drafts that the engine makes itself, one section per method of vLLM's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rayspec.config import foreign
from rayspec.config.fields import Count, NonEmpty, Section, Share

__all__ = ["OWNED_ARGS", "Method", "ModelMethod", "MtpMethod", "NgramMethod", "SuffixMethod"]

# Keys of vLLM's SpeculativeConfig that follow from the rest of the configuration, and where to say
# what was meant instead.
OWNED_ARGS = {
    "method": "set 'method' of the draft",
    "model": "set 'model' of the draft",
    "num_speculative_tokens": "set 'num_speculative_tokens' of the lane",
    "num_speculative_tokens_per_batch_size": "set 'k_tiers' of the lane",
    "prompt_lookup_min": "set 'ngram_min' of the draft",
    "prompt_lookup_max": "set 'ngram_max' of the draft",
    "suffix_decoding_max_tree_depth": "set 'max_tree_depth' of the draft",
    "suffix_decoding_max_cached_requests": "set 'max_cached_requests' of the draft",
    "suffix_decoding_max_spec_factor": "set 'max_spec_factor' of the draft",
    "suffix_decoding_min_token_prob": "set 'min_token_prob' of the draft",
    "rejection_sample_method": "answers must have the model's own distribution",
    "synthetic_acceptance_rates": "answers must have the model's own distribution",
    "synthetic_acceptance_length": "answers must have the model's own distribution",
    "target_model_config": "vLLM sets it",
    "target_parallel_config": "vLLM sets it",
    "draft_model_config": "vLLM sets it",
    "draft_parallel_config": "vLLM sets it",
}


class _Method(Section):
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of vLLM's SpeculativeConfig, such as "
        "`draft_tensor_parallel_size`, passed on as they are.",
    )

    @model_validator(mode="after")
    def _check_args(self) -> Self:
        for key in self.args:
            if key in OWNED_ARGS:
                raise ValueError(f"args.{key}: {OWNED_ARGS[key]}")
        if wrong := foreign.unknown(self.args, foreign.SPECULATIVE_ARGS):
            raise ValueError(f"args.{wrong[0]}: vLLM has no such setting{wrong[1]}")
        return self

    def vllm(self) -> dict[str, Any]:
        """Return the fields of vLLM's SpeculativeConfig that this section is about."""
        return dict(self.args)


class NgramMethod(_Method):
    """Prompt lookup inside the engine."""

    method: Literal["ngram"] = Field(
        description="Selects prompt lookup: what followed the latest words the last time."
    )
    ngram_min: Count = Field(2, description="Fewest tokens that must match.")
    ngram_max: Count = Field(4, description="Most tokens that are looked up; longer matches win.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ngram_min > self.ngram_max:
            raise ValueError(f"ngram_min: must not exceed ngram_max ({self.ngram_max})")
        return self

    def vllm(self) -> dict[str, Any]:
        """Return the fields of vLLM's SpeculativeConfig that this section is about."""
        lookup = {"prompt_lookup_min": self.ngram_min, "prompt_lookup_max": self.ngram_max}
        return {**lookup, **self.args}


class SuffixMethod(_Method):
    """Suffix decoding: lookup in suffix trees of the prompt and of earlier answers."""

    method: Literal["suffix"] = Field(
        description="Selects suffix decoding; it needs the package arctic-inference."
    )
    max_tree_depth: Count = Field(
        24, description="Depth of the trees in tokens: of a match and what follows it together."
    )
    max_cached_requests: int = Field(
        10_000, ge=0, description="Earlier answers that are looked up in; 0 for the prompt alone."
    )
    max_spec_factor: float = Field(
        1.0, ge=0, description="Draft tokens for each token that matched, at most."
    )
    min_token_prob: Share = Field(
        0.1, description="Least share of its occurrences that a token must follow in to be drafted."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if foreign.lacks("arctic_inference"):
            raise ValueError(
                "method: needs a package that is not installed; "
                "pip install arctic-inference==0.1.1, or use 'ngram'"
            )
        return self

    def vllm(self) -> dict[str, Any]:
        """Return the fields of vLLM's SpeculativeConfig that this section is about."""
        return {
            "suffix_decoding_max_tree_depth": self.max_tree_depth,
            "suffix_decoding_max_cached_requests": self.max_cached_requests,
            "suffix_decoding_max_spec_factor": self.max_spec_factor,
            "suffix_decoding_min_token_prob": self.min_token_prob,
            **self.args,
        }


class ModelMethod(_Method):
    """A draft model, or an EAGLE head, beside the target on the engine's own GPUs."""

    method: Literal["draft_model", "eagle", "eagle3"] = Field(
        description="Selects a smaller model with the target's tokenizer (`draft_model`), or a "
        "head that was trained on the target's hidden states (`eagle`, `eagle3`)."
    )
    model: NonEmpty = Field(
        description="Alias, Hugging Face id or folder of the model or head. A draft model must "
        "share the target's tokenizer; start-up says what differs if it does not."
    )


class MtpMethod(_Method):
    """The multi-token-prediction layers that some models are trained with."""

    method: Literal["mtp"] = Field(description="Selects the target's own prediction layers.")
    model: NonEmpty | None = Field(
        None, description="Where these layers are, if not in the target's own files."
    )


Method = Annotated[
    NgramMethod | SuffixMethod | ModelMethod | MtpMethod, Field(discriminator="method")
]
