"""Keeps a speculative target attached to its drafts.

The target's worker holds the links, one per draft; a loop for each, in the replica, asks the draft
deployment for a ticket whenever that link is detached and hands it over. Losing a draft never
fails a request, so nothing here may raise into the replica.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rayspec.background import BackgroundTask
from rayspec.errors import LinkRefused
from rayspec.link.protocol import Hello
from rayspec.link.ticket import Ticket

__all__ = ["AttachLoop"]

logger = logging.getLogger(__name__)

# A worker is asked for its state this often, in seconds: the longest a detached lane stays
# detached once a draft is there, and far rarer than a decoding step.
POLL_S = 0.5
# While it is attached, too: a vLLM worker that was asked anything spins for a second afterwards, so
# one that is asked more often than that never rests (vLLM 0.32, shm_broadcast's `busy_loop_s`).
ATTACHED_POLL_S = 3.0
# After a refusal only a new draft version can help, so asking more often is noise.
REFUSED_RETRY_S = 10.0
# A draft deployment without replicas keeps a call waiting.
TICKET_TIMEOUT_S = 10.0
_ATTACHABLE = ("detached", "refused")


class AttachLoop:
    """Polls the worker and attaches one shard of it; holds the newest worker status.

    `hello(epoch)` describes the target, `request_ticket(hello)` asks the shard's draft deployment,
    and `worker(method, *args)` calls the target's first worker.
    """

    def __init__(
        self,
        hello: Callable[[int], Hello],
        request_ticket: Callable[[Hello], Awaitable[Ticket]],
        worker: Callable[..., Awaitable[Any]],
        shard: int = 0,
    ) -> None:
        self._hello = hello
        self._request_ticket = request_ticket
        self._worker = worker
        self._shard = shard
        self._task = BackgroundTask(self._run)
        self._epoch = 0
        self._complaint: str | None = None
        self.status: Mapping[str, Any] = {}

    @property
    def attached(self) -> bool:
        """Whether the shard's link was ready when last asked."""
        return self._state() == "ready"

    def _state(self) -> str:
        # A worker without links, because its extension is off, has one state and no shards.
        shards = self.status.get("shards", ())
        mine = shards[self._shard] if self._shard < len(shards) else self.status
        return str(mine.get("state", ""))

    def start(self) -> None:
        """Start polling; does nothing when already started."""
        self._task.start()

    async def close(self) -> None:
        """Stop polling."""
        await self._task.close()

    async def _run(self) -> None:
        while True:
            pause = POLL_S
            try:
                self.status = await self._worker("rayspec_status")
                if self.attached:
                    pause = ATTACHED_POLL_S
                elif self._state() in _ATTACHABLE:
                    pause = await self._try_attach()
            except Exception:
                logger.exception("cannot ask the target's worker for its link")
            await asyncio.sleep(pause)

    async def _try_attach(self) -> float:
        """Attach once; return how long to wait before the next look."""
        self._epoch += 1
        try:
            ticket = await asyncio.wait_for(
                self._request_ticket(self._hello(self._epoch)), TICKET_TIMEOUT_S
            )
        except Exception as error:
            return self._complain(error)
        self._complaint = None
        logger.info("attaching to draft %d at %s:%d", self._shard, ticket.host, ticket.control_port)
        await self._worker("rayspec_attach", ticket, self._shard)
        return POLL_S

    def _complain(self, error: Exception) -> float:
        # Ray wraps what a replica raised and keeps the original as `cause`.
        reason = str(getattr(error, "cause", None) or error) or type(error).__name__
        if reason != self._complaint:
            logger.warning("no draft %d for now: %s", self._shard, reason)
        self._complaint = reason
        return REFUSED_RETRY_S if isinstance(error, LinkRefused) else POLL_S
