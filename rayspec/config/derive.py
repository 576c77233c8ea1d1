"""Derives the frozen specs of the deployments from a configuration."""

from __future__ import annotations

from dataclasses import replace

from rayspec.config.drafts import ModelDraftConfig, NgramDraftConfig
from rayspec.config.lanes import LaneConfig, SpeculativeLaneConfig
from rayspec.config.routing import RoutingConfig, RuleConfig
from rayspec.config.schema import AppConfig
from rayspec.config.specs import (
    AppSpec,
    Device,
    DraftSpec,
    IngressSpec,
    SpeculationSpec,
    TargetSpec,
)
from rayspec.ingress.classify import ClassRule
from rayspec.routing.policy import ClassPolicy, PolicySpec
from rayspec.routing.types import Lane, Speculation


def derive(config: AppConfig, *, has_gpu: bool) -> AppSpec:
    """Return the specs of all deployments; `has_gpu` decides what `device: auto` means."""
    device: Device = "cuda" if has_gpu else "cpu"
    if config.device != "auto":
        device = config.device
    return AppSpec(
        ingress=_ingress(config),
        speculative=_target(config, Lane.SPECULATIVE, config.speculative, device),
        plain=_target(config, Lane.PLAIN, config.plain, device),
        draft=_draft(config, device),
    )


def _served_name(config: AppConfig) -> str:
    return config.served_model_name or config.model


def _target(
    config: AppConfig, lane: Lane, settings: LaneConfig | None, device: Device
) -> TargetSpec | None:
    if settings is None:
        return None
    tp = settings.tensor_parallel_size
    return TargetSpec(
        lane=lane,
        model=config.model,
        served_model_name=_served_name(config),
        device=device,
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        seed=config.seed,
        num_replicas=settings.num_replicas,
        tensor_parallel_size=tp,
        num_gpus=_gpus(settings.num_gpus, device, tp),
        num_cpus=settings.num_cpus,
        max_num_seqs=settings.max_num_seqs,
        max_ongoing_requests=settings.max_ongoing_requests or settings.max_num_seqs,
        max_queued_requests=settings.max_queued_requests,
        speculation=_speculation(settings),
        engine_args=dict(settings.engine_args),
        frontend_args=dict(config.frontend_args),
        env=dict(settings.env),
    )


def _speculation(settings: LaneConfig) -> SpeculationSpec | None:
    if not isinstance(settings, SpeculativeLaneConfig):
        return None
    highest = settings.num_speculative_tokens
    return SpeculationSpec(
        num_speculative_tokens=highest,
        k_tiers=tuple(sorted({0, highest, *(settings.k_tiers or ())})),
        draft_deadline_s=settings.draft_deadline_ms / 1000,
    )


def _draft(config: AppConfig, device: Device) -> DraftSpec | None:
    draft = config.draft
    if draft is None or config.speculative is None:
        return None
    spec = DraftSpec(
        kind=draft.kind,
        target_model=config.model,
        k_max=config.speculative.num_speculative_tokens,
        slots=config.speculative.num_replicas * config.speculative.max_num_seqs,
        max_len=config.max_model_len,
        device="cpu",
        num_gpus=0.0,
        num_cpus=draft.num_cpus,
        env=dict(draft.env),
    )
    if isinstance(draft, NgramDraftConfig):
        return replace(spec, ngram_min=draft.ngram_min, ngram_max=draft.ngram_max)
    if isinstance(draft, ModelDraftConfig):
        own = device if draft.device == "auto" else draft.device
        return replace(
            spec,
            model=draft.model,
            device=own,
            num_gpus=_gpus(draft.num_gpus, own, 1),
            num_threads=draft.num_threads,
        )
    return spec


def _gpus(configured: float | None, device: Device, default: int) -> float:
    if device == "cpu":
        return 0.0
    return float(default) if configured is None else configured


def _ingress(config: AppConfig) -> IngressSpec:
    ingress = config.ingress
    return IngressSpec(
        served_model_name=_served_name(config),
        num_replicas=ingress.num_replicas,
        num_cpus=ingress.num_cpus,
        max_ongoing_requests=ingress.max_ongoing_requests,
        max_body_bytes=ingress.max_body_bytes,
        request_timeout_s=ingress.request_timeout_s,
        policy=_policy(config.routing),
        k_max=0 if config.speculative is None else config.speculative.num_speculative_tokens,
        class_rules=tuple(_rule(rule) for rule in config.routing.rules),
    )


def _policy(routing: RoutingConfig) -> PolicySpec:
    return PolicySpec(
        max_speculative_concurrency=routing.max_speculative_concurrency,
        acceptance_floor=routing.acceptance_floor,
        acceptance_half_life_s=routing.acceptance_half_life_s,
        acceptance_min_drafted=routing.acceptance_min_drafted,
        exploration_share=routing.exploration_share,
        constrained_lane=Lane(routing.constrained_lane),
        classes={
            name: ClassPolicy(
                speculation=Speculation(settings.speculation),
                acceptance_floor=settings.acceptance_floor,
                max_concurrency=settings.max_concurrency,
                k=settings.k,
            )
            for name, settings in routing.classes.items()
        },
    )


def _rule(rule: RuleConfig) -> ClassRule:
    return ClassRule(
        workload_class=rule.workload_class,
        header=(rule.header.name, rule.header.pattern) if rule.header else None,
        system_pattern=rule.system_pattern,
        prompt_pattern=rule.prompt_pattern,
        min_prompt_chars=rule.min_prompt_chars,
    )
