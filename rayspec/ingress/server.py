"""The HTTP surface: routes only. Answers come from vLLM in a lane; see `relay`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from ray.serve.handle import DeploymentHandle

from rayspec.config import IngressSpec
from rayspec.engine.messages import Call
from rayspec.ingress import refusal
from rayspec.ingress.body import read_body
from rayspec.ingress.classify import BUILTIN_CLASSES
from rayspec.ingress.lanes import ServeDeployment, ServeLane
from rayspec.ingress.monitor import LaneMonitor
from rayspec.ingress.relay import Relay
from rayspec.ingress.request import parse_request
from rayspec.ingress.scrape import scrape
from rayspec.priority import warn_if_low
from rayspec.routing import Decision, Lane, RequestView, Router
from rayspec.telemetry import logs
from rayspec.telemetry.exposition import Source
from rayspec.telemetry.metrics import IngressMetrics

__all__ = ["Ingress", "api"]

# Serve copies the application where the class below is decorated: all is set up before.
api = FastAPI(title="rayspec", docs_url=None, redoc_url=None)
refusal.install(api)

# Ten polls: a lane that has no replica is known at once, so this is only for one that hangs.
_SNAPSHOT_EXPIRY_S = 10.0
# What vLLM reads from headers; anything else stays at the ingress.
_FORWARDED = (
    "content-type",
    "accept",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
)


@serve.ingress(api)
class Ingress:
    """Ray Serve deployment that classifies, routes and relays OpenAI requests."""

    # Serve awaits an asynchronous constructor; the language does not know.
    async def __init__(  # type: ignore[misc]
        self,
        spec: IngressSpec,
        lanes: Mapping[Lane, DeploymentHandle],
        drafts: Sequence[DeploymentHandle],
    ) -> None:
        logs.configure()
        warn_if_low()
        self._spec = spec
        self._metrics = IngressMetrics()
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._lanes = {lane: ServeLane(handle) for lane, handle in lanes.items()}
        context = serve.get_replica_context()
        ingresses = serve.get_deployment_handle(context.deployment, context.app_name)
        self._sources = [
            ServeDeployment(ingresses),
            *self._lanes.values(),
            *(ServeDeployment(draft) for draft in drafts),
        ]
        named = (rule.workload_class for rule in spec.class_rules)
        self._router = Router(
            spec.policy,
            tuple(self._lanes),
            time.monotonic,
            known_classes={*BUILTIN_CLASSES, *named},
            snapshot_expiry_s=_SNAPSHOT_EXPIRY_S,
        )
        self._relay = Relay(
            self._lanes, self._router, self._metrics, timeout_s=spec.request_timeout_s
        )
        self._monitor = LaneMonitor(self._lanes, self._router)
        self._monitor.start()

    @api.post("/v1/chat/completions")
    @api.post("/v1/completions")
    @api.post("/tokenize")
    @api.post("/detokenize")
    async def generate(self, request: Request) -> Response:
        """Classify the request, choose its lane, relay vLLM's answer."""
        body = await read_body(request, self._spec.max_body_bytes)
        spec = self._spec
        parsed = parse_request(request.headers, body, spec.class_rules, k_max=spec.k_max)
        return await self._forward(request, parsed.view, parsed.body_for)

    @api.get("/v1/models")
    async def models(self, request: Request) -> Response:
        """List the served model, as a lane knows it."""
        return await self._forward(
            request, RequestView(refusal.NO_CLASS, sequences=0), lambda _: b""
        )

    @api.get("/health")
    async def health(self) -> Response:
        """Return 200 when a lane can answer, with the state of every lane."""
        views = self._router.ledger.views()
        if not any(view.replicas for view in views.values()):
            await self._monitor.poll()
            views = self._router.ledger.views()
        healthy = any(view.replicas for view in views.values())
        lanes = {
            lane: {"replicas": view.replicas, "concurrency": view.concurrency}
            | ({"draft_attached": bool(view.attached)} if lane is Lane.SPECULATIVE else {})
            for lane, view in views.items()
        }
        status = "ok" if healthy else "starting"
        return JSONResponse({"status": status, "lanes": lanes}, 200 if healthy else 503)

    @api.get("/metrics")
    async def metrics(self) -> Response:
        """Return the metrics of ingress, lanes and draft in one scrape."""
        return PlainTextResponse(await scrape(self._sources), media_type=CONTENT_TYPE_LATEST)

    def metrics_text(self) -> Source:
        """Return this ingress replica's own metrics."""
        return Source(self._metrics.text(), {"component": "ingress", "replica": self._replica})

    async def _forward(
        self, request: Request, view: RequestView, body_for: Callable[[Decision], bytes]
    ) -> Response:
        headers = [(k, v) for k in _FORWARDED if (v := request.headers.get(k)) is not None]
        call = Call(request.method, request.url.path, tuple(headers))
        return await self._relay.respond(
            view, lambda decision: replace(call, body=body_for(decision))
        )
