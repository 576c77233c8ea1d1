"""The target's end of a link, as the engine sees it.

One engine thread calls everything but `attach`, `stats` and `close`. Nothing here raises into it
and nothing waits longer than the deadline: without a draft an exchange is simply None.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import torch

from rayspec.errors import LinkError, LinkRefused
from rayspec.link.attachment import Attachment, open_attachment
from rayspec.link.counters import LinkCounters
from rayspec.link.frames import StepRow
from rayspec.link.messages import Add, Delete, MirrorMessage, Reset, SetK
from rayspec.link.path import DeviceStep
from rayspec.link.spec import LinkSpec, LinkState, LinkStats
from rayspec.link.ticket import Ticket

__all__ = ["TargetLink"]

logger = logging.getLogger(__name__)


class TargetLink:
    """Attaches to one draft at a time, and survives every one of them.

    Steps are told by `exchange` from the host or, of a link with a device, by `begin_step` and
    `post_step` from its tensors.

    After `take_fresh()` returned True the caller sends `reset()` and `add()` for every live slot;
    until it did so, the link carries nothing.
    """

    def __init__(
        self,
        spec: LinkSpec,
        on_state: Callable[[LinkState], None] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._spec = spec
        self._device = device
        self._on_state = on_state
        self._counters = LinkCounters()
        self._lock = threading.Lock()
        self._state = LinkState.DETACHED
        self._epoch = 0
        self._refused_reason: str | None = None
        self._down_reason: str | None = None
        self._turn = 0  # of the newest attach; older runners have no say any more
        self._runners: list[threading.Thread] = []
        self._ready: Attachment | None = None  # set by the runner
        self._live: Attachment | None = None  # taken over by the engine thread in take_fresh

    @property
    def spec(self) -> LinkSpec:
        """The settings of this link."""
        return self._spec

    @property
    def state(self) -> LinkState:
        """Where the link stands now."""
        return self._state

    def attach(self, ticket: Ticket) -> None:
        """Join the draft that gave the ticket, on a thread; replaces an attachment there is."""
        with self._lock:
            if self._state is LinkState.CLOSED:
                return
            self._turn += 1
            old, self._ready = self._ready, None
            runner = threading.Thread(
                target=self._run, args=(self._turn, ticket), name="rayspec-target-link", daemon=True
            )
            self._runners = [thread for thread in self._runners if thread.is_alive()]
            self._runners.append(runner)
            self._state = LinkState.ATTACHING
            # Started under the lock, so that close() never meets a thread it cannot join.
            runner.start()
        if old is not None:
            old.down("replaced by a new attachment")
        self._tell(LinkState.ATTACHING)

    def take_fresh(self) -> bool:
        """Whether the caller must now send reset() and add() for all live slots; true once."""
        ready = self._ready
        if ready is None:
            return False
        if ready is not self._live:
            ready.adopt()
            self._live = ready
            return True
        return ready.take_rejected_all()

    def take_resync(self) -> frozenset[int]:
        """Return the slots whose mirror the draft lost: add() these again with all their tokens."""
        live = self._live
        return live.take_rejected() if live is not None else frozenset()

    def reset(self) -> None:
        """Make the draft forget every slot."""
        self._post(Reset)

    def add(
        self,
        slot: int,
        gen: int,
        k: int,
        temperature: float,
        seed: int | None,
        tokens: Sequence[int],
    ) -> None:
        """Give a slot to a request, with all its tokens so far."""
        self._post(Add, slot, gen, k, float(temperature), seed, tuple(tokens))

    def delete(self, slot: int, gen: int) -> None:
        """Free a slot."""
        self._post(Delete, slot, gen)

    def set_k(self, slot: int, gen: int, k: int) -> None:
        """Limit the drafts of a slot."""
        self._post(SetK, slot, gen, k)

    def exchange(
        self, rows: Sequence[StepRow], k_want: int, checksum: int | None = None
    ) -> dict[int, list[int]] | None:
        """Tell the step's outcomes and return drafts by slot; None when no draft came in time.

        Every executed step is told, also with `k_want` 0, which waits for nothing and returns {}.
        A slot without drafts is missing or has an empty list. `checksum` is over the sequences
        including this step's tokens; it is sent when the spec asks for checksums.
        """
        live = self._live
        if live is None:
            return None
        fitting = []
        for row in rows:
            if len(row.tokens) <= self._spec.k_max + 1:
                fitting.append(row)
            else:
                live.reject(row.slot)  # the mirror would miss tokens: ask for the slot again
        try:
            return live.exchange(fitting, k_want, checksum if self._spec.checksum else None)
        except Exception as error:
            self._fail(live, error)
            return None

    def begin_step(self) -> DeviceStep | None:
        """Return what to tell the next step with; None when it cannot be told."""
        live = self._live
        if live is None:
            return None
        try:
            return live.begin_step()
        except Exception as error:
            self._fail(live, error)
            return None

    def post_step(self, step: DeviceStep, *, rows: int, k_want: int) -> bool:
        """Send a step's packed frame of at most `rows` rows; whether its reply may arrive."""
        live = self._live
        if live is None:
            return False
        try:
            live.post_step(step, rows=rows, k_want=k_want)
        except Exception as error:
            self._fail(live, error)
            return False
        return k_want > 0

    def stats(self) -> LinkStats:
        """Return the counters now."""
        counters, live = self._counters, self._live
        return LinkStats(
            state=self._state,
            epoch=self._epoch,
            lagging=live is not None and live.lagging,
            sent=counters.sent,
            received=counters.received,
            misses=counters.misses,
            skipped=counters.skipped,
            stale=counters.stale,
            resyncs=counters.resyncs,
            deaths=counters.deaths,
            attaches=counters.attaches,
            attach_failures=counters.attach_failures,
            refused_reason=self._refused_reason,
            down_reason=self._down_reason,
            rtt_ewma_us=counters.round_trip.ewma_us,
            rtt_p50_us=counters.round_trip.percentile(0.5),
            rtt_p99_us=counters.round_trip.percentile(0.99),
            draft_ewma_us=counters.draft.ewma_us,
        )

    def close(self) -> None:
        """Leave the draft and join every thread; idempotent."""
        with self._lock:
            first = self._state is not LinkState.CLOSED
            self._state = LinkState.CLOSED
            self._turn += 1
            ready, self._ready = self._ready, None
            runners, self._runners = self._runners, []
        if ready is not None:
            ready.down("target closed the link")
        for runner in runners:
            # One that is still attaching sees that its turn is over at the latest after this time.
            runner.join(timeout=self._spec.attach_timeout_s)
        if first:
            self._tell(LinkState.CLOSED)

    def _post(self, kind: Callable[..., MirrorMessage], *fields: object) -> None:
        live = self._live
        if live is None:
            return
        try:
            cseq, after = live.next_order
            live.post(kind(cseq, *fields, after=after))
        except Exception as error:
            self._fail(live, error)

    def _fail(self, live: Attachment, error: Exception) -> None:
        if not isinstance(error, LinkError):
            logger.error("link failed", exc_info=error)
        self._live = None
        self._leave(live, str(error))

    def _run(self, turn: int, ticket: Ticket) -> None:
        """Life of one attachment, on its own thread."""
        try:
            attachment = open_attachment(ticket, self._spec, self._counters, self._device)
        except Exception as error:
            self._not_attached(turn, error)
            return
        if self._enter(turn, attachment):
            try:
                attachment.listen()
            except LinkError as error:
                self._leave(attachment, str(error))
            except Exception as error:
                logger.exception("link listener failed")
                self._leave(attachment, str(error))
        attachment.close()

    def _not_attached(self, turn: int, error: Exception) -> None:
        refused = isinstance(error, LinkRefused)
        state = LinkState.REFUSED if refused else LinkState.DETACHED
        with self._lock:
            self._counters.attach_failures += 1
            if turn != self._turn:
                return
            self._state = state
            self._refused_reason = str(error) if refused else None
            self._down_reason = str(error)
        logger.warning("not attached to a draft: %s", error)
        self._tell(state)

    def _enter(self, turn: int, attachment: Attachment) -> bool:
        with self._lock:
            if turn != self._turn:
                return False
            self._ready = attachment
            self._epoch = attachment.epoch
            self._state = LinkState.READY
            self._refused_reason = None
            self._counters.attaches += 1
        logger.info("attached to a draft, epoch %d", attachment.epoch)
        self._tell(LinkState.READY)
        return True

    def _leave(self, attachment: Attachment, reason: str) -> None:
        attachment.down(reason)
        with self._lock:
            if attachment is not self._ready:
                return
            self._ready = None
            self._state = LinkState.DETACHED
            self._down_reason = reason
            self._counters.deaths += 1
        logger.warning("detached from the draft: %s", reason)
        self._tell(LinkState.DETACHED)

    def _tell(self, state: LinkState) -> None:
        if self._on_state is None:
            return
        try:
            self._on_state(state)
        except Exception:
            logger.exception("state listener failed")
