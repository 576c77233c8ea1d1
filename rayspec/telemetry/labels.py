"""Bounds the workload classes that are labels of metrics: clients may name classes."""

from __future__ import annotations

from collections.abc import Collection

from rayspec.routing.names import OTHER_CLASS

__all__ = ["ClassLabels"]

# A series that was begun is exported for as long as the process lives.
_MAX_EXTRA = 64


class ClassLabels:
    """Gives the first classes that come, and all of `known`, their own label; others share one."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)
        self._extra: set[str] = set()

    def __call__(self, workload_class: str) -> str:
        """Return the label of a class."""
        if workload_class in self._known or workload_class in self._extra:
            return workload_class
        if len(self._extra) >= _MAX_EXTRA:
            return OTHER_CLASS
        self._extra.add(workload_class)
        return workload_class
