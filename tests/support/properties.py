"""How property tests run: few examples, and no deadline that a busy machine would miss."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["quick"]

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
