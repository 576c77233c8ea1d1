"""One attachment of a target to a draft: from the handshake to its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from rayspec.errors import LinkClosed, LinkError, LinkRefused
from rayspec.link.control import ControlChannel, Heartbeat, dial
from rayspec.link.counters import LinkCounters
from rayspec.link.frames import D2T, T2D, StepRow
from rayspec.link.gloo import TARGET_RANK, GlooTransport
from rayspec.link.messages import ALL_SLOTS, Bye, MirrorMessage, Nack, Ping, Pong, Ready
from rayspec.link.rendezvous import join_store
from rayspec.link.spec import LinkSpec
from rayspec.link.ticket import Ticket
from rayspec.link.transport import Transport

__all__ = ["Attachment", "open_attachment"]

logger = logging.getLogger(__name__)


class Attachment:
    """A live connection: the engine's thread steps it, its own thread listens to the draft.

    It never heals: once `down_reason` is set, every call is a LinkClosed and a new attachment, with
    a new epoch, is the only way on.
    """

    def __init__(
        self,
        control: ControlChannel,
        transport: Transport,
        epoch: int,
        spec: LinkSpec,
        counters: LinkCounters,
    ) -> None:
        self.epoch = epoch
        self.lagging = False
        self.down_reason: str | None = None
        self._control = control
        self._transport = transport
        self._spec = spec
        self._counters = counters
        self._cseq = 0
        self._step = 0
        self._lock = threading.Lock()
        self._rejected: set[int] = set()
        self._rejected_all = False

    # Engine thread.

    @property
    def next_order(self) -> tuple[int, int]:
        """`cseq` and `after` for the next mirror message."""
        return self._cseq + 1, self._step

    def post(self, message: MirrorMessage) -> None:
        """Send a mirror message made with `next_order`."""
        self._check_up()
        self._control.send(message)
        self._cseq = message.cseq

    def exchange(
        self, rows: Sequence[StepRow], k_want: int, checksum: int | None
    ) -> dict[int, list[int]] | None:
        """Tell one step; return the drafts by slot, or None when there are none in time."""
        start = time.perf_counter()
        self._check_up()
        self._catch_up()
        self._step += 1
        frame = T2D(self.epoch, self._step, self._cseq, k_want, rows, checksum)
        self._transport.send(frame.pack(self._spec.shape))
        self._counters.sent += 1
        if k_want == 0:
            return {}
        if self.lagging:
            self._counters.skipped += 1
            return None
        reply = self._await_reply(start + self._spec.deadline_s)
        if reply is None:
            self._counters.misses += 1
            self.lagging = True
            return None
        self._counters.received += 1
        self._counters.round_trip.add((time.perf_counter() - start) * 1e6)
        self._counters.draft.add(reply.t_draft_us)
        return self._usable(reply, rows, k_want)

    def _catch_up(self) -> None:
        """Drop late replies; the draft has caught up once it answered the newest step."""
        while (reply := self._next_reply(0.0)) is not None:
            if self._answers_newest(reply):
                self.lagging = False
            else:
                self._counters.stale += 1

    def _await_reply(self, until: float) -> D2T | None:
        while (left := until - time.perf_counter()) > 0:
            reply = self._next_reply(left)
            if reply is None:
                return None
            if self._answers_newest(reply):
                return reply
            self._counters.stale += 1
        return None

    def _next_reply(self, timeout_s: float) -> D2T | None:
        frame = self._transport.recv(timeout_s)
        return None if frame is None else D2T.unpack(frame, self._spec.shape)

    def _answers_newest(self, reply: D2T) -> bool:
        return reply.epoch == self.epoch and reply.step == self._step

    def _usable(self, reply: D2T, rows: Sequence[StepRow], k_want: int) -> dict[int, list[int]]:
        """Keep what the engine may verify: this generation's slots and ids of this vocabulary."""
        gens = {row.slot: row.gen for row in rows}
        vocab = self._spec.vocab_size
        drafts = {}
        for row in reply.rows:
            if gens.get(row.slot) == row.gen and all(0 <= token < vocab for token in row.tokens):
                drafts[row.slot] = list(row.tokens[:k_want])
            else:
                self._counters.stale += 1
        return drafts

    def reject(self, slot: int) -> None:
        """Note that the draft's mirror of a slot, or of `ALL_SLOTS`, is wrong."""
        with self._lock:
            self._counters.resyncs += 1
            if slot == ALL_SLOTS:
                self._rejected_all = True
            else:
                self._rejected.add(slot)

    def take_rejected(self) -> frozenset[int]:
        """Return the slots that have to be added again, once."""
        with self._lock:
            rejected, self._rejected = frozenset(self._rejected), set()
        return rejected

    def take_rejected_all(self) -> bool:
        """Whether the whole mirror has to be sent again; true once."""
        with self._lock:
            rejected, self._rejected_all = self._rejected_all, False
            if rejected:
                self._rejected.clear()
        return rejected

    def _check_up(self) -> None:
        if self.down_reason is not None:
            raise LinkClosed(self.down_reason)

    # Any thread.

    def down(self, reason: str) -> None:
        """End the attachment without waiting for anything; the first reason stays."""
        if self.down_reason is None:
            self.down_reason = reason
        self._control.interrupt()

    # Own thread.

    def listen(self) -> None:
        """Watch the draft until the attachment ends; raises the LinkError it ended by."""
        spec = self._spec
        heart = Heartbeat(spec.ping_interval_s, spec.pong_timeout_s, time.monotonic())
        while True:
            self._check_up()
            nonce = heart.due(time.monotonic())
            if nonce is not None:
                self._control.send(Ping(nonce))
            message = self._control.receive(spec.ping_interval_s)
            if message is None:
                if heart.hung(time.monotonic()):
                    raise LinkClosed(f"draft is hung: silent for {spec.pong_timeout_s} s")
                continue
            heart.heard(time.monotonic())
            match message:
                case Nack(slot=slot, why=why):
                    logger.warning("draft rejects its mirror of slot %d: %s", slot, why)
                    self.reject(slot)
                case Bye(why=why):
                    raise LinkClosed(f"draft ended the link: {why}")
                case Pong():
                    pass
                case _:
                    raise LinkError(f"unexpected {type(message).__name__} from the draft")

    def close(self) -> None:
        """Release sockets, groups and threads; the draft sees the end of the control stream."""
        self._control.close()
        self._transport.abort()


def open_attachment(ticket: Ticket, spec: LinkSpec, counters: LinkCounters) -> Attachment:
    """Join the draft that gave the ticket; raises LinkRefused or LinkClosed."""
    control = dial(
        ticket.host, ticket.control_port, timeout_s=spec.attach_timeout_s, name="rayspec-target"
    )
    try:
        control.send(spec.hello(ticket.epoch, ticket.link_id))
        match control.receive(spec.attach_timeout_s):
            case Ready(epoch=ticket.epoch):
                pass
            case Bye(why=why):
                raise LinkRefused(why)
            case None:
                raise LinkClosed("draft did not answer the hello")
            case other:
                raise LinkError(f"draft answered the hello with {other}")
        store = join_store(ticket.host, ticket.store_port, timeout_s=spec.attach_timeout_s)
        transport = GlooTransport(
            store,
            rank=TARGET_RANK,
            epoch=ticket.epoch,
            shape=spec.shape,
            host=control.local_host,
            timeout_s=spec.attach_timeout_s,
        )
    except BaseException:
        control.close()
        raise
    return Attachment(control, transport, ticket.epoch, spec, counters)
