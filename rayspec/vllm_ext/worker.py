"""What rayspec adds to a vLLM worker, whichever device it drives. Read at vLLM 0.32.0."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rayspec.link.spec import LinkSpec, LinkState
from rayspec.link.target import TargetLink
from rayspec.link.ticket import Ticket
from rayspec.vllm_ext.config import STEP_K_ATTRIBUTE, ExtConfig
from rayspec.vllm_ext.graphs import complete_dispatch
from rayspec.vllm_ext.guard import Guard
from rayspec.vllm_ext.params import link_spec
from rayspec.vllm_ext.session import SessionSpec, TargetSession
from rayspec.vllm_ext.status import ShardReport, link_figures, status

__all__ = ["RayspecWorker"]

logger = logging.getLogger(__name__)


class Carrier(Protocol):
    """The object in the runner's drafting hook; told about every step."""

    def before_execute(self, scheduler_output: Any) -> None:
        """The runner has not yet seen this step."""

    def after_execute(self, scheduler_output: Any) -> None:
        """The runner has taken the step over and launched it."""

    def after_sample(self, output: Any) -> None:
        """The step's tokens are sampled and its drafts proposed."""

    def warm_up(self) -> None:
        """Everything that a step will use is loaded now."""


class Session(Protocol):
    """What a draft has been told."""

    def invalidate(self) -> None:
        """An error may have left it wrong: tell everything again."""


