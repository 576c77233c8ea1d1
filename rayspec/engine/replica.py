"""Target deployments: one vLLM engine each, without a draft or with one behind a link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from ray import serve
from ray.serve.handle import DeploymentHandle

from rayspec.config import TargetSpec
from rayspec.engine import autoscaling
from rayspec.engine.asgi import ResponseStart
from rayspec.engine.attach import AttachLoop
from rayspec.engine.cpu import CpuShare, bind_cores
from rayspec.engine.launch import plain_args, speculative_args
from rayspec.engine.messages import Begin, Call, End
from rayspec.errors import EngineLost
from rayspec.link.protocol import Hello
from rayspec.link.ticket import Ticket
from rayspec.models.fetch import resolve
from rayspec.priority import warn_if_low
from rayspec.routing import EngineSnapshot, Lane
from rayspec.telemetry import export, logs
from rayspec.telemetry.engine_call import EngineCall
from rayspec.telemetry.exposition import Source
from rayspec.telemetry.link import LinkCollector

__all__ = ["CANDIDATE_DEPLOYMENT", "PlainTarget", "SpeculativeTarget"]

logger = logging.getLogger(__name__)

CANDIDATE_DEPLOYMENT = "DraftCandidate"
"""Name of the deployment of a new version of the draft."""


class PlainTarget:
    """One vLLM engine that decodes without a draft."""

    lane = Lane.PLAIN

    # Serve awaits an asynchronous constructor; the language does not know.
    async def __init__(self, spec: TargetSpec, cpus: CpuShare) -> None:  # type: ignore[misc]
        as_json = logs.configure()
        export.start()  # before vLLM, which would make a tracer provider of its own
        warn_if_low()
        context = serve.get_replica_context()
        if spec.device == "cpu":
            share = cpus.of_replica(context.rank.rank, spec.num_replicas)
            bind_cores(share, spec.tensor_parallel_size)
        # Imported here: vLLM takes seconds to import and sets up its platform while it does.
        from rayspec.engine.serving import Serving

        self._spec = spec
        self._logs_requests = spec.telemetry.logs_requests(as_json)
        self._replica = context.replica_id.unique_id
        started = time.monotonic()
        path = await asyncio.to_thread(resolve, spec.model)
        args = await asyncio.to_thread(self._engine_args, path)
        self._serving = await Serving.start(args, spec.frontend_args)
        logger.info("%s engine ready after %.0f s", self.lane, time.monotonic() - started)
        if experts := self._serving.profile().experts:
            logger.info(
                "the model is a mixture of %d experts: requests speculate only where they or "
                "their class ask for it, unless routing.calibration is set",
                experts,
            )

    def _engine_args(self, path: Path) -> Mapping[str, Any]:
        return plain_args(self._spec, path)

    async def handle(self, call: Call) -> AsyncGenerator[Begin | bytes | End, None]:
        """Answer one HTTP request with a `Begin`, body chunks and an `End`."""
        from rayspec.engine.serving import Meter

        meter = Meter(keep_texts=self._spec.telemetry.content)
        with EngineCall(call, self.lane, self._replica, log=self._logs_requests) as followed:
            answer = self._serving.stream(followed.call, meter)
            async with contextlib.aclosing(answer) as items:
                async for item in items:
                    if isinstance(item, ResponseStart):
                        followed.answered(item.status)
                        yield Begin(item.status, item.headers, self.snapshot())
                    else:
                        yield item
            if not self._serving.lost:  # else what was streamed ended with vLLM's error
                generation = replace(meter.total, draft_step_s=self.draft_step_s)
                followed.finished(generation, meter.texts)
                yield End(generation, self.snapshot())

    def snapshot(self) -> EngineSnapshot:
        """Return this replica's load and acceptance now; raises `EngineLost` without an engine."""
        if self._serving.lost:
            raise EngineLost("the engine is dead")
        stats = self._serving.stats()
        return EngineSnapshot(
            lane=self.lane,
            replica=self._replica,
            at=time.time(),
            running=stats.running,
            waiting=stats.waiting,
            kv_usage=stats.kv_usage,
            attached=self.attached,
            drafted=stats.drafted,
            accepted=stats.accepted,
            context=stats.context,
            backlog=self._serving.backlog(),
            profile=self._serving.profile(),
            candidate=self.candidate_attached,
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the engine's sequences, which Serve hands to `autoscaling`."""
        return autoscaling.stats(self._serving.stats())

    @property
    def attached(self) -> bool:
        """Whether a draft answers this engine."""
        return False

    @property
    def candidate_attached(self) -> bool | None:
        """Whether a new version of the draft answers beside the old one; None unless tried."""
        return None

    async def openapi(self) -> dict[str, Any]:
        """Return vLLM's own OpenAPI document of this engine."""
        return await asyncio.to_thread(self._serving.openapi)

    @property
    def draft_step_s(self) -> float | None:
        """How long the draft took for a step lately, in seconds; None without a draft."""
        return None

    def metrics_text(self) -> Source:
        """Return vLLM's metrics and ours of this replica."""
        labels = {"component": "target", "lane": str(self.lane), "replica": self._replica}
        return Source(self._serving.metrics_text(), labels)

    async def check_health(self) -> None:
        """Raise if the engine is dead, so that Serve replaces this replica."""
        await self._serving.check_health()

    def __del__(self) -> None:
        # Serve calls this when it retires the replica.
        if (serving := getattr(self, "_serving", None)) is not None:
            serving.shutdown()


class SpeculativeTarget(PlainTarget):
    """One vLLM engine whose drafts come from the draft deployments, one per shard of its slots.

    Without a draft it decodes like the plain one; it attaches whenever a draft can be had.
    """

    lane = Lane.SPECULATIVE

    async def __init__(  # type: ignore[misc]
        self, spec: TargetSpec, cpus: CpuShare, drafts: Sequence[DeploymentHandle]
    ) -> None:
        await super().__init__(spec, cpus)
        handles: Sequence[Any] = drafts
        self._attach = [
            AttachLoop(
                self._serving.hello,
                _Draft(draft),
                self._serving.worker,
                lambda: self._serving.stats().steps,
                shard,
            )
            for shard, draft in enumerate(handles)
        ]
        self._candidate: AttachLoop | None = None
        self._candidate_since = 0.0
        REGISTRY.register(LinkCollector(self._status))
        for loop in self._attach:
            loop.start()

    def __del__(self) -> None:
        # An engine that stops while it is asked something would be reported as an error.
        for loop in getattr(self, "_attach", ()):
            loop.cancel()
        if (candidate := getattr(self, "_candidate", None)) is not None:
            candidate.cancel()
        super().__del__()

    def _engine_args(self, path: Path) -> Mapping[str, Any]:
        return speculative_args(self._spec, path)

    @property
    def attached(self) -> bool:
        """Whether a draft answers this engine, for at least some of its sequences."""
        return any(loop.attached for loop in self._attach)

    async def follow_candidate(self, since: float, wanted: bool) -> None:
        """Attach to a new version of the draft too, or to none any more; may be called again.

        The ingress that says so started at `since`, seconds since the epoch: while a deployment
        changes, old ones speak too, and are not heard.
        """
        if since < self._candidate_since:
            return
        self._candidate_since = since
        if wanted and self._candidate is None:
            context = serve.get_replica_context()
            handle: Any = serve.get_deployment_handle(CANDIDATE_DEPLOYMENT, context.app_name)
            self._candidate = AttachLoop(
                self._serving.hello,
                _Draft(handle),
                self._serving.worker,
                lambda: self._serving.stats().steps,
                len(self._attach),
            )
            self._candidate.start()
        elif not wanted and self._candidate is not None:
            self._candidate.cancel()
            self._candidate = None

    @property
    def candidate_attached(self) -> bool | None:
        """Whether a new version of the draft answers beside the old one; None unless tried."""
        return None if self._candidate is None else self._candidate.attached

    @property
    def draft_step_s(self) -> float | None:
        """How long the first draft took for a step lately, in seconds; None while unknown."""
        link = self._attach[0].status.get("link") or {}
        return link.get("draft_ewma_us", 0) / 1e6 or None

    def _status(self) -> Mapping[str, Any]:
        """Return the newest status, without the candidate's link while none was ever tried."""
        status = self._attach[0].status
        shards = status.get("shards", ())
        if self._candidate is None:
            shards = shards[: len(self._attach)]
        return {**status, "shards": shards}

    def links(self) -> dict[str, Any]:
        """Return how this replica's links are: of each its state and figures, and k in use."""
        status = self._status()
        shards: Sequence[Mapping[str, Any]] = status.get("shards", ())
        return {
            "replica": self._replica,
            "lane": str(self.lane),
            "method": None,
            "attached": self.attached,
            "k": status.get("k"),
            "disabled_reason": status.get("disabled_reason"),
            "drafted_per_pos": list(status.get("drafted_per_pos", ())),
            "accepted_per_pos": list(status.get("accepted_per_pos", ())),
            "shards": [
                {
                    "state": shard.get("state", ""),
                    "live": shard.get("live", 0),
                    "link": dict(shard.get("link") or {}),
                }
                for shard in shards
            ],
        }


class _Draft:
    """A draft deployment, whose methods are called on its one replica."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def attach(self, hello: Hello) -> Awaitable[Ticket]:
        ticket: Awaitable[Ticket] = self._handle.attach.remote(hello)
        return ticket

    def holds(self, link_id: str) -> Awaitable[bool]:
        held: Awaitable[bool] = self._handle.holds.remote(link_id)
        return held
