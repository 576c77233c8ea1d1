"""Composes the Ray Serve application: `import_path: rayspec.app:build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from rayspec.config import AppSpec, DraftSpec, IngressSpec, TargetSpec, derive, parse
from rayspec.draft.deployment import Draft
from rayspec.engine.autoscaling import AUTOSCALING_POLICY
from rayspec.engine.cpu import CpuShare
from rayspec.engine.own_draft import OwnDraftTarget
from rayspec.engine.replica import CANDIDATE_DEPLOYMENT, PlainTarget, SpeculativeTarget
from rayspec.ingress.server import Ingress
from rayspec.routing import Lane
from rayspec.telemetry import export

__all__ = ["build", "compose"]

# A full lane is the client's business, not an error of ours (Serve's own default is 503).
_BACKPRESSURE = {"status_code": 429, "retry_after_s": 1}
# What a retiring replica waits between two looks at whether all is answered.
_DRAIN_LOOP_S = 1.0
# An HTTP server is cheap: its successor serves before it stops.
_INGRESS_SURGE_PERCENT = 100
_HEALTH_CHECK_PERIOD_S = 5.0
# A deployment keeps its name when the lane's drafts become its own.
_NAMES = {
    Lane.SPECULATIVE: "SpeculativeTarget",
    Lane.ALTERNATIVE: "AlternativeTarget",
    Lane.PLAIN: "PlainTarget",
}


def build(args: dict[str, Any]) -> Application:
    """Return the application that `args`, an `AppConfig` as a mapping, describes.

    Raises `ConfigError` naming field, value and remedy, also for `OTEL_*` variables.
    """
    export.check()
    has_gpu = ray.is_initialized() and ray.cluster_resources().get("GPU", 0) > 0
    return compose(derive(parse(args), has_gpu=has_gpu))


def compose(spec: AppSpec) -> Application:
    """Bind the deployments of `spec` to each other."""
    drafts = [] if spec.draft is None else _drafts(spec.draft)
    # Targets find it by its name, when the ingress tells them: it may come and go beside them.
    tried = [] if spec.candidate is None else [_draft(CANDIDATE_DEPLOYMENT, spec.candidate)]
    engines = sum(target.num_replicas for target in spec.targets)
    lanes: dict[Lane, Any] = {}
    first = 0
    for target in spec.targets:
        cpus = CpuShare(first, engines)
        first += target.num_replicas
        if target.speculation is not None and target.speculation.own is not None:
            lanes[target.lane] = _target(OwnDraftTarget, target, cpus)
        elif target.lane is Lane.SPECULATIVE:
            lanes[target.lane] = _target(SpeculativeTarget, target, cpus, drafts)
        else:
            lanes[target.lane] = _target(PlainTarget, target, cpus)
    return _ingress(spec.ingress, lanes, [*drafts, *tried])


def _target(cls: type[PlainTarget], spec: TargetSpec, *others: Any) -> Any:
    deployment: Any = serve.deployment(
        cls,
        name=_NAMES[spec.lane],
        **_replicas(spec),
        max_surge_percent=spec.max_surge_percent,
        max_ongoing_requests=spec.max_ongoing_requests,
        max_queued_requests=spec.max_queued_requests,
        backpressure_config=_BACKPRESSURE,
        graceful_shutdown_timeout_s=spec.drain_timeout_s,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOP_S,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        ray_actor_options=_actor(spec.num_cpus, spec.num_gpus, spec.env, spec.resources),
    )
    return deployment.bind(spec, *others)


def _replicas(spec: TargetSpec) -> dict[str, Any]:
    """Return how many engines Serve keeps: a number, or what decides it."""
    scaling = spec.autoscaling
    if scaling is None:
        return {"num_replicas": spec.num_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            target_ongoing_requests=scaling.target_sequences,
            look_back_period_s=scaling.look_back_period_s,
            upscale_delay_s=scaling.upscale_delay_s,
            downscale_delay_s=scaling.downscale_delay_s,
            policy=AutoscalingPolicy(policy_function=AUTOSCALING_POLICY),
        )
    }


def _drafts(spec: DraftSpec) -> list[Any]:
    """Return one deployment per draft: each is restarted, and attached to, by itself."""
    names = ["Draft", *(f"Draft-{shard}" for shard in range(1, spec.replicas))]
    return [_draft(name, spec) for name in names]


def _draft(name: str, spec: DraftSpec) -> Any:
    deployment: Any = serve.deployment(
        Draft,
        name=name,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        ray_actor_options=_actor(spec.num_cpus, spec.num_gpus, spec.env, spec.resources),
    )
    return deployment.bind(spec)


def _ingress(spec: IngressSpec, lanes: Mapping[Lane, Any], drafts: Sequence[Any]) -> Application:
    deployment: Any = serve.deployment(
        Ingress,
        name="Ingress",
        num_replicas=spec.num_replicas,
        max_surge_percent=_INGRESS_SURGE_PERCENT,
        max_ongoing_requests=spec.max_ongoing_requests,
        graceful_shutdown_timeout_s=spec.drain_timeout_s,
        graceful_shutdown_wait_loop_s=_DRAIN_LOOP_S,
        ray_actor_options=_actor(spec.num_cpus, 0, {}, spec.resources),
    )
    application: Application = deployment.bind(spec, lanes, drafts)
    return application


def _actor(
    num_cpus: float,
    num_gpus: float,
    env: Mapping[str, str],
    resources: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "resources": dict(resources),
        "runtime_env": {"env_vars": dict(env)},
    }
