"""Keeps the ingress informed between requests: who is up, how full, and all metrics.

Answers carry snapshots too, but an idle lane sends none, and a lane that has lost its replicas or
its draft must be known before the next request is sent there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from rayspec.background import BackgroundTask
from rayspec.ingress.lanes import LaneDown, ServeDeployment
from rayspec.routing import EngineSnapshot, Lane, LaneView, Router

__all__ = ["LaneMonitor"]

logger = logging.getLogger(__name__)

POLL_S = 1.0


class LaneMonitor:
    """Asks every replica of every lane for a snapshot, once a second, and tells `seen` of it."""

    def __init__(
        self,
        lanes: Mapping[Lane, ServeDeployment],
        router: Router,
        seen: Callable[[Mapping[Lane, LaneView]], None],
    ) -> None:
        self._lanes = lanes
        self._router = router
        self._seen = seen
        self._since = time.time()
        self._task = BackgroundTask(self._run)

    def start(self) -> None:
        """Start polling; does nothing when already started."""
        self._task.start()

    async def close(self) -> None:
        """Stop polling."""
        await self._task.close()

    async def poll(self) -> None:
        """Take one round of snapshots."""
        await asyncio.gather(*(self._poll(lane) for lane in self._lanes))

    async def _poll(self, lane: Lane) -> None:
        try:
            snapshots = await self._lanes[lane].broadcast("snapshot", timeout_s=2 * POLL_S)
        except LaneDown:
            self._router.ledger.forget(lane)
            return
        for snapshot in snapshots:
            self._router.observe(snapshot)
        if lane is Lane.SPECULATIVE:
            await self._settle_candidate(snapshots)

    async def _settle_candidate(self, snapshots: Sequence[EngineSnapshot]) -> None:
        """Let engines attach to a new version of the draft, and stop once there is none.

        They cannot know by themselves: the new version may come and go while they serve.
        """
        tried = self._router.trial is not None
        if any((snapshot.candidate is not None) != tried for snapshot in snapshots):
            with contextlib.suppress(LaneDown):
                await self._lanes[Lane.SPECULATIVE].broadcast(
                    "follow_candidate", self._since, tried, timeout_s=2 * POLL_S
                )

    async def _run(self) -> None:
        while True:
            try:
                await self.poll()
                self._seen(self._router.ledger.views())
            except Exception:
                logger.exception("cannot read the state of the lanes")
            await asyncio.sleep(POLL_S)
