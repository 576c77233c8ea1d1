"""The HTTP surface: routes only. Answers come from vLLM in a lane; see `relay`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from rayspec.config import IngressSpec, parse_keys
from rayspec.engine.messages import Call
from rayspec.errors import BadRequest, NotFound, Unavailable
from rayspec.ingress import guard, page, refusal
from rayspec.ingress.body import read_body
from rayspec.ingress.classify import BUILTIN_CLASSES
from rayspec.ingress.keys import KeyRing
from rayspec.ingress.lanes import LaneDown, ServeDeployment, ServeLane
from rayspec.ingress.monitor import LaneMonitor
from rayspec.ingress.openapi import document
from rayspec.ingress.overview import Overview
from rayspec.ingress.relay import Relay
from rayspec.ingress.request import parse_request
from rayspec.ingress.scrape import scrape
from rayspec.priority import warn_if_low
from rayspec.routing import Decision, Lane, RequestView, Router
from rayspec.telemetry import export, journey, logs
from rayspec.telemetry.exposition import Source
from rayspec.telemetry.history import History, Kept
from rayspec.telemetry.lanes import LaneCollector
from rayspec.telemetry.metrics import IngressMetrics
from rayspec.telemetry.middleware import RequestTelemetry
from rayspec.telemetry.trial import TrialCollector

__all__ = ["Ingress", "api"]

# Serve copies the application where the class below is decorated: all is set up before.
api = FastAPI(title="rayspec", openapi_url=None, docs_url=None, redoc_url=None)
refusal.install(api)
api.add_middleware(guard.Guard)
api.add_middleware(RequestTelemetry)

# Ten polls: a lane that has no replica is known at once, so this is only for one that hangs.
_SNAPSHOT_EXPIRY_S = 10.0
_DESCRIBE_TIMEOUT_S = 30.0
# What vLLM reads from headers; anything else stays at the ingress.
_FORWARDED = (
    "content-type",
    "accept",
    "x-request-id",
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
        as_json = logs.configure()
        export.start()
        warn_if_low()
        self._spec = spec
        self._metrics = IngressMetrics(tuple(lane for lane in lanes if lane.drafts))
        self._keys = KeyRing(spec.api_keys, spec.num_replicas, time.monotonic)
        journey.install(
            journey.Settings(
                spec.telemetry.logs_requests(as_json), spec.telemetry.content, self._metrics
            )
        )
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._lanes = {lane: ServeLane(handle) for lane, handle in lanes.items()}
        context = serve.get_replica_context()
        ingresses = ServeDeployment(
            serve.get_deployment_handle(context.deployment, context.app_name)
        )
        # Where two lanes draft, `on` does not tell which; where one does, it says all there is.
        self._named = tuple(self._lanes) if Lane.ALTERNATIVE in self._lanes else ()
        self._sources = [
            ingresses,
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
            trial=spec.trial,
        )
        if self._router.trial is not None:
            self._metrics.registry.register(TrialCollector(self._router.trial))
        self._metrics.registry.register(LaneCollector(self._router.ledger.views))
        self._history = History(time.time)
        self._relay = Relay(
            self._lanes,
            self._router,
            self._metrics,
            timeout_s=spec.request_timeout_s,
            first_token_timeout_s=spec.first_token_timeout_s,
            history=self._history,
        )
        self._overview = Overview(
            spec.served_model_name, self._router, self._history, self._lanes, ingresses
        )
        self._theirs: dict[str, Any] | None = None
        self._monitor = LaneMonitor(self._lanes, self._router, self._history.sample)
        self._monitor.start()

    def reconfigure(self, user_config: Mapping[str, Any] | None, rank: object) -> None:
        """Take the API keys of Serve's `user_config`, which changes without a restart.

        Serve calls this without a `user_config` too, as when there is none any more, where it has
        a `rank` to give.
        """
        keys = self._spec.api_keys if user_config is None else parse_keys(user_config)
        self._keys.replace(keys)

    def protect(self, app: ASGIApp) -> ASGIApp:
        """Return `app` as browsers and keys may reach it."""
        spec = self._spec
        return guard.protect(app, self._keys, spec.open_paths, spec.cors, self._metrics)

    # vLLM describes what it answers; see `openapi`.
    @api.post("/v1/chat/completions", include_in_schema=False)
    @api.post("/v1/completions", include_in_schema=False)
    @api.post("/tokenize", include_in_schema=False)
    @api.post("/detokenize", include_in_schema=False)
    async def generate(self, request: Request) -> Response:
        """Classify the request, choose its lane, relay vLLM's answer."""
        spec = self._spec
        body = await read_body(request, spec.max_body_bytes, spec.body_timeout_s)
        parsed = parse_request(
            request.headers, body, spec.class_rules, k_max=spec.k_max, lanes=self._named
        )
        journey.current().asked(parsed.decoded)
        if parsed.view.sequences > spec.max_sequences:
            raise BadRequest(
                f"The request asks for {parsed.view.sequences} sequences, n for each prompt; one "
                f"request may ask for {spec.max_sequences}.",
                param="n",
            )
        streams = parsed.decoded.get("stream") is True
        return await self._forward(request, parsed.view, parsed.body_for, streams=streams)

    @api.get("/v1/models", include_in_schema=False)
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
            | ({"draft_attached": bool(view.attached)} if lane.drafts else {})
            for lane, view in views.items()
        }
        status = "ok" if healthy else "starting"
        return JSONResponse({"status": status, "lanes": lanes}, 200 if healthy else 503)

    @api.get("/metrics")
    async def metrics(self) -> Response:
        """Return the metrics of ingress, lanes and draft in one scrape."""
        return PlainTextResponse(await scrape(self._sources), media_type=CONTENT_TYPE_LATEST)

    @api.get("/openapi.json", include_in_schema=False)
    async def openapi(self, request: Request) -> Response:
        """Describe what is served, as the vLLM of a lane knows it."""
        if self._theirs is None:
            self._theirs = await self._vllm_document()
        described = document(
            self._theirs,
            request.app.openapi(),
            model=self._spec.served_model_name,
            k_max=self._spec.k_max,
            keys=bool(self._keys),
            open_paths=self._spec.open_paths,
            lanes=self._named,
        )
        return JSONResponse(described)

    async def _vllm_document(self) -> dict[str, Any]:
        for lane in self._lanes.values():
            with contextlib.suppress(LaneDown):
                for described in await lane.broadcast("openapi", timeout_s=_DESCRIBE_TIMEOUT_S):
                    return dict(described)
        raise Unavailable("No lane is up yet that could say what is served; try again.")

    @api.get("/ui", include_in_schema=False)
    async def ui(self) -> Response:
        """Return the built-in page, which shows what `/ui/state` says."""
        self._require_ui()
        return page.respond()

    @api.get("/ui/state")
    async def ui_state(self) -> Response:
        """Return lanes, links, acceptance, predictions and recent decisions."""
        self._require_ui()
        return JSONResponse(await self._overview.state(), headers={"cache-control": "no-store"})

    def remembered(self) -> Kept:
        """Return what this ingress replica remembers for the page."""
        return self._history.kept()

    def _require_ui(self) -> None:
        if not self._spec.ui:
            raise NotFound("The page is switched off: ingress.ui is false.")

    def metrics_text(self) -> Source:
        """Return this ingress replica's own metrics."""
        return Source(self._metrics.text(), {"component": "ingress", "replica": self._replica})

    async def _forward(
        self,
        request: Request,
        view: RequestView,
        body_for: Callable[[Decision], bytes],
        *,
        streams: bool = False,
    ) -> Response:
        headers = [(k, v) for k in _FORWARDED if (v := request.headers.get(k)) is not None]
        call = Call(request.method, request.url.path, tuple(headers))
        return await self._relay.respond(
            view, lambda decision: replace(call, body=body_for(decision)), streams=streams
        )
