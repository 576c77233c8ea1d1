"""A target link, and a drafter that a test can hold, for tests of the two ends together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from rayspec.draft.base import DraftRequest
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.server import DraftServer
from rayspec.draft.spec import DraftServerSpec
from rayspec.link.protocol import StepRow, TokenHash, sequence_checksum
from rayspec.link.spec import LinkSpec, LinkState
from rayspec.link.target import TargetLink
from rayspec.link.ticket import Ticket

# Generous: nothing passes by waiting, so only a failing test ever takes this long.
WAIT_S = 120.0
SPEC = LinkSpec(
    slots=4,
    k_max=4,
    vocab_size=1000,
    max_len=256,
    tokenizer_hash="t",
    deadline_s=20.0,
    checksum=True,
    ping_interval_s=0.05,
    pong_timeout_s=30.0,
)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once the condition holds; fails after `WAIT_S`."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.002)


class CountingDrafter:
    """Drafts last + 1, last + 2, …; a closed gate holds it in the middle of a round."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.live: set[DraftSequence] = set()
        self.batches: list[int] = []
        self.closed = False

    def start(self) -> None:
        pass

    def add(self, sequence: DraftSequence) -> None:
        self.live.add(sequence)

    def drop(self, sequence: DraftSequence) -> None:
        self.live.remove(sequence)

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        self.batches.append(len(requests))
        return [
            [request.sequence.tokens[-1] + 1 + i for i in range(request.k)] for request in requests
        ]

    def work(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class Target:
    """An engine in miniature: token lists by slot, told over a link with checksums."""

    def __init__(self, spec: LinkSpec = SPEC) -> None:
        self.link = TargetLink(spec)
        self.spec = spec
        self.requests: dict[int, tuple[int, list[int]]] = {}
        self._gen = 0

    def attach(self, ticket: Ticket) -> None:
        """Attach, and wait until the link is ready."""
        attaches = self.link.stats().attaches
        self.link.attach(ticket)
        wait_until(lambda: self.link.stats().attaches > attaches, "attachment")
        assert self.link.state is LinkState.READY

    def begin(self, slot: int, *tokens: int) -> None:
        """Put a request into a slot."""
        self._gen += 1
        self.requests[slot] = (self._gen, list(tokens))
        self.link.add(slot, self._gen, self.spec.k_max, 0.0, None, tokens)

    def end(self, slot: int) -> None:
        """Free a slot."""
        gen, _ = self.requests.pop(slot)
        self.link.delete(slot, gen)

    def step(self, k_want: int = 4, **outcomes: Sequence[int]) -> dict[int, list[int]] | None:
        """Tell one step; `s0=[1, 2]` are the new tokens of slot 0."""
        told: dict[int, Sequence[int]] = {int(name[1:]): new for name, new in outcomes.items()}
        for slot, new in told.items():
            self.requests[slot][1].extend(new)
        if self.link.take_fresh():
            self.link.reset()
            self._add(set(self.requests))
            told = {}
        elif again := self.link.take_resync():
            self._add(again & self.requests.keys())
            told = {slot: new for slot, new in told.items() if slot not in again}
        rows = [StepRow(slot, gen, told.get(slot, ())) for slot, (gen, _) in self.requests.items()]
        return self.link.exchange(rows, k_want, self.checksum())

    def checksum(self) -> int:
        """Return the checksum over what this target knows."""
        return sequence_checksum(
            (slot, gen, TokenHash(tokens)) for slot, (gen, tokens) in self.requests.items()
        )

    def _add(self, slots: Collection[int]) -> None:
        for slot in slots:
            gen, tokens = self.requests[slot]
            self.link.add(slot, gen, self.spec.k_max, 0.0, None, tokens)


def draft_server(drafter: CountingDrafter, **spec: object) -> DraftServer:
    """Return a running server of a drafter, for targets of `SPEC`."""
    values = {"vocab_size": SPEC.vocab_size, "tokenizer_hash": SPEC.tokenizer_hash, **spec}
    server = DraftServer(drafter, DraftServerSpec(**values))  # type: ignore[arg-type]
    server.start()
    return server
