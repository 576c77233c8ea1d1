"""One step's exchange with one draft: pack the outcome, post it, fetch the drafts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rayspec.link.channel import Inbox
from rayspec.link.path import DeviceStep
from rayspec.link.protocol import T2D
from rayspec.link.spec import LinkSpec
from rayspec.link.target import TargetLink
from rayspec.ops.fetch import await_reply, fetch_drafts
from rayspec.ops.outcome import Outcome, StepWords, pack_outcome
from rayspec.ops.state import ExchangeState
from rayspec.vllm_ext.device_session import DeviceSession, DeviceTokens
from rayspec.vllm_ext.session import SessionSpec
from rayspec.vllm_ext.status import ShardReport, link_figures

__all__ = ["Shard", "ShardPlace"]

# Words of a frame's header that a checksum takes: that there is one, and its value.
_CHECKSUM_WORDS = slice(6, 8)


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """Slot s belongs to shard s % count; but to a candidate, if its request names that."""

    index: int = 0
    count: int = 1
    candidate: bool = False


class Shard:
    """The share of the slots that one draft serves, with its link and what the device knows."""

    def __init__(
        self, spec: LinkSpec, place: ShardPlace, source: DeviceTokens, device: torch.device
    ) -> None:
        self.link = TargetLink(spec, device=device)
        self.state = ExchangeState(spec.slots, spec.k_max, device)
        sizes = SessionSpec(spec.slots, spec.k_max, spec.vocab_size, spec.checksum)
        self.session = DeviceSession(sizes, self.link, source, self.state)
        self._spec = spec
        self._place = place
        self._step: DeviceStep | None = None
        self._expected = False
        # What rows are fetched from while there is no draft: it never counts as a reply.
        self._silence = silence(spec, device)

    def tell(self, outcome: Outcome, k_want: int, *, sampled: bool) -> None:
        """Send the step's outcome; a step in which nothing can have been sampled has none."""
        self._step, self._expected = None, False
        self.session.prepare()
        if not sampled:
            return
        step = self.link.begin_step()
        if step is None:
            return
        words = StepWords(step.epoch, step.step, step.cseq_required, k_want)
        place = self._place
        pack_outcome(step.frame, outcome, self.state, words, shard=place.index, shards=place.count)
        if self._spec.checksum:
            self._add_checksum(step.frame)
        self._expected = self.link.post_step(step, rows=outcome.rows, k_want=k_want)
        self._step = step

    def fetch(self, drafts: torch.Tensor, q: torch.Tensor | None, outcome: Outcome, k: int) -> None:
        """Write the drafts of the shard's rows, fillers where there are none."""
        step, inbox = self._step, self._silence
        if step is not None and self._expected:
            inbox = step.channel.inbox(step.step)
            await_reply(
                inbox,
                self.state,
                epoch=step.epoch,
                step=step.step,
                asked_before=step.asked_before,
                deadline_s=self._spec.deadline_s,
            )
        fetch_drafts(
            drafts,
            inbox,
            outcome,
            self.state,
            k_want=k,
            vocab_size=self._spec.vocab_size,
            expected=self._expected,
            shard=self._place.index,
            shards=self._place.count,
            told_only=self._place.candidate,
            q=q,
        )

    def report(self) -> ShardReport:
        """Return the shard's figures now, without waiting for steps under way."""
        figures = self.state.read()
        on_device = figures.link if self._spec.transport == "nccl" else None
        link = link_figures(self.link.stats(), on_device)
        return ShardReport(self.link.state, link, self.session.live, figures.drafts)

    def warm_up(self, outcome: Outcome, drafts: torch.Tensor, q: torch.Tensor | None) -> None:
        """Launch every kernel of an exchange once, in the form that a real one takes."""
        place, spec = self._place, self._spec
        device = self.state.slots.device
        frame = torch.zeros(spec.shape.size, dtype=torch.int32, device=device)
        self.state.set_slot(0, 0, 0, 0)
        pack_outcome(
            frame,
            outcome,
            self.state,
            StepWords(0, 0, 0, 0),
            shard=place.index,
            shards=place.count,
        )
        polled = silence(spec, device, polled=spec.transport == "nccl")
        polled.arrived.fill_(1)
        await_reply(polled, self.state, epoch=0, step=1, asked_before=0, deadline_s=spec.deadline_s)
        for inbox in (polled, self._silence):
            fetch_drafts(
                drafts,
                inbox,
                outcome,
                self.state,
                k_want=0,
                vocab_size=spec.vocab_size,
                expected=False,
                shard=place.index,
                shards=place.count,
                told_only=place.candidate,
                q=q,
            )
        self.state.read()
        self.state.clear()

    def _add_checksum(self, frame: torch.Tensor) -> None:
        """Read the packed frame back, which waits for the device: for tests and debugging."""
        checksum = self.session.checksum(T2D.unpack(frame.cpu(), self._spec.shape))
        words = torch.tensor([1, checksum], dtype=torch.int32)
        frame[0, _CHECKSUM_WORDS].copy_(words)


def silence(spec: LinkSpec, device: torch.device, *, polled: bool = False) -> Inbox:
    """Return an inbox in which nothing ever arrives by itself."""

    def words(size: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.int32, device=device)

    q = None if spec.q_size is None else words(spec.q_size)
    return Inbox(words(spec.shape.size), q, words((1,)), polled)
