"""The vLLM configuration under which a draft model is built. Read at vLLM 0.32.0."""

from __future__ import annotations

from typing import Any, Final

from vllm.engine.arg_utils import EngineArgs

from rayspec.draft.vllm_model.spec import VllmModelSpec
from rayspec.errors import ModelError

__all__ = ["engine_config"]

_LARGEST_GRAPH: Final = 512
# Quantised while loading: a scale per output channel, and one per token for activations.
_QUANTIZATIONS: Final = {"none": None, "fp8": "fp8_per_channel"}


def engine_config(spec: VllmModelSpec) -> Any:
    """Return the VllmConfig for `spec`; ModelError when vLLM refuses the model.

    No compilation, so vLLM's fused kernels instead (`custom_ops`). Full CUDA graphs are declared,
    because only then do attention builders keep what a graph reads at fixed addresses and bound
    the number of splits; we capture the graphs ourselves.
    """
    sizes = [2**i for i in range(_LARGEST_GRAPH.bit_length())]
    try:
        return EngineArgs(
            model=spec.path,
            skip_tokenizer_init=True,
            dtype=spec.chosen_dtype,
            quantization=_QUANTIZATIONS[spec.quantization],
            load_format=spec.load_format,
            max_model_len=spec.max_len,
            block_size=spec.chosen_block_size,
            max_num_seqs=spec.max_rows,
            enable_prefix_caching=False,
            async_scheduling=False,
            # Layers with a window keep blocks for all tokens: one block table serves all layers.
            disable_hybrid_kv_cache_manager=True,
            attention_backend=spec.chosen_attention,
            compilation_config={
                "mode": 0,
                "custom_ops": ["all"],
                "cudagraph_mode": "NONE" if spec.on_cpu else "FULL_DECODE_ONLY",
                "cudagraph_capture_sizes": [] if spec.on_cpu else sizes,
            },
        ).create_engine_config()
    except (ValueError, NotImplementedError, OSError) as error:
        # pydantic's errors end in lines about its documentation.
        text = " ".join(line.strip() for line in str(error).splitlines()[:3])
        raise ModelError(f"{spec.path}: vLLM refuses the model: {text}") from error
