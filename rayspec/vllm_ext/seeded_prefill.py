"""A way around a fault of vLLM 0.32's V1 runner on CPU that ends the engine.

A request with a seed has its own generator. While its prompt is prefilled in chunks vLLM samples
and discards a token per chunk, and rewinds the generator with `set_offset`, which a CPU generator
does not have: the RuntimeError kills the engine for everybody. Without their generators these rows
draw from the default one, and what they draw is discarded all the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["SeededPrefill"]


class SeededPrefill:
    """Hides the generators of rows whose token will be discarded, for one step."""

    def __init__(self) -> None:
        self._hidden: dict[int, Any] = {}

    def hide(self, runner: Any) -> None:
        """Take them out of the batch: the step is prepared, its tokens are not sampled yet."""
        generators: dict[int, Any] = runner.input_batch.generators
        if not generators:
            return
        discarded = runner.discard_request_mask.np[: runner.input_batch.num_reqs]
        for row in np.flatnonzero(discarded).tolist():
            if (generator := generators.pop(row, None)) is not None:
                self._hidden[row] = generator

    def restore(self, runner: Any) -> None:
        """Put them back."""
        if self._hidden:
            runner.input_batch.generators.update(self._hidden)
            self._hidden.clear()
