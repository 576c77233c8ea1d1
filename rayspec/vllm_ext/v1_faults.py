"""Ways around three faults of vLLM 0.32's V1 runner on CPU.

- The kernel that spreads temperature, top-k and top-p over the rows of the drafts writes its result
  into a copy that is thrown away, so that drafts are verified with whatever the memory holds: wrong
  distributions, or an index error that ends the engine. `repair_kernels` replaces it, through
  vLLM's own registry.
- A speculative engine sends steps without a single draft, as any lone prefill is, through the
  rejection sampler, where the top-k filter takes the maximum of nothing and ends the engine.
  Without metadata about drafts the step is sampled as in an engine without speculation.
- A request with a seed has its own generator. While its prompt is prefilled in chunks vLLM samples
  and discards a token per chunk and rewinds the generator with `set_offset`, which a CPU generator
  does not have: that ends the engine too. Without their generators these rows draw from the default
  one, and what they draw is discarded all the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.triton_utils import HAS_TRITON
from vllm.triton_utils.dispatcher import register_kernels

__all__ = ["V1Faults", "expand", "repair_kernels"]


def repair_kernels() -> None:
    """Replace vLLM's faulty stand-in for a Triton kernel; with Triton the kernel itself runs."""
    if not HAS_TRITON:
        register_kernels({"vllm.v1.sample.rejection_sampler.expand_kernel": expand})


def expand(
    output_ptr: torch.Tensor,
    input_ptr: torch.Tensor,
    cu_num_tokens_ptr: torch.Tensor,
    replace_from: float,
    replace_to: float,
    MAX_NUM_TOKENS: int,
) -> None:
    """Repeat each request's value for each of its drafts; names are those of vLLM's kernel."""
    drafts = cu_num_tokens_ptr.diff(prepend=cu_num_tokens_ptr.new_zeros(1))
    values = input_ptr.masked_fill(input_ptr == replace_from, replace_to)
    output_ptr.copy_(values.repeat_interleave(drafts))


class V1Faults:
    """Steers one runner's steps around the last two faults.

    Both lie between the preparation of a step (`execute_model`) and its sampling.
    """

    def __init__(self) -> None:
        self._hidden: dict[int, Any] = {}

    def before_sample(self, runner: Any) -> None:
        """Change what the step is about to be sampled with."""
        state = runner.execute_model_state
        if state is None:
            return
        metadata = state.spec_decode_metadata
        if metadata is not None and not any(metadata.num_draft_tokens):
            runner.execute_model_state = state._replace(spec_decode_metadata=None)
        self._hide_generators(runner)

    def after_sample(self, runner: Any) -> None:
        """Put back what the next step needs."""
        if self._hidden:
            runner.input_batch.generators.update(self._hidden)
            self._hidden.clear()

    def _hide_generators(self, runner: Any) -> None:
        generators: dict[int, Any] = runner.input_batch.generators
        if not generators:
            return
        discarded = runner.discard_request_mask.np[: runner.input_batch.num_reqs]
        for row in np.flatnonzero(discarded).tolist():
            if (generator := generators.pop(row, None)) is not None:
                self._hidden[row] = generator
