"""The target's side of drafting, shared by both model runners: what the draft has been told.

A session never copies a request's tokens. It remembers how many of them it told, and asks its
`TokenSource` for the rest when it next speaks about the request, so a step that the runner skipped,
a request that came back, and an attachment in the middle of a generation are all the same case.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rayspec.link.protocol import StepRow, TokenHash, sequence_checksum
from rayspec.link.spec import LinkState
from rayspec.vllm_ext.counters import DraftCounters

__all__ = [
    "ControlLink",
    "DraftingParams",
    "SessionLink",
    "SessionSpec",
    "TargetSession",
    "TokenSource",
]


class TokenSource(Protocol):
    """The runner's own token lists."""

    def length(self, req_id: str) -> int | None:
        """Return how many tokens a request has, prompt included; None if it is unknown."""

    def tokens(self, req_id: str, start: int) -> Sequence[int]:
        """Return a request's tokens from position `start` on."""


class ControlLink(Protocol):
    """What a `TargetLink` does for a session whose outcomes stay on the device."""

    @property
    def state(self) -> LinkState:
        """Whether a draft is attached."""

    def take_fresh(self) -> bool:
        """Return True when everything has to be told again."""

    def take_resync(self) -> frozenset[int]:
        """Return the slots that have to be told again."""

    def reset(self) -> None:
        """Make the draft forget every slot."""

    def add(
        self,
        slot: int,
        gen: int,
        k: int,
        temperature: float,
        seed: int | None,
        tokens: Sequence[int],
    ) -> None:
        """Tell the draft about a request."""

    def delete(self, slot: int, gen: int) -> None:
        """Make the draft forget a request."""


class SessionLink(ControlLink, Protocol):
    """What it does for one that tells outcomes from the host."""

    def exchange(
        self, rows: Sequence[StepRow], k_want: int, checksum: int | None
    ) -> Mapping[int, Sequence[int]] | None:
        """Tell a step's outcomes and return drafts by slot; None when there are none."""


@dataclass(frozen=True, slots=True)
class DraftingParams:
    """What of a request's parameters matters to a draft; K None is the link's.

    `candidate` says that not the usual draft but its new version is to draft.
    """

    k: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    candidate: bool = False


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """Static sizes of a session."""

    slots: int
    k_max: int
    vocab_size: int
    checksum: bool = False


@dataclass(slots=True)
class _Request:
    slot: int
    gen: int
    k: int
    params: DraftingParams
    # Tokens the draft knows; None while it knows nothing of this request.
    told: int | None = None
    hash: TokenHash = field(default_factory=TokenHash)


class TargetSession:
    """Tells a draft about live requests and their outcomes, and collects its drafts."""

    def __init__(self, spec: SessionSpec, link: SessionLink, source: TokenSource) -> None:
        self._spec = spec
        self._link = link
        self._source = source
        self._requests: dict[str, _Request] = {}
        self._gens = itertools.count(1)
        self._stale = False
        self.counters = DraftCounters(spec.k_max)

    @property
    def _attached(self) -> bool:
        return self._link.state is LinkState.READY

    @property
    def live(self) -> int:
        """How many requests the session follows."""
        return len(self._requests)

    def knows(self, req_id: str) -> bool:
        """Whether the session follows a request."""
        return req_id in self._requests

    def admit(self, req_id: str, slot: int, params: DraftingParams) -> None:
        """Follow a request; the draft is told at once, so that both sides prefill together."""
        self.release(req_id)
        k = self._spec.k_max if params.k is None else max(0, min(params.k, self._spec.k_max))
        request = self._requests[req_id] = _Request(slot, 0, k, params)
        if self._attached and not self._stale:
            self._tell_all(req_id, request)

    def release(self, req_id: str) -> int | None:
        """Forget a request that finished or was preempted; return the slot that it had."""
        request = self._requests.pop(req_id, None)
        if request is None:
            return None
        if request.told is not None and self._attached:
            self._link.delete(request.slot, request.gen)
        return request.slot

    def invalidate(self) -> None:
        """Tell everything again at the next step, because something went wrong in this one."""
        self._stale = True

    def step(self, req_ids: Iterable[str], k_want: int) -> dict[str, list[int]]:
        """Tell the newest outcomes of the requests that sampled, and return their drafts.

        Requests in the middle of their prefill are not named: they have no outcome and need no
        drafts.
        """
        if not self._attached:
            return {}
        if self._link.take_fresh() or self._stale:
            self._resync()
        else:
            self._repair(self._link.take_resync())
        rows: dict[str, StepRow] = {}
        for req_id in req_ids:
            request = self._requests.get(req_id)
            if request is not None and request.k and (row := self._row(req_id, request)):
                rows[req_id] = row
        if not rows:
            return {}
        answer = self._link.exchange(list(rows.values()), k_want, self._checksum())
        if not answer:
            return {}
        drafts: dict[str, list[int]] = {}
        for req_id in rows:
            request = self._requests[req_id]
            usable = self._usable(answer.get(request.slot, ()), min(request.k, k_want))
            if usable:
                drafts[req_id] = usable
        return drafts

    def _row(self, req_id: str, request: _Request) -> StepRow | None:
        length = self._source.length(req_id)
        if length is None:
            return None
        told = request.told
        if told is None or not 0 <= length - told <= self._spec.k_max + 1:
            # Never told, taken back by the runner, or told too long ago to fit into a row.
            self._tell_all(req_id, request)
            return StepRow(request.slot, request.gen)
        fresh = self._source.tokens(req_id, told)
        request.told = told + len(fresh)
        if self._spec.checksum:
            request.hash.extend(fresh)
        return StepRow(request.slot, request.gen, fresh)

    def _tell_all(self, req_id: str, request: _Request) -> None:
        if not request.k or self._source.length(req_id) is None:
            return
        if request.told is not None:
            self._link.delete(request.slot, request.gen)
        tokens = self._source.tokens(req_id, 0)
        request.gen = next(self._gens)
        request.told = len(tokens)
        if self._spec.checksum:
            request.hash = TokenHash(tokens)
        params = request.params
        self._link.add(
            request.slot, request.gen, request.k, params.temperature, params.seed, tokens
        )

    def _resync(self) -> None:
        self._stale = False
        self._link.reset()
        for req_id, request in self._requests.items():
            request.told = None
            self._tell_all(req_id, request)

    def _repair(self, slots: frozenset[int]) -> None:
        if not slots:
            return
        for req_id, request in self._requests.items():
            if request.slot in slots:
                self._tell_all(req_id, request)

    def _checksum(self) -> int | None:
        if not self._spec.checksum:
            return None
        return sequence_checksum(
            (request.slot, request.gen, request.hash)
            for request in self._requests.values()
            if request.told is not None
        )

    def _usable(self, drafts: Sequence[int], most: int) -> list[int]:
        # An id outside the vocabulary would index past the embedding table.
        vocab_size = self._spec.vocab_size
        return list(itertools.takewhile(lambda token: 0 <= token < vocab_size, drafts[:most]))
