"""The V2 model runner's worker on a CPU, with its kernels in Triton's interpreter."""

from __future__ import annotations

from rayspec_triton_cpu.interpreter import DeviceLibrary, accept_integer_masks
from vllm.v1.worker.gpu.spec_decode import rejection_sampler_utils

from rayspec.vllm_ext import worker_cpu

accept_integer_masks()
rejection_sampler_utils.tldevice = DeviceLibrary


class Worker(worker_cpu.Worker):
    """Nothing more: importing this module is what makes the kernels run."""
