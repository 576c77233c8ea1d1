"""Keeps our mistakes inside our hooks: an exception in a worker would end the engine."""

from __future__ import annotations

import logging
from types import TracebackType

__all__ = ["Guard"]

logger = logging.getLogger(__name__)


class Guard:
    """Swallows, counts and logs exceptions, each kind once: `with guard("propose"): ...`.

    A kind is the hook's name and the exception's type.
    """

    def __init__(self) -> None:
        self._errors: dict[str, int] = {}

    def __call__(self, hook: str) -> _Guarded:
        """Guard the body of a `with` block."""
        return _Guarded(self, hook)

    def note(self, hook: str, error: Exception) -> None:
        """Count an exception; log the first of its kind."""
        kind = f"{hook}:{type(error).__name__}"
        self._errors[kind] = self._errors.get(kind, 0) + 1
        if self._errors[kind] == 1:
            logger.error("no drafting in this step: error in %s", hook, exc_info=error)

    @property
    def errors(self) -> dict[str, int]:
        """Swallowed exceptions by kind."""
        return dict(self._errors)


class _Guarded:
    def __init__(self, guard: Guard, hook: str) -> None:
        self._guard = guard
        self._hook = hook

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._guard.note(self._hook, error)
        return True
