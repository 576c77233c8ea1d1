"""One attachment of a target to a draft: from the handshake to its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import torch

from rayspec.errors import LinkClosed, LinkError, LinkRefused
from rayspec.link.control import ControlChannel, Heartbeat, dial
from rayspec.link.counters import LinkCounters
from rayspec.link.frames import D2T, T2D, StepRow
from rayspec.link.messages import ALL_SLOTS, Announce, Bye, MirrorMessage, Nack, Ping, Pong, Ready
from rayspec.link.path import DeviceStep, Path, open_path
from rayspec.link.spec import LinkSpec
from rayspec.link.ticket import Ticket

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
        path: Path,
        epoch: int,
        spec: LinkSpec,
        counters: LinkCounters,
    ) -> None:
        self.epoch = epoch
        self.down_reason: str | None = None
        self._control = control
        self._path = path
        self._spec = spec
        self._counters = counters
        self._cseq = 0
        self._step = 0
        self._asked = 0  # newest step of the device that expects a reply
        self._behind = False
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

    @property
    def lagging(self) -> bool:
        """Whether the draft is behind, as far as the host knows."""
        return self._path.replies is not None and self._path.replies.lagging

    def exchange(
        self, rows: Sequence[StepRow], k_want: int, checksum: int | None
    ) -> dict[int, list[int]] | None:
        """Tell one step from the host; return the drafts by slot, or None when there are none."""
        self._check_up()
        replies = self._path.replies
        if replies is None:
            raise LinkError("this link carries frames of the device alone")
        replies.catch_up()
        self._step += 1
        frame = T2D(self.epoch, self._step, self._cseq, k_want, rows, checksum)
        reply = replies.ask(self._step, frame.pack(self._spec.shape), expect=k_want > 0)
        if k_want == 0:
            return {}
        return None if reply is None else self._usable(reply.content, rows, k_want)

    def adopt(self) -> None:
        """The engine's thread takes over, on the stream that is its current one."""
        if self._path.channel is not None:
            self._path.channel.adopt()

    def begin_step(self) -> DeviceStep | None:
        """Return what to tell a step with from the device; None while the draft is far behind.

        Once a frame had to be left out, the draft gets everything anew as soon as it has taken what
        is on its way.
        """
        self._check_up()
        channel = self._path.channel
        if channel is None:
            raise LinkError("this link carries frames of the host alone")
        if self._behind:
            if channel.drained():
                self._behind = False
                self.reject(ALL_SLOTS)
            return None
        frame = channel.outbox(self._step + 1)
        if frame is None:
            self._behind = True
            return None
        self._step += 1
        asked_before = self._asked
        return DeviceStep(self.epoch, self._step, self._cseq, asked_before, frame, channel)

    def post_step(self, step: DeviceStep, *, rows: int, k_want: int) -> None:
        """Send the frame of a step, now that the kernel that packs it is launched.

        It has at most `rows` rows, and its header asks for `k_want` drafts.
        """
        self._check_up()
        if k_want:
            self._asked = step.step
        if self._path.replies is None:
            self._control.send(Announce(step.step, step.cseq_required, rows, k_want))
            self._counters.sent += 1
        step.channel.post(step.step, expect=k_want > 0)

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
        self._path.abort()


def open_attachment(
    ticket: Ticket, spec: LinkSpec, counters: LinkCounters, device: torch.device | None = None
) -> Attachment:
    """Join the draft that gave the ticket; raises LinkRefused or LinkClosed.

    With a device, steps are told from its tensors.
    """
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
        path = open_path(ticket, spec, counters, device, control.local_host)
    except BaseException:
        control.close()
        raise
    return Attachment(control, path, ticket.epoch, spec, counters)
