"""A real vLLM engine with rayspec in it, stepped by the test."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from vllm import EngineArgs, SamplingParams
from vllm.v1.engine.llm_engine import LLMEngine

from rayspec.link.protocol import Hello
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.engine_args import own_draft_engine_args, speculative_engine_args
from rayspec.vllm_ext.params import link_spec
from rayspec.vllm_ext.stat_logger import LatestStats
from tests.support.draft_process import DraftProcess

TRITON_CPU = Path(__file__).parent / "triton_cpu"
INTERPRETED = {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
ATTACH_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one request produced; `steps` and `drafted` as vLLM's own metrics count them."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    context: int  # tokens of prompt and output
    steps: int
    drafted: int
    logprobs: Any


class Engine:
    """Runs requests step by step, so that a test can act between two steps."""

    def __init__(self, engine: LLMEngine, ext: ExtConfig, stats: LatestStats) -> None:
        self.stats = stats
        self.config: Any = engine.vllm_config
        self._engine: Any = engine
        self._ext = ext
        self._ids = itertools.count()
        self._epochs = itertools.count(1)

    def run(
        self,
        prompts: Sequence[Any],
        params: SamplingParams | Sequence[SamplingParams],
        on_step: Callable[[int, Sequence[str]], None] | None = None,
    ) -> list[Result]:
        """Generate for all prompts together, without those that were aborted.

        `on_step(n, ids)` is called after the n-th step with the ids of the requests.
        """
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
        ids = [f"test-{next(self._ids)}" for _ in prompts]
        for req_id, prompt, param in zip(ids, prompts, each, strict=True):
            self._engine.add_request(req_id, prompt, param)
        results: dict[str, Result] = {}
        for step in itertools.count(1):
            for output in self._engine.step():
                if output.finished:
                    results[output.request_id] = _result(output)
            if not self._engine.has_unfinished_requests():
                return [results[req_id] for req_id in ids if req_id in results]
            if on_step is not None:
                on_step(step, ids)
        raise AssertionError

    def abort(self, req_ids: Sequence[str]) -> None:
        self._engine.abort_request(list(req_ids))

    def rpc(self, method: str, *args: Any) -> list[Any]:
        answers: list[Any] = self._engine.collective_rpc(method, args=args)
        return answers

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.rpc("rayspec_status")[0]
        return status

    def hello(self) -> Hello:
        return link_spec(self._engine.vllm_config, self._ext).hello(next(self._epochs))

    def attach(self, draft: DraftProcess, shard: int = 0) -> None:
        """Attach a shard and wait until its link is ready."""
        self.rpc("rayspec_attach", asdict(draft.admit(self.hello())), shard)
        self.wait_for("ready", shard=shard)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the engine tells its worker only with its next step."""
        deadline = time.monotonic() + ATTACH_TIMEOUT_S
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_for(self, *states: str, shard: int = 0) -> dict[str, Any]:
        deadline = time.monotonic() + ATTACH_TIMEOUT_S
        while (status := self.status())["shards"][shard]["state"] not in states:
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status

    @contextmanager
    def drafting(self, draft: DraftProcess) -> Iterator[DraftProcess]:
        """Attach to a draft for the length of a block, then kill it."""
        with draft:
            self.attach(draft)
            yield draft
        self.wait_for("detached")

    def metric(self, name: str) -> int:
        """Return a counter of vLLM's own."""
        return sum(int(m.value) for m in self._engine.get_metrics() if m.name == name)

    def close(self) -> None:
        core = self._engine.engine_core
        core.shutdown()
        # vLLM leaves this one to the interpreter's exit, which warns.
        core.ctx.destroy(linger=0)


class EngineHost:
    """Holds at most one engine: two would fight for the machine's two cores."""

    def __init__(self) -> None:
        self._name = ""
        self._engine: Engine | None = None

    def get(self, name: str, start: Callable[[], Engine]) -> Engine:
        """Return the engine of this name, after closing any other."""
        if self._engine is None or self._name != name:
            self.close()
            self._engine, self._name = start(), name
        return self._engine

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def start_engine(
    model: Path,
    *,
    ext: ExtConfig,
    k: int,
    environment: Mapping[str, str],
    k_tiers: Sequence[int] = (),
    interpreted: bool = False,
    asynchronous: bool = False,
    cuda: bool = False,
    **engine_args: Any,
) -> Engine:
    """Start an engine whose processes see `environment`.

    An interpreted one is configured as on a GPU: on Model Runner V2, with its Triton kernels in
    Triton's interpreter. On CUDA vLLM decides about asynchronous scheduling and graphs.
    """
    base = {"model": str(model), "disable_log_stats": False, **engine_args}
    if not cuda:
        base = {"dtype": "float32", "enforce_eager": True, **base}
    kwargs = speculative_engine_args(
        base,
        device="cuda" if interpreted or cuda else "cpu",
        num_speculative_tokens=k,
        k_tiers=k_tiers,
        ext=ext,
    )
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment))
        if interpreted:
            kwargs["worker_cls"] = "tests.support.interpreted.Worker"
            stack.enter_context(patch.dict(os.environ, INTERPRETED))
            # Processes that Python spawns take their path from this one.
            stack.enter_context(patch.object(sys, "path", [str(TRITON_CPU), *sys.path]))
            # This process only makes the configuration; those that run kernels find the backend.
            stack.enter_context(patch("vllm.config.vllm.HAS_TRITON", True))
        config = EngineArgs(**kwargs).create_engine_config()
        if not cuda:
            # vLLM turns it off on a CPU, where it gains nothing; the scheduler is the one for GPUs.
            config.scheduler_config.async_scheduling = asynchronous
        stats = LatestStats()
        return Engine(LLMEngine.from_vllm_config(config, stat_loggers=[stats.factory]), ext, stats)


def start_own_draft_engine(
    model: Path,
    *,
    k: int,
    method: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    k_tiers: Sequence[int] = (),
    cuda: bool = False,
    **engine_args: Any,
) -> Engine:
    """Start an engine that drafts itself by one of vLLM's methods."""
    base = {"model": str(model), "disable_log_stats": False, **engine_args}
    if not cuda:
        base = {"dtype": "float32", "enforce_eager": True, **base}
    kwargs = own_draft_engine_args(
        base,
        device="cuda" if cuda else "cpu",
        num_speculative_tokens=k,
        k_tiers=tuple(sorted({0, k, *k_tiers})),
        method=method,
        settings=settings,
    )
    with patch.dict(os.environ, environment):
        config = EngineArgs(**kwargs).create_engine_config()
        stats = LatestStats()
        engine = LLMEngine.from_vllm_config(config, stat_loggers=[stats.factory])
    return Engine(engine, ExtConfig(), stats)


def _result(output: Any) -> Result:
    choice = output.outputs[0]
    metrics = choice.spec_decode_metrics.to_dict() if choice.spec_decode_metrics else {}
    return Result(
        prompt=tuple(output.prompt_token_ids),
        tokens=tuple(choice.token_ids),
        text=choice.text,
        context=len(output.prompt_token_ids) + len(choice.token_ids),
        steps=metrics.get("num_spec_steps", 0),
        drafted=metrics.get("num_draft_tokens", 0),
        logprobs=choice.logprobs,
    )
