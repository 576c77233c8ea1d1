"""Keeps our mistakes inside our hooks: an exception in a worker would end the engine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Guard"]

logger = logging.getLogger(__name__)


class Guard:
    """Swallows, counts and logs exceptions, each kind once.

    A kind is the hook's name and the exception's type.
    """

    def __init__(self) -> None:
        self._errors: dict[str, int] = {}
        self._total = 0

    @contextmanager
    def __call__(self, hook: str) -> Iterator[None]:
        """Run the body of a `with` block so that no exception leaves it."""
        try:
            yield
        except Exception as error:
            self._total += 1
            kind = f"{hook}:{type(error).__name__}"
            self._errors[kind] = self._errors.get(kind, 0) + 1
            if self._errors[kind] == 1:
                logger.exception("speculation is skipped for this step: error in %s", hook)

    @property
    def total(self) -> int:
        """How many exceptions were swallowed."""
        return self._total

    @property
    def errors(self) -> dict[str, int]:
        """Swallowed exceptions by kind."""
        return dict(self._errors)
