"""Lets benchmarks change a running engine's acceptance and verification. Read at vLLM 0.32.0.

vLLM takes the rates when an engine starts, and starting one for each acceptance would take longer
than measuring it. Both runners keep them in one device tensor that every step reads.
"""

from __future__ import annotations

from typing import Any

import torch

# Registers the load format `grow` in every worker process, the only place that all of them import.
import load_tests.growth.loader  # noqa: F401

__all__ = ["BenchExtension"]


class BenchExtension:
    """Mixed into vLLM's worker as its `worker_extension_cls`."""

    def bench_set_acceptance(self, acceptance: float) -> None:
        """Accept every draft with this probability, given that those before it were accepted."""
        me: Any = self
        me.model_runner.rejection_sampler.synthetic_conditional_rates.fill_(acceptance)
        torch.accelerator.synchronize()

    def bench_verify_ours(self, ours: bool) -> bool:
        """Verify with our kernels from now on, or in vLLM's own way; return whether ours are there.

        Both leave the requests' state alike, so it can be changed between any two steps.
        """
        me: Any = self
        verifier = me.model_runner.rejection_sampler
        there = hasattr(verifier, "enabled")
        if there:
            verifier.enabled = ours
        return there
