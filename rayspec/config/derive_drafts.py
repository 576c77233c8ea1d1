"""Derives the specs of the draft deployments, and of a trial of a new version."""

from __future__ import annotations

import math
from dataclasses import replace

from rayspec.config.drafts import ModelDraftConfig, NgramDraftConfig
from rayspec.config.lanes import DraftingLaneConfig
from rayspec.config.placement import draft_device, draft_engine, draft_gpus
from rayspec.config.schema import AppConfig
from rayspec.config.specs import Device, DraftSpec
from rayspec.routing.trial import TrialSpec

__all__ = ["candidate_spec", "draft_spec", "k_tiers", "trial_spec"]


def k_tiers(settings: DraftingLaneConfig) -> tuple[int, ...]:
    """Return the draft lengths that a lane's engines take."""
    return tuple(sorted({0, settings.num_speculative_tokens, *(settings.k_tiers or ())}))


def draft_spec(config: AppConfig, device: Device) -> DraftSpec | None:
    """Return the draft deployments; None where there are to be none."""
    draft = config.draft
    if draft is None or config.speculative is None:
        return None
    spec = DraftSpec(
        kind=draft.kind,
        target_model=config.model,
        k_max=config.speculative.num_speculative_tokens,
        k_tiers=k_tiers(config.speculative),
        targets=config.speculative.num_replicas,
        target_slots=config.speculative.max_num_seqs,
        slots=config.speculative.num_replicas * config.speculative.max_num_seqs,
        max_len=config.max_model_len,
        device=draft_device(draft, device),
        num_gpus=0.0,
        num_cpus=draft.num_cpus,
        resources=dict(draft.resources),
        env=dict(draft.env),
    )
    if isinstance(draft, NgramDraftConfig):
        return replace(spec, ngram_min=draft.ngram_min, ngram_max=draft.ngram_max)
    if isinstance(draft, ModelDraftConfig):
        return replace(
            spec,
            model=draft.model,
            slots=config.speculative.num_replicas
            * math.ceil(config.speculative.max_num_seqs / draft.data_parallel_size),
            num_gpus=draft_gpus(draft, device),
            replicas=draft.data_parallel_size,
            num_threads=draft.num_threads,
            engine=draft_engine(draft, device),
            quantization=draft.quantization,
            vocab_trim=draft.vocab_trim,
            other_weights=draft.other_weights,
            load_format=draft.load_format,
            fused=None if draft.fused == "auto" else draft.fused == "on",
            kv_gib=draft.kv_gib,
            sampling=draft.sampling,
            top_m=draft.top_m,
        )
    return spec


def candidate_spec(config: AppConfig, device: Device) -> DraftSpec | None:
    """Return the draft that is tried: the old one with another model, and all slots in one."""
    draft, spec = config.draft, draft_spec(config, device)
    if not isinstance(draft, ModelDraftConfig) or draft.candidate is None or spec is None:
        return None
    return replace(
        spec,
        model=draft.candidate.model,
        model_field="draft.candidate.model",
        replicas=1,
        slots=spec.targets * spec.target_slots,
    )


def trial_spec(config: AppConfig) -> TrialSpec | None:
    """Return how a new version of the draft is tried; None where none is."""
    if not isinstance(config.draft, ModelDraftConfig) or config.draft.candidate is None:
        return None
    given = config.draft.candidate
    return TrialSpec(given.share, given.min_requests, given.tolerance)
