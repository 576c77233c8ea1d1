"""Targets in miniature against draft rounds, and what every reply has to say."""

from __future__ import annotations

import random
import time
from collections import deque
from typing import Any

import torch

from rayspec.draft.counters import DraftCounters
from rayspec.draft.rounds.device_peer import DevicePeer
from rayspec.draft.rounds.engine import RoundsEngine
from rayspec.draft.rounds.loop import RoundsLoop
from rayspec.draft.rounds.paths import Arrival, HostPath
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.link.protocol import (
    D2T,
    T2D,
    WIRE_VERSION,
    Add,
    Announce,
    Delete,
    FrameShape,
    Hello,
    Message,
    MirrorMessage,
    Nack,
    Reset,
    SetK,
    StepRow,
    TokenHash,
    sequence_checksum,
)
from tests.support.hash_model import HashModel, greedy_chain

VOCAB = 300
WAIT_S = 60.0


class FakeControl:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def interrupt(self) -> None:
        pass


class FakeTransport:
    q = None

    def __init__(self) -> None:
        self.mailbox: deque[torch.Tensor] = deque()
        self.sent: deque[tuple[torch.Tensor, torch.Tensor | None]] = deque()

    def announce(self) -> None:
        pass

    def send(self, frame: torch.Tensor, q: torch.Tensor | None = None) -> None:
        self.sent.append((frame, q))

    def recv(self, timeout_s: float) -> torch.Tensor | None:
        return self.mailbox.popleft() if self.mailbox else None

    def abort(self) -> None:
        pass


class AnnouncedPath(HostPath):
    """Frames that are announced: they are received for a round that is launched ahead of them.

    Here it runs at once, where on a device it would begin with the frame's arrival.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._told: deque[Announce] = deque()
        self._met: deque[Arrival] = deque()

    def announce(self, told: Announce) -> None:
        self._told.append(told)

    def due(self) -> Announce | None:
        ready = self._told and self._seen == self._released and not self._met
        return self._told[0] if ready else None

    def post(self) -> tuple[torch.Tensor, Any]:
        self._told.popleft()
        arrival = super().poll()
        assert arrival is not None
        self._met.append(arrival)
        return arrival.frame, object()

    def poll(self) -> Arrival | None:
        return self._met.popleft() if self._met else None


class DevicePath(AnnouncedPath):
    """Frames that are there on the device before the host has noticed, if `noticed` is unset."""

    noticed = True

    def poll(self) -> Arrival | None:
        return super().poll() if self.noticed else None


class SlowPieces:
    """Holds back the news that a piece of prefill is written, as if the device still worked."""

    def __init__(self, engine: RoundsEngine) -> None:
        self._prefiller = engine._prefiller
        self._take_done = self._prefiller.take_done
        self._prefiller.take_done = lambda: None  # type: ignore[method-assign]

    def end(self) -> None:
        self._prefiller.take_done = self._take_done  # type: ignore[method-assign]


class Rig:
    """An engine over a `HashModel`, and the loop's turns without its thread."""

    def __init__(
        self,
        device: str = "cpu",
        *,
        blocks: int | None = None,
        token_ids: list[int] | None = None,
        announced: bool = False,
        widest: int = 2,
        **spec: Any,
    ) -> None:
        self.announced = announced
        self.model = HashModel(device, VOCAB, widest=widest)
        if token_ids is not None:
            self.model.token_ids = torch.tensor(token_ids, dtype=torch.int32, device=device)
        kv_gib = None if blocks is None else blocks * self.model.block_size * 4 / 2**30
        values = {"rows": 4, "max_len": 64, "k_max": 4, "max_slots": 8, "targets": 2, **spec}
        self.engine = RoundsEngine(lambda: self.model, RoundsSpec(kv_gib=kv_gib, **values))
        self.engine.start()
        self.counters = DraftCounters()
        self.loop = RoundsLoop(self.engine, self.counters, cuda=False)
        self.loop._give_up = _fail  # type: ignore[method-assign]
        self.targets: list[Target] = []

    def target(self, **hello: Any) -> Target:
        """Attach one more target."""
        target = Target(self, len(self.targets) + 1, **hello)
        self.targets.append(target)
        return target

    def turn(self) -> bool:
        """Let the loop do what it can at once."""
        with self.engine.activate():
            return self.loop._turn([target.peer for target in self.targets])

    def settle(self) -> None:
        """Turn until there is nothing left to do, prefill included."""
        deadline = time.monotonic() + WAIT_S
        while self.turn() or self.engine.busy:
            assert time.monotonic() < deadline

    def leave(self, target: Target) -> None:
        """Detach a target as its listener would."""
        self.targets.remove(target)
        deadline = time.monotonic() + WAIT_S
        with self.engine.activate():
            while not target.peer.let_go():
                self.engine.settle()
                assert time.monotonic() < deadline

    def close(self) -> None:
        for target in list(self.targets):
            self.leave(target)
        rows, blocks = self.engine.stats().rows_used, self.engine.stats().blocks_used
        piece = self.engine._prefiller.current
        assert rows == 0
        assert blocks == 0 or piece is not None
        self.engine.close()


