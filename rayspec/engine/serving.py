"""vLLM's engine and its own OpenAI application, in this process. Read at vLLM 0.32.0.

The only importer of vLLM's serving classes: request validation, chat templates, tools, streaming
and error bodies are vLLM's, reached through the FastAPI application that `vllm serve` runs.
"""

from __future__ import annotations

import argparse
import contextlib
import contextvars
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from prometheus_client import generate_latest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.prometheus import get_prometheus_registry

from rayspec.engine import asgi
from rayspec.engine.lost import unless_lost
from rayspec.engine.messages import Call, Generation
from rayspec.link.protocol import Hello
from rayspec.routing import EngineProfile
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.cpu_executor import openmp_settings
from rayspec.vllm_ext.params import link_spec
from rayspec.vllm_ext.stat_logger import EngineStats, LatestStats

__all__ = ["Meter", "Serving"]


class Meter:
    """Adds up what one HTTP request generates, over all its prompts and choices.

    `texts` has the text and the finish reason of every choice, None unless they are to be kept.
    """

    def __init__(self, *, keep_texts: bool = False) -> None:
        self.total = Generation()
        self._started = time.monotonic()
        self._texts: dict[tuple[str, int], tuple[str, str | None]] | None = (
            {} if keep_texts else None
        )

    @property
    def texts(self) -> list[tuple[str, str | None]] | None:
        """What was generated, choice by choice."""
        return None if self._texts is None else list(self._texts.values())

    def start(self, output: Any) -> None:
        """Count the prompt, from the first `RequestOutput` of an engine request."""
        prompt = len(output.prompt_token_ids or ())
        self.total = replace(self.total, prompt_tokens=self.total.prompt_tokens + prompt)

    def add(self, output: Any) -> None:
        """Count the new tokens of a `RequestOutput`, and its acceptance where a choice ended."""
        total = self.total
        for choice in output.outputs:
            total = replace(total, output_tokens=total.output_tokens + len(choice.token_ids))
            if choice.token_ids and total.first_token_s is None:
                total = replace(total, first_token_s=time.monotonic() - self._started)
            if choice.finish_reason is not None:
                reasons = (*total.finish_reasons, str(choice.finish_reason))
                total = replace(total, finish_reasons=reasons)
            if self._texts is not None:
                key = (output.request_id, choice.index)
                before = self._texts.get(key, ("", None))[0]
                # A stream brings what is new, a whole answer comes at once: either way it is added.
                self._texts[key] = (before + choice.text, choice.finish_reason)
            if choice.spec_decode_metrics is not None:
                facts = choice.spec_decode_metrics.to_dict()
                counts = zip_longest(total.by_accepted, facts["acceptance_histogram"], fillvalue=0)
                total = replace(
                    total,
                    steps=total.steps + facts["num_spec_steps"],
                    drafted=total.drafted + facts["num_draft_tokens"],
                    accepted=total.accepted + facts["num_accepted_draft_tokens"],
                    by_accepted=tuple(sum(pair) for pair in counts),
                )
        self.total = total


_meter: contextvars.ContextVar[Meter | None] = contextvars.ContextVar("meter", default=None)


class _MeteredLLM(AsyncLLM):
    """`AsyncLLM` that reports every output to the `Meter` of the request it belongs to."""

    async def generate(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        meter = _meter.get()
        first = True
        async for output in super().generate(*args, **kwargs):
            if meter is not None:
                if first:
                    meter.start(output)
                    first = False
                meter.add(output)
            yield output


class Serving:
    """One vLLM engine behind vLLM's own OpenAI application.

    `start` takes the keyword arguments of `AsyncEngineArgs` and of vLLM's `FrontendArgs`; it
    returns when the engine can serve, and raises what vLLM raises when it cannot.
    """

    def __init__(self, engine: AsyncLLM, app: Any, stats: LatestStats) -> None:
        self._engine = engine
        self._app = app
        self._stats = stats

    @classmethod
    async def start(
        cls, engine_args: Mapping[str, Any], frontend_args: Mapping[str, Any]
    ) -> Serving:
        """Start the engine and the application."""
        args = AsyncEngineArgs(**engine_args)
        config = args.create_engine_config()
        stats = LatestStats()
        with openmp_settings(config):
            engine = _MeteredLLM.from_vllm_config(config, stat_loggers=[stats.factory])
        try:
            tasks = await engine.get_supported_tasks()
            frontend = FrontendArgs(disable_fastapi_docs=True, **frontend_args)
            namespace = argparse.Namespace(**(vars(frontend) | vars(args)))
            app = build_app(namespace, tasks, engine.model_config)
            await init_app_state(engine, app.state, namespace, tasks)
        except BaseException:
            engine.shutdown()
            raise
        return cls(engine, app, stats)

    async def stream(
        self, call: Call, meter: Meter
    ) -> AsyncGenerator[asgi.ResponseStart | bytes, None]:
        """Yield the answer of vLLM's application to `call`, metered by `meter`.

        Raises `EngineLost` where a dead engine would make it an error.
        """
        # The application runs in a task made inside `asgi.stream`, which copies this context.
        _meter.set(meter)
        answer = unless_lost(lambda: asgi.stream(self._app, call), lambda: self.lost)
        async with contextlib.aclosing(answer) as items:
            async for item in items:
                yield item

    @property
    def lost(self) -> bool:
        """Whether the engine is dead, until Serve has noticed and replaces this replica."""
        return bool(self._engine.errored)

    def stats(self) -> EngineStats:
        """Return the newest figures of the scheduler."""
        return self._stats.latest

    def profile(self) -> EngineProfile:
        """Return what the engine has measured of its own steps."""
        return self._stats.profile

    def backlog(self) -> int:
        """Return the prompt tokens of all requests that have no first token yet."""
        return int(self._engine.output_processor.get_num_queued_tokens())

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of vLLM's application."""
        return dict(self._app.openapi())

    def metrics_text(self) -> str:
        """Return vLLM's own metrics in the Prometheus text format."""
        return generate_latest(get_prometheus_registry()).decode()

    async def worker(self, method: str, *args: Any) -> Any:
        """Call `method` on every worker and return rank 0's answer."""
        answers = await self._engine.collective_rpc(method, args=args)
        return answers[0]

    def hello(self, epoch: int) -> Hello:
        """Return what this engine tells a draft about itself."""
        config = self._engine.vllm_config
        ext = ExtConfig.from_additional_config(config.additional_config)
        return link_spec(config, ext).hello(epoch)

    async def check_health(self) -> None:
        """Raise if the engine is dead."""
        await self._engine.check_health()

    def shutdown(self) -> None:
        """Stop the engine and its processes; may be called again."""
        self._engine.shutdown()
