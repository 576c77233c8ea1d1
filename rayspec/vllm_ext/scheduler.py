"""vLLM's schedulers with a K that can change at every step. Read at vLLM 0.32.0.

A step's K is what the longest-drafting of its requests asks for, and never more than the worker
allows, which says so in an attribute of `ModelRunnerOutput`, the one message that every step sends
from the worker to the scheduler. It is applied through the lookup table of vLLM's own dynamic
speculative decoding. The requests are looked at here because an asynchronous scheduler is a step
ahead: what the worker knows of a step's requests could count in the next but one only.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from rayspec.vllm_ext.config import STEP_K_ATTRIBUTE, ExtConfig
from rayspec.vllm_ext.guard import Guard
from rayspec.vllm_ext.params import asked_k

__all__ = [
    "OwnDraftAsyncScheduler",
    "OwnDraftScheduler",
    "OwnDrafts",
    "RayspecAsyncScheduler",
    "RayspecScheduler",
    "StepK",
    "create_own_draft_scheduler",
    "create_scheduler",
    "widest",
]

logger = logging.getLogger(__name__)


def widest(asked: Iterable[int | None], tiers: Sequence[int], full: int) -> int:
    """Return the narrowest declared K with which nobody drafts less than asked; None asks for all.

    Between two tiers the wider one is taken: only declared widths have CUDA graphs.
    """
    most = 0
    for k in asked:
        if k is None or k >= full:
            return full
        most = max(most, k)
    return next((tier for tier in sorted(tiers) if tier >= most), full) if tiers else most


class StepK:
    """Mixin for `Scheduler`: K follows the requests, up to what the worker allows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        host: Any = self
        ext = ExtConfig.from_additional_config(host.vllm_config.additional_config)
        self._tiers = ext.k_tiers
        self._guard = Guard()
        # The most that the worker allows; None is the configured K.
        self._most: int | None = None
        # vLLM built its table from the declared tiers, which for us only say what to capture.
        self._k: int = host.num_spec_tokens
        self.dynamic_sd_lookup = self._lookup()

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Settle the step's K, then do what vLLM does."""
        with self._guard("schedule"):
            self._settle()
        host: Any = super()
        return host.schedule(*args, **kwargs)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Note the K that the worker allows, then do what vLLM does."""
        # A step that ran nothing, to tell of finished requests, has an output without it.
        most = getattr(model_runner_output, STEP_K_ATTRIBUTE, self._most)
        if most != self._most:
            logger.info("K of the coming steps: %s", "as configured" if most is None else most)
            self._most = most
        host: Any = super()
        return host.update_from_output(scheduler_output, model_runner_output)

    def _settle(self) -> None:
        host: Any = self
        full: int = host.num_spec_tokens
        k = full if self._most is None else min(max(self._most, 0), full)
        if k and host.use_v2_model_runner:
            # On V1 each request's drafts are as many as it has: there are no fillers to save.
            k = min(k, widest(map(_asked, self._candidates()), self._tiers, full))
        if k != self._k:
            # It may change at every step: each of the declared widths has its graphs already.
            logger.debug("K of the step: %d", k)
            self._k = k
            self.dynamic_sd_lookup = self._lookup()

    def _candidates(self) -> Iterable[Any]:
        """Return the requests that the step may have: those running, and the next to be admitted.

        A request that is admitted drafts with its first step; those further back do not count yet.
        """
        host: Any = self
        room = max(0, host.max_num_running_reqs - len(host.running))
        held = itertools.islice(host.kv_holding_waiting, room)
        return itertools.chain(host.running, held, itertools.islice(host.waiting, room))

    def _lookup(self) -> list[int] | None:
        host: Any = self
        k = self._k
        if k == host.num_spec_tokens and host.use_v2_model_runner:
            return None
        # Without a table vLLM pads one-token prefills with drafts of id -1 so that a batch stays
        # uniform for its CUDA graph. The V1 runner on CPU has no graphs to gain from that, and its
        # kernels index with the -1.
        # Indexed by the number of scheduled requests; index 0 is never read.
        return [k] * (host.scheduler_config.max_num_seqs + 1)


def _asked(request: Any) -> int | None:
    # Without token ids, as with embeddings, the worker tells no draft of it.
    return 0 if request.prompt_token_ids is None else asked_k(request.sampling_params)


class RayspecScheduler(StepK, Scheduler):
    """The synchronous scheduler."""


class RayspecAsyncScheduler(StepK, AsyncScheduler):
    """The scheduler that runs one step ahead of the worker."""


class OwnDrafts(StepK):
    """Mixin for a `Scheduler` whose engine drafts itself, for every request as much as for any."""

    def update_draft_token_ids(self, draft_token_ids: Any) -> None:
        """Do what vLLM does, then drop what a request did not ask for.

        On the V2 runner drafts stay where they are, so that batches fit their graphs.
        """
        host: Any = super()
        host.update_draft_token_ids(draft_token_ids)
        me: Any = self
        if me.use_v2_model_runner:
            return
        with self._guard("update_draft_token_ids"):
            for req_id in draft_token_ids.req_ids:
                request = me.requests.get(req_id)
                if request is not None and (k := _asked(request)) is not None:
                    request.spec_token_ids = request.spec_token_ids[:k]


class OwnDraftScheduler(OwnDrafts, Scheduler):
    """The synchronous scheduler of an engine that drafts itself."""


class OwnDraftAsyncScheduler(OwnDrafts, AsyncScheduler):
    """The same, one step ahead of the worker."""


def create_own_draft_scheduler(
    *args: Any, **kwargs: Any
) -> OwnDraftScheduler | OwnDraftAsyncScheduler:
    """Build the scheduler that fits an engine that drafts itself; see `create_scheduler`."""
    vllm_config: Any = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
    if vllm_config.scheduler_config.async_scheduling:
        return OwnDraftAsyncScheduler(*args, **kwargs)
    return OwnDraftScheduler(*args, **kwargs)


def create_scheduler(*args: Any, **kwargs: Any) -> RayspecScheduler | RayspecAsyncScheduler:
    """Build the scheduler that fits; given to vLLM as `scheduler_cls`.

    vLLM decides about asynchronous scheduling after the engine arguments are made, so the class
    cannot be named earlier than here.
    """
    vllm_config: Any = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
    if vllm_config.scheduler_config.async_scheduling:
        return RayspecAsyncScheduler(*args, **kwargs)
    return RayspecScheduler(*args, **kwargs)