def _fail(peer: DevicePeer, error: Exception) -> None:
    raise error


class Target:
    """Token lists by slot, told with checksums; replies are checked against the model itself."""

    def __init__(self, rig: Rig, epoch: int, **hello: Any) -> None:
        values = {"slots": 6, "k_max": 4, "vocab_size": VOCAB, "max_len": 60, **hello}
        self.hello = Hello(
            epoch=epoch, version=WIRE_VERSION, tokenizer_hash="t", checksum=True, **values
        )
        self.shape = FrameShape(self.hello.slots, self.hello.k_max)
        self.control, self.transport = FakeControl(), FakeTransport()
        q_size = (self.hello.slots, self.hello.k_max, 2 * self.hello.q_top)
        path = (DevicePath if rig.announced else HostPath)(
            self.transport,
            self.shape,
            q_size if self.hello.q_mode == "sparse" else None,
            rig.model.device,
        )
        control: Any = self.control
        self.path: Any = path
        self.rig = rig
        self.peer = DevicePeer(control, path, self.hello, rig.engine, rig.counters)
        self.gens = 0
        self.requests: dict[int, Request] = {}
        self.step_number = self.cseq = 0
        self.asked: deque[tuple[int, int, dict[int, tuple[int, list[int]]]]] = deque()
        self.q: torch.Tensor | None = None

    def say(self, kind: type, *fields: Any) -> None:
        self.cseq += 1
        message: MirrorMessage = kind(self.cseq, *fields, after=self.step_number)
        self.peer._inbox.append(message)

    def begin(
        self, slot: int, tokens: list[int], k: int = 4, temperature: float = 0.0, seed: int = 1
    ) -> None:
        self.gens += 1
        self.requests[slot] = Request(self.gens, k, list(tokens))
        self.say(Add, slot, self.gens, k, temperature, seed, tuple(tokens))

    def end(self, slot: int) -> None:
        self.say(Delete, slot, self.requests.pop(slot).gen)

    def reset(self) -> None:
        self.say(Reset)
        self.requests.clear()

    def set_k(self, slot: int, k: int) -> None:
        self.requests[slot].k = k
        self.say(SetK, slot, self.requests[slot].gen, k)

    def tell(self, k_want: int = 4, outcomes: dict[int, list[int]] | None = None) -> None:
        """Send a step; nobody waits for its reply."""
        outcomes = {} if outcomes is None else outcomes
        self.step_number += 1
        rows, known = [], {}
        for slot, request in self.requests.items():
            if slot not in outcomes:
                continue
            request.tokens += outcomes[slot]
            rows.append(StepRow(slot, request.gen, outcomes[slot]))
            room = self.hello.max_len - len(request.tokens)
            most = max(0, min(k_want, request.k, room)) if len(request.tokens) > 1 else 0
            known[slot] = (most, list(request.tokens))
        checksum = sequence_checksum(
            (slot, request.gen, TokenHash(request.tokens))
            for slot, request in self.requests.items()
        )
        frame = T2D(self.hello.epoch, self.step_number, self.cseq, k_want, rows, checksum)
        self.transport.mailbox.append(frame.pack(self.shape))
        if self.rig.announced:
            self.peer._announce(Announce(self.step_number, self.cseq, len(rows), k_want))
        if k_want:
            self.asked.append((self.step_number, k_want, known))

    def take(self, *, ready: bool) -> dict[int, list[int]]:
        """Check every reply there is and return the newest drafts; `ready` expects all of them."""
        drafts: dict[int, list[int]] = {}
        while self.transport.sent:
            frame, self.q = self.transport.sent.popleft()
            reply = D2T.unpack(frame, self.shape)
            step, _, known = self.asked.popleft()
            assert (reply.epoch, reply.step) == (self.hello.epoch, step)
            assert {row.slot for row in reply.rows} == known.keys()
            drafts = {}
            for row in reply.rows:
                most, tokens = known[row.slot]
                got = list(row.tokens)
                if self.hello.q_mode == "none":
                    assert got == greedy_chain(tokens, len(got), VOCAB), (step, row, tokens)
                assert len(got) <= most
                if ready and not self.transport.sent:
                    assert len(got) == most, (step, row, tokens)
                drafts[row.slot] = got
        assert not [message for message in self.control.sent if isinstance(message, Nack)]
        return drafts

    def step(self, k_want: int = 4, **outcomes: list[int]) -> dict[int, list[int]]:
        """Tell a step after all preparation and return the drafts, which have to be complete."""
        self.rig.settle()
        self.tell(k_want, {int(name[1:]): new for name, new in outcomes.items()})
        self.rig.settle()
        return self.take(ready=True)


