"""Derives the frozen specs of the deployments from a configuration."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

from rayspec.config.derive_drafts import candidate_spec, draft_spec, k_tiers, trial_spec
from rayspec.config.drafts import ModelDraftConfig
from rayspec.config.lanes import (
    DraftingLaneConfig,
    LaneConfig,
    PlainLaneConfig,
    SpeculativeLaneConfig,
)
from rayspec.config.methods import ModelMethod, MtpMethod
from rayspec.config.placement import (
    gpus,
    impossible,
    share_hardware,
    share_one_gpu,
    shared_gpu_env,
    transport,
)
from rayspec.config.routing import RuleConfig
from rayspec.config.schema import AppConfig
from rayspec.config.specs import (
    AppSpec,
    AutoscalingSpec,
    Device,
    IngressSpec,
    OwnDraftSpec,
    SpeculationSpec,
    TargetSpec,
    TelemetrySpec,
    Transport,
)
from rayspec.errors import ConfigError
from rayspec.ingress.classify import ClassRule
from rayspec.planning.calibration import CALIBRATED, Calibration
from rayspec.routing.curves import Measured
from rayspec.routing.policy import ClassPolicy, PolicySpec
from rayspec.routing.types import Lane, Speculation

# Seconds that a step waits for drafts unless configured. A round over NCCL takes a few
# milliseconds; over gloo a busy machine delays one by tens.
_DEADLINE_S: dict[Transport, float] = {"gloo": 0.25, "nccl": 0.02}
# What a replica needs beyond its longest request: to notice that it ended, and to stop.
_DRAIN_MARGIN_S = 5.0
# FlashInfer compiles its sampler with the CUDA toolkit when an engine starts, and without one, as
# after installing from wheels, vLLM 0.32 does not start (its issue 49497). vLLM's own sampler is
# the one that requests with seeds, and those of mixed batches, get anyway.
_ENGINE_ENV = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
# The speculative lane's drafting hook on CUDA is that of vLLM's Model Runner V2. It is vLLM's
# default; asked for by name, vLLM refuses at start what V2 lacks instead of taking V1 in silence.
_V2_RUNNER = {"VLLM_USE_V2_MODEL_RUNNER": "1"}


def derive(config: AppConfig, *, has_gpu: bool) -> AppSpec:
    """Return the specs of all deployments; `has_gpu` decides what `device: auto` means.

    Raises `ConfigError` for a draft that cannot work on that device.
    """
    device: Device = "cuda" if has_gpu else "cpu"
    if config.device != "auto":
        device = config.device
    if (wrong := impossible(config.draft, device)) is not None:
        field, remedy = wrong
        raise ConfigError(f"draft.{field}", getattr(config.draft, field), remedy)
    return _placed(
        AppSpec(
            ingress=_ingress(config, device),
            speculative=_target(config, Lane.SPECULATIVE, config.speculative, device),
            alternative=_target(config, Lane.ALTERNATIVE, config.alternative, device),
            plain=_target(config, Lane.PLAIN, config.plain, device),
            draft=draft_spec(config, device),
            candidate=candidate_spec(config, device),
        )
    )


def _placed(app: AppSpec) -> AppSpec:
    """Return `app` with the environment that GPUs, and who shares one, ask for."""
    target, draft = app.speculative, app.draft
    app = replace(app, alternative=_on_gpu(app.alternative), plain=_on_gpu(app.plain))
    if target is None or target.device == "cpu":
        return app
    if draft is None:  # vLLM chooses the runner that knows its method
        return replace(app, speculative=_on_gpu(target))
    ours, theirs = _ENGINE_ENV | _V2_RUNNER, dict[str, str]()
    nccl = target.speculation is not None and target.speculation.transport == "nccl"
    if nccl and share_one_gpu(target, draft.num_gpus):
        ours |= shared_gpu_env("target")
        theirs |= shared_gpu_env("draft")
    candidate = app.candidate
    if candidate is not None:
        candidate = replace(candidate, env=theirs | dict(candidate.env))
    return replace(
        app,
        speculative=replace(target, env=ours | dict(target.env)),
        draft=replace(draft, env=theirs | dict(draft.env)),
        candidate=candidate,
    )


def _on_gpu(target: TargetSpec | None) -> TargetSpec | None:
    """Return a lane with the environment of engines on CUDA, if it has some there."""
    if target is None or target.device == "cpu":
        return target
    return replace(target, env=_ENGINE_ENV | dict(target.env))


def _served_name(config: AppConfig) -> str:
    return config.served_model_name or config.model


def _target(
    config: AppConfig, lane: Lane, settings: LaneConfig | None, device: Device
) -> TargetSpec | None:
    if settings is None:
        return None
    tp = settings.tensor_parallel_size
    scaling = _autoscaling(settings)
    surge = settings.max_surge_percent
    return TargetSpec(
        lane=lane,
        model=config.model,
        served_model_name=_served_name(config),
        device=device,
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        seed=config.seed,
        num_replicas=settings.num_replicas if scaling is None else scaling.max_replicas,
        max_surge_percent=(100 if device == "cpu" else 0) if surge is None else surge,
        drain_timeout_s=_drain_timeout_s(config),
        autoscaling=scaling,
        tensor_parallel_size=tp,
        num_gpus=gpus(settings.num_gpus, device, tp),
        num_cpus=settings.num_cpus,
        max_num_seqs=settings.max_num_seqs,
        max_ongoing_requests=settings.max_ongoing_requests or settings.max_num_seqs,
        max_queued_requests=settings.max_queued_requests,
        speculation=_speculation(config, settings, device),
        engine_args=dict(settings.engine_args),
        frontend_args=dict(config.frontend_args),
        resources=dict(settings.resources),
        env=dict(settings.env),
        telemetry=_telemetry(config),
    )


def _telemetry(config: AppConfig) -> TelemetrySpec:
    return TelemetrySpec(config.telemetry.request_log, config.telemetry.content)


def _speculation(config: AppConfig, settings: LaneConfig, device: Device) -> SpeculationSpec | None:
    if not isinstance(settings, DraftingLaneConfig):
        return None
    carrier = transport(config.draft, device)
    spec = SpeculationSpec(
        num_speculative_tokens=settings.num_speculative_tokens,
        k_tiers=k_tiers(settings),
        draft_deadline_s=_DEADLINE_S[carrier],
        transport=carrier,
    )
    if (own := settings.draft) is not None:
        model = own.model if isinstance(own, ModelMethod | MtpMethod) else None
        return replace(spec, own=OwnDraftSpec(own.method, model, own.vllm()))
    if isinstance(settings, SpeculativeLaneConfig):
        spec = replace(spec, fused_verification=settings.fused_verification)
        if settings.draft_deadline_ms is not None:
            spec = replace(spec, draft_deadline_s=settings.draft_deadline_ms / 1000)
    draft = config.draft
    if not isinstance(draft, ModelDraftConfig):
        return spec
    return replace(
        spec,
        q_top=draft.top_m if draft.sampling == "sparse" else 0,
        draft_shards=draft.data_parallel_size,
    )


def _autoscaling(lane: LaneConfig) -> AutoscalingSpec | None:
    if not isinstance(lane, PlainLaneConfig) or lane.autoscaling is None:
        return None
    given = lane.autoscaling
    return AutoscalingSpec(
        min_replicas=given.min_replicas,
        max_replicas=given.max_replicas,
        target_sequences=given.target_sequences or 0.75 * lane.max_num_seqs,
        look_back_period_s=given.look_back_period_s,
        upscale_delay_s=given.upscale_delay_s,
        downscale_delay_s=given.downscale_delay_s,
    )


def _drain_timeout_s(config: AppConfig) -> float:
    ingress = config.ingress
    return ingress.drain_timeout_s or ingress.request_timeout_s + _DRAIN_MARGIN_S


def _ingress(config: AppConfig, device: Device) -> IngressSpec:
    ingress = config.ingress
    return IngressSpec(
        served_model_name=_served_name(config),
        num_replicas=ingress.num_replicas,
        num_cpus=ingress.num_cpus,
        max_ongoing_requests=ingress.max_ongoing_requests,
        max_body_bytes=ingress.max_body_bytes,
        request_timeout_s=ingress.request_timeout_s,
        max_sequences=ingress.max_sequences,
        body_timeout_s=ingress.body_timeout_s,
        first_token_timeout_s=ingress.first_token_timeout_s,
        drain_timeout_s=_drain_timeout_s(config),
        api_keys=ingress.keys(),
        open_paths=tuple(ingress.open_paths),
        cors=None if ingress.cors is None else ingress.cors.spec(),
        policy=_policy(config, device),
        k_max=max((each.num_speculative_tokens for each in config.drafting().values()), default=0),
        ui=ingress.ui,
        resources=dict(ingress.resources),
        class_rules=tuple(_rule(rule) for rule in config.routing.rules),
        telemetry=_telemetry(config),
        trial=trial_spec(config),
    )


def _policy(config: AppConfig, device: Device) -> PolicySpec:
    routing = config.routing
    settings = {lane: getattr(config, lane) for lane in Lane}
    targets = [
        found for lane, own in settings.items() if (found := _target(config, lane, own, device))
    ]
    return PolicySpec(
        max_speculative_concurrency=routing.max_speculative_concurrency,
        acceptance_floor=routing.acceptance_floor,
        acceptance_half_life_s=routing.acceptance_half_life_s,
        acceptance_min_drafted=routing.acceptance_min_drafted,
        exploration_share=routing.exploration_share,
        exploration_loss=routing.exploration_loss,
        hysteresis=routing.hysteresis,
        k_tiers=() if config.speculative is None else k_tiers(config.speculative),
        alternative_k_tiers=() if config.alternative is None else k_tiers(config.alternative),
        measured=None if routing.calibration is None else _measured(config, routing.calibration),
        constrained_lane=Lane(routing.constrained_lane),
        shared_hardware=any(share_hardware(*pair) for pair in combinations(targets, 2)),
        classes={
            name: ClassPolicy(
                speculation=Speculation(settings.speculation),
                acceptance_floor=settings.acceptance_floor,
                max_concurrency=settings.max_concurrency,
                k=settings.k,
                hysteresis=settings.hysteresis,
            )
            for name, settings in routing.classes.items()
        },
    )


def _measured(config: AppConfig, path: str) -> Measured:
    """Return what a calibration file says; raises `ConfigError` for one of another application."""
    found = Calibration.load(Path(path).expanduser())
    if found.model not in (config.model, _served_name(config)):
        raise ConfigError(
            "routing.calibration", path, f"is of {found.model}; calibrate {config.model}"
        )
    for lane in CALIBRATED:
        if getattr(config, lane) is not None and lane not in found.lanes:
            raise ConfigError(
                "routing.calibration", path, f"lacks the {lane} lane; calibrate with it running"
            )
    return found.measured()


def _rule(rule: RuleConfig) -> ClassRule:
    return ClassRule(
        workload_class=rule.workload_class,
        header=(rule.header.name, rule.header.pattern) if rule.header else None,
        system_pattern=rule.system_pattern,
        prompt_pattern=rule.prompt_pattern,
        min_prompt_chars=rule.min_prompt_chars,
    )
