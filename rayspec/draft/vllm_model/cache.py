"""The KV cache of attention layers, laid out as their backends ask. Read at vLLM 0.32.0."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.attention.backends.utils import (
    get_supported_kv_cache_layouts,
    resolve_kv_cache_layout,
)
from vllm.v1.core.kv_cache_utils import get_kv_cache_config_from_groups, get_kv_cache_groups
from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec
from vllm.v1.worker.utils import allocate_kv_cache, bind_kv_cache_to_layers, clear_layer_kv_caches

from rayspec.errors import ConfigError, ModelError

__all__ = ["LayerCaches"]


class LayerCaches:
    """One pool of blocks for all attention layers of a model."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._layers: dict[str, Any] = config.compilation_config.static_forward_context
        specs = get_kv_cache_spec(config)
        backends = {self._layers[name].get_attn_backend() for name in specs}
        layouts = [layout.name for layout in get_supported_kv_cache_layouts(backends)]
        resolve_kv_cache_layout(config, [layouts], specs.values())
        groups = get_kv_cache_groups(config, specs)
        if len(groups) != 1:
            raise ModelError(f"the model's layers need {len(groups)} block tables, not one")
        self._groups = groups
        self.names: list[str] = groups[0].layer_names
        self.spec: Any = groups[0].kv_cache_spec
        # Whatever the group says, the layers' own specs tell what a block holds and takes.
        self.block_size: int = self.spec.block_size
        self.block_bytes: int = sum(self.layer_spec(name).page_size_bytes for name in self.names)

    def layer_spec(self, name: str) -> Any:
        """Return the KV spec of one layer."""
        return getattr(self.spec, "kv_cache_specs", {}).get(name, self.spec)

    def layer(self, name: str) -> Any:
        """Return an attention layer by its name."""
        return self._layers[name]

    def allocate(self, blocks: int, device: torch.device) -> None:
        """Take zeroed memory for `blocks` and bind it; ConfigError when it does not fit."""
        need = blocks * self.block_bytes
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
            if need > free:
                raise ConfigError(
                    "kv blocks", blocks, f"take {need >> 20} MiB; {free >> 20} MiB are free"
                )
        config = get_kv_cache_config_from_groups(self._config, self._groups, need)
        layout = self._config.cache_config.get_resolved_kv_cache_layout()
        try:
            caches = allocate_kv_cache(config, device, layout, [self.block_size])
        except torch.OutOfMemoryError as error:
            raise ConfigError("kv blocks", blocks, f"{need >> 20} MiB are not free") from error
        bind_kv_cache_to_layers(caches, self._layers, kv_cache_groups=self._groups)

    def release(self) -> None:
        """Let the memory go; idempotent."""
        clear_layer_kv_caches([self._layers[name] for name in self.names])
