"""One vLLM engine under measurement, and the record of its steps. Read at vLLM 0.32.0."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vllm import SamplingParams, TokensPrompt
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase

from load_tests.bench.steps import Step, summarise
from rayspec.draft import client
from rayspec.link.ticket import Ticket
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.params import link_spec

__all__ = ["MeasuredEngine"]

ATTACH_TIMEOUT_S = 60.0
# Nobody listens there: attaching to it is how a link lets its draft go.
NOBODY = Ticket(host="127.0.0.1", control_port=1, store_port=1, link_id="", epoch=0)


class StepLog(StatLoggerBase):
    """Writes down every step; times are of the engine core's clock, taken where a step ends."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def record(
        self,
        scheduler_stats: Any | None,
        iteration_stats: Any | None,
        mm_cache_stats: Any | None = None,
        engine_idx: int = 0,
    ) -> None:
        """Take up one step; called by vLLM."""
        if iteration_stats is None or not iteration_stats.num_generation_tokens:
            return
        times = iteration_stats.inter_token_latencies_iter
        self.steps.append(
            Step(
                decoding=len(times),
                prefilling=len(iteration_stats.time_to_first_tokens_iter),
                tokens=iteration_stats.num_generation_tokens,
                seconds=statistics.median(times) if times else 0.0,
            )
        )

    def log_engine_initialized(self) -> None:
        """Nothing to do: the first step brings the first figures."""


class MeasuredEngine:
    """An engine that generates batches and says how long its steps took."""

    def __init__(self, engine_args: Mapping[str, Any]) -> None:
        config = AsyncEngineArgs(**engine_args).create_engine_config()
        self._log = StepLog()
        self._engine = AsyncLLM.from_vllm_config(config, stat_loggers=[lambda *_: self._log])
        self._config = config
        self._ids = itertools.count()
        self._epochs = itertools.count(1)

    def facts(self) -> dict[str, Any]:
        """Return what vLLM made of the arguments."""
        config = self._config
        return {
            "model_runner": "V2" if config.use_v2_model_runner else "V1",
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "cudagraph_mode": config.compilation_config.cudagraph_mode.name,
            "cudagraph_capture_sizes": config.compilation_config.cudagraph_capture_sizes,
        }

    async def set_acceptance(self, acceptance: float) -> None:
        """Fix the probability with which a draft is accepted, given those before it."""
        await self._engine.collective_rpc("bench_set_acceptance", args=(acceptance,))

    async def set_k(self, k: int) -> None:
        """Take at most `k` drafts per step from now on; rayspec only."""
        await self._engine.collective_rpc("rayspec_set_k", args=(k,))

    async def attach(self, address: tuple[str, int]) -> None:
        """Attach to the draft that admits at `address`; returns when the link is ready."""
        ext = ExtConfig.from_additional_config(self._config.additional_config)
        hello = link_spec(self._config, ext).hello(next(self._epochs))
        ticket = await asyncio.to_thread(client.admit, address, hello)
        await self._engine.collective_rpc("rayspec_attach", args=(asdict(ticket),))
        await self._wait_for({"ready"})

    async def detach(self) -> None:
        """Leave the draft, so that neither end waits for the other while others are measured."""
        await self._engine.collective_rpc("rayspec_attach", args=(asdict(NOBODY),))
        await self._wait_for({"detached", "refused"})

    async def _wait_for(self, states: set[str]) -> None:
        deadline = time.monotonic() + ATTACH_TIMEOUT_S
        while (status := await self.status())["state"] not in states:
            if time.monotonic() > deadline:
                raise TimeoutError(f"link is {status['state']}: {status['link']}")
            await asyncio.sleep(0.05)

    async def status(self) -> dict[str, Any]:
        """Return rank 0's `rayspec_status`."""
        answers = await self._engine.collective_rpc("rayspec_status")
        status: dict[str, Any] = answers[0]
        return status

    async def verify_ours(self, ours: bool) -> bool:
        """Verify with our kernels from now on, or in vLLM's way; return whether ours are there."""
        return all(await self._engine.collective_rpc("bench_verify_ours", args=(ours,)))

    async def measure(
        self,
        prompts: Sequence[Sequence[int]],
        output_tokens: int,
        temperature: float,
        top_p: float = 1.0,
    ) -> dict[str, Any]:
        """Generate for all prompts at once and return the fields of a `Sample`."""
        self._log.steps.clear()
        tpots = await self.generate(prompts, output_tokens, temperature, top_p)
        return asdict(summarise(self._log.steps, len(prompts), tpots))

    async def generate(
        self,
        prompts: Sequence[Sequence[int]],
        output_tokens: int,
        temperature: float,
        top_p: float = 1.0,
    ) -> list[float]:
        """Generate for all prompts at once; return each one's seconds per token after the first."""
        params = SamplingParams(
            temperature=temperature,
            top_p=top_p,
            max_tokens=output_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        return list(await asyncio.gather(*(self._one(prompt, params) for prompt in prompts)))

    async def _one(self, prompt: Sequence[int], params: SamplingParams) -> float:
        request = TokensPrompt(prompt_token_ids=list(prompt))
        name = f"bench-{next(self._ids)}"
        async for output in self._engine.generate(request, params, name):
            metrics = output.metrics
        spent = metrics.last_token_ts - metrics.first_token_ts
        tpot: float = spent / max(metrics.num_generation_tokens - 1, 1)
        return tpot

    def close(self) -> None:
        """Stop the engine and its processes."""
        self._engine.shutdown()
