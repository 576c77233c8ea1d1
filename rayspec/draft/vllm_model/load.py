"""Loads a model with vLLM's loader into this process. Read at vLLM 0.32.0."""

from __future__ import annotations

import logging
from typing import Any

import torch
import vllm.ir
from vllm.config import set_current_vllm_config
from vllm.model_executor.model_loader import get_model
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_model_runner import _set_torch_accelerator_to_noop

from rayspec.draft.vllm_model.config import engine_config
from rayspec.draft.vllm_model.distributed import ensure_single_rank
from rayspec.draft.vllm_model.spec import VllmModelSpec
from rayspec.errors import ConfigError, ModelError

__all__ = ["device_of", "load"]

_log = logging.getLogger(__name__)


def load(spec: VllmModelSpec) -> tuple[Any, Any]:
    """Return (model, VllmConfig); ConfigError or ModelError when it cannot be had."""
    spec.check()
    device = device_of(spec.device)
    if current_platform.is_cpu() != spec.on_cpu:
        raise ConfigError(
            "device", spec.device, f"this vLLM runs on {current_platform.device_name}"
        )
    if spec.on_cpu:
        # The loader empties an accelerator's cache whether there is one or not; so vLLM's own
        # runner for CPUs silences it.
        _set_torch_accelerator_to_noop()
    else:
        torch.cuda.set_device(device)  # vLLM builds on the current device
    config = engine_config(spec)
    with set_current_vllm_config(config), torch.no_grad():
        # What vLLM's worker does before it has a model: kernels instead of native twins.
        config.kernel_config.ir_op_priority.set_default()
        vllm.ir.set_default_torch_wrap(config.compilation_config.ir_enable_torch_wrap)
        ensure_single_rank(device)
        try:
            model = get_model(vllm_config=config)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "device", spec.device, f"too little memory for {spec.path}"
            ) from error
        except (
            ValueError,
            LookupError,
            AssertionError,
            ImportError,
            OSError,
            RuntimeError,
        ) as error:
            text = str(error).strip().splitlines() or [repr(error)]
            raise ModelError(f"{spec.path}: vLLM cannot load the model: {text[0]}") from error
    _log.info("%s is loaded on %s", spec.path, device)
    return model, config


def device_of(name: str) -> torch.device:
    """Return the device, with an index if it is CUDA; ConfigError if this machine lacks it."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError("device", name, "takes cpu, cuda or cuda:N") from error
    if device.type != "cuda":
        return device
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise ConfigError("device", name, f"there are {torch.cuda.device_count()} CUDA devices")
    return torch.device("cuda", index)
