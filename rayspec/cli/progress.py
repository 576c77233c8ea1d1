"""A progress bar for long commands."""

from __future__ import annotations

from typing import Any

__all__ = ["Bar"]


class Bar:
    """A progress bar on standard error where that is a terminal."""

    def __init__(self, total: int, quiet: bool) -> None:
        self._total, self._quiet = total, quiet
        self._bar: Any = None

    def __enter__(self) -> Bar:
        from tqdm import tqdm

        self._bar = tqdm(
            total=self._total,
            unit=" requests",
            delay=1.0,
            leave=False,
            disable=True if self._quiet else None,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, count: int) -> None:
        """Tell how many more requests have ended."""
        self._bar.update(count)
