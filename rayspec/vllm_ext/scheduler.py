"""vLLM's schedulers with a K that can change at every step. Read at vLLM 0.32.0.

The worker says which K it wants in an attribute of `ModelRunnerOutput`, the one message that
every step sends from the worker to the scheduler; the scheduler applies it through the lookup
table of its own dynamic speculative decoding.
"""

from __future__ import annotations

import logging
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from rayspec.vllm_ext.config import STEP_K_ATTRIBUTE

__all__ = ["RayspecAsyncScheduler", "RayspecScheduler", "StepK", "create_scheduler"]

logger = logging.getLogger(__name__)


class StepK:
    """Mixin for `Scheduler`: K follows what the worker asks for; None is the configured K."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._step_k: int | None = None
        # vLLM built its table from the declared tiers, which for us only say what to capture.
        self.dynamic_sd_lookup = self._lookup(None)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Adopt the worker's K, then do what vLLM does."""
        # A step that ran nothing, to tell of finished requests, has an output without it.
        self._adopt(getattr(model_runner_output, STEP_K_ATTRIBUTE, self._step_k))
        host: Any = super()
        return host.update_from_output(scheduler_output, model_runner_output)

    def _adopt(self, k: int | None) -> None:
        if k == self._step_k:
            return
        logger.info("K of the coming steps: %s", "as configured" if k is None else k)
        self._step_k = k
        self.dynamic_sd_lookup = self._lookup(k)

    def _lookup(self, k: int | None) -> list[int] | None:
        host: Any = self
        full: int = host.num_spec_tokens
        k = full if k is None else min(max(k, 0), full)
        if k == full and host.use_v2_model_runner:
            return None
        # Without a table vLLM pads one-token prefills with drafts of id -1 so that a batch stays
        # uniform for its CUDA graph. The V1 runner on CPU has no graphs to gain from that, and its
        # kernels index with the -1.
        # Indexed by the number of scheduled requests; index 0 is never read.
        return [k] * (host.scheduler_config.max_num_seqs + 1)


class RayspecScheduler(StepK, Scheduler):
    """The synchronous scheduler."""


class RayspecAsyncScheduler(StepK, AsyncScheduler):
    """The scheduler that runs one step ahead of the worker."""


def create_scheduler(*args: Any, **kwargs: Any) -> RayspecScheduler | RayspecAsyncScheduler:
    """Build the scheduler that fits; given to vLLM as `scheduler_cls`.

    vLLM decides about asynchronous scheduling after the engine arguments are made, so the class
    cannot be named earlier than here.
    """
    vllm_config: Any = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
    if vllm_config.scheduler_config.async_scheduling:
        return RayspecAsyncScheduler(*args, **kwargs)
    return RayspecScheduler(*args, **kwargs)
