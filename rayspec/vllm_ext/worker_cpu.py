"""The CPU workers. Never imported where there are GPUs: vLLM's module patches `torch.cuda`."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from rayspec.vllm_ext.guard import Guard
from rayspec.vllm_ext.v1_faults import V1Faults, repair_kernels
from rayspec.vllm_ext.worker import RayspecWorker

__all__ = ["PlainWorker", "Worker"]


class _AroundFaults:
    """Mixin: samples around the faults of the V1 runner, which the V2 runner does not have."""

    _faults: V1Faults | None = None

    def init_device(self) -> None:
        """Do what the worker does, then repair what its runner needs."""
        host: Any = super()
        host.init_device()
        me: Any = self
        if not me.use_v2_model_runner:
            self._faults = V1Faults()
            self._faults_guard = Guard()
            with self._faults_guard("repair_kernels"):
                repair_kernels()

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample with the step changed where a fault lies in wait."""
        host: Any = super()
        me: Any = self
        if self._faults is None:
            return host.sample_tokens(grammar_output)
        with self._faults_guard("v1_faults"):
            self._faults.before_sample(me.model_runner)
        try:
            return host.sample_tokens(grammar_output)
        finally:
            with self._faults_guard("v1_faults"):
                self._faults.after_sample(me.model_runner)


class Worker(_AroundFaults, RayspecWorker, CPUWorker):
    """vLLM's CPU worker with our drafting hook."""


class PlainWorker(_AroundFaults, CPUWorker):
    """vLLM's CPU worker for an engine without speculation."""
