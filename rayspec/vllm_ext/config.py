"""Our settings as they travel inside vLLM's `additional_config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ADDITIONAL_CONFIG_KEY", "STEP_K_ATTRIBUTE", "ExtConfig"]

ADDITIONAL_CONFIG_KEY = "rayspec"
# On vLLM's ModelRunnerOutput: the most that a step's K may be from now on; None is all of it.
STEP_K_ATTRIBUTE = "rayspec_k"


@dataclass(frozen=True, slots=True)
class ExtConfig:
    """What a worker needs to know about the link, beside vLLM's own configuration."""

    # A slow draft costs one step this much; after that the link does not wait for it.
    deadline_s: float = 0.25
    # Compare both ends' tokens at every step; for tests and debugging.
    checksum: bool = False
    # Values that the per-step K may take; 0 and `num_speculative_tokens` are always among them.
    k_tiers: tuple[int, ...] = ()
    tokenizer_hash: str = ""
    # What carries step frames, "gloo" or "nccl", and what the draft tells about its distribution:
    # "none", or "sparse" with the weights of `q_top` tokens per position.
    transport: str = "gloo"
    q_mode: str = "none"
    q_top: int = 0
    # Drafts that share the slots: slot s belongs to shard s % draft_shards.
    draft_shards: int = 1
    # A link more, for a new version of the draft: it drafts for the requests that name it.
    candidate: bool = False
    # Verify drafts with our kernels on CUDA rather than on vLLM's path.
    fused_verification: bool = True
    ping_interval_s: float = 0.5
    pong_timeout_s: float = 3.0
    enabled: bool = True
    disabled_reason: str | None = None

    def to_additional_config(self) -> dict[str, Any]:
        """Return the value of `additional_config`: plain types only, because vLLM hashes it."""
        fields = asdict(self)
        fields["k_tiers"] = list(self.k_tiers)
        return {ADDITIONAL_CONFIG_KEY: fields}

    @classmethod
    def from_additional_config(cls, additional_config: object) -> ExtConfig:
        """Read what `to_additional_config` wrote; without our key the extension is disabled."""
        ours = (
            additional_config.get(ADDITIONAL_CONFIG_KEY)
            if isinstance(additional_config, Mapping)
            else None
        )
        if ours is None:
            return cls(enabled=False, disabled_reason="no rayspec settings in additional_config")
        fields = dict(ours)
        fields["k_tiers"] = tuple(fields.get("k_tiers", ()))
        return cls(**fields)
