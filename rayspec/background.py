"""A coroutine that runs beside everything else until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

__all__ = ["BackgroundTask"]


class BackgroundTask:
    """Runs `work()` on the running event loop; `start` and `close` may be called again."""

    def __init__(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start; does nothing when already started."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    def cancel(self) -> None:
        """Cancel without waiting, where nothing can be awaited."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Cancel, and wait until it is over."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