class Request:
    def __init__(self, gen: int, k: int, tokens: list[int]) -> None:
        self.gen, self.k, self.tokens = gen, k, tokens


def random_run(
    rig: Rig, target: Target, chance: random.Random, steps: int, *, patient_every: int = 0
) -> int:
    """Drive a target through everything that can happen, in haste; return the tokens drafted.

    Drafts may be missing, because nothing is waited for; those that come have to be right. With
    `patient_every` each n-th step waits, for prefill and for its drafts, which a device brings in
    its own time.
    """
    newest: dict[int, list[int]] = {}
    drafted = 0
    for number in range(1, steps + 1):
        patient = patient_every > 0 and number % patient_every == 0
        free = [slot for slot in range(target.hello.slots) if slot not in target.requests]
        if free and chance.random() < 0.4:
            tokens = [chance.randrange(VOCAB) for _ in range(chance.randint(1, 45))]
            target.begin(chance.choice(free), tokens, chance.randint(0, target.hello.k_max))
        if target.requests and chance.random() < 0.1:
            slot = chance.choice(list(target.requests))
            again = target.requests[slot].tokens
            target.end(slot)
            if chance.random() < 0.5:
                target.begin(slot, again)
        if target.requests and chance.random() < 0.1:
            target.set_k(chance.choice(list(target.requests)), chance.randint(0, 4))
        outcomes = {}
        for slot, request in target.requests.items():
            if chance.random() < 0.1:
                continue
            drafts = newest.get(slot, [])
            accepted = drafts[: chance.randint(0, len(drafts))]
            new = [*accepted, chance.randrange(VOCAB)]
            outcomes[slot] = new if len(request.tokens) + len(new) <= 60 else []
        for slot in [slot for slot, request in target.requests.items() if len(request.tokens) > 55]:
            outcomes.pop(slot, None)
            target.end(slot)
        if patient:
            rig.settle()
        target.tell(chance.choice([0, 1, 2, 3, 4, 4, 4]), outcomes)
        newest = {}
        if patient:
            rig.settle()
            newest = target.take(ready=False)
            drafted += sum(map(len, newest.values()))
        elif chance.random() < 0.8:
            for _ in range(chance.randint(1, 6)):
                rig.turn()
            newest = target.take(ready=False)
            drafted += sum(map(len, newest.values()))
    rig.settle()
    target.take(ready=False)
    assert not target.asked
    return drafted
