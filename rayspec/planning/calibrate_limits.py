"""What an application's HTTP API does not tell: from its configuration, or assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from rayspec.config import AppConfig, TargetSpec, derive
from rayspec.config.drafts import ModelDraftConfig
from rayspec.errors import ConfigError
from rayspec.planning.calibration import WITHOUT_ALTERNATIVE
from rayspec.routing.types import Lane

__all__ = ["LaneLimits", "Limits", "limits_of"]

# vLLM's own on CPU and on GPUs under 70 GB. Read at vLLM 0.32.0.
_CHUNK_TOKENS: Final = 2048
_ASSUMED_SEQS: Final = 16


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How much one engine takes at a time, and how many GPUs it has with its draft."""

    max_num_seqs: int = _ASSUMED_SEQS
    chunk_tokens: int = _CHUNK_TOKENS
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of both lanes and what the draft is; `known` from a configuration, else assumed."""

    lanes: Mapping[Lane, LaneLimits] = field(default_factory=dict)
    draft: str = ""
    known: bool = False

    def of(self, lane: Lane) -> LaneLimits:
        """Return the limits of a lane."""
        return self.lanes.get(lane, LaneLimits())


def limits_of(config: AppConfig, *, has_gpu: bool) -> Limits:
    """Return the limits of the application that `config` describes."""
    if config.alternative is not None:
        raise ConfigError("alternative", config.alternative.draft.method, WITHOUT_ALTERNATIVE)
    spec = derive(config, has_gpu=has_gpu)
    draft_gpus = spec.draft.num_gpus * spec.draft.replicas if spec.draft else 0.0
    lanes = {
        target.lane: _lane(target, draft_gpus if target.lane is Lane.SPECULATIVE else 0.0)
        for target in (spec.speculative, spec.plain)
        if target is not None
    }
    draft = config.draft
    name: str = draft.kind if draft else ""
    if config.speculative is not None and config.speculative.draft is not None:
        name = f"vLLM {config.speculative.draft.method}"
    if isinstance(draft, ModelDraftConfig):
        name = f"{draft.kind} {draft.model.rstrip('/').rpartition('/')[2]}"
    return Limits(lanes, name, known=True)


def _lane(target: TargetSpec, draft_gpus: float) -> LaneLimits:
    chunk = target.engine_args.get("max_num_batched_tokens") or _CHUNK_TOKENS
    return LaneLimits(target.max_num_seqs, int(chunk), ceil(target.num_gpus + draft_gpus))
