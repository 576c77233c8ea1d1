"""Keeps a speculative target attached to its drafts.

The target's worker holds the links, one per draft; a loop for each, in the replica, asks the draft
deployment for a ticket whenever that link is detached and hands it over. Losing a draft never
fails a request, so nothing here may raise into the replica.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from rayspec.background import BackgroundTask
from rayspec.errors import LinkRefused
from rayspec.link.protocol import Hello
from rayspec.link.ticket import Ticket

__all__ = ["AttachLoop", "DraftCalls"]

logger = logging.getLogger(__name__)

# The loop looks this often, in seconds: the longest a lane that is known to be detached stays so
# once a draft is there.
POLL_S = 0.5
# A worker that works is asked for its state this often, far more rarely than it steps.
WORKING_POLL_S = 1.0
# A worker that rests is not asked at all, because a vLLM worker that was asked anything spins for a
# second afterwards (vLLM 0.32, shm_broadcast's `busy_loop_s`). Its draft is asked instead.
RESTING_POLL_S = 3.0
DRAFT_TIMEOUT_S = 2.0
# After a refusal only a new draft version can help, so asking more often is noise.
REFUSED_RETRY_S = 10.0
# A draft deployment without replicas keeps a call waiting.
TICKET_TIMEOUT_S = 10.0
_ATTACHABLE = ("detached", "refused")


class DraftCalls(Protocol):
    """What is asked of a shard's draft deployment."""

    def attach(self, hello: Hello) -> Awaitable[Ticket]:
        """Admit the target."""

    def holds(self, link_id: str) -> Awaitable[bool]:
        """Return whether the target that joined with a ticket is still there."""


class AttachLoop:
    """Attaches one shard of a target whenever it has no draft; holds the newest worker status.

    `hello(epoch)` describes the target, `worker(method, *args)` calls its first worker, and
    `steps()` counts the engine's steps: without any since the worker was last asked, only the draft
    can have changed.
    """

    def __init__(
        self,
        hello: Callable[[int], Hello],
        draft: DraftCalls,
        worker: Callable[..., Awaitable[Any]],
        steps: Callable[[], int],
        shard: int = 0,
    ) -> None:
        self._hello = hello
        self._draft = draft
        self._worker = worker
        self._steps = steps
        self._shard = shard
        self._task = BackgroundTask(self._run)
        self._epoch = 0
        self._link_id = ""  # of the newest ticket
        self._seen: int | None = None  # steps when the worker was last asked; None: ask it
        self._worker_due = self._draft_due = 0.0
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

    def cancel(self) -> None:
        """Stop polling, where nothing can be awaited."""
        self._task.cancel()

    async def close(self) -> None:
        """Stop polling."""
        await self._task.close()

    async def _run(self) -> None:
        while True:
            pause = POLL_S
            try:
                pause = await self._look()
            except Exception:
                logger.exception("cannot look after the target's link")
            await asyncio.sleep(pause)

    async def _look(self) -> float:
        """Ask whom it takes to know the link's state; return how long to wait before the next."""
        if await self._unknown():
            steps = self._steps()
            self.status = await self._worker("rayspec_status")
            self._seen = None if self._state() == "attaching" else steps
            now = asyncio.get_running_loop().time()
            self._worker_due, self._draft_due = now + WORKING_POLL_S, now + RESTING_POLL_S
        return await self._try_attach() if self._state() in _ATTACHABLE else POLL_S

    async def _unknown(self) -> bool:
        """Whether only the worker can tell how the link is by now."""
        if self._seen is None:
            return True
        now = asyncio.get_running_loop().time()
        if self._seen != self._steps():
            return now >= self._worker_due
        # A worker that took no step can only have lost its draft: it attaches by our call alone.
        if not self.attached or now < self._draft_due:
            return False
        self._draft_due = now + RESTING_POLL_S
        try:
            held = await asyncio.wait_for(self._draft.holds(self._link_id), DRAFT_TIMEOUT_S)
        except Exception:
            return True  # gone or hung, which the worker sees for itself
        return not held

    async def _try_attach(self) -> float:
        """Attach once; return how long to wait before the next look."""
        self._epoch += 1
        try:
            ticket = await asyncio.wait_for(
                self._draft.attach(self._hello(self._epoch)), TICKET_TIMEOUT_S
            )
        except Exception as error:
            return self._complain(error)
        self._complaint = None
        logger.info("attaching to draft %d at %s:%d", self._shard, ticket.host, ticket.control_port)
        self._link_id, self._seen = ticket.link_id, None
        await self._worker("rayspec_attach", ticket, self._shard)
        return POLL_S

    def _complain(self, error: Exception) -> float:
        # Ray wraps what a replica raised and keeps the original as `cause`.
        reason = str(getattr(error, "cause", None) or error) or type(error).__name__
        if reason != self._complaint:
            logger.warning("no draft %d for now: %s", self._shard, reason)
        self._complaint = reason
        return REFUSED_RETRY_S if isinstance(error, LinkRefused) else POLL_S
