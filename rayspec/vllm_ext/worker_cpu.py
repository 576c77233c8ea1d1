"""The CPU worker. Never imported where there are GPUs: vLLM's module patches `torch.cuda`."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from rayspec.vllm_ext.seeded_prefill import SeededPrefill
from rayspec.vllm_ext.worker import RayspecWorker

__all__ = ["Worker"]


class Worker(RayspecWorker, CPUWorker):
    """vLLM's CPU worker with our drafting hook."""

    def init_device(self) -> None:
        """Do what rayspec's worker does."""
        super().init_device()
        self._seeded_prefill = SeededPrefill()

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the step, then keep vLLM from rewinding generators."""
        output = super().execute_model(scheduler_output, *args, **kwargs)
        if not self.use_v2_model_runner:
            with self._guard("seeded_prefill"):
                self._seeded_prefill.hide(self.model_runner)
        return output

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample, and give the generators back."""
        try:
            return super().sample_tokens(grammar_output)
        finally:
            with self._guard("seeded_prefill"):
                self._seeded_prefill.restore(self.model_runner)
