"""The CPU worker. Never imported where there are GPUs: vLLM's module patches `torch.cuda`."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from rayspec.vllm_ext.v1_faults import V1Faults, repair_kernels
from rayspec.vllm_ext.worker import RayspecWorker

__all__ = ["Worker"]


class Worker(RayspecWorker, CPUWorker):
    """vLLM's CPU worker with our drafting hook."""

    def init_device(self) -> None:
        """Do what rayspec's worker does."""
        super().init_device()
        self._v1_faults = None if self.use_v2_model_runner else V1Faults()
        if self._v1_faults is not None and self._ext.enabled:
            with self._guard("repair_kernels"):
                repair_kernels()

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample, around the faults of the V1 runner."""
        if self._v1_faults is None:
            return super().sample_tokens(grammar_output)
        with self._guard("v1_faults"):
            self._v1_faults.before_sample(self.model_runner)
        try:
            return super().sample_tokens(grammar_output)
        finally:
            with self._guard("v1_faults"):
                self._v1_faults.after_sample(self.model_runner)
