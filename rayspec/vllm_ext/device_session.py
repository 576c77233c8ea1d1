"""The target's side of drafting where outcomes stay on the device: control is the host's part.

The host says which requests there are, with all their tokens, and when; what they get from then on
goes from the device into step frames, and the host never looks at it. Only an attachment in the
middle of generations, and a slot that the draft lost, read tokens from the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rayspec.link.frames import FrameShape
from rayspec.link.protocol import T2D, TokenHash, sequence_checksum
from rayspec.link.spec import LinkState
from rayspec.vllm_ext.session import ControlLink, DraftingParams, SessionSpec

__all__ = ["DeviceSession", "DeviceTokens", "SlotTable"]


class DeviceTokens(Protocol):
    """The token lists of the runner, on the device."""

    def tokens(self, slot: int) -> Sequence[int]:
        """Return all tokens of a slot; waits for the device."""


class SlotTable(Protocol):
    """What kernels know of the slots."""

    def set_slot(self, slot: int, gen: int, told: int, k: int) -> None:
        """Write a slot's row in the order of the main stream; K 0 keeps it out of frames."""


@dataclass(slots=True)
class _Request:
    slot: int
    k: int
    params: DraftingParams
    gen: int = 0
    told: bool = False
    hash: TokenHash = field(default_factory=TokenHash)


class DeviceSession:
    """Keeps one draft informed about the requests in its share of the slots."""

    def __init__(
        self, spec: SessionSpec, link: ControlLink, source: DeviceTokens, table: SlotTable
    ) -> None:
        self._spec = spec
        self._link = link
        self._source = source
        self._table = table
        self._requests: dict[str, _Request] = {}
        self._gens = itertools.count(1)
        self._stale = False

    @property
    def attached(self) -> bool:
        """Whether a draft is there."""
        return self._link.state is LinkState.READY

    @property
    def live(self) -> int:
        """How many requests the session follows."""
        return len(self._requests)

    def admit(self, req_id: str, slot: int, params: DraftingParams, tokens: Sequence[int]) -> None:
        """Follow a request with these tokens; the draft is told at once, and prefills meanwhile."""
        self.release(req_id)
        k = self._spec.k_max if params.k is None else max(0, min(params.k, self._spec.k_max))
        request = self._requests[req_id] = _Request(slot, k, params)
        self._tell(request, tokens)

    def release(self, req_id: str) -> None:
        """Forget a request that finished or was preempted."""
        request = self._requests.pop(req_id, None)
        if request is None:
            return
        self._table.set_slot(request.slot, 0, 0, 0)
        if request.told and self.attached:
            self._link.delete(request.slot, request.gen)

    def invalidate(self) -> None:
        """Tell everything again at the next step, because something went wrong in this one."""
        self._stale = True

    def prepare(self) -> None:
        """Bring the draft up to date before a step's outcome is packed."""
        if not self.attached:
            return
        if self._link.take_fresh() or self._stale:
            self._stale = False
            self._link.reset()
            for request in self._requests.values():
                request.told = False
                self._tell(request)
            return
        lost = self._link.take_resync()
        if not lost:
            return
        for request in self._requests.values():
            if request.slot in lost:
                self._tell(request)

    def checksum(self, frame: T2D) -> int:
        """Take up what a packed frame tells; return the checksum over everything told."""
        by_slot = {request.slot: request for request in self._requests.values() if request.told}
        for row in frame.rows:
            request = by_slot.get(row.slot)
            if request is not None and request.gen == row.gen:
                request.hash.extend(row.tokens)
        return sequence_checksum((r.slot, r.gen, r.hash) for r in by_slot.values())

    @property
    def shape(self) -> FrameShape:
        """Size of the frames."""
        return FrameShape(self._spec.slots, self._spec.k_max)

    def _tell(self, request: _Request, tokens: Sequence[int] | None = None) -> None:
        """Give the slot to a new generation, told of all tokens, which are read if not given."""
        if request.told and self.attached:
            self._link.delete(request.slot, request.gen)
        request.gen = next(self._gens)
        request.told = request.k > 0 and self.attached
        if not request.told:
            # The device keeps it out of frames as long as the draft does not know it.
            self._table.set_slot(request.slot, request.gen, 0, 0)
            return
        tokens = self._source.tokens(request.slot) if tokens is None else tokens
        self._table.set_slot(request.slot, request.gen, len(tokens), request.k)
        if self._spec.checksum:
            request.hash = TokenHash(tokens)
        params = request.params
        self._link.add(
            request.slot, request.gen, request.k, params.temperature, params.seed, tokens
        )