class RayspecWorker:
    """Mixin in front of a vLLM worker class: holds the links and feeds them from the steps.

    The links are on the first tensor-parallel rank; the other ranks take part in the drafting hook
    only. Nothing here raises into vLLM. Where the extension is disabled, vLLM's modules are left
    alone but for the worker itself, because this may be a vLLM that the hooks do not fit.
    """

    _guard: Guard
    _ext: ExtConfig
    _carrier: Carrier | None = None
    # One for each draft that shares the slots, and last the candidate's if there is to be one; both
    # lists are empty on ranks without links.
    _links: Sequence[TargetLink] = ()
    _sessions: Sequence[Session] = ()
    _report: Callable[[], list[ShardReport]] = staticmethod(list)
    _muted = False
    _step_k: int | None = None
    # The V2 runner verifies fillers where there are no drafts, which costs as much as drafts.
    _rests_detached = False

    def init_device(self) -> None:
        """Do what vLLM does, then take over the runner's drafting hook."""
        host: Any = super()
        host.init_device()
        me: Any = self
        self._guard = Guard()
        self._ext = ExtConfig.from_additional_config(me.vllm_config.additional_config)
        if not self._ext.enabled:
            logger.warning("speculation is off: %s", self._ext.disabled_reason)
        elif me.vllm_config.speculative_config is not None:
            self._install()

    def _install(self) -> None:
        from vllm.distributed.parallel_state import get_pp_group, get_tp_group

        if not get_pp_group().is_last_rank:
            return
        me: Any = self
        first = get_tp_group().rank_in_group == 0
        spec = link_spec(me.vllm_config, self._ext)
        if me.use_v2_model_runner:
            self._install_on_v2(spec, first)
        elif first:
            self._install_on_v1(spec)

    def _install_on_v2(self, spec: LinkSpec, first: bool) -> None:
        from rayspec.vllm_ext.exchange import Shard, ShardPlace
        from rayspec.vllm_ext.speculator import RemoteSpeculator, StateTokens

        me: Any = self
        runner: Any = me.model_runner
        states = runner.req_states
        count = self._ext.draft_shards if first else 0
        places = [ShardPlace(index, count) for index in range(count)]
        if first and self._ext.candidate:
            places.append(ShardPlace(candidate=True))
        every = [Shard(spec, place, StateTokens(states), runner.device) for place in places]
        shards, candidate = every[:count], next(iter(every[count:]), None)
        self._rests_detached = True
        self._links = [shard.link for shard in every]
        self._sessions = [shard.session for shard in every]
        self._report = lambda: [shard.report() for shard in every]
        speculator = RemoteSpeculator(spec, runner.device, states, shards, self._guard, candidate)
        self._carrier = runner.speculator = speculator

    def _install_on_v1(self, spec: LinkSpec) -> None:
        from rayspec.vllm_ext.proposer import RunnerTokens

        me: Any = self
        runner: Any = me.model_runner
        links = [TargetLink(spec) for _ in range(2 if self._ext.candidate else 1)]
        tokens = RunnerTokens(runner)
        sizes = SessionSpec(spec.slots, spec.k_max, spec.vocab_size, spec.checksum)
        sessions = [TargetSession(sizes, link, tokens) for link in links]
        self._links, self._sessions = links, sessions
        self._report = lambda: [
            ShardReport(link.state, link_figures(link.stats()), session.live, session.counters)
            for link, session in zip(links, sessions, strict=True)
        ]
        runner.drafter.bind(runner, tokens, sessions, self._guard)
        self._carrier = runner.drafter

    def determine_available_memory(self) -> int:
        """Do what vLLM does, with our hooks muted: its steps are dummies."""
        return int(self._quietly("determine_available_memory"))

    def compile_or_warm_up_model(self) -> Any:
        """Load our kernels, then do what vLLM does with our hooks muted: its steps are dummies.

        vLLM's warm-up ends by watching for kernels that are compiled later, so ours come first.
        """
        if self._carrier is not None:
            self._carrier.warm_up()
            with self._guard("install_verifier"):
                self._install_verifier()
        answer = self._quietly("compile_or_warm_up_model")
        if self._carrier is not None:
            with self._guard("complete_dispatch"):
                self._complete_dispatch()
        return answer

    def _install_verifier(self) -> None:
        me: Any = self
        if me.use_v2_model_runner and self._ext.fused_verification:
            from rayspec.vllm_ext.verifier import install

            install(me.model_runner)

    def _complete_dispatch(self) -> None:
        me: Any = self
        manager = getattr(me.model_runner, "cudagraph_manager", None)
        if manager is not None:
            added = complete_dispatch(manager._candidates, manager.graphs)
            logger.info("%d batch sizes were led to the graphs of their width", added)

    def _quietly(self, method: str) -> Any:
        host: Any = super()
        self._muted = True
        try:
            return getattr(host, method)()
        finally:
            self._muted = False

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the step between our two looks at what the scheduler decided."""
        host: Any = super()
        carrier = None if self._muted else self._carrier
        if carrier is not None:
            self._hook("before_execute", carrier.before_execute, scheduler_output)
        output = host.execute_model(scheduler_output, *args, **kwargs)
        if carrier is not None:
            self._hook("after_execute", carrier.after_execute, scheduler_output)
        return output

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample, and tell the scheduler which K we want from now on."""
        host: Any = super()
        output = host.sample_tokens(grammar_output)
        if self._carrier is not None and not self._muted and output is not None:
            self._hook("after_sample", self._after_sample, output)
        return output

    def _after_sample(self, output: Any) -> None:
        # An asynchronous output is a promise that holds the message for the scheduler.
        message = getattr(output, "model_runner_output", output)
        setattr(message, STEP_K_ATTRIBUTE, self._wanted_k())
        if self._carrier is not None:
            self._carrier.after_sample(message)

    def _wanted_k(self) -> int | None:
        ready = any(link.state is LinkState.READY for link in self._links)
        if self._rests_detached and self._links and not ready:
            return 0
        return self._step_k

    def _hook(self, name: str, hook: Any, argument: Any) -> None:
        with self._guard(name):
            try:
                hook(argument)
            except Exception:
                for session in self._sessions:
                    session.invalidate()
                raise

    def rayspec_attach(self, ticket: Ticket | Mapping[str, Any], shard: int = 0) -> bool:
        """Start attaching a shard to a draft, without waiting; return whether this rank has it.

        vLLM's RPC turns dataclasses into mappings, so both are taken.
        """
        if not 0 <= shard < len(self._links):
            return False
        with self._guard("attach"):
            ticket = ticket if isinstance(ticket, Ticket) else Ticket(**ticket)
            self._links[shard].attach(ticket)
        return True

    def rayspec_set_k(self, k: int | None) -> None:
        """Want at most `k` drafts per request from the next steps on; None is the configured K."""
        self._step_k = None if k is None else self._tier(k)

    def _tier(self, k: int) -> int:
        # Only declared widths have CUDA graphs; the next narrower one is the most we may use.
        tiers = self._ext.k_tiers
        return max((tier for tier in tiers if tier <= k), default=0) if tiers else max(k, 0)

    def rayspec_status(self) -> dict[str, Any]:
        """Return the state of the links and the counters of drafting, in plain types."""
        return status(
            shards=self._report(),
            k=self._step_k,
            errors=self._guard.errors,
            disabled_reason=self._ext.disabled_reason,
        )

    def shutdown(self) -> None:
        """Close the links, then do what vLLM does."""
        for link in self._links:
            with self._guard("close"):
                link.close()
        host: Any = super()
        host.shutdown()
