"""vLLM's load format `grow`: weights of a grown model, made on the fly. Read at vLLM 0.32.0.

    LLM(model=FOLDER, load_format="grow", worker_extension_cls=EXTENSION)

The folder holds no weights. `worker_extension_cls` is how every worker process, spawned or not,
comes to import this module, and that registers the format; the processes must have the root of the
repository on their path, which spawned ones inherit and others take from PYTHONPATH.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from vllm.config import ModelConfig
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from .model import GrownModel

logger = logging.getLogger(__name__)


@register_model_loader("grow")
class GrowLoader(BaseModelLoader):
    """Feeds a model's own `load_weights`, so that any parallelism and quantisation of it works.

    `model_loader_extra_config={"source": PATH}` says where the small model lies if not where it lay
    when the folder was written.
    """

    def __init__(self, load_config: LoadConfig) -> None:
        super().__init__(load_config)
        extra = dict(load_config.model_loader_extra_config)
        source = extra.pop("source", None)
        if extra:
            raise ValueError(f"the load format grow knows 'source' only, not {sorted(extra)}")
        self._source = Path(source) if source else None

    def download_model(self, model_config: ModelConfig) -> None:
        """Do nothing: everything is on this machine."""

    def load_weights(self, model: torch.nn.Module, model_config: ModelConfig) -> None:
        """Fill the model of this rank."""
        started = time.monotonic()
        grown = GrownModel.read(Path(model_config.model), self._source)
        devices = {parameter.device for parameter in model.parameters()}
        device = next(device for device in devices if device.type != "meta")
        weights: Any = grown.weights(dtype=model_config.dtype, device=device)
        model.load_weights(weights)
        logger.info("grew %s in %.1f s", grown.source, time.monotonic() - started)


class WorkerExtension:
    """Adds nothing to a worker: vLLM imports this module to find it."""
