"""A busy machine is no reason for a property test to fail."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("rayspec", deadline=None, max_examples=50)
settings.load_profile("rayspec")
