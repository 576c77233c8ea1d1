"""A CPU engine of one rank in one process: vLLM's scheduler and the model together.

vLLM's CPU platform turns `uni` into worker processes, because OpenMP reads its settings where a
process starts. Scheduler and worker then hand each step over in shared memory and call
`sched_yield` until the other one is done, which where cores are few takes time from everything
else. As a class by its name the executor stays what was asked for, and OpenMP's settings are made
where the engine's process is started.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["ONE_PROCESS", "openmp_settings"]

ONE_PROCESS: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""The `distributed_executor_backend` of an engine that computes where it schedules."""


@contextmanager
def openmp_settings(config: Any) -> Iterator[None]:
    """Let an engine that is started inside have the cores that `VLLM_CPU_OMP_THREADS_BIND` names.

    `config` is its `VllmConfig`. Engines with workers make these settings themselves.
    """
    if config.parallel_config.distributed_executor_backend != ONE_PROCESS:
        yield
        return
    # Here, for on CUDA nobody needs it.
    from vllm.utils.ompmultiprocessing import OMPProcessManager

    with OMPProcessManager(config).configure_omp_envs(0, 0):
        yield
