"""Lets the benchmark change the synthetic acceptance of a running engine. Read at vLLM 0.32.0.

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
